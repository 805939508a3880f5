"""Read the predictions that a run has written, score them, and join them to other rows by id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from folds.errors import EnsembleError
from folds.metrics.positive import in_order_of_metric
from folds.metrics.report import ScoreReport, score_predictions
from folds.metrics.scored_units import scored_units
from folds.metrics.tasks import metric_for_task
from folds.predictions.changed_labels import with_changed_labels
from folds.predictions.files import LABEL, PredictionMetadata, fold_files, oof_file, read_array, read_sidecar
from folds.predictions.label_columns import encode_labels
from folds.utils.numeric import factorize

if TYPE_CHECKING:
    from folds.predictions.predictions import Predictions


class HasLabelOf(Protocol):
    """What says whether only persons are labeled."""

    @property
    def label_of(self) -> str | None:
        """Return ``person`` if only persons are labeled, else None."""


def labels_and_groups(sidecar: PredictionMetadata) -> tuple[NDArray, NDArray[np.int64]]:
    """Return (n,) class indices, −1 where one is not known, and (n,) a number for each person; the labels are an
    attribute's values if one is predicted. Several labels and numbers are (n, columns) float64, nan where one is not
    known.

    Raises
    ------
    ValueError : the rows have no labels.
    EnsembleError : a label is none of the classes.
    """
    labels, persons = sidecar.rows.labels, sidecar.rows.persons
    if sidecar.target != LABEL:
        labels = sidecar.rows.attributes.get(sidecar.target)
    if labels is None:
        raise ValueError("the rows have no labels")
    groups = factorize(sidecar.rows.ids if persons is None else persons)[1]
    return encode_labels(labels, sidecar.classes, sidecar.task), groups


def has_known_labels(found: Predictions) -> bool:
    """Return whether any label of predictions is known, and all known ones are their classes; a score needs that."""
    labels = found.labels
    if labels is None or not (labels != "").any():
        return False
    return found.metadata.has_columns or set(labels.tolist()) <= {"", *found.classes}


def units_of(
    probabilities: NDArray[Any], sidecar: PredictionMetadata, per_person: bool = False
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]:
    """Return labels, predictions and persons of what is scored (`folds.metrics.scored_units`): of images with a known
    label, or of people with the mean of all their images.

    Parameters
    ----------
    per_person : whether people are scored; they always are if only persons are labeled.

    Raises
    ------
    ValueError : the rows have no labels.
    """
    labels, persons = labels_and_groups(sidecar)
    units = scored_units(labels, [probabilities], persons, is_by_person(sidecar, per_person), sidecar.task)
    return units.labels, units.predictions[0], units.persons


def is_by_person(of: HasLabelOf, per_person: bool = False) -> bool:
    """Return whether people are scored and not images: as asked, and always if only persons are labeled.

    Parameters
    ----------
    of : the metadata of predictions, or the checkpoint of a model.
    """
    return per_person or of.label_of is not None


def score_rows(
    probabilities: np.ndarray, sidecar: PredictionMetadata, metric: str | None = None, per_person: bool = False
) -> ScoreReport:
    """Score predictions (n, classes) against the labels in their sidecar, or against an attribute's values.

    The predictions of each person's images are averaged with `per_person`, and always if only persons are labeled.

    Parameters
    ----------
    metric : None for the default of the task.

    Raises
    ------
    UsageError : the metric does not fit the task.
    """
    labels, persons = labels_and_groups(sidecar)
    found = metric_for_task(metric, sidecar.task)
    labels, (probabilities,) = in_order_of_metric(found, labels, [probabilities], sidecar.classes, sidecar.scored)
    chosen = found if metric is None else metric
    by_person = is_by_person(sidecar, per_person)
    return score_predictions(labels, probabilities, persons, chosen, by_person, task=sidecar.task)


def scored_index(
    runs: Path, names: Sequence[str], sidecar: PredictionMetadata
) -> tuple[NDArray[np.int64] | None, int, bool]:
    """Return the rows on which out-of-fold predictions are scored: those of people with unchanged training labels.

    A person with a changed label is scored by the label of the table, and the run has learned another one.

    Parameters
    ----------
    names : the run, or the runs whose mean is scored.

    Returns
    -------
    (m,) rows, None for all; the number of people with changed labels; and whether these are left out. They are not if
    fewer than two other people remain.
    """
    changed = with_changed_labels(names, sidecar.rows, runs)
    if not changed.any():
        return None, 0, False
    persons = sidecar.rows.ids if sidecar.rows.persons is None else sidecar.rows.persons
    people, kept = len(set(persons[changed].tolist())), np.flatnonzero(~changed)
    left_out = len(set(persons[kept].tolist())) > 1
    return (kept if left_out else None), people, left_out


def score_oof(
    runs: Path,
    names: Sequence[str],
    probabilities: NDArray[np.floating],
    sidecar: PredictionMetadata,
    metric: str | None = None,
    per_person: bool = False,
) -> ScoreReport:
    """Score the out-of-fold predictions (n, classes) of a run, or of the mean of runs, on `scored_index`."""
    rows, people, left_out = scored_index(runs, names, sidecar)
    if rows is not None:
        probabilities, sidecar = probabilities[rows], replace(sidecar, rows=sidecar.rows.take(rows))
    found = score_rows(probabilities, sidecar, metric, per_person)
    return replace(found, changed_people=people, left_out=left_out) if people else found


def oof_predictions(runs: Path, run: str) -> tuple[NDArray[np.floating], PredictionMetadata]:
    """Return the out-of-fold predictions (n, classes) of a run, and their metadata.

    Raises
    ------
    ValueError : the file has no sidecar.
    """
    path = oof_file(runs, run)
    sidecar = read_sidecar(path)
    if sidecar is None:
        raise ValueError(f"{path} has no sidecar")
    return np.asarray(read_array(path)), sidecar


def mean_test_predictions(runs: Path, run: str) -> tuple[NDArray[np.floating], PredictionMetadata] | None:
    """Return the mean probabilities of the fold models on labeled test samples, and their metadata; None without labels
    or files.
    """
    tests = [(p, s) for p in fold_files(runs, run).values() if (s := read_sidecar(p)) is not None]
    if not tests or tests[0][1].rows.labels is None:
        return None
    return np.mean([np.asarray(read_array(p), np.float64) for p, _ in tests], axis=0), tests[0][1]


def rows_by_id(
    found: Predictions, ids: NDArray[np.str_], source: str, images: str, *, hint: str
) -> NDArray[np.float64]:
    """Return (n, classes) the probabilities of the samples `ids` (n,), in their order.

    Parameters
    ----------
    source, images : what the predictions and the samples are, in the error.

    Raises
    ------
    EnsembleError : a sample has no prediction; the message counts them.
    """
    position = {name: row for row, name in enumerate(found.ids.tolist())}
    missing = [name for name in ids.tolist() if name not in position]
    if missing:
        raise EnsembleError(
            f"{source} has no row for {len(missing):,} of the {len(ids):,} {images}, e.g. '{missing[0]}'", hint=hint
        )
    return np.asarray(found.probabilities, np.float64)[[position[name] for name in ids.tolist()]]
