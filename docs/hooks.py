"""Fill the generated pages of the site: the help of every command, the Python API, the map of modules.

MkDocs calls `on_page_markdown`. A page holds a comment where the generated text belongs, so that the page reads well
without a
build too.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("folds", "ensemble")
# Shown as the Python API as long as a package names no public functions of its own.
MODULES = ("folds.errors", "folds.metrics.intervals", "folds.predictions.files", "ensemble.learning.combination")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return the page's Markdown with its comments replaced by what they name."""
    for comment, make in (
        ("<!-- help of every command -->", command_help),
        ("<!-- python api -->", python_api),
        ("<!-- module map -->", module_map),
    ):
        if comment in markdown:
            markdown = markdown.replace(comment, make())
    return markdown


def command_help() -> str:
    """Return the help of every command, a section each, as the command line prints it."""
    sections = [f"## ensemble\n\n```text\n{_help().rstrip()}\n```\n"]
    for name in commands():
        sections.append(f"## ensemble {name}\n\n```text\n{_help(name).rstrip()}\n```\n")
        if name == "runs":
            for word in ("diff", "note", "show", "rm", "rename", "mv"):
                sections.append(f"### ensemble runs {word}\n\n```text\n{_help(name, word).rstrip()}\n```\n")
    return "\n".join(sections)


def commands() -> list[str]:
    """Return the names of the commands, in the order of `ensemble --help`."""
    lines = _help().split("\n\n")
    block = next(part for part in lines if part.lstrip().startswith("demo "))
    return [line.split()[0] for line in block.splitlines()]


def _help(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "ensemble.cli", *command, "--help"],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def python_api() -> str:
    """Return a directive of mkdocstrings for every public name, `folds` only for what `ensemble` does not show."""
    shown: set[str] = set()
    parts: list[str] = []
    for package in ("ensemble", "folds"):
        names = [name for name in public_names(package) if name not in shown]
        shown.update(names)
        if names:
            parts.append(f"## {package}\n\n" + "\n".join(f"::: {package}.{name}\n" for name in names))
    return "\n".join(parts or [f"::: {module}\n" for module in MODULES])


def public_names(package: str) -> list[str]:
    """Return what a package imports for type checkers only: its lazy public names; [] where it has no such block."""
    tree = ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    return [alias.asname or alias.name for node in imports for alias in node.names]


def module_map() -> str:
    """Return a table for each package: its modules, and the first line of the docstring of each."""
    parts: list[str] = []
    for package in PACKAGES:
        parts.append(f"## {package}\n")
        for folder, modules in _folders(ROOT / package):
            if modules:
                parts.append(f"### {folder}\n\n| module | what it does |\n|---|---|")
                parts += [f"| `{name}` | {line} |" for name, line in modules]
                parts.append("")
    return "\n".join(parts)


def _folders(package: Path) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    for folder in sorted({path.parent for path in package.rglob("*.py")}):
        files = sorted(path for path in folder.glob("*.py") if not path.name.startswith("_"))
        described = [(path.stem, _first_line(path)) for path in files]
        yield ".".join(folder.relative_to(ROOT).parts), [(name, line) for name, line in described if line]


def _first_line(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.split("\n")[0].replace("|", "\\|").replace("<", "&lt;")
