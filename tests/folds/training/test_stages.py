"""Progressive resizing: which size an epoch has, smaller images, resuming, and what is kept of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from folds.config.command_settings import Settings
from folds.config.files import load_settings
from folds.config.recipe import Recipe
from folds.errors import UsageError
from folds.models.checkpoint import load_checkpoint
from folds.models.inference import PixelSource, predict_logits
from folds.runs.open import prepare_jobs
from folds.runs.plan import build_plan
from folds.training import loop as fitting
from folds.training.job import Job
from folds.training.stages import at_final_size, reduce_batch, scaled, size_of_epoch, work_of
from folds.training.trainer import train_fold
from folds.utils.numeric import softmax
from tests.conftest import start_over

# Two models whose weights are made for one size.
VIT = {"depth": 1, "embed_dim": 32, "num_heads": 2}
SWIN = {"embed_dim": 16, "depths": [1, 2], "num_heads": [2, 4], "window_size": 4}


class Stop(Exception):
    """Stands for a process that is gone."""


@pytest.fixture
def job(drawn: Path, elsewhere: Path) -> Callable[..., Job]:
    """Makes fold 0 of a tiny run in a folder of its own."""

    def make(arch: str = "test_resnet", **recipe: Any) -> Job:
        settings = Settings(data=drawn, arch=(arch,), k=3, name="run")
        values = {"epochs": 3, "img_size": "32", "pretrained": False, "progressive": "16:1,24:1"} | recipe
        return prepare_jobs(build_plan(settings, Recipe(**values), folds=[0]))[0]

    return make


def test_each_epoch_has_the_size_of_its_stage() -> None:
    sizes = [size_of_epoch("16:2,24x32:1", epoch, (48, 48)) for epoch in range(5)]
    assert sizes == [(16, 16), (16, 16), (24, 32), (48, 48), (48, 48)]
    assert size_of_epoch(None, 0, (48, 48)) == (48, 48)


def test_the_work_is_that_of_the_pixels() -> None:
    assert work_of(None, 7, (64, 32)) == 1
    assert work_of("32:5", 10, (64, 64)) == (5 / 4 + 5) / 10


def test_smaller_images_are_those_of_an_antialiasing_filter() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 40, 56, 3), dtype=np.uint8)
    small = reduce_batch(torch.from_numpy(images), (16, 24))
    assert (small.dtype, small.is_contiguous()) == (torch.uint8, True)
    expected = np.stack(
        [np.asarray(Image.fromarray(one).resize((24, 16), Image.Resampling.BILINEAR)) for one in images]
    )
    assert np.abs(small.numpy().astype(int) - expected.astype(int)).max() <= 1


def test_images_of_the_final_size_are_not_touched() -> None:
    batch = torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
    assert reduce_batch(batch, (8, 8)) is batch


def test_the_margin_of_larger_images_shrinks_with_them() -> None:
    assert scaled((258, 258), (224, 224), (112, 112)) == (129, 129)
    assert scaled((224, 224), (224, 224), (100, 130)) == (100, 130)


@pytest.mark.parametrize("recipe", [{}, {"cache_scale": 1.25, "augment": "none"}, {"cutmix": 1.0, "accumulate": 2}])
def test_the_model_is_trained_at_the_sizes_and_predicts_at_the_last(
    job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, recipe: dict[str, Any]
) -> None:
    seen: dict[int, set[tuple[int, ...]]] = {}
    step = fitting._train_step

    def watched(context: Any, state: Any, loss_of: Any, inputs: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.setdefault(state.progress.epoch, set()).add(tuple(inputs.shape[1:]))
        return step(context, state, loss_of, inputs, *rest)

    monkeypatch.setattr(fitting, "_train_step", watched)
    one = job(**recipe)
    train_fold(one)
    assert seen == {0: {(3, 16, 16)}, 1: {(3, 24, 24)}, 2: {(3, 32, 32)}}
    checkpoint = load_checkpoint(Path(one.checkpoint))
    assert (checkpoint.architecture.height, checkpoint.architecture.width) == (32, 32)
    assert checkpoint.recipe["progressive"] == "16:1,24:1"


@pytest.mark.parametrize(
    "recipe",
    [
        {},
        {
            "ema": 0.9,
            "mixup": 0.2,
            "cutmix": 1.0,
            "accumulate": 2,
            "freeze": 1,
            "augment": "strong",
            "cache_scale": 1.2,
        },
    ],
    ids=["plain", "all at once"],
)
@pytest.mark.parametrize("steps", [1, 3])
def test_a_training_that_was_stopped_between_steps_goes_on_to_the_same_bytes(
    job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, recipe: dict[str, Any], steps: int
) -> None:
    """In the middle of the first stage, and of the second."""
    recipe = {"batch_size": 64, **recipe}
    straight = job(**recipe)
    train_fold(straight)
    expected = (straight.fold_dir / "oof.npy").read_bytes()
    start_over()
    stopped, done = replace(job(**recipe), save_seconds=-1.0), 0
    between = fitting._Loop._between_steps

    def stop(loop: Any, step: int) -> None:
        nonlocal done
        between(loop, step)
        done += 1
        if done == steps:
            loop.writer.wait()
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(fitting._Loop, "_between_steps", stop)
        with pytest.raises(Stop):
            train_fold(stopped)
    train_fold(stopped)
    assert (stopped.fold_dir / "oof.npy").read_bytes() == expected


@pytest.mark.parametrize(
    ("arch", "arguments", "stages"),
    [("vit_tiny_patch16_224", VIT, "32:1,48:1"), ("swin", SWIN, "32:1,40:1")],
)
def test_models_for_one_size_keep_their_weights_and_their_checkpoint(
    job: Callable[..., Job], arch: str, arguments: dict[str, Any], stages: str
) -> None:
    """The checkpoint is of the plain model, which computes what was written."""
    one = job(arch, img_size="64", progressive=stages, model_args=arguments)
    train_fold(one)
    checkpoint = load_checkpoint(Path(one.checkpoint))
    assert dict(checkpoint.architecture.arguments) == {**arguments, "img_size": (64, 64)}
    model, shape = checkpoint.build(), checkpoint.architecture
    rows = np.load(one.fold_dir / "oof.npy")
    pixels = PixelSource.of(Path(one.pixels), "cpu")
    folds = (Path(one.folder) / "folds.csv").read_text().splitlines()
    column = folds[0].split(",").index("fold")
    index = np.array([i for i, line in enumerate(folds[1:]) if line.split(",")[column] == "0"])
    logits = predict_logits(model.eval(), pixels, index, shape.mean, shape.std, device="cpu")[0]
    np.testing.assert_allclose(softmax(logits), rows, atol=1e-6)


def test_a_model_that_cannot_change_its_size_is_refused_before_anything_is_trained(job: Callable[..., Job]) -> None:
    arguments = {"embed_dims": [16, 16, 16, 16], "depths": [1, 1, 1, 1], "num_vit": 1}
    with pytest.raises(UsageError, match="does not accept 128×128 px with the same weights") as error:
        job("efficientformer_l1", img_size="224", progressive="128:1", model_args=arguments)
    assert "init_run=RUN" in (error.value.hint or "")


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"progressive": "16"}, "expected PX:EPOCHS"),
        ({"progressive": "16:0"}, "expected PX:EPOCHS"),
        ({"progressive": "tiny:1"}, "is no size"),
        ({"progressive": "24:1,16:1"}, "larger than the one before"),
        ({"progressive": "32:1"}, "not smaller than the final size"),
        ({"progressive": "16x64:1"}, "not smaller than the final size"),
    ],
)
def test_stages_that_make_no_sense_are_refused(job: Callable[..., Job], recipe: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        job(**recipe)


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"progressive_resizing": "16:3", "epochs": 3}, "none is left for the final size"),
        ({"progressive": "16:2", "average_last": 2, "epochs": 3}, "would average epochs at several image sizes"),
    ],
)
def test_stages_leave_epochs_at_the_final_size(recipe: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load_settings(recipe, implicit=False)


def test_only_epochs_at_the_final_size_decide(job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:
    """The best epoch and early stopping do not look at the first ones, whose scores are higher here."""
    scores = iter([0.9, 0.8, 0.1, 0.3, 0.2])
    judge = fitting.validation_scores
    monkeypatch.setattr(
        fitting, "validation_scores", lambda *every: judge(*every) | {"validation_macro_f1": next(scores)}
    )
    one = job(epochs=6, keep="best", patience=1)
    kept: list[Any] = []
    close = fitting._Loop.close_epoch

    def watched(loop: Any, loss: float, rate: float) -> None:
        close(loop, loss, rate)
        kept.append(loop.state.progress.best is not None)

    monkeypatch.setattr(fitting._Loop, "close_epoch", watched)
    assert train_fold(one)["epochs"] == 5
    assert kept == [False, False, True, True, True]
    assert at_final_size([{"a": 1.0}, {"a": 2.0}], "16:1") == [{"a": 2.0}]


def test_runs_without_stages_record_nothing_of_them(job: Callable[..., Job]) -> None:
    one = job(progressive=None, epochs=1)
    assert "progressive" not in (Path(one.folder) / "config.toml").read_text()
    train_fold(one)
    assert "progressive" not in load_checkpoint(Path(one.checkpoint)).recipe
