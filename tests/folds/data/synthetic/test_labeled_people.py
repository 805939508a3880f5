"""People with several labels, a grade, an age and a site: the images show what the table says, always the same."""

from __future__ import annotations

import csv
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from folds.data.readers import read_data
from folds.data.synthetic.faces import random_face, random_face_of_age
from folds.data.synthetic.labeled_people import ACCESSORIES, SITES, LabeledSpec, labeled_images, make_people
from folds.data.synthetic.portraits import draw_portrait
from folds.data.synthetic.worn import Worn
from folds.data.table import DataSpec
from folds.errors import EnsembleError, UsageError

COUNTS: dict[str, Any] = {"people": 12, "test_people": 3, "images": 3, "size": (24, 32)}
MANY = LabeledSpec(people=600, test_people=50, images=6, seed=0, size=(24, 32), missing=0)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_people(tmp_path_factory.mktemp("labeled") / "people", missing=0.2, **COUNTS)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_tables_name_images_that_are_there_and_read_as_several_labels(drawn: Path) -> None:
    spec = DataSpec(drawn / "train.csv", label=",".join(ACCESSORIES), test=drawn / "test.csv")
    data = read_data(spec)
    assert data.train.task == "multilabel"
    assert data.test is not None
    assert (len(data.train), len(data.test)) == (36, 9)
    assert data.train.persons is not None
    assert data.test.persons is not None
    assert not set(data.train.persons) & set(data.test.persons)
    assert set(data.train.attributes) == {"site", "sex", "age", "severity"}
    number = read_data(DataSpec(drawn / "train.csv", label="age", task="regression"), need_images=False)
    assert number.train.task == "regression"


def test_missing_cells_are_those_of_the_truth_otherwise(drawn: Path) -> None:
    shown, truth = rows_of(drawn / "train.csv"), rows_of(drawn / "truth.csv")
    cells = [(one[name], other[name]) for one, other in zip(shown, truth, strict=True) for name in ACCESSORIES]
    assert 0.05 < np.mean([cell == "" for cell, _ in cells]) < 0.35
    assert all(cell in ("", true) for cell, true in cells)
    assert all(any(one[name] for name in ACCESSORIES) for one in shown)


def test_the_same_arguments_give_the_same_bytes_and_others_are_refused(drawn: Path, tmp_path: Path) -> None:
    again = make_people(tmp_path / "again", missing=0.2, **COUNTS)
    files = [path.relative_to(drawn) for path in sorted(drawn.rglob("*.*")) if path.name[0] != "."]
    assert len(files) == 36 + 9 + 4
    assert all((drawn / name).read_bytes() == (again / name).read_bytes() for name in files)
    before = (drawn / "train.csv").stat().st_mtime_ns
    assert make_people(drawn, missing=0.2, **COUNTS) == drawn
    assert (drawn / "train.csv").stat().st_mtime_ns == before
    with pytest.raises(EnsembleError, match="other settings"):
        make_people(drawn, seed=1, missing=0.2, **COUNTS)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").touch()
    with pytest.raises(EnsembleError, match="new or empty folder"):
        make_people(tmp_path / "mine", **COUNTS)
    with pytest.raises(UsageError, match="missing"):
        make_people(tmp_path / "other", missing=1.0)


def test_labels_co_occur_and_sites_have_a_mix_of_their_own() -> None:
    every = list(labeled_images(MANY, "train"))
    worn = np.array([one.accessories for one in every])
    site = np.array([one.site for one in every])
    severity = np.array([one.severity for one in every])
    assert np.all((worn.mean(axis=0) > 0.15) & (worn.mean(axis=0) < 0.45))
    assert np.corrcoef(worn[:, 0], worn[:, 3])[0, 1] > 0.4, "hats and scarves come together"
    assert abs(np.corrcoef(worn[:, 0], worn[:, 2])[0, 1]) < 0.15
    hats = [worn[site == one, 0].mean() for one in SITES]
    grades = [severity[site == one].mean() for one in SITES]
    assert hats[0] > hats[2] > hats[1] + 0.05
    assert grades[0] < grades[1] < grades[2]
    assert np.unique(severity).tolist() == [0, 1, 2, 3, 4]
    owner = np.unique([one.person for one in every], return_inverse=True)[1]
    assert len(np.unique(np.stack([owner, severity]), axis=1).T) == MANY.people, "one grade a person"


def test_every_label_changes_what_is_seen_and_nothing_else_of_the_portrait() -> None:
    face = random_face(0, 1, np.random.default_rng(3))

    def pixels(worn: Worn | None) -> np.ndarray:
        return np.asarray(draw_portrait(face, "normal", np.random.default_rng(5), (96, 128), worn), np.int64)

    plain = pixels(None)
    assert (pixels(Worn()) == plain).all()
    hat = (pixels(Worn(hat=(20, 60, 200))) != plain).any(axis=2)
    scarf = (pixels(Worn(scarf=(20, 160, 60))) != plain).any(axis=2)
    assert hat.mean() > 0.03
    assert scarf.mean() > 0.03
    assert np.flatnonzero(hat.any(axis=1)).max() < np.flatnonzero(scarf.any(axis=1)).min(), "above and below the face"
    spots = ((5.0, 8.0, 2.0), (-7.0, 9.0, 2.0))
    seen = [(pixels(Worn(spots=spots[:n], strength=0.8)) != plain).any(axis=2).sum() for n in range(3)]
    assert seen[0] == 0 < seen[1] < seen[2]
    tinted = pixels(Worn(tint=(0.9, 1.0, 1.0)))
    assert tinted[..., 0].mean() < 0.92 * plain[..., 0].mean()
    assert (tinted[..., 1:] == plain[..., 1:]).all()


def test_spots_grow_with_the_grade_and_faces_with_the_years() -> None:
    spots: dict[int, list[float]] = {grade: [] for grade in range(5)}
    for one in labeled_images(MANY, "train"):
        spots[one.severity].append(sum(radius**2 for _, _, radius in one.worn.spots))
        assert (
            one.worn.hat is not None,
            bool(one.face.glasses),
            one.worn.beard is not None,
            one.worn.scarf is not None,
        ) == (tuple(map(bool, one.accessories)))
    area = [np.mean(spots[grade]) for grade in range(5)]
    assert area[0] == 0
    assert all(1.3 * low < high for low, high in pairwise(area))
    cues = [random_face_of_age(1, years, np.random.default_rng(0)).age_cue for years in (20, 35, 50, 75)]
    assert cues == sorted(cues)
    assert random_face_of_age(1, 45, np.random.default_rng(0)) == random_face(1, 1, np.random.default_rng(0))


def test_an_image_is_of_the_size_that_was_asked_for(drawn: Path) -> None:
    with Image.open(drawn / "images" / "p0001_0.jpg") as picture:
        assert picture.size == (24, 32)
