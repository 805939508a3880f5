"""Tests of the Pareto front and of subset selection: limits, nested choice, dominated subsets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pytest

from ensemble.analysis import subset_selection as subsets
from ensemble.analysis.advice import MARGIN, advice, as_good, better, margin_of
from ensemble.analysis.contributions import estimate_contributions
from ensemble.analysis.cost import Cost, Costs
from ensemble.analysis.pareto import SOFT, Pareto, Subset, pareto, undominated
from ensemble.analysis.subset_selection import best_of, candidates, widened, within_budget
from ensemble.learning.combination import Calibration, Combination, Fitter, combine
from ensemble.learning.nested import NestedResult, nested_cv
from ensemble.learning.stack import Stack
from folds.errors import UsageError
from folds.metrics.classification import METRICS, Metric
from folds.metrics.intervals import Difference, Interval
from tests.ensemble.worlds import world

F1, LOSS = METRICS["macro_f1"], METRICS["log_loss"]


@dataclass(frozen=True)
class Within:
    """Return the best runs within the limits and their score."""

    names: tuple[str, ...]
    nested: NestedResult


def select_runs_within(
    stack: Stack,
    fitter: Fitter,
    metric: Metric,
    costs: Costs,
    max_members: int | None = None,
    budget: float | None = None,
    seed: int = 0,
) -> Within:
    """Return the best runs within the limits, the combination fitted on them, and its nested score."""
    found = nested_cv(stack, within_budget(fitter, costs, max_members, budget), metric, seed)
    shares = found.combination.shares
    return Within(tuple(name for name, share in zip(stack.names, shares, strict=True) if share > 0), found)


def equal(stack: Stack) -> Costs:
    return Costs({name: Cost(5, 5) for name in stack.names})


def luck(people: int = 60, runs: int = 12) -> Stack:
    """Return runs of equal skill with independent errors: the best one is best by chance."""
    stack = world(people=people, runs=runs)
    logits = np.random.default_rng(5).normal(size=stack.probabilities.shape)
    logits[:, np.arange(len(stack)), stack.labels] += 0.5
    values = np.exp(logits)
    return replace(stack, probabilities=(values / values.sum(2, keepdims=True)).astype(np.float32))


def heard(combination: Combination) -> set[str]:
    return {name for name, share in zip(combination.runs, combination.shares, strict=True) if share > 0}


@pytest.mark.parametrize("runs", [4, 10])
@pytest.mark.parametrize("most", [1, 2, 3])
def test_max_members_holds_in_every_outer_fold(runs: int, most: int) -> None:
    stack = luck(runs=runs)
    found = select_runs_within(stack, SOFT, F1, equal(stack), max_members=most)
    assert all(len(heard(one)) <= most for one in (found.nested.combination, *found.nested.parts))
    assert set(found.names) == heard(found.nested.combination)
    assert found.nested.combination.runs == stack.names


@pytest.mark.parametrize("runs", [4, 10])
def test_the_budget_excludes_an_expensive_run(runs: int) -> None:
    stack = world(people=40, runs=runs)  # run0 is the best
    costs = Costs({name: Cost(5, 5, 10.0 if name == "run0" else 1.0) for name in stack.names}, given=True)
    found = select_runs_within(stack, SOFT, F1, costs, budget=15)
    assert costs.total(found.names) <= 15
    assert all(costs.total(sorted(heard(one))) <= 15 for one in found.nested.parts)
    assert "run0" not in found.names
    assert "run0" in select_runs_within(stack, SOFT, F1, costs, budget=50, max_members=1).names


def test_impossible_limits_are_rejected() -> None:
    stack = world(people=20)
    with pytest.raises(UsageError, match="cheapest run, run0, needs 5 passes"):
        within_budget(SOFT, equal(stack), budget=4)
    with pytest.raises(UsageError, match="max_members=0"):
        within_budget(SOFT, equal(stack), max_members=0)


def test_the_best_subset_matches_brute_force() -> None:
    stack = luck(runs=6)
    found = best_of(candidates(stack, F1, equal(stack), max_members=3))
    scores = {
        members: F1(
            stack.labels,
            combine(stack.select_runs(list(members)), Combination(tuple(stack.names[run] for run in members))),
        )
        for size in (1, 2, 3)
        for members in combinations(range(6), size)
    }
    assert found.score == pytest.approx(max(scores.values()), abs=1e-9)
    assert scores[found.members] == pytest.approx(found.score, abs=1e-9)


def test_the_best_subset_is_used_if_it_is_within_the_limits() -> None:
    stack = luck(runs=6)
    best = best_of(candidates(stack, F1, equal(stack), max_members=3))
    found = select_runs_within(stack, SOFT, F1, equal(stack), max_members=3)
    assert found.names == tuple(stack.names[run] for run in best.members)
    assert len(found.names) > 1
    assert F1(stack.labels, found.nested.in_sample) == pytest.approx(best.score, abs=1e-9)


def test_stepwise_selection_is_close_to_the_best_subset(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = luck(people=100, runs=7)
    best = best_of(candidates(stack, F1, equal(stack), max_members=3))
    monkeypatch.setattr(subsets, "ALL_SUBSETS", 0)
    found = candidates(stack, F1, equal(stack), max_members=3)
    assert {one.members for one in found} >= {(run,) for run in range(7)}
    assert all(len(one.members) <= 3 for one in found)
    assert len(found) < 7 + 10
    assert best.score - 0.02 < best_of(found).score <= best.score + 1e-9
    for one in found:
        names = tuple(stack.names[run] for run in one.members)
        assert one.score == pytest.approx(
            F1(stack.labels, combine(stack.select_runs(list(one.members)), Combination(names))), abs=1e-9
        )


def test_the_choice_for_an_outer_fold_does_not_use_it() -> None:
    # The last run is always right in outer fold 2, and slightly worse than another run elsewhere.
    stack = world(people=50, runs=4)
    others = np.flatnonzero(stack.outer_folds != 2)
    best = int(np.argmax([F1(stack.labels[others], values[others]) for values in stack.probabilities[:3]]))
    values = stack.probabilities.copy()
    values[3] = values[best]
    values[3, others[::15]] = np.eye(4, dtype=np.float32)[(stack.labels[others[::15]] + 1) % 4]
    there = np.flatnonzero(stack.outer_folds == 2)
    values[3, there] = np.eye(4, dtype=np.float32)[stack.labels[there]]
    stack = replace(stack, probabilities=values)
    found = select_runs_within(stack, SOFT, F1, equal(stack), max_members=1)
    assert found.names == ("run3",)
    assert heard(found.nested.parts[2]) == {f"run{best}"}
    assert np.allclose(found.nested.out_of_sample[there], stack.probabilities[best, there])
    row = next(row for row in pareto(stack, F1, equal(stack)).evaluated if len(row.members) == 1)
    assert row.members == ("run3",)
    assert row.score.value == F1(stack.labels, found.nested.out_of_sample)
    assert row.times_chosen < row.parts


def test_nested_score_of_a_selected_run_is_not_optimistic() -> None:
    stack = luck()
    found = select_runs_within(stack, SOFT, F1, equal(stack), max_members=1)
    typical = float(np.mean([F1(stack.labels, values) for values in stack.probabilities]))
    claimed = F1(stack.labels, found.nested.in_sample)
    assert found.nested.optimism(stack.labels, F1) > 0.01
    front = pareto(stack, F1, equal(stack))
    one = next(row for row in front.evaluated if len(row.members) == 1)
    assert one.score.value == F1(stack.labels, found.nested.out_of_sample)
    assert one.score.value - typical < (claimed - typical) / 2


def test_rows_are_the_undominated_subsets() -> None:
    stack = world(people=80, runs=5)
    costs = Costs(
        {name: Cost(1, 1, each) for name, each in zip(stack.names, (5.0, 1.0, 2.0, 1.0, 3.0), strict=True)}, given=True
    )
    front = pareto(stack, F1, costs)
    scores, prices = [row.score.value for row in front.rows], [row.cost for row in front.rows]
    assert prices == sorted(prices)
    assert scores == sorted(scores)
    assert len(set(prices)) == len(prices)
    for row in front.evaluated:
        assert any(kept.cost <= row.cost and kept.score.value >= row.score.value for kept in front.rows)
        assert row.cost == costs.total(row.members)


def row(cost: float, score: float) -> Subset:
    return Subset((f"{cost}-{score}",), cost, 0, Interval(score, 0, 1), None, 1, 1)


def test_dominated_rows_are_removed_for_every_metric() -> None:
    rows = [row(1, 0.5), row(2, 0.4), row(2, 0.6), row(3, 0.6), row(4, 0.7)]
    assert [(one.cost, one.score.value) for one in undominated(rows, F1)] == [(1, 0.5), (2, 0.6), (4, 0.7)]
    assert [(one.cost, one.score.value) for one in undominated(rows, LOSS)] == [(1, 0.5), (2, 0.4)]


def table(*rows: tuple[float, float, float, float]) -> Pareto:
    """Return a Pareto front of rows (cost, difference, low, high)."""
    made = tuple(
        Subset(
            (f"run{i}",),
            cost,
            1 - cost / 10,
            Interval(0.5 + d, 0, 1),
            Difference(0.5, 0.5 + d, Interval(d, low, high), 0.001),
            5,
            5,
        )
        for i, (cost, d, low, high) in enumerate(rows)
    )
    everyone = Subset(tuple(f"run{i}" for i in range(9)), 10, 0, Interval(0.5, 0, 1), None, 5, 5)
    return Pareto(F1, Costs({}), undominated([*made, everyone], F1), everyone, made)


def test_as_good_is_the_cheapest_non_inferior_subset() -> None:
    assert as_good(table((5, -0.001, -0.004, 0.002))) is not None
    assert as_good(table((5, 0.0, -0.02, 0.02))) is None  # not known to be worse, nor to be as good
    found = as_good(table((2, -0.03, -0.04, -0.02), (4, -0.001, -0.004, 0.002), (6, 0.001, -0.003, 0.004)))
    assert found is not None
    assert found.cost == 4


def test_testing_stops_at_the_first_subset_that_fails() -> None:
    found = as_good(table((2, 0.0, -0.004, 0.004), (4, 0.0, -0.02, 0.02), (6, 0.001, -0.003, 0.004)))
    assert found is not None
    assert found.cost == 6


@pytest.mark.parametrize(("people", "shown"), [(3, False), (143, False), (700, False), (750, True)])
def test_zero_width_intervals_depend_on_the_number_of_people(people: int, shown: bool) -> None:
    front = table((5, 0.0, 0.0, 0.0))
    same = Difference(0.5, 0.5, Interval(0.0, 0.0, 0.0, people=people), 1.0)
    front = replace(front, evaluated=tuple(replace(one, difference=same) for one in front.evaluated))
    assert (as_good(front) is not None) == shown
    assert as_good(replace(front, metric=LOSS)) is None  # one person may lose any amount


def test_margin_of_unbounded_metrics_is_a_share_of_the_gain() -> None:
    stack = world(people=40, runs=2)
    assert margin_of(estimate_contributions(stack, nested_cv(stack, SOFT, F1), F1)) == MARGIN
    found = estimate_contributions(stack, nested_cv(stack, SOFT, LOSS), LOSS)
    frequencies = np.bincount(stack.labels, minlength=4) / len(stack)
    guessing, everyone = (
        LOSS(stack.labels, np.tile(frequencies, (len(stack), 1))),
        LOSS(stack.labels, stack.probabilities.mean(axis=0)),
    )
    assert margin_of(found) == pytest.approx(0.01 * (guessing - everyone), rel=1e-3)
    thousands = Metric(
        "m:f",
        "f",
        False,
        function=lambda labels, values: 1000 * LOSS(labels, values),
        lower_bound=-np.inf,
        upper_bound=np.inf,
    )
    unknown = estimate_contributions(stack, nested_cv(stack, SOFT, thousands), thousands)
    assert margin_of(unknown) is None
    front = replace(table((5, -0.001, -0.004, 0.002)), metric=thousands)
    assert as_good(front, None) is None
    assert better(table((2, 0.01, 0.002, 0.02)), None) is not None
    assert advice(unknown, front)[0] == "keep all: no cheaper subset is significantly better (f has no known margin)"
    assert advice(found, front)[0].startswith("drop ") == (margin_of(found) > 0.004)


def test_better_is_the_best_of_the_significantly_better() -> None:
    found = better(table((2, 0.01, 0.002, 0.02), (4, 0.03, 0.01, 0.05), (6, 0.05, -0.01, 0.1)))
    assert found is not None
    assert found.cost == 4
    assert better(table((6, 0.05, -0.01, 0.1))) is None
    cheaper = better(table((2, 0.01, 0.002, 0.02), (4, 0.03, 0.01, 0.05), (8, 0.034, 0.02, 0.05)))
    assert cheaper is not None
    assert cheaper.cost == 4  # as good as the best, but for less than the margin


def test_a_duplicate_run_can_be_dropped() -> None:
    stack = world(people=150, runs=2, skill=3.0)
    stack = replace(stack, names=("a", "b", "c"), probabilities=stack.probabilities[[0, 1, 1]])
    front = pareto(stack, LOSS, equal(stack))
    cheap = as_good(front, margin=0.1)
    assert cheap is not None
    assert len(cheap.members) < 3
    found = estimate_contributions(stack, nested_cv(stack, SOFT, LOSS), LOSS)
    assert "fewer passes" in advice(found, front, margin=0.1)[0]
    assert as_good(front, margin=-10) is None


def shrinking(stack: Stack, metric: Metric, seed: int) -> Combination:
    """Return weights that depend on the runs present."""
    scores = np.array([metric(stack.labels, values) for values in stack.probabilities])
    before = Calibration(np.linspace(1, 2, stack.runs).reshape(-1, 1, 1))
    return Combination(stack.names, "weighted", weights=scores, before=before, bias=np.linspace(0, 0.5, stack.classes))


def test_a_fitter_is_fitted_on_the_chosen_runs_only() -> None:
    stack = luck(runs=5)
    found = select_runs_within(stack, Fitter("shrinking", "", shrinking), F1, equal(stack), max_members=2)
    at = [stack.names.index(name) for name in found.names]
    alone = shrinking(stack.select_runs(at), F1, 0)
    assert np.allclose(found.nested.in_sample, combine(stack.select_runs(at), alone), atol=1e-6)
    front = pareto(stack, F1, equal(stack), Fitter("shrinking", "", shrinking))
    assert np.isclose(
        front.everyone.score.value,
        F1(stack.labels, nested_cv(stack, Fitter("shrinking", "", shrinking), F1).out_of_sample),
    )


def test_widening_a_combination_does_not_change_predictions() -> None:
    stack = world(people=30, runs=4)
    some = stack.select_runs([1, 3])
    random = np.random.default_rng(0)
    ones = [
        Combination(some.names),
        Combination(some.names, "hard"),
        Combination(some.names, "median"),
        Combination(some.names, weights=random.random((2, 4)), after=Calibration(np.array(2.0))),
        Combination(
            some.names, "geometric", before=Calibration(np.array([[[2.0]], [[0.5]]]), random.normal(size=(2, 1, 4)))
        ),
        Combination(some.names, stacked=random.normal(size=(9, 4))),
    ]
    for one in ones:
        assert np.allclose(combine(stack, widened(one, stack.names)), combine(some, one), atol=1e-6), one


def test_rows_without_any_chosen_run_are_predicted() -> None:
    stack = world(people=40, runs=3)
    present = np.random.default_rng(1).random((3, len(stack))) < 0.6
    present[2] |= ~present.any(axis=0)
    stack = replace(stack, present=present, probabilities=np.where(present[:, :, None], stack.probabilities, 0))
    found = select_runs_within(stack, Fitter("shrinking", "", shrinking), F1, equal(stack), max_members=1)
    assert np.isfinite(found.nested.out_of_sample).all()
    assert np.allclose(found.nested.out_of_sample.sum(axis=1), 1, atol=1e-5)
    assert np.isfinite(pareto(stack, LOSS, equal(stack)).everyone.score.value)


def test_the_table_depends_on_the_seed_but_not_on_row_order() -> None:
    stack = luck(runs=5)
    assert pareto(stack, F1, equal(stack)) == pareto(stack, F1, equal(stack))
    turned = stack.take(np.random.default_rng(0).permutation(len(stack)))
    one, two = pareto(stack, F1, equal(stack)), pareto(turned, F1, equal(stack))
    assert [(a.members, a.score.value) for a in one.rows] == [
        (a.members, pytest.approx(a.score.value, abs=1e-9)) for a in two.rows
    ]


def test_fewer_than_two_outer_folds_are_rejected() -> None:
    stack = world(people=20)
    with pytest.raises(ValueError, match="2 or more outer folds"):
        pareto(replace(stack, outer_folds=np.zeros(len(stack), np.int64)), F1, equal(stack))


def test_slow_metrics_select_by_log_loss_and_score_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = luck(runs=4)
    asked: list[int] = []

    def slow(labels: np.ndarray, probabilities: np.ndarray) -> float:
        asked.append(len(labels))
        return float(METRICS["accuracy"](labels, probabilities))

    metric = Metric("own", "own", function=slow)
    by_itself = candidates(stack, metric, equal(stack))
    assert len(asked) == 16
    assert [one.score for one in by_itself] == pytest.approx(
        [one.score for one in candidates(stack, METRICS["accuracy"], equal(stack))]
    )
    monkeypatch.setattr(subsets, "_SLOW_ROWS", 1000)
    quick = candidates(stack, metric, equal(stack))
    assert len(asked) == 16
    assert best_of(quick) == best_of(candidates(stack, LOSS, equal(stack)))
