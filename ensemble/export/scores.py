"""Collect what is known about a model for its card: scores over people and counts of what it was trained on."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.decisions.rows import PERSON
from ensemble.model_files.reading import read_record
from ensemble.prediction.optimism import optimism
from ensemble.prediction.source import PredictionSource
from folds.errors import EnsembleError, UsageError
from folds.metrics.confusion import confusion_counts
from folds.metrics.intervals import LEVEL
from folds.metrics.report import ScoreReport
from folds.metrics.scored_units import known_rows, rows_of_known_people
from folds.metrics.tasks import default_metric, metric_for_task
from folds.predictions.file_names import BLEND_RECORD
from folds.predictions.files import fold_files, oof_file
from folds.predictions.predictions import Predictions, mean_of_folds, read_predictions
from folds.predictions.reading import has_known_labels, labels_and_groups, score_rows, units_of
from folds.utils.files import read_json

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Knowledge:
    """Scores and counts, as tables of ``model.toml``; {} for what is not known."""

    score: Mapping[str, Any] = field(default_factory=dict)
    test_score: Mapping[str, Any] = field(default_factory=dict)
    trained: Mapping[str, Any] = field(default_factory=dict)


def collect(source: PredictionSource, root: Path, metric: str | None = None) -> Knowledge:
    """Return the scores and counts of a checkpoint, a run or a blend, from the predictions that it wrote.

    Parameters
    ----------
    root : the folder that holds ``runs/``.
    metric : metric of the score; None for that of the blend, or of the task: macro F1 of classes.

    Raises
    ------
    UsageError : the metric is not for the task, or is another one than an exported model states.
    """
    if metric is not None:
        metric_for_task(metric, source.task)
    if source.kind == "model" and source.folder is not None:
        record = read_record(source.folder)
        if metric is not None and metric != record.score.get("metric"):
            raise UsageError(
                f"`metric={metric}`: an exported model has no predictions to score, only the score it states "
                f"({record.score.get('metric', 'none')})",
                hint="leave out `metric`, or export the blend or run again where it was trained",
            )
        return Knowledge(record.score, record.test_score, record.trained)
    fallback = {"images": max((_images(one) for one in source.models), default=0)}
    try:
        oof, test, basis, recorded = _predictions(source, root)
    except EnsembleError as error:
        logger.warning(f"the model gets no score: {error.message}")
        return Knowledge(trained=fallback)
    named, per_person = metric or recorded[0], recorded[1]
    found = _score(oof, named, per_person, basis) if oof is not None else {}
    score = _defined(found)
    if score and (doubt := optimism(source, root, None if oof is None else oof.metadata.teacher)):
        score["warning"] = f"{score['warning']}; {doubt}" if score["warning"] else doubt
    tested = _defined(_score(test, named, per_person, "test images") if test is not None else {})
    if not found:
        logger.warning(f"no out-of-fold predictions of {source.name} with labels were found: the model gets no score")
    return Knowledge(score, tested, _trained(oof, source.kind, fallback["images"]) or fallback)


def _images(model: Any) -> int:
    return len(model.checkpoint.training_hashes) + len(model.checkpoint.validation_hashes)


def _predictions(
    source: PredictionSource, root: Path
) -> tuple[Predictions | None, Predictions | None, str, tuple[str, bool]]:
    """Return the out-of-fold and test predictions, what the former are, and the metric and whether it is per person."""
    if source.folder is not None:
        record = read_json(source.folder / BLEND_RECORD) if (source.folder / BLEND_RECORD).is_file() else {}
        record = record if isinstance(record, dict) else {}
        found = [read_predictions(file) if file.is_file() else None for file in map(source.folder.joinpath, _FILES)]
        metric = record.get("metric") if isinstance(record.get("metric"), str) else default_metric(source.task)
        basis = "nested cross-validation over people" if record.get("fitted") else "out-of-fold predictions"
        test = found[1]
        if source.refit:  # the test predictions are those of the models of the folds
            basis, test = f"{basis}{_PROCEDURE}", None
        return found[0], test, basis, (str(metric), record.get("per") == "person")
    run = source.models[0].checkpoint.run
    file, tests = oof_file(root / "runs", run), fold_files(root / "runs", run)
    oof = read_predictions(file) if file.exists() else None
    test = mean_of_folds([tests[fold] for fold in source.runs[0].folds if fold in tests])
    basis = f"out-of-fold predictions{_PROCEDURE if source.refit else ''}"
    if source.refit:
        test = None  # of the models of the folds
    if source.kind == "checkpoint" and oof is not None:
        fold = source.models[0].checkpoint.fold
        basis = f"validation images of fold {fold}"
        oof = None if oof.fold is None else oof.take(np.flatnonzero(oof.fold == fold))
    return oof, test, basis, (default_metric(source.task), False)


_FILES = ("oof.npy", "test.npy")
_PROCEDURE = " of the procedure; these models were trained on all people, and were never tested on others"


def _score(found: Predictions, metric: str, per_person: bool, basis: str) -> dict[str, Any]:
    """Return a table [score]; {} without labels, or with one that is none of the classes."""
    metadata, classes = found.metadata, found.classes
    per_person = metadata.unit == PERSON or (
        (per_person or metadata.label_of is not None) and found.persons is not None
    )
    if not has_known_labels(found):
        return {}
    if metadata.has_columns:
        return _score_table(found, score_rows(found.probabilities, metadata, metric, per_person), basis, per_person)
    report = score_rows(found.probabilities, metadata, metric, per_person)
    labels, probabilities, _ = units_of(found.probabilities, metadata, per_person)
    counts = confusion_counts(labels, probabilities.argmax(axis=1), len(classes))
    true, support, predicted = (counts[i].astype(float) for i in range(3))
    recall = np.divide(true, support, out=np.zeros_like(true), where=support > 0)
    precision = np.divide(true, predicted, out=np.zeros_like(true), where=predicted > 0)
    both = support + predicted
    f1 = np.divide(2 * true, both, out=np.zeros_like(true), where=both > 0)
    table = np.stack([support, precision, recall, f1], axis=1)
    return _score_table(found, report, basis, per_person) | {
        "per_class": {name: [round(float(v), 6) for v in row] for name, row in zip(classes, table, strict=True)},
    }


def _defined(table: dict[str, Any]) -> dict[str, Any]:
    """Return a table [score]; {} with a warning if the score is not defined, as ROC-AUC of people who are all alike."""
    if not table or math.isfinite(table["score"]):
        return table
    why = f": {table['warning']}" if table["warning"] else ""
    logger.warning(f"{table['metric']} of the {table['basis']} is not defined, so the model does not state it{why}")
    return {}


def _score_table(found: Predictions, report: ScoreReport, basis: str, per_person: bool) -> dict[str, Any]:
    """Return a table [score] without the counts of the classes."""
    interval = report.interval
    labels, people = labels_and_groups(found.metadata)
    scored = rows_of_known_people(labels, people) if per_person else known_rows(labels)
    return {
        "metric": report.metric,
        "score": float(interval.value),
        **{name: float(end) for name, end in (("low", interval.low), ("high", interval.high)) if np.isfinite(end)},
        "level": LEVEL,
        "people": None if found.persons is None else len(set(found.persons[scored].tolist())),
        "images": int(scored.sum()),
        **({} if found.metadata.has_columns else {"accuracy": float(report.accuracy)}),
        "basis": basis,
        "per_person": per_person,
        "warning": interval.warning,
    }


def _trained(oof: Predictions | None, kind: str, images: int) -> dict[str, Any]:
    """Return the table [trained]: every image of training and validation has an out-of-fold prediction.

    Parameters
    ----------
    images : of the training, as its models count them: a row of a blend for people is no image.
    """
    if oof is None or kind == "checkpoint":
        return {}
    if oof.metadata.unit == PERSON:
        return {"images": images, "people": len(oof)}
    found: dict[str, Any] = {"images": len(oof)}
    if oof.persons is not None:
        found["people"] = len(set(oof.persons.tolist()))
    if oof.labels is not None and not oof.metadata.has_columns:
        names, counts = np.unique(oof.labels[oof.labels != ""], return_counts=True)
        found["images_per_class"] = dict(zip(names.tolist(), counts.tolist(), strict=True))
    return found
