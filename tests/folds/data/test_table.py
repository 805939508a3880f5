"""Reading tables of images: the three forms, what is kept of them, and an error for everything that is wrong with
one.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from folds.data.images_to_predict import read_test
from folds.data.readers import read_data
from folds.data.table import Dataset, DataSpec
from folds.errors import EnsembleError, UsageError

XRAY = Path(__file__).parents[4] / "shared" / "data" / "xray" / "index.csv"
GOOD = "path,label,person\na.jpg,cat,p\nb.jpg,dog,q\nc.jpg,cat,p\n"


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def write_csv(folder: Path, text: str | bytes, name: str = "table.csv") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read(path: Path, /, **spec) -> Dataset:
    return read_data(DataSpec(data=path, **spec), need_images=False)


def refused(
    path: Path, kind: type[EnsembleError] = EnsembleError, /, need_images: bool = False, **spec
) -> EnsembleError:
    with pytest.raises(kind) as error:
        read_data(DataSpec(path, **spec), need_images=need_images)
    assert not error.value.message.endswith(".")
    return error.value


# --- a CSV
# ---------------------------------------------------------------------------------------------------------------


def test_csv_gives_ids_paths_labels_persons_and_locations(tmp_path, monkeypatch):
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
    assert table.locations == ("table.csv row 2", "table.csv row 3", "table.csv row 4")


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
    assert table.locations == ("table.csv row 2", "table.csv row 4")


def test_columns_can_have_any_name(tmp_path):
    path = write_csv(tmp_path, "key,file,finding,patient\nk1,a.jpg,x,p\nk2,b.jpg,y,q\n")
    table = read(path, path="file", label="finding", person="patient", id="key").train
    assert (table.ids.tolist(), table.labels.tolist(), table.persons.tolist()) == (["k1", "k2"], ["x", "y"], ["p", "q"])
    assert table.paths is not None
    assert table.paths[0] == tmp_path / "a.jpg"


def test_other_columns_are_kept_as_attributes(tmp_path):
    text = "id,label,person,gender,age,site\n1,a,p,m,old,x\n2,b,q,f,old,y\n3,a,r,m,old,y\n4,c,s,f,young,x\n"
    table = read(write_csv(tmp_path, text)).train
    assert set(table.attributes) == {"gender", "age", "site"}
    assert table.attributes["site"].tolist() == ["x", "y", "y", "x"]
    assert table.class_attributes == {
        "a": {"gender": "m", "age": "old"},
        "b": {"gender": "f", "age": "old"},
        "c": {"gender": "f", "age": "young"},
    }


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


def test_sha_depends_on_content_not_on_paths(tmp_path):
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
    assert part.locations == ("table.csv row 4", "table.csv row 2")
    assert part.classes == ("x", "y", "z")
    assert part.rows().labels.tolist() == ["z", "x"]


def test_declared_classes_keep_their_order_even_without_samples(tmp_path):
    table = read(write_csv(tmp_path, GOOD), classes=("dog", "eel", "cat")).train
    assert table.classes == ("dog", "eel", "cat")
    assert table.label_codes().tolist() == [2, 0, 2]


# --- test rows
# -----------------------------------------------------------------------------------------------------------

SPLIT = "path,label,person,split\na,x,p,train\nb,y,q,val\nc,x,r,Test\nd,y,s,TEST\n"


def test_rows_marked_test_are_kept_apart_in_any_case(tmp_path):
    data = read(write_csv(tmp_path, SPLIT), split="split")
    assert data.train.ids.tolist() == ["a", "b"]
    assert data.test is not None
    assert data.test.ids.tolist() == ["c", "d"]
    assert data.test.locations == ("table.csv row 4", "table.csv row 5")
    assert "split" not in data.train.attributes
    assert "train (1), val (1), Test (1), TEST (1)" in data.notes[0]


def test_split_column_without_test_is_an_error_with_its_values(tmp_path):
    error = refused(write_csv(tmp_path, SPLIT.replace("Test", "eval").replace("TEST", "eval")), split="split")
    assert "column 'split'" in error.message
    assert "eval (2)" in error.message


def test_rows_that_are_all_test_leave_nothing_to_train_on(tmp_path):
    assert (
        "expected a value other than 'test'"
        in refused(write_csv(tmp_path, SPLIT.replace("train", "test").replace("val", "test")), split="split").message
    )


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
    assert "not among the 2 declared classes" in error.message
    assert "'zebra'" in error.details[0]
    assert "row 5" in error.details[0]


def test_people_in_training_and_test_give_a_warning_with_count(tmp_path):
    data = read(write_csv(tmp_path, SPLIT.replace("c,x,r", "c,x,p").replace("d,y,s", "d,y,p")), split="split")
    assert any("1 people appear in both training and test (p; 2 test images)" in line for line in data.warnings)
    assert not any("both" in line for line in read(write_csv(tmp_path, SPLIT), split="split").warnings)


def test_the_same_image_in_training_and_test_is_warned_about(tmp_path):
    test = write_csv(tmp_path / "sub", "path\n../a.jpg\n")
    data = read(write_csv(tmp_path, GOOD), test=test)
    assert any("1 images appear in both training and test" in line for line in data.warnings)


def test_a_test_csv_may_lack_labels_and_persons_and_says_so(tmp_path):
    data = read(write_csv(tmp_path, GOOD), test=write_csv(tmp_path, "path\nz.jpg\ny.jpg\n", "test.csv"))
    assert data.test is not None
    assert (data.test.ids.tolist(), data.test.labels, data.test.persons) == (["z.jpg", "y.jpg"], None, None)
    assert any("no column 'label': read without labels" in note for note in data.notes)
    with pytest.raises(EnsembleError, match="has no labels"):
        data.test.label_codes()


def test_a_test_csv_with_labels_outside_the_classes_is_refused(tmp_path):
    error = refused(
        write_csv(tmp_path, GOOD), test=write_csv(tmp_path, "path,label\nz.jpg,cow\ny.jpg,cat\n", "test.csv")
    )
    assert "test.csv are not among the 2 declared classes" in error.message
    assert "'cow'" in error.details[0]
    assert "regression" not in error.hint


def test_numbers_of_a_test_table_that_are_no_classes_name_the_task(tmp_path):
    rows = "".join(
        f"{letter}.jpg,{age},{letter}\n" for letter, age in zip("abcd", (34.5, 61.2, 34.5, 61.2), strict=True)
    )
    error = refused(
        write_csv(tmp_path, f"path,label,person\n{rows}"),
        test=write_csv(tmp_path, "path,label\nz.jpg,47.1\n", "test.csv"),
    )
    assert "task=regression" in error.hint


def test_test_folder_is_sorted_at_any_depth_without_hidden_files(tmp_path):
    touch(
        *(
            tmp_path / "t" / name
            for name in ("b.PNG", "x/a.jpg", "x/y/c.jpeg", "._b.PNG", "x/.ipynb_checkpoints/a.jpg", "notes.txt")
        )
    )
    table, notes = read_test(tmp_path / "t", classes=("cat", "dog"))
    assert table.ids.tolist() == ["b.PNG", "x/a.jpg", "x/y/c.jpeg"]
    assert table.labels is None
    assert table.classes == ("cat", "dog")
    assert any("hidden" in note for note in notes)
    assert any("1 files below" in note and ".txt" in note for note in notes)


def test_test_folder_has_labels_only_if_all_folders_are_classes(tmp_path):
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


# --- as a whole
# ------------------------------------------------------------------------------------------------------------


def test_reading_does_not_import_pandas_scikit_learn_or_torch():
    code = "import sys, folds.data.readers, folds.splits.kfold, folds.data.sources; print(sorted({'pandas', 'sklearn', 'torch', 'PIL'} & set(sys.modules)))"
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
