"""Read the published predictions of a run, and score them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from folds.metrics.report import ScoreReport, score_predictions
from folds.predictions.files import LABEL, PredictionMetadata, fold_files, oof_file, read_array, read_sidecar
from folds.utils.numeric import factorize


def labels_and_groups(sidecar: PredictionMetadata) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (n,) class indices and (n,) a number for each person; of a prediction of an attribute, its values.

    Raises
    ------
    ValueError : the rows have no labels.
    """
    labels, persons = sidecar.rows.labels, sidecar.rows.persons
    if sidecar.target != LABEL:
        labels = sidecar.rows.attributes.get(sidecar.target)
    if labels is None:
        raise ValueError("no labels to score on")
    code = {name: i for i, name in enumerate(sidecar.classes)}
    return np.array([code[label] for label in labels.tolist()]), factorize(
        sidecar.rows.ids if persons is None else persons
    )[1]


def score_rows(
    probabilities: np.ndarray, sidecar: PredictionMetadata, metric: str = "macro_f1", per_person: bool = False
) -> ScoreReport:
    """Score predictions (n, classes) on the labels in their sidecar; those of an attribute on its values."""
    truth, persons = labels_and_groups(sidecar)
    return score_predictions(truth, probabilities, persons, metric, per_person)


def oof_predictions(runs: Path, run: str) -> tuple[NDArray[np.floating], PredictionMetadata]:
    """Return the out-of-fold predictions (n, classes) that a run has published, and what they are."""
    path = oof_file(runs, run)
    sidecar = read_sidecar(path)
    if sidecar is None:
        raise ValueError(f"{path} has no sidecar")
    return np.asarray(read_array(path)), sidecar


def mean_test_predictions(runs: Path, run: str) -> tuple[NDArray[np.floating], PredictionMetadata] | None:
    """Return the mean of the fold models' probabilities on labelled test samples; None where there are none."""
    tests = [(p, s) for p in fold_files(runs, run).values() if (s := read_sidecar(p)) is not None]
    if not tests or tests[0][1].rows.labels is None:
        return None
    return np.mean([np.asarray(read_array(p), np.float64) for p, _ in tests], axis=0), tests[0][1]
