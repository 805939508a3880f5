"""`ensemble report`: write one page that shows what the numbers mean, and the images behind them."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from ensemble.cli.terminal import console
from ensemble.cli.terminal.options import REPORT, RUN, WRITTEN, ScoreByOption


def report(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            help="names of runs and blends, prediction files, or a table of images [all runs in runs/, and the newest "
            "blend]",
            metavar="[RUN|BLEND|FILE|DATA]...",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="the file to write", metavar="FILE", rich_help_panel=WRITTEN),
    ] = Path("report.html"),
    show: Annotated[bool, typer.Option("--open", help="show the page in the browser", rich_help_panel=WRITTEN)] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            help="the table that the runs were trained on, if it has moved", metavar="PATH", rich_help_panel=REPORT
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="metric of the scores, or module:function [macro_f1; several labels: roc_auc, numbers: mae]",
            rich_help_panel=REPORT,
            show_default=False,
        ),
    ] = None,
    score_by: ScoreByOption = None,
    label: Annotated[
        str | None,
        typer.Option(
            help="of a table that is shown without predictions: its column of labels, or several columns of labels or "
            "numbers: A,B,C",
            metavar="NAME,...",
            rich_help_panel=REPORT,
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="of such a table: classes, multilabel or regression [found from the cells]",
            metavar="TASK",
            rich_help_panel=REPORT,
            show_default=False,
        ),
    ] = None,
    uncertain: Annotated[
        str | None,
        typer.Option(
            help="of such a table: what -1, an uncertain one of several labels, is read as: unknown, absent or present",
            metavar="NAME",
            rich_help_panel=REPORT,
        ),
    ] = None,
    section: Annotated[
        list[str] | None,
        typer.Option(
            help="show this section only; may be repeated: verdict, data, training, compare, pooling, mistakes, "
            "heatmaps, calibration, learning, labels, method [all]",
            metavar="NAME",
            rich_help_panel=REPORT,
        ),
    ] = None,
    heat_maps: Annotated[
        int,
        typer.Option(
            help="out-of-fold images that get a heat map, for which models predict",
            min=0,
            metavar="N",
            rich_help_panel=REPORT,
        ),
    ] = 0,
    tables: Annotated[
        Path | None,
        typer.Option(
            help="also write each table into this folder, as CSV, Markdown and LaTeX",
            metavar="FOLDER",
            rich_help_panel=WRITTEN,
        ),
    ] = None,
    no_formulas: Annotated[
        bool,
        typer.Option(
            "--no-formulas",
            help="with --tables: cells of the CSVs that a spreadsheet would take for formulas get an apostrophe",
            rich_help_panel=WRITTEN,
        ),
    ] = False,
    log_to: Annotated[
        list[str] | None,
        typer.Option(
            help="also store the page in mlflow, wandb or trackio, with the runs that it shows; may be repeated",
            metavar="NAME",
            rich_help_panel=WRITTEN,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace existing files", rich_help_panel=RUN)] = False,
) -> int:
    """Write one page: what to submit and how sure that is, the data, the scores, the mistakes, and the images.

    The page is one HTML file without network, for a browser, a phone, a screen reader or a printer. It is made from
    what is on disk; a part whose inputs are missing says how to get it.
    """
    from folds.utils.startup import lasting_imports

    with lasting_imports():
        from ensemble.cli.terminal.progress import TerminalProgress
        from ensemble.report.face import report as write_report
        from folds.errors import UsageError
        from folds.utils.text import size_text

    if score_by not in (None, "person"):
        raise UsageError(f"`score_by={score_by}`: expected person", hint="remove it to score images")
    if no_formulas and tables is None:
        raise UsageError("`no_formulas` applies to the files of `tables`", hint="name their folder: `tables=tables`")
    path = write_report(
        list(what or ()),
        output=output,
        data=data,
        metric=metric,
        per_person=score_by is not None,
        label=label,
        task=task,
        uncertain=uncertain,
        section=list(section or ()) or None,
        heat_maps=heat_maps,
        tables=tables,
        no_formulas=no_formulas,
        open=show,
        log_to=list(log_to or ()) or None,
        force=force,
        progress=TerminalProgress(),
    )
    size = path.stat().st_size
    beside = "" if tables is None else f"; its tables are in {tables}"
    folder = {} if tables is None else {"tables": str(tables)}
    console.result(f"{path} written ({size_text(size)}){beside}", {"path": str(path), "bytes": size, **folder})
    if not show:
        console.next_step(f"ensemble report {shlex.join([*(what or ()), '-o', str(output)])} --open --force")
    return 0
