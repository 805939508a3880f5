"""The command line: one module per command; `main` is the entry point."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program with these arguments (by default those of the command line) and exit with its code."""
    from ensemble.cli.app import main as run

    run(arguments)
