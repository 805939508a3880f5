"""Tests of rows that several predictions are scored on: shared counts give the scores of each prediction alone."""

from __future__ import annotations

import numpy as np
import pytest

from folds.metrics.classification import METRICS
from folds.metrics.grouping import confusion_counts_by_group
from folds.metrics.report import score_predictions
from folds.metrics.resampling import jackknife_groups
from folds.metrics.scored_rows import ScoredRows


@pytest.mark.parametrize("people", [40, 5000])  # more than 4,096 people are grouped
def test_shared_rows_give_the_scores_of_each_prediction_alone(people: int) -> None:
    random = np.random.default_rng(0)
    labels, persons = random.integers(0, 4, 6000), random.integers(0, people, 6000)
    rows = ScoredRows(labels, persons, 5)
    codes, units, _ = jackknife_groups(persons)
    for _ in range(2):
        values = random.dirichlet(np.ones(5), 6000)
        predicted = values.argmax(axis=1)
        expected = confusion_counts_by_group(labels, predicted, 5, codes, units)
        assert np.array_equal(rows.confusion_counts(predicted), expected)
        for metric in METRICS:
            shared = score_predictions(labels, values, persons, metric, rows=rows)
            assert shared == score_predictions(labels, values, persons, metric)


def test_rows_of_images_are_not_used_for_a_score_per_person() -> None:
    random = np.random.default_rng(0)
    labels, persons, values = np.arange(60) % 3, np.arange(60) // 4, random.dirichlet(np.ones(3), 60)
    rows = ScoredRows(labels, persons, 3)
    alone = score_predictions(labels, values, persons, per_person=True)
    assert score_predictions(labels, values, persons, per_person=True, rows=rows) == alone
    assert alone.rows == 15
