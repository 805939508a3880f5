"""Read what a cascade is fitted to: the files that a blend was made of, and the cached predictions of single views."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.alignment.align import align
from ensemble.alignment.split import AlignedFile, AlignedSplit, RunPredictions
from ensemble.alignment.truth import GroundTruth, labels_and_groups
from ensemble.analysis.cost import costs_of
from ensemble.blending.fit import fit_split
from ensemble.blending.request import BlendConfig
from ensemble.cascade.predictions import CascadeEvidence, Unseen
from ensemble.cascade.run import RunModel
from ensemble.learning.combination import Combination
from ensemble.learning.nested import MIN_FOLDS, outer_fold_ids
from ensemble.members.reading import read_members
from ensemble.members.true_labels import read_true_labels
from ensemble.tta.files import load_common_rows
from folds.errors import EnsembleError
from folds.metrics.classification import Metric, recorded_metric
from folds.metrics.task_names import require_classes
from folds.predictions.file_names import BLEND_RECORD
from folds.predictions.files import fold_files, oof_file
from folds.utils.files import read_json
from folds.utils.numeric import softmax
from folds.utils.schema import shown

_AGAIN = "run ensemble blend again, and predict with that blend"


@dataclass(frozen=True)
class BlendFiles:
    """The prediction files of a blend or a run, and how they were combined.

    Attributes
    ----------
    request : the options of the blend.
    is_blend : whether the combination may be fitted; a run is the mean of its folds.
    """

    paths: tuple[Path, ...]
    shas: Mapping[Path, str]
    request: BlendConfig
    is_blend: bool


@dataclass(frozen=True)
class Loaded:
    """The evidence, and the combination fitted without each outer fold."""

    evidence: CascadeEvidence
    parts: Mapping[int, Combination]
    metric: Metric


def files_of_blend(folder: Path, root: Path) -> BlendFiles:
    """Return the files that ``blend.json`` in `folder` lists, with its options.

    Raises
    ------
    EnsembleError : the record is missing or damaged, or a file does not exist.
    """
    path = folder / BLEND_RECORD
    record: Any = read_json(path) if path.is_file() else None
    try:
        inputs = [(Path(one["path"]), str(one["sha"])) for one in record["inputs"]]
        options = record.get("options") or {}
        request = BlendConfig(
            method=record["method"] if record["method"] != "weighted" else None,
            metric=record["metric"],
            labels=None if record.get("labels") is None else recorded_file(Path(record["labels"]), root),
            calibrate=options.get("calibrate"),
            max_members=options.get("max_members"),
            budget=options.get("budget"),
            cost=options.get("cost"),
            positive=options.get("positive"),
            unfinished=True,
        )
        if recorded_metric(record["metric"]) is None:  # the name of a function would be code that a file names
            raise EnsembleError(
                f"{path}: a cascade needs a built-in metric, found {shown(record['metric'])}",
                hint="blend again with another `metric`",
            )
    except (KeyError, TypeError, AttributeError):
        raise EnsembleError(f"{path} is not the record of a blend, or is missing", hint=_AGAIN) from None
    paths = tuple(recorded_file(path, root) for path, _ in inputs)
    absent = [path for path in paths if not path.is_file()]
    if absent:
        raise EnsembleError(
            f"a cascade is fitted to the predictions that {folder.name} was made of; {absent[0]} does not exist",
            hint="use all models (no cascade)",
        )
    return BlendFiles(paths, {path: sha for path, (_, sha) in zip(paths, inputs, strict=True)}, request, True)


def recorded_file(path: Path, root: Path) -> Path:
    """Return where a file is that ``blend.json`` names: as recorded, else its part from ``runs/`` on under the root.

    A blend that was made from another folder, or was moved with its runs, names its files relative to that folder.
    The hash that is recorded with the path tells whether it is the same file.
    """
    asked = root / path
    if not asked.is_file():
        starts = [at for at, part in enumerate(path.parts) if part == "runs"]
        for at in reversed(starts):
            found = root.joinpath(*path.parts[at:])
            if found.is_file():
                return found
    return asked


def files_of_run(run: str, root: Path, metric: str) -> BlendFiles:
    """Return the out-of-fold and test files of a run; over views if it has them.

    Raises
    ------
    EnsembleError : it has no out-of-fold predictions.
    """
    folder = root / "runs"
    oof = oof_file(folder, run)
    if not oof.is_file():
        raise EnsembleError(
            f"a cascade is fitted to out-of-fold predictions; {oof} does not exist", hint="use all models (no cascade)"
        )
    return BlendFiles((oof, *fold_files(folder, run).values()), {}, BlendConfig("soft", metric=metric), False)


def load_evidence(
    files: BlendFiles,
    combination: Combination,
    runs: Sequence[RunModel],
    classes: tuple[str, ...],
    models: Mapping[str, Sequence[tuple[int, str]]],
    root: Path,
) -> Loaded:
    """Return the evidence for the runs of a combination.

    Parameters
    ----------
    runs : the runs of the combination, in its order.
    classes : the columns of the combination.
    models : run → (fold, hash of the checkpoint) of its models, in their order.

    Raises
    ------
    EnsembleError : a file has changed since the blend, labels are unknown, or cached views are missing.
    """
    members = read_members(files.paths)
    for member in members:
        expected = files.shas.get(member.path, member.sha)
        if member.sha != expected:
            raise EnsembleError(f"{member.path} has changed since the blend was made", hint=_AGAIN)
    labels = None if files.request.labels is None else read_true_labels(files.request.labels, files.request.columns)
    splits = align(members, labels, positive=classes[1] if len(classes) == 2 else None).splits
    for split in splits.values():
        require_classes(split.task, "a cascade")
    oof = splits.get("oof")
    truth = None if oof is None else labels_and_groups(oof)
    if oof is None or truth is None:
        raise EnsembleError(
            "a cascade is fitted to out-of-fold predictions with labels, and there are none",
            hint="use all models (no cascade)",
        )
    rows = np.flatnonzero(truth.labels >= 0)
    oof, truth = oof.take(rows), truth.take(rows)
    if set(oof.classes) != set(classes):
        raise EnsembleError(
            f"the files predict {', '.join(oof.classes[:10])}, the blend {', '.join(classes[:10])}", hint=_AGAIN
        )
    parts, combinations = _parts(files, oof, truth, combination, splits)
    columns = [list(oof.classes).index(name) for name in classes]
    truth = GroundTruth(np.argsort(columns)[truth.labels], truth.persons)
    first, full = _out_of_fold(oof, runs, classes, columns, models, root)
    unseen = _unseen(splits.get("test"), runs, classes, models, root)
    ids = tuple(oof.rows.ids.tolist())
    evidence = CascadeEvidence(tuple(runs), first, full, truth.labels, truth.persons, parts, unseen, ids)
    return Loaded(evidence, combinations, files.request.scored)


def _parts(
    files: BlendFiles,
    oof: AlignedSplit,
    truth: GroundTruth,
    combination: Combination,
    splits: Mapping[str, AlignedSplit],
) -> tuple[NDArray[np.int64], dict[int, Combination]]:
    """Return (n,) the outer fold of each row, and outer fold → the combination fitted without it."""
    parts = outer_fold_ids(truth.persons, truth.labels, oof.fold)
    if len(np.unique(parts)) < MIN_FOLDS:
        raise EnsembleError(
            f"a cascade is scored by nested cross-validation, which needs {MIN_FOLDS} or more outer folds",
            hint="without a cascade, or with `cascade=exact`, no such score is needed",
        )
    if not files.is_blend or not files.request.is_fitted:
        return parts, {}
    fitted = fit_split(oof, truth, files.request, costs_of(splits))
    if _numbers(fitted.combination) != _numbers(combination):
        raise EnsembleError(
            "the combination of the blend cannot be fitted again from its files: its nested score would be unknown",
            hint=_AGAIN,
        )
    ids = np.unique(fitted.stack.outer_folds).tolist()
    return fitted.stack.outer_folds, dict(zip(ids, fitted.nested.parts, strict=False))


def _numbers(combination: Combination) -> str:
    """Return the plain values of a combination as they are written, with the digits that files keep."""
    record = combination.as_record()
    return repr({name: value for name, value in record.items() if name != "said"})


def _out_of_fold(
    oof: AlignedSplit,
    runs: Sequence[RunModel],
    classes: tuple[str, ...],
    columns: Sequence[int],
    models: Mapping[str, Sequence[tuple[int, str]]],
    root: Path,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return (runs, n, classes) the probabilities on the first view, and over all views."""
    found = {run.name: run for run in oof.runs}
    first, full = [], []
    for one in runs:
        if one.name not in found or (found[one.name].models(0, len(oof)) == 0).any():
            raise EnsembleError(
                f"run '{one.name}' has no out-of-fold prediction of some images, which a cascade needs",
                hint="train its missing folds: ensemble kfold --resume",
            )
        full.append(found[one.name].probabilities(0, len(oof))[:, columns].astype(np.float32))
        if one.views < 2:
            first.append(full[-1])
            continue
        current = dict(models[one.name])
        path = _views_folder(root, one.name) / f"{_file_name(one.merge.views[0])}.oof.npy"
        first.append(_view(path, current, oof.rows.ids, classes))
    return np.stack(first), np.stack(full)


