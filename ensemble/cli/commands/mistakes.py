"""`ensemble mistakes`: the worst mistakes, the people who are often wrong, and what each member said."""

from __future__ import annotations

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
    highest confidence in a wrong class. Of a blend, the members are the runs that it was made of.
    """
    from ensemble.analysis.mistakes import mistake_columns
    from ensemble.blending.labeled_predictions import read_labeled_predictions
    from ensemble.cli.reports.mistakes import mistakes_record, mistakes_report
    from ensemble.cli.terminal.progress import TerminalProgress
    from folds.utils.csv_table import csv_text
    from folds.utils.files import check_not_existing, write_atomic

    if output is not None:
        check_not_existing(output, "the file", force)
    if open:
        check_not_existing(PAGE, "the page", force)
    found = read_labeled_predictions(what, labels=labels, progress=TerminalProgress())
    if output is not None:
        write_atomic(output, csv_text(mistake_columns(found.rows)))
    record = mistakes_record(found, most, people) | {"csv": None if output is None else str(output)}
    console.result(mistakes_report(found, most, people), record)
    for line in found.notes:
        console.warn(line.removeprefix("warning: ")) if line.startswith("warning: ") else console.note(line)
    if output is not None:
        console.note(f"\n{output} has all {int(found.rows.wrong.sum()):,} mistakes")
    if open:
        open_page(what, "mistakes", PAGE)
    elif output is None:
        console.next_step("ensemble mistakes", [*what, "--open"])
    return 0


def open_page(what: list[str], section: str, path: Path) -> None:
    """Write one section of the report about predictions as a page, and show it in the browser."""
    from ensemble.report.face import report

    report(what, section=[section], output=path, open=True, force=True)
    console.note(f"{path} is written")
