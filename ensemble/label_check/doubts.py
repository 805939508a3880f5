"""Find labels in doubt: cleanlab is fed the out-of-fold votes, person by person where the labels are of people.

Confident learning (Northcutt et al., 2021) compares each label with the votes of models that have not learned it. Two
things are special about images of people. The votes are out of fold by person, or a model would know the person and
repeat the label. And where all images of every person have the same label in the table, the label is one decision about
the person: then each person is one row, with the mean vote of the images, so that a person with fifty images does not
count fifty times in the thresholds. Attributes that each person has once (gender, while the mask changes) are checked
in the same way, by person.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ensemble.analysis.mistakes import LabeledRows
from folds.errors import EnsembleError
from folds.metrics.confusion import argmax_classes
from folds.metrics.grouping import people_with_class
from folds.utils.parallel import one_blas_thread

# Of cleanlab: a label is in doubt by either. The first misses a few wrong labels among few people, where the estimated
# number of wrong labels of a class rounds to 0; the second misses some where a class is hard. In simulated votes with a
# tenth of the labels wrong, both together find more than either. The order of the list, by the vote for the label, is
# that of neither.
CRITERIA = ("prune_by_noise_rate", "confident_learning")
Unit = Literal["person", "image"]


@dataclass(frozen=True)
class PersonDoubt:
    """A person with labels in doubt.

    Attributes
    ----------
    doubtful : number of images whose label is in doubt.
    labels, suggested : the labels of these images, and those that the votes suggest, without repetition.
    vote : mean probability of the label of these images.
    """

    person: str
    doubtful: int
    images: int
    labels: tuple[str, ...]
    suggested: tuple[str, ...]
    vote: float


@dataclass(frozen=True)
class AttributeDoubt:
    """A person whose value of an attribute is in doubt, which all images of the person share.

    Attributes
    ----------
    vote, suggested_vote : mean probabilities of the given and of the suggested value.
    """

    attribute: str
    person: str
    images: int
    given: str
    suggested: str
    vote: float
    suggested_vote: float


@dataclass(frozen=True)
class LabelDoubts:
    """Which labels of judged rows are in doubt.

    Attributes
    ----------
    unit : whether a label is of a person, because all images of every person share it, or of an image.
    votes : (n, classes) the vote about each row: of its person if the labels are of people.
    doubtful : (n,) whether the label is in doubt.
    suggested : (n,) the class that the votes suggest.
    attributes : people whose value of an attribute is in doubt, those with the smallest vote first.
    """

    rows: LabeledRows
    unit: Unit
    votes: NDArray[np.float64]
    doubtful: NDArray[np.bool_]
    suggested: NDArray[np.int64]
    attributes: tuple[AttributeDoubt, ...] = ()

    @cached_property
    def unjudged(self) -> tuple[str, ...]:
        """Return the classes of a single person, whose labels cannot be judged."""
        people = people_with_class(self.rows.labels, self.rows.people[1], len(self.rows.classes))
        return tuple(name for name, count in zip(self.rows.classes, people, strict=True) if count == 1)

    @cached_property
    def vote(self) -> NDArray[np.float64]:
        """Return (n,) the probability of the given label; small values are doubts."""
        return self.votes[np.arange(len(self.rows)), self.rows.labels]

    @cached_property
    def confidence(self) -> NDArray[np.float64]:
        """Return (n,) the probability of the suggested class."""
        return self.votes[np.arange(len(self.rows)), self.suggested]

    @cached_property
    def agreement(self) -> NDArray[np.int64]:
        """Return (n,) the number of members that predict the suggested class."""
        answers = self.rows.answers.values()
        return sum((one == self.suggested for one in answers), np.zeros(len(self.rows), np.int64))

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """Return the rows in doubt, those with the smallest vote for their label first."""
        at = np.flatnonzero(self.doubtful)
        own = np.asarray(self.rows.probabilities, np.float64)[at, self.rows.labels[at]]
        return at[np.lexsort((self.rows.ids[at], own, self.rows.persons[at], self.vote[at]))]

    @cached_property
    def people(self) -> tuple[PersonDoubt, ...]:
        """Return the people with a label in doubt, those with the smallest vote first."""
        names, codes = self.rows.people
        images = np.bincount(codes, minlength=len(names))
        classes, found = self.rows.classes, []
        order = self.order
        for code in dict.fromkeys(codes[order].tolist()):
            at = order[codes[order] == code]
            found.append(
                PersonDoubt(
                    names[code],
                    len(at),
                    int(images[code]),
                    tuple(dict.fromkeys(classes[one] for one in self.rows.labels[at].tolist())),
                    tuple(dict.fromkeys(classes[one] for one in self.suggested[at].tolist())),
                    float(self.vote[at].mean()),
                )
            )
        return tuple(sorted(found, key=lambda one: (one.vote, one.person)))


def find_doubts(rows: LabeledRows, class_attributes: Mapping[str, Mapping[str, str]] | None = None) -> LabelDoubts:
    """Return the labels in doubt.

    Parameters
    ----------
    rows : out-of-fold votes, by models that have seen no image of the person.
    class_attributes : class → attribute → value.

    Raises
    ------
    EnsembleError : cleanlab is not installed, or fewer than two classes occur.
    """
    if len(np.unique(rows.labels)) < 2:
        raise EnsembleError(
            "labels are checked against those of other classes, and only one class occurs",
            hint="the predictions of a table with two classes or more",
        )
    codes = rows.people[1]
    votes = np.asarray(rows.probabilities, np.float64)
    votes = votes / votes.sum(axis=1, keepdims=True)
    of_people = len(rows.people[0]) < len(rows) and _is_shared(codes, rows.labels)
    if of_people:
        means, first = _means(votes, codes)
        votes = means[codes]
        doubtful = _issues(rows.labels[first], means, np.arange(len(means)))[codes]
    else:
        doubtful = _issues(rows.labels, votes, codes)
    suggested = argmax_classes(votes)
    doubtful &= suggested != rows.labels
    found = LabelDoubts(rows, "person" if of_people else "image", votes, doubtful, suggested)
    return found if of_people else _with_attributes(found, class_attributes or {})


def _with_attributes(found: LabelDoubts, class_attributes: Mapping[str, Mapping[str, str]]) -> LabelDoubts:
    """Return the doubts with those about attributes that each person has once: they put all images of the person in
    doubt.
    """
    rows, codes = found.rows, found.rows.people[1]
    doubtful, suggested, doubts = found.doubtful.copy(), found.suggested.copy(), []
    first = class_attributes.get(rows.classes[0], {})
    for name in first if len(rows.people[0]) < len(rows) else ():
        if not all(name in class_attributes.get(one, {}) for one in rows.classes):
            continue
        values = list(dict.fromkeys(class_attributes[one][name] for one in rows.classes))
        value_of = np.array([values.index(class_attributes[one][name]) for one in rows.classes])
        labels = value_of[rows.labels]
        if len(np.unique(labels)) < 2 or not _is_shared(codes, labels):
            continue
        means, at = _means(found.votes @ np.eye(len(values))[value_of], codes)
        best = argmax_classes(means)
        people = np.flatnonzero(_issues(labels[at], means, np.arange(len(means))) & (best != labels[at]))
        for person in people.tolist():
            mine = np.flatnonzero(codes == person)
            doubts.append(
                AttributeDoubt(
                    name,
                    rows.people[0][person],
                    len(mine),
                    values[labels[at[person]]],
                    values[best[person]],
                    float(means[person, labels[at[person]]]),
                    float(means[person, best[person]]),
                )
            )
            new = mine[~doubtful[mine] | (value_of[suggested[mine]] != best[person])]
            suggested[new] = np.where(value_of == best[person], found.votes[new], -1.0).argmax(axis=1)
            doubtful[mine] = True
    doubts.sort(key=lambda one: (one.vote, one.attribute, one.person))
    return LabelDoubts(rows, found.unit, found.votes, doubtful, suggested, tuple(doubts))


def _is_shared(codes: NDArray[np.int64], labels: NDArray[np.int64]) -> bool:
    """Return whether all images of every person have one label."""
    first = np.unique(codes, return_index=True)[1]
    return bool((labels == labels[first][codes]).all())


def _means(votes: NDArray[np.float64], codes: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return (people, classes) the mean vote about each person, and the first row of each person."""
    _, first, count = np.unique(codes, return_index=True, return_counts=True)
    sums = np.zeros((len(first), votes.shape[1]))
    np.add.at(sums, codes, votes)
    return sums / count[:, None], first


