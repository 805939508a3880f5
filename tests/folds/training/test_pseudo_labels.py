"""Pseudo-labels: fold i learns only what models predict that have not seen the people of fold i."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import folds
from folds.config.command_settings import Settings
from folds.config.recipe import Recipe
from folds.errors import EnsembleError, UsageError
from folds.models.checkpoint import hash_ids, load_checkpoint, save_checkpoint
from folds.predictions.files import fold_files, oof_file, read_array, read_sidecar, write_prediction
from folds.predictions.predictions import read_predictions
from folds.runs.open import prepare_jobs
from folds.runs.plan import Plan, build_plan
from folds.runs.publish import write_predictions
from folds.training.job import Job
from folds.training.loop import _Loop
from folds.training.pseudo_labels import PseudoLabels, pseudo_labels_of
from folds.training.trainer import train_fold
from folds.utils.files import sha256_file
from tests.conftest import made_once

CLASSES = ("a", "b", "c")
TINY: dict[str, Any] = {"epochs": 1, "img_size": "32", "pretrained": False, "batch_size": 12}


def draw(folder: Path) -> None:
    """Draw 24 labeled images of 12 people and 10 without labels, two of which are of a labeled person."""
    from PIL import Image

    rng = np.random.default_rng(0)
    rows, test = ["path,label,person"], ["path,person"]
    for i in range(34):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(folder / f"{i}.png")
        if i < 24:
            rows.append(f"{i}.png,{CLASSES[i % 3]},p{i // 2}")
        else:
            test.append(f"{i}.png,{'p0' if i < 26 else f'new{i}'}")
    (folder / "train.csv").write_text("\n".join(rows) + "\n")
    (folder / "test.csv").write_text("\n".join(test) + "\n")


def plan_of(name: str, seed: int = 0, test: bool = True, folder: Path = Path(), **recipe: Any) -> Plan:
    data, unlabeled = folder / "train.csv", folder / "test.csv" if test else None
    settings = Settings(data=data, test=unlabeled, arch=("test_resnet",), k=2, name=name)
    return build_plan(settings, Recipe(**{**TINY, "seed": seed, **recipe}), root=folder)


def teach(folder: Path) -> None:
    """Train the run `teacher` on two folds, and `other` on others; in this process, which has loaded torch already."""
    draw(folder)
    for name, seed in (("teacher", 0), ("other", 5)):
        plan = plan_of(name, seed, folder=folder)
        for job in prepare_jobs(plan):
            train_fold(replace(job, threads=1))
        write_predictions(plan, plan.runs[0])


@pytest.fixture
def taught(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a folder with two teachers, made the current folder."""
    shutil.copytree(made_once(tmp_path_factory, "taught", teach), tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def labels_of(plan: Plan, **changes: Any) -> PseudoLabels:
    run = plan.runs[0]
    found = pseudo_labels_of(replace(run.recipe, **changes), run.assignment, plan.table, plan.data.test)
    assert found is not None
    return found


def predictions(run: str = "teacher") -> np.ndarray[Any, Any]:
    return np.stack([read_array(path) for path in fold_files(Path("runs"), run).values()])


def test_each_fold_gets_what_its_own_model_predicts(taught: Path) -> None:
    plan = plan_of("student", pseudo="teacher", pseudo_confidence=0.0, pseudo_soft=True)
    found, of_models = plan.pseudo["student"].values, predictions()
    of_p0 = int(plan.assignment.fold[plan.assignment.persons == "p0"][0])
    for fold in range(2):
        used = np.ones(10, bool)
        used[:2] = fold != of_p0  # images of a person whom the fold is scored on are not learned
        np.testing.assert_array_equal(found[fold].any(1), used)
        np.testing.assert_allclose(found[fold][used], of_models[fold][used], atol=1e-6)
    np.testing.assert_allclose(found[2], of_models.mean(0), atol=1e-6)  # a model of all people is scored on nobody
    assert not np.allclose(of_models[0], of_models[1])


def test_confidence_and_number_of_each_class_choose(taught: Path) -> None:
    plan = plan_of("student", pseudo="teacher", pseudo_confidence=0.0)
    given = predictions()[0]
    given = np.where(np.arange(10)[:, None] < 2, 0, given) if not plan.pseudo["student"].values[0, 0].any() else given
    bar = float(np.median(given.max(1)))
    found = labels_of(plan, pseudo_confidence=bar).values[0]
    np.testing.assert_array_equal(found.any(1), given.max(1) >= bar)
    np.testing.assert_array_equal(found.sum(1), found.any(1))
    np.testing.assert_array_equal(found[found.any(1)].argmax(1), given[found.any(1)].argmax(1))
    capped = labels_of(plan, pseudo_per_class=1).values[0]
    for code in np.unique(given[given.any(1)].argmax(1)):
        rows = np.flatnonzero(given.any(1) & (given.argmax(1) == code))
        assert np.flatnonzero(capped[:, code]).tolist() == [rows[given[rows].max(1).argmax()]]
    with pytest.raises(EnsembleError, match="no test image has a class of probability 1 or more"):
        labels_of(plan, pseudo_confidence=1.0)


def test_two_teachers_are_averaged_fold_by_fold(taught: Path) -> None:
    shutil.copytree("runs/teacher", "runs/second")
    shutil.copytree("checkpoints/teacher", "checkpoints/second")
    for fold, path in fold_files(Path("runs"), "teacher").items():
        sidecar = read_sidecar(path)
        assert sidecar is not None
        turned = np.roll(read_array(path), 1, axis=1)
        write_prediction(Path(f"runs/second.fold{fold}.test.npy"), turned, replace(sidecar, run="second"))
    plan = plan_of("student", pseudo="teacher, second", pseudo_confidence=0.0, pseudo_soft=True)
    found, of_models = plan.pseudo["student"].values, predictions()
    both = (of_models + np.roll(of_models, 1, axis=2)) / 2
    np.testing.assert_allclose(found[0][2:], both[0][2:], atol=1e-6)


def test_a_student_learns_them_and_is_scored_on_the_table(taught: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    inputs = _Loop._inputs

    def watched(self: _Loop, batch: torch.Tensor, index: torch.Tensor, *drawn: torch.Tensor) -> Any:
        found = inputs(self, batch, index, *drawn)
        seen.append((index, batch, found[1]))
        return found

    monkeypatch.setattr(_Loop, "_inputs", watched)
    plan = plan_of(
        "student", pseudo="teacher", pseudo_confidence=0.0, pseudo_weight=0.5, sampler="none", batch_size=100
    )
    job = prepare_jobs(plan)[0]
    done = train_fold(job)
    values, n = plan.pseudo["student"].values[job.fold], 24
    used = np.flatnonzero(values.any(1))
    assert done["pseudo"] == len(used)
    assert done["optimistic"] is False
    rows = torch.cat([one for one, _, _ in seen]).numpy()
    trained = np.flatnonzero(plan.assignment.fold != job.fold)
    assert sorted(rows.tolist()) == [*trained.tolist(), *(n + used).tolist()]
    labels, pixels = torch.cat([one for *_, one in seen]).numpy(), torch.cat([one for _, one, _ in seen]).numpy()
    of_test = np.load(job.test_pixels)  # type: ignore[arg-type]
    for row, label, image in zip(rows.tolist(), labels, pixels, strict=True):
        if row >= n:
            np.testing.assert_allclose(label, 0.5 * values[row - n])
            np.testing.assert_array_equal(image, of_test[row - n])
        else:
            assert label.sum() == 1
    checkpoint = load_checkpoint(Path(job.checkpoint))
    test_ids = plan.data.test.ids  # type: ignore[union-attr]
    assert set(checkpoint.pseudo_hashes) == set(hash_ids(test_ids[used].tolist()))
    assert set(checkpoint.training_hashes) == set(hash_ids(plan.table.ids[trained].tolist()))
    assert checkpoint.recipe["pseudo_teacher"] == "teacher"
    assert len(read_array(job.fold_dir / "oof.npy")) == n - len(trained)


@pytest.mark.parametrize(
    "recipe", [{"pseudo_soft": True, "target": "label", "mixup": 0.2}, {"loss": "ldam", "sampler": "sqrt"}]
)
def test_a_student_trains_with_other_settings(taught: Path, recipe: dict[str, Any]) -> None:
    plan = plan_of("student", pseudo="teacher", pseudo_confidence=0.0, **recipe)
    jobs = prepare_jobs(plan)
    assert np.isfinite(train_fold(jobs[0])["macro_f1"])
    assert {"pseudo", "pseudo_soft"} & jobs[0].recipe.keys() == ({"pseudo_soft"} & recipe.keys())


def test_a_teacher_that_saw_the_people_is_refused(taught: Path) -> None:
    """Its files say that it has the folds of the student, and only its training images tell the truth."""
    fold, path = 0, Path("checkpoints/teacher/fold0.pt")
    checkpoint = load_checkpoint(path)
    liar = replace(checkpoint, training_hashes=(*checkpoint.training_hashes, checkpoint.validation_hashes[0]))
    save_checkpoint(path, liar)
    predicted = fold_files(Path("runs"), "teacher")[fold]
    sidecar = read_sidecar(predicted)
    assert sidecar is not None
    values = np.array(read_array(predicted))
    write_prediction(predicted, values, replace(sidecar, checkpoint_sha=sha256_file(path)))
    with pytest.raises(EnsembleError, match="was trained on 1 of the 6 people that fold 0 is scored on"):
        plan_of("student", pseudo="teacher", pseudo_confidence=0.0)


def swap_folds() -> None:
    """Exchange the predictions and the checkpoints of the two models of the teacher."""
    for pattern in ("runs/teacher.fold{}.test.npy", "runs/teacher.fold{}.test.json", "checkpoints/teacher/fold{}.pt"):
        first, second = Path(pattern.format(0)), Path(pattern.format(1))
        first.rename("kept")
        second.rename(first)
        Path("kept").rename(second)


def mean() -> None:
    """Save the mean of the models as one file."""
    found = folds.load_run("teacher").test
    assert found is not None
    found.save("mean.test.npy")


REFUSED: dict[str, tuple[str, Callable[[], Any], str]] = {
    "other folds": ("other", lambda: None, "people that fold 0 is scored on"),
    "exchanged folds": ("teacher", swap_folds, "people that fold 0 is scored on"),
    "a mean": ("mean.test.npy", mean, "is a mean over models of several folds"),
    "out-of-fold": ("runs/teacher.oof.npy", lambda: None, "are out-of-fold predictions"),
    "no checkpoint": ("teacher", lambda: Path("checkpoints/teacher/fold0.pt").unlink(), "cannot be known"),
    "another checkpoint": (
        "teacher",
        lambda: shutil.copy("checkpoints/other/fold0.pt", "checkpoints/teacher/fold0.pt"),
        "is not the model that predicted them",
    ),
    "a missing fold": ("teacher", lambda: Path("runs/teacher.fold1.test.npy").unlink(), "model of fold 1 has not"),
    "of another folder": (
        "elsewhere/teacher.fold0.test.npy",
        lambda: shutil.copytree("runs", "elsewhere"),
        "is not in runs",
    ),
    "nobody": ("teachr", lambda: None, "no test predictions of the folds of a run 'teachr'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_teachers_that_may_have_seen_people_are_refused(taught: Path, case: str) -> None:
    name, change, said = REFUSED[case]
    change()
    with pytest.raises(EnsembleError, match=said):
        plan_of("student", pseudo=name, pseudo_confidence=0.0)


def test_own_predictions_or_no_test_images_are_refused(taught: Path) -> None:
    with pytest.raises(UsageError, match="trains teacher itself"):
        plan_of("teacher", pseudo="teacher", pseudo_confidence=0.0)
    with pytest.raises(EnsembleError, match="labels the test images, and there are none"):
        plan_of("student", test=False, pseudo="teacher")


def test_a_chosen_teacher_makes_an_optimistic_student(taught: Path) -> None:
    for fold in range(2):
        path = Path(f"checkpoints/teacher/fold{fold}.pt")
        save_checkpoint(path, replace(load_checkpoint(path), selected_on_validation=True))
        predicted = fold_files(Path("runs"), "teacher")[fold]
        sidecar = read_sidecar(predicted)
        assert sidecar is not None
        write_prediction(predicted, np.array(read_array(predicted)), replace(sidecar, checkpoint_sha=sha256_file(path)))
    plan = plan_of("student", pseudo="teacher", pseudo_confidence=0.0)
    assert plan.pseudo["student"].optimistic
    assert any("the score of this run is optimistic too" in line for line in plan.warnings)
    job: Job = prepare_jobs(plan)[0]
    assert train_fold(job)["optimistic"] is True


def test_a_resume_with_other_pseudo_labels_is_refused(taught: Path) -> None:
    prepare_jobs(plan_of("student", pseudo="teacher", pseudo_confidence=0.0))
    assert len(prepare_jobs(plan_of("student", pseudo="teacher", pseudo_confidence=0.0), resume=True)) == 2
    predicted = fold_files(Path("runs"), "teacher")[0]
    sidecar = read_sidecar(predicted)
    assert sidecar is not None
    write_prediction(predicted, np.roll(read_array(predicted), 1, axis=1), sidecar)
    with pytest.raises(EnsembleError, match="was started with different settings") as error:
        prepare_jobs(plan_of("student", pseudo="teacher", pseudo_confidence=0.0), resume=True)
    assert "pseudo_sha" in error.value.full_text()
    assert read_predictions(oof_file(Path("runs"), "teacher")).split == "oof"
