from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from folds.metrics import resampling as module
from folds.metrics.classification import METRICS
from folds.metrics.resampling import jackknife_groups, leave_one_group_out, leave_one_group_out_roc_auc
from folds.metrics.row_scores import roc_auc_per_class
from tests.folds.scored_people import Data, people_data, scored


@settings(max_examples=100, deadline=None)
@given(scored(), st.sampled_from([name for name, one in METRICS.items() if one.at_quantile is None]))
def test_a_score_without_a_person_is_that_of_all_rows_but_theirs(data: Data, name: str) -> None:
    labels, probabilities, persons = data
    codes, units, people = jackknife_groups(persons)
    found = leave_one_group_out(METRICS[name], labels, probabilities, codes, units)
    assert (len(found), units) == (people, people)
    for one in range(units):
        rows = codes != one
        if rows.any():
            assert found[one] == pytest.approx(METRICS[name](labels[rows], probabilities[rows]), abs=1e-9, nan_ok=True)


@settings(max_examples=60, deadline=None)
@given(scored(), st.integers(1, 6))
def test_leave_one_out_roc_auc_is_right_with_ties(data: Data, steps: int) -> None:
    labels, probabilities, persons = data
    probabilities = np.round(probabilities * steps)
    codes, units, _ = jackknife_groups(persons)
    found = leave_one_group_out_roc_auc(labels, probabilities, codes, units)
    for one in range(units if units > 1 else 0):
        rows = codes != one
        np.testing.assert_allclose(found[one], roc_auc_per_class(labels[rows], probabilities[rows]), atol=1e-9)


def test_jackknife_groups_do_not_depend_on_the_order_of_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_GROUPS", 10)
    _, _, persons = people_data(people=97)
    codes, units, people = jackknife_groups(persons)
    assert (units, people) == (10, 97)
    sizes = [len(set(persons[codes == unit].tolist())) for unit in range(10)]
    assert sum(sizes) == 97  # nobody is in two
    assert set(sizes) == {9, 10}
    order = np.random.default_rng(0).permutation(len(persons))
    np.testing.assert_array_equal(jackknife_groups(persons[order])[0], codes[order])
