"""The mask-competition layout, with the traps of the real files."""

from __future__ import annotations

from pathlib import Path

import pytest

from folds.data.images_to_predict import read_test
from folds.data.readers import read_data
from folds.data.table import Dataset, DataSpec
from folds.errors import EnsembleError, UsageError


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


def test_layout_has_seven_images_per_person_and_18_classes(tmp_path):
    table = read_data(DataSpec(layout(tmp_path))).train
    assert len(table) == 7 * len(PEOPLE)
    assert table.classes == tuple(map(str, range(18)))
    assert table.source == str(tmp_path / "train" / "train.csv")
    assert table.paths is not None
    assert all(path.is_file() and path.is_absolute() for path in table.paths)
    assert table.ids[0] == "000001_female_Asian_45/incorrect_mask"
    assert table.locations[0] == "train.csv row 2, incorrect_mask"
    by_id = dict(zip(table.ids.tolist(), table.labels.tolist()))
    # mask·6 + gender·3 + age, worked out by hand
    assert by_id["000001_female_Asian_45/mask3"] == "4"
    assert by_id["000001_female_Asian_45/incorrect_mask"] == "10"
    assert by_id["000001_female_Asian_45/normal"] == "16"
    assert by_id["000600_male_Asian_60/mask1"] == "2"
    assert by_id["000600-1_female_Asian_29/normal"] == "15"
    assert by_id["006713-1_male_Asian_30/normal"] == "13"
    assert by_id["000002_male_Asian_59/mask2"] == "1"


def test_attributes_are_columns_and_class_attributes(tmp_path):
    table = read_data(DataSpec(layout(tmp_path))).train
    assert table.class_attributes["17"] == {"mask": "normal", "gender": "female", "age": ">=60"}
    assert table.class_attributes["0"] == {"mask": "wear", "gender": "male", "age": "<30"}
    for name in ("mask", "gender", "age"):
        assert table.attributes[name].tolist() == [
            table.class_attributes[label][name] for label in table.labels.tolist()
        ]
    assert set(table.attributes["race"]) == {"Asian"}
    assert table.attributes["years"][0] == "45"


def test_an_id_that_two_folders_share_is_two_people_and_is_said(tmp_path):
    data = read_data(DataSpec(layout(tmp_path)))
    assert len(set(data.train.persons.tolist())) == len(PEOPLE)
    assert "id 003397 belongs to 2 folders: each folder is one person" in data.notes
    assert any(note.startswith("1 ids occur with and without a suffix (000600-1)") for note in data.notes)


def test_appledouble_files_are_skipped_and_counted(tmp_path):
    layout(tmp_path)
    images = tmp_path / "train" / "images"
    touch(
        images / PEOPLE[0] / "._mask1.jpg",
        images / PEOPLE[1] / "._normal.png",
        images / f"._{PEOPLE[0]}",
        images / PEOPLE[0] / ".DS_Store",
    )
    data = read_data(DataSpec(tmp_path))
    assert len(data.train) == 7 * len(PEOPLE)
    assert "3 '._' files skipped" in data.notes


def test_folder_name_wins_over_the_table_with_a_note(tmp_path):
    name = PEOPLE[0]
    data = read_data(DataSpec(layout(tmp_path, rows={name: f"000001,male,Asian,25,{name}"})))
    label = dict(zip(data.train.ids.tolist(), data.train.labels.tolist()))[f"{name}/normal"]
    assert label == "16"
    assert any(
        note.startswith("1 rows of") and "the folder name is used" in note and name in note for note in data.notes
    )


def test_other_folder_names_use_gender_and_age_of_the_table(tmp_path):
    layout(tmp_path)
    touch(tmp_path / "train" / "images" / "walk-in" / "normal.jpg")
    with open(tmp_path / "train" / "train.csv", "a") as file:
        file.write("x,Female,Asian,61,walk-in\n")
    table = read_data(DataSpec(tmp_path)).train
    assert dict(zip(table.ids.tolist(), table.labels.tolist()))["walk-in/normal"] == "17"


def test_unknown_files_and_folders_are_ignored_with_a_note(tmp_path):
    layout(tmp_path)
    touch(
        tmp_path / "train" / "images" / PEOPLE[0] / "portrait.jpg",
        tmp_path / "train" / "images" / "000009_male_Asian_20" / "mask1.jpg",
    )
    data = read_data(DataSpec(tmp_path))
    assert len(data.train) == 7 * len(PEOPLE)
    assert any(note.startswith("1 files not named") and "portrait.jpg" in note for note in data.notes)
    assert any(note.startswith("1 folders of") and "000009_male_Asian_20" in note for note in data.notes)


@pytest.mark.parametrize("pointed", ["", "train", "train/train.csv"])
def test_layout_is_detected_by_folder_train_folder_or_csv(tmp_path, pointed):
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
    assert "are missing: there is no folder" in refused(tmp_path / "b", need_images=True).message


def test_test_set_has_the_order_of_info_csv_and_no_labels(tmp_path):
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


def test_missing_or_repeated_folders_are_an_error(tmp_path):
    layout(tmp_path)
    (tmp_path / "train" / "images" / PEOPLE[0]).rename(tmp_path / "gone")
    error = refused(tmp_path)
    assert error.details[0] == f"train.csv row 2: no folder {tmp_path / 'train' / 'images' / PEOPLE[0]}"
    again = layout(tmp_path / "again", rows={PEOPLE[1]: f"1,female,Asian,45,{PEOPLE[0]}"})
    assert f"folder {PEOPLE[0]} is also in train.csv row 2" in refused(again).details[0]


def test_an_impossible_gender_or_age_is_an_error(tmp_path):
    layout(tmp_path)
    with open(tmp_path / "train" / "train.csv", "a") as file:
        file.write("x,woman,Asian,old,walk-in\n")
    assert refused(tmp_path).details == (
        "train.csv row 9: expected gender male or female and age a whole number, found 'woman' and 'old'",
    )


def test_two_files_of_one_stem_are_an_error(tmp_path):
    layout(tmp_path)
    touch(tmp_path / "train" / "images" / PEOPLE[0] / "mask1.png")
    assert f"{PEOPLE[0]} holds both mask1.jpg and mask1.png" in refused(tmp_path).details[0]


def test_column_options_do_not_apply_to_the_layout(tmp_path):
    assert "`person_regex='(.+)'` does not apply" in refused(layout(tmp_path), UsageError, person_regex="(.+)").message
