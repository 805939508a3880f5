"""Tests of contributions: Shapley axioms, brute force, leave-one-out votes, and correlated errors."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from ensemble.analysis.advice import advice, as_good, better
from ensemble.analysis.contributions import estimate_contributions, leave_one_out
from ensemble.analysis.cost import Cost, Costs
from ensemble.analysis.diversity import diversity
from ensemble.analysis.pareto import SOFT, pareto
from ensemble.analysis.shapley import _orders, shapley
from ensemble.analysis.subset_scores import ADDITIVE, game_of
from ensemble.cli.reports.blend import contribution_notes, contributions_table, pareto_table
from ensemble.learning.combination import Calibration, Combination, Fitter, combine
from ensemble.learning.nested import nested_cv
from ensemble.learning.stack import Stack
from folds.metrics.classification import METRICS, Metric
from folds.metrics.intervals import difference_over_people
from tests.ensemble.worlds import world

F1, LOSS = METRICS["macro_f1"], METRICS["log_loss"]


def with_gaps(stack: Stack) -> Stack:
    """Return a stack where each run lacks about a third of the rows and some rows have a single run."""
    present = np.random.default_rng(3).random(stack.probabilities.shape[:2]) < 0.66
    present[0] |= ~present.any(axis=0)
    return replace(stack, present=present, probabilities=np.where(present[:, :, None], stack.probabilities, 0))


def with_noise(stack: Stack, name: str = "zz-noise") -> Stack:
    """Add a run of confident random predictions."""
    values = np.random.default_rng(9).dirichlet(np.full(stack.classes, 0.1), len(stack)).astype(np.float32)
    return replace(stack, names=(*stack.names, name), probabilities=np.concatenate([stack.probabilities, values[None]]))


def with_twin(stack: Stack, run: int) -> Stack:
    return replace(
        stack,
        names=(*stack.names, "twin"),
        probabilities=np.concatenate([stack.probabilities, stack.probabilities[[run]]]),
    )


def value(stack: Stack, metric: Metric, pool: str, members: tuple[int, ...]) -> float:
    """Return the score of a subset from the vote itself; rows without a prediction are guessed."""
    guess = np.bincount(stack.labels, minlength=stack.classes) / len(stack)
    out = np.tile(guess.astype(np.float32), (len(stack), 1))
    if members:
        chosen = stack.select_runs(list(members))
        rows = np.arange(len(stack)) if chosen.present is None else np.flatnonzero(chosen.present.any(axis=0))
        out[rows] = combine(chosen.take(rows), Combination(chosen.names, pool=pool))
    return metric(stack.labels, out)


@pytest.mark.parametrize("pool", ADDITIVE)
@pytest.mark.parametrize("metric", ["macro_f1", "accuracy", "log_loss"])
@pytest.mark.parametrize("gaps", [False, True])
def test_every_subset_score_equals_the_score_of_its_vote(pool: str, metric: str, gaps: bool) -> None:
    stack = world(people=40, runs=3)
    stack = with_gaps(stack) if gaps else stack
    game = game_of(stack, METRICS[metric], pool)
    scores = game.scores(game.all_subsets())[0]
    for number, score in enumerate(scores):
        members = tuple(run for run in range(3) if number >> run & 1)
        assert score == pytest.approx(value(stack, METRICS[metric], pool, members), abs=1e-5), members


@pytest.mark.parametrize("metric", ["macro_f1", "log_loss"])
def test_adding_or_removing_a_run_gives_the_subset_score(metric: str) -> None:
    # With this many runs, most rows are decided before the last run joins.
    stack = with_gaps(world(people=60, runs=9, skill=4.0))
    game = game_of(stack, METRICS[metric])
    inside = [0, 2, 3, 4, 6, 8]
    joined = game.changed(*game.total_of(inside), [1, 5, 7])
    left = game.changed(*game.total_of(inside), inside, leaving=True)
    expected = [value(stack, METRICS[metric], "soft", tuple(sorted([*inside, run]))) for run in (1, 5, 7)]
    assert joined == pytest.approx(expected, abs=1e-5)
    expected = [value(stack, METRICS[metric], "soft", tuple(one for one in inside if one != run)) for run in inside]
    assert left == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("metric", ["macro_f1", "log_loss"])
def test_shapley_is_the_mean_gain_over_all_orders(metric: str) -> None:
    stack = with_gaps(world(people=30, runs=4))
    subset_scores = {}
    expected = np.zeros(4)
    for order in permutations(range(4)):
        for place, run in enumerate(order):
            for members in (order[:place], order[: place + 1]):
                subset_scores.setdefault(
                    tuple(sorted(members)), value(stack, METRICS[metric], "soft", tuple(sorted(members)))
                )
            expected[run] += (
                subset_scores[tuple(sorted(order[: place + 1]))] - subset_scores[tuple(sorted(order[:place]))]
            ) / 24
    sign = 1 if METRICS[metric].greater_is_better else -1
    assert [one.value for one in shapley(stack, METRICS[metric]).runs] == pytest.approx(
        (sign * expected).tolist(), abs=1e-5
    )


@pytest.mark.parametrize(("runs", "exact"), [(5, True), (12, False)])
@pytest.mark.parametrize("metric", ["macro_f1", "log_loss"])
def test_shapley_values_sum_to_the_gain_over_guessing(runs: int, exact: bool, metric: str) -> None:
    stack = world(people=40, runs=runs)
    found = shapley(stack, METRICS[metric])
    sign = 1 if METRICS[metric].greater_is_better else -1
    assert found.exact is exact
    assert found.full == pytest.approx(
        METRICS[metric](stack.labels, combine(stack, Combination(stack.names))), abs=1e-5
    )
    assert sum(one.value for one in found.runs) == pytest.approx(sign * (found.full - found.empty), abs=1e-9)


def test_identical_runs_have_identical_shapley_values() -> None:
    found = shapley(with_twin(world(people=40, runs=4), 1), F1).runs
    assert found[1].value == pytest.approx(found[4].value, abs=1e-9)
    assert found[1].value != pytest.approx(found[2].value, abs=1e-3)


def test_a_run_without_influence_has_shapley_value_zero() -> None:
    found = shapley(world(people=40, runs=4), F1, "weighted", np.array([1.0, 1.0, 0.0, 2.0])).runs
    assert (found[2].value, found[2].low, found[2].high) == (0, 0, 0)
    assert found[1].value > 0.01


def test_sampled_orders_approximate_exact_shapley_values() -> None:
    stack = world(people=100, runs=9, classes=6)
    exact, drawn = shapley(stack, F1), shapley(stack, F1, exact=0)
    assert exact.exact
    assert exact.standard_error == 0
    assert not drawn.exact
    away = np.array([a.value - b.value for a, b in zip(exact.runs, drawn.runs, strict=True)])
    assert 0 < np.sqrt((away**2).mean()) < 2 * drawn.standard_error
    assert drawn.standard_error < 0.1 * np.mean([one.value for one in exact.runs])
    assert shapley(stack, F1, exact=0) == drawn
    assert shapley(stack, F1, exact=0, seed=1) != drawn


def test_orders_are_balanced_and_come_with_their_reverses() -> None:
    drawn = list(_orders(7, 2, 0))
    assert len(drawn) == 4
    for square in drawn:
        assert (np.sort(square, axis=0) == np.arange(7)[:, None]).all()
        assert (np.sort(square, axis=1) == np.arange(7)).all()
    assert (drawn[1] == drawn[0][:, ::-1]).all()
    assert not (drawn[2] == drawn[0]).all()


def test_block_size_does_not_change_shapley_values(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = world(people=30, runs=6)
    whole = shapley(stack, F1, exact=0)
    monkeypatch.setattr("ensemble.analysis.shapley._NUMBERS_AT_ONCE", 30 * 8 * 6 * 2)  # two orders, 48 subsets
    assert shapley(stack, F1, exact=0) == whole
    assert not shapley(stack, F1).exact  # all subsets would not fit


def test_interval_width_matches_the_spread_over_new_people() -> None:
    shares = [[one.value for one in shapley(world(seed, people=80, runs=3), F1).runs] for seed in range(40)]
    spread = np.std(shares, axis=0, ddof=1).mean()
    widths = [(one.high - one.low) / 2 / 1.96 for one in shapley(world(100, people=80, runs=3), F1).runs]
    assert 0.6 * spread < np.mean(widths) < 1.6 * spread


@pytest.mark.parametrize("metric", ["macro_f1", "log_loss"])
def test_leave_one_out_is_the_difference_to_the_other_runs(metric: str) -> None:
    stack, measure = world(people=40, runs=3), METRICS[metric]
    found = leave_one_out(stack, nested_cv(stack, SOFT, measure), measure)
    for run in range(3):
        chosen = stack.select_runs([other for other in range(3) if other != run])
        without, everyone = combine(chosen, Combination(chosen.names)), combine(stack, Combination(stack.names))
        pair = (without, everyone) if measure.greater_is_better else (everyone, without)
        expected = difference_over_people(measure, stack.labels, *pair, stack.persons)
        assert found[run].difference.value == pytest.approx(expected.difference.value, abs=1e-6)
        assert found[run].difference.low == pytest.approx(expected.difference.low, abs=1e-6)
    assert found[0].difference.value > 0  # the best run helps, for every metric


COMBINATIONS = [
    Combination(("run0", "run1", "run2"), "geometric"),
    Combination(("run0", "run1", "run2"), "hard"),
    Combination(("run0", "run1", "run2"), "median"),
    Combination(("run0", "run1", "run2"), weights=np.array([0.5, 0.5, 0.0]), bias=np.array([0.0, 0.3, 0.0, -0.2])),
    Combination(
        ("run0", "run1", "run2"),
        before=Calibration(np.array([[[2.0]], [[1.0]], [[0.5]]])),
        after=Calibration(np.array(1.3)),
    ),
]


@pytest.mark.parametrize(
    "combination", COMBINATIONS, ids=lambda one: f"{one.pool}{'' if one.weights is None else ' weights'}"
)
def test_the_weight_of_a_removed_run_goes_to_the_others(combination: Combination) -> None:
    stack = world(people=30, runs=3)
    fitter = Fitter("given", "", lambda stack, metric, seed: combination, is_fitted=False)
    found = leave_one_out(stack, nested_cv(stack, fitter, F1), F1)
    keep = np.array([1, 2])
    rest = replace(
        combination,
        runs=("run1", "run2"),
        weights=None if combination.weights is None else combination.weights[keep],
        before=None if combination.before is None else Calibration(combination.before.temperature[keep]),
    )
    assert found[0].first == pytest.approx(F1(stack.labels, combine(stack.select_runs([1, 2]), rest)), abs=1e-6)


def test_rows_that_no_other_run_predicts_are_guessed() -> None:
    stack = world(people=30, runs=2)
    present = np.ones((2, len(stack)), bool)
    present[1, : len(stack) // 2] = False
    stack = replace(stack, present=present, probabilities=np.where(present[:, :, None], stack.probabilities, 0))
    found = leave_one_out(stack, nested_cv(stack, SOFT, LOSS), LOSS)
    guess = np.bincount(stack.labels, minlength=4) / len(stack)
    expected = np.where(present[1][:, None], stack.probabilities[1], guess.astype(np.float32))
    assert found[0].second == pytest.approx(LOSS(stack.labels, expected), abs=1e-6)


def fit_by_score(stack: Stack, metric: Metric, seed: int) -> Combination:
    scores = np.array([metric(stack.labels, values) for values in stack.probabilities])
    return Combination(stack.names, "weighted", weights=np.maximum(scores - scores.min(), 0) + 0.01)


def test_refit_without_a_run_equals_nested_cv_of_the_others() -> None:
    stack = world(people=40, runs=3)
    fitter = Fitter("by-score", "", fit_by_score)
    fitted = nested_cv(stack, fitter, F1)
    again, left = leave_one_out(stack, fitted, F1, refit=True), leave_one_out(stack, fitted, F1)
    for run in range(3):
        others = stack.select_runs([other for other in range(3) if other != run])
        assert again[run].first == F1(stack.labels, nested_cv(others, fitter, F1).out_of_sample)
        assert again[run].second == left[run].second == F1(stack.labels, fitted.out_of_sample)
    assert any(one.first != two.first for one, two in zip(again, left, strict=True))


def test_advice_drops_a_noise_run() -> None:
    stack = with_noise(world(people=200, runs=4, skill=2.5))
    costs = Costs({name: Cost(5, 5) for name in stack.names})
    found, front = estimate_contributions(stack, nested_cv(stack, SOFT, F1), F1), pareto(stack, F1, costs)
    noise = found.members[-1]
    assert noise.leave_one_out.difference.high < 0
    assert noise.share is not None
    assert noise.share.value < min(one.share.value for one in found.members[:-1] if one.share is not None)
    lines = advice(found, front)
    best = better(front)
    assert best is not None
    assert "zz-noise" not in best.members
    assert "fewer passes" in lines[0]
    assert any("smallest contribution: zz-noise" in line and "removing it would help" in line for line in lines)


def test_advice_keeps_all_runs_if_each_is_needed() -> None:
    # Each run recognizes two of the six classes and guesses the others.
    stack = world(people=200, runs=3, classes=6)
    values = np.full(stack.probabilities.shape, 1 / 6, np.float32)
    for run in range(3):
        mine = np.flatnonzero(stack.labels // 2 == run)
        values[run, mine] = 0.02
        values[run, mine, stack.labels[mine]] = 0.9
    stack = replace(stack, probabilities=values)
    front = pareto(stack, F1, Costs({name: Cost(1, 1) for name in stack.names}))
    assert as_good(front) is None
    assert better(front) is None
    assert advice(estimate_contributions(stack, nested_cv(stack, SOFT, F1), F1), front)[0].startswith("keep all")


def test_diversity_measures_match_manual_counts() -> None:
    right = np.array([[1, 1, 1, 0, 0, 0, 1, 1], [1, 1, 0, 0, 0, 1, 1, 0]], bool)
    labels = np.array([0, 1, 2, 0, 1, 2, 0, 1])
    named = np.where(right, labels, (labels + 1) % 3)
    values = np.stack([np.eye(3, dtype=np.float32)[row] for row in named])
    stack = Stack(("a", "b"), values, None, labels, np.arange(8), np.arange(8) % 2)
    found = diversity(stack)
    assert found.correlation[0, 1] == pytest.approx(np.corrcoef(right)[0, 1])
    assert found.disagreement[0, 1] == 3 / 8
    assert found.double_fault[0, 1] == 2 / 8
    assert found.q[0, 1] == pytest.approx((3 * 2 - 2 * 1) / (3 * 2 + 2 * 1))
    assert found.differing[0, 1] == 3 / 8
    assert found.most_similar(0) == ("b", pytest.approx(np.corrcoef(right)[0, 1]))
    absent = np.ones((2, 8), bool)
    absent[1, 2:] = False  # both runs are right on the two remaining rows, so the correlation is undefined
    apart = diversity(replace(stack, present=absent, probabilities=np.where(absent[:, :, None], values, 0)))
    assert apart.disagreement[0, 1] == 0
    assert apart.most_similar(0) is None
    assert apart.mean() is None


def test_the_most_similar_run_is_the_duplicate() -> None:
    found = diversity(with_twin(world(people=60, runs=4), 2))
    assert found.most_similar(2) == ("twin", pytest.approx(1))


def test_row_order_does_not_change_shapley_values() -> None:
    stack = world(people=50, runs=4)
    turned = stack.take(np.random.default_rng(0).permutation(len(stack)))
    one, two = shapley(stack, F1), shapley(turned, F1)
    assert [a.value for a in one.runs] == pytest.approx([a.value for a in two.runs], abs=1e-9)
    assert [a.low for a in one.runs] == pytest.approx([a.low for a in two.runs], abs=1e-9)


def test_records_are_plain_values_and_tables_name_every_run() -> None:
    stack = with_gaps(world(people=40, runs=3))
    front = pareto(stack, LOSS, Costs({name: Cost(5, 5) for name in stack.names}))
    found = estimate_contributions(stack, nested_cv(stack, SOFT, LOSS), LOSS)
    assert json.loads(json.dumps(found.to_dict()))["members"][0]["run"] == "run0"
    assert json.loads(json.dumps(front.to_dict()))["everyone"]["cost"] == 15
    table = contributions_table(found).splitlines()
    assert sorted(line.split()[0] for line in table[2:]) == ["run0", "run1", "run2"]
    assert "all" in pareto_table(front).splitlines()[-1]
    assert "positive is better, although a lower log loss is better" in contribution_notes(found)[0]
    assert "guessing" in contribution_notes(found)[1]


def test_a_pool_that_is_not_a_sum_is_rejected() -> None:
    with pytest.raises(ValueError, match="median"):
        shapley(world(runs=2), F1, "median")
    stack = world(people=30, runs=3)
    median = Fitter("median", "", lambda stack, metric, seed: Combination(stack.names, "median"), is_fitted=False)
    assert estimate_contributions(stack, nested_cv(stack, median, F1), F1).shares is not None  # those of soft voting
