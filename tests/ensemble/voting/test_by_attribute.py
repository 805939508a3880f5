"""Votes on each attribute separately, joined to the class, equal explicit sums and products."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ensemble.alignment.split import AlignedSplit
from ensemble.voting.base import Options
from ensemble.voting.vote import METHODS, vote
from folds.errors import UsageError
from tests.ensemble.small_runs import answer_run, draw, probability_run, split_of

BY_ATTRIBUTE = Options(by="attribute")
# (mask, age) of each class; "no mask, old" does not exist.
CLASS_VALUES = [("yes", "young"), ("yes", "old"), ("no", "young"), ("wrong", "old"), ("wrong", "young")]
VALUES = {0: ("no", "wrong", "yes"), 1: ("old", "young")}


def with_attributes(split: AlignedSplit) -> AlignedSplit:
    class_attributes = {name: dict(zip(("mask", "age"), CLASS_VALUES[i])) for i, name in enumerate(split.classes)}
    return replace(split, class_attributes=class_attributes)


def marginal(values: NDArray, attribute: int) -> NDArray:
    return np.stack(
        [sum(values[:, c] for c in range(5) if CLASS_VALUES[c][attribute] == value) for value in VALUES[attribute]],
        axis=1,
    )


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("hard", "grades")])
@settings(max_examples=10, deadline=None)
@given(n=st.integers(1, 8), seed=st.integers(0, 10**6), runs=st.integers(1, 4))
def test_a_class_gets_the_product_of_the_votes_on_its_attributes(method: str, n: int, seed: int, runs: int) -> None:
    values = [draw(n, 5, seed + i) for i in range(runs)]
    result = vote(
        with_attributes(split_of(*(probability_run(f"r{i}", v) for i, v in enumerate(values)), n=n)),
        method,
        options=BY_ATTRIBUTE,
    )
    separate = []
    for attribute in VALUES:
        sums = [marginal(v, attribute) for v in values]
        separate.append(
            vote(split_of(*(probability_run(f"r{i}", v) for i, v in enumerate(sums)), n=n), method).probabilities
        )
    expected = np.stack(
        [separate[0][:, VALUES[0].index(mask)] * separate[1][:, VALUES[1].index(age)] for mask, age in CLASS_VALUES],
        axis=1,
    )
    np.testing.assert_allclose(result.probabilities, expected / expected.sum(1, keepdims=True), atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(codes=st.lists(st.lists(st.integers(0, 4), min_size=2, max_size=2), min_size=1, max_size=7))
def test_hard_votes_choose_the_class_with_the_winning_values(codes: list[list[int]]) -> None:
    split = with_attributes(split_of(*(answer_run(f"r{i}", np.array(row), 5) for i, row in enumerate(codes)), n=2))
    result = vote(split, "hard", options=BY_ATTRIBUTE)
    ties = 0
    for row in range(2):
        winners = []
        for attribute in VALUES:
            count = Counter(CLASS_VALUES[answers[row]][attribute] for answers in codes)
            tied = [value for value in count if count[value] == max(count.values())]
            ties += len(tied) > 1
            # r0 is ranked first, then r1: the first whose value is among the tied.
            winners.append(
                next(
                    CLASS_VALUES[answers[row]][attribute]
                    for answers in codes
                    if CLASS_VALUES[answers[row]][attribute] in tied
                )
            )
        predicted = CLASS_VALUES[int(result.probabilities[row].argmax())]
        if tuple(winners) in CLASS_VALUES:
            assert predicted == tuple(winners)
        else:
            assert tuple(winners) == ("no", "old")
            shares = {
                c: np.prod([sum(CLASS_VALUES[answers[row]][a] == c[a] for answers in codes) for a in VALUES])
                for c in CLASS_VALUES
            }
            assert shares[predicted] == max(shares.values())
    assert result.ties == ties
    assert result.undecided == 0, "a class with a vote has a product above 0"


def test_a_fold_model_votes_for_the_value_with_the_largest_sum() -> None:
    values = np.array([[0.3, 0.25, 0.45, 0.0, 0.0]])  # the best class has no mask, but P(mask) = .55
    split = with_attributes(split_of(probability_run("a", values), n=1))
    assert vote(split, "hard").probabilities.argmax() == 2
    assert CLASS_VALUES[int(vote(split, "hard", options=BY_ATTRIBUTE).probabilities.argmax())] == ("yes", "young")


def test_rows_with_all_products_0_are_decided_by_class() -> None:
    three = [("a", "x", "p"), ("a", "y", "q"), ("b", "x", "q")]  # the medians give (a, x, q), which is not a class
    split = split_of(*(probability_run(f"r{i}", np.eye(3)[[i]]) for i in range(3)), n=1)
    split = replace(split, class_attributes={str(i): dict(zip("stu", row)) for i, row in enumerate(three)})
    result = vote(split, "median", options=BY_ATTRIBUTE)
    assert result.undecided == 1
    np.testing.assert_allclose(result.probabilities, vote(split, "median").probabilities)


def test_unknown_or_ambiguous_attributes_are_an_error() -> None:
    split = split_of(probability_run("a", draw(2, 5, 0)), n=2)
    with pytest.raises(UsageError, match=r"no file has class_attributes for all classes, e\.g\. for '0'"):
        vote(split, options=BY_ATTRIBUTE)
    twins = replace(split, class_attributes={name: {"mask": "yes" if name in "01" else name} for name in split.classes})
    with pytest.raises(UsageError, match="classes '0' and '1' have the same mask"):
        vote(twins, options=BY_ATTRIBUTE)


def test_an_attribute_with_one_value_has_no_influence() -> None:
    values = draw(4, 2, 0)
    split = replace(
        split_of(probability_run("a", values), n=4),
        class_attributes={"0": {"k": "u", "m": "v"}, "1": {"k": "u", "m": "w"}},
    )
    np.testing.assert_allclose(vote(split, options=BY_ATTRIBUTE).probabilities, values, atol=1e-6)


def test_product_of_all_value_combinations_is_the_joint() -> None:
    pairs = list(product("ab", "xyz"))
    values = np.random.default_rng(0).dirichlet(np.ones(6), 5)
    split = replace(
        split_of(probability_run("r", values), n=5),
        class_attributes={str(i): dict(zip(("s", "t"), pair)) for i, pair in enumerate(pairs)},
    )
    grid = values.reshape(5, 2, 3)
    expected = (grid.sum(2)[:, :, None] * grid.sum(1)[:, None, :]).reshape(5, 6)
    np.testing.assert_allclose(vote(split, options=BY_ATTRIBUTE).probabilities, expected, atol=1e-6)
