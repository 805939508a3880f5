"""What can be wrong with a CSV: an error for each, that names the file, the row and the way out."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from folds.data.readers import read_data
from folds.data.table import Dataset, DataSpec
from folds.errors import EnsembleError, UsageError
from folds.utils import csv_table
from folds.utils.csv_table import read_csv, read_header

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


@pytest.mark.parametrize("column", ["label", "person", "path"])
def test_a_missing_column_offers_the_nearest_and_lists_all(tmp_path, column):
    path = write_csv(tmp_path, GOOD.replace(column, f"{column.upper()}_x", 1))
    error = refused(path, need_images=True)
    assert f"has no column '{column}'; did you mean '{column.upper()}_x'?" in error.message
    assert f"`{column}={column.upper()}_x`" in error.hint
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


def test_many_problems_give_one_error_with_ten_and_the_count(tmp_path):
    rows = "".join(f"{i}.jpg,{'' if i > 4 else 'ab'[i % 2]},p{i}\n" for i in range(30))
    error = refused(write_csv(tmp_path, "path,label,person\n" + rows))
    assert error.message.startswith("25 of 30 rows")
    assert len(error.details) == 11
    assert error.details[0].startswith("table.csv row 7:")
    assert error.details[-1] == "… and 15 more"


def test_an_empty_path_is_an_error(tmp_path):
    error = refused(write_csv(tmp_path, GOOD.replace("b.jpg", "")))
    assert "row 3" in error.message
    assert "has no image path" in error.message


def test_one_class_alone_is_nothing_to_learn(tmp_path):
    error = refused(write_csv(tmp_path, GOOD.replace("dog", "cat")))
    assert "in all 3 samples" in error.message
    assert "found the label 'cat'" in error.message


def test_missing_images_are_counted_and_other_suffixes_suggested(tmp_path):
    path = write_csv(tmp_path, GOOD)
    touch(tmp_path / "a.jpg", tmp_path / "b.png")
    (tmp_path / "c.jpg").mkdir()
    error = refused(path, need_images=True)
    assert error.message.startswith("2 of 3 images of")
    assert error.details[0] == f"table.csv row 3: {tmp_path / 'b.jpg'} (there is b.png)"
    assert "`path`" in error.hint


def test_duplicate_ids_name_both_rows(tmp_path):
    error = refused(write_csv(tmp_path, "id,path,label,person\n1,a,x,p\n2,b,y,q\n1,c,y,q\n"))
    assert "ids of" in error.message
    assert error.details == ("table.csv row 4: '1' is also in table.csv row 2",)


@pytest.mark.parametrize(("row", "what"), [("./a.jpg,dog,p", "label 'dog'"), ("x/../a.jpg,cat,q", "person 'q'")])
def test_an_image_with_two_labels_or_persons_is_refused(tmp_path, row, what):
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


def test_line_ends_inside_cells_become_plain_ones(tmp_path):
    table = read(write_csv(tmp_path, 'path,label,person,note\r\na,x,p,"one\r\ntwo\rthree"\r\nb,y,q,\r\n')).train
    assert table.attributes["note"].tolist() == ["one\ntwo\nthree", ""]


rows = st.text(alphabet='ab,;\t"\n\r \ufeffé\x85', max_size=60).map(
    lambda text: ("path,label,person\n" + text).encode()
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=40) | rows)
def test_any_bytes_give_a_sound_table_or_an_error_of_our_own(tmp_path, content):
    try:
        table = read(write_csv(tmp_path, content)).train
    except EnsembleError:
        return
    assert len(set(table.ids.tolist())) == len(table) > 1
    assert set(table.labels.tolist()) == set(table.classes)


PLAIN = "path,label,person\na.jpg,cat,p1\nb.jpg,dog,p2\n"


@pytest.mark.parametrize(
    ("text", "first"),
    [
        (PLAIN, 2),
        ("sep=;\n" + PLAIN.replace(",", ";"), 3),
        ("SEP=|\r\n" + PLAIN.replace(",", "|"), 3),
        ("# exported, on Monday\n#\n" + PLAIN, 4),
        (PLAIN + ",,\n , ,\n,,\n", 2),
        (PLAIN.replace(",", "|"), 2),
        ('"path";"label, in words";person\na.jpg;cat;p1\nb.jpg;dog;p2\n', 2),
    ],
    ids=["plain", "sep", "sep bar", "comments", "empty rows", "bars", "comma in a quoted name"],
)
def test_dialects_of_csv_give_the_same_rows(tmp_path, text, first):
    (tmp_path / "t.csv").write_text(text, newline="")
    table = read_csv(tmp_path / "t.csv")
    assert list(table.columns.values()) == [["a.jpg", "b.jpg"], ["cat", "dog"], ["p1", "p2"]]
    assert list(table.numbers) == [first, first + 1]
    assert read_header(tmp_path / "t.csv") == list(table.columns)


def test_a_header_that_begins_with_a_hash_is_no_comment(tmp_path):
    (tmp_path / "t.csv").write_text("#id,label\n1,cat\n")
    assert read_csv(tmp_path / "t.csv").columns == {"#id": ["1"], "label": ["cat"]}


def test_an_empty_row_in_the_middle_keeps_the_numbers(tmp_path):
    (tmp_path / "t.csv").write_text("id,label\n1,cat\n,\n2,dog\n")
    table = read_csv(tmp_path / "t.csv")
    assert table.columns["id"] == ["1", "2"]
    assert list(table.numbers) == [2, 4]


def test_a_cell_of_a_megabyte_is_read(tmp_path):
    mask = "1 2 " * 250_000
    (tmp_path / "t.csv").write_text(f'id,rle\n1,"{mask}"\n2,{mask}\n')
    assert read_csv(tmp_path / "t.csv").columns["rle"] == [mask.strip()] * 2
