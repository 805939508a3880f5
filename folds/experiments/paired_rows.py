"""Pair the out-of-fold rows of two runs or blends by id, class and label, and refuse what cannot be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.config.files import read_record
from folds.errors import EnsembleError, UsageError, close_matches
from folds.experiments.compared_settings import settings_of
from folds.metrics.task_names import CLASSES
from folds.predictions.changed_labels import changed_ids, has_changed_labels
from folds.predictions.file_names import RUN_CONFIG
from folds.predictions.files import LABEL, PredictionMetadata, SampleRows, read_array, read_sidecar
from folds.predictions.label_columns import encode_labels
from folds.predictions.links import kind_of
from folds.predictions.named import blend_names, is_blend, oof_of
from folds.predictions.optimism import selected_runs
from folds.utils.numeric import factorize


@dataclass(frozen=True)
class PairedRows:
    """The rows that two runs are compared on.

    Attributes
    ----------
    labels, people : (n,) class index, −1 if unknown, or (n, columns) of several labels or numbers; and a number for
        each person.
    values : two arrays (n, classes), with the classes of the first run.
    at_first, at_second : (n,) the row of each in the file of the run.
    """

    first: PublishedRun
    second: PublishedRun
    labels: NDArray
    people: NDArray[np.int64]
    values: tuple[NDArray[np.floating], NDArray[np.floating]]
    at_first: NDArray[np.int64]
    at_second: NDArray[np.int64]


def pair_rows(first: str, second: str, runs: Path, notes: list[str]) -> PairedRows:
    """Return the common rows of two runs or blends, aligned by id and class name; limitations are added to `notes`.

    Raises
    ------
    UsageError, EnsembleError : as `compare_runs`.
    """
    a, b = (published_run(name, runs) for name in (first, second))
    _check_same_target(a, b)
    _, at_a, at_b = _common(a, b, notes)
    names, persons = _common_labels(a, b, at_a, at_b, notes)
    kept = _with_unchanged_labels(a, b, at_a, at_b, persons, runs, notes)
    if kept is not None:
        names, persons, at_a, at_b = names[kept], persons[kept], at_a[kept], at_b[kept]
    labels = _encoded(a, names)
    order = [b.sidecar.classes.index(name) for name in a.sidecar.classes]
    values = np.asarray(a.values)[at_a], np.asarray(b.values)[at_b][:, order]
    return PairedRows(a, b, labels, factorize(persons)[1], values, at_a, at_b)


def _encoded(one: PublishedRun, names: NDArray[np.str_]) -> NDArray:
    """Return the labels of rows as metrics take them."""
    if one.sidecar.has_columns:
        return encode_labels(names, one.sidecar.classes, one.sidecar.task)
    code = {"": -1} | {name: i for i, name in enumerate(one.sidecar.classes)}
    unknown = sorted(set(names.tolist()) - set(code))
    if unknown:
        raise EnsembleError(
            f"{one.path}: the label '{unknown[0]}' is not one of its {len(one.sidecar.classes)} classes",
            hint="restore the file, or train the run again",
        )
    return np.array([code[name] for name in names.tolist()])


def known_runs(runs: Path = Path("runs")) -> list[str]:
    """Return the names of the runs with out-of-fold predictions, sorted."""
    return sorted(path.name.removesuffix(".oof.npy") for path in runs.glob("*.oof.npy"))


def require_run(name: str, runs: Path = Path("runs"), option: str = "run", blends: bool = False) -> None:
    """Raise an error if a run has no out-of-fold predictions.

    Parameters
    ----------
    option : the word for the run in the message.
    blends : whether it can be a blend.

    Raises
    ------
    EnsembleError : no fold of the run is trained yet.
    UsageError : there is no such run; the message suggests the closest names.
    """
    known = [*known_runs(runs), *(blend_names(runs) if blends else [])]
    if name in known or (blends and is_blend(name, runs) and oof_of(name, runs).exists()):
        return
    close = close_matches(name, known)
    meant = f"; did you mean {' or '.join(close)}?" if close else ""
    listed = (
        f"known: {', '.join(known[:20])}{' …' if len(known) > 20 else ''}"
        if known
        else f"{runs} has no runs yet: train one with ensemble kfold"
    )
    if (runs / name / RUN_CONFIG).is_file():
        raise EnsembleError(
            f"{option} {name}: no fold is trained yet",
            hint=f"ensemble kfold … --name {name} --resume trains them",
        )
    raise UsageError(f"unknown {option} '{name}'{meant}", hint=listed)


@dataclass(frozen=True)
class PublishedRun:
    """The out-of-fold predictions of a run or a blend, its sidecar, and the settings in its config.toml.

    Attributes
    ----------
    settings : as `settings_of` returns them; {} for a blend, or if there is no config.toml.
    selected_on_validation : whether something was selected on the folds that are scored.
    """

    run: str
    path: Path
    values: NDArray[np.floating]
    sidecar: PredictionMetadata
    settings: Mapping[str, Any]
    selected_on_validation: bool = False

    @property
    def labels(self) -> NDArray[np.str_]:
        """Return the (n,) labels of the rows; raise EnsembleError if it has none."""
        rows = self.sidecar.rows
        labels = rows.labels if self.sidecar.target == LABEL else rows.attributes.get(self.sidecar.target)
        if labels is None:
            raise EnsembleError(
                f"{self.path} has no labels, so it cannot be scored", hint="compare runs on labeled samples"
            )
        return labels


def published_run(run: str, runs: Path) -> PublishedRun:
    """Return the out-of-fold predictions of a run or a blend; raise an error if there are none, or damaged ones."""
    require_run(run, runs, blends=True)
    path = oof_of(run, runs)
    sidecar = read_sidecar(path)
    if sidecar is None:
        raise EnsembleError(
            f"{path} has no sidecar, so the ids of its rows are unknown",
            hint="restore the sidecar, or use ensemble blend, which accepts arrays without a sidecar",
        )
    values = read_array(path)
    if values.shape != (len(sidecar.rows), len(sidecar.classes)):
        expected = f"{len(sidecar.rows)} × {len(sidecar.classes)}"
        raise EnsembleError(
            f"{path} is {values.shape[0]} × {values.shape[1]}, its sidecar says {expected}", hint="restore both files"
        )
    config = runs / run / RUN_CONFIG
    settings = settings_of(read_record(config)) if config.is_file() else {}
    # The initial weights can be selected on the scored folds, too; only done.json records that.
    selected = settings.get("keep") == "best" or settings.get("patience", 0) > 0 or bool(selected_runs(runs, [run]))
    return PublishedRun(run, path, values, sidecar, settings, selected)


def _check_same_target(a: PublishedRun, b: PublishedRun) -> None:
    if a.sidecar.target != b.sidecar.target:
        raise EnsembleError(
            f"{a.run} predicts the {a.sidecar.target}, {b.run} the {b.sidecar.target}: their scores cannot be compared",
            hint="compare runs with the same target; ensemble blend combines targets",
        )
    if a.sidecar.task != b.sidecar.task and (a.sidecar.has_columns or b.sidecar.has_columns):
        raise EnsembleError(
            f"{a.run} has the task {a.sidecar.task}, {b.run} {b.sidecar.task}: their scores cannot be compared",
            hint="compare runs of one task",
        )
    if set(a.sidecar.classes) != set(b.sidecar.classes):
        unshared = sorted(set(a.sidecar.classes) ^ set(b.sidecar.classes))
        raise EnsembleError(
            f"{a.run} and {b.run} have different classes: '{unshared[0]}' is in only one of them",
            hint="compare runs of one table",
        )


def _common(a: PublishedRun, b: PublishedRun, notes: list[str]) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
    """Return the number of common samples and their rows in each run, in the order of the first run."""
    _, at_a, at_b = np.intersect1d(a.sidecar.rows.ids, b.sidecar.rows.ids, return_indices=True)
    if not len(at_a):
        example = f"'{a.sidecar.rows.ids[0]}' and '{b.sidecar.rows.ids[0]}'"
        raise EnsembleError(
            f"{a.run} and {b.run} have no sample in common, e.g. {example}",
            hint="compare runs of one table, with the same `id` column",
        )
    order = np.argsort(at_a)
    sizes = {one.run: len(one.sidecar.rows) for one in (a, b)}
    if set(sizes.values()) != {len(at_a)}:
        each = ", ".join(f"{run} has {size:,}" for run, size in sizes.items())
        notes.append(f"compared on the {len(at_a):,} samples that both runs predict ({each})")
    return len(at_a), at_a[order], at_b[order]


def _common_labels(
    a: PublishedRun, b: PublishedRun, at_a: NDArray[np.int64], at_b: NDArray[np.int64], notes: list[str]
) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    """Return the label and the person of each common sample, (n,) each."""
    labels, others = a.labels[at_a], b.labels[at_b]
    ids = a.sidecar.rows.ids[at_a]
    differing = np.flatnonzero(labels != others)
    if len(differing) and a.sidecar.has_columns:  # texts of the same labels may have another order
        first, second = _encoded(a, labels), encode_labels(others, a.sidecar.classes, a.sidecar.task)
        differing = np.flatnonzero(~((first == second) | (np.isnan(first) & np.isnan(second))).all(1))
    if len(differing):
        first = differing[0]
        raise EnsembleError(
            f"{a.run} and {b.run} have different labels for {len(differing):,} samples, e.g. '{ids[first]}': "
            f"{labels[first]} and {others[first]}",
            hint="train both on the correct table",
        )
    persons, theirs = (
        None if rows.persons is None else rows.persons[at]
        for rows, at in ((a.sidecar.rows, at_a), (b.sidecar.rows, at_b))
    )
    if persons is None:
        persons = theirs
    elif theirs is not None and (persons != theirs).any():
        notes.append(
            f"{int((persons != theirs).sum()):,} samples have different persons in the two runs; using those of {a.run}"
        )
    if persons is None:
        notes.append("persons are unknown: each image counts as one person, which makes the intervals too narrow")
        return labels, ids
    return labels, persons


def _with_unchanged_labels(
    a: PublishedRun,
    b: PublishedRun,
    at_a: NDArray[np.int64],
    at_b: NDArray[np.int64],
    persons: NDArray[np.str_],
    runs: Path,
    notes: list[str],
) -> NDArray[np.int64] | None:
    """Return the positions of the people whose labels neither run has changed for its training; None if all are.

    A person with a changed label is scored by the label of the table, and one of the runs has learned another one. The
    changed image may be one that only one of the runs predicts.

    Parameters
    ----------
    at_a, at_b : (n,) row of each common sample in the two runs.
    persons : (n,) person of each common sample.

    Raises
    ------
    EnsembleError : fewer than two people are left.
    """
    changed = [changed_ids(one.run, runs) for one in (a, b)]
    if not any(changed):
        return None
    images = sorted(changed[0] | changed[1])
    learned = np.isin(a.sidecar.rows.ids[at_a], images)
    for rows, at in ((a.sidecar.rows, at_a), (b.sidecar.rows, at_b)):
        if rows.persons is not None:
            learned |= np.isin(rows.persons[at], rows.persons[np.isin(rows.ids, images)])
    touched = np.unique(persons[learned])
    kept = np.flatnonzero(~np.isin(persons, touched))
    people = len(np.unique(persons[kept]))
    if people < 2:
        raise EnsembleError(
            f"{a.run} and {b.run} cannot be compared: only {people} of their people have no changed label",
            hint="the gain of changed labels is scored on other people; change fewer labels",
        )
    own = [one.run for one, ids_of in zip((a, b), changed, strict=True) if ids_of]
    named = " and ".join(own)
    if any(not is_blend(one, runs) and not has_changed_labels(one, runs) for one in own):
        named += ", or runs that they learned from,"
    notes.append(
        f"compared on the {people:,} people whose labels were not changed: {named} changed training labels of "
        f"{len(touched):,}"
    )
    return kept


def check_comparable(
    baseline: str,
    rows: SampleRows,
    classes: Sequence[str],
    target: str,
    runs: Path = Path("runs"),
    task: str = CLASSES,
) -> None:
    """Raise an error if a run on these rows could not be compared with `baseline`; called before training.

    Raises
    ------
    EnsembleError : the same errors as `compare_runs` raises after training.
    """
    known = published_run(baseline, runs)
    names = tuple(classes)
    sidecar = PredictionMetadata(kind=kind_of(task), split="oof", classes=names, rows=rows, target=target, task=task)
    planned = PublishedRun("this run", known.path, known.values, sidecar, {})
    _check_same_target(known, planned)
    _, at_known, at_planned = _common(known, planned, [])
    _common_labels(known, planned, at_known, at_planned, [])
