"""Show what more people would give: narrower intervals from kept predictions, better scores where measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.report.evidence.evidence import Evidence, Part
from ensemble.report.evidence.scoring import (
    ScoredPart,
    ci_note,
    difference_of,
    direction,
    finite,
    main_scored,
    size_of,
)
from ensemble.report.page.blocks import Block, Figure, Missing, Section, Table, Text
from folds.errors import EnsembleError
from folds.metrics.classification import Metric, recorded_metric
from folds.metrics.custom import metric_of
from folds.metrics.grouping import crosstab
from folds.metrics.intervals import Difference, Interval, interval_over_people
from folds.metrics.resampling import leave_one_group_out
from folds.utils.charts.curves import lines
from folds.utils.charts.series import Series
from folds.utils.csv_table import read_csv
from folds.utils.files import read_json
from folds.utils.text import counted

SHARES = (0.25, 0.5, 0.75)  # of the people, in subsets
FACTORS = (0.5, 1.0, 2.0, 4.0)  # of the people, by the standard error
DRAWS, FEW_DRAWS = 40, 20  # subsets of each share; with many rows, whose widths vary little
MANY_ROWS = 10_000
MIN_PEOPLE = 8  # with fewer, no subsets are drawn
_POWER = 0.8416  # normal quantile of 80%: the probability to find a difference that is there
_NORMAL = 1.96
TRAINING = "training"  # in the record of a curve that was not measured with heads on frozen features


def learning_section(evidence: Evidence) -> Section:
    """Return how wide the interval would be with other numbers of people, and how the score changed where measured."""
    blocks: list[Block] = []
    main = main_scored(evidence)
    if main is None:
        blocks.append(
            Missing(
                "how the confidence interval depends on the number of people",
                "labeled predictions are needed: `ensemble kfold --data DATA` trains runs and writes them to runs/",
            )
        )
    else:
        part, member, found = main
        blocks += _interval_blocks(evidence, part, member.name, found)
    blocks += _measured(evidence)
    return Section(
        "learning",
        "More people",
        "What more people would give: how much narrower the confidence interval would be, and how the score would "
        "change.",
        tuple(blocks),
    )


# The width of the interval, from kept predictions


@dataclass(frozen=True)
class Width:
    """The width of the 95% CI with a number of people.

    Attributes
    ----------
    low, high : its range, by the uncertainty of the standard error, or over subsets (5% to 95% of them).
    """

    people: int
    width: float
    low: float
    high: float


def widths_by_law(interval: Interval, error_of_error: float, factors: Sequence[float] = FACTORS) -> list[Width]:
    """Return the widths that the standard error predicts: it falls with the square root of the number of people.

    Parameters
    ----------
    error_of_error : relative standard error of the standard error, see `relative_error`.
    factors : numbers of people, as multiples of today's.
    """
    width = interval.high - interval.low
    found = []
    for factor in factors:
        one = width / math.sqrt(factor)
        low, high = (one * math.exp(sign * _NORMAL * error_of_error) for sign in (-1, 1))
        found.append(Width(round(factor * interval.people), one, low, high))
    return found


def relative_error(
    metric: Metric, labels: NDArray[np.int64], values: NDArray[np.floating], persons: NDArray[np.int64]
) -> float:
    """Return the relative standard error of the jackknife standard error, from the influence of each person.

    The standard error is the root of a sum of squares d² over people; the variance of that sum is estimated from the
    squares themselves. For a user's function, and if no person has an influence, people are taken to be normal:
    1/√(2(people − 1)).

    Parameters
    ----------
    persons : (n,) from 0.
    """
    people = int(persons.max()) + 1
    normal = 1 / math.sqrt(2 * max(people - 1, 1))
    if metric.function is not None or people < 3:
        return normal
    left_out = leave_one_group_out(metric, labels, values, persons, people)
    left_out = left_out[np.isfinite(left_out)]
    squares = np.square(left_out - left_out.mean()) if len(left_out) else np.zeros(0)
    total = float(squares.sum())
    if total <= 0:
        return normal
    variance = max(float(np.square(squares).sum()) - total**2 / len(squares), 0.0)
    return max(math.sqrt(variance) / total / 2, normal / 2)


def widths_of_subsets(
    metric: Metric,
    labels: NDArray[Any],
    values: NDArray[np.floating],
    persons: NDArray[np.int64],
    shares: Sequence[float] = SHARES,
    draws: int = DRAWS,
) -> list[Width]:
    """Return the median width of the 95% CI over random subsets of the people, with 5% to 95% of the widths.

    A subset has about the same share of the people of each class, so that no class is lost. A person counts for the
    class of most of their images; of several labels or numbers, for a quarter of their mean.

    Parameters
    ----------
    persons : (n,) from 0.
    """
    people, classes = int(persons.max()) + 1, values.shape[1]
    if labels.ndim == 2:
        label_of = _strata_of_people(labels, persons, people)
    else:
        label_of = crosstab(persons, labels, people, classes).argmax(axis=1)
    random, found = np.random.default_rng(0), []
    for share in shares:
        widths, sizes = [], []
        for _ in range(draws):
            rank = np.empty(people)
            for one in np.unique(label_of):
                own = np.flatnonzero(label_of == one)
                rank[random.permutation(own)] = (np.arange(len(own)) + random.uniform()) / len(own)
            kept = np.zeros(people, bool)
            kept[np.argsort(rank, kind="stable")[: max(2, round(share * people))]] = True
            rows = np.flatnonzero(kept[persons])
            one_subset = interval_over_people(metric, labels[rows], values[rows], persons[rows])
            if math.isfinite(one_subset.high - one_subset.low):
                widths.append(one_subset.high - one_subset.low)
                sizes.append(int(kept.sum()))
        if widths:
            low, middle, high = (float(value) for value in np.quantile(widths, [0.05, 0.5, 0.95]))
            found.append(Width(sizes[0], middle, low, high))
    return found


def _strata_of_people(labels: NDArray[np.float64], persons: NDArray[np.int64], people: int) -> NDArray[np.int64]:
    """Return (people,) the quarter in which the mean of each person's labels or numbers lies, all columns together."""
    known = np.isfinite(labels)
    count = np.maximum(known.sum(axis=0), 1)
    distance = np.where(known, labels - np.where(known, labels, 0.0).sum(axis=0) / count, 0.0)
    spread = np.sqrt(np.square(distance).sum(axis=0) / count)
    scaled = (distance / np.where(spread > 0, spread, 1.0)).sum(axis=1)
    means = np.bincount(persons, scaled, people) / np.bincount(persons, minlength=people)
    return np.searchsorted(np.quantile(means, (0.25, 0.5, 0.75)), means, side="left")


