"""People whose labels are in doubt: each once, shared values first, and which members say the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ensemble.analysis.mistakes import LabeledRows
from ensemble.label_check.doubts import AttributeDoubt, LabelDoubts
from ensemble.report.labels.doubtful_people import doubtful_people, suggestion_text
from ensemble.report.labels.labels import _strength, labels_section
from ensemble.report.page.blocks import Text
from tests.ensemble.report.evidence_worlds import draw_evidence

CLASSES = ("worn male", "worn female", "off male", "off female")
MEANING = {name: dict(zip(("mask", "gender"), name.split(), strict=True)) for name in CLASSES}


def made() -> LabelDoubts:
    """Return doubts about p0 (one image) and p1 (its gender, in both images); p2 is in no doubt."""
    labels = np.array([0, 2, 0, 2, 1, 3])
    suggested = np.array([2, 2, 1, 3, 1, 3])
    votes = np.full((6, 4), 0.1)
    votes[np.arange(6), suggested] = 0.7
    votes[0] = [0.01, 0.1, 0.79, 0.1]
    other = votes.copy()
    other[2:4] = np.eye(4)[labels[2:4]]
    ids, persons = np.array([f"i{at}" for at in range(6)]), np.array(["p0", "p0", "p1", "p1", "p2", "p2"])
    rows = LabeledRows(ids, persons, labels, CLASSES, votes, {"x": votes, "y": other})
    doubtful = np.array([True, False, True, True, False, False])
    shared = AttributeDoubt("gender", "p1", 2, "male", "female", 0.2, 0.8)
    return LabelDoubts(rows, "image", votes, doubtful, suggested, (shared,))


def test_shared_values_come_first_and_each_person_once() -> None:
    first, second = doubtful_people(made(), MEANING)
    assert (first.person, first.change, first.whole, first.doubtful, first.images) == (
        "p1",
        "gender: male → female",
        True,
        2,
        2,
    )
    assert (first.suggested_vote, first.agreeing) == (0.8, 1)  # y repeats the label
    assert abs(first.vote - 0.1) < 1e-12
    assert (second.person, second.change, second.whole, second.doubtful) == ("p0", "mask: worn → off", False, 1)
    assert (second.agreeing, second.rows) == (2, (0,))
    assert second.vote < first.vote


def test_a_change_names_what_differs() -> None:
    assert suggestion_text("worn male", "off female", MEANING) == "mask: worn → off; gender: male → female"
    assert suggestion_text("cat", "dog", {}) == "cat → dog"


def test_weak_votes_are_explained_and_zero_is_not_counted() -> None:
    text = _strength(made())
    assert text.startswith("The largest probability that the vote gives to another class is 0.790; it is split over 4 ")
    assert "another value of an attribute is 0.800" in text
    sure = made()
    sure = replace(sure, votes=np.eye(4)[sure.suggested])
    assert _strength(sure).startswith("In 3 of them")


def test_without_people_there_is_no_list_of_people() -> None:
    pytest.importorskip("cleanlab")
    world = draw_evidence(people=60, per_person=1, skills=(3.0, 3.0, 3.0))
    assert world.oof is not None
    labels = world.oof.labels.copy()
    labels[:3] = (labels[:3] + 1) % 3
    section = labels_section(replace(world, oof=replace(world.oof, labels=labels)))
    names = [getattr(block, "name", "") for block in section.blocks]
    assert "labels-people" not in names
    assert {"labels-images", "labels-doubted"} <= set(names)
    said = [line for block in section.blocks if isinstance(block, Text) for line in block.paragraphs]
    assert any(line.startswith("1. `ensemble labels RUN -o labels.csv`") for line in said)
