"""What the audit says of tables, folds and images; every kind of finding, and silence where nothing is wrong."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from folds.auditing.checks import Finding, audit_images, audit_table, pictures
from folds.auditing.contact_sheet import write_sheet
from folds.data.readers import read_data
from folds.data.synthetic.people import generate_people
from folds.data.table import Dataset, DataSpec, SampleTable
from folds.errors import EnsembleError
from folds.images.cache import load_images
from folds.images.settings import ImageSettings
from folds.splits.assignment import FoldAssignment

Line = tuple[str, str, str]  # file, person, label


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One picture each of 20 people, as 0.jpg to 19.jpg."""
    folder = tmp_path_factory.mktemp("faces")
    drawn = read_data(DataSpec(generate_people(folder / "people", people=20, test_people=1, size=(72, 96)))).train
    assert drawn.paths is not None
    for number in range(20):
        with Image.open(drawn.paths[7 * number]) as image:
            image.convert("RGB").save(folder / f"{number}.jpg", quality=95)
    return folder


@pytest.fixture
def here(faces: Path, tmp_path: Path) -> Path:
    for path in faces.glob("*.jpg"):
        shutil.copy(path, tmp_path)
    return tmp_path


def table(folder: Path, lines: Sequence[Line], name: str = "index.csv") -> Path:
    path = folder / name
    path.write_text("\n".join(["path,person,label", *(",".join(line) for line in lines)]) + "\n")
    return path


def everyone(**other: tuple[str, str]) -> list[Line]:
    """Ten people with two images each, labels a and b."""
    return [(f"{i}.jpg", *other.get(f"i{i}", (f"p{i // 2}", "ab"[i % 2]))) for i in range(20)]


def again(folder: Path, number: int, name: str) -> str:
    """An altered copy of a picture."""
    with Image.open(folder / f"{number}.jpg") as image:
        image.resize((60, 80), Image.Resampling.BICUBIC).save(folder / name, quality=60)
    return name


def looked(
    folder: Path, lines: Sequence[Line], test: Sequence[Line] | None = None, folds: Sequence[int] | None = None
) -> dict[str, Finding]:
    read = read_data(DataSpec(table(folder, lines))).train
    other = (
        None
        if test is None
        else read_data(DataSpec(table(folder, [*test, ("0.jpg", "x", "a"), ("1.jpg", "x", "b")], "test.csv"))).train
    )

    def sides(samples: SampleTable, part: str) -> object:
        cache = load_images(samples.paths or (), ImageSettings(64, 64), cache_dir=folder / "cache")
        return pictures(samples, cache, None if folds is None or part == "test" else np.array(folds), part)

    if other is not None and test is not None:
        other = other.take(np.arange(len(test)))  # the two rows more are there because one class is no table
    findings = audit_images(sides(read, "train"), None if other is None else sides(other, "test"))
    assert len({finding.kind for finding in findings}) == len(findings)
    return {finding.kind: finding for finding in findings}


def ids(finding: Finding) -> list[list[str]]:
    return [[row.id for row in case.rows] for case in finding.cases]


def test_nothing_is_found_where_nothing_is_wrong(here):
    assert looked(here, everyone()) == {}


def test_identical_images_of_different_people_are_a_warning(here):
    shutil.copy(here / "3.jpg", here / "new.jpg")
    lines = [*everyone(), ("new.jpg", "p9", "b")]
    found = looked(here, lines)["identical images, different people"]
    assert (found.severity, found.amount) == ("warning", "1 set")
    assert ids(found) == [["3.jpg", "new.jpg"]]
    assert "folds" not in found.message
    assert str(found.cases[0]) == "index.csv row 5: 3.jpg (person p1, b)  =  index.csv row 22: new.jpg (person p9, b)"
    apart = looked(here, lines, folds=[0] * 20 + [1])["identical images, different people"]
    assert "in different folds: models are scored on images they were trained on" in apart.message
    assert [row.fold for row in apart.cases[0].rows] == [0, 1]
    together = looked(here, lines, folds=[0] * 21)["identical images, different people"]
    assert "folds" not in together.message


