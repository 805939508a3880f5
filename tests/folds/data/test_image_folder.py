"""Class folders: the label by the folder, the person by the file name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from folds.data.readers import read_data
from folds.data.table import Dataset, DataSpec
from folds.errors import EnsembleError, UsageError


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def read(path: Path, /, **spec) -> Dataset:
    return read_data(DataSpec(data=path, **spec), need_images=False)


def refused(
    path: Path, kind: type[EnsembleError] = EnsembleError, /, need_images: bool = False, **spec
) -> EnsembleError:
    with pytest.raises(kind) as error:
        read_data(DataSpec(path, **spec), need_images=need_images)
    assert not error.value.message.endswith(".")
    return error.value


@pytest.fixture
def class_folders(tmp_path) -> Path:
    names = ("normal/p1-1.jpg", "normal/p1-2.JPG", "normal/deep/p2-1.png", "sick/p2-2.jpg", "sick/p3-1.jpeg")
    touch(*(tmp_path / "d" / name for name in names))
    return tmp_path / "d"


def test_class_folders_give_labels_and_the_regex_persons(class_folders):
    table = read(class_folders, person_regex=r"/(p\d)-").train
    assert table.ids.tolist() == [
        "normal/deep/p2-1.png",
        "normal/p1-1.jpg",
        "normal/p1-2.JPG",
        "sick/p2-2.jpg",
        "sick/p3-1.jpeg",
    ]
    assert table.labels.tolist() == ["normal"] * 3 + ["sick"] * 2
    assert table.persons.tolist() == ["p2", "p1", "p1", "p2", "p3"]
    assert table.paths is not None
    assert all(path.is_absolute() and path.is_file() for path in table.paths)


def test_class_folders_without_a_regex_suggest_one(class_folders):
    error = refused(class_folders)
    assert "'normal/deep/p2-1.png'" in error.message
    assert "takes 'p2' from 'normal/deep/p2-1.png'" in error.hint
    assert "`person_regex='(.+)'`" in error.hint


def test_images_that_the_regex_does_not_match_are_listed(class_folders):
    error = refused(class_folders, person_regex=r"/(p1|p2)-")
    assert error.message.startswith("1 of 5 images have no match for")
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
    assert "1 images outside the class folders" in said


def test_linked_class_folders_are_followed_once(class_folders):
    touch(class_folders.parent / "elsewhere" / "p9-1.jpg")
    (class_folders / "linked").symlink_to(class_folders.parent / "elsewhere")
    (class_folders / "sick" / "up").symlink_to(class_folders)
    table = read(class_folders, person_regex=r"(p\d)-").train
    assert table.classes == ("linked", "normal", "sick")
    assert len(table) == 6


def test_folders_of_splits_are_not_taken_for_classes(tmp_path):
    touch(
        tmp_path / "d" / "train" / "1.jpg",
        tmp_path / "d" / "test" / "2.jpg",
        tmp_path / "d" / "val" / "3.jpg",
    )
    error = refused(tmp_path / "d", person_regex="(.+)")
    assert "splits, not classes" in error.message
    assert f"`data={tmp_path / 'd' / 'train'}` `test={tmp_path / 'd' / 'test'}`" in error.hint


def test_one_folder_of_images_beside_a_csv_points_at_the_csv(tmp_path):
    touch(tmp_path / "images" / "1.jpg")
    (tmp_path / "table.csv").write_text("file,finding\nimages/1.jpg,x\n")
    error = refused(tmp_path)
    assert "one subfolder, 'images'" in error.message
    assert f"`data={tmp_path / 'table.csv'}`" in error.hint


def test_a_folder_with_nothing_in_it_says_what_was_expected(tmp_path):
    error = refused(tmp_path)
    assert "expected one CSV" in error.message
    assert "one subfolder of images per class" in error.hint


def test_column_options_are_refused_where_there_are_no_columns(class_folders):
    assert (
        "`split='part'` does not apply" in refused(class_folders, UsageError, split="part", person_regex="(.+)").message
    )
    assert "`label='x'` does not apply" in refused(class_folders, UsageError, label="x", person_regex="(.+)").message


def test_unreadable_folder_is_an_error(class_folders, monkeypatch):
    real = os.scandir

    def denied(path):
        if str(path).endswith("sick"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", denied)
    assert "cannot read" in refused(class_folders, person_regex="(.+)").message


def test_file_names_that_no_csv_can_hold_are_refused_by_name(class_folders):
    odd = class_folders / "sick" / os.fsdecode(b"p\xff-1.jpg")
    touch(odd)
    error = refused(class_folders, person_regex="(.+)")
    assert error.message.startswith("1 file names of")
    assert "udcff" in error.details[0]
    odd.rename(class_folders / "sick" / "a\rb.jpg")
    assert refused(class_folders, person_regex="(.+)").details == (r"'sick/a\rb.jpg'",)
    (class_folders / "sick" / "a\rb.jpg").rename(class_folders / "sick" / "환자.jpg")
    assert "sick/환자.jpg" in read(class_folders, person_regex="(.+)").train.ids