def _unseen(
    test: AlignedSplit | None,
    runs: Sequence[RunModel],
    classes: tuple[str, ...],
    models: Mapping[str, Sequence[tuple[int, str]]],
    root: Path,
) -> Unseen | None:
    """Return the test predictions of every fold model; None if a model or a view has none."""
    if test is None:
        return None
    columns = [list(test.classes).index(name) for name in classes]
    found = {run.name: run for run in test.runs}
    first, full = [], []
    for one in runs:
        parts = _by_fold(found[one.name]) if one.name in found else {}
        if any(fold not in parts or parts[fold].present(0, len(test)) is not None for fold, _ in models[one.name]):
            return None
        values = [parts[fold].probabilities(0, len(test))[:, columns] for fold, _ in models[one.name]]
        full.append(np.stack(values).astype(np.float32))
        if one.views < 2:
            first.append(full[-1])
            continue
        name = _file_name(one.merge.views[0])
        try:
            views = [
                _view(
                    _views_folder(root, one.name) / f"{name}.fold{fold}.test.npy", {fold: sha}, test.rows.ids, classes
                )
                for fold, sha in models[one.name]
            ]
        except EnsembleError:
            return None
        first.append(np.stack(views))
    rows = test.rows
    persons = np.unique(rows.ids if rows.persons is None else rows.persons, return_inverse=True)[1]
    labels = None
    if rows.labels is not None:
        code = {name: i for i, name in enumerate(classes)}
        labels = np.array([code.get(name, -1) for name in rows.labels.tolist()], np.int64)
    return Unseen(tuple(first), tuple(full), persons.astype(np.int64), labels, tuple(rows.ids.tolist()))


