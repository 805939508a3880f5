"""Fit prediction intervals of numbers to out-of-fold predictions, and score them nested over people; numpy only.

They are prediction sets of numbers, fitted by the quantile over people of the sets of classes (`limit_of_scores`): the
score of an image is the absolute error, or the absolute error divided by the spread of the members.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ensemble.decisions.column_rows import LabeledColumns, NumberRows
from ensemble.decisions.labels import GUARANTEED, UNREACHABLE
from ensemble.decisions.number_decision import (
    ABSOLUTE,
    HIGH,
    LOW,
    SPREAD,
    DecidedNumbers,
    NumberDecision,
)
from ensemble.decisions.number_report import NumberIntervals
from ensemble.decisions.record import DecisionSource, MeasuredValue, RuleRecord
from ensemble.decisions.report import optimism_warning
from ensemble.decisions.rows import (
    IMAGE,
    PERSON,
    mean_interval,
    person_shares,
    share_interval,
    sums_by_person,
    weights_of,
)
from ensemble.decisions.sets import ALL_IMAGES, ANY_IMAGE, LAC, limit_of_scores, people_for_sets
from folds.errors import UsageError, unknown_name
from folds.metrics.intervals import Interval
from folds.utils.numeric import factorize

TARGETS = (ANY_IMAGE, ALL_IMAGES)
_FLOOR = 0.5  # of the median spread: members that agree by chance do not make an interval of no width


@dataclass(frozen=True)
class IntervalRequest:
    """What is asked for.

    Attributes
    ----------
    level : the probability with which an interval is to hold the true number.
    target, score : as in `ensemble.decisions.number_decision.NumberDecision`.
    max_widths : number → width above which it is not answered.
    """

    level: float
    target: str = ANY_IMAGE
    score: str = ABSOLUTE
    max_widths: Mapping[str, float] = field(default_factory=dict)


def interval_request(
    names: Sequence[str],
    sets: float | None,
    sets_for: str = ANY_IMAGE,
    set_score: str = LAC,
    max_width: float | str | Mapping[str, float] | Sequence[str] | None = None,
) -> IntervalRequest:
    """Return the checked request; the parameters are those of `ensemble.decide`.

    Raises
    ------
    UsageError : there is no level, a value is out of range or unknown, or options contradict each other.
    """
    if sets is None:
        raise UsageError("expected a rule for numbers: `sets`, the coverage of intervals", hint="`sets=0.9`")
    if not 0 < sets < 1:
        raise UsageError(f"`sets` must be above 0 and below 1, found {sets!r}", hint="`sets=0.9`")
    if sets_for not in TARGETS:
        raise unknown_name("`sets_for` of numbers", sets_for, TARGETS)
    if set_score not in (LAC, ABSOLUTE, SPREAD):
        raise unknown_name("`set_score` of numbers", set_score, (ABSOLUTE, SPREAD))
    score = SPREAD if set_score == SPREAD else ABSOLUTE
    for name in names:
        clash = next((f"{name}_{end}" for end in (LOW, HIGH) if f"{name}_{end}" in names), None)
        if clash is not None:
            raise UsageError(f"'{clash}' is a number and the end of the interval of '{name}'", hint="rename it")
    widths = {} if max_width is None else max_widths(names, max_width)
    if widths and score == ABSOLUTE:
        raise UsageError(
            "`max_width` leaves wide intervals unanswered, and those of one width are all alike",
            hint="add `set_score=spread`: widths that follow the spread of the members of a blend",
        )
    return IntervalRequest(float(sets), sets_for, score, widths)


def max_widths(names: Sequence[str], given: float | str | Mapping[str, float] | Sequence[str]) -> dict[str, float]:
    """Return number → width above which it is not answered.

    Parameters
    ----------
    given : a width, of a single number; a mapping; or texts ``age=10``.

    Raises
    ------
    UsageError : an unknown number, or a width that is not a number above 0.
    """
    if isinstance(given, Mapping):
        pairs = [(str(name), str(width)) for name, width in given.items()]
    else:
        texts = [str(given)] if isinstance(given, int | float | str) else [str(one) for one in given]
        pairs = []
        for text in texts:
            name, sign, width = text.rpartition("=")
            if not sign and len(names) > 1:
                raise UsageError(
                    f"`max_width={text}`: expected the number that it is for", hint=f"`max_width={names[0]}={width}`"
                )
            pairs.append((name.strip() if sign else names[0], width))
    found: dict[str, float] = {}
    for name, width in pairs:
        if name not in names:
            raise unknown_name("number of `max_width`", name, list(names))
        if name in found:
            raise UsageError(f"`max_width` has '{name}' twice", hint="give each number one width")
        try:
            found[name] = float(width)
        except ValueError:
            found[name] = math.nan
        if not 0 < found[name] < math.inf:
            raise UsageError(f"`max_width`: expected a width above 0 for '{name}', found '{width.strip()}'")
    return found


@dataclass(frozen=True)
class Width:
    """The width of the intervals of one number: its limit, and what is added to the spread."""

    limit: float
    floor: float

    def half(self, rows: NumberRows) -> NDArray[np.float64]:
        """Return (n,) half the widths."""
        if rows.spread is None:
            return np.full(len(rows), self.limit)
        return np.asarray(self.limit * (rows.spread + self.floor))


def fit_width(rows: NumberRows, request: IntervalRequest) -> Width:
    """Return the width that holds the numbers of these people and of a new one."""
    errors, floor = np.abs(rows.values - rows.truth), 0.0
    if rows.spread is not None:
        floor = _floor_of(rows.spread, rows.persons)
        errors = errors / (rows.spread + floor)
    return Width(limit_of_scores(errors, rows.persons, request.level, request.target, math.inf), floor)


def _floor_of(spread: NDArray[np.float64], persons: NDArray[np.int64]) -> float:
    """Return half the median spread, of people who count equally; 1 if members never differ."""
    order = np.argsort(spread, kind="stable")
    reached = np.cumsum(weights_of(persons)[order])
    median = float(spread[order[np.searchsorted(reached, reached[-1] / 2)]]) if len(spread) else 0.0
    return _FLOOR * median if median > 0 else 1.0


def fit_intervals(
    rows: LabeledColumns, source: DecisionSource, request: IntervalRequest, per_person: bool = False
) -> NumberIntervals:
    """Return the intervals fitted to all people, with what they are worth on people who were not used to fit them.

    Raises
    ------
    UsageError : the score is ``spread``, and that of the members is not known.
    """
    if request.score == SPREAD and rows.spread is None:
        raise UsageError(
            "`set_score=spread` needs a blend of two runs or more, whose spread it is",
            hint="name a blend, give arrays with `spread`, or leave it out for intervals of one width",
        )
    unit = PERSON if per_person else IMAGE
    widths: list[Width] = []
    records: dict[str, RuleRecord] = {}
    warnings: list[str] = []
    for column, name in enumerate(rows.names):
        one = rows.of_number(column)
        if request.score == ABSOLUTE:
            one = NumberRows(one.values, one.truth, one.persons, one.parts)
        width = fit_width(one, request)
        widths.append(width)
        half, unbounded = _nested(one, request)
        if unbounded and not math.isinf(width.limit):
            warnings.append(
                f"{unbounded} of {len(np.unique(one.parts))} nested fits of {name}, each with fewer people, have no "
                "bound: the people of these parts do not count in its nested values"
            )
        records[name] = RuleRecord(
            (f"coverage>={request.level:g} for {request.target} by {request.score}",),
            (UNREACHABLE if math.isinf(width.limit) else GUARANTEED,),
            "" if math.isinf(width.limit) else f"coverage of {name} of at least {request.level:.3g} on average",
            tuple(_scores(one, name, half, request, unit)) if np.isfinite(half).any() else (),
        )
    too_few = [name for name, width in zip(rows.names, widths, strict=True) if math.isinf(width.limit)]
    if too_few:
        warnings.insert(0, _too_few(rows, too_few, request.level))
    if not source.persons_known:
        warnings.append(
            "persons are unknown: every image counts as its own person; if people have several images, no coverage is "
            "guaranteed, and the 95% CIs are too narrow"
        )
    warnings += [text for text in (optimism_warning(source.basis),) if text]
    decision = NumberDecision(
        rows.names,
        request.level,
        tuple(one.limit for one in widths),
        request.target,
        request.score,
        tuple(one.floor for one in widths) if request.score == SPREAD else (),
        tuple(request.max_widths.get(name, math.nan) for name in rows.names) if request.max_widths else (),
        unit,
        source,
        records,
    )
    return NumberIntervals(decision, tuple(warnings))


def _too_few(rows: LabeledColumns, names: Sequence[str], level: float) -> str:
    """Return that too few people know these numbers, in one line."""
    found = [f"{name} {rows.of_number(rows.names.index(name)).people:,}" for name in names[:10]]
    return (
        f"intervals of {level:.3g} need {people_for_sets(level):,} people whose number is known, found "
        f"{', '.join(found)}: they are unbounded"
    )


def _nested(rows: NumberRows, request: IntervalRequest) -> tuple[NDArray[np.float64], int]:
    """Return (n,) half the widths of rows by fits without their part of the people, and how many have no bound."""
    half, unbounded = np.full(len(rows), math.inf), 0
    for part in np.unique(rows.parts):
        inside, others = np.flatnonzero(rows.parts == part), np.flatnonzero(rows.parts != part)
        width = fit_width(rows.take(others), request)
        half[inside] = width.half(rows.take(inside))
        unbounded += math.isinf(width.limit)
    return half, unbounded


def _scores(
    rows: NumberRows, name: str, half: NDArray[np.float64], request: IntervalRequest, unit: str
) -> list[MeasuredValue]:
    """Return the coverage and the mean width of intervals, over people; parts without a bound do not count."""
    bounded = np.isfinite(half)
    max_width = request.max_widths.get(name, math.inf)
    scores = _coverage(rows, name, half, bounded, request, unit)
    answered = bounded & (2 * half <= max_width)
    if math.isfinite(max_width):
        errors = np.abs(rows.values - rows.truth)
        share = share_interval(*person_shares(answered, bounded, rows.persons, rows.people))
        scores += [
            MeasuredValue(f"answered of {name}", share),
            MeasuredValue(f"error of answers of {name}", _person_mean(rows, errors, answered)),
            MeasuredValue(f"error without abstention of {name}", _person_mean(rows, errors, bounded)),
        ]
    return scores


def _coverage(
    rows: NumberRows,
    name: str,
    half: NDArray[np.float64],
    among: NDArray[np.bool_],
    request: IntervalRequest,
    unit: str,
) -> list[MeasuredValue]:
    """Return the coverage of an image and of all images of a person, and the mean width, of rows that are `among`."""
    inside = np.abs(rows.values - rows.truth) <= half
    target = {one: request.level if request.target == one or unit == PERSON else None for one in TARGETS}
    found = [
        MeasuredValue(
            f"coverage of {name}",
            share_interval(*person_shares(inside, among, rows.persons, rows.people)),
            target[ANY_IMAGE],
        )
    ]
    if unit != PERSON:
        missed = sums_by_person(among & ~inside, rows.persons, rows.people) > 0
        present = sums_by_person(among, rows.persons, rows.people) > 0
        every = share_interval((present & ~missed).astype(float), present.astype(float))
        found.append(MeasuredValue(f"coverage of all images, {name}", every, target[ALL_IMAGES]))
    return [*found, MeasuredValue(f"width of {name}", _person_mean(rows, 2 * half, among))]


def _person_mean(rows: NumberRows, values: NDArray[np.float64], among: NDArray[np.bool_]) -> Interval:
    """Return the mean over the people with such rows of the mean of each one's values, with its interval."""
    count = sums_by_person(among, rows.persons, rows.people)
    sums = sums_by_person(np.where(among, values, 0.0), rows.persons, rows.people)
    return mean_interval((sums / np.maximum(count, 1))[count > 0], lower=0.0)


def measured_numbers(
    decided: DecidedNumbers, labels: NDArray[np.float64], persons: NDArray[np.str_]
) -> list[MeasuredValue]:
    """Return what intervals achieve on labeled rows that they were not fitted to, over people.

    Parameters
    ----------
    labels : (n, columns) the true numbers, nan if unknown.
    persons : (n,) the person of each row.

    Returns
    -------
    Coverage and mean width of each number that is known somewhere and has a bound.
    """
    decision, found = decided.decision, []
    request = IntervalRequest(decision.level, decision.target, decision.score)
    for column, name in enumerate(decision.classes):
        known = np.flatnonzero(~np.isnan(labels[:, column]))
        half = (decided.high - decided.low)[known, column] / 2
        if not len(known) or not np.isfinite(half).all():
            continue
        codes = factorize(persons[known])[1]
        rows = NumberRows(decided.values[known, column], labels[known, column], codes, codes)
        found += _coverage(rows, name, half, np.ones(len(known), bool), request, decision.unit)
    return found
