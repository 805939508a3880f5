"""Score predictions, and say whose score stands for models of all people."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ensemble.model_files.reading import read_record
from ensemble.prediction.source import PredictionSource
from folds.errors import UsageError
from folds.metrics.report import ScoreReport
from folds.models.checkpoint import hash_ids
from folds.predictions.file_names import BLEND_RECORD
from folds.predictions.files import oof_file
from folds.predictions.predictions import Predictions, read_predictions
from folds.predictions.reading import has_known_labels, score_rows
from folds.utils.files import read_json

if TYPE_CHECKING:
    pass

logger = logging.getLogger(__name__)


def score_of(predictions: Predictions, metric: str, per_person: bool) -> ScoreReport | None:
    """Return the score against the labels of the table; None without labels, or with others than the classes."""
    if not has_known_labels(predictions):
        return None
    if per_person and predictions.persons is None:
        raise UsageError("scores per person need the persons of the images", hint="predict a table with persons")
    return score_rows(predictions.probabilities, predictions.metadata, metric, per_person)


def count_trained_on(source: PredictionSource, ids: Sequence[str]) -> int:
    """Return how many images have the id of an image that a model was trained on."""
    trained = {
        one
        for checkpoint in (model.checkpoint for model in source.models)
        for one in (*checkpoint.training_hashes, *checkpoint.pseudo_hashes)
    }
    return sum(one in trained for one in hash_ids(ids))


def procedure_score(source: PredictionSource, root: Path, metric: str, per_person: bool) -> ScoreReport | None:
    """Return the out-of-fold score of the run or the blend; None if its out-of-fold predictions are not there."""
    path = oof_file(root / "runs", source.runs[0].name) if source.folder is None else source.folder / "oof.npy"
    found = read_predictions(path) if path.is_file() else None
    return None if found is None else score_of(found, metric, per_person)


def is_fitted(source: PredictionSource) -> bool:
    """Return whether the record of a blend says that something was fitted, so that its predictions are nested."""
    path = None if source.folder is None or source.kind != "blend" else source.folder / BLEND_RECORD
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
