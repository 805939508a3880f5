"""Hold the prediction intervals of numbers with what they are worth on unseen people, and apply them; numpy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ensemble.decisions.number_record import read_number_record, to_number_record
from ensemble.decisions.record import DecisionSource, RuleRecord
from ensemble.decisions.rows import IMAGE, PERSON
from ensemble.decisions.sets import ALL_IMAGES, ANY_IMAGE, people_for_sets
from folds.errors import UsageError
from folds.metrics.array_checks import as_array, by_name
from folds.metrics.arrays import check_same_index, names_of
from folds.metrics.task_names import REGRESSION
from folds.predictions.label_columns import SEPARATOR
from folds.predictions.links import answers_of

if TYPE_CHECKING:
    import pandas as pd

ABSOLUTE, SPREAD = "absolute", "spread"
LOW, HIGH = "low", "high"
_SHOWN = 5  # answers that the text of a result names


@dataclass(frozen=True, eq=False)
class NumberDecision:
    """An interval around each predicted number, which contains the true one of a new person with a stated probability.

    Attributes
    ----------
    classes : the number of each column of the predictions.
    level : the probability.
    limits : (columns) half the width of the interval of each number, in its unit, or, for the score ``spread``, in
        spreads of the members; infinite if there are too few people.
    target : what has this probability: ``image`` (a random image of a new person) or ``person`` (all images at once).
    score : ``absolute``: all intervals of a number have the same width; ``spread``: it grows with the spread of the
        predictions of the members of a blend.
    floors : (columns) what is added to each spread, in the unit of the number; () for ``absolute``.
    max_widths : (columns) the width above which a number is not answered, nan for none; () if all are answered.
    unit : ``image``, or ``person`` if they were fitted to the mean predictions of each person's images.
    source : what the intervals were fitted to.
    records : number → how its interval was fitted and what it is worth.
    """

    classes: tuple[str, ...]
    level: float
    limits: tuple[float, ...]
    target: str = ANY_IMAGE
    score: str = ABSOLUTE
    floors: tuple[float, ...] = ()
    max_widths: tuple[float, ...] = ()
    unit: str = IMAGE
    source: DecisionSource = field(default_factory=DecisionSource)
    records: Mapping[str, RuleRecord] = field(default_factory=dict)

    @property
    def needs_spread(self) -> bool:
        """Return whether `apply` takes the spread of the members."""
        return self.score == SPREAD

    def apply(
        self,
        values: ArrayLike,
        persons: ArrayLike | None = None,
        ids: ArrayLike | None = None,
        spread: ArrayLike | None = None,
    ) -> DecidedNumbers:
        """Return the intervals of predicted numbers.

        Parameters
        ----------
        values : (n, columns), or (n,) of a single number; columns of a DataFrame that are the numbers are taken by
            name.
        persons : (n,) the person of each row, if known. If the intervals are for people, the rows of a person are
            averaged, and the result has one row per person, in the order of the names.
        ids : not used, because intervals have no random part; `Decision.apply` takes them.
        spread : (n, columns) how much the predictions of the members differ, for the score ``spread``.

        Raises
        ------
        UsageError : the predictions have other columns or are not finite, lengths differ, or the spread is missing.
        """
        check_same_index({"`values`": values, "`persons`": persons, "`spread`": spread})
        found = number_matrix(values, self.classes, "values")
        if spread is None and self.needs_spread:
            raise UsageError(
                "the widths of these intervals follow the spread of the members, which is not known here",
                hint="`apply(values, spread=…)`, or fit intervals of one width: without `set_score=spread`",
            )
        spreads = None
        if spread is not None and self.needs_spread:
            spreads = spread_matrix(spread, self.classes, len(found))
        names = None if persons is None else names_of(persons, "persons", len(found))
        if self.unit == PERSON and names is not None:
            names, codes = np.unique(names, return_inverse=True)
            found, spreads = _means(found, codes), None if spreads is None else _means(spreads, codes)
        half = self.half_widths(spreads, len(found))
        asked = np.zeros(found.shape, bool)
        if self.max_widths:
            asked = 2 * half > np.where(np.isnan(self.max_widths), np.inf, self.max_widths)
        return DecidedNumbers(self, found, found - half, found + half, asked, names)

    def half_widths(self, spread: NDArray[np.float64] | None, rows: int) -> NDArray[np.float64]:
        """Return (rows, columns) half the widths of the intervals, for the spread (rows, columns) of the members."""
        if spread is None:
            return np.tile(np.array(self.limits), (rows, 1))
        return np.array(self.limits) * (spread + np.array(self.floors))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values without None, for TOML and JSON; `from_json` reads them."""
        return to_number_record(self)

    @classmethod
    def from_json(
        cls, record: Any, classes: Sequence[str] | None = None, source: str = "the decision"
    ) -> NumberDecision:
        """Return the intervals of a record from `to_dict`, which may come from a stranger.

        Parameters
        ----------
        classes : the numbers of the model, which must be those of the record, in this order; None if unknown.
        source : the name of the file in errors.

        Raises
        ------
        EnsembleError : a field is missing, unknown, of the wrong type or out of range, or fields contradict each other.
        """
        return cls(**read_number_record(record, classes, source))


