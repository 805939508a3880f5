"""Several labels a row, and numbers, spread evenly over folds of whole people."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold

import folds
from folds.errors import EnsembleError, UsageError
from folds.splits.multilabel import count_labels, iterative_folds, quantile_bins, split_labels_by_person

K = 5


def hard(seed: int, people: int = 30, labels: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Rows of 0 and 1 whose rates differ strongly from person to person; the first two labels co-occur."""
    random = np.random.default_rng(seed)
    persons = np.repeat(np.arange(people), random.integers(3, 30, people))
    rates = random.beta(0.4, 2.5, labels) * random.gamma(0.6, 1 / 0.6, (people, labels))
    y = (random.random((len(persons), labels)) < np.clip(rates, 0, 0.95)[persons]).astype(float)
    y[:, 1] = np.where(random.random(len(y)) < 0.7, y[:, 0], y[:, 1])
    return y, persons


def judged(y: np.ndarray, persons: np.ndarray, fold: np.ndarray) -> tuple[int, float]:
    """How many folds lack a label that K people or more have, and the largest deviation of the share of a label."""
    lacking, deviations = 0, []
    for one in y.T:
        known, has = ~np.isnan(one), one == 1
        if len(np.unique(persons[has])) >= K:
            lacking += K - len(np.unique(fold[has]))
        share = has.sum() / known.sum()
        deviations += [abs(has[fold == i].sum() / known[fold == i].sum() - share) for i in range(K)]
    return lacking, max(deviations)


def of_powerset(y: np.ndarray, persons: np.ndarray) -> np.ndarray:
    codes, fold = np.unique(y, axis=0, return_inverse=True)[1].ravel(), np.empty(len(y), int)
    split = StratifiedGroupKFold(K, shuffle=True, random_state=0).split(codes, codes, persons)
    for i, (_, test) in enumerate(split):
        fold[test] = i
    return fold


@pytest.mark.filterwarnings("ignore:The least populated class")
def test_no_label_is_lacking_and_shares_deviate_by_half_of_those_of_the_powerset() -> None:
    ours, theirs = [], []
    for seed in range(4):
        y, persons = hard(seed)
        fold = split_labels_by_person(y, persons, K)
        assert len(np.unique(np.stack([persons, fold]), axis=1).T) == len(np.unique(persons))  # people are whole
        lacking, deviation = judged(y, persons, fold)
        assert lacking == 0
        ours.append(deviation)
        theirs.append(judged(y, persons, of_powerset(y, persons))[1])
    assert np.mean(ours) <= 0.5 * np.mean(theirs)


def test_cells_that_are_not_known_count_for_neither_side() -> None:
    y, persons = hard(7)
    y[np.random.default_rng(0).random(y.shape) < 0.3] = np.nan
    people = count_labels(y, persons)
    assert people.counts.sum() == (~np.isnan(y)).sum()  # rows with each label, and rows known to be without it
    lacking, deviation = judged(y, persons, split_labels_by_person(y, persons, K))
    assert (lacking, deviation < 0.1) == (0, True)


def test_the_folds_depend_on_people_and_seed_and_not_on_the_order() -> None:
    y, persons = hard(1)
    order = np.random.default_rng(3).permutation(len(y))
    fold = split_labels_by_person(y, persons, K, seed=2)
    assert (split_labels_by_person(y[order], persons[order], K, seed=2) == fold[order]).all()
    assert (split_labels_by_person(y, persons, K, seed=3) != fold).any()


def test_the_rarest_label_is_assigned_first_to_the_fold_that_lacks_it_most() -> None:
    y = np.zeros((40, 2))
    y[:5, 0] = 1  # five people with the rare label
    y[:, 1] = 1
    people = count_labels(y, np.arange(40))
    fold = iterative_folds(people, K, seed=0)
    assert sorted(fold[:5].tolist()) == [0, 1, 2, 3, 4]
    assert np.bincount(fold).tolist() == [8] * 5


def test_the_splitter_takes_several_labels_and_numbers() -> None:
    y, number = hard(2)
    persons = np.char.add("p", np.char.zfill(number.astype(str), 2))
    splitter = folds.StratifiedPersonKFold(n_splits=K)
    tests = [test for _, test in splitter.split(y, y, groups=persons)]
    assert sorted(np.concatenate(tests).tolist()) == list(range(len(y)))
    fold = split_labels_by_person(y, persons, K)
    assert all(len(set(fold[test].tolist())) == 1 for test in tests)
    age = np.random.default_rng(0).gamma(4, 10, 30)[number] + 0.25
    bins = quantile_bins(age, persons, K)
    by_number, by_bin = ([test.tolist() for _, test in splitter.split(y, one, persons)] for one in (age, bins))
    assert by_number == by_bin
    with pytest.raises(UsageError, match="must hold class labels, found 8 columns"):
        next(folds.StratifiedPersonShuffleSplit().split(y, y, groups=persons))


def test_quantiles_are_fewer_with_few_people_and_keep_equal_numbers_together() -> None:
    values, persons = np.repeat(np.arange(100.0), 2), np.repeat(np.arange(100), 2)
    assert np.bincount(quantile_bins(values, persons, 5)).tolist() == [20] * 10
    assert len(np.unique(quantile_bins(values, persons, 25))) == 4
    assert len(np.unique(quantile_bins(np.where(values > 90, values, 0.0), persons, 5))) <= 3


@pytest.mark.parametrize(
    ("y", "said"),
    [
        (np.full((6, 2), 2.0), "found 2 in row 0, column 0"),
        (np.array([["a", "b"]] * 6), "found text"),
        (np.zeros((5, 2)), r"found the shape \(5, 2\)"),
    ],
)
def test_other_values_are_refused(y: np.ndarray, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        split_labels_by_person(y, np.arange(6), 2)
    with pytest.raises(EnsembleError, match="7 folds need at least 7 people, found 6"):
        split_labels_by_person(np.zeros((6, 2)), np.arange(6), 7)
