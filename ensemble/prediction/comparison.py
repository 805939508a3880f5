"""Compare predictions with those that the training wrote, and score them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ensemble.model_files.reading import read_expected, read_record
from ensemble.prediction.source import PredictionSource
from folds.errors import EnsembleError, UsageError
from folds.metrics.report import ScoreReport
from folds.models.checkpoint import hash_ids
from folds.predictions.files import fold_files, oof_file, refit_file
from folds.predictions.predictions import Predictions, mean_of_folds, read_predictions
from folds.predictions.reading import score_rows
from folds.predictions.submission import ID_FORMS
from folds.utils.files import read_json

if TYPE_CHECKING:
    pass

logger = logging.getLogger(__name__)


def score_of(predictions: Predictions, metric: str, per_person: bool) -> ScoreReport | None:
    """Return the score against the labels of the table; None without labels, or with others than the classes."""
    rows = predictions.metadata.rows
    if predictions.labels is None:
        return None
    known = set(predictions.classes)
    if not set(predictions.labels.tolist()) <= known:
        return None
    if per_person and rows.persons is None:
        raise UsageError("scores per person need the persons of the images", hint="predict a table with persons")
    return score_rows(predictions.probabilities, predictions.metadata, metric, per_person)


def expected_difference(source: PredictionSource, device: str) -> float:
    """Return the largest difference of an exported model from its expected probabilities."""
    from ensemble.prediction.arrays import LoadedModels, check_expected

    assert source.folder is not None  # noqa: S101 - exported models have one
    tolerance = read_record(source.folder).expected["tolerance"]
    return check_expected(LoadedModels(source, device), read_expected(source.folder), tolerance)


def count_trained_on(source: PredictionSource, predictions: Predictions) -> int:
    """Return how many images have the id of an image that a model was trained on."""
    trained = {
        one
        for checkpoint in (model.checkpoint for model in source.models)
        for one in (*checkpoint.training_hashes, *checkpoint.pseudo_hashes)
    }
    return sum(one in trained for one in hash_ids(predictions.ids.tolist()))


def procedure_score(source: PredictionSource, root: Path, metric: str, per_person: bool) -> ScoreReport | None:
    """Return the out-of-fold score of the run or the blend; None if its out-of-fold predictions are not there."""
    path = oof_file(root / "runs", source.runs[0].name) if source.folder is None else source.folder / "oof.npy"
    found = read_predictions(path) if path.is_file() else None
    return None if found is None else score_of(found, metric, per_person)


def is_fitted(source: PredictionSource) -> bool:
    """Return whether the record of a blend says that something was fitted, so that its predictions are nested."""
    path = None if source.folder is None or source.kind != "blend" else source.folder / "blend.json"
    record = read_json(path) if path is not None and path.is_file() else None
    return isinstance(record, dict) and bool(record.get("fitted"))


def stated_procedure(source: PredictionSource) -> str:
    """Return what an exported model of all people says about the score of its procedure; "" if it says nothing."""
    score = {} if source.folder is None else read_record(source.folder).score
    if not score:
        return ""
    ends = f" [{score['low']:.3f}, {score['high']:.3f}]" if "low" in score and "high" in score else ""
    warning = f" ({score['warning']})" if score.get("warning") else ""
    nested = "nested " if str(score["basis"]).startswith("nested") else ""
    return (
        f": the score of the procedure is its {nested}out-of-fold {score['metric']} {score['score']:.3f}{ends}{warning}"
    )


def test_difference(source: PredictionSource, predictions: Predictions, root: Path) -> float:
    """Return the largest difference from the test predictions that the training or the blend wrote, by id.

    Raises
    ------
    EnsembleError : there are none, or no image has one.
    """
    before = _stored_predictions(source, root)
    if before is None:
        raise EnsembleError(
            f"`verify` needs the test predictions of {source.name}, and there are none",
            hint="verify what was trained or blended with test images",
        )
    rows: list[tuple[int, int]] = []
    for key in ID_FORMS:
        ours, theirs = list(map(key, predictions.ids.tolist())), list(map(key, before.ids.tolist()))
        position = {name: row for row, name in enumerate(theirs)}
        unique = len(position) == len(theirs) and len(set(ours)) == len(ours)
        rows = [(row, position[name]) for row, name in enumerate(ours) if name in position] if unique else []
        if rows:
            break
    if not rows:
        raise EnsembleError(
            f"none of the images is a test image of {source.name}, e.g. '{predictions.ids[0]}' is not",
            hint="`verify` compares the test images of the training: predict the same table",
        )
    mine, stored = map(list, zip(*rows, strict=True))
    columns = [before.classes.index(name) for name in predictions.classes]
    return float(np.abs(predictions.probabilities[mine] - before.probabilities[stored][:, columns]).max())


def _stored_predictions(source: PredictionSource, root: Path) -> Predictions | None:
    """Return the test predictions that the training or the blend wrote; None if there are none."""
    if source.folder is not None or source.refit:
        # A blend of models of all people has no test predictions of its own.
        path = refit_file(root / "runs", source.runs[0].name) if source.folder is None else source.folder / "test.npy"
        return read_predictions(path) if path.is_file() and not (source.refit and source.folder) else None
    files = fold_files(root / "runs", source.runs[0].name)
    return mean_of_folds([files[fold] for fold in source.runs[0].folds if fold in files])
