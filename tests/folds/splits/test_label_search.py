"""The search for even folds of several labels: what it reaches, within its limits, in whole numbers."""

from __future__ import annotations

import numpy as np

from folds.splits.label_search import _Search, spread_labels
from folds.splits.strata import GroupCounts

K = 4


def people_of(counts: np.ndarray, each: int) -> GroupCounts:
    return GroupCounts(np.arange(len(counts)), np.full(len(counts), each), counts.astype(float), counts.shape[1], True)


def test_labels_that_can_be_even_are_found_even() -> None:
    counts = np.tile([[4, 0, 1], [0, 4, 1]], (2 * K, 1))  # two people of each kind for each fold
    start = np.arange(len(counts)) // K  # one fold of four consecutive people each
    fold = spread_labels(people_of(counts, 5), [start], [1 / K] * K, np.random.default_rng(0))
    assert [counts[fold == one].sum(axis=0).tolist() for one in range(K)] == [[8, 8, 4]] * K


def test_costs_of_changes_are_those_after_them_for_very_many_samples() -> None:
    random = np.random.default_rng(1)
    for scale in (1, 10**7):
        people = people_of(random.integers(0, 5, (12, 6)) * scale, 9 * scale)
        search = _Search(people, [0.1, 0.4, 0.3, 0.2])
        search.assign(np.arange(12) % K)
        leaves, joins, source, target, change = search.candidates(random)
        costs = search.costs(change, source, target)
        for at in np.flatnonzero(source != target)[::17].tolist():
            search.assign(np.arange(12) % K)
            search.exchange(int(leaves[at]), int(joins[at]), int(source[at]), int(target[at]))
            assert 0 < search.cost() == costs[at]
