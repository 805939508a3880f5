"""`ensemble blend`: combine prediction files by voting, or by a method fitted on out-of-fold predictions."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ensemble.blending.blend import Blend, make_blend
from ensemble.blending.check import check_blend
from ensemble.blending.output import Answers, answers_of, blend_folder, check_answers_file, write_blend
from ensemble.blending.request import BlendConfig
from ensemble.blending.scores import ranking_of
from ensemble.cli.commands.blend_options import (
    AllowDuplicatesOption,
    BreakdownOption,
    BudgetOption,
    ByOption,
    CalibrateOption,
    CheckOption,
    ClassesOption,
    ContributionsOption,
    CostOption,
    FilesArgument,
    FoldColumnOption,
    ForceOption,
    FromOption,
    IdOption,
    IdsOption,
    LabelOption,
    LabelsOption,
    MaxMembersOption,
    MethodOption,
    MetricOption,
    OutputOption,
    PersonOption,
    PoolOption,
    PositiveOption,
    PowerOption,
    PredictionOption,
    ProbabilitiesOption,
    RunOption,
    TaskOption,
    TrimOption,
    UncertainOption,
    UnfinishedOption,
    WeightsOption,
    WithOption,
)
from ensemble.cli.reports.blend import blend_report
from ensemble.cli.reports.check import check_report
from ensemble.cli.terminal import console
from ensemble.cli.terminal.options import (
    ColumnsOption,
    CsvOption,
    FormOption,
    LikeOption,
    ScoreByOption,
    csv_columns,
    listed,
    scored_by_person,
)
from ensemble.cli.terminal.progress import TerminalProgress
from ensemble.members.columns import ColumnNames
from folds.errors import UsageError
from folds.utils.files import write_atomic

# Parameters of the library with another name than the option of this command.
_FLAGS = {
    "runs": "--run",
    "logits": "--from logit",
    "per_person": "--score-by person",
    "name": "-o",
    "fold": "--fold-column",
    "extra": "--with",
}


def blend(
    files: FilesArgument,
    method: MethodOption = None,
    weights: WeightsOption = None,
    power: PowerOption = None,
    trim: TrimOption = None,
    by: ByOption = "class",
    calibrate: CalibrateOption = None,
    max_members: MaxMembersOption = None,
    budget: BudgetOption = None,
    cost: CostOption = None,
    run: RunOption = None,
    labels: LabelsOption = None,
    uncertain: UncertainOption = None,
    ids: IdsOption = None,
    classes: ClassesOption = None,
    positive: PositiveOption = None,
    task: TaskOption = None,
    id: IdOption = None,
    label: LabelOption = None,
    person: PersonOption = None,
    fold_column: FoldColumnOption = None,
    prediction: PredictionOption = None,
    probabilities: ProbabilitiesOption = None,
    from_: FromOption = None,
    allow_duplicates: AllowDuplicatesOption = False,
    unfinished: UnfinishedOption = False,
    metric: MetricOption = None,
    score_by: ScoreByOption = None,
    pool: PoolOption = None,
    with_: WithOption = None,
    contributions: ContributionsOption = None,
    breakdown: BreakdownOption = False,
    output: OutputOption = None,
    csv: CsvOption = None,
    form: FormOption = None,
    columns: ColumnsOption = None,
    like: LikeOption = None,
    force: ForceOption = False,
    check: CheckOption = False,
) -> int:
    """Combine predictions, aligned by id and class name, and score the combination.

    The folds of a run are averaged first, then the runs vote. Learned weights and methods are fitted on out-of-fold
    predictions and scored by nested cross-validation: no person is scored by weights fitted on them. Repeating a
    command gives the same result.
    """
    console.flags = {**console.flags, **_FLAGS}
    per_person = scored_by_person(score_by)
    names = csv_columns(csv, form, columns, like)
    request = BlendConfig(
        method=method,
        weights=weights,
        runs=_run_names(run),
        metric=metric,
        per_person=per_person,
        labels=labels,
        logits=_holds_logits(from_),
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
        extra=listed(with_) or (),
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


def _holds_logits(text: str | None) -> bool:
    """Return whether ``--from logit`` is given; anything but ``probability`` or ``logit`` is an error."""
    if text not in (None, "probability", "logit"):
        raise UsageError(f"--from {text}: expected probability or logit", hint="--from logit if the arrays hold logits")
    return text == "logit"


def _run_names(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    runs = listed(text) or ()
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
