"""Folders as competitions and programs make them: read, or an error with what to type."""

from __future__ import annotations

from pathlib import Path

import pytest

from folds.data.readers import read_data
from folds.data.table import DataSpec
from folds.errors import EnsembleError
from folds.splits.kfold import save_folds, split_by_person


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def rows(name: str, count: int, label=lambda i: i % 3) -> str:
    return f"{name},label\n" + "".join(f"{i}.jpg,{label(i)}\n" for i in range(count))


@pytest.fixture
def kaggle(tmp_path) -> Path:
    folder = tmp_path / "kaggle"
    touch(folder, *(f"train_images/{i}.jpg" for i in range(6)), *(f"test_images/{i}.jpg" for i in range(4)))
    (folder / "train.csv").write_text(rows("image_id", 6))
    (folder / "sample_submission.csv").write_text(rows("image_id", 4, lambda i: 2))
    return folder


@pytest.mark.parametrize("regex", [None, "(.+)"])
@pytest.mark.parametrize("column", ["image_id", "path"])
def test_the_folder_of_a_competition_is_not_two_classes(kaggle, regex, column):
    for path in kaggle.glob("*.csv"):
        path.write_text(path.read_text().replace("image_id", column))
    with pytest.raises(EnsembleError, match=r"sample_submission.csv, train.csv") as error:
        read_data(DataSpec(kaggle, person_regex=regex), need_images=False)
    assert f"`data={kaggle / 'train.csv'}`" in error.value.hint
    assert f"`test={kaggle / 'sample_submission.csv'}` " in error.value.hint


def test_what_the_error_says_to_type_reads_the_competition(kaggle):
    with pytest.raises(EnsembleError) as error:
        read_data(DataSpec(kaggle))
    typed = dict(part.strip("`").split("=") for part in error.value.hint.removeprefix("name it: ").split(" "))
    spec = DataSpec(
        Path(typed["data"]),
        images=(typed["images"],),
        test=Path(typed["test"]),
        test_images=(typed["test_images"],),
        test_labels=typed["test_labels"] == "True",
        person_regex="(.+)",
    )
    data = read_data(spec)
    assert (len(data.train), len(data.test), data.train.classes) == (6, 4, ("0", "1", "2"))
    assert data.test.labels is None
    assert {path.parent.name for path in data.train.paths} == {"train_images"}
    assert {path.parent.name for path in data.test.paths} == {"test_images"}


def test_split_folders_without_a_table_are_refused(kaggle):
    for path in kaggle.glob("*.csv"):
        path.unlink()
    with pytest.raises(EnsembleError, match="splits, not classes"):
        read_data(DataSpec(kaggle, person_regex="(.+)"), need_images=False)


def test_the_only_table_beside_one_folder_of_images_is_read(tmp_path):
    touch(tmp_path, *(f"images/{i}.jpg" for i in range(6)))
    (tmp_path / "meta.csv").write_text(rows("image_id", 6))
    spec = DataSpec(tmp_path, images=(str(tmp_path / "images"),), person_regex="(.+)")
    data = read_data(spec)
    assert len(data.train) == 6
    assert f"reading {tmp_path / 'meta.csv'}" in data.notes


def test_ids_and_labels_at_the_root_find_their_images(tmp_path):
    touch(tmp_path, *(f"{i}.jpg" for i in range(6)))
    (tmp_path / "labels.csv").write_text("id,label\n" + "".join(f"{i},{i % 2}\n" for i in range(6)))
    data = read_data(DataSpec(tmp_path, person_regex="(.+)"))
    assert [path.name for path in data.train.paths] == [f"{i}.jpg" for i in range(6)]


def test_tables_beside_class_folders_are_said_to_be_unread(tmp_path):
    touch(tmp_path, "cat/1.jpg", "dog/2.jpg", "dog/x.jpg", "dog/y.jpg")
    (tmp_path / "labels.csv").write_text("image_id,label\n1,cat\n2,dog\n")
    (tmp_path / "made.csv").write_text("id,p_cat,p_dog\n1,.5,.5\n2,.4,.6\n")
    (tmp_path / "log.csv").write_text("epoch,loss\n1,.5\n2,.4\n")
    (tmp_path / "others.tsv").write_text("image\tlabel\nz\t0\nw\t1\n")
    data = read_data(DataSpec(tmp_path, person_regex="(.+)"))
    assert data.train.classes == ("cat", "dog")
    assert any("not read: labels.csv, log.csv, made.csv, others.tsv" in note for note in data.notes)
    with pytest.raises(EnsembleError, match=r"is unknown, e\.g\. of 'cat/1.jpg'; not read: labels.csv, log.csv, "):
        read_data(DataSpec(tmp_path))


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "d"
    touch(folder, *(f"photos/{i}.jpg" for i in range(6)), *(f"photos_eval/e{i}.jpg" for i in range(4)))
    (folder / "labels.csv").write_text(rows("image_id", 6))
    (folder / "sample_submission.csv").write_text("image_id,label\n" + "".join(f"e{i},0\n" for i in range(4)))
    return folder


