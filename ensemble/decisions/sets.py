"""Build prediction sets that contain the true class of a new person's images with a stated probability; numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ensemble.decisions.rows import weights_of

LAC, APS, RAPS = "lac", "aps", "raps"
SCORES = (LAC, APS, RAPS)
ANY_IMAGE, ALL_IMAGES, EACH_CLASS = "image", "person", "class"
TARGETS = (ANY_IMAGE, ALL_IMAGES, EACH_CLASS)
# Penalty of RAPS for each class after the second most probable one. Fixed: fitted to the same people, the guarantee
# would be lost.
RAPS_PENALTY, RAPS_FREE = 0.1, 2
EVERYTHING = 1e6  # a limit that every score is below: the set holds every class


@dataclass(frozen=True)
class SetRule:
    """A rule from probabilities to a set of classes: those with a nonconformity score of at most the limit.

    Attributes
    ----------
    level : the probability with which the true class is to be in the set.
    target : what has this probability: ``image`` (a random image of a new person), ``person`` (all images of a new
        person), or ``class`` (a random image of a class of a new person, for every class).
    score : ``lac``, ``aps`` or ``raps``.
    limits : one limit, or one per class for the target ``class``; `EVERYTHING` if there are too few people.
    """

    level: float
    target: str
    score: str
    limits: tuple[float, ...]

    @property
    def is_random(self) -> bool:
        """Return whether the score has a random part, which `contains` takes."""
        return self.score != LAC

    def contains(self, probabilities: NDArray[np.float64], uniform: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return (n, classes) whether each class is in the set.

        Parameters
        ----------
        uniform : (n,) from `ensemble.decisions.rows.uniform_of`; used by ``aps`` and ``raps``.
        """
        return scores_of(probabilities, uniform, self.score) <= np.array(self.limits)


def people_for_sets(level: float) -> int:
    """Return the smallest number of people with which a set is not every class: 1/(1 − level) − 1, rounded up."""
    return int(np.ceil(1 / (1 - level) - 1 - 1e-9))


def scores_of(probabilities: NDArray[np.float64], uniform: NDArray[np.float64], score: str) -> NDArray[np.float64]:
    """Return (n, classes) the nonconformity of each class.

    Parameters
    ----------
    score : ``lac``: 1 − probability (Sadinle, Lei and Wasserman, JASA 2019), the smallest sets on average. ``aps``: the
        probability of all classes that are more probable, and a random part of its own (Romano, Sesia and Candès,
        NeurIPS 2020): larger sets, with a more even coverage of easy and difficult images. ``raps``: the same with a
        penalty for improbable classes (Angelopoulos et al., ICLR 2021).
    """
    if score == LAC:
        return 1 - probabilities
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ranked = np.take_along_axis(probabilities, order, axis=1)
    values = np.cumsum(ranked, axis=1) - uniform[:, None] * ranked
    if score == RAPS:
        values += RAPS_PENALTY * np.maximum(np.arange(1, probabilities.shape[1] + 1) - RAPS_FREE, 0)
    result = np.empty_like(values)
    np.put_along_axis(result, order, values, axis=1)
    return result


def fit_sets(
    probabilities: NDArray[np.float64],
    labels: NDArray[np.int64],
    persons: NDArray[np.int64],
    uniform: NDArray[np.float64],
    level: float,
    target: str = ANY_IMAGE,
    score: str = LAC,
) -> SetRule:
    """Return the rule whose sets contain the true class with a probability of at least `level`, for a new person.

    For ``image`` and ``class`` it is hierarchical conformal prediction (Lee, Barber and Willett, arXiv 2306.06342): the
    scores of a person share the weight of one point, and one point lies at infinity for the new person. It is CDF
    pooling (Dunn, Wasserman and Ramdas, JASA 2023, arXiv 1809.07441) with a guarantee for any number of people. For
    ``person``, the largest score of each person is that person's one score.

    Parameters
    ----------
    probabilities, labels, persons, uniform : (n, classes), (n,), (n,) and (n,); predictions by a model that has not
        seen these people.
    """
    own = np.take_along_axis(scores_of(probabilities, uniform, score), labels[:, None], axis=1)[:, 0]
    if target == EACH_CLASS:
        limits = tuple(
            hierarchical_quantile(own[labels == one], persons[labels == one], level)
            for one in range(probabilities.shape[1])
        )
    else:
        limits = (limit_of_scores(own, persons, level, target),)
    return SetRule(level, target, score, limits)


def limit_of_scores(
    scores: NDArray[np.float64], persons: NDArray[np.int64], level: float, target: str, beyond: float = EVERYTHING
) -> float:
    """Return the score that a random image of a new person does not exceed with the probability `level`.

    Parameters
    ----------
    scores, persons : (n,) the scores of the true values, and their person, every number from 0 used.
    target : ``person`` for the largest score of all images of a person.
    beyond : as in `hierarchical_quantile`.
    """
    if target == ALL_IMAGES:
        largest = np.full(int(persons.max(initial=-1)) + 1, -np.inf)
        np.maximum.at(largest, persons, scores)
        scores, persons = largest, np.arange(len(largest))
    return hierarchical_quantile(scores, persons, level, beyond)


def hierarchical_quantile(
    scores: NDArray[np.float64], persons: NDArray[np.int64], level: float, beyond: float = EVERYTHING
) -> float:
    """Return the `level` quantile of the scores of G people and one point at infinity, each of weight 1/(G + 1).

    The scores of a person share that person's weight. `beyond` if the quantile is the point at infinity, which it
    is for fewer than 1/(1 − level) − 1 people.
    """
    if not len(scores):
        return beyond
    codes = np.unique(persons, return_inverse=True)[1]
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(weights_of(codes)[order])
    at = int(np.searchsorted(reached, level * (int(codes.max()) + 2) - 1e-9))
    return float(scores[order[at]]) if at < len(scores) else beyond
