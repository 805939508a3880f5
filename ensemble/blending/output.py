"""What a blend leaves behind: the folder ``runs/blends/<name>`` and the CSV of its decisions."""

from __future__ import annotations

import csv
import io
import re
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.blending.recipe import recipe_of, to_text
from ensemble.blending.request import BlendConfig
from ensemble.blending.result import BlendResult
from ensemble.voting.base import Vote
from folds.errors import EnsembleError, UsageError
from folds.predictions.files import PredictionMetadata, SampleRows, read_array, sidecar_path, write_prediction
from folds.utils.files import check_not_existing, check_not_folder, read_json, sha256_file, write_atomic, write_json
from folds.utils.memmap import same_values

FOLDER = Path("runs/blends")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


def blend_folder(blend: BlendResult, name: str | None) -> Path:
    """Return ``runs/blends/<name>``; the default name is made of the method and the inputs."""
    if name is not None and not _NAME.fullmatch(name):
        raise UsageError(
            f"`name={name}`: expected a name of letters, digits and . _ + -",
            hint=f"`name=final` writes {FOLDER / 'final'}",
        )
    return FOLDER / (name or blend.name)


def write_blend(blend: BlendResult, folder: Path, force: bool = False) -> list[Path]:
    """Write ``oof.npy``, ``test.npy``, their sidecars, ``blend.toml`` and, last, ``blend.json``; what is there already is left alone.

    What an earlier command had said of the same blend with --worth, --detail or --cost stays in ``blend.json``, unless `force`.

    Of what was learnt, ``oof.npy`` holds the nested predictions: they can be scored, compared and blended like any other's.

    Returns
    -------
    The files that were written; [] where the same blend was there.

    Raises
    ------
    EnsembleError : the folder holds another blend, and not `force`.
    """
    path, record, recipe = folder / "blend.json", blend.record(), recipe_of(blend)
    before = read_json(path) if path.exists() else None
    arrays = {split: folder / f"{split}.npy" for split in blend.votes}
    wanted = [split for split, file in arrays.items() if not _holds(file, blend.votes[split])]
    if not force:
        _check_same_blend(folder, blend, before)
        _check_same_arrays([arrays[split] for split in wanted])
        if isinstance(before, dict):
            record |= _kept(before, record, blend.request)
    if not wanted and isinstance(before, dict) and all(before.get(key) == record[key] for key in _COMPARED):
        return []
    if force:
        _remove_stale(folder, arrays)
    for split in wanted:
        _write_predictions(blend, split, arrays[split])
    followed = folder / "blend.toml"
    if recipe is None:
        followed.unlink(missing_ok=True)
    else:
        write_atomic(followed, to_text(recipe, folder.name).encode())
    write_json(path, record)
    return [*(arrays[split] for split in wanted), *([followed] if recipe is not None else []), path]


# What blend.json must say alike for nothing to be written again.
_COMPARED = ("identity", "runs", "blend", "weights", "combination", "fitted", "worth", "details")


def _check_same_blend(folder: Path, blend: BlendResult, before: Any) -> None:
    if before is not None and (not isinstance(before, dict) or before.get("identity") != blend.identity):
        raise EnsembleError(
            f"{folder} holds another blend: {_described(before)}",
            hint="give it another name (`name`), or replace it (`force`)",
        )


def _check_same_arrays(wanted: Sequence[Path]) -> None:
    """Raise EnsembleError where a file that is to be written is there, with other predictions."""
    changed = next((file for file in wanted if file.exists()), None)
    if changed is not None:
        raise EnsembleError(
            f"{changed} holds other predictions than this blend gives",
            hint="give it another name (`name`), or replace it (`force`)",
        )


def _remove_stale(folder: Path, arrays: Collection[str]) -> None:
    """Remove the predictions of a split that this blend has not."""
    for split in {"oof", "test"} - set(arrays):
        for end in (".npy", ".json"):
            (folder / f"{split}{end}").unlink(missing_ok=True)


def _write_predictions(blend: BlendResult, split: str, path: Path) -> None:
    rows = blend.splits[split]
    sidecar = PredictionMetadata(
        kind="probability",
        split=split,
        classes=rows.classes,
        rows=rows.rows,
        target=rows.target,
        class_attributes=rows.class_attributes,
        fold=rows.fold if rows.fold is not None and (rows.fold >= 0).all() else None,
        run=path.parent.name,
        arch="blend",
        folds_sha=rows.folds_sha,
    )
    write_prediction(path, blend.votes[split].probabilities, sidecar, rows.rows, _samples_file(blend, rows.rows))


def _kept(before: dict[str, Any], record: dict[str, Any], request: BlendConfig) -> dict[str, Any]:
    """Return what the same blend's record says already and this command was not asked for."""
    kept = {}
    for name, asked in (("worth", request.report_contributions), ("details", request.detail)):
        if not asked and before.get(name):
            kept[name] = before[name]
    runs, costs = before.get("runs"), {}
    if isinstance(runs, list):
        costs = {run.get("run"): run.get("cost") for run in runs if isinstance(run, dict)}
    # What is said of worth now is in the costs of now.
    if (
        request.cost is None
        and not request.report_contributions
        and all(isinstance(costs.get(run["run"]), dict) for run in record["runs"])
    ):
        kept["runs"] = [run | {"cost": costs[run["run"]]} for run in record["runs"]]
    return kept


def _samples_file(blend: BlendResult, rows: SampleRows) -> Path | None:
    """Return the samples file beside a member that holds exactly these rows: to copy 200,000 takes a tenth of the time of writing them."""
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


def _described(record: Any) -> str:
    if not isinstance(record, dict) or not isinstance(record.get("runs"), list):
        return "its blend.json is of another kind"
    return (
        f"{record.get('method')} of {', '.join(str(run.get('run')) for run in record['runs'] if isinstance(run, dict))}"
    )


@dataclass(frozen=True)
class Answers:
    """The decisions of a blend as a CSV, ``ImageID,ans``: which split, how many, and the text."""

    split: str
    rows: int
    content: bytes


def answers_of(blend: BlendResult) -> Answers:
    """Return the decisions for the test samples, or out of fold where there are none."""
    split = "test" if "test" in blend.votes else "oof"
    names = np.array(blend.splits[split].classes)[blend.votes[split].probabilities.argmax(axis=1)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["ImageID", "ans"])
    writer.writerows(zip(blend.splits[split].rows.ids.tolist(), names.tolist(), strict=True))
    return Answers(split, len(names), text.getvalue().encode())


def check_answers_file(answers: Answers, path: Path, force: bool = False) -> None:
    """Refuse to write where something else is, or in a folder that is not there: a mistyped path is not made."""
    if not path.parent.is_dir():
        raise EnsembleError(
            f"`csv={path}`: there is no folder {path.parent}", hint=f"mkdir -p {shlex.quote(str(path.parent))}"
        )
    check_not_folder(path)
    if not (path.is_file() and path.read_bytes() == answers.content):
        check_not_existing(path, "the file", force)
