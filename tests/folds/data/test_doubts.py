"""Names of persons and classes that are doubtful: spellings, placeholders, a person with most of the images."""

from __future__ import annotations

import unicodedata

import pytest

from folds.data.doubts import spelled_leaks
from folds.data.readers import read_data
from folds.data.table import DataSpec
from folds.errors import EnsembleError


@pytest.fixture
def read(tmp_path):
    def reading(rows, **spec):
        text = "path,label,person\n" + "".join(f"{i}.jpg,{label},{person}\n" for i, (label, person) in enumerate(rows))
        (tmp_path / "t.csv").write_text(text, encoding="utf-8")
        return read_data(DataSpec(tmp_path / "t.csv", **spec), need_images=False)

    return reading


def rows_of(persons, labels=("a", "b")):
    return [(labels[i % len(labels)], person) for i, person in enumerate(persons)]


NFC, NFD = (unicodedata.normalize(form, "Bär") for form in ("NFC", "NFD"))
PAIRS = [("12", "12.0"), ("0012", "12"), ("P7", "p7"), (NFC, NFD), ("cat", "cat\u200b"), ("Jo Ann", "Jo\u00a0Ann")]


@pytest.mark.parametrize("pair", PAIRS)
def test_one_person_in_two_spellings_is_warned_of_or_merged(read, pair):
    one, other = pair
    rows = rows_of([one, one, other, "x", "y", "y"])
    warnings = read(rows).warnings
    assert any(
        "1 person is written in more than one way" in line and "(2 and 1 images)" in line for line in warnings
    ) or (any("(1 and 2 images)" in line for line in warnings))
    merged = read(rows, merge_spellings=True)
    assert merged.train.persons.tolist() == [one, one, one, "x", "y", "y"]
    assert not any("written" in line for line in merged.warnings)
    assert any("merged" in line for line in merged.notes)


@pytest.mark.parametrize("pair", PAIRS)
def test_one_class_in_two_spellings_is_warned_of_or_merged(read, pair):
    one, other = pair
    rows = list(zip([one, one, other, "x"], "pqrs", strict=True))
    assert any("1 class is written in more than one way" in line for line in read(rows).warnings)
    assert read(rows, merge_spellings=True).train.labels.tolist() == [one, one, one, "x"]


def test_names_that_differ_are_not_warned_of(read):
    rows = rows_of(["p1", "p10", "p1a", "1", "1.5", "-2", "2"] * 2)
    assert not any("written" in line for line in read(rows).warnings)


@pytest.mark.parametrize("mark", ["", "nan", "unknown", "Unknown", "-1", "<NA>", "None", "NULL", "N/A", "?"])
def test_missing_persons_are_refused_or_each_their_own(read, mark):
    rows = rows_of(["p", "p", mark, mark, "q", mark])
    with pytest.raises(EnsembleError, match=r"3 of 6 rows of .* have no person") as error:
        read(rows)
    assert "`missing_persons=own`" in error.value.hint
    assert error.value.details[0].startswith("t.csv row 4: ")
    own = read(rows, missing_persons="own")
    assert own.train.persons.tolist() == ["p", "p", "2.jpg", "3.jpg", "q", "5.jpg"]
    assert any("3 of 6 images" in note and "its own person" in note for note in own.notes)


def test_a_placeholder_may_be_the_name_of_a_person(read):
    assert read(rows_of(["p", "None", "q"]), missing_persons="keep").train.persons.tolist() == ["p", "None", "q"]
    with pytest.raises(EnsembleError, match="have no person"):
        read(rows_of(["p", "", "q"]), missing_persons="keep")


def test_an_image_of_its_own_gets_no_name_of_another(read):
    persons = read(rows_of(["1.jpg", "", "q"]), missing_persons="own").train.persons.tolist()
    assert len(set(persons)) == 3


@pytest.mark.parametrize("mark", ["#N/A", "<NA>", "<na>", "nan\u200b"])
def test_labels_of_spreadsheets_for_nothing_are_missing(read, mark):
    with pytest.raises(EnsembleError, match=f"1 of 4 rows of .* have no label: '{mark}' \\(1\\)"):
        read([("a", "p"), ("b", "q"), (mark, "r"), ("a", "s")])


@pytest.mark.parametrize("name", ["unknown", "None", "-1", "NA"])
def test_other_placeholders_are_names_of_classes(read, name):
    assert name in read([("a", "p"), (name, "q")]).train.classes


def test_a_person_with_most_of_the_images_is_warned_of(read):
    persons = [f"p{i // 4}" for i in range(36)] + ["clinic"] * 44
    (line,) = [line for line in read(rows_of(persons)).warnings if "clinic" in line]
    assert "has 44 of the 80 images" in line
    assert "(55%)" in line
    assert not any("one fold" in line for line in read(rows_of(["p", "p", "p", "q", "r"])).warnings)


def test_people_of_training_and_test_are_compared_by_spelling():
    assert "'P7' and 'p7'" in spelled_leaks(["P7", "x"], ["p7", "y"])[0]
    assert spelled_leaks(["P7", "x"], ["P7", "y"]) == []


def test_labels_of_the_test_follow_the_spelling_of_training(tmp_path):
    (tmp_path / "t.csv").write_text("path,label,person\n0.jpg,Cat,p\n1.jpg,dog,q\n")
    (tmp_path / "test.csv").write_text("path,label\n2.jpg,cat\n3.jpg,dog\n")
    spec = DataSpec(tmp_path / "t.csv", test=tmp_path / "test.csv")
    with pytest.raises(EnsembleError, match="not among the 2 declared classes"):
        read_data(spec, need_images=False)
    merged = DataSpec(tmp_path / "t.csv", test=tmp_path / "test.csv", merge_spellings=True)
    assert read_data(merged, need_images=False).test.labels.tolist() == ["Cat", "dog"]
