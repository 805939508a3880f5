"""Provide splitters by person (group) with scikit-learn's interface (``cv=``); the folds are those of `ensemble folds`.

The module imports scikit-learn, so the package loads it on first use of one of its names.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import BaseCrossValidator
from sklearn.utils import check_random_state, indexable
from sklearn.utils.multiclass import type_of_target

from folds.data.table import SampleTable
from folds.errors import EnsembleError, UsageError, unknown_name
from folds.metrics.arrays import names_of
from folds.splits.assignment import FoldAssignment
from folds.splits.kfold import split_by_person
from folds.splits.multilabel import quantile_bins, split_labels_by_person
from folds.splits.repeated import repeated_holdouts, repeated_splits
from folds.utils.arguments import FLAG, NUMBER, check_arguments, described, whole, wrong_argument
from folds.utils.text import sort_classes

Index = NDArray[np.int64]


class _ByPerson(BaseCrossValidator):
    """Base class of the splitters; with metadata routing, `groups` are requested by default."""

    __metadata_request__split = {"groups": True}  # noqa: RUF012 - the name is scikit-learn's
    n_splits: int
    repair: bool
    random_state: Any

    def split(
        self, X: Any, y: ArrayLike | None = None, groups: ArrayLike | None = None
    ) -> Iterator[tuple[Index, Index]]:
        """Yield (training, test) positions of the rows.

        Parameters
        ----------
        X : (n, …); only its length is used. None for the length of `y`.
        y : (n,) classes, which are spread evenly; numbers, whose quantiles are spread evenly; or, for
            `StratifiedPersonKFold`, (n, labels) 0 and 1, nan where a label is not known.
        groups : (n,) person (patient, camera, writer) of each row; no person is in both parts.

        Raises
        ------
        UsageError : a ValueError; `y` or `groups` is missing or has another length, `y` is not a class label, or there
            are fewer people than folds.
        """
        if y is not None and np.ndim(y) == 2 and np.shape(y)[1] > 1:
            of_row = self._folds_of_labels(X, y, groups)
            for one in range(self.n_splits):
                yield np.flatnonzero(of_row != one), np.flatnonzero(of_row == one)
            return
        table = _table(X, y, groups, self.n_splits)
        self._check_people(len(table.factorized_persons[0]))
        try:
            assignments = self._assignments(table)
        except EnsembleError as error:
            raise _in_names_of_scikit_learn(error) from None
        for assignment in assignments:
            for fold in range(assignment.k):
                yield assignment.training_index(fold), assignment.validation_index(fold)

    def _assignments(self, table: SampleTable) -> list[FoldAssignment]:
        raise NotImplementedError

    def _folds_of_labels(self, X: Any, y: ArrayLike, groups: ArrayLike | None) -> Index:
        """Return (n,) the fold of each row with several labels."""
        raise UsageError(
            f"`y` must hold class labels, found {np.shape(y)[1]} columns", hint="StratifiedPersonKFold splits them"
        )

    def _check_people(self, people: int) -> None:
        """Raise UsageError if there are too few people for the splits."""
        if people < self.n_splits:
            raise UsageError(
                f"`n_splits` must be at most the number of people in `groups`, {people}, found {self.n_splits}",
                hint=f"n_splits={min(5, people)}" if people > 1 else "a split by person needs two people or more",
            )

    def _seed(self) -> int:
        state = self.random_state
        if isinstance(state, np.random.Generator):
            return int(state.integers(2**31))
        return int(state) if whole().holds(state) else int(check_random_state(state).randint(2**31))

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name, for ``sklearn.base.clone``."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **params: Any) -> Self:
        """Set parameters, with the checks of the constructor; return the splitter.

        Raises
        ------
        UsageError : an unknown parameter or an invalid value.
        """
        own = self.get_params()
        for name in params:
            if name not in own:
                raise unknown_name("parameter", name, list(own))
        for name, value in type(self)(**own | params).get_params().items():
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.get_params().items())
        return f"{type(self).__name__}({shown})"


class StratifiedPersonKFold(_ByPerson):
    """k folds by person with the classes spread evenly: StratifiedGroupKFold with a repair.

    With several labels a row, a `y` of 0, 1 and nan, each label is spread evenly (`split_labels_by_person`).

    The folds are those of ``ensemble folds --k n_splits --seed random_state``: those of scikit-learn, improved by moves
    and swaps of people if a fold lacks a class that it could have, or if the balance is poor. They depend on the names
    and rows of people, not on the order of the rows.

    Parameters
    ----------
    n_splits : number of folds, 2 or more.
    shuffle : whether ties between people are broken randomly; False breaks them by name, and `random_state` has no
        effect.
    random_state : seed that breaks ties between people; None for a new seed in every call.
    repair : False for the folds of scikit-learn's StratifiedGroupKFold.

    Examples
    --------
    >>> import folds
    >>> y = ["cat", "dog"] * 6
    >>> person = ["ann", "ann", "bob", "bob", "cem", "cem", "dee", "dee", "eli", "eli", "fay", "fay"]
    >>> splitter = folds.StratifiedPersonKFold(n_splits=3)
    >>> [len(test) for train, test in splitter.split(y, y, groups=person)]
    [4, 4, 4]
    """

    def __init__(self, n_splits: int = 5, *, shuffle: bool = True, random_state: Any = 0, repair: bool = True) -> None:
        check_arguments(locals(), {"n_splits": whole(2), "shuffle": FLAG, "repair": FLAG})
        _check_random_state(random_state)
        self.n_splits = n_splits
        self.shuffle = shuffle
        self.random_state = random_state
        self.repair = repair

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of folds."""
        return self.n_splits

    def _assignments(self, table: SampleTable) -> list[FoldAssignment]:
        seed = self._seed() if self.shuffle else 0
        return [split_by_person(table, self.n_splits, seed, repaired=self.repair, shuffle=self.shuffle)]

    def _folds_of_labels(self, X: Any, y: ArrayLike, groups: ArrayLike | None) -> Index:
        persons = _persons(groups, _rows(y if X is None else X, "y" if X is None else "X"))
        self._check_people(len(np.unique(persons)))
        return split_labels_by_person(y, persons, self.n_splits, self._seed() if self.shuffle else 0, self.repair)


