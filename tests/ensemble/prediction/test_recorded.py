"""New images are read with the columns and the rule for persons of the training, and what does not fit is said."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import ensemble as en
from ensemble.prediction.recorded import spec_as_trained
from ensemble.prediction.source import load_source
from folds.data.table import DataSpec
from folds.models.checkpoint import load_checkpoint, save_checkpoint
from tests.conftest import Called

HEADER = "image_name,target,patient_id,site\n"


@pytest.fixture
def images(grid: Path) -> list[Path]:
    return sorted(Path("people/eval/images").rglob("*.jpg"))[:6]


def recorded(**data: object) -> Path:
    """Return a checkpoint that records other columns."""
    checkpoint = load_checkpoint(Path("checkpoints/test_resnet/fold0.pt"))
    save_checkpoint(Path("other.pt"), replace(checkpoint, data={**checkpoint.data, **data}))
    return Path("other.pt")


def table(images: list[Path], label: Callable[[int], object] = lambda i: "0", header: str = HEADER) -> Path:
    rows = (f"{image.name},{label(i)},p{i // 2},s\n" for i, image in enumerate(images))
    Path("new.csv").write_text(header + "".join(rows))
    return Path("new.csv")


def test_columns_that_the_training_found_are_read(images: list[Path], logged) -> None:
    path = recorded(columns={"label": "target", "person": "patient_id"})
    classes = load_checkpoint(path).classes
    spec = DataSpec(Path(), images=(str(images[0].parent),), test_images=None)
    found = en.predict(path, table(images, lambda i: classes[i % 2]), spec=spec, progress=False)
    assert found.predictions.persons is not None
    assert found.predictions.persons.tolist() == ["p0", "p0", "p1", "p1", "p2", "p2"]
    assert found.score is not None
    assert found.score.to_dict()["people"] == 3
    assert any("read as in the training: label = target, person = patient_id" in line for line in logged.notes)


def test_what_a_table_lacks_is_said_in_one_line(images: list[Path], logged) -> None:
    path = recorded(label="dx", person="patient_id", path="image_name")
    source = load_source(path)
    read, notes = spec_as_trained(table(images, header=HEADER.replace("patient_id", "who")), source)
    assert (read.path, read.label, read.person) == ("image_name", "label", "person")
    assert len(notes) == 2
    assert "it has no column 'dx', the label of the training; it has no column 'patient_id', the person" in notes[1]


def test_what_the_user_names_comes_first(images: list[Path]) -> None:
    source = load_source(recorded(label="target", person="patient_id", person_regex=None))
    read, _ = spec_as_trained(table(images), source, DataSpec(Path(), person="site"))
    assert (read.person, read.label) == ("site", "target")
    read, _ = spec_as_trained(table(images), source, DataSpec(Path(), person_regex="(.+)"))
    assert (read.person, read.person_regex) == ("person", "(.+)")


@pytest.mark.parametrize(
    ("label", "problem"),
    [(lambda i: i * 0.1, "'0.0' is no class"), (lambda i: "" if i else "0", "some of its cells are empty")],
)
def test_a_column_without_labels_is_not_the_label(images: list[Path], label, problem: str) -> None:
    source = load_source(recorded(label="target"))
    read, notes = spec_as_trained(table(images, label), source)
    assert read.label == "label"
    assert problem in notes[-1]


def test_several_labels_are_read_as_in_the_training(images: list[Path]) -> None:
    source = load_source(recorded(label="hat,beard", task="multilabel", path="image_name"))
    path = table(images, lambda i: f"{i % 2},{'' if i else 1}", header="image_name,hat,beard,patient_id,site\n")
    read, notes = spec_as_trained(path, source)
    assert (read.label, read.task) == ("hat,beard", "multilabel")
    assert "label = hat,beard" in notes[0]
    for cells, problem in [("2,0", "6 cells of column 'hat'"), (",", "")]:
        path = table(images, lambda i, cells=cells: cells, header="image_name,hat,beard,patient_id,site\n")
        read, notes = spec_as_trained(path, source)
        assert read.task == "multilabel"
        assert (problem in notes[-1]) if problem else read.label == "hat,beard"
    path = table(images, lambda i: f"{i % 2},-1", header="image_name,hat,beard,patient_id,site\n")
    assert "cells of the labels hat, beard" in spec_as_trained(path, source)[1][-1]
    read, _ = spec_as_trained(path, source, DataSpec(Path(), uncertain="present"))
    assert (read.label, read.uncertain) == ("hat,beard", "present")
    source = load_source(recorded(label="hat,beard", task="multilabel", path="image_name", uncertain="absent"))
    read, _ = spec_as_trained(path, source)
    assert (read.label, read.uncertain) == ("hat,beard", "absent")


def test_the_rule_for_persons_is_used_where_it_fits(images: list[Path], logged) -> None:
    path = recorded(person_regex=r"^([a-z0-9]+)_\d+\.jpg$")
    shutil.rmtree("shots", ignore_errors=True)
    Path("shots").mkdir()
    for i, image in enumerate(images):
        shutil.copy(image, f"shots/ann{i // 3}_{i}.jpg")
    found = en.predict(path, "shots", progress=False)
    assert found.predictions.persons is not None
    assert found.predictions.persons.tolist() == ["ann0"] * 3 + ["ann1"] * 3
    shutil.copy(images[0], "shots/odd.jpg")
    again = en.predict(path, "shots", progress=False)
    assert again.predictions.persons is None
    assert any("persons are unknown: the rule of the training" in line and "odd.jpg" in line for line in logged.notes)


def test_options_of_predict_come_from_the_environment_too(
    images: list[Path], call: Callable[..., Called], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("people/t.csv").write_text("image_id\n" + "".join(f"{image.stem}\n" for image in images))
    refused = call("predict", "test_resnet", "people/t.csv", "-o", "a.npy")
    assert refused.code == 1
    assert f"hint: there is {images[0].name}: --images {images[0].parent}" in refused.err
    monkeypatch.setenv("ENSEMBLE_IMAGES", str(images[0].parent))
    done = call("predict", "test_resnet", "people/t.csv", "-o", "a.npy")
    assert done.code == 0, done.err
    assert en.read_predictions("a.npy").ids.tolist() == [image.stem for image in images]


def test_a_training_records_the_columns_that_it_found(grid: Path, call: Callable[..., Called]) -> None:
    files = sorted(Path("people/train").rglob("*.jpg"))[:24]
    rows = (f"{file.absolute()},{'cat' if i % 2 else 'dog'},p{i % 8}\n" for i, file in enumerate(files))
    Path("meta.csv").write_text("image_name,target,patient_id\n" + "".join(rows))
    small = ["--arch", "test_resnet", "--epochs", "1", "--img-size", "32", "--no-pretrained", "--k", "2"]
    done = call("kfold", "--data", "meta.csv", *small, "--name", "columns", "-q")
    assert done.code == 0, done.err
    data = load_checkpoint(Path("checkpoints/columns/fold0.pt")).data
    assert data["columns"] == {"label": "target", "person": "patient_id"}
    done = call("predict", "columns", "meta.csv", "-o", "b.npy")
    assert "(24 labeled)" in done.out
    assert "persons are unknown" not in done.out
    views = call("tta", "columns", "--views", "hflip")
    assert views.code == 0, views.err
