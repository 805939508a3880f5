"""Read the predictions whose mistakes and labels are looked at: of a run, of a blend with its members, or of files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ensemble.alignment.split import AlignedSplit, RunPredictions
from ensemble.alignment.truth import GroundTruth, labels_and_groups
from ensemble.analysis.labeled_columns import LabeledColumns
from ensemble.analysis.mistakes import LabeledRows
from ensemble.blending.aligned import AlignedMembers, align_ingredients, align_members
from ensemble.blending.blend import Blend, read_inputs
from ensemble.blending.inputs import with_recorded_task
from ensemble.blending.request import BlendConfig
from ensemble.members.names import expand_names
from ensemble.voting.vote import vote
from folds.errors import EnsembleError, UsageError
from folds.predictions.file_names import BLEND_RECORD
from folds.predictions.named import files_of, is_blend
from folds.utils.files import read_json
from folds.utils.progress import SILENT, Progress


@dataclass(frozen=True)
class LabeledPredictions:
    """Labeled predictions and what their members said.

    Attributes
    ----------
    name : of the run or the blend, or ``soft vote of A, B``.
    split : ``oof`` or ``test``.
    persons_known : whether the persons of `rows` are people; otherwise they are the ids.
    notes : what the user should know about the files.
    """

    rows: LabeledRows
    name: str
    split: str
    persons_known: bool
    class_attributes: Mapping[str, Mapping[str, str]]
    notes: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """Return ``out-of-fold predictions`` or ``test predictions``."""
        return _kind(self.split)


@dataclass(frozen=True)
class ColumnPredictions:
    """Predictions of several labels or of numbers, as `LabeledPredictions` of classes; its attributes are the same."""

    rows: LabeledColumns
    name: str
    split: str
    persons_known: bool
    notes: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """Return ``out-of-fold predictions`` or ``test predictions``."""
        return _kind(self.split)


Judged = LabeledPredictions | ColumnPredictions


def _kind(split: str) -> str:
    return "out-of-fold predictions" if split == "oof" else "test predictions"


def read_labeled_predictions(
    what: Sequence[str | Path],
    *,
    labels: Path | None = None,
    runs: Path = Path("runs"),
    progress: Progress = SILENT,
) -> Judged:
    """Return the out-of-fold predictions (test predictions, if there are no others) of a run, a blend or of files.

    Several runs or files are judged by their soft vote; the members of a blend are the runs that it was made of.

    Parameters
    ----------
    what : names of runs or of a blend, or prediction files.
    labels : true labels by id, for predictions without labels.

    Raises
    ------
    UsageError : the rows are people.
    EnsembleError : files cannot be read or aligned, or no label is known.
    """
    request = BlendConfig(labels=labels)
    request.check()
    name, notes = "", []
    members = main = None
    if len(what) == 1 and is_blend(str(what[0]), runs):
        name = str(what[0]).removeprefix("blends/")
        main = align_members(read_inputs(files_of(str(what[0]), runs), request, progress), request)
        members = _members(runs / "blends" / name, runs, request)
        if members is None:
            notes.append(f"the runs of the blend {name} are not there any more: what they said is unknown")
    else:
        # In the folder where the command runs, names are kept: unfinished runs that were asked for by name take part.
        files = list(what) if runs == Path("runs") else expand_names([Path(one) for one in what], runs)
        members = align_members(read_inputs(files, request, progress), request)
    loaded = main if main is not None else members
    assert loaded is not None  # noqa: S101 - one of them was read
    _check_images(name or ", ".join(map(str, what)), [one.sidecar.unit for one in loaded.members if one.sidecar])
    split = next((one for one in ("oof", "test") if one in loaded.truths), None)
    if split is None:
        raise EnsembleError(
            f"the predictions of {name or ', '.join(map(str, what))} have no labels, which say what is a mistake",
            hint="`labels=FILE.csv` has them by id: id, label and preferably person",
        )
    own = loaded.splits[split]
    voters = {} if members is None or split not in members.splits else _voters(own, members.splits[split])
    judged = vote(own).probabilities if len(own.runs) > 1 else _values(own, own.runs[0])
    if not name:
        named = [run.name for run in own.runs]
        name = named[0] if len(named) == 1 else f"soft vote of {', '.join(named)}"
    notes += [*loaded.notes, *(f"warning: {line}" for line in loaded.warnings)]
    if own.has_columns and any(one.sidecar.label_of for one in loaded.members if one.sidecar):
        notes.append(
            "warning: only persons are labeled, and an image has what its person has: an image that does not show it "
            "is no mistake"
        )
    return _labeled(own, loaded.truths[split], judged, voters, name, split, notes)


def labeled_blend(blend: Blend) -> Judged:
    """Return the out-of-fold predictions (test predictions, if there are no others) of a blend, and of its runs.

    Raises
    ------
    UsageError : the blend is for people.
    EnsembleError : no label is known.
    """
    _check_images(blend.name, [blend.unit])
    for split in ("oof", "test"):
        own = blend.splits.get(split)
        truth = None if own is None else labels_and_groups(own, False)
        if own is not None and truth is not None:
            judged = blend.votes[split].probabilities
            return _labeled(own, truth, judged, _voters(own, own), blend.name, split, [])
    raise EnsembleError("the blend has no labels, which say what is a mistake", hint="blend(..., y=labels)")


@dataclass(frozen=True)
class RunsOutOfFold:
    """The out-of-fold predictions of the runs of a blend, of images with and without labels.

    Attributes
    ----------
    ids : (n,).
    classes : the class, label or number of each column.
    runs : run → (n, classes) its predictions, nan where it has none.
    """

    ids: NDArray[np.str_]
    classes: tuple[str, ...]
    runs: Mapping[str, NDArray[np.float32]]


def runs_out_of_fold(blend: Blend) -> RunsOutOfFold | None:
    """Return the predictions of the runs that a blend combines; None if none are out-of-fold."""
    split = blend.splits.get("oof")
    used = None if blend.combination is None else blend.combination.runs
    return None if split is None else _out_of_fold(split, used)


def read_runs_out_of_fold(folder: Path, runs: Path, used: Sequence[str]) -> RunsOutOfFold | None:
    """Return the predictions of the runs `used` that a blend was made of; None if they are not there any more.

    Parameters
    ----------
    folder : of the blend, with ``blend.json``.
    runs : the folder of the runs, for files that were moved.
    """
    members = _members(folder, runs, BlendConfig())
    split = None if members is None else members.splits.get("oof")
    found = None if split is None else _out_of_fold(split, used)
    return None if found is None or set(found.runs) != set(used) else found


def _out_of_fold(split: AlignedSplit, used: Sequence[str] | None) -> RunsOutOfFold:
    values = {run.name: _values(split, run) for run in split.runs if used is None or run.name in used}
    return RunsOutOfFold(split.rows.ids, split.classes, values)


def _check_images(name: str, units: Sequence[str | None]) -> None:
    """Raise UsageError if the rows of predictions are people."""
    if any(units):
        raise UsageError(
            f"{name} predicts people, each pooled from images, and mistakes and labels in doubt are of images",
            hint="name the runs that it was made of; `ensemble report` shows the mistakes of people",
        )


def _labeled(
    own: AlignedSplit,
    truth: GroundTruth,
    judged: NDArray[np.floating],
    voters: Mapping[str, NDArray[np.float32]],
    name: str,
    split: str,
    notes: Sequence[str],
) -> Judged:
    kept = np.flatnonzero(truth.known & ~np.isnan(judged).any(axis=1))
    persons = own.rows.ids if own.rows.persons is None else own.rows.persons
    known = own.rows.persons is not None
    if own.has_columns:
        columns = LabeledColumns(
            own.rows.ids[kept],
            persons[kept],
            truth.labels[kept],
            own.classes,
            own.task,
            np.asarray(judged)[kept],
            {one: values[kept] for one, values in voters.items()},
        )
        return ColumnPredictions(columns, name, split, known, tuple(notes))
    rows = LabeledRows(
        own.rows.ids[kept],
        persons[kept],
        truth.labels[kept],
        own.classes,
        np.asarray(judged)[kept],
        {one: values[kept] for one, values in voters.items()},
    )
    return LabeledPredictions(rows, name, split, known, own.class_attributes, tuple(notes))


def _members(folder: Path, runs: Path, request: BlendConfig) -> AlignedMembers | None:
    """Return the runs that a blend was made of; None if a file of theirs is not there any more."""
    record = read_json(folder / BLEND_RECORD)
    listed = record.get("inputs") if isinstance(record, dict) else None
    places = [Path(one["path"]) for one in listed or () if isinstance(one, dict) and isinstance(one.get("path"), str)]
    files = [path if path.is_file() else runs / path.name for path in places]
    if not files or not all(path.is_file() for path in files):
        return None
    request = with_recorded_task(request, record)
    try:
        return align_ingredients(read_inputs(files, request), request)
    except EnsembleError:
        return None


def _voters(own: AlignedSplit, split: AlignedSplit) -> dict[str, NDArray[np.float32]]:
    """Return run → (n, classes) its probabilities for the rows of `own`, NaN where it has none."""
    if set(split.classes) != set(own.classes):
        return {}
    columns = [split.classes.index(name) for name in own.classes]
    position = {name: row for row, name in enumerate(split.rows.ids.tolist())}
    at = np.array([position.get(name, -1) for name in own.rows.ids.tolist()], np.int64)
    found = {}
    for run in split.runs:
        values = _values(split, run)[np.maximum(at, 0)][:, columns]
        values[at < 0] = np.nan
        found[run.name] = values
    return found


def _values(split: AlignedSplit, run: RunPredictions) -> NDArray[np.float32]:
    """Return (n, classes) the probabilities of a run, or the shares of its votes; NaN in rows that it lacks."""
    n = len(split)
    values = np.asarray(run.votes(0, n) if run.hard else run.probabilities(0, n), np.float32)
    present = run.present(0, n)
    if present is not None:
        values[~present] = np.nan
    return values
