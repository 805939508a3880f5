"""The greedy assignment, held against scikit-learn's to the bit."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from folds.splits.greedy import fill_empty, stratified_group_kfold
from tests.folds.skewed import counted


def of_scikit_learn(labels: np.ndarray, persons: np.ndarray, k: int, seed: int) -> np.ndarray:
    fold = np.full(len(labels), -1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for i, (_, index) in enumerate(
            StratifiedGroupKFold(k, shuffle=True, random_state=seed).split(labels, labels, persons)
        ):
            fold[index] = i
    return fold


SIZES = {
    "one image each": lambda random, people: np.ones(people, int),
    "seven images each": lambda random, people: np.full(people, 7),
    "a few images": lambda random, people: random.integers(1, 4, people),
    "many images": lambda random, people: random.integers(10, 60, people),
    "a few large people": lambda random, people: (random.pareto(1, people) * 5).astype(int).clip(1, 300),
}
LABELS = {
    "any": lambda random, persons, classes: random.integers(classes, size=len(persons)),
    "one a person": lambda random, persons, classes: persons % classes,
    "alike in everybody": lambda random, persons, classes: np.arange(len(persons)) % classes,
    "skewed": lambda random, persons, classes: random.geometric(0.4, len(persons)).clip(max=classes) - 1 + 0 * persons,
}


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("labels", LABELS)
def test_the_folds_are_scikit_learns_also_where_rounding_decides(sizes: str, labels: str) -> None:
    random = np.random.default_rng([len(sizes), len(labels)])
    compared = 0
    while compared < 25:
        people, classes = int(random.choice([3, 5, 10, 30, 60])), int(random.choice([1, 2, 3, 8, 9, 18, 40]))
        k, seed = int(random.integers(2, min(people, 12) + 1)), int(random.integers(1000))
        persons = np.repeat(np.arange(people), SIZES[sizes](random, people))
        drawn = LABELS[labels](random, persons, classes)
        if np.bincount(drawn).max() < k:
            continue  # scikit-learn refuses these
        matrix = counted(drawn, persons)
        fold = stratified_group_kfold(matrix.counts, matrix.sizes, k, seed)
        assert fold[persons].tolist() == of_scikit_learn(drawn, persons, k, seed).tolist()
        compared += 1


def test_people_with_thousands_of_images_match_scikit_learn() -> None:
    random = np.random.default_rng(4)
    persons = np.repeat(np.arange(12), random.integers(1, 4000, 12))
    labels = random.choice(18, len(persons), p=random.dirichlet(np.full(18, 0.5)))
    matrix = counted(labels, persons)
    assert (
        stratified_group_kfold(matrix.counts, matrix.sizes, 5, 1)[persons].tolist()
        == of_scikit_learn(labels, persons, 5, 1).tolist()
    )


def test_unequal_shares_are_filled_to_those_shares() -> None:
    random = np.random.default_rng(0)
    persons = np.repeat(np.arange(400), 7)
    matrix = counted(random.integers(6, size=len(persons)), persons)
    fold = stratified_group_kfold(matrix.counts, matrix.sizes, (0.1, 0.9), 0)
    assert abs((fold == 0).mean() - 0.1) < 0.01


def test_empty_fold_gets_the_smallest_person_of_the_largest_fold() -> None:
    assert fill_empty(np.array([0, 0, 0, 1]), np.array([5, 2, 3, 9]), 3).tolist() == [0, 2, 0, 1]
