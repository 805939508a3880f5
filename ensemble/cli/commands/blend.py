"""`ensemble blend`: combine prediction files by voting, or by a method fitted on out-of-fold predictions."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from ensemble.blending.blend import Blend, make_blend
from ensemble.blending.check import check_blend
from ensemble.blending.output import Answers, answers_of, blend_folder, check_answers_file, write_blend
from ensemble.blending.request import ALL_METHODS, COLUMN_METHODS, BlendConfig
from ensemble.blending.scores import ranking_of
from ensemble.cli.reports.blend import blend_report
from ensemble.cli.reports.check import check_report
from ensemble.cli.terminal import console
from ensemble.cli.terminal.options import (
    REPORT,
    WRITTEN,
    ColumnsOption,
    FormOption,
    LikeOption,
    ScoreByOption,
    csv_columns,
    scored_by_person,
)
from ensemble.cli.terminal.progress import TerminalProgress
from ensemble.members.columns import ColumnNames
from ensemble.pooling.spec import GRAMMAR
from folds.errors import UsageError
from folds.metrics.classification import METRICS
from folds.utils.files import write_atomic

METHOD, MEMBERS, COLUMNS = "Combination", "Members", "Columns of tables"


def blend(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="prediction files (.npy, .npz), tables of probabilities or answers (.csv, .tsv, .parquet, .feather), "
            "or names of runs and blends",
            metavar="FILES|RUNS...",
        ),
    ],
    method: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join((*ALL_METHODS, *COLUMN_METHODS))} [soft; weighted with --weights]",
            metavar="NAME",
            rich_help_panel=METHOD,
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="weights of the runs: swin=.7,resnet18=.3, or .7,.3 in the order they first appear",
            metavar="W",
            rich_help_panel=METHOD,
        ),
    ] = None,
    power: Annotated[
        float | None,
        typer.Option(
            help="exponent of --method power: 1 mean, 0 geometric, -1 harmonic, large: maximum [2]",
            metavar="P",
            rich_help_panel=METHOD,
        ),
    ] = None,
    trim: Annotated[
        float | None,
        typer.Option(
            help="share of the runs that --method trimmed leaves out at each end [.2]",
            metavar="SHARE",
            rich_help_panel=METHOD,
        ),
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            help="vote on the class, or on each attribute (mask, gender, age) separately and combine",
            metavar="class|attribute",
            rich_help_panel=METHOD,
        ),
    ] = "class",
    calibrate: Annotated[
        str | None,
        typer.Option(
            help="temperature or vector scaling, before or after pooling: after:temperature",
            metavar="WHERE:HOW",
            rich_help_panel=METHOD,
        ),
    ] = None,
    max_members: Annotated[
        int | None,
        typer.Option(help="use at most N runs, chosen by nested score", metavar="N", rich_help_panel=METHOD),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            help="use runs whose total cost per image is at most this: forward passes, or --cost",
            metavar="COST",
            rich_help_panel=METHOD,
        ),
    ] = None,
    cost: Annotated[
        str | None,
        typer.Option(help="cost of one pass of each run: swin=3,resnet18=1", metavar="C", rich_help_panel=METHOD),
    ] = None,
    run: Annotated[
        str | None, typer.Option(help="blend only these runs", metavar="A[,B]", rich_help_panel=MEMBERS)
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="true labels by id: a table with id,label and preferably person",
            metavar="FILE.csv",
            rich_help_panel=MEMBERS,
        ),
    ] = None,
    uncertain: Annotated[
        str | None,
        typer.Option(
            help="what -1 in --labels (an uncertain one of several labels) is read as: unknown, absent or present",
            metavar="HOW",
            rich_help_panel=MEMBERS,
        ),
    ] = None,
    ids: Annotated[
        list[Path] | None,
        typer.Option(
            "--ids",
            help="a file with the ids of the rows of arrays without ids, in their order",
            metavar="FILE",
            rich_help_panel=MEMBERS,
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            help="classes of the columns of arrays without names, in order; for one column NEGATIVE,POSITIVE",
            metavar="A,B,C",
            rich_help_panel=MEMBERS,
        ),
    ] = None,
    positive: Annotated[
        str | None,
        typer.Option(
            "--positive",
            help="the positive one of two classes, for metrics of a positive class [stated, or by its name]",
            metavar="CLASS",
            rich_help_panel=MEMBERS,
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            help="what the columns of files without a sidecar are: classes, multilabel or regression [classes]",
            metavar="NAME",
            rich_help_panel=MEMBERS,
        ),
    ] = None,
    id: Annotated[
        str | None,
        typer.Option("--id", help="column of the ids in tables and labels", metavar="COLUMN", rich_help_panel=COLUMNS),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            "--label",
            help="column of the true labels; of several labels or numbers their columns: A,B,C",
            metavar="COLUMN",
            rich_help_panel=COLUMNS,
        ),
    ] = None,
    person: Annotated[
        str | None,
        typer.Option(
            "--person", "--group", help="column of the persons (groups)", metavar="COLUMN", rich_help_panel=COLUMNS
        ),
    ] = None,
    fold_column: Annotated[
        str | None,
        typer.Option("--fold-column", help="column of the folds", metavar="COLUMN", rich_help_panel=COLUMNS),
    ] = None,
    prediction: Annotated[
        str | None,
        typer.Option("--prediction", help="column of the answers", metavar="COLUMN", rich_help_panel=COLUMNS),
    ] = None,
    probabilities: Annotated[
        str | None,
        typer.Option(
            "--probabilities",
            help="columns of probabilities, one per class, or that of the positive class",
            metavar="A,B,C",
            rich_help_panel=COLUMNS,
        ),
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            envvar="ENSEMBLE_FROM",
            help="content of arrays without a sidecar: probability or logit [probability]",
            metavar="WHAT",
            rich_help_panel=MEMBERS,
        ),
    ] = None,
    allow_duplicates: Annotated[
        bool,
        typer.Option(
            "--allow-duplicates", help="count files of equal content each time, not once", rich_help_panel=MEMBERS
        ),
    ] = False,
    unfinished: Annotated[
        bool,
        typer.Option(
            "--unfinished", help="also use runs that are not trained on all their folds", rich_help_panel=MEMBERS
        ),
    ] = False,
    metric: Annotated[
        str | None,
        typer.Option(
            help=f"metric to score by and to optimize: {', '.join(METRICS)}, or your own function [macro_f1; of "
            "several labels roc_auc, of numbers mae]",
            metavar="NAME|module:function",
            rich_help_panel=REPORT,
        ),
    ] = None,
    score_by: ScoreByOption = None,
    pool: Annotated[
        str | None,
        typer.Option(
            "--pool",
            help="one prediction per person, learned and scored on people: how the images of a person are pooled; "
            "log-odds, learned and auto are fitted",
            metavar=GRAMMAR,
            rich_help_panel=METHOD,
        ),
    ] = None,
    with_: Annotated[
        str | None,
        typer.Option(
            "--with",
            envvar="ENSEMBLE_WITH",
            help="columns of the table that --method stacking uses beside the predictions (age, sex); a site tells "
            "the class mix of known sites, which new ones do not have: compare with kfold --leave-out site",
            metavar="A[,B:category]",
            rich_help_panel=METHOD,
        ),
    ] = None,
    contributions: Annotated[
        bool | None,
        typer.Option(
            "--contributions/--no-contributions",
            "--worth/--no-worth",
            help="contribution of each run to the score, and which runs can be dropped [with auto]",
            rich_help_panel=REPORT,
        ),
    ] = None,
    breakdown: Annotated[
        bool,
        typer.Option(
            "--breakdown",
            "--detail",
            help="scores by class and attribute, and confidence against accuracy",
            rich_help_panel=REPORT,
        ),
    ] = False,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            help="name: writes runs/blends/NAME [method and hash]",
            metavar="NAME",
            rich_help_panel=WRITTEN,
        ),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            help="also write the decisions: ImageID,ans of the test samples", metavar="FILE", rich_help_panel=WRITTEN
        ),
    ] = None,
    form: FormOption = None,
    columns: ColumnsOption = None,
    like: LikeOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="replace an existing blend or CSV", rich_help_panel=WRITTEN)
    ] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="only say how each file is read and what would be done", rich_help_panel=WRITTEN),
    ] = False,
) -> int:
    """Combine predictions, aligned by id and class name, and score the combination.

    The folds of a run are averaged first, then the runs vote. Learned weights and methods are fitted on out-of-fold
    predictions and scored by nested cross-validation: no person is scored by weights fitted on them. Repeating a
    command gives the same result.
    """
    # Parameters of the library with another name than the option of this command.
    console.flags = {
        **console.flags,
        "runs": "--run",
        "logits": "--from logit",
        "per_person": "--score-by person",
        "name": "-o",
        "fold": "--fold-column",
        "extra": "--with",
    }
    per_person = scored_by_person(score_by)
    names = csv_columns(csv, form, columns, like)
    if from_ not in (None, "probability", "logit"):
        raise UsageError(
            f"--from {from_}: expected probability or logit", hint="--from logit if the arrays hold logits"
        )
    request = BlendConfig(
        method=method,
        weights=weights,
        runs=_run_names(run),
        metric=metric,
        per_person=per_person,
        labels=labels,
        logits=from_ == "logit",
        power=power,
        trim=trim,
        by=by,
        allow_duplicates=allow_duplicates,
        calibrate=calibrate,
        max_members=max_members,
        budget=budget,
        cost=cost,
        contributions=contributions,
        detail=breakdown,
        columns=ColumnNames(id, label, person, fold_column, prediction, _names(probabilities)),
        classes=None if classes is None else _names(classes),
        ids=tuple(ids or ()),
        unfinished=unfinished,
        positive=positive,
        task=task,
        pool=pool,
        extra=tuple(filter(None, _names(with_))),
        uncertain=uncertain,
    )
    if check:
        return _check(files, request)
    made = make_blend(files, request, TerminalProgress())
    wanted = _Wanted(output, csv, form, names, like, force)
    _show(made, files, wanted, _write(made, wanted))
    return 0


class _Wanted(NamedTuple):
    """What is to be written."""

    output: str | None
    csv: Path | None
    form: str | None
    columns: list[str] | None
    like: Path | None
    force: bool


class _Written(NamedTuple):
    """What was written: the folder, whether it is new, and the content of the CSV."""

    folder: Path
    is_new: bool
    answers: Answers | None


def _write(made: Blend, wanted: _Wanted) -> _Written:
    """Write a blend and its CSV; every check comes before the first write."""
    folder = blend_folder(made, wanted.output)
    answers = None if wanted.csv is None else answers_of(made, wanted.form, wanted.columns, wanted.like)
    if wanted.csv is not None and answers is not None:
        check_answers_file(answers, wanted.csv, wanted.force)
    is_new = bool(write_blend(made, folder, wanted.force))
    if wanted.csv is not None and answers is not None:
        write_atomic(wanted.csv, answers.content)
    return _Written(folder, is_new, answers)


def _show(made: Blend, files: list[Path], wanted: _Wanted, written: _Written) -> None:
    """Print the scores of a blend, what was written, and the next command."""
    (folder, is_new, answers), csv = written, wanted.csv
    record: dict[str, Any] = {"name": folder.name, "folder": str(folder)} | made.record()
    console.result(blend_report(made), record | {"csv": None if csv is None else str(csv)})
    console.note(f"\n{folder} {'is written' if is_new else 'holds this blend already'}")
    if answers is not None:
        what = "decisions" if (wanted.form, wanted.columns, wanted.like) == (None, None, None) else "predictions"
        split = "test" if answers.split == "test" else "out-of-fold"
        console.note(f"{csv} has the {what} for {'the ' * (wanted.like is None)}{answers.rows:,} {split} samples")
        if answers.split != "test":
            console.warn(f"{csv} has out-of-fold samples, not test samples: no file has predictions of test samples")
    console.next_step(*_next(made, files, csv))


def _run_names(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    runs = tuple(filter(None, _names(text)))
    if not runs:
        raise UsageError("--run names no run", hint="--run A,B blends these; leave it out to blend all")
    return runs


def _names(text: str | None) -> tuple[str, ...]:
    return () if text is None else tuple(name.strip() for name in text.split(","))


def _check(files: list[Path], request: BlendConfig) -> int:
    found = check_blend(files, request)
    console.result(check_report(found), found.to_dict())
    for warning in found.warnings:
        console.warn(warning)
    if found.error is not None:
        raise found.error
    console.note("\nnothing is written")
    return 0


def _next(made: Blend, files: list[Path], csv: Path | None) -> tuple[str, list[str]]:
    """Return the suggested next command and its options."""
    plain = {run.name for split in made.splits.values() for run in split.runs if not run.views}
    trained = [
        name
        for name in ranking_of(made.runs, made.request.scored.greater_is_better)
        if name in plain and Path("checkpoints", name).is_dir()
    ]
    if trained:
        views = "hflip" if _may_be_mirrored(next(iter(made.splits.values())).classes) else "scale:1.1"
        return f"ensemble tta {trained[0]} --views {views}", console.again("score_by")
    named = shlex.join(map(str, files))
    parents = {path.parent for path in files}
    if len(parents) == 1 and set(parents.pop().glob("*.npy")) == set(files):
        named = f"{files[0].parent}/*.npy"
    command = f"ensemble blend {named if len(named) < 200 else '…'}"
    if csv is None and "test" in made.votes:
        return command, [*console.again_without("csv", "force"), "--csv", "answers.csv"]
    # The decisions are written, or there is no test sample: what may make them better, else what was made.
    several, labeled = len(made.runs) > 1, made.total.get("oof") is not None and made.total["oof"].score is not None
    if several and labeled and made.request.name in ("soft", "hard", "grades"):
        without = ("csv", "force", "output", *_OF_CSV, *_OF_METHOD)
        return command, [*console.again_without(*without), "--method", "auto"]
    return "ensemble runs", []


_OF_CSV = ("form", "columns", "like")
_OF_METHOD = ("method", "weights", "power", "trim", "by", "calibrate")


def _may_be_mirrored(classes: Sequence[str]) -> bool:
    """Return whether a mirrored image can keep its class, by their names: not letters, digits, left or right."""
    sides = re.compile(r"(?i)(^|[^a-z])(left|right|links|rechts|clockwise|os|od|[lr])([^a-z]|$)")
    return not any(len(name.strip()) == 1 or name.strip().isdecimal() or sides.search(name) for name in classes)
