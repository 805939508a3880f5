"""Nested scores: no person is scored by a fit on their data, people stay in one part, and the choice is nested too."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from ensemble.blending.fit import _compared
from ensemble.learning.auto import _pick, choose
from ensemble.learning.combination import Combination, Fitter, combine
from ensemble.learning.nested import gain, nested_cv, outer_fold_ids, weight_instability
from ensemble.learning.stack import Stack
from folds.metrics.classification import METRICS, Metric
from folds.metrics.intervals import difference_over_people
from tests.ensemble.worlds import world

F1 = METRICS["macro_f1"]


def best(stack: Stack, metric: Metric, seed: int) -> Combination:
    scores = [metric(stack.labels, values) for values in stack.probabilities]
    winner = int(np.argmax(scores)) if metric.greater_is_better else int(np.argmin(scores))
    return Combination(stack.names, weights=np.eye(stack.runs)[winner])


BEST = Fitter("best", "the best single run", best)
SOFT = Fitter("soft", "mean", lambda stack, metric, seed: Combination(stack.names), is_fitted=False)


def recording(stacks: list[Stack]) -> Fitter:
    def fit(stack: Stack, metric: Metric, seed: int) -> Combination:
        stacks.append(stack)
        return best(stack, metric, seed)

    return Fitter("watched", "", fit)


def noise(people: int = 80, runs: int = 30) -> Stack:
    """Return runs of equal skill: the best one is best by chance."""
    stack = world(people=people, runs=runs)
    random = np.random.default_rng(5)
    logits = random.normal(size=stack.probabilities.shape)
    logits[:, np.arange(len(stack)), stack.labels] += 1
    values = np.exp(logits)
    return replace(stack, probabilities=(values / values.sum(2, keepdims=True)).astype(np.float32))


def test_no_person_is_in_the_fit_that_predicts_them() -> None:
    stacks: list[Stack] = []
    stack = world()
    nested_cv(stack, recording(stacks), F1)
    assert len(stacks) == 6  # all, then without each part
    assert len(stacks[0]) == len(stack)
    for part, without in zip(np.unique(stack.outer_folds), stacks[1:], strict=True):
        assert set(without.persons) == set(stack.persons[stack.outer_folds != part])


def test_out_of_sample_predictions_are_by_fits_without_the_part() -> None:
    stack = world()
    result = nested_cv(stack, BEST, F1)
    for part, fitted in zip(np.unique(stack.outer_folds), result.parts, strict=True):
        rows = np.flatnonzero(stack.outer_folds == part)
        assert np.array_equal(result.out_of_sample[rows], combine(stack.take(rows), fitted))
    assert np.array_equal(result.in_sample, combine(stack, best(stack, F1, 0)))


def test_a_lucky_choice_is_optimistic_but_its_nested_score_not() -> None:
    stack = noise()
    result = nested_cv(stack, BEST, F1)
    typical = float(np.mean([F1(stack.labels, values) for values in stack.probabilities]))
    assert result.optimism(stack.labels, F1) > 0.01
    assert abs(F1(stack.labels, result.out_of_sample) - typical) < F1(stack.labels, result.in_sample) - typical


def test_optimism_is_positive_for_both_metric_directions() -> None:
    stack = noise()
    assert nested_cv(stack, BEST, METRICS["log_loss"]).optimism(stack.labels, METRICS["log_loss"]) > 0


def test_a_method_without_a_fit_has_no_optimism() -> None:
    stack = world()
    result = nested_cv(stack, SOFT, F1)
    assert result.parts == ()
    assert result.optimism(stack.labels, F1) == 0


def test_only_a_real_gain_is_significant() -> None:
    stack = world(people=200, runs=2)
    worse = replace(stack, probabilities=np.stack([stack.probabilities[0], np.full_like(stack.probabilities[0], 0.25)]))
    good, bad, same = (
        Fitter(
            name, "", lambda stack, metric, seed, w=w: Combination(stack.names, weights=np.array(w)), is_fitted=False
        )
        for name, w in (("good", [1.0, 0.0]), ("bad", [0.0, 1.0]), ("same", [1.0, 0.01]))
    )
    results = {fitter.name: nested_cv(worse, fitter, F1) for fitter in (good, bad, same)}
    assert gain(worse, F1, results["bad"], results["good"]).is_significant
    assert not gain(worse, F1, results["good"], results["same"]).is_significant


@pytest.mark.parametrize(("people", "significant"), [(3, False), (5, False), (6, True)])
def test_agreement_of_few_people_is_not_significant(people: int, significant: bool) -> None:
    labels, persons = np.zeros(people, int), np.arange(people)
    first, second = np.tile([0.1, 0.9], (people, 1)), np.tile([0.9, 0.1], (people, 1))
    found = difference_over_people(METRICS["accuracy"], labels, first, second, persons)
    assert (found.difference.low, found.difference.high) == (1, 1)
    assert found.is_significant == significant  # p-value 2^(1 − people): .25, .0625, .031
    text = _compared("soft voting", found, METRICS["accuracy"])
    assert ("significantly better" in text) == significant
    assert f"; all {people} people have the same score" in text


def test_parts_are_the_agreed_folds_or_groups_of_people() -> None:
    stack = world()
    assert np.array_equal(outer_fold_ids(stack.persons, stack.labels, stack.persons % 4 + 3), stack.persons % 4)
    for fold in (None, np.where(stack.persons == 0, -1, 0), stack.persons % 2):
        assigned = outer_fold_ids(stack.persons, stack.labels, fold)
        assert len(np.unique(assigned)) == 5
        assert all(len(np.unique(assigned[stack.persons == person])) == 1 for person in np.unique(stack.persons))
        sizes = [len(np.unique(stack.persons[assigned == part])) for part in range(5)]
        assert max(sizes) - min(sizes) <= 1


def test_rare_classes_are_spread_over_new_parts() -> None:
    persons = np.arange(100)
    labels = np.where(persons < 10, 1, 0)
    assigned = outer_fold_ids(persons, labels, None)
    assert all(np.sum(labels[assigned == part]) == 2 for part in range(5))


def test_one_part_cannot_be_nested() -> None:
    stack = world()
    with pytest.raises(ValueError, match="at least two parts"):
        nested_cv(replace(stack, outer_folds=np.zeros(len(stack), int)), BEST, F1)


def test_equal_weights_have_instability_0() -> None:
    same = [Combination(("a", "b"), weights=np.array([1.0, 1.0]))] * 3
    assert weight_instability(same) == 0
    assert weight_instability([Combination(("a", "b"), weights=np.array(w)) for w in ([1.0, 0.0], [0.0, 1.0])]) == 1


def test_soft_voting_is_chosen_if_nothing_is_clearly_better() -> None:
    choice = choose(noise(), [SOFT, BEST], F1)
    assert choice.chosen == choice.best == "soft"
    assert set(choice.by_part) == {"soft"}


def test_soft_voting_wins_within_half_a_standard_error() -> None:
    """The t quantile of seven people is 2.45: the CI width divided by 2 · 1.96 would be 25% too large."""
    metric, taken = METRICS["accuracy"], []
    stack = world(people=7, runs=2)
    for seed in range(60):
        random = np.random.default_rng(seed)
        predicted = {name: random.dirichlet(np.ones(4), len(stack)).astype(np.float32) for name in ("soft", "other")}
        chosen, best = _pick(stack, np.arange(len(stack)), predicted, metric)
        if best == "other":
            soft, other = (
                np.array([metric(stack.labels[rows], values[rows]) for rows in _without_each(stack)])
                for values in predicted.values()
            )
            differences = other - soft
            error = np.sqrt(6 / 7 * np.square(differences - differences.mean()).sum())
            gained = metric(stack.labels, predicted["other"]) - metric(stack.labels, predicted["soft"])
            taken.append((chosen == "soft", gained / error))
    assert all(soft == (ratio <= 0.5) for soft, ratio in taken)
    assert any(0.5 < ratio < 0.6 for _, ratio in taken)


def _without_each(stack: Stack) -> list[np.ndarray]:
    return [stack.persons != person for person in np.unique(stack.persons)]


def test_a_clearly_better_method_is_chosen() -> None:
    stack = world(people=200, runs=3)
    useless = np.random.default_rng(0).dirichlet(np.ones(4) * 0.3, size=(2, len(stack))).astype(np.float32)
    choice = choose(replace(stack, probabilities=np.concatenate([stack.probabilities[:1], useless])), [SOFT, BEST], F1)
    assert choice.chosen == "best"
    np.testing.assert_array_equal(choice.nested.out_of_sample, choice.results["best"].out_of_sample)


def test_the_choice_for_a_part_does_not_depend_on_its_labels() -> None:
    """Shuffled labels of a part do not change the choice for it."""
    stack = world(people=100, runs=4)
    fitters = [SOFT, BEST, *(Fitter(f"only{i}", "", partial(_only, i), is_fitted=False) for i in range(4))]
    plain = choose(stack, fitters, F1)
    for i, part in enumerate(np.unique(stack.outer_folds)):
        labels = stack.labels.copy()
        inside = stack.outer_folds == part
        labels[inside] = np.random.default_rng(1).permutation(labels[inside])
        other = choose(replace(stack, labels=labels), fitters, F1)
        assert other.by_part[i] == plain.by_part[i]
        np.testing.assert_array_equal(other.nested.out_of_sample[inside], plain.nested.out_of_sample[inside])


def _only(run: int, stack: Stack, metric: Metric, seed: int) -> Combination:
    return Combination(stack.names, weights=np.eye(stack.runs)[run])


def test_progress_counts_every_fit() -> None:
    reported: list[tuple[int, int]] = []
    choose(world(), [SOFT, BEST], F1, progress=lambda done, of: reported.append((done, of)))
    assert reported[-1] == (16, 16)
    assert [done for done, _ in reported] == sorted(done for done, _ in reported)
    reported.clear()
    nested_cv(world(), BEST, F1, progress=lambda done, of: reported.append((done, of)))
    assert reported == [(done, 6) for done in range(7)]
