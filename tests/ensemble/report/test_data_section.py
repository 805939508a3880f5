"""The section about the data: counts by hand, examples of different people, copies side by side."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.report.data.data import data_section
from ensemble.report.evidence.evidence import Evidence, TableRecord
from ensemble.report.page.blocks import Gallery, Missing, Section, Table, Text
from folds.metrics.intervals import Interval
from tests.ensemble.report.evidence_worlds import draw_evidence


def named(section: Section, name: str) -> Any:
    return next((one for one in section.blocks if getattr(one, "name", "") == name), None)


def small_world(**changed: Any) -> Evidence:
    """Five training images of three people, and one test image."""
    table = TableRecord(
        np.array(["a", "b", "c", "d", "e", "t"]),
        np.array(["cat", "cat", "cat", "dog", "", "dog"]),
        np.array(["p", "p", "q", "r", "r", "s"]),
        np.array([False] * 5 + [True]),
        {"site": np.array(["n", "n", "s", "s", "", "n"]), "age": np.array(["1", "2", "3", "4", "5", "6"])},
        np.array([10, 10, 10, 20, 0, 10]),
        np.array([8, 8, 8, 8, 0, 8]),
        np.array([10, 20, 30, 40, np.nan, 50], np.float32),
        np.array([5, 4, 3, 2, np.nan, 1], np.float32),
    )
    paths = {name: Path(name) for name in "abcdt"}
    given: dict[str, Any] = {"table": table, "paths": paths, "thumbnail": lambda name: f"thumbnail:{name}"}
    return Evidence(("cat", "dog"), None, None, **given | changed)


def test_classes_are_counted_by_image_and_by_person() -> None:
    table = named(data_section(small_world()), "data-classes")
    assert list(table.header) == ["class", "images", "share", "people", "test images", "test people"]
    assert [list(row) for row in table.rows] == [["cat", 3, "75.0%", 2, 0, 0], ["dog", 1, "25.0%", 1, 1, 1]]


def test_the_summary_counts_people_and_images_without_labels() -> None:
    section = data_section(small_world())
    assert isinstance(section.blocks[0], Text)
    assert (
        section.blocks[0]
        .paragraphs[0]
        .startswith("The rarest class is dog with 1 person for training; the most frequent, cat, has 2.")
    )
    assert section.blocks[0].paragraphs[1:] == (
        "Training: 5 images of 3 people (1 to 2, half of them 2 or fewer images per person).",
        "Test: 1 image of 1 person (1 images per person).",
        "1 training image without a label.",
        "1 image files are not where the table says, and are not shown.",
    )


def test_attributes_of_few_values_are_counted_and_numbers_summarized(monkeypatch: Any) -> None:
    monkeypatch.setattr("ensemble.report.data.data.MAX_VALUES", 3)
    section = data_section(small_world())
    assert [list(row) for row in named(section, "data-attributes").rows] == [
        ["site", "n", 2, "40.0%", 1],
        ["site", "s", 2, "40.0%", 2],
    ]
    assert [list(row) for row in named(section, "data-numbers").rows] == [
        ["age", "training", "1", "3", "5", 5, 0],
        ["age", "test", "6", "6", "6", 1, 0],
    ]


def test_sizes_leave_out_files_that_cannot_be_read() -> None:
    rows = named(data_section(small_world()), "data-images").rows
    assert list(rows[0]) == ["width, pixels", "training", "10", "10", "10", "18", "20", 4]
    assert list(rows[2][:3]) == ["brightness, 0–255", "training", "10.0"]


def test_extremes_are_the_darkest_and_the_least_sharp() -> None:
    gallery = named(data_section(small_world()), "data-extremes")
    kinds: dict[str, list[str]] = {}
    for picture in gallery.pictures:
        kinds.setdefault(picture.tags["kind"], []).append(picture.title)
    assert kinds["darkest"] == ["a", "b", "c", "d", "t"]
    assert kinds["brightest"][:2] == ["t", "d"]
    assert kinds["least sharp"][:2] == ["t", "d"]
    assert kinds["smallest"][-1] == "d"


def test_examples_are_of_different_people_and_the_same_every_time() -> None:
    world = draw_evidence()
    assert world.table is not None
    world = replace(world, paths={name: Path(name) for name in world.table.ids.tolist()}, thumbnail=lambda name: "")
    one, other = (named(data_section(world), "data-examples") for _ in range(2))
    assert one == other
    person = dict(zip(world.table.ids.tolist(), world.table.persons.tolist(), strict=True))
    for name in world.classes:
        shown = [person[picture.title] for picture in one.pictures if picture.tags["class"] == name]
        assert len(shown) == len(set(shown)) == 6
    assert all(picture.title.startswith("oof/") for picture in one.pictures)


def test_copies_are_side_by_side_with_their_number() -> None:
    rows = [{"id": "a", "part": "train"}, {"id": "t", "part": "test"}]
    finding = {
        "kind": "altered copies in training and test",
        "severity": "warning",
        "cases": [{"rows": rows, "similarity": 0.987}],
    }
    gallery = named(data_section(small_world(findings=[finding])), "data-copies")
    assert isinstance(gallery, Gallery)
    assert [one.title for one in gallery.pictures] == ["a", "t"]
    assert {one.tags["set"] for one in gallery.pictures} == {"1"}
    assert "similarity 0.99" in gallery.pictures[0].lines


def test_without_an_audit_the_section_says_how_to_make_one() -> None:
    missing = [one for one in data_section(small_world()).blocks if isinstance(one, Missing)]
    assert any("folds check" in one.how for one in missing)
    compared = {"kind": "images compared", "severity": "note", "count": 6}
    assert not any(isinstance(one, Missing) for one in data_section(small_world(findings=[compared])).blocks)


def test_a_split_by_image_is_shown_beside_the_split_by_person() -> None:
    world = draw_evidence(by_image={"leaky": Interval(0.91, 0.9, 0.92)})
    table = named(data_section(world), "data-by-image")
    assert isinstance(table, Table)
    assert list(table.rows[0]) == ["leaky", "by image", "0.910", "[0.900, 0.920]"]
    assert list(table.rows[1][:2]) == ["blend soft", "by person"]
    assert named(data_section(draw_evidence()), "data-by-image") is None


def test_without_a_table_or_images_the_section_says_what_is_missing() -> None:
    assert isinstance(data_section(small_world(table=None)).blocks[0], Missing)
    world = small_world()
    assert world.table is not None
    bare = replace(world.table, width=None, height=None, brightness=None, sharpness=None)
    section = data_section(replace(world, table=bare, paths={}))
    assert any(isinstance(one, Missing) and "examples" in one.what for one in section.blocks)
    assert named(section, "data-examples") is None
