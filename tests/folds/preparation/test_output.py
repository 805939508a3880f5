"""The folder of a prepared set: names that are safe, places that are refused, and a journal that survives a kill."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from folds.data.table import SampleTable
from folds.errors import EnsembleError
from folds.preparation.output import (
    JOURNAL,
    RECORD,
    PreparedFolder,
    check_output_folder,
    differences,
    image_names,
    write_table,
)
from folds.utils.csv_table import read_csv
from folds.utils.files import sha256_bytes

NASTY = [
    "../../etc/passwd",
    "/absolute",
    "a/../b",
    "..",
    ".",
    ".hidden",
    "a//b",
    "C:\\x",
    "täst/ä.jpg",
    "nul\0",
    "x" * 300,
    "a.png/b.jpg",
    "a.jpg",
    "a b",
]


def test_readable_ids_keep_their_names_without_the_suffix() -> None:
    assert image_names("train", ["p1/mask1", "p1/normal.jpg", "b-2.v1.png"]) == [
        "images/train/p1/mask1.png",
        "images/train/p1/normal.png",
        "images/train/b-2.v1.png",
    ]


def test_file_names_are_unique_even_if_case_is_ignored() -> None:
    names = image_names("train", ["a.jpg", "a.png", "A", "b.jpg"])
    assert len({name.lower() for name in names}) == 4
    assert names[3] == "images/train/b.png"


@given(st.lists(st.text() | st.sampled_from(NASTY), unique=True, max_size=8))
def test_no_id_leads_out_of_the_folder_or_to_the_file_of_another(ids: list[str]) -> None:
    names = image_names("test", ids)
    assert len({name.casefold() for name in names}) == len(ids)
    for name in names:
        assert name.startswith("images/test/")
        assert name.endswith(".png")
        assert name.isascii()
        assert os.path.normpath(name) == name
        assert all(not folder.endswith(".png") and len(folder) < 250 for folder in name.split("/")[:-1])
        assert not any(part.startswith(".") for part in name.split("/"))


def test_folders_that_hold_or_lie_in_the_data_are_refused(tmp_path: Path) -> None:
    images = tmp_path / "photos" / "people" / "p1"
    images.mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    table = tmp_path / "tables" / "a.csv"
    table.parent.mkdir()
    table.touch()
    original = [images / "a.jpg"]
    for out, data in [
        (tmp_path / "photos", tmp_path / "photos"),
        (tmp_path / "photos" / "new", tmp_path / "photos"),
        (tmp_path / "link" / "new", tmp_path / "photos"),
        (tmp_path, tmp_path / "photos"),
        (tmp_path / "photos", table),
        (images, table),
        (tmp_path / "tables", table),
        (tmp_path / "photos" / ".." / "photos" / "people", table),
    ]:
        with pytest.raises(EnsembleError, match=r"original") as caught:
            check_output_folder(out, data, original)
        assert caught.value.hint == "name a folder outside the data, e.g. `output=prepared`"
    for out in (tmp_path / "photos" / "prepared", tmp_path / "tables" / "prepared", tmp_path / "photos2"):
        check_output_folder(out, table, original)


def started(out: Path, record: dict[str, object] | None = None) -> PreparedFolder:
    folder = PreparedFolder(out, record or {"margin": 0.3, "crop": {"by": "opencv"}})
    folder.begin(resume=False)
    return folder


def test_a_folder_with_other_things_is_refused_also_with_force(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for words in ((False, False), (True, False), (False, True)):
        with pytest.raises(EnsembleError, match=r"expected a new or empty folder to write to, found mine\.txt"):
            PreparedFolder(tmp_path, {}).check(*words)
    (tmp_path / "mine.txt").unlink()
    (tmp_path / RECORD).write_text('{"what": "another program\'s"}')
    with pytest.raises(EnsembleError, match=r"found prepare\.json"):
        PreparedFolder(tmp_path, {}).check(resume=False, force=True)
    (tmp_path / "file").touch()
    with pytest.raises(EnsembleError, match="expected a folder to write to, found the file"):
        PreparedFolder(tmp_path / "file", {}).check(resume=False, force=False)


def test_existing_set_needs_resume_or_force(tmp_path: Path) -> None:
    folder = started(tmp_path)
    with pytest.raises(EnsembleError, match="is not complete") as caught:
        folder.check(resume=False, force=False)
    assert "`resume=True`" in (caught.value.hint or "")
    folder.complete([], {})
    with pytest.raises(EnsembleError, match="is complete") as caught:
        folder.check(resume=False, force=False)
    assert "`force=True`" in (caught.value.hint or "")
    folder.check(resume=True, force=False)
    folder.check(resume=False, force=True)


def test_a_resume_under_other_settings_shows_the_difference(tmp_path: Path) -> None:
    started(tmp_path)
    other = PreparedFolder(tmp_path, {"margin": 0.5, "crop": {"by": "mediapipe"}})
    with pytest.raises(EnsembleError, match="was prepared with other settings") as caught:
        other.check(resume=True, force=False)
    assert caught.value.details == (
        "margin: expected 0.5, found 0.3",
        'crop by: expected "mediapipe", found "opencv"',
    )
    other.check(resume=False, force=True)


def test_a_setting_only_one_side_has_is_a_difference() -> None:
    assert list(differences({"a": 1}, {"b": 2})) == ["a: expected null, found 1", "b: expected 2, found null"]
    assert list(differences({"a": {"b": 1}}, {"a": {"b": 1}})) == []


def test_force_removes_the_set_and_nothing_else(tmp_path: Path) -> None:
    folder = started(tmp_path / "out")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.png").touch()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    (tmp_path / "out" / "images").symlink_to(tmp_path / "elsewhere")
    folder.note("x", sha="1")
    folder.begin(resume=False)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["notes.txt", RECORD]
    assert (tmp_path / "elsewhere" / "a.png").exists()


def test_a_torn_line_costs_that_line_only(tmp_path: Path) -> None:
    folder = started(tmp_path)
    folder.note("one", boxes=[])
    with open(tmp_path / JOURNAL, "ab") as file:
        file.write(b'{"of": "two", "box')
    again = PreparedFolder(tmp_path, folder.record)
    again.begin(resume=True)
    again.note("three", boxes=[[1, 2, 3, 4, 0.5]])
    last = PreparedFolder(tmp_path, folder.record)
    last.begin(resume=True)
    assert last.entry("one") == {"of": "one", "boxes": []}
    assert last.entry("two") is None
    assert last.entry("three") == {"of": "three", "boxes": [[1, 2, 3, 4, 0.5]]}


@pytest.mark.parametrize("line", [b"[]\n", b"3\n", b"null\n", b'{"boxes": []}\n', b"\xff\xfe\n", b"\n"])
def test_lines_that_say_nothing_are_passed_over(tmp_path: Path, line: bytes) -> None:
    folder = started(tmp_path)
    (tmp_path / JOURNAL).write_bytes(line)
    folder.begin(resume=True)
    assert folder.entry("boxes") is None


def test_image_is_made_if_intact_with_equal_source_and_window(tmp_path: Path) -> None:
    folder = started(tmp_path)
    (tmp_path / "a.png").write_bytes(b"picture")
    folder.note("a.png", source="s", window=[0, 0, 2, 2], sha=sha256_bytes(b"picture"))
    assert folder.is_made("a.png", "s", (0, 0, 2, 2))
    assert folder.is_made("a.png", "t", (0, 0, 2, 2)) is None
    assert folder.is_made("a.png", "s", (0, 0, 2, 3)) is None
    assert folder.is_made("b.png", "s", (0, 0, 2, 2)) is None
    (tmp_path / "a.png").write_bytes(b"pict")
    assert folder.is_made("a.png", "s", (0, 0, 2, 2)) is None
    (tmp_path / "a.png").unlink()
    assert folder.is_made("a.png", "s", (0, 0, 2, 2)) is None


def test_temporary_files_of_a_kill_are_removed_on_a_resume(tmp_path: Path) -> None:
    folder = started(tmp_path)
    left = tmp_path / "images" / "train" / ".a.png.1-ab.tmp"
    left.parent.mkdir(parents=True)
    left.touch()
    folder.begin(resume=True)
    assert not left.exists()


def test_the_journal_ends_in_the_order_asked_for(tmp_path: Path) -> None:
    folder = started(tmp_path)
    for name in "cab":
        folder.note(name)
    folder.complete(["a", "b", "a", "c", "d"], {"train": 3})
    assert [json.loads(line)["of"] for line in (tmp_path / JOURNAL).read_text().splitlines()] == ["a", "b", "c"]
    assert json.loads((tmp_path / RECORD).read_text())["complete"] is True


def test_table_keeps_its_columns_and_renames_reserved_ones(tmp_path: Path) -> None:
    attributes = {"site": ["n", "s, w"], "path": ["x", "y"], "face_found": ["maybe", "no"], "note": ['say "a"\nb', ""]}
    table = SampleTable(
        "a.csv",
        np.array(["1", "ä/2"]),
        None,
        np.array(["cat", "dog"]),
        None,
        ("cat", "dog"),
        {name: np.array(values) for name, values in attributes.items()},
        {},
        ("row 2", "row 3"),
    )
    added = {"face_found": ["yes", "no"], "prepared_from": ["../1.jpg", "../2.jpg"]}
    notes = write_table(tmp_path / "index.csv", table, ["images/1.png", "images/2.png"], added)
    read = read_csv(tmp_path / "index.csv").columns
    assert list(read) == [
        "id",
        "path",
        "label",
        "site",
        "original_path",
        "original_face_found",
        "note",
        "face_found",
        "prepared_from",
    ]
    assert read["site"] == ["n", "s, w"]
    assert read["original_path"] == ["x", "y"]
    assert read["face_found"] == ["yes", "no"]
    assert read["note"] == ['say "a"\nb', ""]
    assert read["original_face_found"] == ["maybe", "no"]
    assert notes == [
        f"column '{name}' of a.csv is 'original_{name}' in {tmp_path / 'index.csv'}" for name in ("path", "face_found")
    ]
    again = replace(
        table, attributes={name: np.array(cells) for name, cells in read.items() if name not in ("id", "path", "label")}
    )
    assert write_table(tmp_path / "again.csv", again, ["1", "2"], {**added, "face_found": ["no", "no"]}) == []
    assert read_csv(tmp_path / "again.csv").columns["face_found"] == ["no", "no"], (
        "those of an earlier preparation are replaced"
    )
