"""Write a blend: the folder ``runs/blends/<name>`` and the CSV of its decisions."""

from __future__ import annotations

import csv
import io
import logging
import re
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ensemble.blending.coefficients import write_coefficients
from ensemble.blending.recipe import BlendRecipe, check_written, read_recipe, recipe_of, to_text
from ensemble.blending.request import BlendConfig
from ensemble.blending.result import BlendResult
from ensemble.voting.base import Vote
from folds.errors import EnsembleError, UsageError
from folds.metrics.task_names import REGRESSION
from folds.predictions.file_names import BLEND_RECIPE, BLEND_RECORD
from folds.predictions.files import (
    PredictionMetadata,
    SampleRows,
    read_array,
    sidecar_path,
    write_prediction,
)
from folds.predictions.links import answers_of as predicted_answers
from folds.predictions.links import kind_of
from folds.predictions.submission import submission_columns
from folds.utils.csv_table import csv_bytes
from folds.utils.files import check_not_existing, check_not_folder, read_json, sha256_file, write_atomic, write_json
from folds.utils.memmap import same_values

logger = logging.getLogger(__name__)

FOLDER = Path("runs/blends")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


def blend_folder(blend: BlendResult, name: str | None) -> Path:
    """Return ``runs/blends/<name>``; the default name is the method and a hash of the inputs."""
    if name is not None and not _NAME.fullmatch(name):
        raise UsageError(
            f"`name={name}`: expected a name of letters, digits and . _ + -",
            hint=f"`name=final` writes {FOLDER / 'final'}",
        )
    return FOLDER / (name or blend.name)


def write_blend(blend: BlendResult, folder: Path, force: bool = False) -> list[Path]:
    """Write ``oof.npy``, ``test.npy``, their sidecars, ``blend.toml`` (with ``blend.npy.gz`` if a fit has thousands of
    numbers) and, last, ``blend.json``; keep equal files.

    Results of an earlier command for the same blend (contributions, breakdown, costs) stay in ``blend.json``, unless
    `force`.

    For a fitted blend, ``oof.npy`` holds the nested predictions, which can be scored, compared and blended like those
    of a run.

    Returns
    -------
    The written files; [] if the same blend exists already.

    Raises
    ------
    EnsembleError : the folder holds another blend and `force` is false.
    """
    path, record, recipe = folder / BLEND_RECORD, blend.record(), recipe_of(blend)
    before = read_json(path) if path.exists() else None
    arrays = {split: folder / f"{split}.npy" for split in blend.votes}
    wanted = [split for split, file in arrays.items() if not _holds(file, blend.votes[split])]
    if not force:
        _check_same_blend(folder, blend, before)
        _check_same_arrays([arrays[split] for split in wanted])
        if isinstance(before, dict):
            record |= _earlier_results(before, record, blend.request)
    same = isinstance(before, dict) and all(before.get(key) == record[key] for key in _COMPARED)
    if not wanted and same and _holds_recipe(folder / BLEND_RECIPE, recipe):
        return []
    if recipe is not None:
        check_written(recipe, str(folder / BLEND_RECIPE))
    if force:
        _remove_stale(folder, arrays)
    for split in wanted:
        _write_predictions(blend, split, arrays[split])
    recipe_path = folder / BLEND_RECIPE
    recipe_path.unlink(missing_ok=True)  # first: an old one never lies beside new coefficients
    written = write_coefficients(folder, {} if recipe is None else recipe.combination.large_arrays())
    if recipe is not None:
        written.append(write_atomic(recipe_path, to_text(recipe, folder.name).encode()))
    write_json(path, record)
    return [*(arrays[split] for split in wanted), *written, path]


# Keys of blend.json: nothing is written if they are all equal.
_COMPARED = ("identity", "runs", "blend", "weights", "combination", "fitted", "worth", "details")


def _check_same_blend(folder: Path, blend: BlendResult, before: Any) -> None:
    if before is not None and (not isinstance(before, dict) or before.get("identity") != blend.identity):
        raise EnsembleError(
            f"{folder} holds another blend: {_described(before)}",
            hint="give it another name (`name`), or replace it (`force`)",
        )


def _check_same_arrays(wanted: Sequence[Path]) -> None:
    """Raise EnsembleError if a file to be written exists with other predictions."""
    changed = next((file for file in wanted if file.exists()), None)
    if changed is not None:
        raise EnsembleError(
            f"{changed} holds other predictions than this blend",
            hint="give it another name (`name`), or replace it (`force`)",
        )


def _remove_stale(folder: Path, arrays: Collection[str]) -> None:
    """Remove the predictions of splits that this blend does not have."""
    for split in {"oof", "test"} - set(arrays):
        for end in (".npy", ".json"):
            (folder / f"{split}{end}").unlink(missing_ok=True)


def _write_predictions(blend: BlendResult, split: str, path: Path) -> None:
    rows = blend.splits[split]
    sidecar = PredictionMetadata(
        kind=kind_of(blend.task_of(split)),
        split=split,
        classes=rows.classes,
        rows=rows.rows,
        target=rows.target,
        class_attributes=rows.class_attributes,
        fold=rows.fold if rows.fold is not None and (rows.fold >= 0).all() else None,
        run=path.parent.name,
        arch="blend",
        folds_sha=rows.folds_sha,
        teacher=next((one.sidecar.teacher for one in blend.members if one.sidecar and one.sidecar.teacher), None),
        task=blend.task_of(split),
        exclusive=blend.is_exclusive(split),
        label_of=blend.label_of,
        unit=blend.unit,
    )
    write_prediction(path, blend.votes[split].probabilities, sidecar, rows.rows, _samples_file(blend, rows.rows))


