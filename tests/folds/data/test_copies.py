"""Groups of copies in place of persons, where no column names them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

import folds
from folds.errors import EnsembleError, UsageError

NAMES = [f"{i}.png" for i in range(8)]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight different images, an identical copy of one, and two altered copies of another; class folders as well."""
    folder = tmp_path_factory.mktemp("copies")
    random = np.random.default_rng(0)
    for i, name in enumerate(NAMES):
        small = Image.fromarray(random.integers(0, 255, (9, 9, 3), np.uint8))
        small.resize((96, 96), Image.Resampling.BICUBIC).save(folder / name)
        (folder / "classes" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        small.resize((96, 96), Image.Resampling.BICUBIC).save(folder / "classes" / "ab"[i % 2] / name)
    (folder / "same.png").write_bytes((folder / "3.png").read_bytes())
    first = Image.open(folder / "5.png")
    first.resize((70, 70)).save(folder / "resized.jpg", quality=90)
    ImageEnhance.Brightness(first).enhance(1.15).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "bright.png")
    rows = [*NAMES, "same.png", "resized.jpg", "bright.png"]
    labels = [*("ab" * 4), "b", "b", "b"]
    text = [f"{name},{label},n{i % 2}" for i, (name, label) in enumerate(zip(rows, labels, strict=True))]
    (folder / "t.csv").write_text("\n".join(["path,label,site", *text]) + "\n")
    return folder


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_copies_are_one_person_named_by_their_smallest_id(images: Path) -> None:
    data = folds.read_table(images / "t.csv", person="auto-copies")
    assert data.train.persons is not None
    person = dict(zip(data.train.ids.tolist(), data.train.persons.tolist(), strict=True))
    assert {name: person[name] for name in person if person[name] != name} == {
        "same.png": "3.png",
        "resized.jpg": "5.png",
        "bright.png": "5.png",
    }
    text = "\n".join(data.notes)
    assert "8 groups of copies are the persons of its 11 images; 2 groups have several images, the largest 3" in text
    assert "5.png = bright.png = resized.jpg; 3.png = same.png" in text
    assert "protects only from copies" in text
    assert "not from different photographs of the same person" in text


def test_the_names_do_not_depend_on_the_order_and_stand_in_the_folds(images: Path, tmp_path: Path) -> None:
    lines = (images / "t.csv").read_text().splitlines()
    (images / "turned.csv").write_text("\n".join([lines[0], *lines[:0:-1]]) + "\n")
    made, turned = (
        folds.split(folds.read_table(images / name, person="auto-copies"), k=2) for name in ("t.csv", "turned.csv")
    )
    assert isinstance(made, folds.FoldAssignment)
    assert isinstance(turned, folds.FoldAssignment)
    assert made.sha == turned.sha
    assert "same.png,b,3.png," in made.save(tmp_path / "folds.csv").read_text()
    again = folds.load_folds(tmp_path / "folds.csv", folds.read_table(images / "t.csv", person="auto-copies"))
    assert again.sha == made.sha


def test_class_folders_need_no_pattern_of_persons(images: Path) -> None:
    data = folds.read_table(images / "classes", person="auto-copies")
    assert data.train.persons is not None
    assert data.train.persons.tolist() == data.train.ids.tolist()
    assert any("no image is a copy of another one" in note for note in data.notes)


def test_a_column_of_persons_that_is_not_used_is_said(images: Path) -> None:
    text = (images / "t.csv").read_text().replace("site", "patient_id", 1)
    (images / "named.csv").write_text(text)
    data = folds.read_table(images / "named.csv", person="auto-copies")
    assert any("has a column 'patient_id', which may name the persons" in line for line in data.warnings)


def test_images_that_are_missing_or_not_named_are_one_error(images: Path) -> None:
    (images / "gone.csv").write_text("path,label\n0.png,a\nnone.png,b\n")
    with pytest.raises(EnsembleError, match=r"1 of 2 images of .* do not exist"):
        folds.read_table(images / "gone.csv", person="auto-copies", need_images=False)
    with pytest.raises(UsageError, match="contradict each other"):
        folds.read_table(images / "t.csv", person="auto-copies", person_regex="(.+)")


@pytest.mark.parametrize("kind", ["12-bit PNG", "float arrays", "six channels", "stacks"])
def test_copies_of_other_kinds_of_images_are_found(tmp_path: Path, kind: str) -> None:
    random, rows = np.random.default_rng(1), []
    for i in range(6):
        gray = Image.fromarray(random.integers(0, 255, (9, 9), np.uint8)).resize((64, 64), Image.Resampling.BICUBIC)
        values = np.asarray(gray).astype(np.float64) / 255
        for copy, changed in enumerate([values, values * 0.9 + 0.05][: 2 if i == 2 else 1]):
            name = f"{i}{'ab'[copy]}"
            if kind == "12-bit PNG":
                Image.fromarray((changed * 4095).astype(np.uint16)).save(tmp_path / f"{name}.png")
            else:
                array = changed.astype(np.float32) if kind == "float arrays" else (changed * 255).astype(np.uint8)
                whole = np.repeat(array[:, :, None], 6, axis=2) if kind == "six channels" else array
                np.save(tmp_path / f"{name}.npy", whole)
            file = f"{name}.{'png' if kind == '12-bit PNG' else 'npy'}"
            rows.append(f"{file},{file},{'xy'[i % 2]}" if kind == "stacks" else f"{file},{'xy'[i % 2]}")
    (tmp_path / "t.csv").write_text("\n".join(["one,two,label" if kind == "stacks" else "path,label", *rows]) + "\n")
    stack = ("one", "two") if kind == "stacks" else None
    data = folds.read_table(tmp_path / "t.csv", person="auto-copies", stack=stack)
    assert data.train.persons is not None
    same = [persons for persons in data.train.persons.tolist() if persons.startswith("2")]
    assert len(same) == 2
    assert len(set(data.train.persons.tolist())) == 6
