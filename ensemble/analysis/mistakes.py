"""Find out what is predicted wrong, for whom, and what the members of an ensemble said; numpy only.

All intervals are over people, because the images of one person are not independent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from folds.metrics.classification import METRICS
from folds.metrics.confusion import argmax_classes
from folds.metrics.distributions import at_least_beta_quantile, beta_cdf, t_two_sided
from folds.metrics.grouping import crosstab
from folds.metrics.intervals import (
    LEVEL,
    Difference,
    Interval,
    difference_over_people,
    interval_over_people,
    jackknife_standard_error,
    t_interval,
)
from folds.metrics.resampling import jackknife_groups
from folds.utils.numeric import factorize


@dataclass(frozen=True)
class LabeledRows:
    """Labeled rows, what is predicted for them, and what each member says.

    Attributes
    ----------
    ids, persons : (n,) text.
    labels : (n,) class index.
    probabilities : (n, classes) of the predictions that are judged.
    members : name → (n, classes) its probabilities, NaN in rows that it does not predict.
    """

    ids: NDArray[np.str_]
    persons: NDArray[np.str_]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    probabilities: NDArray[np.floating]
    members: Mapping[str, NDArray[np.floating]]

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """Return (n,) the predicted class."""
        return argmax_classes(self.probabilities)

    @cached_property
    def wrong(self) -> NDArray[np.bool_]:
        """Return (n,) whether the predicted class is not the label."""
        return self.predicted != self.labels

    @cached_property
    def confidence(self) -> NDArray[np.float64]:
        """Return (n,) the probability of the predicted class."""
        return np.asarray(self.probabilities, np.float64).max(axis=1) if len(self) else np.zeros(0)

    @cached_property
    def people(self) -> tuple[list[str], NDArray[np.int64]]:
        """Return the names of the people, and (n,) the index of the person of each row."""
        return factorize(self.persons)

    @cached_property
    def answers(self) -> dict[str, NDArray[np.int64]]:
        """Return the class that each member predicts, (n,); −1 where it predicts none."""
        found = {}
        for name, values in self.members.items():
            absent = np.isnan(values).any(axis=1)
            found[name] = np.where(absent, -1, argmax_classes(np.where(absent[:, None], 0, values)))
        return found

    @cached_property
    def agreement(self) -> NDArray[np.int64]:
        """Return (n,) the number of members that predict the class that is judged."""
        return sum((answers == self.predicted for answers in self.answers.values()), np.zeros(len(self), np.int64))

    def worst(self) -> NDArray[np.int64]:
        """Return the wrong rows, those with the most confidence in a wrong class first."""
        rows = np.flatnonzero(self.wrong)
        return rows[np.lexsort((self.ids[rows], -self.confidence[rows]))]

    def take(self, index: NDArray) -> LabeledRows:
        """Return the rows at `index`."""
        return LabeledRows(
            self.ids[index],
            self.persons[index],
            self.labels[index],
            self.classes,
            self.probabilities[index],
            {name: values[index] for name, values in self.members.items()},
        )


@dataclass(frozen=True)
class Confusion:
    """How many images of each class are predicted as each class.

    Attributes
    ----------
    counts : (classes, classes), rows are the true classes.
    share, low, high : (classes, classes) the counts divided by those of the row, with the 95% CI over people.
    people : (classes,) people of each class.
    """

    counts: NDArray[np.int64]
    share: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    people: NDArray[np.int64]

    def text(self, true: int, predicted: int) -> str:
        """Return ``0.676 [0.592, 0.749]``, the share of a cell; "" for a class without images."""
        if not self.counts[true].any():
            return ""
        low, high = float(self.low[true, predicted]), float(self.high[true, predicted])
        return Interval(float(self.share[true, predicted]), low, high).text()

    def pairs(self) -> list[tuple[int, int]]:
        """Return (true, predicted) of all confusions, the most frequent first."""
        counts = self.counts.copy()
        np.fill_diagonal(counts, 0)
        order = np.argsort(-counts, axis=None, kind="stable")[: np.count_nonzero(counts)]
        return [(int(one) // len(counts), int(one) % len(counts)) for one in order]


def confusion_of(rows: LabeledRows) -> Confusion:
    """Return the confusion matrix of judged rows."""
    size = len(rows.classes)
    counts = crosstab(rows.labels, rows.predicted, size, size)
    share, low, high = (np.zeros((size, size)) for _ in range(3))
    people = np.zeros(size, np.int64)
    for one in range(size):
        at = np.flatnonzero(rows.labels == one)
        if not len(at):
            continue
        codes, units, people[one] = jackknife_groups(rows.persons[at])
        by_unit = crosstab(codes, rows.predicted[at], units, size)
        share[one] = counts[one] / len(at)
        if units == 1:  # one person has no variation
            high[one] = 1.0
            continue
        rest = len(at) - by_unit.sum(axis=1, keepdims=True)
        error = jackknife_standard_error((counts[one] - by_unit) / rest, share[one])
        low[one], high[one] = t_interval(share[one], error, units - 1, np.full(size, units), LEVEL, 0.0, 1.0)
    return Confusion(counts, share, low, high, people)


@dataclass(frozen=True)
class PersonMistakes:
    """The mistakes about one person.

    Attributes
    ----------
    expected : wrong images if their chance were that of other people's images of the same classes.
    low, high : exact 95% interval (Clopper and Pearson, 1934) of the share of wrong images, over images.
    p_value : probability of this number of wrong images or more, if they were independent with the chance of others'.
    clustered : whether they are more than chance explains, corrected for the number of people (Bonferroni).
    """

    person: str
    images: int
    wrong: int
    expected: float
    low: float
    high: float
    p_value: float
    clustered: bool


@dataclass(frozen=True)
class PeopleMistakes:
    """The mistakes by person.

    Attributes
    ----------
    worst : people with a wrong image, those with the most wrong images first.
    always : people with two images or more of whom every image is wrong.
    always_by_chance : the number that would be expected if mistakes were independent.
    """

    worst: tuple[PersonMistakes, ...]
    always: int
    always_by_chance: float
    people: int


def people_mistakes(rows: LabeledRows, most: int | None = None) -> PeopleMistakes:
    """Return the people with wrong images, at most `most`.

    The chance of a wrong image is the share of wrong ones among other people's images of its class, with one wrong
    image added (Davison and Hinkley, 1997), so that no chance and no p-value is 0. The p-value is that
    of a binomial distribution with the mean chance of a person's images, which is no smaller than that of independent
    images with different chances, beyond the mean (Hoeffding, 1956).
    """
    names, codes = rows.people
    images = np.bincount(codes, minlength=len(names))
    wrong = np.bincount(codes, rows.wrong, len(names)).astype(np.int64)
    chance = _chance_of_others(rows, codes)
    mean = np.bincount(codes, chance, len(names)) / images
    several = images > 1
    order = np.lexsort((np.array(names), mean, -wrong / images, -wrong))  # of equal counts the smallest p-value first
    found = []
    for one in order[: most if most is not None else len(order)].tolist():
        if not wrong[one]:
            break
        n, w = int(images[one]), int(wrong[one])
        p = beta_cdf(float(mean[one]), w, n - w + 1)
        low, high = exact_interval(w, n)
        clustered = w > 1 and p * len(names) <= 1 - LEVEL
        found.append(PersonMistakes(names[one], n, w, float(mean[one] * n), low, high, p, clustered))
    return PeopleMistakes(
        tuple(found),
        int(np.sum(several & (wrong == images))),
        float(np.sum(mean[several] ** images[several])),
        len(names),
    )


def _chance_of_others(rows: LabeledRows, codes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (n,) the share of wrong images among other people's of the class; among all others if there are none.

    One wrong image is added to each share.
    """
    cell = codes * len(rows.classes) + rows.labels
    _, cell = np.unique(cell, return_inverse=True)
    own, own_wrong = np.bincount(cell)[cell], np.bincount(cell, rows.wrong)[cell]
    of_class = np.bincount(rows.labels, minlength=len(rows.classes))[rows.labels]
    wrong_of_class = np.bincount(rows.labels, rows.wrong, len(rows.classes))[rows.labels]
    rest, rest_wrong = of_class - own, wrong_of_class - own_wrong
    mine, mine_wrong = np.bincount(codes)[codes], np.bincount(codes, rows.wrong)[codes]
    others, others_wrong = len(rows) - mine, rows.wrong.sum() - mine_wrong
    anyone = np.where(others > 0, (others_wrong + 1) / (others + 1), rows.wrong.mean())
    return np.where(rest > 0, (rest_wrong + 1) / (rest + 1), anyone)


