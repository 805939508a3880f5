"""Tables of other people: columns by known names, each guess said, nothing taken where two could be meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from folds.data.images_to_predict import read_test
from folds.data.readers import read_data
from folds.data.table import Dataset, DataSpec
from folds.errors import EnsembleError, UsageError

ROWS = [(f"i{i}.jpg", "cat" if i % 2 else "dog", f"p{i // 2}") for i in range(12)]


def table(folder: Path, header: str, rows=ROWS, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def read(path: Path, **spec) -> Dataset:
    return read_data(DataSpec(path, **spec), need_images=False)


def refused(path: Path, kind: type[EnsembleError] = EnsembleError, **spec) -> EnsembleError:
    with pytest.raises(kind) as error:
        read(path, **spec)
    return error.value


def cells(data: Dataset) -> list[tuple[str, ...]]:
    return list(zip(data.train.ids.tolist(), data.train.labels.tolist(), data.train.persons.tolist(), strict=True))


@pytest.mark.parametrize(
    "header",
    [
        "image_id,dx,lesion_id",
        "image_name,target,patient_id",
        "ImageId,class,Subject",
        "filename,y,group",
        "File Name,Label,Person",
        "id,label,person",
        "image_path,diagnosis,patient",
    ],
)
def test_columns_of_known_names_give_the_same_samples(tmp_path, header):
    data = read(table(tmp_path, header))
    assert cells(data) == ROWS
    if header != "id,label,person":
        assert all(f"= {name}" in data.notes[0] for name in header.split(","))


def test_a_table_with_the_usual_names_is_read_without_a_word(tmp_path):
    assert read(table(tmp_path, "path,label,person")).notes == ()


def test_usual_names_win_over_known_ones(tmp_path):
    rows = [(*row, "other", "x", i) for i, row in enumerate(ROWS)]
    data = read(table(tmp_path, "path,label,person,target,patient_id,image_id", rows))
    assert cells(data) == ROWS
    assert set(data.train.attributes) == {"target", "patient_id", "image_id"}


@pytest.mark.parametrize(
    ("header", "what"),
    [
        ("path,target,dx,person", "label"),
        ("path,label,patient_id,subject", "person"),
        ("img_path,filepath,y,group", "path"),
    ],
)
def test_two_columns_that_fit_are_asked_about(tmp_path, header, what):
    rows = [(name, *row) for name, *row in ((*row, row[-1]) for row in ROWS)]
    error = refused(table(tmp_path, header, rows), **({} if what != "path" else {"id": None}))
    assert f"could both be the {what} column" in error.message
    assert error.hint.count(f"`{what}=") == 2, "both ways"


def test_the_file_names_are_the_paths_and_the_id_stays_the_id(tmp_path):
    rows = [(100 + i, *row) for i, row in enumerate(ROWS)]
    data = read(table(tmp_path, "id,file_name,label,person", rows))
    assert data.train.ids.tolist() == [str(100 + i) for i in range(12)]
    assert [path.name for path in data.train.paths] == [row[0] for row in ROWS]


def test_a_known_name_in_a_test_table_is_no_label(tmp_path):
    train = read(table(tmp_path, "path,label,person"))
    path = table(tmp_path, "path,diagnosis", [(f"t{i}.jpg", "unsure") for i in range(3)], "test.csv")
    found, notes = read_test(path, classes=train.train.classes, need_images=False)
    assert found.labels is None
    assert "read without labels" in notes[0]


def test_the_label_column_of_training_is_that_of_the_test(tmp_path):
    test = table(tmp_path, "image_id,dx", [("t1.jpg", "cat"), ("t2.jpg", "dog")], "test.csv")
    data = read(table(tmp_path, "image_id,dx,lesion_id"), test=test)
    assert data.test.labels.tolist() == ["cat", "dog"]


ONE_HOT = [(f"i{i}.jpg", float(i % 3 == 0), float(i % 3 == 1), float(i % 3 == 2), f"p{i // 2}") for i in range(12)]


@pytest.mark.parametrize("write", [lambda x: x, int, bool], ids=["1.0", "1", "True"])
def test_one_hot_columns_are_labels_and_it_is_said(tmp_path, write):
    rows = [(a, *map(write, part), p) for a, *part, p in ONE_HOT]
    data = read(table(tmp_path, "image,MEL,NV,BCC,person", rows))
    assert data.train.labels.tolist() == ["MEL", "NV", "BCC"] * 4
    assert "label = MEL,NV,BCC" in data.notes[0]
    assert read(table(tmp_path, "image,MEL,NV,BCC,person", rows), label="MEL,NV,BCC").train.sha == data.train.sha


def test_one_hot_columns_are_found_beside_another_binary_one(tmp_path):
    rows = [(*row, i % 2) for i, row in enumerate(ONE_HOT)]
    data = read(table(tmp_path, "image,MEL,NV,BCC,person,sex", rows))
    assert data.train.classes == ("BCC", "MEL", "NV")
    rows = [(a, b, 1 - int(b), c, 1 - int(c), d) for a, b, c, _, d in ONE_HOT]
    assert "no column 'label'" in refused(table(tmp_path, "image,A,B,C,D,person", rows)).message


def test_one_hot_columns_and_another_label_are_asked_about(tmp_path):
    rows = [(*row, i % 2) for i, row in enumerate(ONE_HOT)]
    path = table(tmp_path, "image,MEL,NV,BCC,person,target", rows)
    assert "'target' and the one-hot columns MEL, NV, BCC could both be the label" in refused(path).message
    assert read(path, label="target").train.classes == ("0", "1")
    lost = [(a, 0.0, 0.0, 0.0, *more) if a == "i4.jpg" else (a, b, c, d, *more) for a, b, c, d, *more in rows]
    path = table(tmp_path, "image,MEL,NV,BCC,person,target", lost)
    assert "'target' and the one-hot columns MEL, NV, BCC could both be the label" in refused(path).message
    rows = [(*row, i % 3) for i, row in enumerate(ONE_HOT)]
    agreeing = table(tmp_path, "image,MEL,NV,BCC,person,target", rows)
    assert read(agreeing).train.classes == ("0", "1", "2")


def test_columns_of_several_labels_are_no_one_hot(tmp_path):
    rows = [*ONE_HOT[:-1], ("i11.jpg", 1.0, 1.0, 0.0, "p5")]
    path = table(tmp_path, "image,MEL,NV,BCC,person", rows)
    error = refused(path)
    assert "no column 'label'" in error.message
    assert "MEL, NV, BCC hold 0 and 1, but 1 rows have not exactly one 1" in error.hint
    error = refused(path, label="MEL,NV,BCC")
    assert error.details == ("t.csv row 13: 2 of 3 columns are 1",)


def test_one_column_of_one_hot_labels_is_warned_of(tmp_path):
    data = read(table(tmp_path, "image,MEL,NV,BCC,person", ONE_HOT), label="MEL")
    assert sorted(data.train.classes) == ["0.0", "1.0"]
    assert "`label=MEL,NV,BCC` reads all classes" in data.warnings[0]


def test_a_template_of_one_hot_answers_has_no_labels(tmp_path):
    test = table(tmp_path, "image,MEL,NV,BCC", [(f"t{i}.jpg", 0.5, 0.5, 0.5) for i in range(3)], "test.csv")
    data = read(table(tmp_path, "image,MEL,NV,BCC,person", ONE_HOT), test=test)
    assert data.test.labels is None
    assert any("not one-hot labels" in line for line in data.warnings)


@pytest.mark.parametrize("value", ["cat", "-1", "0.5"])
def test_equal_test_labels_are_a_placeholder_unless_asked(tmp_path, value):
    test = table(tmp_path, "path,label", [(f"t{i}.jpg", value) for i in range(3)], "sample_submission.csv")
    path = table(tmp_path, "path,label,person")
    data = read(path, test=test)
    assert data.test.labels is None
    assert f"all 3 test labels of {test} are '{value}'" in data.warnings[0]
    assert read(path, test=test, test_labels=False).warnings == ()
    if value == "cat":
        assert read(path, test=test, test_labels=True).test.labels.tolist() == ["cat"] * 3
    else:
        assert "declared classes" in refused(path, test=test, test_labels=True).message


def test_labels_that_differ_are_no_placeholder(tmp_path):
    test = table(tmp_path, "path,label", [("t0.jpg", "cat"), ("t1.jpg", "dog")], "test.csv")
    path = table(tmp_path, "path,label,person")
    assert read(path, test=test).test.labels.tolist() == ["cat", "dog"]
    assert read(path, test=test, test_labels=False).test.labels is None


def test_a_column_of_splits_that_is_not_used_is_said(tmp_path):
    rows = [(*row, "test" if i > 8 else "train") for i, row in enumerate(ROWS)]
    path = table(tmp_path, "path,label,person,Set", rows)
    assert any("`split=Set`" in note for note in read(path).notes)
    data = read(path, split="Set")
    assert (len(data.train), len(data.test)) == (9, 3)
    assert not any("not used: all rows" in note for note in data.notes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.jpg 0\n1.jpg 1\n", "has no header"),
        ("0.jpg,cat\n1.jpg,dog\n", "has no header"),
        ("path label person\n0.jpg cat p1\n1.jpg dog p2\n", "separated by blanks"),
    ],
)
def test_lists_without_header_or_commas_get_a_fitting_hint(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    error = refused(tmp_path / "t.csv")
    assert message in error.message
    assert "comma" in error.hint


def test_several_groups_in_a_regex_are_warned_of(tmp_path):
    rows = [(f"{label}/{person}_{i}.jpg", label) for i, (_, label, person) in enumerate(ROWS)]
    path = table(tmp_path, "path,label", rows)
    data = read(path, person_regex=r"(\w+)/(\w+)_")
    assert any("the first is taken as the person: 'dog' in 'dog/p0_0.jpg', not 'p0'" in line for line in data.warnings)
    data = read(path, person_regex=r"(\w+)/(?P<person>\w+)_")
    assert data.train.persons.tolist() == [row[2] for row in ROWS]
    assert not any("groups" in line for line in data.warnings)
    assert not any("groups" in line for line in read(path, person_regex=r"(?:\w+)/(\w+)_").warnings)


def test_folders_of_images_do_not_apply_to_class_folders(tmp_path):
    for name in ("d/a/1.jpg", "d/b/2.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert "`images=" in refused(tmp_path / "d", UsageError, images=("x",), person_regex="(.+)").message


def test_parquet_of_other_names_is_read_alike(tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pandas.DataFrame(ROWS, columns=["image_id", "target", "patient_id"])
    frame.to_parquet(tmp_path / "t.parquet")
    assert cells(read(tmp_path / "t.parquet")) == ROWS


def test_the_label_is_the_column_that_the_sample_submission_asks_for(tmp_path):
    rows = [(name, "benign" if label == "cat" else "nevus", label, person) for name, label, person in ROWS]
    path = table(tmp_path, "image_name,diagnosis,target,patient_id", rows)
    (tmp_path / "sample_submission.csv").write_text("image_name,target\nt1,0\n")
    data = read(path)
    assert cells(data) == ROWS
    assert "the label is 'target', as in sample_submission.csv, not 'diagnosis'" in data.notes[0]
    (tmp_path / "sample_submission2.csv").write_text("image_name,diagnosis\nt1,0\n")
    assert "could both be the label column" in refused(path).message


def test_columns_that_tell_the_class_are_said_to_be_attributes(tmp_path):
    rows = [(*row, f"it is {row[1]}", "animal", i) for i, row in enumerate(ROWS)]
    data = read(table(tmp_path, "path,label,person,words,kind,number", rows))
    assert data.train.class_attributes["cat"] == {"words": "it is cat"}
    (note,) = data.notes
    assert note.endswith("are attributes of the classes, not labels: words; words: another name of each class")


def test_a_list_for_one_column_is_named_as_a_list(tmp_path):
    error = refused(table(tmp_path, "path,label,person"), person="person,path")
    assert "expected the name of one column of" in error.message
    path = table(tmp_path, "path", [("t1.jpg",)], "test.csv")
    _, notes = read_test(path, DataSpec(path, label="a,b,c"), need_images=False)
    assert any("has no columns a, b, c: read without labels" in note for note in notes)