def people_for(difference: Difference) -> int | None:
    """Return the number of people with which a true difference as large as this one would be significant in 80% of
    studies (5% level, two-sided); None if the difference is 0 or its standard error is unknown.
    """
    change = difference.difference
    error = change.standard_error
    if error is None or not error > 0 or not abs(change.value) > 0:
        return None
    return math.ceil(change.people * ((_NORMAL + _POWER) * error / abs(change.value)) ** 2)


def _interval_blocks(evidence: Evidence, part: Part, name: str, found: ScoredPart) -> list[Block]:
    metric = metric_of(evidence.metric)
    labels, values, persons = found.labels, found.values[0], found.persons
    interval = interval_over_people(metric, labels, values, persons, rows=found.scored)
    if not math.isfinite(interval.high - interval.low) or interval.high <= interval.low:
        reason = interval.warning or f"all {counted(found.people, 'person', 'people')} have the same score"
        return [
            Missing(
                "how the confidence interval depends on the number of people",
                f"labeled predictions of more people are needed ({reason})",
            )
        ]
    by_law = widths_by_law(interval, relative_error(metric, labels, values, persons))
    subsets: list[Width] = []
    if found.people >= MIN_PEOPLE and metric.function is None:
        subsets = widths_of_subsets(metric, labels, values, persons, draws=_draws(labels))
    return [
        Text(_sentences(evidence, part, name, found, interval, by_law)),
        _figure(metric, name, part, by_law, subsets),
        _table(metric, part, by_law, subsets, _draws(labels)),
    ]


def _draws(labels: NDArray[np.int64]) -> int:
    return DRAWS if len(labels) <= MANY_ROWS else FEW_DRAWS


