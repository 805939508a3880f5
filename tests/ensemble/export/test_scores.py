"""The scores that an exported model states; one that is not defined is left out, because no file holds it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from ensemble.export import scores
from ensemble.prediction.comparison import score_of
from ensemble.prediction.result import PredictedImages
from folds.metrics.task_names import MULTILABEL
from folds.predictions.files import PredictionMetadata
from folds.predictions.predictions import Predictions
from folds.predictions.rows import SampleRows


@pytest.mark.parametrize(("texts", "expected"), [(["hat", "-"], 1.0), (["hat", "hat"], None)])
def test_a_score_that_is_not_defined_is_left_out(texts: list[str], expected: float | None, logged) -> None:
    rows = SampleRows(np.array(["a", "b"]), np.array(texts), np.array(["a", "b"]))
    meaning = PredictionMetadata("probability", "test", ("hat",), rows, task=MULTILABEL, unit="person")
    found = Predictions(np.array([[0.75], [0.25]], np.float32), meaning)
    table = scores._defined(scores._score(found, "roc_auc", False, "test images"))
    assert table.get("score") == expected
    said = any("roc_auc of the test images is not defined" in line for line in logged.lines)
    assert said == (expected is None)


@pytest.mark.parametrize(("per_person", "support", "images"), [(False, [2, 1], 3), (True, [1, 1], 4)])
def test_images_without_a_label_count_only_in_their_person(per_person: bool, support: list[int], images: int) -> None:
    # Bob is right by the image with a label, and wrong by the mean of both; of cem nothing is known.
    persons = np.array(["ann", "ann", "bob", "bob", "cem"])
    rows = SampleRows(np.array(list("abcde")), np.array(["hat", "hat", "mask", "", ""]), persons)
    values = np.array([[0.8, 0.2], [0.6, 0.4], [0.4, 0.6], [1, 0], [0, 1]], np.float32)
    found = Predictions(values, PredictionMetadata("probability", "test", ("hat", "mask"), rows))
    table = scores._score(found, "accuracy", per_person, "test images")
    assert (table["score"], table["accuracy"]) == ((0.5, 0.5) if per_person else (1, 1))
    assert (table["people"], table["images"]) == (2, images)
    assert [values[0] for values in table["per_class"].values()] == support
    assert scores._trained(found, "run", 5)["images_per_class"] == {"hat": 2, "mask": 1}
    of_predict = score_of(found, "accuracy", per_person)  # what `ensemble predict` prints
    assert of_predict is not None
    assert (of_predict.interval.value, of_predict.interval.people) == (table["score"], 2)
    if per_person:
        images = PredictedImages(found, SimpleNamespace(cascade=None), SimpleNamespace(), 1.0, None)  # type: ignore[arg-type]
        assert images.by_person().predictions.labels.tolist() == ["hat", "mask", ""]
