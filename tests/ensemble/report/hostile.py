"""Texts of strangers that must not run, load or hide anything in the page."""

SCRIPT = "<script>document.title='run'</script>"
ATTRIBUTE = '"onerror="document.title=\'run\'" x="'
SINGLE = "'onmouseover='document.title=1"
IMAGE = "<img src=x onerror=document.title='run'>"
SVG = "<svg onload=document.title='run'><script>document.title='run'</script></svg>"
LINK = "javascript:document.title='run'"
CLOSING = "</script></style></title><script>document.title='run'</script>"
TEMPLATE = "{{ 7 * 7 }}{% raw %}"
FORMULA = "=cmd|'/c calc'!A1"
RIGHT_TO_LEFT = "safe\u202egpj.exe"
LATEX = r"\input{/etc/passwd} 50% of $x_1$ & {~^}"
MARKDOWN = "[link](javascript:1) | `code` **b**"
CONTROL = "tab\there\x00\x1b[31m\nline"
SURROGATE = "name\udcff"
LONG = "x" * 10_000
ALL = (
    *(SCRIPT, ATTRIBUTE, SINGLE, IMAGE, SVG, LINK, CLOSING, TEMPLATE, FORMULA, RIGHT_TO_LEFT, LATEX, MARKDOWN),
    *(CONTROL, SURROGATE, LONG, "+1+1", "@SUM(A1)", "-2+3"),
)