class RepeatedStratifiedPersonKFold(_ByPerson):
    """`n_repeats` independent partitions into `n_splits` folds each, as ``ensemble folds --repeats n_repeats``.

    Stratified group k-fold with another seed often gives the same partition, because people with many samples determine
    it. These partitions are independent: their adjusted Rand index is at most 0.1, if there are enough people.

    Parameters
    ----------
    n_splits, n_repeats : 2 or more, and 1 or more.
    random_state : seed of all repeats; None for a new seed in every call.
    repair : False for scikit-learn's folds with consecutive seeds, some of which can be equal.

    Examples
    --------
    >>> import folds
    >>> y, person = ["cat", "dog"] * 12, [f"p{i // 2}" for i in range(24)]
    >>> splitter = folds.RepeatedStratifiedPersonKFold(n_splits=3, n_repeats=2)
    >>> splitter.get_n_splits(), len(list(splitter.split(y, y, groups=person)))
    (6, 6)
    """

    def __init__(self, n_splits: int = 5, n_repeats: int = 10, *, random_state: Any = 0, repair: bool = True) -> None:
        check_arguments(locals(), {"n_splits": whole(2), "n_repeats": whole(1), "repair": FLAG})
        _check_random_state(random_state)
        self.n_splits = n_splits
        self.n_repeats = n_repeats
        self.random_state = random_state
        self.repair = repair

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of splits of all repeats."""
        return self.n_splits * self.n_repeats

    def _assignments(self, table: SampleTable) -> list[FoldAssignment]:
        return repeated_splits(table, self.n_splits, self.n_repeats, self._seed(), repaired=self.repair)


class StratifiedPersonShuffleSplit(_ByPerson):
    """`n_splits` random splits by person with one part held out and the classes spread evenly.

    The first split is that of ``ensemble folds --holdout``.

    Parameters
    ----------
    n_splits : number of splits; they are independent.
    test_size : fraction of the rows to hold out, or their number if it is 1 or more.
    random_state : seed of all splits; None for a new seed in every call.
    repair : False for greedy splits with consecutive seeds, some of which can be equal.

    Examples
    --------
    >>> import folds
    >>> y, person = ["cat", "dog"] * 10, [f"p{i // 2}" for i in range(20)]
    >>> splitter = folds.StratifiedPersonShuffleSplit(n_splits=2, test_size=0.2)
    >>> [len(test) for train, test in splitter.split(y, y, groups=person)]
    [4, 4]
    """

    def __init__(
        self, n_splits: int = 10, *, test_size: float = 0.2, random_state: Any = 0, repair: bool = True
    ) -> None:
        check_arguments(locals(), {"n_splits": whole(1), "test_size": NUMBER, "repair": FLAG})
        _check_random_state(random_state)
        if not test_size > 0:
            raise UsageError(
                f"`test_size` must be above 0, found {test_size}", hint="test_size=0.2 holds out 20% of the rows"
            )
        self.n_splits = n_splits
        self.test_size = test_size
        self.random_state = random_state
        self.repair = repair

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of splits."""
        return self.n_splits

    def _check_people(self, people: int) -> None:
        if people < 2:
            raise UsageError(f"`groups` must have two people or more, found {people}")

    def _assignments(self, table: SampleTable) -> list[FoldAssignment]:
        share = self.test_size if self.test_size < 1 else self.test_size / len(table)
        if not share < 1:
            raise UsageError(f"`test_size` must be below the number of rows, {len(table):,}, found {self.test_size}")
        return repeated_holdouts(table, share, self.n_splits, self._seed(), self.repair)


