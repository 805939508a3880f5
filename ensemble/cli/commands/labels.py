"""`ensemble labels`: find labels in doubt by out-of-fold votes, and write a table to fill in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ensemble.cli.terminal import console

PAGE = Path("labels.html")


def labels(
    what: Annotated[
        list[str],
        typer.Argument(help="a run, a blend, or several runs or prediction files", metavar="RUN|BLEND|FILES..."),
    ],
    most: Annotated[int, typer.Option("-n", "--most", help="number of labels to print", metavar="N", min=1)] = 20,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="write the labels in doubt as a table to fill in: new_label, and decision: drop, soften or keep",
            metavar="FILE.csv",
        ),
    ] = None,
    open: Annotated[
        bool, typer.Option("--open", help=f"write the labels in doubt as a page, {PAGE}, and show it in the browser")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="replace existing files")] = False,
) -> int:
    """Print the labels that out-of-fold votes contradict; nothing is changed.

    Needs cleanlab (pip install 'ensemble-folds[clean]'). Where all images of each person have one label, each person
    counts once. ensemble kfold --relabel, --drop and --soften train with the table that you fill in. Of several labels
    each is judged by itself, and numbers are in doubt if their difference is unusual: correct these in your table.
    """
    from ensemble.cli.commands.mistakes import open_page, print_notes
    from ensemble.cli.reports.mistakes import labels_report
    from ensemble.cli.terminal.progress import TerminalProgress
    from ensemble.review.column_labels import DoubtfulColumns
    from ensemble.review.labels import labels as find_labels
    from folds.utils.files import check_not_existing

    if output is not None:
        check_not_existing(output, "the table", force)
    if open:
        check_not_existing(PAGE, "the page", force)
    found = find_labels(what, most=most, progress=TerminalProgress())
    if output is not None:
        found.save(output, force=force)
    console.result(labels_report(found), found.to_dict() | {"csv": None if output is None else str(output)})
    print_notes(found.notes)
    if isinstance(found, DoubtfulColumns):
        if output is not None:
            console.note(
                f"\n{output} is written" + ("; correct your table where a doubt is right" if len(found) else "")
            )
        if open:
            open_page(what, "labels", PAGE)
        elif output is None:
            console.next_step("ensemble labels", [*what, "-o", "labels.csv"])
        return 0
    unjudged = found.doubts.unjudged
    if unjudged:
        names = ", ".join(unjudged[:5]) + (" …" if len(unjudged) > 5 else "")
        console.note(f"not judged, because only one person has them: labels of {names}")
    console.note("\na doubt is a reason to look at an image, no proof that its label is wrong")
    if open:
        open_page(what, "labels", PAGE)
    if output is not None:
        console.note(f"{output}: fill in new_label, or write drop or soften into decision")
        console.next_step("ensemble kfold --relabel", [str(output)])
    elif not open:
        console.next_step("ensemble labels", [*what, "-o", "labels.csv"])
    return 0
