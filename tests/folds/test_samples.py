"""Reading tables of images: the three forms, what is kept of them, and an error for everything that is wrong with one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from folds import csv_table
from folds.errors import EnsembleError, UsageError
from folds.readers import read_data, read_test
from folds.samples import Data, DataSpec

XRAY = Path(__file__).parents[2].parent / "shared" / "data" / "xray" / "index.csv"
GOOD = "path,label,person\na.jpg,cat,p\nb.jpg,dog,q\nc.jpg,cat,p\n"


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def write_csv(folder: Path, text: str | bytes, name: str = "table.csv") -> Path:
    """A CSV with the images it names in its first column."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read(path: Path, **spec) -> Data:
    return read_data(DataSpec(path, **spec), need_images=False)


def refused(path: Path, kind: type[EnsembleError] = EnsembleError, need_images: bool = False, **spec) -> EnsembleError:
    with pytest.raises(kind) as error:
        read_data(DataSpec(path, **spec), need_images=need_images)
    assert not error.value.message.endswith(".")
    return error.value


# --- a CSV ---------------------------------------------------------------------------------------------------------------


def test_a_csv_gives_ids_paths_labels_persons_and_where_they_stand(tmp_path, monkeypatch):
    write_csv(tmp_path / "data", GOOD)
    touch(*(tmp_path / "data" / f"{name}.jpg" for name in "abc"))
    monkeypatch.chdir(tmp_path)
    table = read_data(DataSpec(Path("data/table.csv"))).train
    assert table.source == "data/table.csv"
    assert table.ids.tolist() == ["a.jpg", "b.jpg", "c.jpg"]
    assert table.paths == tuple(tmp_path / "data" / f"{name}.jpg" for name in "abc")
    assert table.labels.tolist() == ["cat", "dog", "cat"]
    assert table.persons.tolist() == ["p", "q", "p"]
    assert table.classes == ("cat", "dog")
    assert table.label_codes().tolist() == [0, 1, 0]
    assert table.where == ("table.csv row 2", "table.csv row 3", "table.csv row 4")


def test_labels_are_text_and_whole_numbers_sort_as_numbers(tmp_path):
    table = read(write_csv(tmp_path, "id,label,person\n007,10,1\n008,2,2\n009,1,01\n")).train
    assert table.labels.tolist() == ["10", "2", "1"]
    assert table.classes == ("1", "2", "10")
    assert table.ids.tolist() == ["007", "008", "009"]
    assert len(set(table.persons)) == 3


def test_classes_called_na_and_none_are_classes(tmp_path):
    table = read(write_csv(tmp_path, "id,label,person\n1,NA,p\n2,None,q\n3,null,r\n")).train
    assert table.labels.tolist() == ["NA", "None", "null"]


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + GOOD,
        GOOD.replace("\n", "\r\n"),
        GOOD.replace(",", ";"),
        GOOD.replace(",", "\t"),
        GOOD.replace(",", " , "),
        "\n" + GOOD + "\n\n",
        ",path,label,person\n0,a.jpg,cat,p\n1,b.jpg,dog,q\n2,c.jpg,cat,p\n",
        '"path","label","person"\n"a.jpg","cat","p"\n"b.jpg","dog","q"\n"c.jpg","cat","p"\n',
        GOOD.rstrip("\n"),
    ],
    ids=["bom", "crlf", "semicolons", "tabs", "blanks", "empty lines", "row numbers", "quotes", "no last newline"],
)
def test_the_spelling_of_a_csv_does_not_matter(tmp_path, text):
    plain, other = read(write_csv(tmp_path, GOOD)).train, read(write_csv(tmp_path, text, "other.csv")).train
    assert other.sha == plain.sha
    assert not other.attributes


def test_row_numbers_are_those_a_spreadsheet_shows(tmp_path):
    table = read(write_csv(tmp_path, 'id,label,person,note\n1,a,p,"two\nlines"\n\n2,b,q,\n')).train
    assert table.where == ("table.csv row 2", "table.csv row 4")


def test_columns_can_have_any_name(tmp_path):
    path = write_csv(tmp_path, "key,file,finding,patient\nk1,a.jpg,x,p\nk2,b.jpg,y,q\n")
    table = read(path, path="file", label="finding", person="patient", id="key").train
    assert (table.ids.tolist(), table.labels.tolist(), table.persons.tolist()) == (["k1", "k2"], ["x", "y"], ["p", "q"])
    assert table.paths is not None
    assert table.paths[0] == tmp_path / "a.jpg"


