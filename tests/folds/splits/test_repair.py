"""Repair by moves and swaps: what it promises never to make worse, and what it mends."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from folds.splits import repair as repair_module
from folds.splits.greedy import fill_empty, stratified_group_kfold
from folds.splits.repair import DEVIATION_TO_TRY, SIZE_TOLERANCE, balance, quality, repair
from folds.splits.strata import GroupCounts
from tests.folds.skewed import counted, skewed_people


def greedy(people: GroupCounts, k: int, seed: int = 0) -> np.ndarray:
    return fill_empty(stratified_group_kfold(people.counts, people.sizes, k, seed), people.sizes, k)


def by_hand(people: GroupCounts, fold: np.ndarray, k: int) -> tuple[int, float, float, float]:
    """absent, worst, mean and size, counted row by row."""
    absent, deviations = 0, []
    for name in range(people.values):
        having = {person for person in range(len(people)) if people.counts[person, name] > 0}
        absent += min(k, len(having)) - len({int(fold[person]) for person in having})
    for i in range(k):
        held = people.counts[fold == i]
        deviations += [
            abs(a - b)
            for a, b in zip(held.sum(0) / people.sizes[fold == i].sum(), people.counts.sum(0) / people.sizes.sum())
        ]
    sizes = [people.sizes[fold == i].sum() / people.sizes.sum() * k - 1 for i in range(k)]
    return absent, max(deviations), float(np.mean(deviations)), max(map(abs, sizes))


@pytest.mark.parametrize("seed", range(8))
def test_repair_adds_missing_classes_without_larger_deviation(seed: int) -> None:
    people = counted(*skewed_people(seed))
    before = greedy(people, 5)
    after, changes = repair(people, before, [0.2] * 5, 0)
    old, new = by_hand(people, before, 5), by_hand(people, after, 5)
    assert new[0] == 0
    assert new[1] <= old[1] + 1e-12
    assert new[2] <= old[2] + 1e-12
    assert new[3] <= max(old[3], SIZE_TOLERANCE) + 1e-6
    if changes is None:
        assert after is before
    else:
        found = (changes.before.missing_classes, changes.before.max_deviation, changes.before.mean, changes.before.size)
        assert found == pytest.approx(old)
        assert (
            changes.after.missing_classes,
            changes.after.max_deviation,
            changes.after.mean,
            changes.after.size,
        ) == pytest.approx(new)
        assert changes.moved + changes.swapped == (before != after).sum()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(1, 6), st.integers(2, 6))
def test_any_table_keeps_all_folds_and_is_in_nothing_worse(seed: int, persons: int, classes: int, k: int) -> None:
    k = min(k, persons)
    random = np.random.default_rng(seed)
    owners = np.repeat(np.arange(persons), random.integers(1, 9, persons))
    people = counted(random.geometric(0.5, len(owners)).clip(max=classes), owners)
    before = greedy(people, k, seed)
    after, _ = repair(people, before, [1 / k] * k, seed)
    old, new = quality(people, before, [1 / k] * k), quality(people, after, [1 / k] * k)
    assert set(after.tolist()) == set(range(k))
    assert new.missing_classes <= old.missing_classes
    assert new.max_deviation <= old.max_deviation + 1e-12
    assert new.mean <= old.mean + 1e-12 or new.missing_classes < old.missing_classes
    assert (
        new.missing_classes < old.missing_classes
        or np.array_equal(after, before)
        or new.max_deviation < old.max_deviation
    )


def test_what_lacks_nothing_and_is_balanced_is_left_alone() -> None:
    random = np.random.default_rng(0)
    owners = np.repeat(np.arange(600), 7)
    people = counted(random.integers(3, size=len(owners)), owners)
    before = greedy(people, 5)
    assert quality(people, before, [0.2] * 5).max_deviation < DEVIATION_TO_TRY
    assert repair(people, before, [0.2] * 5, 0) == (pytest.approx(before), None)


def test_the_same_arguments_give_the_same_folds() -> None:
    people = counted(*skewed_people(1))
    once, again = (repair(people, greedy(people, 5), [0.2] * 5, 3)[0] for _ in range(2))
    assert once.tolist() == again.tolist()


def test_rare_class_is_in_as_many_folds_as_it_has_people() -> None:
    # Two of five people have class 1 and stand in one fold of three: one of them must leave it.
    people = counted(np.array([0, 1, 0, 1, 0, 0, 0, 0, 0, 0]), np.repeat(np.arange(5), 2))
    after, changes = repair(people, np.array([0, 0, 1, 2, 2]), [1 / 3] * 3, 0)
    assert changes is not None
    assert (changes.before.missing_classes, changes.after.missing_classes) == (1, 0)
    assert after[0] != after[1]


def test_it_says_in_a_line_what_it_changed() -> None:
    people = counted(np.array([0, 0, 1, 1]), np.arange(4))
    after, changes = repair(people, np.array([0, 0, 1, 1]), [0.5] * 2, 0)
    assert sorted(after[:2]) == sorted(after[2:]) == [0, 1]
    assert (
        str(changes)
        == "0 people moved, 2 swapped; classes absent from a fold: 2 → 0; largest deviation of a class share .500 → .000"
    )


def test_sampled_search_finds_missing_classes_of_many_people() -> None:
    random = np.random.default_rng(2)
    owners = np.repeat(np.arange(3000), 3)
    labels = random.integers(4, size=len(owners))
    labels[np.isin(owners, [5, 900, 1700, 2100, 2999])] = 4  # five people for five folds
    people = counted(labels, owners)
    fold = random.permutation(3000) % 5
    fold[[5, 900, 1700, 2100, 2999]] = 2
    after, changes = repair(people, fold, [0.2] * 5, 0)
    assert changes is not None
    assert (changes.before.missing_classes, changes.after.missing_classes) == (4, 0)
    assert sorted(after[[5, 900, 1700, 2100, 2999]]) == [0, 1, 2, 3, 4]


def test_a_bad_beginning_is_balanced_to_the_shares_asked_for() -> None:
    people = counted(*skewed_people(2, people=60, classes=5))
    fold = balance(people, (np.arange(60) >= 30).astype(np.int64), (0.2, 0.8), np.random.default_rng(0))
    after = quality(people, fold, (0.2, 0.8))
    assert after.missing_classes == 0
    assert after.size <= SIZE_TOLERANCE + 1e-6
    assert after.max_deviation < 0.05


def test_sampled_and_exhaustive_search_agree_on_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    people = counted(*skewed_people(3, people=12, classes=4))
    fold = greedy(people, 3)
    search = repair_module._LocalSearch(repair_module._Assignment(people, fold, [1 / 3] * 3), 0.05, None)
    candidates = search._candidates(np.random.default_rng(0))
    costs = search._costs(*candidates)
    for at in range(0, len(costs), 7):
        leaves, joins, source, target = (int(part[at]) for part in candidates)
        other = fold.copy()
        other[leaves] = target
        if joins < 12:
            other[joins] = source
        search.now.assign(other)
        if np.bincount(other, minlength=3).min():
            assert costs[at] == pytest.approx(search._cost_now())
        else:
            assert costs[at] == np.inf
