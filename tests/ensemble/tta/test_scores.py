"""Views of a run of which only persons are labeled are scored and compared by person."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ensemble.tta.merge import Merge, MergeConfig, merge_views
from ensemble.tta.result import MergedViews
from ensemble.tta.scores import gain_of, score_views
from ensemble.tta.weights import OOFViews
from folds.metrics.classification import METRICS
from folds.metrics.confusion import f1_per_class
from folds.metrics.label_scores import is_predicted
from folds.metrics.task_names import CLASSES, MULTILABEL
from folds.metrics.tasks import metric_for_task
from folds.predictions.files import PredictionMetadata, write_prediction
from folds.predictions.rows import SampleRows

PERSONS = np.repeat(np.arange(12), 3)
OWN = np.arange(12) % 3 == 0  # who is positive
MERGE = Merge("mean", {"none": (1.0,), "hflip": (1.0,)})


def merged(task: str, by_person: bool) -> MergedViews:
    """Two views whose errors differ; of several labels the second is the reverse of the first."""
    random, positive = np.random.default_rng(0), OWN[PERSONS]
    score = 1.2 * (2 * positive - 1) + 2 * random.normal(size=(2, len(PERSONS)))
    logits = np.stack([-score, score], axis=2) if task == CLASSES else np.stack([score, -score], axis=2)
    labels = positive.astype(int) if task == CLASSES else np.stack([positive, ~positive], axis=1).astype(float)
    evidence = OOFViews(("none", "hflip"), logits, labels, PERSONS, PERSONS % 3, task, by_person)
    return MergedViews("r", MergeConfig(), MERGE, evidence, merge_views(logits, task=task), None, 2.0, task)


def of_people(values: np.ndarray) -> np.ndarray:
    return np.array([values[person == PERSONS].mean(axis=0) for person in range(12)])


@pytest.mark.parametrize("task", [CLASSES, MULTILABEL])
def test_a_merge_is_compared_by_person_if_only_persons_are_labeled(task: str) -> None:
    made = merged(task, True)
    assert made.evidence is not None
    metric = metric_for_task(None, task)
    truth = OWN.astype(int) if task == CLASSES else np.stack([OWN, ~OWN], axis=1).astype(float)
    plain, mean = of_people(made.evidence.plain), of_people(made.merged)
    found = gain_of(made)
    assert found is not None
    assert found.against_plain.first == pytest.approx(metric(truth, plain))
    assert found.against_plain.second == pytest.approx(metric(truth, mean))
    assert found.against_mean.difference.value == 0
    assert (found.mean.rows, found.mean.interval.people) == (12, 12)
    single = metric(truth, of_people(merge_views(made.evidence.logits[:1], task=task)))
    assert found.leave_one_out["hflip"] == pytest.approx(metric(truth, mean) - single)
    images = gain_of(merged(task, False))
    assert images is not None
    assert images.mean.rows == len(PERSONS)
    if task == CLASSES:
        assert found.per_class["plain"] == pytest.approx(f1_per_class(truth, plain.argmax(axis=1), 2))
        own = merged(task, False).evidence
        assert own is not None
        assert images.per_class["plain"] == pytest.approx(f1_per_class(own.labels, own.plain.argmax(axis=1), 2))
    else:
        assert found.per_class == {}
        assert is_predicted(mean).any()


def test_written_views_are_scored_by_person_if_only_persons_are_labeled(tmp_path: Path) -> None:
    made = merged(CLASSES, True)
    ids, persons = np.array([f"{i:02d}" for i in range(len(PERSONS))]), np.array([f"p{i:02d}" for i in PERSONS])
    rows = SampleRows(ids, np.where(OWN[PERSONS], "yes", "no"), persons)
    for label_of, truth, values in (
        ("person", OWN.astype(int), of_people(made.merged)),
        (None, OWN[PERSONS].astype(int), made.merged),
    ):
        meaning = PredictionMetadata(
            "probability", "oof", ("no", "yes"), rows, fold=PERSONS % 3, run="r", label_of=label_of
        )
        write_prediction(tmp_path / "tta" / "r.oof.npy", made.merged.astype(np.float32), meaning, rows)
        (found,) = score_views("r", (), tmp_path)
        assert found.merged is not None
        assert found.merged.rows == len(truth)
        assert found.merged.interval.value == pytest.approx(METRICS["macro_f1"](truth, values))
