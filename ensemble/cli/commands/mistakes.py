"""`ensemble mistakes`: the worst mistakes, the people who are often wrong, and what each member said."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ensemble.cli.terminal import console

PAGE = Path("mistakes.html")


def mistakes(
    what: Annotated[
        list[str],
        typer.Argument(help="a run, a blend, or several runs or prediction files", metavar="RUN|BLEND|FILES..."),
    ],
    most: Annotated[int, typer.Option("-n", "--most", help="number of mistakes to print", metavar="N", min=1)] = 40,
    people: Annotated[int, typer.Option(help="number of people to print", metavar="N", min=1)] = 10,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="write all mistakes with what each member said as a CSV", metavar="FILE.csv"
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="true labels by id: a table with id,label and preferably person", metavar="FILE.csv"),
    ] = None,
    open: Annotated[
        bool, typer.Option("--open", help=f"write the mistakes as a page, {PAGE}, and show it in the browser")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="replace existing files")] = False,
) -> int:
    """Print the worst mistakes and the people with the most wrong images.

    Out-of-fold predictions are judged if there are any, else test predictions. The worst mistakes are those with the
    highest confidence in a wrong class; of several labels, the least probable answers of the table; of numbers, the
    largest differences. Of a blend, the members are the runs that it was made of.
    """
    from ensemble.cli.reports.mistakes import mistakes_report
    from ensemble.cli.terminal.progress import TerminalProgress
    from ensemble.review.column_mistakes import ColumnMistakes
    from ensemble.review.mistakes import mistakes as find_mistakes
    from folds.utils.files import check_not_existing

    if output is not None:
        check_not_existing(output, "the file", force)
    if open:
        check_not_existing(PAGE, "the page", force)
    found = find_mistakes(what, most=most, people=people, labels=labels, progress=TerminalProgress())
    if output is not None:
        found.save(output, force=force)
    console.result(mistakes_report(found), found.to_dict() | {"csv": None if output is None else str(output)})
    print_notes(found.notes)
    if output is not None:
        noun = "differences" if isinstance(found, ColumnMistakes) and found.errors else "mistakes"
        console.note(f"\n{output} has all {len(found):,} {noun}")
    if open:
        open_page(what, "mistakes", PAGE)
    elif output is None:
        console.next_step("ensemble mistakes", [*what, "--open"])
    return 0


def print_notes(notes: Sequence[str]) -> None:
    """Print what the user should know about the files."""
    for line in notes:
        console.warn(line.removeprefix("warning: ")) if line.startswith("warning: ") else console.note(line)


def open_page(what: list[str], section: str, path: Path) -> None:
    """Write one section of the report about predictions as a page, and show it in the browser."""
    from ensemble.report.face import report

    report(what, section=[section], output=path, open=True, force=True)
    console.note(f"{path} is written")