# Parameter of `ensemble folds` → the same of the splitters, in messages.
_NAMES = {"k": "n_splits", "repeats": "n_repeats", "seed": "random_state", "holdout": "test_size"}


def _in_names_of_scikit_learn(error: EnsembleError) -> UsageError:
    def renamed(text: str) -> str:
        return re.sub(r"`(k|repeats|seed|holdout)(?=[`=])", lambda found: f"`{_NAMES[found[1]]}", text)

    hint = None if error.hint is None else renamed(error.hint)
    return UsageError(renamed(error.message), hint=hint, details=error.details)


def _check_random_state(state: Any) -> None:
    """Raise UsageError unless `state` is None, a seed, or a generator of NumPy."""
    if state is None or isinstance(state, np.random.Generator | np.random.RandomState) or state is np.random:
        return
    if not whole(0).holds(state) or state >= 2**32:
        raise wrong_argument(
            "random_state", f"None, a whole number from 0 to {2**32 - 1}, or a generator of numpy.random", state
        )


def _persons(groups: ArrayLike | None, n: int) -> NDArray[np.str_]:
    if groups is None:
        raise UsageError("`groups` is required: the person of each row", hint="split(X, y, groups=person)")
    return names_of(groups, "groups", n)  # type: ignore[arg-type]


def _table(X: Any, y: ArrayLike | None, groups: ArrayLike | None, folds: int) -> SampleTable:
    """Return the rows as the table that `ensemble folds` would read from a CSV of them.

    Numbers in `y` become their quantiles, of which there are fewer for more `folds`.
    """
    for name, values in (("y", y), ("groups", groups)):
        if values is None:
            what = "the class of each row" if name == "y" else "the person of each row"
            raise UsageError(f"`{name}` is required: {what}", hint="split(X, y, groups=person)")
    n = _rows(y if X is None else X, "y" if X is None else "X")
    labels, persons = names_of(y, "y", n), names_of(groups, "groups", n)  # type: ignore[arg-type]
    try:
        kind = type_of_target(y)
    except ValueError as error:
        raise UsageError(f"`y` must hold class labels: {error}") from None
    if kind == "continuous":
        bins = quantile_bins(np.asarray(y, np.float64), persons, min(folds, len(np.unique(persons))))
        labels, kind = bins.astype(str), "multiclass"
    if kind not in ("binary", "multiclass"):
        raise UsageError(
            f"`y` must hold class labels, found a {kind} target", hint="bin numbers into classes: pandas.cut"
        )
    classes = sort_classes(labels.tolist())
    return SampleTable("`y` and `groups`", np.arange(n).astype(str), None, labels, persons, classes, {}, {}, ())


def _rows(values: Any, name: str) -> int:
    """Return the number of rows."""
    try:
        return int(values.shape[0]) if hasattr(values, "shape") else len(indexable(values)[0])
    except (TypeError, IndexError):
        raise UsageError(f"`{name}` must have rows, found {described(values)}") from None