def _sentences(
    evidence: Evidence, part: Part, name: str, found: ScoredPart, interval: Interval, by_law: Sequence[Width]
) -> tuple[str, ...]:
    metric, widths = metric_of(evidence.metric), {one.people: one for one in by_law}
    now, doubled, four = (widths[round(factor * interval.people)] for factor in (1.0, 2.0, 4.0))
    rows = size_of(found, part, evidence.unit_of(part).is_person)
    lines = [
        f"`{name}`: {metric.title}{direction(metric)} {interval.text()} on {rows}. "
        f"The interval is {now.width:.3f} wide; "
        f"with twice the people it would be about {doubled.width:.3f} wide [{doubled.low:.3f}, {doubled.high:.3f}], "
        f"with four times the people about {four.width:.3f} [{four.low:.3f}, {four.high:.3f}]."
    ]
    simple = None if evidence.simple in (None, name) else part.member(evidence.simple or "")
    change = difference_of(evidence, part, simple, part.member(name))
    needed = None if change is None else people_for(change)
    sign = 1 if metric.greater_is_better else -1
    if change is not None and simple is not None and needed is not None:
        if change.is_significant:
            lines.append(
                f"The difference from {simple.name} is significant with the people there are: {change.text()}."
            )
        elif sign * change.difference.value > 0:
            lines.append(
                f"If the difference from {simple.name} is truly {change.difference.value:+.3f} "
                f"({change.text()}), a study needs about {_rounded(needed):,} people to find it with a probability of "
                "80%."
            )
    lines.append(
        "What kept predictions cannot tell: how well a model trained on more people would score. All of them come from "
        "models that were trained on the same people, so they show how precisely the score is known, not how it grows. "
        "Only trainings on subsets of the people show that."
    )
    return tuple(lines)


