"""The options of `ensemble blend`: names, help and panels, in the order of its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ensemble.blending.request import ALL_METHODS, COLUMN_METHODS
from ensemble.cli.terminal.options import REPORT, WRITTEN
from ensemble.pooling.spec import GRAMMAR
from folds.metrics.classification import METRICS

METHOD, MEMBERS, COLUMNS = "Combination", "Members", "Columns of tables"

FilesArgument = Annotated[
    list[Path],
    typer.Argument(
        help="prediction files (.npy, .npz), tables of probabilities or answers (.csv, .tsv, .parquet, .feather), "
        "or names of runs and blends",
        metavar="FILES|RUNS...",
    ),
]
MethodOption = Annotated[
    str | None,
    typer.Option(
        help=f"{', '.join((*ALL_METHODS, *COLUMN_METHODS))} [soft; weighted with --weights]",
        metavar="NAME",
        rich_help_panel=METHOD,
    ),
]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        help="weights of the runs: swin=.7,resnet18=.3, or .7,.3 in the order they first appear",
        metavar="W",
        rich_help_panel=METHOD,
    ),
]
PowerOption = Annotated[
    float | None,
    typer.Option(
        help="exponent of --method power: 1 mean, 0 geometric, -1 harmonic, large: maximum [2]",
        metavar="P",
        rich_help_panel=METHOD,
    ),
]
TrimOption = Annotated[
    float | None,
    typer.Option(
        help="share of the runs that --method trimmed leaves out at each end [.2]",
        metavar="SHARE",
        rich_help_panel=METHOD,
    ),
]
ByOption = Annotated[
    str,
    typer.Option(
        help="vote on the class, or on each attribute (mask, gender, age) separately and combine",
        metavar="class|attribute",
        rich_help_panel=METHOD,
    ),
]
CalibrateOption = Annotated[
    str | None,
    typer.Option(
        help="temperature or vector scaling, before or after pooling: after:temperature",
        metavar="WHERE:HOW",
        rich_help_panel=METHOD,
    ),
]
MaxMembersOption = Annotated[
    int | None,
    typer.Option(help="use at most N runs, chosen by nested score", metavar="N", rich_help_panel=METHOD),
]
BudgetOption = Annotated[
    float | None,
    typer.Option(
        help="use runs whose total cost per image is at most this: forward passes, or --cost",
        metavar="COST",
        rich_help_panel=METHOD,
    ),
]
CostOption = Annotated[
    str | None,
    typer.Option(help="cost of one pass of each run: swin=3,resnet18=1", metavar="C", rich_help_panel=METHOD),
]
RunOption = Annotated[str | None, typer.Option(help="blend only these runs", metavar="A[,B]", rich_help_panel=MEMBERS)]
LabelsOption = Annotated[
    Path | None,
    typer.Option(
        help="true labels by id: a table with id,label and preferably person",
        metavar="FILE.csv",
        rich_help_panel=MEMBERS,
    ),
]
UncertainOption = Annotated[
    str | None,
    typer.Option(
        help="what -1 in --labels (an uncertain one of several labels) is read as: unknown, absent or present",
        metavar="HOW",
        rich_help_panel=MEMBERS,
    ),
]
IdsOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--ids",
        help="a file with the ids of the rows of arrays without ids, in their order",
        metavar="FILE",
        rich_help_panel=MEMBERS,
    ),
]
ClassesOption = Annotated[
    str | None,
    typer.Option(
        help="classes of the columns of arrays without names, in order; for one column NEGATIVE,POSITIVE",
        metavar="A,B,C",
        rich_help_panel=MEMBERS,
    ),
]
PositiveOption = Annotated[
    str | None,
    typer.Option(
        "--positive",
        help="the positive one of two classes, for metrics of a positive class [stated, or by its name]",
        metavar="CLASS",
        rich_help_panel=MEMBERS,
    ),
]
TaskOption = Annotated[
    str | None,
    typer.Option(
        "--task",
        help="what the columns of files without a sidecar are: classes, multilabel or regression [classes]",
        metavar="NAME",
        rich_help_panel=MEMBERS,
    ),
]
IdOption = Annotated[
    str | None,
    typer.Option("--id", help="column of the ids in tables and labels", metavar="COLUMN", rich_help_panel=COLUMNS),
]
LabelOption = Annotated[
    str | None,
    typer.Option(
        "--label",
        help="column of the true labels; of several labels or numbers their columns: A,B,C",
        metavar="COLUMN",
        rich_help_panel=COLUMNS,
    ),
]
PersonOption = Annotated[
    str | None,
    typer.Option(
        "--person", "--group", help="column of the persons (groups)", metavar="COLUMN", rich_help_panel=COLUMNS
    ),
]
FoldColumnOption = Annotated[
    str | None,
    typer.Option("--fold-column", help="column of the folds", metavar="COLUMN", rich_help_panel=COLUMNS),
]
PredictionOption = Annotated[
    str | None,
    typer.Option("--prediction", help="column of the answers", metavar="COLUMN", rich_help_panel=COLUMNS),
]
ProbabilitiesOption = Annotated[
    str | None,
    typer.Option(
        "--probabilities",
        help="columns of probabilities, one per class, or that of the positive class",
        metavar="A,B,C",
        rich_help_panel=COLUMNS,
    ),
]
FromOption = Annotated[
    str | None,
    typer.Option(
        "--from",
        envvar="ENSEMBLE_FROM",
        help="content of arrays without a sidecar: probability or logit [probability]",
        metavar="WHAT",
        rich_help_panel=MEMBERS,
    ),
]
AllowDuplicatesOption = Annotated[
    bool,
    typer.Option(
        "--allow-duplicates", help="count files of equal content each time, not once", rich_help_panel=MEMBERS
    ),
]
UnfinishedOption = Annotated[
    bool,
    typer.Option("--unfinished", help="also use runs that are not trained on all their folds", rich_help_panel=MEMBERS),
]
MetricOption = Annotated[
    str | None,
    typer.Option(
        help=f"metric to score by and to optimize: {', '.join(METRICS)}, or your own function [macro_f1; of "
        "several labels roc_auc, of numbers mae]",
        metavar="NAME|module:function",
        rich_help_panel=REPORT,
    ),
]
PoolOption = Annotated[
    str | None,
    typer.Option(
        "--pool",
        help="one prediction per person, learned and scored on people: how the images of a person are pooled; "
        "log-odds, learned and auto are fitted",
        metavar=GRAMMAR,
        rich_help_panel=METHOD,
    ),
]
WithOption = Annotated[
    str | None,
    typer.Option(
        "--with",
        envvar="ENSEMBLE_WITH",
        help="columns of the table that --method stacking uses beside the predictions (age, sex); a site tells "
        "the class mix of known sites, which new ones do not have: compare with kfold --leave-out site",
        metavar="A[,B:category]",
        rich_help_panel=METHOD,
    ),
]
ContributionsOption = Annotated[
    bool | None,
    typer.Option(
        "--contributions/--no-contributions",
        "--worth/--no-worth",
        help="contribution of each run to the score, and which runs can be dropped [with auto]",
        rich_help_panel=REPORT,
    ),
]
BreakdownOption = Annotated[
    bool,
    typer.Option(
        "--breakdown",
        "--detail",
        help="scores by class and attribute, and confidence against accuracy",
        rich_help_panel=REPORT,
    ),
]
OutputOption = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        help="name: writes runs/blends/NAME [method and hash]",
        metavar="NAME",
        rich_help_panel=WRITTEN,
    ),
]
ForceOption = Annotated[bool, typer.Option("--force", help="replace an existing blend or CSV", rich_help_panel=WRITTEN)]
CheckOption = Annotated[
    bool,
    typer.Option("--check", help="only say how each file is read and what would be done", rich_help_panel=WRITTEN),
]