def test_an_image_shared_by_many_people_is_one_short_line(here):
    names = [f"new{i}.jpg" for i in range(30)]
    for name in names:
        shutil.copy(here / "3.jpg", here / name)
    found = looked(here, [*everyone(), *((name, f"q{i}", "b") for i, name in enumerate(names))])[
        "identical images, different people"
    ]
    assert len(found.cases[0].rows) == 31
    assert str(found.cases[0]).count("=") == 3
    assert str(found.cases[0]).endswith("  and 27 more rows")


def test_identical_images_with_different_labels_are_a_warning(here):
    shutil.copy(here / "3.jpg", here / "new.jpg")
    found = looked(here, [*everyone(), ("new.jpg", "p1", "a")])
    assert list(found) == ["identical images, different labels"]
    assert ids(found["identical images, different labels"]) == [["3.jpg", "new.jpg"]]


def test_identical_images_of_one_person_are_a_note(here):
    for name in ("new.jpg", "newer.jpg"):
        shutil.copy(here / "3.jpg", here / name)
    found = looked(here, [*everyone(), ("new.jpg", "p1", "b"), ("newer.jpg", "p1", "b")])
    assert [(finding.kind, finding.severity, finding.count) for finding in found.values()] == [
        ("identical images, same person", "note", 1)
    ]
    assert ids(found["identical images, same person"]) == [["3.jpg", "new.jpg", "newer.jpg"]]


def test_altered_copy_of_another_person_has_its_similarity(here):
    found = looked(here, [*everyone(), (again(here, 4, "new.jpg"), "p9", "b")], folds=[0] * 20 + [2])
    assert list(found) == ["altered copies, different people"]
    found = found["altered copies, different people"]
    assert ids(found) == [["4.jpg", "new.jpg"]]
    assert found.cases[0].similarity > 0.95
    assert "labels differ" in found.cases[0].detail
    assert "and is in different folds" in found.message


def test_an_altered_copy_of_the_same_person_is_nothing(here):
    assert looked(here, [*everyone(), (again(here, 4, "new.jpg"), "p2", "a")]) == {}


def test_copies_in_training_and_test_make_scores_optimistic(here):
    shutil.copy(here / "3.jpg", here / "same.jpg")
    found = looked(here, everyone(), test=[("same.jpg", "p1", "b"), (again(here, 4, "new.jpg"), "p2", "a")])
    assert list(found) == ["identical images in training and test", "altered copies in training and test"]
    assert ids(found["identical images in training and test"]) == [["3.jpg", "same.jpg"]]
    assert ids(found["altered copies in training and test"]) == [["4.jpg", "new.jpg"]]
    assert all("test scores will be optimistic" in finding.message for finding in found.values())
    assert "test.csv row 2: same.jpg (person p1, b, test)" in str(
        found["identical images in training and test"].cases[0]
    )


def test_copies_among_test_images_alone_are_nothing(here):
    shutil.copy(here / "3.jpg", here / "same.jpg")
    test = [("3.jpg", "y", "a"), ("same.jpg", "z", "a"), ("4.jpg", "y", "a"), (again(here, 4, "new.jpg"), "z", "a")]
    assert looked(here, [line for line in everyone() if line[0] not in ("3.jpg", "4.jpg")], test=test) == {}


def test_copies_of_copies_are_named_once(here):
    again(here, 4, "new.jpg")
    shutil.copy(here / "new.jpg", here / "newer.jpg")
    found = looked(here, [*everyone(), ("new.jpg", "p9", "b"), ("newer.jpg", "p9", "b")])
    assert ids(found["altered copies, different people"]) == [["4.jpg", "new.jpg"]]


