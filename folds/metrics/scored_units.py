"""Decide what a score is of, for every command: images with a known label, or people with the mean of all their images.

An image without a known label has no truth to be compared with, so by image it does not count. By person it does: the
answer for a person is the mean over all images of the person, since of a new person no label is known that could choose
among the images, and a score is to say how good that answer is. It also counts if only one of several labels is known,
and `pool=mean` takes it. So a person is scored by the mean of all its images, in the cells that any image knows; a
person of whom nothing is known is not scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from folds.metrics.grouping import average_by_person


@dataclass(frozen=True)
class ScoredUnits:
    """The images or people of a score, each with a known label.

    Attributes
    ----------
    labels : (n,) class indices, or (n, columns) with nan where one is not known.
    predictions : (n, classes) of each model.
    persons : (n,) the person of each row, as given.
    several : people whose images have several labels, or different values in a column; 0 by image.
    """

    labels: NDArray
    predictions: tuple[NDArray[np.floating], ...]
    persons: NDArray
    several: int = 0


def known_rows(labels: NDArray) -> NDArray[np.bool_]:
    """Return (n,) whether the label of each row is known; of several labels or numbers, any of them.

    Parameters
    ----------
    labels : (n,) class indices, −1 where unknown; or (n, columns) float, nan where unknown.
    """
    return labels >= 0 if labels.ndim == 1 else ~np.isnan(labels).all(axis=1)


def rows_of_known_people(labels: NDArray, persons: NDArray) -> NDArray[np.bool_]:
    """Return (n,) whether any image of the person of each row has a known label.

    Parameters
    ----------
    labels : as in `known_rows`.
    persons : (n,) the person of each row.
    """
    known = known_rows(labels)
    return known if known.all() else np.isin(persons, np.unique(persons[known]))


def unlabeled_of_known_people(labels: NDArray, persons: NDArray) -> int:
    """Return the number of rows without a known label whose person has another row with one.

    Parameters
    ----------
    labels, persons : as in `rows_of_known_people`.
    """
    return int((rows_of_known_people(labels, persons) & ~known_rows(labels)).sum())


def unlabeled_text(unlabeled: int, inside: int) -> str:
    """Return what becomes of rows without a known label, of which `inside` are of people who are scored."""
    if not inside:
        return "are not scored"
    others = "; the others are not scored" if inside < unlabeled else ""
    counts = f"{inside:,} of them count" if others else "count"
    return f"{counts} in the prediction of their person{others}"


def scored_units(
    labels: NDArray, predictions: Sequence[NDArray[np.floating]], persons: NDArray, by_person: bool, task: str
) -> ScoredUnits:
    """Return what is scored: the images with a known label, or with `by_person` the people of whom any label is known.

    Parameters
    ----------
    labels : (n,) class indices, −1 where unknown; or (n, columns) float, nan where unknown.
    predictions : (n, classes) of each model, for all images; one or more with `by_person`.
    persons : (n,) the person of each image.
    task : as in `average_by_person`.
    """
    several = 0
    if by_person:
        averaged = [average_by_person(labels, one, persons, one.shape[1], task) for one in predictions]
        labels, _, persons, several = averaged[0]
        predictions = [one[1] for one in averaged]
    known = known_rows(labels)
    if not known.all():
        labels, persons, predictions = labels[known], persons[known], [one[known] for one in predictions]
    return ScoredUnits(labels, tuple(predictions), persons, several)
