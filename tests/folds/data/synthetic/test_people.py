"""The built-in people: their layout and counts, that they are the same each time, and that a cut-off drawing is never
taken as whole.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from folds.data.synthetic import people
from folds.data.synthetic.faces import random_face
from folds.data.synthetic.people import (
    VERSION,
    SyntheticSpec,
    apportion,
    drawn_counts,
    generate_people,
    synthetic_people,
    wrongly_labeled,
)
from folds.data.synthetic.portraits import draw_portrait
from folds.errors import EnsembleError, UsageError

PEOPLE, TEST_PEOPLE, SIZE = 20, 10, (48, 64)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate_people(
        tmp_path_factory.mktemp("drawn") / "people", people=PEOPLE, test_people=TEST_PEOPLE, size=SIZE
    )


@pytest.fixture(scope="module")
def trapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate_people(
        tmp_path_factory.mktemp("trapped") / "people", people=PEOPLE, test_people=6, size=SIZE, traps=True
    )


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".people.lock"
    }


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), float)


def test_the_real_counts_give_the_real_counts() -> None:
    assert apportion(2700) == [553, 409, 83, 728, 818, 109]
    counts = apportion(2700)
    assert sum(counts[:3]) == 1045
    assert sum(counts[3:]) == 1655
    assert counts[2] + counts[5] == 192


def test_every_class_of_person_reaches_each_of_five_folds() -> None:
    assert apportion(150) == [31, 23, 5, 40, 45, 6]


@pytest.mark.parametrize("count", [1, 5, 6, 7, 12, 24, 60, 101, 150, 999])
def test_people_are_shared_out_in_proportion(count: int) -> None:
    counts = apportion(count)
    assert sum(counts) == count
    assert count < 6 or min(counts) >= 1
    exact = np.array([553, 409, 83, 728, 818, 109]) / 2700 * count
    # Only a class that would be empty, and the one it is taken from, are further than one person from their share.
    assert np.all((np.abs(np.array(counts) - exact) < 1) | (np.array(counts) == 1) | (np.array(counts) == max(counts)))


def test_the_layout_is_that_of_the_competition(drawn: Path) -> None:
    rows = rows_of(drawn / "train/train.csv")
    assert list(rows[0]) == ["id", "gender", "race", "age", "path"]
    assert len(rows) == PEOPLE
    assert len({row["id"] for row in rows}) == PEOPLE
    shots = {f"{name}.jpg" for name in ("mask1", "mask2", "mask3", "mask4", "mask5", "incorrect_mask", "normal")}
    for row in rows:
        assert row["path"] == f"{row['id']}_{row['gender']}_{row['race']}_{row['age']}"
        assert {path.name for path in (drawn / "train/images" / row["path"]).iterdir()} == shots
    assert len(list((drawn / "train/images").iterdir())) == PEOPLE
    with Image.open(drawn / "train/images" / rows[0]["path"] / "normal.jpg") as image:
        assert (image.size, image.mode, image.format) == (SIZE, "RGB", "JPEG")


def test_the_imbalance_is_the_real_one(drawn: Path) -> None:
    rows = rows_of(drawn / "train/train.csv")
    found = Counter(
        (row["gender"], "<30" if int(row["age"]) < 30 else "30-59" if int(row["age"]) < 60 else ">=60") for row in rows
    )
    kinds = [(gender, age) for gender in ("male", "female") for age in ("<30", "30-59", ">=60")]
    assert [found[kind] for kind in kinds] == apportion(PEOPLE)
    assert {int(row["age"]) for row in rows if int(row["age"]) >= 60} == {60}
    assert min(int(row["age"]) for row in rows) >= 18


def test_the_ages_in_the_middle_lean_to_the_late_fifties() -> None:
    ages = [person.age for person in synthetic_people(SyntheticSpec(2700, 0, 0, SIZE, False), "train")]
    late = [ages.count(age) for age in (57, 58, 59)]
    assert np.abs(np.array(late) - (106, 159, 85)).max() < 4 * np.sqrt(159)
    assert ages.count(60) == 192


def test_the_submission_is_empty_and_the_answers_are_true(drawn: Path) -> None:
    info, answers = rows_of(drawn / "eval/info.csv"), rows_of(drawn / "eval/answers.csv")
    assert list(info[0]) == ["ImageID", "ans"]
    assert list(answers[0]) == ["ImageID", "ans", "person"]
    assert {row["ans"] for row in info} == {"0"}
    assert [row["ImageID"] for row in info] == [row["ImageID"] for row in answers]
    assert {path.name for path in (drawn / "eval/images").iterdir()} == {row["ImageID"] for row in info}
    assert len(info) == TEST_PEOPLE * 7
    labels: dict[str, list[int]] = {}
    for row in answers:
        labels.setdefault(row["person"], []).append(int(row["ans"]))
    assert len(labels) == TEST_PEOPLE
    for found in labels.values():
        assert len({label % 6 for label in found}) == 1, "one gender and age in a person"
        assert Counter(label // 6 for label in found) == {0: 5, 1: 1, 2: 1}
    kinds = Counter(found[0] % 6 for found in labels.values())
    assert [kinds[kind] for kind in range(6)] == apportion(TEST_PEOPLE)
    order = [row["person"] for row in answers]
    assert sum(first == second for first, second in pairwise(order)) < len(order) / 4, (
        "the order does not tell the people"
    )


def test_a_mask_is_where_its_state_says() -> None:
    """Of three pictures that differ in the state only: worn it hides nose and mouth, worn wrongly it leaves the nose
    free.
    """
    face = random_face(1, 0, np.random.default_rng(3))
    wear, incorrect, normal = (
        np.asarray(draw_portrait(face, state, np.random.default_rng(5)), float)
        for state in ("wear", "incorrect", "normal")
    )
    hair, nose, mouth = np.s_[24:40, 30:66], np.s_[57:65, 42:54], np.s_[74:84, 38:58]
    assert np.abs(wear - normal)[hair].max() == 0
    assert np.abs(wear - normal)[nose].mean() > 20
    assert np.abs(wear - normal)[mouth].mean() > 20
    assert np.abs(incorrect - normal)[hair].max() == 0
    assert np.abs(incorrect - normal)[nose].mean() < 2
    assert np.abs(incorrect - normal)[74:].mean() > 2


def test_two_drawings_are_the_same_bytes(drawn: Path, tmp_path: Path) -> None:
    again = generate_people(tmp_path / "elsewhere", people=PEOPLE, test_people=TEST_PEOPLE, size=SIZE)
    assert contents(again) == contents(drawn)


def test_another_seed_draws_other_people(drawn: Path, tmp_path: Path) -> None:
    other = generate_people(tmp_path / "other", people=6, test_people=0, size=SIZE, seed=1)
    pictures = {path.read_bytes() for path in (drawn / "train/images").rglob("*.jpg")}
    assert not pictures & {path.read_bytes() for path in (other / "train/images").rglob("*.jpg")}
    assert rows_of(other / "eval/info.csv") == []


def test_images_of_one_person_are_the_most_similar(drawn: Path) -> None:
    folders = sorted((drawn / "train/images").iterdir())
    # The upper corners show the backdrop only; the light differs from picture to picture, so the colour's direction is
    # compared.
    corners = np.array(
        [[pixels(path)[:12, :8].mean((0, 1)) for path in sorted(folder.iterdir())] for folder in folders]
    )
    corners /= np.linalg.norm(corners, axis=-1, keepdims=True)
    means = corners.mean(axis=1)
    within = np.linalg.norm(corners - means[:, None], axis=-1).mean()
    across = np.mean([np.linalg.norm(means[i] - means[j]) for i in range(len(means)) for j in range(i)])
    assert within < across / 4
    assert len({path.read_bytes() for folder in folders for path in folder.iterdir()}) == PEOPLE * 7


def test_the_test_people_are_nobody_of_the_training_people(drawn: Path) -> None:
    train = {path.read_bytes() for path in (drawn / "train/images").rglob("*.jpg")}
    assert not train & {path.read_bytes() for path in (drawn / "eval/images").iterdir()}
    names = {row["id"] for row in rows_of(drawn / "train/train.csv")}
    assert not names & {row["person"] for row in rows_of(drawn / "eval/answers.csv")}


def test_the_cues_lean_the_right_way_and_overlap() -> None:
    rng = np.random.default_rng(0)
    faces = {
        (gender, age): [random_face(gender, age, rng) for _ in range(200)] for gender in range(2) for age in range(3)
    }
    lengths = [np.array([face.hair_length for age in range(3) for face in faces[gender, age]]) for gender in range(2)]
    assert lengths[0].mean() + 0.3 < lengths[1].mean()
    assert np.quantile(lengths[0], 0.99) > np.quantile(lengths[1], 0.01), "some men have longer hair than some women"
    wrinkles = [np.array([face.lines for gender in range(2) for face in faces[gender, age]]) for age in range(3)]
    assert wrinkles[0].mean() < wrinkles[1].mean() < wrinkles[2].mean()
    assert np.quantile(wrinkles[0], 0.99) > np.quantile(wrinkles[1], 0.01)
    backdrops = [
        np.array([face.backdrop for age in range(3) for face in faces[gender, age]]).mean(0) for gender in range(2)
    ]
    assert np.abs(backdrops[0] - backdrops[1]).max() < 12, "who someone is tells nothing of the label"


def test_a_folder_that_is_complete_is_left_as_it_is(drawn: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in drawn.rglob("*")}
    assert generate_people(drawn, people=PEOPLE, test_people=TEST_PEOPLE, size=SIZE) == drawn
    assert {path: path.stat().st_mtime_ns for path in drawn.rglob("*")} == before


def test_a_drawing_that_was_cut_off_is_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = contents(generate_people(tmp_path / "whole", people=6, test_people=1, size=SIZE))
    drawn = 0

    def killed_at_the_tenth(*given: object) -> Image.Image:
        nonlocal drawn
        drawn += 1
        if drawn == 10:
            raise KeyboardInterrupt
        return draw_portrait(*given)  # type: ignore[arg-type]

    folder = tmp_path / "cut"
    monkeypatch.setattr(people, "draw_portrait", killed_at_the_tenth)
    with pytest.raises(KeyboardInterrupt):
        generate_people(folder, people=6, test_people=1, size=SIZE)
    monkeypatch.undo()
    assert json.loads((folder / "people.json").read_text())["complete"] is False
    half = next((folder / "train/images").rglob("mask1.jpg"))
    half.write_bytes(half.read_bytes()[:100])  # what a kill in the middle of a picture leaves
    generate_people(folder, people=6, test_people=1, size=SIZE)
    assert contents(folder) == whole


def test_files_of_others_are_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(EnsembleError, match=r"thesis\.txt"):
        generate_people(tmp_path, people=6)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(EnsembleError, match="the file"):
        generate_people(tmp_path / "thesis.txt", people=6)


def test_people_drawn_otherwise_are_not_overwritten(drawn: Path) -> None:
    before = contents(drawn)
    with pytest.raises(EnsembleError, match="with other settings") as raised:
        generate_people(drawn, people=PEOPLE, test_people=TEST_PEOPLE, size=SIZE, seed=7)
    assert raised.value.details == ("seed: expected 7, found 0",)
    assert contents(drawn) == before


def test_the_marker_says_what_was_drawn(drawn: Path) -> None:
    marker = json.loads((drawn / "people.json").read_text())
    assert marker["version"] == VERSION
    assert marker["complete"] is True
    assert {field.name for field in fields(SyntheticSpec)} - {"wrong_labels"} <= set(marker)


def test_wrong_labels_are_those_of_others_and_the_images_are_the_same(drawn: Path, tmp_path: Path) -> None:
    folder, settings = tmp_path / "people", {"people": PEOPLE, "test_people": 0, "size": SIZE}
    generate_people(folder, wrong_labels=3, **settings)
    true = {one["id"]: one for one in rows_of(drawn / "train/train.csv")}
    given = {one["id"]: one for one in rows_of(folder / "train/train.csv")}
    moved = [name for name in true if true[name] != given[name]]
    spec = SyntheticSpec(PEOPLE, 0, 0, SIZE, False, wrong_labels=3)
    assert [one.name for one in wrongly_labeled(spec)] == moved
    assert len(moved) == 3
    kinds = [[(one[name]["gender"], one[name]["age"]) for name in moved] for one in (true, given)]
    assert sorted(kinds[0]) == sorted(kinds[1])
    assert all(one != two for one, two in zip(*kinds))
    for name in true:
        pictures = [folder / "train/images" / given[name]["path"], drawn / "train/images" / true[name]["path"]]
        assert contents(pictures[0]) == contents(pictures[1])
    assert drawn_counts(folder) == {"people": PEOPLE, "test_people": 0, "wrong_labels": 3}
    assert drawn_counts(drawn) == {"people": PEOPLE, "test_people": TEST_PEOPLE}
    with pytest.raises(EnsembleError, match="with other settings") as raised:
        generate_people(folder, **settings)
    assert raised.value.details == ("wrong_labels: expected 0, found 3",)
    with pytest.raises(UsageError, match="0, 2 or 3, found 1"):
        generate_people(tmp_path / "one", wrong_labels=1, people=PEOPLE)


def test_without_traps_there_are_none(drawn: Path) -> None:
    assert not list(drawn.rglob("._*"))
    assert {path.suffix for path in drawn.rglob("images/**/*") if path.is_file()} == {".jpg"}


def test_the_traps_are_set(trapped: Path) -> None:
    images = [path for path in (trapped / "train/images").rglob("*") if path.is_file()]
    real = [path for path in images if not path.name.startswith("._")]
    assert {path.suffix for path in real} == {".jpg", ".png", ".jpeg"}
    for suffix, kind in ((".png", "PNG"), (".jpeg", "JPEG")):
        with Image.open(next(path for path in real if path.suffix == suffix)) as image:
            assert image.format == kind
    assert len(real) == PEOPLE * 7
    assert [path for path in images if path.name.startswith("._") and path.suffix == ".jpg"]
    assert [path for path in (trapped / "eval/images").iterdir() if path.name.startswith("._")]

    rows = rows_of(trapped / "train/train.csv")
    assert len({row["path"] for row in rows}) == PEOPLE
    assert all((trapped / "train/images" / row["path"]).is_dir() for row in rows)
    ids = Counter(row["id"] for row in rows)
    (twice,) = [name for name, count in ids.items() if count == 2]
    assert sorted(row["age"] for row in rows if row["id"] == twice) == ["19", "20"]
    suffixed = [name for name in ids if name.endswith("-1")]
    assert sorted(name.removesuffix("-1") in ids for name in suffixed) == [False, True]


@pytest.mark.parametrize(
    "wrong", [{"people": 0}, {"test_people": -1}, {"size": (4, 128)}, {"people": 8, "traps": True}]
)
def test_invalid_arguments_are_refused_before_writing(tmp_path: Path, wrong: dict) -> None:
    with pytest.raises(UsageError):
        generate_people(tmp_path / "people", **wrong)
    assert not (tmp_path / "people").exists()