@pytest.mark.parametrize("regex", [None, "(.+)"])
def test_folders_of_images_that_a_table_lists_are_no_classes(photos, regex):
    with pytest.raises(EnsembleError, match=r"photos, photos_eval, and labels.csv, sample_submission.csv") as error:
        read_data(DataSpec(photos, person_regex=regex))
    typed, folders = error.value.hint.split("; ")
    assert typed == (
        f"`data={photos}/labels.csv` `images={photos}/photos` reads the table, and where a test set is read, "
        f"`test={photos}/sample_submission.csv` `test_images={photos}/photos_eval` `test_labels=False` its images"
    )
    typed = " ".join(part for part in typed.split(" ") if part[0] == "`")
    spec = dict(part.strip("`").split("=") for part in typed.split(" "))
    data = read_data(
        DataSpec(
            Path(spec["data"]),
            images=(spec["images"],),
            test=Path(spec["test"]),
            test_images=(spec["test_images"],),
            test_labels=False,
            person_regex="(.+)",
        )
    )
    assert (len(data.train), len(data.test), data.train.classes) == (6, 4, ("0", "1", "2"))
    assert folders == f"the folders are read as classes if labels.csv, sample_submission.csv are not in {photos}"
    for name in ("labels.csv", "sample_submission.csv"):
        (photos / name).unlink()
    assert read_data(DataSpec(photos, person_regex="(.+)")).train.classes == ("photos", "photos_eval")


def test_a_table_of_more_images_than_the_folders_hold_counts(tmp_path):
    touch(tmp_path, *(f"{name}/{name}{i}.jpg" for name in ("new", "old") for i in range(3)))
    (tmp_path / "all.csv").write_text(
        "image_id,label\n" + "".join(f"{name}{i},0\n" for name in ("new", "old") for i in range(50))
    )
    with pytest.raises(EnsembleError, match=r"new, old, and all.csv beside them lists their images"):
        read_data(DataSpec(tmp_path, person_regex="(.+)"))


@pytest.mark.parametrize("column", ["image", "scan_file"])
def test_columns_of_any_name_list_the_images_of_folders(tmp_path, column):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    touch(tmp_path, *(f"scans/s{i}.png" for i in range(6)), *(f"scans_test/t{i}.png" for i in range(3)))
    frame = pandas.DataFrame({column: [f"s{i}.png" for i in range(6)], "grade": [0, 1, 2] * 2})
    frame.to_parquet(tmp_path / "train.parquet")
    pandas.DataFrame({column: [f"t{i}.png" for i in range(3)], "age": 4}).to_parquet(tmp_path / "test.parquet")
    with pytest.raises(EnsembleError, match=r"scans, scans_test, and train.parquet, test.parquet beside") as error:
        read_data(DataSpec(tmp_path, person_regex="(.+)"))
    assert f"`data={tmp_path}/train.parquet` `images={tmp_path}/scans` reads the table" in error.value.hint
    assert f" `test={tmp_path}/test.parquet` `test_images={tmp_path}/scans_test` its images; " in error.value.hint


@pytest.mark.parametrize("column", ["folder", "split"])
def test_a_column_of_the_folders_beside_labels_names_no_classes(tmp_path, column):
    touch(tmp_path, *(f"{name}/{name[0]}{i}.jpg" for name in ("train", "eval") for i in range(3)))
    lines = [f"{name[0]}{i}.jpg,{i % 2},{name}" for name in ("train", "eval") for i in range(3)]
    (tmp_path / "meta.csv").write_text("\n".join([f"image,label,{column}", *lines]))
    with pytest.raises(EnsembleError, match=r"eval, train, and meta.csv beside them lists their images") as error:
        read_data(DataSpec(tmp_path, person_regex="(.+)"))
    start = f"`data={tmp_path}/meta.csv` `images={tmp_path}/train,{tmp_path}/eval` reads the table; "
    assert error.value.hint.startswith(start)


