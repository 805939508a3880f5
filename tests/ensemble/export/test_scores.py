"""The scores that an exported model states; one that is not defined is left out, because no file holds it."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble.export import scores
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
