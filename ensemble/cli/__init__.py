"""The command line: one module a command; `main` is the entry point."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program with these words (those of the command line without them) and leave with its exit code."""
    from ensemble.cli.app import main as run

    run(arguments)