def _earlier_results(before: dict[str, Any], record: dict[str, Any], request: BlendConfig) -> dict[str, Any]:
    """Return the results in the existing record of the same blend that this command does not compute."""
    kept = {}
    for name, requested in (("worth", request.report_contributions), ("details", request.detail)):
        if not requested and before.get(name):
            kept[name] = before[name]
    runs, costs = before.get("runs"), {}
    if isinstance(runs, list):
        costs = {run.get("run"): run.get("cost") for run in runs if isinstance(run, dict)}
    # New contributions use the costs of this command.
    if (
        request.cost is None
        and not request.report_contributions
        and all(isinstance(costs.get(run["run"]), dict) for run in record["runs"])
    ):
        kept["runs"] = [run | {"cost": costs[run["run"]]} for run in record["runs"]]
    return kept


def _samples_file(blend: BlendResult, rows: SampleRows) -> Path | None:
    """Return the samples file next to a member that holds exactly these rows, or None.

    Copying 200,000 rows takes a tenth of the time of writing them.
    """
    for member in blend.members:
        table, sha = member.all_rows, member.sidecar.samples_sha if member.sidecar is not None else None
        if (
            table is None
            or sha is None
            or any(mine is not theirs for mine, theirs in zip(_columns(rows), _columns(table), strict=False))
        ):
            continue
        file = member.path.parent / f"samples-{sha[:12]}.csv"
        if rows.attributes.keys() == table.attributes.keys() and file.is_file() and sha256_file(file) == sha:
            return file
    return None


def _columns(rows: SampleRows) -> list[Any]:
    return [rows.ids, rows.labels, rows.persons, *rows.attributes.values()]


def _holds(path: Path, result: Vote) -> bool:
    return path.exists() and sidecar_path(path).exists() and same_values(read_array(path), result.probabilities)


def _holds_recipe(path: Path, recipe: BlendRecipe | None) -> bool:
    """Return whether ``blend.toml`` and its coefficients are there and can be read; there are none without a recipe."""
    if recipe is None:
        return not path.exists()
    if not path.exists():
        return False
    try:
        held = read_recipe(path).combination
    except (EnsembleError, UsageError):
        return False
    shapes = {name: array.shape for name, array in recipe.combination.large_arrays().items()}
    return {name: array.shape for name, array in held.large_arrays().items()} == shapes


def _described(record: Any) -> str:
    if not isinstance(record, dict) or not isinstance(record.get("runs"), list):
        return "its blend.json is not that of a blend"
    return (
        f"{record.get('method')} of {', '.join(str(run.get('run')) for run in record['runs'] if isinstance(run, dict))}"
    )


@dataclass(frozen=True)
class Answers:
    """The CSV of a blend: split, number of rows and content."""

    split: str
    rows: int
    content: bytes


def answers_of(
    blend: BlendResult, form: str | None = None, columns: Sequence[str] | None = None, like: Path | None = None
) -> Answers:
    """Return the CSV for the test samples, or for the out-of-fold samples if there is no test split.

    Without options, it has the decisions, with the header ``ImageID,ans``; of numbers, a column for each.

    Parameters
    ----------
    form, columns, like : see `folds.predictions.submission.submission`.

    Raises
    ------
    UsageError, EnsembleError : options that do not fit, ids that were not predicted, or, for `like`, samples without
        ids. Without `like`, samples without ids are a warning.
    """
    split = "test" if "test" in blend.votes else "oof"
    if blend.splits[split].numbered:
        message = "no file names the samples: the ids of the CSV are the numbers of the rows, from 0"
        way = "`ids=FILE` names a table with the ids of the rows, in their order"
        if like is not None:
            raise UsageError(f"{message}, which cannot be found in {like}", hint=way)
        logger.warning("%s; %s", message, way)
    rows = blend.splits[split]
    if (form, columns, like) != (None, None, None) or rows.task == REGRESSION:
        predictions = blend.test if split == "test" else blend.oof
        assert predictions is not None  # noqa: S101 - the split has votes
        table = submission_columns(predictions, form, columns, like)
        return Answers(split, len(next(iter(table.values()))), bytes(csv_bytes(table)))
    names = predicted_answers(rows.task, blend.votes[split].probabilities, rows.classes)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["ImageID", "ans"])
    writer.writerows(zip(rows.rows.ids.tolist(), names.tolist(), strict=True))
    return Answers(split, len(names), text.getvalue().encode())


def check_answers_file(answers: Answers, path: Path, force: bool = False) -> None:
    """Raise EnsembleError if the path holds another file or its folder does not exist (it may be a typo)."""
    if not path.parent.is_dir():
        raise EnsembleError(
            f"`csv={path}`: folder {path.parent} does not exist", hint=f"mkdir -p {shlex.quote(str(path.parent))}"
        )
    check_not_folder(path)
    if not (path.is_file() and path.read_bytes() == answers.content):
        check_not_existing(path, "the file", force)