def _rounded(count: int) -> int:
    """Return a number with two significant digits, rounded up."""
    step = 10 ** max(0, len(str(count)) - 2)
    return -(-count // step) * step


def _figure(metric: Metric, name: str, part: Part, by_law: Sequence[Width], subsets: Sequence[Width]) -> Figure:
    def series(label: str, points: Sequence[Width], tone: int) -> Series:
        return Series(
            label,
            [one.people for one in points],
            [one.width for one in points],
            [one.low for one in points],
            [one.high for one in points],
            tone,
            markers=True,
        )

    drawn = [series("expected from the standard error", by_law, 0)]
    drawn += [series("measured on subsets of the people", subsets, 1)] if subsets else []
    title = f"Width of the 95% CI (over people) of {metric.title} by the number of people"
    description = f"{name}: " + ", ".join(f"{one.width:.3f} with {one.people:,} people" for one in by_law) + "."
    ticks = sorted({float(one.people) for one in by_law})
    what = "people" if part.persons_known else "images"
    svg = lines(
        drawn,
        title,
        description,
        f"{what} who are scored" if part.persons_known else "images that are scored",
        f"width of the 95% CI of {metric.title}",
        x_log=True,
        x_ticks=ticks,
        y_range=(0.0, 1.05 * max(one.high for one in [*by_law, *subsets])),
    )
    return Figure("learning-width", svg, title, description)


def _table(metric: Metric, part: Part, by_law: Sequence[Width], subsets: Sequence[Width], draws: int) -> Table:
    rows: list[list[str | int | float | None]] = []
    for source, points in (("subsets", subsets), ("standard error", by_law)):
        rows += [[source, one.people, f"{one.width:.3f}", f"[{one.low:.3f}, {one.high:.3f}]"] for one in points]
    return Table(
        "learning-widths",
        f"Width of the 95% CI of {metric.title} by the number of people.",
        ["from", "people", "CI width", "range"],
        rows,
        note=f"{ci_note(part)} Standard error: the width falls with the square root of the number of people; its range "
        f"is the 95% CI by the uncertainty of the standard error itself. Subsets: the median over {draws} random "
        "subsets of the people with the frequencies of the classes, and 5% to 95% of them; if they lie far from the "
        "curve, the law does not hold for so few people.",
    )


# The score, where it was measured


@dataclass(frozen=True)
class _Measured:
    """A learning curve that a run wrote: the score of heads that were trained on a share of the people."""

    run: str
    people: list[float]
    score: list[float]
    low: list[float]
    high: list[float]
    metric: str
    doubled: tuple[float, float] | None
    trained: bool = False
    doubled_interval: tuple[float, float] | None = None


def _measured(evidence: Evidence) -> list[Block]:
    curves = [one for name, run in evidence.runs.items() if (one := _read_curve(name, run.folder)) is not None]
    if not curves:
        return [
            Missing(
                "how the score changes with the number of people who train",
                "`ensemble kfold` with the options of a run and `--learning-curve` trains it on 1/4 and 1/2 of the "
                "people as well, in 3/4 of its time; with `--features` it trains heads on 1/8 to all of the people, in "
                "minutes",
            )
        ]
    titles = dict.fromkeys(one.metric for one in curves)
    blocks: list[Block] = []
    for number, title in enumerate(titles, start=1):
        own = [one for one in curves if one.metric == title]
        series = [Series(one.run, one.people, one.score, one.low, one.high, markers=True) for one in own]
        text = " ".join(map(_curve_text, own))
        heading = f"{title} by the number of people who train, with 95% CIs"
        drawn = lines(series, heading, text, "people in the training part", title)
        rows: list[list[str | int | float | None]] = [
            [one.run, f"{people:.0f}", Interval(score, low, high).text()]
            for one in own
            for people, score, low, high in zip(one.people, one.score, one.low, one.high, strict=True)
        ]
        table = Table(
            f"learning-score-{number}",
            f"Out-of-fold {title} of models that were trained on a share of the people.",
            ["run", "people", title],
            rows,
            note=_note_on_curves(own),
        )
        blocks += [Figure(f"learning-score-{number}-figure", drawn, heading, text), table]
    return blocks


def _note_on_curves(curves: Sequence[_Measured]) -> str:
    notes = []
    if heads := [one.run for one in curves if not one.trained]:
        notes.append(
            f"{', '.join(heads)}: 95% CIs over the people who are scored, and over the draws of those who train. "
            "Measured with linear heads on frozen features: fine-tuning usually gains more from more people."
        )
    if trained := [one.run for one in curves if one.trained]:
        notes.append(
            f"{', '.join(trained)}: whole models, trained on one draw of the people for each share, and scored on the "
            "same people; 95% CIs over these. All have as many epochs, and with fewer people an epoch has fewer steps, "
            "so that the curve may rise too steeply."
        )
    return " ".join(notes)


def _curve_text(one: _Measured) -> str:
    text = (
        f"{one.run}: {one.metric} {one.score[0]:.3f} with {one.people[0]:.0f} people in the training part, "
        f"{one.score[-1]:.3f} with {one.people[-1]:.0f}."
    )
    if one.doubled is None:
        return f"{text} The score does not get better with the people, so that nothing is extrapolated."
    text += f" With twice the people it is expected from {one.doubled[0]:.3f} to {one.doubled[1]:.3f} (extrapolated"
    if one.doubled_interval is None:
        return f"{text})."
    low, high = one.doubled_interval
    return f"{text}; with the 95% CI over the people who are scored, from {low:.3f} to {high:.3f})."


def _read_curve(name: str, folder: Path) -> _Measured | None:
    """Return the learning curve in the folder of a run; None if there is none, or if it is damaged."""
    path = folder / "learning_curve.csv"
    if not path.is_file():
        return None
    try:
        columns = read_csv(path).columns
        numbers = {key: [float(cell) for cell in columns[key]] for key in ("people", "score", "low", "high")}
    except (EnsembleError, KeyError, ValueError):
        return None
    if not numbers["people"] or not all(math.isfinite(value) for values in numbers.values() for value in values):
        return None
    order = np.argsort(numbers["people"], kind="stable")
    ordered = {key: [values[i] for i in order] for key, values in numbers.items()}
    found = _Measured(name, ordered["people"], ordered["score"], ordered["low"], ordered["high"], "score", None)
    return _with_details(found, folder / "learning_curve.json")


def _with_details(curve: _Measured, path: Path) -> _Measured:
    """Return a curve with what its record knows: the metric, how it was measured, the score with twice the people."""
    try:
        record = read_json(path) if path.is_file() else None
    except (EnsembleError, OSError, ValueError):
        record = None
    if not isinstance(record, Mapping):
        return curve
    metric = recorded_metric(record.get("metric"))
    return replace(
        curve,
        metric="score" if metric is None else metric.title,
        doubled=_two_numbers(record.get("doubled")),
        trained=record.get("measured_with") == TRAINING,
        doubled_interval=_two_numbers(record.get("doubled_interval")),
    )


def _two_numbers(found: object) -> tuple[float, float] | None:
    ends = [finite(value) for value in found] if isinstance(found, list | tuple) and len(found) == 2 else [None, None]
    low, high = ends
    return None if low is None or high is None else (low, high)