def test_blank_images_are_named(here):
    Image.new("RGB", (96, 72), (9, 9, 9)).save(here / "blank.png")
    found = looked(here, [*everyone(), ("blank.png", "p9", "b")])
    assert ids(found["images without structure"]) == [["blank.png"]]


def test_altered_copies_can_be_left_out_and_that_is_said(here):
    read = read_data(DataSpec(table(here, [*everyone(), (again(here, 4, "new.jpg"), "p9", "b")]))).train
    cache = load_images(read.paths or (), ImageSettings(64, 64), cache_dir=here / "cache")
    [found] = audit_images(pictures(read, cache), near=False)
    assert (found.severity, found.message) == ("note", "no search for altered copies among 21 images")


def test_a_table_is_told_what_its_people_and_classes_mean(here):
    lines = [*everyone(i0=("p0", "b"), i18=("p8", "b"), i19=("p9", "rare"))]
    found = {finding.kind: finding for finding in audit_table(read_data(DataSpec(table(here, lines))), k=3)}
    assert (
        "1 of the 9 people with several images have only one label: a split by image would leak it"
        in found["people with a constant label"].message
    )
    assert found["people with a constant label"].severity == "note"
    assert found["people with a single image"].message == "1 of 10 people have a single image"
    rare = found["classes not in every fold"]
    assert (rare.severity, rare.count) == ("warning", 1)
    assert [case.detail for case in rare.cases] == ["class rare: 1 person for 3 folds"]


def assignment(train: SampleTable, fold: Sequence[int]) -> FoldAssignment:
    assert train.labels is not None
    assert train.persons is not None
    return FoldAssignment(train.ids, train.labels, train.persons, np.array(fold), max(fold) + 1, 0)


def test_folds_are_checked_with_the_table(here):
    data = read_data(DataSpec(table(here, everyone(i19=("p9", "rare")))))
    found = {
        finding.kind: finding for finding in audit_table(data, assignment(data.train, [i // 2 % 2 for i in range(20)]))
    }
    assert (
        "absent from validation of fold 0 and from training of fold 1"
        in found["classes not in every fold"].cases[0].detail
    )
    with pytest.raises(EnsembleError, match="10 of 10 people are in more than one fold"):
        audit_table(data, assignment(data.train, [i % 2 for i in range(20)]))


def test_warnings_of_the_reader_and_ids_with_two_labels(here):
    train = read_data(DataSpec(table(here, everyone()))).train
    assert train.labels is not None
    test = replace(
        train.take(np.array([0, 1])), labels=np.array(["a", "a"]), locations=("test.csv row 2", "test.csv row 3")
    )
    found = {finding.kind: finding for finding in audit_table(Dataset(train, test, warnings=("beware",)))}
    assert found["the table"].message == "beware"
    assert ids(found["ids with two labels"]) == [["1.jpg", "1.jpg"]]
    assert found["ids with two labels"].message == "1 id has different labels in training and test"


def test_sheet_shows_warnings_and_is_not_written_without_any(here):
    shutil.copy(here / "3.jpg", here / "new.jpg")
    found = list(
        looked(here, [*everyone(), ("new.jpg", "Zoë…", "b"), (again(here, 4, "newer.jpg"), "p9", "b")]).values()
    )
    assert write_sheet(here / "sheet.png", found, lambda row: here / row.id) == 2
    with Image.open(here / "sheet.png") as sheet:
        shown = np.asarray(sheet).astype(int)
    assert shown.shape[1] == 8 + 2 * (2 * (224 + 8) + 8)
    first, second = shown[60:200, 8:232], shown[60:200, 240:464]
    assert np.array_equal(first, second)
    assert first.std() > 10
    assert (
        write_sheet(here / "none.png", [finding for finding in found if finding.severity == "note"], lambda row: None)
        == 0
    )
    assert not (here / "none.png").exists()
    assert write_sheet(here / "lost.png", found, lambda row: None) == 2, "images that are gone leave a gap"
