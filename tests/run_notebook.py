"""Run the code cells of a notebook in this process, as a kernel would: the last value of a cell shows itself as HTML
and as text.

python tests/run_notebook.py NOTEBOOK [NAME=VALUE …]     the values replace those of the cell tagged "parameters"
"""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from typing import Any


def code_cells(path: Path) -> list[dict[str, Any]]:
    """The code cells of a notebook."""
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def run(path: Path, parameters: dict[str, Any]) -> None:
    """Run all cells; print what each shows."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(code_cells(path)):
        source = "".join(cell["source"])
        tree = ast.parse(source)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, f"cell {number}", "exec"), namespace)  # noqa: S102
        if "parameters" in cell["metadata"].get("tags", ()):
            assert parameters.keys() <= namespace.keys(), "a parameter that the notebook does not have"
            namespace.update(parameters)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), namespace)  # noqa: S307
            shown = getattr(value, "_repr_html_", lambda: "")() or ""
            print(f"--- {source.splitlines()[-1]}\n{value!r}\n({len(shown):,} characters of HTML)")


if __name__ == "__main__":
    run(
        Path(sys.argv[1]),
        {name: ast.literal_eval(value) for name, value in (word.split("=", 1) for word in sys.argv[2:])},
    )