def test_tables_of_all_formats_beside_one_folder_are_named(tmp_path):
    touch(tmp_path, "img/a.jpg", "img/b.jpg")
    (tmp_path / "train.tsv").write_text("nr\tgrade\na\t0\nb\t1\n")
    (tmp_path / "made.csv").write_text("id,0,1\na,.5,.5\nb,.5,.5\n")
    with pytest.raises(EnsembleError, match=r"all images of .* are in one subfolder, 'img'") as error:
        read_data(DataSpec(tmp_path, person_regex="(.+)"))
    start = f"to read the table: `data={tmp_path}/train.tsv` `path=COLUMN` `label=COLUMN`"
    assert error.value.hint == f"{start}; the tables are train.tsv, made.csv"


def test_a_column_of_another_name_is_not_proposed(tmp_path):
    (tmp_path / "t.csv").write_text("image,age,grade\na.jpg,3,0\nb.jpg,4,1\n")
    with pytest.raises(EnsembleError) as error:
        read_data(DataSpec(tmp_path / "t.csv", person_regex="(.+)"), need_images=False)
    assert str(error.value).splitlines()[0].endswith("t.csv has no column 'label'")
    assert error.value.hint == "name the column with `label=COLUMN`; its columns are image, age, grade"


@pytest.fixture
def splits(tmp_path) -> Path:
    names = [f"{split}/{label}/{split}{i}.jpg" for split in ("train", "val", "test") for label in "ab" for i in (1, 2)]
    touch(tmp_path / "d", *names)
    return tmp_path / "d"


def test_train_and_val_are_training_and_test_is_test(splits):
    data = read_data(DataSpec(splits, person_regex=r"/([^/]+)$"))
    assert (len(data.train), len(data.test)) == (8, 4)
    assert data.train.classes == data.test.classes == ("a", "b")
    assert data.train.ids.tolist()[0] == "train/a/train1.jpg"
    assert any("splits: test (4), train (4), val (4)" in note for note in data.notes)


def test_a_test_split_without_classes_is_unlabeled(splits):
    for path in splits.glob("test/*/*.jpg"):
        path.rename(splits / "test" / f"{path.parent.name}{path.name}")
    data = read_data(DataSpec(splits, person_regex="(.+)"))
    assert (len(data.test), data.test.labels) == (4, None)


def test_a_given_test_set_replaces_the_test_split(splits, tmp_path):
    touch(tmp_path, "more/x.jpg")
    data = read_data(DataSpec(splits, person_regex="(.+)", test=tmp_path / "more"))
    assert len(data.test) == 1
    assert any("is not read, because `test` is given" in note for note in data.notes)


def test_class_folders_without_a_readable_image_are_warned_of(tmp_path):
    touch(tmp_path, "cat/1.jpg", "dog/2.jpg", "phone/3.heic", "@eaDir/thumb.jpg", "__MACOSX/4.jpg", "cat/5.txt")
    (tmp_path / "empty").mkdir()
    data = read_data(DataSpec(tmp_path, person_regex="(.+)"))
    assert data.train.classes == ("cat", "dog")
    assert any("empty has no image that can be read (it is empty)" in line for line in data.warnings)
    assert any("phone has no image that can be read (1 .heic)" in line for line in data.warnings)
    assert not any("eaDir" in line or "MACOSX" in line for line in data.warnings)
    assert any("2 files below" in note and "1 .heic" in note and "1 .txt" in note for note in data.notes)


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".avif", ".jp2", ".ppm"])
def test_all_formats_of_the_decoder_count_in_folders(tmp_path, suffix):
    touch(tmp_path, f"cat/1{suffix}", f"dog/2{suffix.upper()}")
    assert len(read_data(DataSpec(tmp_path, person_regex="(.+)")).train) == 2


def test_class_folders_of_splits_are_preferred_to_a_table_of_other_images(splits):
    (splits / "submission.csv").write_text("id,label\nx/1.jpg,a\nx/2.jpg,b\n")
    data = read_data(DataSpec(splits, person_regex=r"/([^/]+)$"))
    assert (len(data.train), len(data.test)) == (8, 4)
    assert any("not read: submission.csv" in note for note in data.notes)


def test_a_table_of_the_images_of_split_folders_names_both_ways(splits):
    for path in splits.glob("val/*/*.jpg"):
        path.unlink()
    (splits / "labels.csv").write_text("image_id,label\ntrain1,a\ntrain2,b\n")
    with pytest.raises(EnsembleError, match=r"class folders and the table labels.csv, and either") as error:
        read_data(DataSpec(splits, person_regex="(.+)"))
    ways = error.value.hint.split("; ")
    assert ways[0] == f"`data={splits / 'labels.csv'}` reads the table"
    assert ways[1] == f"`data={splits / 'train'}` `test={splits / 'test'}` reads the class folders"
    folders = read_data(DataSpec(splits / "train", test=splits / "test", person_regex="(.+)"))
    assert (len(folders.train), len(folders.test)) == (4, 4)
    table = read_data(DataSpec(splits / "labels.csv", person_regex="(.+)"), need_images=False)
    assert len(table.train) == 2