def number_matrix(given: ArrayLike, names: Sequence[str], name: str) -> NDArray[np.float64]:
    """Return (n, columns) numbers, a column for each of `names`; (n,) of a single number is one column.

    Parameters
    ----------
    given : columns of a DataFrame that are the numbers are taken by name.
    name : of the parameter, for errors.

    Raises
    ------
    UsageError : it has other columns, or a number is not finite.
    """
    array = as_array(given, name)
    array = array[:, None] if array.ndim == 1 and len(names) == 1 else array
    if array.ndim != 2 or array.shape[1] != len(names) or array.dtype.kind not in "fiub":
        raise UsageError(
            f"`{name}` must be (samples, {len(names)}), a column for each number, found {array.shape} of {array.dtype}"
        )
    found = by_name(array.astype(np.float64), given, names)
    if not np.isfinite(found).all():
        raise UsageError(f"`{name}` must be finite numbers, found others", hint="leave out these rows")
    return found


def spread_matrix(given: ArrayLike, names: Sequence[str], rows: int) -> NDArray[np.float64]:
    """Return (rows, columns) how uncertain each number is; as `number_matrix`.

    Raises
    ------
    UsageError : it has other columns or another length, or a number is below 0 or not finite.
    """
    found = number_matrix(given, names, "spread")
    if len(found) != rows or (found < 0).any():
        what = f"{len(found):,} rows" if len(found) != rows else f"{found.min():g}"
        raise UsageError(f"`spread` must be ({rows}, {len(names)}), from 0 on, found {what}")
    return found


def _means(values: NDArray[np.float64], codes: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return (people, columns) the mean of the rows of each person."""
    sums = np.zeros((int(codes.max(initial=-1)) + 1, values.shape[1]))
    np.add.at(sums, codes, values)
    return sums / np.bincount(codes)[:, None]


@dataclass(frozen=True, eq=False, repr=False)
class DecidedNumbers:
    """The intervals of n rows.

    Attributes
    ----------
    decision : the rules.
    values : (n, columns) the predicted numbers.
    low, high : (n, columns) the ends of the intervals, infinite if there are too few people.
    asked : (n, columns) bool, whether a number is not answered because its interval is too wide.
    persons : (n,) of str, if known.
    """

    decision: NumberDecision
    values: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    asked: NDArray[np.bool_]
    persons: NDArray[np.str_] | None = None

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        more = ", …" if len(self) > _SHOWN else ""
        return f"{len(self):,} rows with intervals: {', '.join(self.labels[:_SHOWN].tolist())}{more}"

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the numbers."""
        return self.decision.classes

    @property
    def labels(self) -> NDArray[np.str_]:
        """Return (n,) the numbers of each row in one text: ``34.5``, or ``age=34.5;weight=70``.

        A number that is not answered is left out, as one that is not known in a table.
        """
        if not self.asked.any():
            return answers_of(REGRESSION, self.values, self.classes)
        rows = []
        for row, asked in zip(self.values.tolist(), self.asked.tolist(), strict=True):
            cells = [
                (name, f"{value:.9g}") for name, value, left in zip(self.classes, row, asked, strict=True) if not left
            ]
            rows.append(SEPARATOR.join(text if len(self.classes) == 1 else f"{name}={text}" for name, text in cells))
        return np.array(rows, dtype=str)

    def interval_columns(self) -> dict[str, NDArray[np.float64]]:
        """Return ``<number>_low`` and ``<number>_high`` of each number → (n,) the ends of its intervals."""
        return {
            f"{name}_{end}": values[:, column]
            for column, name in enumerate(self.classes)
            for end, values in ((LOW, self.low), (HIGH, self.high))
        }

    def answers(self) -> NDArray[np.float64]:
        """Return (n, columns) the numbers, nan where one is not answered."""
        return np.where(self.asked, np.nan, self.values)

    def frame(self, ids: ArrayLike | None = None) -> pd.DataFrame:
        """Return a DataFrame with ``id`` if given, and each number with the ends of its interval.

        A number that is not answered is nan; its interval is still there.
        """
        import pandas as pd

        columns: dict[str, Any] = {} if ids is None else {"id": names_of(ids, "ids", len(self))}
        ends = self.interval_columns()
        for column, name in enumerate(self.classes):
            columns[name] = self.answers()[:, column]
            columns |= {f"{name}_{end}": ends[f"{name}_{end}"] for end in (LOW, HIGH)}
        return pd.DataFrame(columns)


def number_lines(decision: NumberDecision) -> list[str]:
    """Return the intervals in words, one line for all numbers."""
    parts = []
    for at, (name, limit) in enumerate(zip(decision.classes, decision.limits, strict=True)):
        if np.isinf(limit):
            parts.append(f"{name} unbounded (fewer than {people_for_sets(decision.level):,} people)")
        elif decision.needs_spread:
            parts.append(f"{name} ± {limit:.4g} · (spread of the members + {decision.floors[at]:.4g})")
        else:
            parts.append(f"{name} ± {limit:.4g}")
    lines = [f"intervals of {decision.level:.3g}: {', '.join(parts)}"]
    limits = [
        f"{name} {width:.4g}"
        for name, width in zip(decision.classes, decision.max_widths or (), strict=bool(decision.max_widths))
        if not np.isnan(width)
    ]
    return lines + ([f"not answered above a width of: {', '.join(limits)}"] if limits else [])


def number_guarantees(decision: NumberDecision) -> list[str]:
    """Return what is guaranteed: one line for all numbers."""
    known = any(np.isfinite(decision.limits))
    if not known:
        return []
    whom = "all images of a new person at once" if decision.target == ALL_IMAGES else "a random image of a new person"
    whom = "a new person" if decision.unit == PERSON else whom
    each = ", each number by itself" if len(decision.classes) > 1 else ""
    return [
        f"on average, the interval holds the true number with a probability of at least {decision.level:.3g}, for "
        f"{whom}{each}"
    ]
