"""New images of which some have no label: what has one is scored, and people have the mean of all their images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ensemble.decisions.decision import Decision
from ensemble.prediction.comparison import score_of
from ensemble.prediction.models import PredictionSource
from ensemble.prediction.predict import SkippedImages
from ensemble.prediction.result import PredictedImages
from ensemble.prediction.source import combination_of_run
from folds.predictions.files import PredictionMetadata
from folds.predictions.predictions import Predictions
from folds.predictions.rows import SampleRows

YES = np.array([0.9, 0.2, 0.2, 0.1, 0.8, 0.7])
LABELS = np.array(["yes", "", "no", "no", "", "no"])
PERSONS = np.array(["a", "a", "b", "c", "d", "c"])


def predicted(labels: np.ndarray = LABELS) -> PredictedImages:
    rows = SampleRows(np.arange(6).astype(str), labels, PERSONS)
    metadata = PredictionMetadata(kind="probabilities", split="test", classes=("no", "yes"), rows=rows)
    values = np.stack([1 - YES, YES], axis=1).astype(np.float32)
    source = PredictionSource(
        "one", "run", ("no", "yes"), "label", combination_of_run("one", "classes", ("no", "yes")), ()
    )
    return PredictedImages(Predictions(values, metadata), source, SkippedImages(), 1.0, None)


def test_images_with_a_label_and_people_of_whom_one_is_known_are_scored() -> None:
    found = predicted()
    images = score_of(found.predictions, "accuracy", False)
    assert images is not None
    assert (images.interval.value, images.rows) == (pytest.approx(3 / 4), 4)
    people = score_of(found.predictions, "accuracy", True)
    assert people is not None
    assert (people.interval.value, people.rows) == (pytest.approx(1.0), 3)  # means of .55, .2 and .4
    by_person = found.by_person().predictions
    assert by_person.labels is not None
    assert by_person.labels.tolist() == ["yes", "no", "no", ""]
    np.testing.assert_allclose(by_person.probabilities[:, 1], [0.55, 0.2, 0.4, 0.8], rtol=1e-6)
    assert score_of(predicted(np.full(6, "")).predictions, "accuracy", False) is None
    assert predicted(np.full(6, "other")).by_person().predictions.labels is None


def test_decisions_are_scored_on_what_has_a_label() -> None:
    found = replace(predicted(), decision=Decision(("no", "yes"), "image"))
    scores = {one.measure: one.interval.value for one in found.decision_scores()}
    assert scores == {"error of answers": pytest.approx((0 + 0 + 0.5) / 3)}  # of a, b and c, who count equally
    assert replace(predicted(np.full(6, "")), decision=found.decision).decision_scores() == []