def test_other_columns_are_kept_and_what_the_class_determines_is_known(tmp_path):
    text = "id,label,person,gender,age,site\n1,a,p,m,old,x\n2,b,q,f,old,y\n3,a,r,m,old,y\n4,c,s,f,young,x\n"
    table = read(write_csv(tmp_path, text)).train
    assert set(table.attributes) == {"gender", "age", "site"}
    assert table.attributes["site"].tolist() == ["x", "y", "y", "x"]
    assert table.class_attributes == {"a": {"gender": "m", "age": "old"}, "b": {"gender": "f", "age": "old"}, "c": {"gender": "f", "age": "young"}}


def test_the_table_alone_is_enough_where_no_images_are_needed(tmp_path):
    assert read(write_csv(tmp_path, "id,label,person\n1,a,p\n2,b,q\n")).train.paths is None
    assert read(write_csv(tmp_path, GOOD, "absent.csv")).train.paths is not None


def test_windows_paths_name_the_same_files(tmp_path):
    touch(tmp_path / "images" / "a.jpg", tmp_path / "images" / "b.jpg")
    path = write_csv(tmp_path, "path,label,person\nimages\\a.jpg,x,p\nimages\\b.jpg,y,q\n")
    table = read_data(DataSpec(path)).train
    assert table.ids.tolist() == ["images/a.jpg", "images/b.jpg"]


def test_a_folder_with_one_fitting_csv_is_that_csv(tmp_path):
    write_csv(tmp_path, GOOD)
    write_csv(tmp_path, "something,else\n1,2\n", "notes.csv")
    data = read(tmp_path)
    assert len(data.train) == 3
    assert any("reading" in note and "table.csv" in note for note in data.notes)


def test_the_person_can_be_read_off_the_path(tmp_path):
    path = write_csv(tmp_path, "path,label\nx/p1-1.jpg,a\nx/p1-2.jpg,b\ny/p2-1.jpg,a\n")
    assert read(path, person_regex=r"(p\d+)-").train.persons.tolist() == ["p1", "p1", "p2"]
    assert read(path, person_regex=r"(?P<x>[xy])/(?P<person>p\d+)").train.persons.tolist() == ["p1", "p1", "p2"]
    assert read(path, person_regex=r"p\d+").train.persons.tolist() == ["p1", "p1", "p2"]


def test_the_sha_follows_from_ids_labels_persons_and_classes_not_from_where_the_files_lie(tmp_path):
    here, there = (read(write_csv(tmp_path / name, GOOD)).train for name in ("here", "there"))
    assert here.sha == there.sha
    for other in (GOOD.replace("dog,q", "cow,q"), GOOD.replace("dog,q", "dog,r"), GOOD.replace("a.jpg", "A.jpg")):
        assert read(write_csv(tmp_path, other)).train.sha != here.sha
    assert read(write_csv(tmp_path, GOOD), classes=("cat", "dog", "eel")).train.sha != here.sha


def test_taking_rows_keeps_columns_in_line_and_classes_declared(tmp_path):
    table = read(write_csv(tmp_path, "path,label,person,site\na,x,p,1\nb,y,q,2\nc,z,r,3\n")).train
    part = table.take(np.array([2, 0]))
    assert (part.ids.tolist(), part.labels.tolist(), part.persons.tolist()) == (["c", "a"], ["z", "x"], ["r", "p"])
    assert part.attributes["site"].tolist() == ["3", "1"]
    assert part.paths == (table.paths[2], table.paths[0])
    assert part.where == ("table.csv row 4", "table.csv row 2")
    assert part.classes == ("x", "y", "z")
    assert part.rows().labels.tolist() == ["z", "x"]


def test_declared_classes_are_kept_in_their_order_even_where_one_is_absent(tmp_path):
    table = read(write_csv(tmp_path, GOOD), classes=("dog", "eel", "cat")).train
    assert table.classes == ("dog", "eel", "cat")
    assert table.label_codes().tolist() == [2, 0, 2]


# --- test rows -----------------------------------------------------------------------------------------------------------

SPLIT = "path,label,person,split\na,x,p,train\nb,y,q,val\nc,x,r,Test\nd,y,s,TEST\n"


def test_rows_marked_test_are_kept_apart_in_any_case(tmp_path):
    data = read(write_csv(tmp_path, SPLIT), split="split")
    assert data.train.ids.tolist() == ["a", "b"]
    assert data.test is not None
    assert data.test.ids.tolist() == ["c", "d"]
    assert data.test.where == ("table.csv row 4", "table.csv row 5")
    assert "split" not in data.train.attributes
    assert "train (1), val (1), Test (1), TEST (1)" in data.notes[0]


