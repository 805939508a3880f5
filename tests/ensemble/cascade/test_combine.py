"""An exact skip never changes a decision, for every combination that has a bound."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble.cascade.combine import Combiner, ExactBound, check_combination, used_runs, votes_of
from ensemble.learning.combination import Calibration, Combination
from folds.errors import UsageError

RUNS = ("a", "b", "c")
FOLDS = np.array([3, 2, 4])
BIAS = np.array([0.5, -1.0, 0.2, 0.0])
COMBINATIONS = {
    "soft": Combination(RUNS),
    "weighted": Combination(RUNS, weights=np.array([0.6, 0.0, 0.4])),
    "per class": Combination(RUNS, weights=np.array([[0.6, 0.1, 0.3, 1], [0, 0.8, 0.3, 1], [0.4, 0.1, 0.4, 0]])),
    "hard": Combination(RUNS, pool="hard", weights=np.array([0.5, 0.3, 0.2])),
    "before": Combination(
        RUNS, before=Calibration(np.array([0.5, 1.0, 2.0]).reshape(3, 1, 1), np.zeros((3, 1, 4)) + BIAS)
    ),
    "after": Combination(RUNS, after=Calibration(np.array(0.4), BIAS)),
    "bias": Combination(RUNS, after=Calibration(np.array(2.0)), bias=BIAS),
}


def draw(seed: int, n: int = 400) -> list[np.ndarray]:
    """Return (folds, n, classes) probabilities of each run."""
    random = np.random.default_rng(seed)
    shared = 4 * random.normal(size=(n, 4))
    made = []
    for count in FOLDS:
        values = np.exp(shared + 2 * random.normal(size=(count, n, 4)))
        made.append(values / values.sum(axis=2, keepdims=True))
    return made


@pytest.mark.parametrize("name", COMBINATIONS)
def test_what_is_settled_is_the_decision_of_all_models(name: str) -> None:
    combination = COMBINATIONS[name]
    bound, combiner = ExactBound(combination, FOLDS), Combiner(combination)
    values = draw(1)
    means = np.array([one.mean(axis=0) for one in values])
    votes = np.array([votes_of(one).mean(axis=0) for one in values]) if combiner.counts_votes else None
    full = combiner(means, votes, [True] * 3).classes
    settled_somewhere = 0
    for done in ([1, 0, 0], [3, 0, 0], [3, 1, 2], [3, 2, 3], [2, 0, 4]):
        parts = [votes_of(one) if combiner.counts_votes else one for one in values]
        sums = np.array([part[:count].sum(axis=0) for part, count in zip(parts, done, strict=True)])
        settled, probabilities = bound.settled(sums, np.array(done))
        assert (probabilities.argmax(axis=1)[settled] == full[settled]).all()
        np.testing.assert_allclose(probabilities.sum(axis=1), 1)
        settled_somewhere += int(settled.sum())
    assert settled_somewhere > 100  # the bound is of use


def test_the_bound_is_tight_for_a_mean_of_models() -> None:
    bound = ExactBound(Combination(("a",)), [4])
    certain = np.array([[[3.0, 0.0]], [[2.0, 0.0]]])  # leads of 3 and 2 with one and two models left of four
    assert bound.settled(certain[:1], np.array([3]))[0].all()
    assert not bound.settled(certain[1:], np.array([2]))[0].any()  # the two others can draw level


@pytest.mark.parametrize("pool", ["geometric", "median", "power", "max", "trimmed"])
def test_other_pools_have_no_bound(pool: str) -> None:
    assert not ExactBound.holds_for(Combination(RUNS, pool=pool))
    check_combination(Combination(RUNS, pool=pool))  # but can be decided image by image


def test_stacking_has_no_bound_and_ranks_are_refused() -> None:
    assert not ExactBound.holds_for(Combination(RUNS, stacked=np.ones((13, 4))))
    with pytest.raises(UsageError, match="rank voting compares the images"):
        check_combination(Combination(RUNS, pool="rank"))


def test_runs_without_weight_are_not_used() -> None:
    assert used_runs(COMBINATIONS["weighted"]) == ["a", "c"]


def test_the_lead_of_a_majority_is_that_of_the_mean_probability() -> None:
    values = np.array([[[0.6, 0.4]], [[0.55, 0.45]], [[0.1, 0.9]]])
    found = Combiner(Combination(RUNS, pool="hard"))(values, votes_of(values), [True] * 3)
    assert found.classes.tolist() == [0]
    np.testing.assert_allclose(found.lead, (1.25 - 1.75) / 3, atol=1e-6)
