"""Repeats: independent partitions, as good as the first."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from folds.data.table import SampleTable
from folds.errors import EnsembleError, UsageError
from folds.splits.assignment import FoldAssignment
from folds.splits.checks import check_folds
from folds.splits.kfold import split_by_person
from folds.splits.repair import quality
from folds.splits.repeated import MAX_INDEPENDENT_INDEX, max_rand_index, repeated_splits
from folds.splits.strata import count_groups
from tests.folds.skewed import skewed_people
from tests.folds.splits.test_strata import table_of


@pytest.fixture(scope="module")
def table() -> SampleTable:
    labels, persons = skewed_people(0)
    return table_of([f"p{i}" for i in persons], [f"c{i}" for i in labels])


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(1, 3)), min_size=2))
def test_the_index_is_scikit_learns_over_people(people: list[tuple[int, int, int]]) -> None:
    rows = np.repeat(np.arange(len(people)), [images for _, _, images in people])  # a person counts once
    names, labels = np.array([f"p{i}" for i in range(len(people))])[rows], np.full(len(rows), "a")
    folds = [np.array([person[i] for person in people]) for i in (0, 1)]
    both = [FoldAssignment(np.arange(len(rows)).astype(str), labels, names, fold[rows], 5, 0) for fold in folds]
    order = np.argsort([f"p{i}" for i in range(len(people))])
    assert max_rand_index(both) == pytest.approx(adjusted_rand_score(folds[0][order], folds[1][order]))


@pytest.fixture(scope="module")
def repeats(table: SampleTable) -> list[FoldAssignment]:
    return repeated_splits(table, 5, 3)


def test_repeats_are_independent_even_if_other_seeds_are_not(table: SampleTable, repeats: list[FoldAssignment]) -> None:
    assert [each.repeat for each in repeats] == [0, 1, 2]
    assert {each.seed for each in repeats} == {0}
    assert max_rand_index(repeats) <= MAX_INDEPENDENT_INDEX
    assert repeats[0].sha == split_by_person(table, 5).sha
    assert max_rand_index(repeated_splits(table, 5, 3, repaired=False)) > 0.9


def test_every_repeat_is_as_well_balanced_as_scikit_learns(table: SampleTable, repeats: list[FoldAssignment]) -> None:
    people = count_groups(table)
    _, first = np.unique(people.groups, return_index=True)
    before = quality(people, split_by_person(table, 5, repaired=False).fold[first], [0.2] * 5)
    for each in repeats:
        check_folds(each, table.classes)
        now = quality(people, each.fold[first], [0.2] * 5)
        assert now.missing_classes == 0
        assert now.max_deviation <= before.max_deviation


def test_repeats_depend_on_the_seed_not_on_later_repeats(table: SampleTable, repeats: list[FoldAssignment]) -> None:
    assert [each.sha for each in repeated_splits(table, 5, 2)] == [each.sha for each in repeats[:2]]
    assert repeated_splits(table, 5, 2, seed=1)[1].sha != repeats[1].sha


def test_more_repeats_than_there_are_partitions_are_refused() -> None:
    with pytest.raises(
        EnsembleError, match="expected 5 different partitions of 2 people into 2 folds, found 1"
    ) as error:
        repeated_splits(table_of(["p", "q"], ["a", "b"]), 2, 5)
    assert error.value.hint == "try `repeats=1`"


def test_fewer_than_one_repeat_is_wrong_usage(table: SampleTable) -> None:
    with pytest.raises(UsageError, match="repeats must be 1 or more, found 0"):
        repeated_splits(table, 5, 0)