def test_a_split_column_without_test_is_an_error_that_lists_its_values(tmp_path):
    error = refused(write_csv(tmp_path, SPLIT.replace("Test", "eval").replace("TEST", "eval")), split="split")
    assert "column 'split'" in error.message
    assert "eval (2)" in error.message


def test_rows_that_are_all_test_leave_nothing_to_train_on(tmp_path):
    assert "no value but 'test'" in refused(write_csv(tmp_path, SPLIT.replace("train", "test").replace("val", "test")), split="split").message


def test_test_rows_may_be_unlabelled_but_not_in_part(tmp_path):
    data = read(write_csv(tmp_path, SPLIT.replace("c,x", "c,").replace("d,y", "d,")), split="split")
    assert data.test is not None
    assert data.test.labels is None
    assert data.test.classes == ("x", "y")
    error = refused(write_csv(tmp_path, SPLIT.replace("c,x", "c,")), split="split")
    assert "have no label" in error.message
    assert "table.csv row 4" in error.details[0]


def test_a_test_label_that_no_training_row_has_is_named(tmp_path):
    error = refused(write_csv(tmp_path, SPLIT.replace("d,y", "d,zebra")), split="split")
    assert "none of the 2 declared classes" in error.message
    assert "'zebra'" in error.details[0]
    assert "row 5" in error.details[0]


def test_a_person_in_training_and_test_is_warned_about_with_the_count(tmp_path):
    data = read(write_csv(tmp_path, SPLIT.replace("c,x,r", "c,x,p").replace("d,y,s", "d,y,p")), split="split")
    assert any("1 people stand in both training and test (p; 2 test images)" in line for line in data.warnings)
    assert not any("both" in line for line in read(write_csv(tmp_path, SPLIT), split="split").warnings)


def test_the_same_image_in_training_and_test_is_warned_about(tmp_path):
    test = write_csv(tmp_path / "sub", "path\n../a.jpg\n")
    data = read(write_csv(tmp_path, GOOD), test=test)
    assert any("1 images stand in both training and test" in line for line in data.warnings)


def test_a_test_csv_may_lack_labels_and_persons_and_says_so(tmp_path):
    data = read(write_csv(tmp_path, GOOD), test=write_csv(tmp_path, "path\nz.jpg\ny.jpg\n", "test.csv"))
    assert data.test is not None
    assert (data.test.ids.tolist(), data.test.labels, data.test.persons) == (["z.jpg", "y.jpg"], None, None)
    assert any("no column 'label': taken as unlabelled" in note for note in data.notes)
    with pytest.raises(EnsembleError, match="has no labels"):
        data.test.label_codes()


def test_a_test_csv_with_labels_outside_the_classes_is_refused(tmp_path):
    error = refused(write_csv(tmp_path, GOOD), test=write_csv(tmp_path, "path,label\nz.jpg,cow\ny.jpg,cat\n", "test.csv"))
    assert "test.csv are none of the 2 declared classes" in error.message
    assert "'cow'" in error.details[0]


def test_a_test_folder_is_read_sorted_at_any_depth_without_hidden_files(tmp_path):
    touch(*(tmp_path / "t" / name for name in ("b.PNG", "x/a.jpg", "x/y/c.jpeg", "._b.PNG", "x/.ipynb_checkpoints/a.jpg", "notes.txt")))
    table, notes = read_test(tmp_path / "t", classes=("cat", "dog"))
    assert table.ids.tolist() == ["b.PNG", "x/a.jpg", "x/y/c.jpeg"]
    assert table.labels is None
    assert table.classes == ("cat", "dog")
    assert any("hidden" in note for note in notes)
    assert any("1 files below" in note and ".txt" in note for note in notes)


def test_a_test_folder_of_class_folders_is_labelled_and_one_with_other_folders_is_not(tmp_path):
    touch(tmp_path / "t" / "cat" / "1.jpg", tmp_path / "t" / "dog" / "2.jpg")
    assert read_test(tmp_path / "t", classes=("cat", "dog"))[0].labels.tolist() == ["cat", "dog"]
    touch(tmp_path / "t" / "unsure" / "3.jpg")
    table, notes = read_test(tmp_path / "t", classes=("cat", "dog"))
    assert table.labels is None
    assert any("'unsure'" in note for note in notes)


def test_a_single_image_is_a_test_table(tmp_path):
    touch(tmp_path / "one.jpg")
    assert read_test(tmp_path / "one.jpg")[0].paths == (tmp_path / "one.jpg",)


