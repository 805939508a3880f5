"""`ensemble predict`: predict new images with a checkpoint, a run or a blend."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from ensemble.cli.terminal import console
from ensemble.cli.terminal.options import (
    EXECUTION,
    REPORT,
    RUN,
    WRITTEN,
    CascadeOption,
    ColumnsOption,
    CsvOption,
    FoldsOption,
    FormOption,
    LikeOption,
    PassCostOption,
    PredictingDevicesOption,
    RefitOption,
    csv_columns,
    fold_numbers,
    rules_of,
    takes_settings,
)
from folds.predictions.file_names import BLEND_RECIPE

if TYPE_CHECKING:
    from ensemble.decisions.label_decision import AnyDecision
    from ensemble.prediction.decisions import DecisionOptions
    from ensemble.prediction.result import PredictedImages
    from ensemble.prediction.source import PredictionSource
    from folds.data.table import SampleTable

WhatArgument = Annotated[
    str,
    typer.Argument(
        help="a checkpoint, the name of a run or of a blend, a blend.toml, or an exported model",
        metavar="CKPT|RUN|BLEND|MODEL",
    ),
]
InputsArgument = Annotated[
    list[str], typer.Argument(help="a folder, a table (CSV, Parquet), images or a pattern", metavar="IMAGES...")
]
OutputOption = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        help="prediction file [runs/predict/WHAT-IMAGES.npy]",
        metavar="FILE.npy",
        rich_help_panel=WRITTEN,
    ),
]
PerOption = Annotated[
    str | None,
    typer.Option(
        help="person: one row per person (group), the mean of the images' probabilities",
        metavar="person",
        rich_help_panel=REPORT,
    ),
]
MetricOption = Annotated[
    str | None,
    typer.Option(
        help="metric of the score, if the table has labels [that of the task: macro_f1 of classes]",
        metavar="NAME",
        rich_help_panel=REPORT,
    ),
]
VerifyOption = Annotated[
    bool,
    typer.Option(
        "--verify",
        help="compare with the test predictions of the training, or a model with its expected ones",
        rich_help_panel=REPORT,
    ),
]
PrecisionOption = Annotated[
    str,
    typer.Option(
        "--precision",
        "--amp",
        help="auto: the fastest form in float32 on a CPU, as in the training on a GPU; fp32: as in the training; "
        "bf16 or fastest: reduced, if a sample of the images gets the same classes",
        metavar="FORMAT",
        rich_help_panel=EXECUTION,
    ),
]
SkipUnreadableOption = Annotated[
    bool,
    typer.Option(
        "--skip-unreadable", help="leave out images that cannot be used, and exit with 3", rich_help_panel=RUN
    ),
]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="continue an interrupted prediction (the default)", rich_help_panel=RUN)
]
ForceOption = Annotated[bool, typer.Option("--force", help="replace existing files", rich_help_panel=RUN)]


@takes_settings(
    *("path", "id", "label", "person", "person_regex", "images", "test_labels", "missing_persons", "merge_spellings"),
    "uncertain",
    help={
        "path": "CSV column of the image path [that of the training]",
        "label": "CSV column of the class; A,B,C: one-hot columns [that of the training]",
        "person": "CSV column of the person (group) [that of the training]",
    },
    rules=True,
)
def predict(
    what: WhatArgument,
    inputs: InputsArgument,
    output: OutputOption = None,
    csv: CsvOption = None,
    form: FormOption = None,
    columns: ColumnsOption = None,
    like: LikeOption = None,
    fold: FoldsOption = None,
    refit: RefitOption = False,
    per: PerOption = None,
    metric: MetricOption = None,
    verify: VerifyOption = False,
    cascade: CascadeOption = None,
    cost: PassCostOption = None,
    devices: PredictingDevicesOption = "auto",
    precision: PrecisionOption = "auto",
    skip_unreadable: SkipUnreadableOption = False,
    resume: ResumeOption = False,
    force: ForceOption = False,
    **given: Any,
) -> int:
    """Predict new images, write a prediction file and, if asked, a CSV.

    A run predicts with the models of all its folds. A blend predicts with its runs, views, weights and calibration; on
    the test images of its training it gives its own test predictions (--verify). An exported model (ensemble export)
    predicts like what was exported. Each image is decoded once for all models of one size. If interrupted, the same
    command continues. Images with labels are scored. Thresholds, abstention and prediction sets are fitted to the
    out-of-fold predictions, and scored nested over people.
    """
    from ensemble.cli.terminal.progress import TerminalProgress
    from folds.config.files import given_settings
    from folds.data.table import DataSpec
    from folds.errors import UsageError
    from folds.utils.startup import lasting_imports

    with lasting_imports():
        from ensemble.prediction.decisions import DecisionOptions
        from ensemble.prediction.face import FOLDER

    console.flags = {**console.flags, "per_person": "--per person"}
    if per not in (None, "person"):
        raise UsageError(f"`per={per}`: expected person", hint="remove it for one row per image")
    wanted = _Wanted(per is not None, csv, form, csv_columns(csv, form, columns, like), like, force)
    path = _place(FOLDER, what, inputs, output, fold, refit)
    rules, columns_given = rules_of(given), given_settings(given)
    predicting = {
        "fold": fold if fold in (None, "all") else fold_numbers(fold),
        "refit": refit,
        "spec": DataSpec(Path(), **columns_given) if columns_given else None,
        "per_person": wanted.per_person,
        "metric": metric,
        "device": devices,
        "precision": precision,
        "skip_unreadable": skip_unreadable,
        "verify": verify,
        "cascade": cascade,
        "cost": cost,
        "progress": TerminalProgress(),
    }
    images = inputs[0] if len(inputs) == 1 else inputs
    found, rows = _predict(what, images, DecisionOptions(**rules), path, wanted, predicting)
    _show(found, rows, path, wanted)
    if csv is None:
        options = [*console.again_without("force"), "--csv", "submission.csv", "--force"]
        console.next_step(f"ensemble predict {shlex.join([what, *inputs])}", options)
    return 3 if found.unreadable.rows else 0


class _Wanted(NamedTuple):
    """What is to be written: rows of images or people, a CSV, and whether existing files are replaced."""

    per_person: bool
    csv: Path | None
    form: str | None
    columns: list[str] | None
    like: Path | None
    force: bool


def _place(folder: Path, what: str, inputs: list[str], output: Path | None, fold: str | None, refit: bool) -> Path:
    """Return the prediction file to write, by default in `folder`."""
    part = ".all" if refit or fold == "all" else "" if fold is None else f".fold{_stem(fold)}"
    path = output or folder / f"{_stem(what)}{part}-{_stem(inputs[0])}.npy"
    return path if path.suffix == ".npy" else path.with_name(f"{path.name}.npy")


def _predict(
    what: str,
    images: str | list[str],
    rules: DecisionOptions,
    path: Path,
    wanted: _Wanted,
    predicting: dict[str, Any],
) -> tuple[PredictedImages, PredictedImages]:
    """Predict under the lock of the file and write; return the predictions, and the rows of images or people."""
    from ensemble.prediction.face import predict_images
    from ensemble.prediction.result import check_csv_place, save, save_csv
    from folds.errors import EnsembleError
    from folds.utils.files import check_not_existing
    from folds.utils.locks import exclusive_lock
    from folds.utils.memory import keep_freed_memory

    csv = wanted.csv
    keep_freed_memory()
    with exclusive_lock(path.with_name(f".{path.name}.lock"), f"the prediction file {path}"):
        if csv is not None:
            check_not_existing(csv, "the file", wanted.force)
        if path.exists() and not wanted.force:
            raise EnsembleError(
                f"the prediction file {path} exists",
                hint="`output=FILE.npy` writes others, or `force=True` replaces them",
            )
        if csv is not None:
            check_csv_place(csv)
        found = predict_images(what, images, rules, keep_work=True, check=partial(_check_table, wanted), **predicting)
        rows = found.by_person() if wanted.per_person else found
        content = None if csv is None else rows.csv(wanted.form, wanted.columns, wanted.like)
        save(rows, path, wanted.force)
        if csv is not None and content is not None:
            save_csv(content, csv, wanted.force)
        found.clear_work()
    return found, rows


def _show(found: PredictedImages, rows: PredictedImages, path: Path, wanted: _Wanted) -> None:
    """Print the predictions and what was written; raise EnsembleError if they are not the expected ones."""
    from folds.errors import EnsembleError

    csv = wanted.csv
    record = rows.to_dict() | {"file": str(path), "csv": None if csv is None else str(csv)}
    files = ", ".join(map(str, [path, *([] if csv is None else [csv])]))
    console.result(f"{_wrapped(rows.display_table().text(100))}\n\n{files} written", record)
    if found.verification is not None and not found.verification.holds:
        raise EnsembleError(
            f"the predictions are not the expected ones: {found.verification.text()}",
            hint="were the images changed, or predicted on another device or with another `precision`?",
        )


def _check_table(wanted: _Wanted, table: SampleTable, source: PredictionSource, decision: AnyDecision | None) -> None:
    """Raise what would keep the result from being written, before the images are predicted."""
    from ensemble.decisions.decision import Decision
    from ensemble.decisions.number_decision import NumberDecision
    from ensemble.prediction.interval_csv import interval_names, writes_intervals
    from folds.predictions.submission import check_submission

    has_intervals = isinstance(decision, NumberDecision)
    if wanted.csv is not None and writes_intervals(has_intervals, wanted.form, wanted.columns, wanted.like):
        interval_names(source.classes, wanted.columns)
        return
    if wanted.csv is not None:
        persons = table.persons if wanted.per_person else None
        ids = table.ids.tolist() if persons is None else sorted(set(persons.tolist()))
        sets = isinstance(decision, Decision) and decision.sets is not None
        check_submission(ids, source.classes, wanted.form, wanted.columns, wanted.like, sets, source.task)


def _wrapped(text: str) -> str:
    """Return the text with lines of at most `console.WIDTH` characters."""
    return "\n".join(part for line in text.split("\n") for part in console.wrapped(line))


def _stem(name: str) -> str:
    """Return the last part of a path, without its suffix, as a part of a file name."""
    path = Path(name)
    path = path.parent if path.name in (BLEND_RECIPE, "model.toml") else path
    text = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in path.resolve().stem)
    return text.strip("._") or "images"
