"""Counting who has what."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from folds.splits.strata import count_groups
from folds.utils.numeric import factorize
from tests.folds.sample_tables import table_of


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4), min_size=1))
def test_codes_are_those_of_numpy(names: list[str]) -> None:
    values = np.array(names)
    expected, inverse = np.unique(values, return_inverse=True)
    distinct, codes = factorize(values)
    assert (list(distinct), codes.tolist()) == (expected.tolist(), inverse.tolist())


def test_one_column_is_counted_by_person_in_the_order_of_names() -> None:
    people = count_groups(table_of(["q", "p", "q", "q"], ["a", "b", "b", "b"]))
    assert people.counts.tolist() == [[0, 1], [1, 2]]
    assert (people.groups.tolist(), people.sizes.tolist(), people.values) == ([1, 0, 1, 1], [1, 3], 2)


def test_several_columns_count_single_and_frequent_joint_values() -> None:
    persons = [f"p{i}" for i in range(6)]
    labels, site = list("aabbab"), np.array(list("nnnsss"))
    people = count_groups(table_of(persons, labels), [np.array(labels), site], 2)
    # a b | n s | an (2 people), bs (2 people); as (1) and bn (1) cannot be spread over two folds
    assert people.values == 4
    assert people.counts[:, 4:].T.tolist() == [[1, 1, 0, 0, 0, 0], [0, 0, 0, 1, 0, 1]]


def test_a_column_that_another_determines_adds_no_joint_values() -> None:
    labels = np.array(list("abcabc"))
    gender = np.array(list("mmfmmf"))
    people = count_groups(table_of([f"p{i}" for i in range(6)], labels.tolist()), [labels, gender], 2)
    assert people.counts.shape == (6, 5)
