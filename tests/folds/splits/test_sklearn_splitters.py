"""The splitters held to scikit-learn's conventions, to scikit-learn's folds and to those of the command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    StratifiedGroupKFold,
    check_cv,
    cross_val_predict,
    cross_validate,
)
from sklearn.pipeline import make_pipeline

from folds.errors import EnsembleError
from folds.splits.assignment import load_folds
from folds.splits.sklearn_splitters import (
    RepeatedStratifiedPersonKFold,
    StratifiedPersonKFold,
    StratifiedPersonShuffleSplit,
)

ALL = [
    StratifiedPersonKFold(3),
    RepeatedStratifiedPersonKFold(3, 2),
    StratifiedPersonShuffleSplit(3),
]


def problem(seed: int = 0, people: int = 40, classes: int = 3) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    person = np.repeat([f"p{i}" for i in range(people)], rng.integers(1, 8, people))
    y = rng.choice([f"c{i}" for i in range(classes)], len(person), p=[0.6, 0.3, 0.1])
    return rng.normal(size=(len(person), 4)), y, person


@pytest.mark.parametrize("splitter", ALL, ids=lambda one: type(one).__name__)
def test_nobody_is_on_both_sides(splitter: Any) -> None:
    X, y, person = problem()
    splits = list(splitter.split(X, y, person))
    assert len(splits) == splitter.get_n_splits(X, y, person) == splitter.get_n_splits()
    for train, test in splits:
        assert len(train)
        assert len(test)
        assert not set(person[train]) & set(person[test])
        assert sorted([*train, *test]) == list(range(len(y)))
        assert set(y[test]) == set(y)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("seed", [0, 1, 7])
def test_without_repair_the_folds_are_scikit_learns(seed: int, shuffle: bool) -> None:
    X, y, person = problem(seed)
    theirs = StratifiedGroupKFold(4, shuffle=shuffle, random_state=seed if shuffle else None)
    ours = StratifiedPersonKFold(4, shuffle=shuffle, random_state=seed, repair=False)
    for (train, test), (_, expected) in zip(ours.split(X, y, person), theirs.split(X, y, person), strict=True):
        assert test.tolist() == expected.tolist()
        assert train.tolist() == sorted(set(range(len(y))) - set(expected.tolist()))


@pytest.mark.parametrize("numbers", [False, True])
def test_the_folds_are_those_of_the_command(call: Any, tmp_path: Path, monkeypatch: Any, numbers: bool) -> None:
    monkeypatch.chdir(tmp_path)
    X, y, person = problem(3)
    if numbers:
        person = np.unique(person, return_inverse=True)[1]
    pd.DataFrame({"path": [f"{i}.jpg" for i in range(len(y))], "label": y, "person": person}).to_csv(
        "t.csv", index=False
    )
    for options, splitter in (
        (["--k", 4, "--seed", 2], StratifiedPersonKFold(4, random_state=2)),
        (["--k", 3, "--repeats", 2], RepeatedStratifiedPersonKFold(3, 2)),
        (["--holdout", 0.25, "--seed", 5], StratifiedPersonShuffleSplit(1, test_size=0.25, random_state=5)),
    ):
        called = call("--json", "folds", "--data", "t.csv", "-o", "f.csv", "--force", *options)
        assert called.code == 0, called.err
        files = ["f.csv", *json.loads(called.out)["repeats"]]
        expected = [load_folds(Path(name)) for name in files]
        wanted = [each.validation_index(i).tolist() for each in expected for i in range(each.k)]
        assert [test.tolist() for _, test in splitter.split(X, y, person)] == wanted


def test_the_splits_of_a_shuffle_split_differ() -> None:
    X, y, person = problem()
    tests = [tuple(test) for _, test in StratifiedPersonShuffleSplit(8, test_size=0.2).split(X, y, person)]
    assert len(set(tests)) == 8
    assert all(abs(len(test) / len(y) - 0.2) < 0.05 for test in tests)


def test_a_number_of_rows_can_be_held_out() -> None:
    X, y, person = problem()
    sizes = [len(test) for _, test in StratifiedPersonShuffleSplit(3, test_size=30).split(X, y, person)]
    assert all(abs(size - 30) <= 5 for size in sizes)


@pytest.mark.parametrize("splitter", ALL, ids=lambda one: type(one).__name__)
def test_the_same_call_gives_the_same_splits(splitter: Any) -> None:
    X, y, person = problem()

    def tests(one: Any, *data: Any) -> list[list[int]]:
        return [test.tolist() for _, test in one.split(*data)]

    first = tests(splitter, X, y, person)
    assert first == tests(splitter, X, y, person)
    assert first == tests(clone(splitter, safe=False), X, y, person)
    assert first == tests(splitter, pd.DataFrame(X), pd.Series(y, dtype="category"), pd.Series(person))
    assert first == tests(splitter, X.tolist(), y.tolist(), person.tolist())
    assert first == tests(eval(repr(splitter)), X, y, person)  # noqa: S307


def test_no_random_state_draws_anew() -> None:
    X, y, person = problem(people=12)
    splitter = StratifiedPersonShuffleSplit(2, random_state=None)
    drawn = {tuple(map(tuple, (test.tolist() for _, test in splitter.split(X, y, person)))) for _ in range(8)}
    assert len(drawn) > 1
    seeded = StratifiedPersonKFold(3, random_state=np.random.RandomState(0))
    assert len(list(seeded.split(X, y, person))) == 3


@pytest.fixture(params=[False, True], ids=["plain", "routed"])
def routing(request: pytest.FixtureRequest) -> Iterator[bool]:
    with sklearn.config_context(enable_metadata_routing=request.param):
        yield request.param


def test_scikit_learn_takes_it_as_cv(routing: bool) -> None:
    X, y, person = problem()
    splitter = StratifiedPersonKFold(4)
    given: dict[str, Any] = {"params": {"groups": person}} if routing else {"groups": person}
    predicted = cross_val_predict(LogisticRegression(), X, y, cv=splitter, **given)
    by_hand = np.empty_like(predicted)
    for train, test in splitter.split(X, y, person):
        by_hand[test] = LogisticRegression().fit(X[train], y[train]).predict(X[test])
    assert (predicted == by_hand).all()
    scores = cross_validate(LogisticRegression(), X, y, cv=RepeatedStratifiedPersonKFold(3, 2), **given)
    assert len(scores["test_score"]) == 6
    search = GridSearchCV(make_pipeline(LogisticRegression()), {"logisticregression__C": [0.1, 1]}, cv=splitter)
    assert search.fit(X, y, groups=person).n_splits_ == 4
    assert clone(search).cv == splitter or repr(clone(search).cv) == repr(splitter)
    assert check_cv(splitter) is splitter


def test_groups_are_requested_by_default() -> None:
    with sklearn.config_context(enable_metadata_routing=True):
        for splitter in ALL:
            assert splitter.get_metadata_routing().split.requests == {"groups": True}
            renamed = clone(splitter, safe=False).set_split_request(groups="patient")
            assert renamed.get_metadata_routing().split.requests == {"groups": "patient"}


def test_wrong_arguments_are_value_errors() -> None:
    X, y, person = problem()
    for make in (
        lambda: StratifiedPersonKFold(1),
        lambda: StratifiedPersonKFold(2.5),  # type: ignore[arg-type]
        lambda: StratifiedPersonKFold(shuffle="yes"),  # type: ignore[arg-type]
        lambda: RepeatedStratifiedPersonKFold(3, 0),
        lambda: StratifiedPersonShuffleSplit(test_size=0),
        lambda: list(StratifiedPersonShuffleSplit(test_size=1000).split(X, y, person)),
        lambda: list(StratifiedPersonKFold().split(X, y)),
        lambda: list(StratifiedPersonKFold().split(X, groups=person)),
        lambda: list(StratifiedPersonKFold().split(X, y[:-1], person)),
        lambda: list(StratifiedPersonKFold().split(X, y, person[:-1])),
        lambda: list(StratifiedPersonKFold().split(X, np.full((len(y), 2), 2.0), person)),
        lambda: list(StratifiedPersonShuffleSplit().split(X, np.zeros((len(y), 2)), person)),
        lambda: list(StratifiedPersonKFold().split(X, y, [None, *person[1:]])),
    ):
        with pytest.raises(ValueError, match=r".") as raised:
            make()
        assert isinstance(raised.value, EnsembleError)
        assert raised.value.hint is not None or "must be" in str(raised.value) or "nothing is left" in str(raised.value)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda X, y, p: StratifiedPersonKFold(5).split(X, y, p), "n_splits must be at most .* `?groups`?, 2, found 5"),
        (lambda X, y, p: StratifiedPersonShuffleSplit().split(X, y, ["x"] * 6), "groups must have two people or more"),
        (lambda X, y, p: RepeatedStratifiedPersonKFold(2, 9).split(X, y, p), "expected 9 different partitions"),
        (lambda X, y, p: StratifiedPersonKFold(2).split(3, y, p), "X must have rows, found 3"),
        (lambda X, y, p: StratifiedPersonKFold(2).split(X, [0, 1, np.nan] * 2, p), "y has no value in 2 rows"),
        (lambda X, y, p: [StratifiedPersonKFold(2, random_state="a")], "random_state must be .*, found 'a'"),
        (lambda X, y, p: [StratifiedPersonKFold(2, random_state=-1)], "random_state must be .*, found -1"),
        (lambda X, y, p: [StratifiedPersonKFold(2, random_state=True)], "random_state must be .*, found True"),
        (lambda X, y, p: [StratifiedPersonShuffleSplit(test_size="a")], "test_size must be a number, found 'a'"),
        (lambda X, y, p: [StratifiedPersonShuffleSplit(test_size=None)], "test_size must be a number, found None"),
        (lambda X, y, p: [StratifiedPersonKFold(2, repair="no")], "repair must be True or False, found 'no'"),
        (lambda X, y, p: [StratifiedPersonKFold("3")], "n_splits must be a whole number, 2 or more, found '3'"),
        (lambda X, y, p: [StratifiedPersonKFold(3).set_params(n_splits=1)], "n_splits must be a whole number, 2 or"),
        (lambda X, y, p: [StratifiedPersonKFold(3).set_params(n_split=4)], "did you mean n_splits"),
    ],
)
def test_errors_name_the_parameter_of_the_splitter(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said) as raised:
        list(make([0] * 6, ["a", "b"] * 3, ["x", "y"] * 3))
    assert isinstance(raised.value, EnsembleError)
    assert not any(name in f"{raised.value} {raised.value.hint}".split() for name in ("`k`", "k", "seed", "repeats"))


def test_rows_may_be_counted_from_the_labels() -> None:
    X, y, person = problem()
    splitter = StratifiedPersonKFold(4)
    first, again = ([test.tolist() for _, test in splitter.split(rows, y, person)] for rows in (X, None))
    assert first == again


def test_a_generator_of_numpy_is_a_seed() -> None:
    X, y, person = problem()
    made = StratifiedPersonShuffleSplit(2, random_state=np.random.default_rng(0))
    drawn = [[test.tolist() for _, test in made.split(X, y, person)] for _ in range(2)]
    assert drawn[0] != drawn[1]
    again = StratifiedPersonShuffleSplit(2, random_state=np.random.default_rng(0))
    assert [test.tolist() for _, test in again.split(X, y, person)] == drawn[0]


@pytest.mark.parametrize("splitter", ALL, ids=lambda one: type(one).__name__)
def test_a_splitter_is_cloned_with_its_parameters(splitter: Any) -> None:
    copy = clone(splitter)
    assert copy is not splitter
    assert copy.get_params() == splitter.get_params()
    changed = copy.set_params(random_state=7, n_splits=4)
    assert changed is copy
    assert (changed.random_state, changed.n_splits, splitter.random_state) == (7, 4, 0)
    assert repr(copy) == repr(splitter).replace("n_splits=3", "n_splits=4").replace("state=0", "state=7")
