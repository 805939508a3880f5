"""Score the members of a report: the rows that can be scored, intervals over people, and paired differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.report.evidence.evidence import Evidence, Part, Predicted
from folds.metrics.classification import Metric
from folds.metrics.custom import metric_of
from folds.metrics.intervals import Difference, Interval, difference_over_people, interval_over_people
from folds.metrics.report import changed_line
from folds.metrics.scored_rows import ScoredRows
from folds.metrics.scored_units import rows_of_known_people, scored_units
from folds.metrics.task_names import CLASSES
from folds.utils.numeric import factorize
from folds.utils.text import counted


@dataclass(frozen=True, eq=False)
class ScoredPart:
    """The rows of a part that have a label and that all of some members predict.

    Attributes
    ----------
    rows : (n,) their index in the part; (0,) if each person's images were averaged.
    labels : (n,) class indices, or (n, columns) of several labels or numbers.
    values : (n, classes) of each member.
    persons : (n,) from 0.
    fold : (n,) as in `Part`.
    """

    rows: NDArray[np.int64]
    labels: NDArray[Any]
    values: tuple[NDArray[np.floating], ...]
    persons: NDArray[np.int64]
    fold: NDArray[np.int64] | None

    @property
    def people(self) -> int:
        """Return the number of people."""
        return int(self.persons.max()) + 1

    @cached_property
    def scored(self) -> ScoredRows:
        """Return the rows for metrics."""
        return ScoredRows(self.labels, self.persons, self.values[0].shape[1])


def scored_part(
    part: Part, members: Sequence[Predicted], per_person: bool = False, task: str = CLASSES
) -> ScoredPart | None:
    """Return the rows with a label that all of these members predict; None if there are none.

    By person, images without a label count in the mean of their person (`folds.metrics.scored_units`).
    People of whom any of them changed a training label are left out, unless fewer than two others are left.

    Parameters
    ----------
    per_person : whether each person's images are averaged, so that a row is a person.
    task : as in `average_by_person`.
    """
    unchanged, by_person = part.without_changed_labels(members) or part, per_person and part.persons_known
    kept = rows_of_known_people(unchanged.labels, part.persons) if by_person else unchanged.has_label
    for one in members:
        kept = kept & one.present
    rows = np.flatnonzero(kept)
    if not len(rows):
        return None
    labels, persons = unchanged.labels[rows], factorize(part.persons[rows])[1]
    values = tuple(np.asarray(one.probabilities[rows]) for one in members)
    fold = None if part.fold is None else part.fold[rows]
    if not by_person:
        return ScoredPart(rows, labels, values, persons, fold)
    classes = int(labels.max()) + 1 if labels.ndim == 1 else labels.shape[1]
    columns = values or (np.zeros((len(rows), classes)),)  # without members only labels are averaged
    units = scored_units(labels, columns, persons, True, task)
    if not len(units.labels):  # no member predicts an image with a label
        return None
    first = np.unique(persons, return_index=True)[1][units.persons]
    people, folds = np.arange(len(first)), None if fold is None else fold[first]
    return ScoredPart(rows[:0], units.labels, units.predictions[: len(values)], people, folds)


def changed_note(part: Part, member: Predicted) -> str:
    """Return in one line who is scored if a member has changed training labels; "" if it has changed none."""
    changed = part.with_changed_labels([member]) & part.has_label & member.present
    if not changed.any():
        return ""
    kept = part.without_changed_labels([member])
    rows = (part if kept is None else kept).has_label
    people = len(np.unique(part.persons[rows & member.present]))
    return changed_line(len(np.unique(part.persons[changed])), people, kept is not None)


def score_of(
    evidence: Evidence, part: Part | None, member: Predicted | None, metric: Metric | None = None
) -> Interval | None:
    """Return the score of a member with its interval over people, on the rows of `scored_part`; None without labels.

    Parameters
    ----------
    metric : that of the report by default.
    """
    found = None if part is None or member is None else scored_part(part, [member], evidence.per_person, evidence.task)
    if found is None:
        return None
    used = metric_of(evidence.metric) if metric is None else metric
    return interval_over_people(used, found.labels, found.values[0], found.persons, rows=found.scored)


def difference_of(
    evidence: Evidence, part: Part | None, first: Predicted | None, second: Predicted | None
) -> Difference | None:
    """Return the paired difference second − first on the rows that both predict; None without labels.

    People with a training label that either member changed are left out.
    """
    if part is None or first is None or second is None:
        return None
    kept = part.without_changed_labels((first, second))
    found = None if kept is None else scored_part(kept, [first, second], evidence.per_person, evidence.task)
    if found is None:
        return None
    values = found.values
    return difference_over_people(metric_of(evidence.metric), found.labels, values[0], values[1], found.persons)


def labeled(part: Part | None) -> Part | None:
    """Return the part if it has labels and members; None otherwise."""
    return part if part is not None and part.members and bool(part.has_label.any()) else None


def main_part(evidence: Evidence) -> Part | None:
    """Return the part with labels and members, out-of-fold if there is one; None without labels."""
    return labeled(evidence.oof) or labeled(evidence.test)


def main_predictions(evidence: Evidence) -> tuple[Part, Predicted] | None:
    """Return `main_part` with the recommended predictions, else its first ones; None without labels."""
    part = main_part(evidence)
    return None if part is None else (part, part.member(evidence.recommended or "") or part.members[0])


def main_scored(evidence: Evidence) -> tuple[Part, Predicted, ScoredPart] | None:
    """Return `main_predictions` with their rows that are scored; None if there are none."""
    main = main_predictions(evidence)
    found = None if main is None else scored_part(main[0], [main[1]], evidence.per_person, evidence.task)
    return None if main is None or found is None else (*main, found)


def direction(metric: Metric) -> str:
    """Return `` (lower is better)`` for such metrics; "" for others."""
    return "" if metric.greater_is_better else " (lower is better)"


def size_of(found: ScoredPart, part: Part, per_person: bool = False) -> str:
    """Return ``200 out-of-fold images of 40 people``, or of test people; ``40 out-of-fold people`` by person."""
    what = "out-of-fold" if part.name == "oof" else "test"
    if per_person and part.persons_known:
        return f"{counted(found.people, f'{what} person', f'{what} people')}"
    images = counted(len(found.labels), f"{what} image")
    return f"{images} of {counted(found.people, 'person', 'people')}" if part.persons_known else images


def ci_note(part: Part) -> str:
    """Return how the intervals are made, in one sentence."""
    if part.persons_known:
        return "Intervals are 95% CIs over people (jackknife)."
    return (
        "The people are not known, so that each image counts as a person: the 95% CIs are too narrow if people have "
        "several images."
    )


def finite(value: object) -> float | None:
    """Return a number that was read from a file; None if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