def _by_fold(run: RunPredictions) -> dict[int, AlignedFile]:
    return {part.fold: part for part in run.parts if isinstance(part.fold, int)}


def _views_folder(root: Path, run: str) -> Path:
    return root / "runs" / "tta" / re.sub(r"#\d+$", "", run) / "views"


def _file_name(view: str) -> str:
    return view.replace("*", "-").replace(":", "")


def _view(path: Path, current: Mapping[int, str], ids: NDArray[np.str_], classes: Sequence[str]) -> NDArray[np.float32]:
    """Return (n, classes) the probabilities of one view, in the order of `ids`.

    Raises
    ------
    EnsembleError : the file is missing, is from other checkpoints, or lacks a row.
    """
    found = load_common_rows([path], current)
    at: dict[str, int] = {}
    if found is not None and set(found[1].classes) == set(classes):
        at = {name: i for i, name in enumerate(found[1].rows.ids.tolist())}
    rows = [at.get(name, -1) for name in ids.tolist()]
    if found is None or min(rows, default=-1) < 0:
        raise EnsembleError(
            f"{path} does not have the predictions of the current checkpoints on one view",
            hint="ensemble tta RUN with the same views writes it",
        )
    order = [found[1].classes.index(name) for name in classes]
    return softmax(found[0][0][rows][:, order]).astype(np.float32)