def exact_interval(successes: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Return the ends of the interval of Clopper and Pearson (1934) of a share."""
    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else at_least_beta_quantile(0.0, tail, successes, n - successes + 1)
    high = 1.0 if successes == n else 1 - at_least_beta_quantile(0.0, tail, n - successes, successes + 1)
    return low, high


@dataclass(frozen=True)
class GroupAccuracy:
    """The accuracy of a group of images, such as the dark ones.

    Attributes
    ----------
    against_others : difference of the accuracies, others → group, with its 95% CI; None if there are no others.
    """

    name: str
    images: int
    people: int
    accuracy: Interval
    against_others: Difference | None


def group_accuracies(rows: LabeledRows, groups: NDArray[np.int64], names: Sequence[str]) -> tuple[GroupAccuracy, ...]:
    """Return the accuracy of each group of images, and of each against all other images.

    Parameters
    ----------
    groups : (n,) index of the group of each image; −1 if unknown, then it is left out.
    """
    known = np.flatnonzero(groups >= 0)
    right, group = ~rows.wrong[known], groups[known]
    codes, units, _ = jackknife_groups(rows.persons[known])
    size = len(names)
    images = crosstab(codes, group, units, size)
    hits = crosstab(codes[right], group[right], units, size)
    metric = METRICS["accuracy"]
    found = []
    for one, name in enumerate(names):
        at = known[group == one]
        if not len(at):
            continue
        accuracy = interval_over_people(
            metric, rows.labels[at], rows.probabilities[at], rows.persons[at], predicted=rows.predicted[at]
        )
        difference = _against_others(images, hits, one)
        found.append(GroupAccuracy(name, len(at), accuracy.people, accuracy, difference))
    return tuple(found)


def _against_others(images: NDArray[np.int64], hits: NDArray[np.int64], one: int) -> Difference | None:
    """Return the difference of the accuracies of the other groups and of one, from (units, groups) images and hits."""
    units = len(images)
    n = np.stack([images.sum(axis=1) - images[:, one], images[:, one]])
    k = np.stack([hits.sum(axis=1) - hits[:, one], hits[:, one]])
    total, right = n.sum(axis=1), k.sum(axis=1)
    if not total.all():
        return None
    others, own = (right / total).tolist()
    rest = total[:, None] - n
    each = np.divide(right[:, None] - k, rest, out=np.full(n.shape, np.nan), where=rest > 0)
    if units == 1:
        return Difference(others, own, Interval(own - others, np.nan, np.nan, people=1), 1.0)
    people = (n > 0).sum(axis=1)
    unseen = _unseen_variance(right / total, people)
    both = float(jackknife_standard_error(each[1] - each[0], own - others)) ** 2 + float(unseen.sum())
    errors = [float(jackknife_standard_error(one, share)) for one, share in zip(each, (others, own), strict=True)]
    parts = np.square(errors) + unseen
    # The few people of a small group say little about their own spread (Welch, 1947).
    welch = float(parts.sum() ** 2 / (parts**2 / np.maximum(people - 1, 1)).sum()) if parts.any() else units - 1
    error, dof = both**0.5, int(np.clip(welch, 1, units - 1))
    low, high = (float(end) for end in t_interval(own - others, np.asarray(error), dof, units))
    p = 1.0 if own == others else 1 - t_two_sided(abs(own - others) / error, dof) if error > 0 else 2.0 ** (1 - units)
    return Difference(others, own, Interval(own - others, low, high, LEVEL, units, "", error), p)


def _unseen_variance(shares: NDArray[np.float64], people: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (groups,) the variance of shares of 0 and 1, whose people do not differ: that with a right and a wrong
    person more (Agresti and Caffo, 2000); 0 for other shares.
    """
    more = (shares * people + 1) / (people + 2)
    return np.where((shares == 0) | (shares == 1), more * (1 - more) / (people + 2), 0.0)


def quantile_groups(values: NDArray[np.floating], bins: int = 4) -> tuple[NDArray[np.int64], list[tuple[float, float]]]:
    """Return (n,) the quantile bin of each value, −1 for NaN, and the smallest and largest value of each bin.

    Equal values are in one bin, so there may be fewer; [] if all values are equal or unknown.
    """
    values = np.asarray(values, np.float64)
    known = np.isfinite(values)
    groups = np.full(len(values), -1, np.int64)
    if not known.any() or np.ptp(values[known]) == 0:
        return groups, []
    edges = np.unique(np.quantile(values[known], np.linspace(0, 1, bins + 1)[1:-1], method="lower"))
    raw = np.searchsorted(edges, values[known], side="left")
    used, groups[known] = np.unique(raw, return_inverse=True)
    ends = [(float(part.min()), float(part.max())) for i in range(len(used)) if len(part := values[groups == i])]
    return groups, ends


@dataclass(frozen=True)
class MemberMistakes:
    """Where one member is right and others are wrong, on the rows that all members predict.

    Attributes
    ----------
    alone_right : images that only this member predicts right.
    alone_wrong : images that only this member predicts wrong.
    rescues : images that it predicts right and the judged predictions wrong.
    rescued_share : the same as a share of all mistakes of the judged predictions; None without a mistake.
    """

    name: str
    accuracy: Interval
    alone_right: int
    alone_wrong: int
    rescues: int
    rescued_share: Interval | None


def member_mistakes(rows: LabeledRows) -> tuple[tuple[MemberMistakes, ...], int]:
    """Return where each member is right and others are wrong, and the number of images that all members predict."""
    if not rows.members:
        return (), 0
    answers = np.stack(list(rows.answers.values()))
    at = np.flatnonzero((answers >= 0).all(axis=0))
    if not len(at):
        return (), 0
    right = answers[:, at] == rows.labels[at]
    count, wrong = right.sum(axis=0), rows.wrong[at]
    found = []
    for i, (name, values) in enumerate(rows.members.items()):
        accuracy = interval_over_people(
            METRICS["accuracy"], rows.labels[at], values[at], rows.persons[at], predicted=answers[i, at]
        )
        share = None
        if wrong.any():
            share = share_over_people(right[i][wrong], rows.persons[at][wrong])
        found.append(
            MemberMistakes(
                name,
                accuracy,
                int(np.sum(right[i] & (count == 1))) if len(answers) > 1 else 0,
                int(np.sum(~right[i] & (count == len(answers) - 1))) if len(answers) > 1 else 0,
                int(np.sum(right[i] & wrong)),
                share,
            )
        )
    return tuple(found), len(at)


def share_over_people(true: NDArray[np.bool_], persons: NDArray) -> Interval:
    """Return the share of rows that are true, with its interval over people."""
    ones = np.ones(len(true), np.int64)
    values = np.stack([~true, true], axis=1).astype(np.float64)
    return interval_over_people(METRICS["accuracy"], ones, values, persons)


@dataclass(frozen=True)
class AgreementScore:
    """The accuracy of the images of which `agreeing` members agree with the judged predictions."""

    agreeing: int
    images: int
    people: int
    accuracy: Interval


@dataclass(frozen=True)
class Agreement:
    """How much the agreement of members says about mistakes.

    Attributes
    ----------
    levels : by the number of agreeing members, the largest first.
    disagreement, doubt : ROC-AUC of mistakes by the share of members that disagree, and by 1 − confidence.
    difference : disagreement → doubt, paired.
    """

    members: int
    levels: tuple[AgreementScore, ...]
    disagreement: Interval | None
    doubt: Interval | None
    difference: Difference | None


def agreement_of(rows: LabeledRows) -> Agreement | None:
    """Return how much the agreement of members says about mistakes; None with fewer than two members in common."""
    if len(rows.members) < 2:
        return None
    complete = np.flatnonzero((np.stack(list(rows.answers.values())) >= 0).all(axis=0))
    if not len(complete):
        return None
    rows = rows.take(complete)
    count = len(rows.members)
    levels = []
    for agreeing in range(count, -1, -1):
        at = np.flatnonzero(rows.agreement == agreeing)
        if len(at):
            accuracy = share_over_people(~rows.wrong[at], rows.persons[at])
            levels.append(AgreementScore(agreeing, len(at), accuracy.people, accuracy))
    disagreement = doubt = difference = None
    if 0 < rows.wrong.sum() < len(rows):
        metric, labels = METRICS["roc_auc"], rows.wrong.astype(np.int64)
        scores = [1 - rows.agreement / count, 1 - rows.confidence]
        pairs = [np.stack([1 - one, one], axis=1) for one in scores]
        disagreement, doubt = (interval_over_people(metric, labels, pair, rows.persons) for pair in pairs)
        difference = difference_over_people(metric, labels, pairs[0], pairs[1], rows.persons)
    return Agreement(count, tuple(levels), disagreement, doubt, difference)


def mistake_columns(rows: LabeledRows) -> dict[str, list[str]]:
    """Return the columns of a CSV with all wrong rows, the worst first, and what each member said about them.

    For each member: the class that it predicts, its probability, and that of the label; empty where it predicts none.
    """
    at = rows.worst()
    labels, predicted = rows.labels[at], rows.predicted[at]
    columns = {
        "rank": list(map(str, range(1, len(at) + 1))),
        "id": rows.ids[at].tolist(),
        "person": rows.persons[at].tolist(),
        "label": [rows.classes[one] for one in labels.tolist()],
        "predicted": [rows.classes[one] for one in predicted.tolist()],
        "confidence": _numbers(rows.confidence[at]),
        "label_probability": _numbers(rows.probabilities[at, labels]),
    }
    if len(rows.members) > 1:
        columns["agreement"] = [f"{one} of {len(rows.members)}" for one in rows.agreement[at].tolist()]
    for name, values in rows.members.items() if len(rows.members) > 1 else ():
        answers = rows.answers[name][at]
        columns[f"{name}: predicted"] = ["" if one < 0 else rows.classes[one] for one in answers.tolist()]
        columns[f"{name}: confidence"] = _numbers(np.where(answers < 0, np.nan, values[at, np.maximum(answers, 0)]))
        columns[f"{name}: label_probability"] = _numbers(values[at, labels])
    return columns


def _numbers(values: NDArray[np.floating]) -> list[str]:
    return ["" if np.isnan(one) else f"{one:.4f}" for one in np.asarray(values, np.float64).tolist()]
