"""Names of images that are not quite those of the files: found where one file fits, else an error that names them."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from folds.data import image_files
from folds.data.image_paths import IMAGE_SUFFIXES
from folds.data.images_to_predict import read_test
from folds.data.readers import read_data
from folds.data.table import DataSpec
from folds.errors import EnsembleError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def table(folder: Path, names) -> Path:
    path = folder / "t.csv"
    rows = (f"{name},{'ab'[i % 2]},p{i}\n" for i, name in enumerate(names))
    path.write_text("path,label,person\n" + "".join(rows), encoding="utf-8")
    return path


def found(path: Path, **spec) -> tuple[list[str], list[str]]:
    data = read_data(DataSpec(path, **spec))
    return [str(one.relative_to(path.parent)) for one in data.train.paths], list(data.notes)


def test_a_missing_suffix_is_found_in_the_folder_of_images(tmp_path):
    touch(tmp_path, "images/ISIC_1.jpg", "images/ISIC_2.JPEG", "images/ISIC_2_mask.png", "images/ISIC_1.txt")
    paths, notes = found(table(tmp_path, ["ISIC_1", "ISIC_2"]), images=(str(tmp_path / "images"),))
    assert paths == ["images/ISIC_1.jpg", "images/ISIC_2.JPEG"]
    assert "2 of 2 images" in notes[0]
    assert "suffix" in notes[0]


def test_ids_and_paths_in_the_table_stay_as_written(tmp_path):
    touch(tmp_path, "x.jpg", "y.jpg")
    data = read_data(DataSpec(table(tmp_path, ["x", "y"])))
    assert data.train.ids.tolist() == ["x", "y"]


@pytest.mark.parametrize(
    ("name", "file", "how"),
    [
        (unicodedata.normalize("NFC", "사진é.png"), unicodedata.normalize("NFD", "사진é.png"), "Unicode form"),
        (unicodedata.normalize("NFC", "é/1.png"), unicodedata.normalize("NFD", "é/1.png"), "Unicode form"),
        ("img_1.jpg", "IMG_1.JPG", "case"),
        ("Images/a.jpg", "images/a.jpg", "case"),
    ],
)
def test_another_form_of_a_name_is_found_and_said(tmp_path, name, file, how):
    touch(tmp_path, file, "z.jpg")
    if (tmp_path / name).exists():
        pytest.skip("this file system does not tell the two names apart")
    paths, notes = found(table(tmp_path, [name, "z.jpg"]))
    assert paths == [file, "z.jpg"]
    assert "1 of 2 images" in notes[0]
    assert how in notes[0]


@pytest.mark.parametrize(("name", "files"), [("a", ["a.jpg", "a.png"]), ("A.jpg", ["a.jpg", "a.JPG"])])
def test_a_name_that_fits_two_files_is_refused_with_both(tmp_path, name, files):
    touch(tmp_path, *files, "z.jpg")
    if len(list(tmp_path.glob("[aA].*"))) < 2:
        pytest.skip("this file system does not tell the two names apart")
    with pytest.raises(EnsembleError, match=r"1 names of images in .* fit several files") as error:
        found(table(tmp_path, [name, "z.jpg"]))
    assert all(file in error.value.details[0] for file in files)


def test_another_suffix_is_not_taken_but_named(tmp_path):
    touch(tmp_path, "a.png", "z.jpg")
    with pytest.raises(EnsembleError, match="do not exist") as error:
        found(table(tmp_path, ["a.jpg", "z.jpg"]))
    assert "(there is a.png)" in error.value.details[0]


def test_the_hint_names_the_folder_that_has_the_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "d/train/x/a.jpg", "d/train/x/b.jpg")
    with pytest.raises(EnsembleError) as error:
        read_data(DataSpec(table(tmp_path / "d", ["a", "b"])))
    assert "there is a.jpg: `images=d/train/x`" in error.value.hint


def test_the_hint_names_all_folders_of_the_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "one/a.jpg", "one/b.jpg", "two/c.jpg", "two/a.jpg", "three/x.jpg")
    path = table(tmp_path, ["a", "b.jpg", "c"])
    with pytest.raises(EnsembleError, match="3 of 3 images") as error:
        read_data(DataSpec(path))
    assert error.value.hint == "there is a.jpg: `images=one,two`"
    with pytest.raises(EnsembleError, match="1 of 3 images") as error:
        read_data(DataSpec(path, images=("one",)))
    assert error.value.hint == "there is c.jpg: `images=one,two`"


def test_the_hint_names_the_folder_that_names_with_a_folder_start_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "images/cat/a.jpg", "images/dog/b.jpg")
    with pytest.raises(EnsembleError) as error:
        read_data(DataSpec(table(tmp_path, ["cat/a.jpg", "dog/b"])))
    assert error.value.hint == "there is a.jpg: `images=images`"
    with pytest.raises(EnsembleError) as error:
        read_data(DataSpec(table(tmp_path, ["bird/a.jpg", "/x/b.jpg"])))
    assert "images=" not in error.value.hint


def test_the_hint_of_a_test_table_names_its_own_option(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "a.jpg", "b.jpg", "t/c.jpg")
    train = table(tmp_path, ["a.jpg", "b.jpg"])
    (tmp_path / "test.csv").write_text("path\nc\n")
    with pytest.raises(EnsembleError) as error:
        read_data(DataSpec(train, test=tmp_path / "test.csv"))
    assert error.value.hint == "there is c.jpg: `test_images=t`"
    with pytest.raises(EnsembleError) as error:
        read_test(tmp_path / "test.csv")
    assert error.value.hint == "there is c.jpg: `images=t`"


def test_images_in_several_folders_are_found_or_ambiguous(tmp_path):
    touch(tmp_path, "one/a.jpg", "two/b.jpg")
    folders = (str(tmp_path / "one"), str(tmp_path / "two"))
    path = table(tmp_path, ["a", "b.jpg"])
    assert found(path, images=folders)[0] == ["one/a.jpg", "two/b.jpg"]
    touch(tmp_path, "two/a.jpg")
    with pytest.raises(EnsembleError, match="fit several files"):
        found(path, images=folders)


def test_two_rows_that_find_one_file_contradict_each_other(tmp_path):
    touch(tmp_path, "a.jpg", "b.jpg")
    with pytest.raises(EnsembleError, match="contradict an earlier row about the same image"):
        found(table(tmp_path, ["a.jpg", "a", "b.jpg"]))


def test_each_folder_is_listed_once(tmp_path, monkeypatch):
    names = [f"d{i % 3}/x{i}" for i in range(30)]
    touch(tmp_path, *(f"{name}.jpg" for name in names))
    listed: list[str] = []
    file_names = image_files._file_names
    monkeypatch.setattr(image_files, "_file_names", lambda folder: listed.append(folder) or file_names(folder))
    assert len(found(table(tmp_path, names))[0]) == 30
    assert len(listed) == 3


def test_folders_are_not_listed_where_no_images_are_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "_file_names", lambda folder: pytest.fail("listed"))
    read_data(DataSpec(table(tmp_path, ["a", "b"])), need_images=False)


def test_all_suffixes_of_the_decoder_are_those_of_images():
    image = pytest.importorskip("PIL.Image")
    from folds.images.decoding_errors import FORMATS

    image.init()
    known = {suffix for suffix, kind in image.EXTENSION.items() if kind in FORMATS}
    assert known - {".pfm"} <= IMAGE_SUFFIXES  # a .pfm holds floats, which need a window


def test_deep_folders_below_the_named_one_are_proposed(tmp_path):
    touch(tmp_path, *(f"photos/batch{i}/cam0/left/0000{i}.JPEG" for i in range(2)))
    path = table(tmp_path, ["00000.JPEG", "00001"])
    with pytest.raises(EnsembleError) as error:
        read_data(DataSpec(path, images=(str(tmp_path / "photos"),)))
    folders = [f"{tmp_path}/photos/batch{i}/cam0/left" for i in range(2)]
    assert error.value.hint.endswith(f"`images={','.join(folders)}`")
    assert len(read_data(DataSpec(path, images=tuple(folders))).train) == 2
