"""What a training learns from: sample weights, soft labels of the table, averaged epochs, heads and their rates."""

from __future__ import annotations

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
from folds.models.checkpoint import hash_ids, load_checkpoint
from folds.models.cosine_head import CosineHead
from folds.models.inference import JoinedArrays
from folds.predictions.files import load_npy
from folds.runs.open import prepare_jobs
from folds.runs.plan import build_plan
from folds.training.job import Job
from folds.training.loop import _Loop
from folds.training.resolve import validate_recipe
from folds.training.sample_weights import sample_weights_of
from folds.training.soft_labels import soft_labels_of
from folds.training.state import TrainingState
from folds.training.trainer import train_fold
from tests.conftest import start_over

CLASSES = ("a", "b", "c")


class Stop(Exception):
    """Stands for a process that is gone."""


@pytest.fixture
def csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table of 36 images of 18 people, with a weight and votes for each image."""
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    lines = ["path,label,person,importance,prob_a,prob_b,prob_c"]
    for i in range(36):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
        votes = rng.dirichlet([1, 1, 1]).round(4)
        shares = ",".join(f"{vote:.4f}" for vote in votes)
        lines.append(f"{i}.png,{CLASSES[i % 3]},p{i // 2},{(i % 5) / 2},{shares}")
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "table.csv"


@pytest.fixture
def job(csv: Path) -> Callable[..., Job]:
    """Makes fold 0 of a tiny run in a folder of its own."""

    def make(arch: str = "test_resnet", **recipe: Any) -> Job:
        settings = Settings(data=csv, arch=(arch,), k=2, name="run")
        values = {"epochs": 1, "img_size": "32", "pretrained": False, "batch_size": 9} | recipe
        return replace(prepare_jobs(build_plan(settings, Recipe(**values), folds=[0]))[0], threads=1)

    return make


def changed(csv: Path, change: Callable[[list[str]], list[str]]) -> folds.SampleTable:
    """Return the table after a change of the cells of its first row."""
    lines = csv.read_text().splitlines()
    lines[1] = ",".join(change(lines[1].split(",")))
    csv.write_text("\n".join(lines) + "\n")
    return folds.read_table(csv).train


def labels_of_steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return the rows and labels of each step of the trainings that follow."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    inputs = _Loop._inputs

    def watched(self: _Loop, batch: torch.Tensor, index: torch.Tensor, *drawn: torch.Tensor) -> Any:
        found = inputs(self, batch, index, *drawn)
        seen.append((index, found[1]))
        return found

    monkeypatch.setattr(_Loop, "_inputs", watched)
    return seen


def test_weights_scale_labels_and_leave_zero_weights_out(
    job: Callable[..., Job], csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = labels_of_steps(monkeypatch)
    one = job(weight_column="importance", batch_size=5)  # three full batches are all 15 images
    done = train_fold(one)
    given = np.array([(i % 5) / 2 for i in range(36)])
    fold = np.array([int(line.split(",")[-1]) for line in Path("runs/run/folds.csv").read_text().splitlines()[1:]])
    used = np.flatnonzero((fold != 0) & (given > 0))
    assert done["images"] == len(used)
    rows, labels = torch.cat([index for index, _ in seen]).numpy(), torch.cat([one for _, one in seen]).numpy()
    assert sorted(rows.tolist()) == used.tolist()
    np.testing.assert_allclose(labels.sum(1), given[rows] / given[used].mean(), rtol=1e-6)
    assert labels.sum() == pytest.approx(len(used), rel=1e-5)  # 1 on average
    checkpoint = load_checkpoint(Path(one.checkpoint))
    ids = folds.read_table(csv).train.ids
    assert set(checkpoint.training_hashes) == set(hash_ids(ids[used].tolist()))
    assert len(load_npy(one.fold_dir / "oof.npy")) == (fold == 0).sum()  # all of them are predicted


def test_equal_weights_change_next_to_nothing(job: Callable[..., Job], csv: Path) -> None:
    train_fold(job())
    plain = np.load("runs/run/fold0/oof.npy")
    start_over()
    text = csv.read_text().splitlines()
    csv.write_text("\n".join([text[0] + ",one", *(line + ",3" for line in text[1:])]) + "\n")
    train_fold(job(weight_column="one"))
    np.testing.assert_allclose(np.load("runs/run/fold0/oof.npy"), plain, atol=1e-4)


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("", "has no value for 1 image of 36"),
        ("nan", "has no value"),
        ("-1", "from 0"),
        ("inf", "finite"),
        ("x", "finite"),
    ],
)
def test_weights_that_are_none_are_refused_with_their_row(csv: Path, cell: str, said: str) -> None:
    table = changed(csv, lambda cells: [*cells[:3], cell, *cells[4:]])
    with pytest.raises(EnsembleError, match=said) as error:
        sample_weights_of(Recipe(weight_column="importance"), table)
    assert "row 2" in error.value.full_text()
    with pytest.raises(UsageError, match="did you mean importance"):
        sample_weights_of(Recipe(weight_column="importanc"), table)


def test_shares_of_the_table_are_the_targets_and_are_no_bias(
    job: Callable[..., Job], csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = labels_of_steps(monkeypatch)
    one = job(soft_columns="prob_", weight_column="importance", loss="wce")
    done = train_fold(one)
    assert done["optimistic"] is False
    assert "teacher" not in done
    cells = [line.split(",") for line in csv.read_text().splitlines()[1:]]
    shares = np.array([[float(cell) for cell in row[4:]] for row in cells])
    for rows, labels in seen:
        learned = labels[:, 3:].numpy()
        wanted = shares[rows.numpy()] / shares[rows.numpy()].sum(1, keepdims=True)
        np.testing.assert_allclose(learned / learned.sum(1, keepdims=True), wanted, atol=1e-6)
    assert "teacher" not in load_checkpoint(Path(one.checkpoint)).recipe


@pytest.mark.parametrize(
    ("shares", "said"),
    [(["0.5", "0.5", "0.1"], "a sum of 1.1"), (["1.5", "-.5", "0"], "smallest -0.5"), (["", "1", "0"], "no value")],
)
def test_shares_that_are_none_are_refused(csv: Path, shares: list[str], said: str) -> None:
    table = changed(csv, lambda cells: [*cells[:4], *shares])
    target = folds.data.targets.resolve_target("label", table.classes, {})
    with pytest.raises(EnsembleError, match=said):
        soft_labels_of(Recipe(soft_columns="prob_"), table, target)


def weights_of(state: TrainingState) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in state.model.state_dict().items()}


def test_the_last_epochs_are_averaged_and_a_stop_changes_nothing(
    job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = {"epochs": 4, "average_last": 3, "schedule": "constant"}
    ends: list[dict[str, torch.Tensor]] = []
    close = _Loop.close_epoch

    def watched(self: _Loop, loss: float, rate: float) -> None:
        ends.append(weights_of(self.state))
        close(self, loss, rate)

    monkeypatch.setattr(_Loop, "close_epoch", watched)
    straight = job(**recipe)
    train_fold(straight)
    expected, found = (straight.fold_dir / "oof.npy").read_bytes(), load_checkpoint(Path(straight.checkpoint)).weights
    assert len(ends) == 4
    for name, value in found.items():
        if "running" not in name and value.is_floating_point():
            torch.testing.assert_close(value, (ends[1][name] + ends[2][name] + ends[3][name]) / 3)
    means = [name for name in found if name.endswith("running_mean")]
    assert means
    assert not any(torch.allclose(found[name], ends[3][name]) for name in means)  # of the averaged model itself
    start_over()
    stopped = job(**recipe)

    def stop_after_three(event: dict[str, Any]) -> None:
        if event["event"] == "epoch" and event["epoch"] == 3:
            raise Stop

    with pytest.raises(Stop):
        train_fold(stopped, stop_after_three)
    train_fold(stopped)
    assert (stopped.fold_dir / "oof.npy").read_bytes() == expected


def test_a_cosine_head_drop_path_and_head_rate_are_trained_and_kept(job: Callable[..., Job]) -> None:
    one = job(
        "test_vit",
        head="cosine:20",
        loss="ldam:drw=0",
        drop_path=0.2,
        head_lr=10.0,
        layer_decay=0.5,
        ema=0.9,
        ema_warmup=1.0,
    )
    train_fold(one)
    checkpoint = load_checkpoint(Path(one.checkpoint))
    assert checkpoint.architecture.head == "cosine:20"
    assert checkpoint.architecture.arguments["drop_path_rate"] == 0.2
    model = checkpoint.build()
    assert isinstance(model.get_classifier(), CosineHead)
    assert {"head", "drop_path", "head_lr"} <= checkpoint.recipe.keys()
    start_over()
    assert not {"head", "drop_path", "average_last", "weight_column"} & job().recipe.keys()


def test_a_model_that_skips_no_blocks_refuses_drop_path(job: Callable[..., Job]) -> None:
    for arch, reason in (("vgg11", "takes no drop_path_rate"), ("test_convnext", "")):
        if reason:
            with pytest.raises(UsageError, match=f"drop_path has no effect: {arch} {reason}"):
                job(arch, drop_path=0.2)
        else:
            assert job(arch, drop_path=0.2).architecture["arguments"]["drop_path_rate"] == 0.2


@pytest.mark.parametrize(
    ("loss", "said"), [("ldam:s=30", "the scale is that of the head"), ("ldam:margin=15", "from 0 to 2")]
)
def test_scales_and_margins_of_a_linear_head_are_refused(loss: str, said: str) -> None:
    validate_recipe(Recipe(loss=loss))
    with pytest.raises(UsageError, match=said):
        validate_recipe(Recipe(loss=loss, head="cosine"))


def test_accumulated_parts_of_a_weighted_loss_are_the_whole_batch(job: Callable[..., Job]) -> None:
    found = {}
    for accumulate, course in ((1, 3), (3, 3), (1, 2), (3, 2)):
        one = job(
            "test_vit",
            loss="wce",
            sample_counts={"a": 2, "b": 20},
            opt="sgd",
            clip=0.0,
            accumulate=accumulate,
            weight_column="importance",
        )
        train_fold(replace(one, course=course))
        found[accumulate, course] = np.load("runs/run/fold0/oof.npy")
        start_over()
    np.testing.assert_allclose(found[3, 3], found[1, 3], atol=1e-5)
    np.testing.assert_allclose(found[3, 2], found[1, 2], atol=1e-5)
    assert not np.allclose(found[1, 3], found[1, 2], atol=1e-4)


def test_two_arrays_of_images_are_read_as_one() -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.integers(0, 255, (n, 2, 2, 3), dtype=np.uint8) for n in (5, 3))
    both, joined = np.concatenate([first, second]), JoinedArrays(first, second)
    assert (len(joined), joined.shape, joined.nbytes) == (8, both.shape, both.nbytes)
    for rows in (np.array([7, 0, 4, 5, 5]), np.array([], int), np.array([6])):
        np.testing.assert_array_equal(joined[rows], both[rows])
    for part in (slice(0, 1), slice(3, 7), slice(6, 8), slice(0, 0)):
        np.testing.assert_array_equal(joined[part], both[part])
