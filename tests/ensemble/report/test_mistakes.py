"""The sections about mistakes and about labels in doubt: their blocks, numbers, and what they say without inputs."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ensemble.report.evidence.evidence import Evidence, Part
from ensemble.report.labels.labels import labels_section
from ensemble.report.mistakes.confusion import MAX_CLASSES
from ensemble.report.mistakes.mistakes import mistakes_section
from ensemble.report.page.blocks import Gallery, Matrix, Missing, Section, Table, Text
from tests.ensemble.report.evidence_worlds import draw_evidence


def block(section: Section, name: str) -> Any:
    return next(one for one in section.blocks if getattr(one, "name", "") == name)


def missing(section: Section) -> list[str]:
    return [one.what for one in section.blocks if isinstance(one, Missing)]


def texts(section: Section) -> str:
    return " ".join(line for one in section.blocks if isinstance(one, Text) for line in one.paragraphs)


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    return draw_evidence()


@pytest.fixture(scope="module")
def section(evidence: Evidence) -> Section:
    return mistakes_section(evidence)


def changed_part(evidence: Evidence, **changes: Any) -> Evidence:
    assert evidence.oof is not None
    return replace(evidence, oof=replace(evidence.oof, **changes), test=None)


def test_names_of_blocks_are_unique_and_headers_short(section: Section) -> None:
    names = [section.name, *(one.name for one in section.blocks if hasattr(one, "name"))]
    assert len(set(names)) == len(names)
    for one in section.blocks:
        if isinstance(one, Table):
            assert all(len(cell.split()) <= 3 for cell in one.header)
            assert {len(row) for row in one.rows} == {len(one.header)}


def test_the_matrix_counts_all_images_and_opens_the_gallery(section: Section, evidence: Evidence) -> None:
    matrix, gallery = block(section, "mistakes-confusion"), block(section, "mistakes-worst")
    assert isinstance(matrix, Matrix)
    assert evidence.oof is not None
    assert np.sum(matrix.counts) == len(evidence.oof)
    assert matrix.opens == gallery.name
    wrong = np.sum(matrix.counts) - np.trace(matrix.counts)
    assert len(gallery.pictures) == min(wrong, 60)
    for picture in gallery.pictures:
        assert picture.tags["true"] in evidence.classes
        assert picture.tags["true"] != picture.tags["predicted"]
        assert picture.tags["agreement"].endswith(" of 3")
        assert any(line.startswith("run1: ") for line in picture.lines)
    assert f"{wrong} of {len(evidence.oof)} images of 40 people" in texts(section)


def test_properties_that_do_not_matter_are_not_distinguishable(section: Section) -> None:
    answers = texts(section)
    assert "By brightness, no quarter of the images differs significantly" in answers
    assert "All images have the same size." in answers


def test_dark_images_that_fail_are_named(evidence: Evidence) -> None:
    assert evidence.table is not None
    assert evidence.oof is not None
    main = evidence.main
    assert main is not None
    wrong = main.probabilities.argmax(1) != evidence.oof.labels
    light = np.where(np.concatenate([wrong, np.zeros(len(evidence.table.ids) - len(wrong), bool)]), 10.0, 200.0)
    light += np.arange(len(light)) * 1e-3
    found = mistakes_section(replace(evidence, table=replace(evidence.table, brightness=light.astype(np.float32))))
    assert "Accuracy differs with brightness: dark: 10 to " in texts(found)
    row = next(one for one in block(found, "mistakes-properties").rows if str(one[1]).startswith("dark"))
    assert row[-1].endswith(", significant")


def test_people_with_all_images_wrong_stand_first(evidence: Evidence) -> None:
    assert evidence.oof is not None
    labels = evidence.oof.labels.copy()
    assert evidence.main is not None
    mine = evidence.oof.persons == "p007"
    labels[mine] = (evidence.main.probabilities[mine].argmax(1) + 1) % 3
    table = block(mistakes_section(changed_part(evidence, labels=labels)), "mistakes-people")
    first = table.rows[0]
    assert first[:3] == ["p007", 5, 5]
    assert first[3].startswith("1.000 [0.478, 1.000]")


def test_columns_of_the_table_and_attributes_of_classes_are_scored(evidence: Evidence) -> None:
    meaning = {"cat": {"fur": "yes"}, "dog": {"fur": "yes"}, "eel": {"fur": "no"}}
    found = mistakes_section(replace(evidence, class_attributes=meaning))
    assert [row[1] for row in block(found, "mistakes-attributes").rows] == ["no", "yes"]
    assert [row[:2] for row in block(found, "mistakes-columns").rows] == [["site", "north"], ["site", "south"]]


def test_what_is_missing_says_how_to_get_it(evidence: Evidence) -> None:
    assert isinstance(mistakes_section(replace(evidence, oof=None, test=None)).blocks[0], Missing)
    unlabeled = np.full_like(evidence.oof.labels, -1) if evidence.oof is not None else None
    assert isinstance(mistakes_section(changed_part(evidence, labels=unlabeled)).blocks[0], Missing)
    without = mistakes_section(replace(evidence, table=None))
    assert "mistakes by image property: dark, blurred and small images" in missing(without)
    assert evidence.oof is not None
    one = mistakes_section(replace(changed_part(evidence, members=evidence.oof.members[:1]), recommended="run0"))
    assert any(line.startswith("which member is right") for line in missing(one))
    unknown = mistakes_section(changed_part(evidence, persons=evidence.oof.ids, persons_known=False))
    assert "mistakes by person" in missing(unknown)
    assert "intervals are too narrow" in texts(unknown)


def test_test_predictions_are_judged_if_there_are_no_others(evidence: Evidence) -> None:
    found = mistakes_section(replace(evidence, oof=None))
    assert "(test predictions)" in texts(found)


def test_rows_that_the_recommended_member_lacks_are_left_out(evidence: Evidence) -> None:
    part = evidence.oof
    assert part is not None
    main = part.members[-1]
    values = main.probabilities.copy()
    values[:10] = np.nan
    members = (*part.members[:-1], replace(main, probabilities=values))
    found = mistakes_section(changed_part(evidence, members=members))
    assert np.sum(block(found, "mistakes-confusion").counts) == len(part) - 10


def test_no_mistake_leaves_an_empty_gallery_out(evidence: Evidence) -> None:
    assert evidence.main is not None
    found = mistakes_section(changed_part(evidence, labels=evidence.main.probabilities.argmax(1).astype(np.int64)))
    assert not [one for one in found.blocks if isinstance(one, Gallery)]
    assert block(found, "mistakes-confusion").opens == ""


def test_many_classes_show_those_with_the_most_mistakes() -> None:
    names = tuple(f"class {at:02d}" for at in range(MAX_CLASSES + 5))
    found = mistakes_section(draw_evidence(people=80, classes=names))
    matrix = block(found, "mistakes-confusion")
    assert len(matrix.classes) == MAX_CLASSES
    assert f"Only the {MAX_CLASSES} classes" in matrix.note


def with_wrong_labels(evidence: Evidence, people: tuple[str, ...]) -> Evidence:
    part = evidence.oof
    assert part is not None
    assert evidence.main is not None
    labels = part.labels.copy()
    for person in people:
        mine = np.flatnonzero(part.persons == person)
        labels[mine] = (evidence.main.probabilities[mine].mean(axis=0).argmax() + 1) % 3
    return changed_part(evidence, labels=labels)


def test_wrong_labels_are_the_first_that_are_doubted() -> None:
    pytest.importorskip("cleanlab")
    wrong = ("p003", "p011", "p027")
    found = labels_section(with_wrong_labels(draw_evidence(skills=(3.0, 3.0, 3.0)), wrong))
    people = [row[0] for row in block(found, "labels-people").rows]
    assert set(wrong) <= set(people[:4])
    images = block(found, "labels-images")
    assert {row[1] for row in images.rows[:10]} <= set(people)
    gallery = block(found, "labels-doubted")
    assert {picture.tags["person"] for picture in gallery.pictures} == set(people)
    assert "Each person counts once" in texts(found) or "each person counts once" in texts(found)


def test_labels_need_out_of_fold_predictions_and_cleanlab(evidence: Evidence, monkeypatch: pytest.MonkeyPatch) -> None:
    only_test = labels_section(replace(evidence, oof=None)).blocks[0]
    assert isinstance(only_test, Missing)
    assert "test labels are never changed" in only_test.how
    monkeypatch.setitem(sys.modules, "cleanlab", None)
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    without = labels_section(evidence).blocks[0]
    assert isinstance(without, Missing)
    assert "pip install 'ensemble-folds[clean]'" in without.how


def test_hostile_names_stay_plain_text(evidence: Evidence) -> None:
    hostile = "<script>alert(1)</script>"
    part = evidence.oof
    assert isinstance(part, Part)
    ids = np.array([f"{hostile}{at}" for at in range(len(part))])
    found = mistakes_section(replace(changed_part(evidence, ids=ids), classes=(hostile, "b", "c")))
    assert hostile in block(found, "mistakes-confusion").classes
    assert all(hostile in picture.title for picture in block(found, "mistakes-worst").pictures)


def test_grades_say_by_how_much_they_are_off_and_keep_their_order() -> None:
    graded = replace(draw_evidence(classes=("none", "mild", "severe")), task="ordinal")
    found = mistakes_section(graded)
    assert graded.oof is not None
    member = graded.main
    assert member is not None
    off = np.abs(member.probabilities.argmax(axis=1) - graded.oof.labels)
    assert f"in the order none, mild, severe: the mean error is {off.mean():.3f} [" in texts(found)
    assert f"{(off > 1).mean():.3f} [" in texts(found)
    assert block(found, "mistakes-confusion").classes == ("none", "mild", "severe")
    assert "grades" not in texts(mistakes_section(draw_evidence()))


def test_classes_of_attributes_are_named_and_what_is_confused_is_said_first() -> None:
    names = tuple(str(at) for at in range(8))
    meaning = {
        name: {"mask": ("yes", "no")[at // 4], "age": ("30-59", "<30", ">=60", ">=80")[at % 4]}
        for at, name in enumerate(names)
    }
    drawn = draw_evidence(classes=names)
    part, main = drawn.oof, drawn.main
    assert part is not None
    assert main is not None
    # The mask is always right, the age is wrong in every other image.
    predicted = np.where(np.arange(len(part)) % 2, part.labels, part.labels // 4 * 4 + (part.labels + 1) % 4)
    values = (0.9 * np.eye(8) + 0.0125)[predicted].astype(np.float32)
    members = tuple(replace(one, probabilities=values) if one is main else one for one in part.members)
    found = mistakes_section(replace(changed_part(drawn, members=members), class_attributes=meaning))
    lead = found.blocks[0]
    assert isinstance(lead, Text)
    assert lead.paragraphs[0].startswith("Age is confused, mask hardly ever. Wrong in the ")
    assert "age in 100%, mask in 0%" in lead.paragraphs[0]
    matrix = block(found, "mistakes-confusion")
    assert matrix.compact
    assert matrix.heads == names
    assert matrix.classes[1] == "1 (yes <30)"
    assert block(found, "mistakes-confusion-2").classes == ("<30", "30-59", ">=60", ">=80")
    pairs = block(found, "mistakes-pairs")
    assert {row[2] for row in pairs.rows} <= {
        f"age: {one} → {other}"
        for one, other in (("30-59", "<30"), ("<30", ">=60"), (">=60", ">=80"), (">=80", "30-59"))
    }
    picture = block(found, "mistakes-worst").pictures[0]
    assert picture.lines[0].startswith("age: ")
    assert picture.tags["true"] in matrix.classes


def test_people_with_changed_labels_are_left_out_as_in_the_verdict() -> None:
    evidence = draw_evidence()
    part, main = evidence.oof, evidence.main
    assert part is not None
    assert main is not None
    changed = replace(main, changed=frozenset(part.ids[:1].tolist()))
    members = tuple(changed if one is main else one for one in part.members)
    text = mistakes_section(replace(evidence, oof=replace(part, members=members))).blocks[0]
    assert isinstance(text, Text)
    assert "of 195 images of 39 people are predicted wrong" in text.paragraphs[1]
    assert "scored on the 39 people whose training labels were not changed, without 1 person." in text.paragraphs[1]
