"""List the people whose labels are in doubt, once and in one order, for the verdict and for the section Labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ensemble.label_check.doubts import AttributeDoubt, LabelDoubts, find_doubts
from ensemble.report.evidence.evidence import Evidence
from ensemble.report.evidence.mistakes_data import change_text, labeled_rows, values_of
from ensemble.report.evidence.scoring import labeled

SURE = 0.9  # confidence from which a doubt counts as strong
MAX_CHANGES = 3  # of a person that are written out


def doubts_of(evidence: Evidence) -> LabelDoubts | None:
    """Return the labels that the out-of-fold votes contradict; None without labeled out-of-fold predictions.

    Raises
    ------
    EnsembleError : cleanlab is not installed, or fewer than two classes occur.
    """
    part = labeled(evidence.oof)
    if part is None:
        return None
    found: LabelDoubts | None = evidence.memory.get("doubts")  # two sections of a page ask for them
    if found is None:
        rows = labeled_rows(evidence, part, evidence.main or part.members[0])
        found = evidence.memory["doubts"] = find_doubts(rows, evidence.class_attributes)
    return found


@dataclass(frozen=True)
class DoubtfulPerson:
    """A person with labels in doubt.

    Attributes
    ----------
    changes : what the votes suggest: ``gender: female → male``, or ``cat → dog``, the clearest first.
    doubtful, images : number of images in doubt, and of all images of the person.
    whole : whether a label or value that all images share is contradicted.
    vote : mean probability of the given labels that are in doubt.
    suggested_vote : mean probability of what is suggested: of the value if an attribute of all images is contradicted.
    agreeing : number of members that suggest the same in at least half of the images in doubt.
    rows : the images in doubt, those with the smallest vote for their label first.
    """

    person: str
    changes: tuple[str, ...]
    doubtful: int
    images: int
    whole: bool
    vote: float
    suggested_vote: float
    agreeing: int
    rows: tuple[int, ...]

    @property
    def change(self) -> str:
        """Return the changes in one line."""
        more = len(self.changes) - MAX_CHANGES
        return "; ".join(self.changes[:MAX_CHANGES]) + (f" and {more} more" if more > 0 else "")


def doubtful_people(
    found: LabelDoubts, class_attributes: Mapping[str, Mapping[str, str]] | None = None
) -> list[DoubtfulPerson]:
    """Return each person with a label in doubt once.

    First come the people of whom a label or value that all their images share is contradicted, then those with doubts
    about single images; in both, those with the smallest vote for their labels come first.

    Parameters
    ----------
    class_attributes : class → attribute → value.
    """
    rows, meaning = found.rows, class_attributes or {}
    names, codes = rows.people
    images, order = np.bincount(codes, minlength=len(names)), found.order
    by_person: dict[str, list[AttributeDoubt]] = {}
    for one in found.attributes:
        by_person.setdefault(one.person, []).append(one)
    listed = []
    for code in dict.fromkeys(codes[order].tolist()):
        at = order[codes[order] == code]
        shared = sorted(by_person.get(names[code], []), key=lambda one: (one.vote, one.attribute))
        if shared:
            changes = [f"{one.attribute}: {one.given} → {one.suggested}" for one in shared]
            suggested = shared[0].suggested_vote
        else:
            changes = [
                suggestion_text(rows.classes[label], rows.classes[other], meaning)
                for label, other in zip(rows.labels[at].tolist(), found.suggested[at].tolist(), strict=True)
            ]
            suggested = float(found.confidence[at].mean())
        whole = bool(shared) or (found.unit == "person" and len(at) == images[code])
        listed.append(
            DoubtfulPerson(
                names[code],
                tuple(dict.fromkeys(changes)),
                len(at),
                int(images[code]),
                whole,
                float(found.vote[at].mean()),
                suggested,
                _agreeing(found, at, shared, meaning),
                tuple(at.tolist()),
            )
        )
    return sorted(listed, key=lambda one: (not one.whole, one.vote, one.person))


def suggestion_text(given: str, suggested: str, class_attributes: Mapping[str, Mapping[str, str]]) -> str:
    """Return what differs between two classes: ``mask: worn → incorrect``; ``cat → dog`` without attributes."""
    return change_text(values_of((given, suggested), class_attributes), 0, 1) or f"{given} → {suggested}"


def _agreeing(
    found: LabelDoubts,
    at: NDArray[np.int64],
    shared: list[AttributeDoubt],
    meaning: Mapping[str, Mapping[str, str]],
) -> int:
    classes, count = found.rows.classes, 0
    for answers in found.rows.answers.values():
        voted = answers[at]
        if shared:
            of_class = [
                all(meaning.get(one, {}).get(each.attribute) == each.suggested for each in shared) for one in classes
            ]
            agrees = np.array([*of_class, False])[voted]  # −1, no prediction, agrees with nothing
        else:
            agrees = voted == found.suggested[at]
        count += bool(agrees.mean() >= 0.5)
    return count