def test_a_test_folder_without_images_is_an_error(tmp_path):
    (tmp_path / "t").mkdir()
    with pytest.raises(EnsembleError, match="no images in"):
        read_test(tmp_path / "t")


def test_split_and_test_together_are_wrong_usage(tmp_path):
    assert refused(write_csv(tmp_path, SPLIT), UsageError, split="split", test=tmp_path).exit_code == 2


# --- what can be wrong with a CSV ------------------------------------------------------------------------------------------


def test_a_wrong_path_offers_the_nearest_that_exists(tmp_path):
    write_csv(tmp_path, GOOD, "people.csv")
    assert f"did you mean {tmp_path / 'people.csv'}?" in refused(tmp_path / "poeple.csv").message
    assert "there is no" in refused(tmp_path / "nowhere" / "at" / "all.csv").message


BAD_FILES = {
    "empty": (b"", "is empty"),
    "blank": (b"\n \n", "is empty"),
    "only a header": (b"path,label,person\n", "has a header and no rows"),
    "binary": (b"\x89PNG\r\n\x1a\n\x00\x00\xff\xd8", "is not UTF-8 text"),
    "nul bytes": (b"path,label,person\na\x00,b,c\n", "NUL bytes"),
    "another encoding": ("path,label,person\na.jpg,고양이,p\n".encode("cp949"), "is not UTF-8 text (row 2)"),
    "ragged": (b"path,label,person\na,x,p\nb,y\nc,x,r,s\n", "2 rows of"),
    "an open quote": (b'path,label,person\n"a,x,p\nb,y,q\n', "is not a readable CSV"),
    "a column twice": (b"path,label,person,label\na,x,p,x\n", "more than one column 'label'"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_file_that_is_no_whole_csv_is_refused(tmp_path, case):
    content, message = BAD_FILES[case]
    error = refused(write_csv(tmp_path, content))
    assert message in error.message
    assert str(tmp_path / "table.csv") in error.message
    assert error.hint


def test_ragged_rows_are_named_with_their_length(tmp_path):
    error = refused(write_csv(tmp_path, BAD_FILES["ragged"][0]))
    assert error.details == ("row 3: 2 cells", "row 4: 4 cells")


@pytest.mark.parametrize(("column", "option"), [("label", "--label"), ("person", "--person"), ("path", "--path")])
def test_a_missing_column_offers_the_nearest_and_lists_all(tmp_path, column, option):
    path = write_csv(tmp_path, GOOD.replace(column, f"{column.upper()}_x", 1))
    error = refused(path, need_images=True)
    assert f"has no column '{column}'; did you mean '{column.upper()}_x'?" in error.message
    assert f"{option} {column.upper()}_x" in error.hint
    assert all(name in error.hint for name in path.read_text().splitlines()[0].split(","))


def test_a_missing_id_or_split_column_is_an_error(tmp_path):
    assert "no column 'key'" in refused(write_csv(tmp_path, GOOD), id="key").message
    assert "no column 'part'" in refused(write_csv(tmp_path, GOOD), split="part").message


@pytest.mark.parametrize("cell", ["", "nan", "NaN", "  "])
@pytest.mark.parametrize("what", ["label", "person"])
def test_an_empty_label_or_person_is_named_by_row(tmp_path, cell, what):
    row = f"b.jpg,{cell},q" if what == "label" else f"b.jpg,dog,{cell}"
    error = refused(write_csv(tmp_path, GOOD.replace("b.jpg,dog,q", row)))
    assert error.message.startswith("1 of 3 rows of")
    assert f"have no {what}" in error.message
    assert "table.csv row 3" in error.details[0]


def test_many_problems_of_a_kind_are_one_message_with_the_first_ten_and_the_count(tmp_path):
    rows = "".join(f"{i}.jpg,{'' if i > 4 else 'ab'[i % 2]},p{i}\n" for i in range(30))
    error = refused(write_csv(tmp_path, "path,label,person\n" + rows))
    assert error.message.startswith("25 of 30 rows")
    assert len(error.details) == 11
    assert error.details[0].startswith("table.csv row 7:")
    assert error.details[-1] == "… and 15 more"


def test_an_empty_path_is_an_error(tmp_path):
    error = refused(write_csv(tmp_path, GOOD.replace("b.jpg", "")))
    assert "row 3" in error.message
    assert "names no image" in error.message


def test_one_class_alone_is_nothing_to_learn(tmp_path):
    error = refused(write_csv(tmp_path, GOOD.replace("dog", "cat")))
    assert "all 3 samples" in error.message
    assert "'cat': nothing to learn" in error.message


def test_missing_images_are_counted_named_and_a_sibling_with_another_suffix_is_shown(tmp_path):
    path = write_csv(tmp_path, GOOD)
    touch(tmp_path / "a.jpg", tmp_path / "b.png")
    (tmp_path / "c.jpg").mkdir()
    error = refused(path, need_images=True)
    assert error.message.startswith("2 of 3 images named by")
    assert error.details[0] == f"table.csv row 3: {tmp_path / 'b.jpg'} (there is b.png)"
    assert "--path" in error.hint


def test_duplicate_ids_name_both_rows(tmp_path):
    error = refused(write_csv(tmp_path, "id,path,label,person\n1,a,x,p\n2,b,y,q\n1,c,y,q\n"))
    assert "ids of" in error.message
    assert error.details == ("table.csv row 4: '1' stands in table.csv row 2 too",)


@pytest.mark.parametrize(("row", "what"), [("./a.jpg,dog,p", "label 'dog'"), ("x/../a.jpg,cat,q", "person 'q'")])
def test_an_image_with_two_labels_or_two_persons_is_a_contradiction_however_it_is_spelled(tmp_path, row, what):
    error = refused(write_csv(tmp_path, GOOD + row + "\n"))
    assert "contradict an earlier row about the same image" in error.message
    assert error.details[0].startswith("table.csv row 5: a.jpg has " + what)


def test_labels_outside_the_declared_classes_are_named(tmp_path):
    error = refused(write_csv(tmp_path, GOOD), classes=("cat", "cow"))
    assert "'dog'" in error.details[0]
    assert "cat, cow" in error.hint


def test_every_image_its_own_person_is_warned_about(tmp_path):
    assert "its own person" in read(write_csv(tmp_path, GOOD), person_regex="(.+)").warnings[0]
    assert not read(write_csv(tmp_path, GOOD)).warnings


def test_a_file_that_may_not_be_read_is_an_error_with_the_reason(tmp_path, monkeypatch):
    path = write_csv(tmp_path, GOOD)

    def denied(self):
        raise PermissionError(13, "Permission denied", str(self))

    # Not by chmod: the tests may be run by root, who may read everything.
    monkeypatch.setattr(csv_table.Path, "read_bytes", denied)
    error = refused(path)
    assert error.message == f"cannot read {path}: permission denied"


def test_a_person_regex_that_is_none_is_wrong_usage(tmp_path):
    assert "is not a regular expression" in refused(write_csv(tmp_path, GOOD), UsageError, person_regex="(p").message


# --- class folders -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def class_folders(tmp_path) -> Path:
    names = ("normal/p1-1.jpg", "normal/p1-2.JPG", "normal/deep/p2-1.png", "sick/p2-2.jpg", "sick/p3-1.jpeg")
    touch(*(tmp_path / "d" / name for name in names))
    return tmp_path / "d"


def test_class_folders_give_the_label_by_the_top_folder_and_the_person_by_regex(class_folders):
    table = read(class_folders, person_regex=r"/(p\d)-").train
    assert table.ids.tolist() == ["normal/deep/p2-1.png", "normal/p1-1.jpg", "normal/p1-2.JPG", "sick/p2-2.jpg", "sick/p3-1.jpeg"]
    assert table.labels.tolist() == ["normal"] * 3 + ["sick"] * 2
    assert table.persons.tolist() == ["p2", "p1", "p1", "p2", "p3"]
    assert table.paths is not None
    assert all(path.is_absolute() and path.is_file() for path in table.paths)


def test_class_folders_without_a_regex_show_one_on_a_name_of_their_own(class_folders):
    error = refused(class_folders)
    assert "'normal/deep/p2-1.png'" in error.message
    assert "takes 'p2' from 'normal/deep/p2-1.png'" in error.hint
    assert "--person-regex '(.+)'" in error.hint


def test_images_that_the_regex_does_not_match_are_listed(class_folders):
    error = refused(class_folders, person_regex=r"/(p1|p2)-")
    assert error.message.startswith("1 of 5 images get no person")
    assert error.details == ("sick/p3-1.jpeg",)


def test_what_is_no_image_is_ignored_with_a_note(class_folders):
    touch(class_folders / "sick" / "scan.dcm", class_folders / "sick" / "._p3-1.jpeg", class_folders / "top.jpg")
    touch(class_folders / ".cache" / "x.jpg")
    (class_folders / "empty").mkdir()
    data = read(class_folders, person_regex=r"/(p\d)-")
    assert data.train.classes == ("normal", "sick")
    assert len(data.train) == 5
    said = " | ".join(data.notes)
    assert "1 files below" in said
    assert ".dcm" in said
    assert "2 hidden files and folders" in said
    assert "1 images that lie in no class folder" in said


def test_linked_class_folders_are_followed_and_links_in_a_circle_end(class_folders):
    touch(class_folders.parent / "elsewhere" / "p9-1.jpg")
    (class_folders / "linked").symlink_to(class_folders.parent / "elsewhere")
    (class_folders / "sick" / "up").symlink_to(class_folders)
    table = read(class_folders, person_regex=r"(p\d)-").train
    assert table.classes == ("linked", "normal", "sick")
    assert len(table) == 6


def test_folders_of_splits_are_not_taken_for_classes(tmp_path):
    touch(tmp_path / "d" / "train" / "a" / "1.jpg", tmp_path / "d" / "test" / "a" / "2.jpg", tmp_path / "d" / "val" / "b" / "3.jpg")
    error = refused(tmp_path / "d", person_regex="(.+)")
    assert "splits, not classes" in error.message
    assert f"--data {tmp_path / 'd' / 'train'} --test {tmp_path / 'd' / 'test'}" in error.hint


def test_one_folder_of_images_beside_a_csv_points_at_the_csv(tmp_path):
    touch(tmp_path / "images" / "1.jpg")
    write_csv(tmp_path, "file,finding\nimages/1.jpg,x\n")
    error = refused(tmp_path)
    assert "one subfolder, 'images'" in error.message
    assert f"--data {tmp_path / 'table.csv'}" in error.hint


def test_a_folder_with_nothing_in_it_says_what_was_expected(tmp_path):
    error = refused(tmp_path)
    assert "neither one CSV" in error.message
    assert "one subfolder of images a class" in error.hint


def test_column_options_are_refused_where_there_are_no_columns(class_folders):
    assert "--split 'part' does not apply" in refused(class_folders, UsageError, split="part", person_regex="(.+)").message
    assert "--label 'x' does not apply" in refused(class_folders, UsageError, label="x", person_regex="(.+)").message


def test_a_folder_that_may_not_be_listed_is_an_error_not_an_empty_folder(class_folders, monkeypatch):
    real = os.scandir

    def denied(path):
        if str(path).endswith("sick"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", denied)
    assert "cannot read" in refused(class_folders, person_regex="(.+)").message


# --- the mask-competition layout ---------------------------------------------------------------------------------------------

STEMS = ("mask1", "mask2", "mask3", "mask4", "mask5", "incorrect_mask", "normal")
PEOPLE = (
    "000001_female_Asian_45",
    "000002_male_Asian_59",
    "003397_female_Asian_20",  # one id, two people
    "003397_female_Asian_19",
    "000600_male_Asian_60",
    "000600-1_female_Asian_29",  # an id with a suffix beside the plain one
    "006713-1_male_Asian_30",  # and one without
)


def layout(folder: Path, people: tuple[str, ...] = PEOPLE, rows: dict[str, str] | None = None) -> Path:
    lines = ["id,gender,race,age,path"]
    for i, name in enumerate(people):
        identity, gender, race, age = name.split("_")
        lines.append((rows or {}).get(name, f"{identity},{gender},{race},{age},{name}"))
        for stem, suffix in zip(STEMS, ("jpg", "png", "jpeg", "jpg", "JPG", "jpg", "jpg") if i == 1 else ("jpg",) * 7):
            touch(folder / "train" / "images" / name / f"{stem}.{suffix}")
    write_csv(folder / "train", "\n".join(lines) + "\n", "train.csv")
    return folder


def evaluation(folder: Path, answers: str | None = None) -> None:
    write_csv(folder / "eval", "ImageID,ans\nz9.jpg,0\nb2.jpg,0\na1.png,0\n", "info.csv")
    touch(*(folder / "eval" / "images" / name for name in ("z9.jpg", "b2.jpg", "a1.png", "._z9.jpg")))
    if answers is not None:
        write_csv(folder / "eval", answers, "answers.csv")


def test_the_layout_gives_seven_images_a_person_with_all_18_classes_declared(tmp_path):
    table = read_data(DataSpec(layout(tmp_path))).train
    assert len(table) == 7 * len(PEOPLE)
    assert table.classes == tuple(map(str, range(18)))
    assert table.source == str(tmp_path / "train" / "train.csv")
    assert table.paths is not None
    assert all(path.is_file() and path.is_absolute() for path in table.paths)
    assert table.ids[0] == "000001_female_Asian_45/incorrect_mask"
    assert table.where[0] == "train.csv row 2, incorrect_mask"
    by_id = dict(zip(table.ids.tolist(), table.labels.tolist()))
    # mask·6 + gender·3 + age, worked out by hand
    assert by_id["000001_female_Asian_45/mask3"] == "4"
    assert by_id["000001_female_Asian_45/incorrect_mask"] == "10"
    assert by_id["000001_female_Asian_45/normal"] == "16"
    assert by_id["000600_male_Asian_60/mask1"] == "2"
    assert by_id["000600-1_female_Asian_29/normal"] == "15"
    assert by_id["006713-1_male_Asian_30/normal"] == "13"
    assert by_id["000002_male_Asian_59/mask2"] == "1"


def test_attributes_stand_beside_the_class_and_say_what_each_class_means(tmp_path):
    table = read_data(DataSpec(layout(tmp_path))).train
    assert table.class_attributes["17"] == {"mask": "normal", "gender": "female", "age": ">=60"}
    assert table.class_attributes["0"] == {"mask": "wear", "gender": "male", "age": "<30"}
    for name in ("mask", "gender", "age"):
        assert table.attributes[name].tolist() == [table.class_attributes[label][name] for label in table.labels.tolist()]
    assert set(table.attributes["race"]) == {"Asian"}
    assert table.attributes["years"][0] == "45"


def test_an_id_that_two_folders_share_is_two_people_and_is_said(tmp_path):
    data = read_data(DataSpec(layout(tmp_path)))
    assert len(set(data.train.persons.tolist())) == len(PEOPLE)
    assert "id 003397 belongs to 2 folders: persons are told apart by folder" in data.notes
    assert any(note.startswith("1 ids with a suffix (000600-1) stand beside the plain id") for note in data.notes)


def test_appledouble_files_are_skipped_and_counted(tmp_path):
    layout(tmp_path)
    images = tmp_path / "train" / "images"
    touch(images / PEOPLE[0] / "._mask1.jpg", images / PEOPLE[1] / "._normal.png", images / f"._{PEOPLE[0]}", images / PEOPLE[0] / ".DS_Store")
    data = read_data(DataSpec(tmp_path))
    assert len(data.train) == 7 * len(PEOPLE)
    assert "3 '._' files skipped" in data.notes


def test_where_the_table_and_a_folder_name_disagree_the_name_wins_and_it_is_said(tmp_path):
    name = PEOPLE[0]
    data = read_data(DataSpec(layout(tmp_path, rows={name: f"000001,male,Asian,25,{name}"})))
    label = dict(zip(data.train.ids.tolist(), data.train.labels.tolist()))[f"{name}/normal"]
    assert label == "16"
    assert any(note.startswith("1 rows of") and "the name was taken" in note and name in note for note in data.notes)


def test_a_folder_with_another_kind_of_name_takes_gender_and_age_from_the_table(tmp_path):
    layout(tmp_path)
    touch(tmp_path / "train" / "images" / "walk-in" / "normal.jpg")
    with open(tmp_path / "train" / "train.csv", "a") as file:
        file.write("x,Female,Asian,61,walk-in\n")
    table = read_data(DataSpec(tmp_path)).train
    assert dict(zip(table.ids.tolist(), table.labels.tolist()))["walk-in/normal"] == "17"


def test_strange_files_and_folders_of_the_layout_are_ignored_with_a_note(tmp_path):
    layout(tmp_path)
    touch(tmp_path / "train" / "images" / PEOPLE[0] / "portrait.jpg", tmp_path / "train" / "images" / "000009_male_Asian_20" / "mask1.jpg")
    data = read_data(DataSpec(tmp_path))
    assert len(data.train) == 7 * len(PEOPLE)
    assert any(note.startswith("1 files that are neither") and "portrait.jpg" in note for note in data.notes)
    assert any(note.startswith("1 folders of") and "000009_male_Asian_20" in note for note in data.notes)


@pytest.mark.parametrize("pointed", ["", "train", "train/train.csv"])
def test_the_layout_is_known_by_its_folder_its_train_folder_or_its_csv(tmp_path, pointed):
    layout(tmp_path)
    evaluation(tmp_path)
    data = read_data(DataSpec(tmp_path / pointed))
    assert len(data.train) == 7 * len(PEOPLE)
    assert data.test is not None


def test_the_layout_can_be_split_from_its_csv_alone(tmp_path):
    with_images = read(layout(tmp_path / "a")).train
    layout(tmp_path / "b")
    (tmp_path / "b" / "train" / "images").rename(tmp_path / "elsewhere")
    data = read(tmp_path / "b")
    assert data.train.sha == with_images.sha
    assert data.train.paths is None
    assert any("no folder" in note for note in data.notes)
    assert "its images are not" in refused(tmp_path / "b", need_images=True).message


def test_the_test_set_is_in_the_order_of_info_csv_and_its_ans_is_never_a_label(tmp_path):
    evaluation(layout(tmp_path))
    test = read_data(DataSpec(tmp_path)).test
    assert test is not None
    assert test.ids.tolist() == ["z9.jpg", "b2.jpg", "a1.png"]
    assert (test.labels, test.persons) == (None, None)
    assert test.classes == tuple(map(str, range(18)))
    assert test.paths is not None
    assert all(path.is_file() for path in test.paths)


def test_answers_give_test_labels_and_persons_by_image_id(tmp_path):
    evaluation(layout(tmp_path), "ImageID,ans,person\na1.png,17,P3\nz9.jpg,0,P1\nb2.jpg,6,P2\n")
    data = read_data(DataSpec(tmp_path))
    assert data.test is not None
    assert data.test.labels.tolist() == ["0", "6", "17"]
    assert data.test.persons.tolist() == ["P1", "P2", "P3"]
    assert data.test.attributes["mask"].tolist() == ["wear", "incorrect", "normal"]
    assert any("answers.csv" in note for note in data.notes)


def test_answers_that_lack_an_image_are_an_error(tmp_path):
    evaluation(layout(tmp_path), "ImageID,ans\na1.png,17\n")
    error = refused(tmp_path)
    assert error.message.startswith("2 of 3 images in")
    assert error.details[0] == "info.csv row 2: z9.jpg"


def test_a_test_image_that_is_not_there_is_an_error(tmp_path):
    evaluation(layout(tmp_path))
    (tmp_path / "eval" / "images" / "b2.jpg").unlink()
    assert "b2.jpg" in refused(tmp_path, need_images=True).details[0]


def test_an_evaluation_set_can_be_named_by_test(tmp_path):
    evaluation(tmp_path)
    for path in (tmp_path, tmp_path / "eval", tmp_path / "eval" / "info.csv"):
        assert read_test(path)[0].ids.tolist() == ["z9.jpg", "b2.jpg", "a1.png"]


def test_a_row_without_its_folder_or_a_folder_named_twice_is_an_error(tmp_path):
    layout(tmp_path)
    (tmp_path / "train" / "images" / PEOPLE[0]).rename(tmp_path / "gone")
    error = refused(tmp_path)
    assert error.details[0] == f"train.csv row 2: no folder {tmp_path / 'train' / 'images' / PEOPLE[0]}"
    again = layout(tmp_path / "again", rows={PEOPLE[1]: f"1,female,Asian,45,{PEOPLE[0]}"})
    assert f"folder {PEOPLE[0]} is named in train.csv row 2 too" in refused(again).details[0]


def test_an_impossible_gender_or_age_is_an_error(tmp_path):
    layout(tmp_path)
    with open(tmp_path / "train" / "train.csv", "a") as file:
        file.write("x,woman,Asian,old,walk-in\n")
    assert refused(tmp_path).details == ("train.csv row 9: gender 'woman' and age 'old', expected male or female and a whole number",)


def test_two_files_of_one_stem_are_an_error(tmp_path):
    layout(tmp_path)
    touch(tmp_path / "train" / "images" / PEOPLE[0] / "mask1.png")
    assert f"{PEOPLE[0]} holds both mask1.jpg and mask1.png" in refused(tmp_path).details[0]


def test_column_options_do_not_apply_to_the_layout(tmp_path):
    assert "--person-regex '(.+)' does not apply" in refused(layout(tmp_path), UsageError, person_regex="(.+)").message


# --- as a whole ------------------------------------------------------------------------------------------------------------


def test_reading_imports_neither_pandas_nor_scikit_learn_nor_torch():
    code = "import sys, folds.readers, folds.split, folds.sources; print(sorted({'pandas', 'sklearn', 'torch', 'PIL'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(not XRAY.is_file(), reason="the radiographs are not here")
def test_the_radiographs_are_read_whole():
    table = read_data(DataSpec(XRAY)).train
    assert (len(table), len(set(table.persons.tolist()))) == (5840, 3273)
    assert table.classes == ("bacteria", "normal", "virus")
    data = read_data(DataSpec(XRAY, split="split"), need_images=False)
    assert data.test is not None
    assert (len(data.train), len(data.test), data.warnings) == (5216, 624, ())