@pytest.mark.parametrize("prefix", ["", "train/"])
def test_a_table_that_contradicts_class_folders_is_refused(tmp_path, prefix):
    touch(
        tmp_path, *(f"{prefix}{name}/{i}.jpg" for name in "ab" for i in (1, 2)), "test/a/9.jpg" if prefix else "a/3.jpg"
    )
    lines = [f"{prefix}{name}/{i}.jpg,{name}" for name in "ab" for i in (1, 2)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *lines]))
    assert len(read_data(DataSpec(tmp_path, person_regex="(.+)")).train) == 4, "equal labels: the table is read"
    lines[0] = lines[0][:-1] + "b"
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *lines]))
    with pytest.raises(EnsembleError, match=r"1\.jpg' is b in it and a by its folder"):
        read_data(DataSpec(tmp_path, person_regex="(.+)"))


def test_the_folds_of_this_program_are_no_table_of_samples(splits):
    spec = DataSpec(splits, person_regex=r"/([^/]+)$")
    table = read_data(spec).train
    save_folds(splits / "folds.csv", split_by_person(table, k=2))
    assert (splits / "folds.json").is_file()
    assert read_data(spec).train.sha == table.sha


def test_splits_with_a_common_beginning_are_no_classes(tmp_path):
    touch(tmp_path, *(f"stage_2_{part}/{i}.jpg" for part in ("train", "test") for i in range(4)))
    with pytest.raises(EnsembleError, match="are splits, not classes: stage_2_test, stage_2_train"):
        read_data(DataSpec(tmp_path, person_regex="(.+)"))
    touch(tmp_path / "c", "stress_test/1.jpg", "field_test/2.jpg")
    assert read_data(DataSpec(tmp_path / "c", person_regex="(.+)")).train.classes == ("field_test", "stress_test")


def test_folders_inside_one_folder_and_a_test_table_are_named(tmp_path):
    touch(tmp_path, "jpeg/train/a.jpg", "jpeg/train/b.jpg", "jpeg/test/c.jpg")
    (tmp_path / "train.csv").write_text("image_name,patient_id,target\na,p1,0\nb,p2,1\n")
    (tmp_path / "test.csv").write_text("image_name,patient_id\nc,p3\n")
    (tmp_path / "sample_submission.csv").write_text("image_name,target\nc,0\n")
    with pytest.raises(EnsembleError) as error:
        read_data(DataSpec(tmp_path))
    expected = f"`data={tmp_path}/train.csv` `images={tmp_path}/jpeg/train` `test={tmp_path}/test.csv` "
    assert error.value.hint == f"name it: {expected}`test_images={tmp_path}/jpeg/test`"


def test_a_table_of_one_hot_labels_beside_images_is_read(tmp_path):
    touch(tmp_path, *(f"images/Train_{i}.jpg" for i in range(4)), "images/Test_0.jpg")
    rows = "".join(f"Train_{i},{i % 2},{1 - i % 2}\n" for i in range(4))
    (tmp_path / "train.csv").write_text(f"image_id,scab,rust\n{rows}")
    (tmp_path / "test.csv").write_text("image_id\nTest_0\n")
    (tmp_path / "sample_submission.csv").write_text("image_id,scab,rust\nTest_0,.5,.5\n")
    data = read_data(DataSpec(tmp_path, person_regex="(.+)"), need_images=False)
    assert data.train.labels.tolist() == ["rust", "scab", "rust", "scab"]
    assert any("not read: test.csv, sample_submission.csv" in note for note in data.notes)


def test_a_table_of_findings_is_named_as_such(tmp_path):
    touch(tmp_path, "images/ID_1.png", "images/ID_2.png")
    rows = "".join(f"ID_{i}_{kind},{i % 2}\n" for i in (1, 2) for kind in ("epidural", "any"))
    (tmp_path / "train.csv").write_text(f"ID,Label\n{rows}")
    with pytest.raises(EnsembleError, match="4 of 4 images") as error:
        read_data(DataSpec(tmp_path / "train.csv", images=(str(tmp_path / "images"),), person_regex="(.+)"))
    assert error.value.hint.startswith("the ids are those of an image and a finding (epidural, any): write a table")
