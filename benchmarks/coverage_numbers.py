"""Measure prediction intervals of numbers on new people of synthetic worlds, against rules that ignore people.

    python benchmarks/coverage_numbers.py                         300 draws, 30 to 250 people
    python benchmarks/coverage_numbers.py --draws 1000 --level .8
    python benchmarks/coverage_numbers.py --models 5              rules fitted to five fold models, applied to their mean

A draw is a set of people with predicted and true numbers (an age of 50 ± 15), to which the intervals are fitted, and
the same 4,000 new people, on which they are measured. The errors of a person's images share 70% of their variance, and
their size differs between people (a factor of e from one standard deviation to the next): who is hard has fewer images,
1 to 12. The members of a blend differ more where the error is large, as known from images. Nothing is trained: the
predictions are those of one fixed model; with --models those of several, each with further errors of its own, of which
each person gets one in calibration, and new people get the mean.

`nested` is the coverage that the report states, from the people of the draw alone, and `holds` the share of draws whose
95% CI of it holds the coverage of new people. `below` is the share of draws whose intervals cover new people by 0.05
less than stated; coverage is guaranteed on average over draws.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ensemble.decisions.column_rows import LabeledColumns, NumberRows
from ensemble.decisions.number_decision import ABSOLUTE, SPREAD
from ensemble.decisions.number_intervals import IntervalRequest, fit_intervals, fit_width
from ensemble.decisions.record import DecisionSource
from ensemble.decisions.rows import sums_by_person, weights_of
from ensemble.decisions.sets import ALL_IMAGES, ANY_IMAGE, hierarchical_quantile

NEW_PEOPLE = 4000
ERROR, SHARED = 5.0, 0.7


def world(random: np.random.Generator, people: int, models: int = 0, is_new: bool = False) -> NumberRows:
    """Return predictions for people, each with one number.

    Parameters
    ----------
    models : number of fold models; 0 for one fixed model without errors of its own.
    is_new : whether people are predicted by the mean of the models, instead of one of them.
    """
    hard = random.normal(size=people)
    images = np.clip(np.round(6 - 3 * hard + random.normal(0, 2, people)), 1, 12).astype(int)
    persons = np.repeat(np.arange(people), images)
    truth = random.normal(50, 15, people)[persons]
    size = ERROR * np.exp(0.5 * hard)[persons]
    noise = random.normal(size=(2, len(persons)))
    own = random.normal(size=people)[persons]
    error = size * (SHARED**0.5 * own + (1 - SHARED) ** 0.5 * noise[0])
    used = models if is_new and models else 1
    if models:
        error = error + ERROR / 2 * random.normal(size=(used, len(persons))).mean(axis=0)
    spread = 0.4 * size * np.exp(0.3 * noise[1])
    parts = (random.permutation(people) % 5)[persons]
    return NumberRows(truth + error, truth, persons, parts, spread)


Half = Callable[[NumberRows], NDArray[np.float64]]


def by_image(rows: NumberRows, level: float) -> Half:
    """Return the split conformal interval that takes images as independent."""
    own = np.sort(np.abs(rows.values - rows.truth))
    rank = int(np.ceil(level * (len(own) + 1)))
    limit = float(own[rank - 1]) if rank <= len(own) else math.inf
    return lambda new: np.full(len(new), limit)


def one_image(rows: NumberRows, level: float) -> Half:
    """Return the split conformal interval of the first image of each person."""
    first = np.unique(rows.persons, return_index=True)[1]
    own = np.abs(rows.values - rows.truth)[first]
    limit = hierarchical_quantile(own, np.arange(len(first)), level, math.inf)
    return lambda new: np.full(len(new), limit)


def of_program(target: str, score: str) -> Callable[[NumberRows, float], Half]:
    """Return the fit of the rule of the program."""

    def fit(rows: NumberRows, level: float) -> Half:
        width = fit_width(_scored(rows, score), IntervalRequest(level, target, score))
        return lambda new: width.half(_scored(new, score))

    return fit


def _scored(rows: NumberRows, score: str) -> NumberRows:
    if score == SPREAD:
        return rows
    return NumberRows(rows.values, rows.truth, rows.persons, rows.parts)


RULES = {
    "images as independent": (by_image, "", ""),
    "one image a person": (one_image, "", ""),
    "sets-for image": (of_program(ANY_IMAGE, ABSOLUTE), ANY_IMAGE, ABSOLUTE),
    "sets-for person": (of_program(ALL_IMAGES, ABSOLUTE), ALL_IMAGES, ABSOLUTE),
    "image, spread": (of_program(ANY_IMAGE, SPREAD), ANY_IMAGE, SPREAD),
    "person, spread": (of_program(ALL_IMAGES, SPREAD), ALL_IMAGES, SPREAD),
}


def nested(rows: NumberRows, level: float, target: str, score: str) -> tuple[float, float, float]:
    """Return the nested coverage of the stated target, and the ends of its 95% CI."""
    columns = LabeledColumns(
        rows.values[:, None],
        rows.truth[:, None],
        rows.persons,
        rows.parts,
        np.arange(len(rows)).astype(str),
        ("age",),
        None if rows.spread is None else rows.spread[:, None],
    )
    found = fit_intervals(columns, DecisionSource(), IntervalRequest(level, target, score)).scores
    name = "coverage of age" if target == ANY_IMAGE else "coverage of all images, age"
    interval = found[name].interval
    return interval.value, interval.low, interval.high


def measure(people: int, draws: int, models: int, level: float) -> None:
    """Print what the intervals of each rule are worth."""
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in RULES}
    test = world(np.random.default_rng(10**6), NEW_PEOPLE, models, is_new=True)
    weights, error = weights_of(test.persons) / NEW_PEOPLE, np.abs(test.values - test.truth)
    for draw in range(draws):
        rows = world(np.random.default_rng(draw), people, models)
        for name, (rule, target, score) in RULES.items():
            half = rule(rows, level)(test)
            inside = error <= half
            image = float(weights @ inside)
            every = float((sums_by_person(~inside, test.persons, NEW_PEOPLE) == 0).mean())
            stated = (math.nan, math.nan)
            if target:
                value, low, high = nested(rows, level, target, score)
                stated = (value, float(low <= (image if target == ANY_IMAGE else every) <= high))
            found[name].append((image, every, float(weights @ (2 * half)), *stated))
    for name, values in found.items():
        image, every, width, value, holds = np.array(values).T
        aimed = every if "person" in name and "image" not in name else image
        texts = ["", ""] if np.isnan(value).any() else [f"{value.mean():.3f}", f"{holds.mean():.1%}"]
        print(
            f"{people:>6}  {name:<22} {image.mean():>7.3f} {every.mean():>11.3f} {width.mean():>6.1f} "
            f"{np.mean(aimed < level - 0.05):>8.1%} {texts[0]:>7} {texts[1]:>7}"
        )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--people", type=int, nargs="+", default=[30, 60, 120, 250])
    parser.add_argument("--level", type=float, default=0.9)
    parser.add_argument("--models", type=int, default=0)
    given = parser.parse_args()
    began = time.perf_counter()
    print(f"intervals of {given.level:g}, {given.draws} draws, {NEW_PEOPLE:,} new people")
    print(
        f"{'people':>6}  {'rule':<22} {'image':>7} {'all images':>11} {'width':>6} {'below':>8} {'nested':>7} {'holds':>7}"
    )
    for people in given.people:
        measure(people, given.draws, given.models, given.level)
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
