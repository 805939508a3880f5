"""The options of `ensemble report`: names, help and panels, in the order of its help."""

from pathlib import Path
from typing import Annotated

import typer

from ensemble.cli.terminal.options import REPORT, RUN, WRITTEN

WhatArgument = Annotated[
    list[str] | None,
    typer.Argument(
        help="names of runs and blends, prediction files, or a table of images [all runs in runs/, and the newest "
        "blend]",
        metavar="[RUN|BLEND|FILE|DATA]...",
        show_default=False,
    ),
]
OutputOption = Annotated[
    Path,
    typer.Option("-o", "--output", help="the file to write", metavar="FILE", rich_help_panel=WRITTEN),
]
OpenOption = Annotated[bool, typer.Option("--open", help="show the page in the browser", rich_help_panel=WRITTEN)]
DataOption = Annotated[
    Path | None,
    typer.Option(
        help="the table that the runs were trained on, if it has moved", metavar="PATH", rich_help_panel=REPORT
    ),
]
MetricOption = Annotated[
    str | None,
    typer.Option(
        help="metric of the scores, or module:function [macro_f1; several labels: roc_auc, numbers: mae]",
        rich_help_panel=REPORT,
        show_default=False,
    ),
]
LabelOption = Annotated[
    str | None,
    typer.Option(
        help="of a table that is shown without predictions: its column of labels, or several columns of labels or "
        "numbers: A,B,C",
        metavar="NAME,...",
        rich_help_panel=REPORT,
    ),
]
TaskOption = Annotated[
    str | None,
    typer.Option(
        help="of such a table: classes, multilabel or regression [found from the cells]",
        metavar="TASK",
        rich_help_panel=REPORT,
        show_default=False,
    ),
]
UncertainOption = Annotated[
    str | None,
    typer.Option(
        help="of such a table: what -1, an uncertain one of several labels, is read as: unknown, absent or present",
        metavar="NAME",
        rich_help_panel=REPORT,
    ),
]
SectionOption = Annotated[
    list[str] | None,
    typer.Option(
        help="show this section only; may be repeated: verdict, data, training, compare, pooling, mistakes, "
        "heatmaps, calibration, learning, labels, method [all]",
        metavar="NAME",
        rich_help_panel=REPORT,
    ),
]
HeatMapsOption = Annotated[
    int,
    typer.Option(
        help="out-of-fold images that get a heat map, for which models predict",
        min=0,
        metavar="N",
        rich_help_panel=REPORT,
    ),
]
TablesOption = Annotated[
    Path | None,
    typer.Option(
        help="also write each table into this folder, as CSV, Markdown and LaTeX",
        metavar="FOLDER",
        rich_help_panel=WRITTEN,
    ),
]
NoFormulasOption = Annotated[
    bool,
    typer.Option(
        "--no-formulas",
        help="with --tables: cells of the CSVs that a spreadsheet would take for formulas get an apostrophe",
        rich_help_panel=WRITTEN,
    ),
]
LogToOption = Annotated[
    list[str] | None,
    typer.Option(
        help="also store the page in mlflow, wandb or trackio, with the runs that it shows; may be repeated",
        metavar="NAME",
        rich_help_panel=WRITTEN,
    ),
]
ForceOption = Annotated[bool, typer.Option("--force", help="replace existing files", rich_help_panel=RUN)]