def _issues(labels: NDArray[np.int64], votes: NDArray[np.float64], codes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return (n,) whether cleanlab finds an issue with each label.

    Labels of which only one person has one are not judged: no model that votes about the person has learned them.

    Parameters
    ----------
    codes : (n,) index of the person.
    """
    try:
        from cleanlab.filter import find_label_issues
    except ImportError:
        raise EnsembleError(
            "the check of labels needs cleanlab, which is not installed", hint="pip install 'ensemble-folds[clean]'"
        ) from None
    judged = people_with_class(labels, codes, votes.shape[1])[labels] > 1
    if len(np.unique(labels[judged])) < 2:
        return np.zeros(len(labels), bool)
    present, given = np.unique(labels[judged], return_inverse=True)
    own = votes[judged][:, present]
    total = own.sum(axis=1, keepdims=True)
    own = np.divide(own, total, out=np.full(own.shape, 1 / own.shape[1]), where=total > 0)
    issues, found = np.zeros(len(labels), bool), np.zeros(len(given), bool)
    with one_blas_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes with few images
        for criterion in CRITERIA:
            found |= np.asarray(find_label_issues(given, own, filter_by=criterion, n_jobs=1), bool)
    issues[judged] = found
    return issues


def columns_of(found: LabelDoubts, rows: Sequence[int] | None = None) -> dict[str, list[str]]:
    """Return the columns of ``labels.csv``, by default of the rows in doubt, with empty new_label and decision.

    ``vote_<class>`` are the votes that `soften` mixes with the label.
    """
    judged = found.rows
    at = found.order if rows is None else np.asarray(rows, np.int64)
    labels, suggested = judged.labels[at].tolist(), found.suggested[at].tolist()
    columns = {
        "id": judged.ids[at].tolist(),
        "person": judged.persons[at].tolist(),
        "label": [judged.classes[one] for one in labels],
        "suggested": [judged.classes[one] for one in suggested],
        "confidence": [f"{one:.4f}" for one in found.confidence[at].tolist()],
        "new_label": [""] * len(at),
        "decision": [""] * len(at),
        "vote": [f"{one:.4f}" for one in found.vote[at].tolist()],
        "agreement": [f"{one} of {len(judged.members)}" for one in found.agreement[at].tolist()],
    }
    votes = found.votes[at]
    return columns | {f"vote_{name}": [f"{one:.6f}" for one in votes[:, i]] for i, name in enumerate(judged.classes)}
