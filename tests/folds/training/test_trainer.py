from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from folds.augmentation.pool import TransformPool, close_kept_pool, kept_pool
from folds.config.command_settings import Settings
from folds.config.recipe import Recipe
from folds.data.readers import read_data
from folds.data.table import DataSpec
from folds.errors import EnsembleError
from folds.images.decode import decode_image
from folds.images.settings import ImageSettings
from folds.models import inference
from folds.models.checkpoint import hash_ids, load_checkpoint
from folds.models.inference import PixelSource
from folds.models.memory import DeviceSharedError
from folds.runs.open import prepare_jobs
from folds.runs.plan import build_plan
from folds.training import context as fold_setup
from folds.training import loop as fitting
from folds.training import sampler as sampling
from folds.training import trainer as training
from folds.training.job import Job, job_as_dict, job_from_dict
from folds.training.state import Progress, StateWriter, TrainingState
from folds.training.trainer import train_fold
from folds.utils.files import derive_seed
from folds.utils.locks import exclusive_lock
from tests.conftest import start_over


class Stop(Exception):
    """Stands for a process that is gone."""


@pytest.fixture
def job(drawn: Path, elsewhere: Path) -> Callable[..., Job]:
    """Makes fold 0 of a tiny run in a folder of its own."""

    def make(name: str = "run", arch: str = "test_resnet", **recipe: Any) -> Job:
        settings = Settings(data=drawn, arch=(arch,), k=3, name=name)
        values = {"epochs": 2, "img_size": "32", "pretrained": False} | recipe
        return prepare_jobs(build_plan(settings, Recipe(**values), folds=[0]))[0]

    return make


def test_job_writes_its_files_and_done_json_last(job: Callable[..., Job]) -> None:
    one = job()
    done = train_fold(one)
    assert sorted(path.name for path in one.fold_dir.iterdir()) == ["done.json", "history.csv", "oof.npy", "test.npy"]
    assert json.loads((one.fold_dir / "done.json").read_text()) == done
    times = [(one.fold_dir / name).stat().st_mtime_ns for name in ("oof.npy", "test.npy", "done.json")]
    assert times == sorted(times)
    assert (one.fold_dir / "history.csv").read_text().count("\n") == 3


@pytest.mark.parametrize(
    ("recipe", "scores", "known"),
    [({"ema": 0.5}, (0.9, 0.1), True), ({"average_last": 2}, (0.1, 0.9), False), ({"keep": "best"}, (0.9, 0.1), False)],
    ids=["moving average", "average of epochs", "first is best"],
)
def test_last_validation_has_the_predictions_of_the_final_model(
    job: Callable[..., Job],
    monkeypatch: pytest.MonkeyPatch,
    recipe: dict[str, Any],
    scores: tuple[float, float],
    known: bool,
) -> None:
    """They are written without predicting again; if the final weights are those of an earlier epoch, they are not."""
    given, judge, fit = iter(scores), fitting.validation_scores, training._fit
    monkeypatch.setattr(
        fitting, "validation_scores", lambda *every: judge(*every) | {"validation_macro_f1": next(given)}
    )
    compared: list[bool] = []

    def fit_and_predict(fold: Any, report: Any) -> Any:
        state, logits = fit(fold, report)
        again = fold.context.logits(fold.model, fold.context.pixels, fold.context.validation)
        compared.append(logits is not None and logits.tobytes() == again.tobytes())
        return state, logits

    monkeypatch.setattr(training, "_fit", fit_and_predict)
    train_fold(job(**recipe))
    assert compared == [known]


def names_of(one: Job, hashes: Sequence[str]) -> list[str]:
    """Return the ids with these hashes, from the split of the job."""
    ids = [line.split(",")[0] for line in (Path(one.folder) / "folds.csv").read_text().splitlines()[1:]]
    found = dict(zip(hash_ids(ids), ids, strict=True))
    return [found[name] for name in hashes]


def test_recorded_score_equals_sklearn_on_the_written_rows(job: Callable[..., Job]) -> None:
    one = job()
    done = train_fold(one)
    checkpoint = load_checkpoint(Path(one.checkpoint))
    mask = {"incorrect_mask": 6, "normal": 12}
    truth = []
    for name in names_of(one, checkpoint.validation_hashes):
        folder, stem = name.split("/")
        _, gender, _, age = folder.split("_")
        truth.append(mask.get(stem, 0) + 3 * (gender == "female") + (int(age) >= 30) + (int(age) >= 60))
    predicted = np.load(one.fold_dir / "oof.npy").argmax(1)
    expected = f1_score(truth, predicted, labels=range(18), average="macro", zero_division=0)
    assert done["macro_f1"] == pytest.approx(expected, abs=1e-12)


def test_training_and_validation_people_partition_all_people(job: Callable[..., Job]) -> None:
    one = job(epochs=1)
    train_fold(one)
    checkpoint = load_checkpoint(Path(one.checkpoint))
    training = {name.split("/")[0] for name in names_of(one, checkpoint.training_hashes)}
    validation = {name.split("/")[0] for name in names_of(one, checkpoint.validation_hashes)}
    assert not training & validation
    assert len(training | validation) == 30


def test_same_seed_gives_the_same_bytes_and_another_does_not(job: Callable[..., Job]) -> None:
    arrays = []
    for seed in (0, 0, 1):
        one = job(seed=seed, epochs=1)
        train_fold(one)
        arrays.append((one.fold_dir / "oof.npy").read_bytes())
        start_over()
    assert arrays[0] == arrays[1]
    assert arrays[0] != arrays[2]


# Everything that has a state, changes on the way or draws random numbers, in one recipe.
ALL_AT_ONCE: dict[str, Any] = {
    **{
        "sampler": "sqrt",
        "per_person": {"mask=wear": 2},
        "augment": "strong",
        "mixup": 0.2,
        "cutmix": 1.0,
        "augment_more": {"age=>=60": "light"},
    },
    **{
        "opt": "lion",
        "schedule": "plateau",
        "schedule_args": {"patience": 0},
        "freeze": 1,
        "loss": "ldam:drw=.5+.5*f1",
        "normalise": "data",
    },
    **{
        "target": "mask+gender+age",
        "rebin": {"age": {"column": "years", "cuts": [30, 58]}},
        "ema": 0.9,
        "accumulate": 2,
    },
}


@pytest.mark.parametrize("recipe", [{}, {"ema": 0.9}, {"keep": "best"}, ALL_AT_ONCE])
def test_a_job_that_was_stopped_goes_on_to_the_same_bytes(job: Callable[..., Job], recipe: dict[str, Any]) -> None:
    straight = job(epochs=3, **recipe)
    train_fold(straight)
    expected = (straight.fold_dir / "oof.npy").read_bytes()
    start_over()

    stopped = replace(job(epochs=3, **recipe), save_seconds=-1.0)  # after every step

    def stop_after_two(event: dict[str, Any]) -> None:
        if event["event"] == "epoch" and event["epoch"] == 2:
            raise Stop

    with pytest.raises(Stop):
        train_fold(stopped, stop_after_two)
    assert not (stopped.fold_dir / "done.json").exists()
    seen: list[int] = []
    train_fold(stopped, lambda event: seen.append(event["epoch"]) if event["event"] == "epoch" else None)
    assert seen == [3]
    assert (stopped.fold_dir / "oof.npy").read_bytes() == expected


@pytest.mark.parametrize("saved", [0, 1])
def test_epochs_after_the_last_save_are_trained_again(
    job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, saved: int
) -> None:
    """To the same bytes, the best weights included; the history has them once."""
    recipe = {"epochs": 4, "keep": "best", "ema": 0.9}
    straight = job(**recipe)
    train_fold(straight)
    expected = (straight.fold_dir / "oof.npy").read_bytes()
    losses = [row.split(",")[:3] for row in (straight.fold_dir / "history.csv").read_text().splitlines()]
    start_over()
    stopped, saves = job(**recipe), iter([True] * saved)
    monkeypatch.setattr(
        fitting._Loop, "_save_is_due", lambda loop: loop.state.progress.step == 0 and next(saves, False)
    )

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "epoch" and event["epoch"] == 3:
            raise Stop

    with pytest.raises(Stop):
        train_fold(stopped, stop)
    history = stopped.fold_dir / "history.csv"
    assert history.read_text().count("\n") == 4
    assert (stopped.fold_dir / "state.pt").exists() == bool(saved)
    seen: list[tuple[int, int]] = []

    def look(event: dict[str, Any]) -> None:
        if event["event"] == "step" and not seen:
            seen.append((-1, history.read_text().count("\n") if history.exists() else 1))
        if event["event"] == "epoch":
            seen.append((event["epoch"], 0))

    train_fold(stopped, look)
    assert seen == [(-1, 1 + saved), *((epoch, 0) for epoch in range(saved + 1, 5))]
    assert (stopped.fold_dir / "oof.npy").read_bytes() == expected
    assert [row.split(",")[:3] for row in history.read_text().splitlines()] == losses


def test_the_state_is_saved_by_time_and_not_at_the_end(
    job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[tuple[int, int]] = []
    save = StateWriter.save

    def counted(writer: StateWriter, state: TrainingState) -> None:
        saved.append((state.progress.epoch, state.progress.step))
        save(writer, state)

    monkeypatch.setattr(StateWriter, "save", counted)
    train_fold(job(epochs=2))
    assert saved == []
    steps = train_fold(replace(job("often", epochs=2), save_seconds=-1.0))["images"] // 32
    assert saved == [*((0, step) for step in range(1, steps)), (1, 0), *((1, step) for step in range(1, steps))]


def test_a_run_of_an_earlier_version_keeps_its_batches(job: Callable[..., Job]) -> None:
    one = job(epochs=1)
    train_fold(one)
    new = (one.fold_dir / "oof.npy").read_bytes()
    start_over()
    one = replace(job(epochs=1), course=2)
    done = train_fold(one)
    assert done["images"] == len(load_checkpoint(Path(one.checkpoint)).training_hashes)
    assert (one.fold_dir / "oof.npy").read_bytes() != new


def test_the_checkpoint_alone_gives_the_predictions_again(job: Callable[..., Job]) -> None:
    one = job(epochs=1)
    train_fold(one)
    checkpoint = load_checkpoint(Path(one.checkpoint))
    model = checkpoint.build()
    pixels = torch.from_numpy(np.load(one.pixels)).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in (checkpoint.architecture.mean, checkpoint.architecture.std))
    ids = [line.split(",")[0] for line in (Path(one.folder) / "folds.csv").read_text().splitlines()[1:]]
    rows = [hash_ids(ids).index(name) for name in checkpoint.validation_hashes]
    with torch.no_grad():
        expected = model((pixels[rows] - mean) / std).softmax(1)
    np.testing.assert_allclose(np.load(one.fold_dir / "oof.npy"), expected, atol=1e-5)


def test_predictions_of_larger_cached_images_are_those_of_new_files(job: Callable[..., Job], drawn: Path) -> None:
    """Training sees larger images at random; the recorded settings decode their center, as the training predicted."""
    one = job(epochs=1, cache_scale=1.25, crop_scale=0.5, crop_ratio=1.33)
    assert np.load(one.pixels, mmap_mode="r").shape[1:] == (40, 40, 3)
    train_fold(one)
    checkpoint = load_checkpoint(Path(one.checkpoint))
    settings = checkpoint.image_settings
    assert settings == ImageSettings(32, 32, margin=(4, 4))
    table = read_data(DataSpec(drawn)).train
    rows = [hash_ids(table.ids.tolist()).index(name) for name in checkpoint.validation_hashes]
    assert table.paths is not None
    images = np.stack([decode_image(table.paths[row].read_bytes(), settings).pixels for row in rows])
    mean, std = (torch.tensor(v)[:, None, None] for v in (checkpoint.architecture.mean, checkpoint.architecture.std))
    with torch.no_grad():
        logits = checkpoint.build()((torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / std)
    np.testing.assert_allclose(np.load(one.fold_dir / "oof.npy"), logits.softmax(1), atol=1e-5)


def test_a_choice_of_the_best_epoch_is_marked_optimistic(job: Callable[..., Job]) -> None:
    assert train_fold(job(keep="best"))["optimistic"] is True
    assert train_fold(job("other"))["optimistic"] is False


def test_error_for_a_non_finite_loss_names_the_learning_rate(job: Callable[..., Job]) -> None:
    with pytest.raises(EnsembleError, match=r"the loss is (nan|inf) in epoch") as error:
        train_fold(job(lr=1e30, clip=0.0, epochs=2))
    assert "`lr`" in (error.value.hint or "")


def test_a_damaged_state_is_an_error_that_says_what_to_remove(job: Callable[..., Job]) -> None:
    one = job()
    one.fold_dir.mkdir(parents=True)
    (one.fold_dir / "state.pt").write_bytes(b"no state")
    with pytest.raises(EnsembleError, match="cannot be used to continue the training"):
        train_fold(one)


@pytest.mark.parametrize("stop_at", [1, 2])
def test_resume_rewrites_a_history_that_lacks_the_last_epoch(job: Callable[..., Job], stop_at: int) -> None:
    stopped = replace(job(epochs=3), save_seconds=-1.0)
    write = StateWriter._write_history

    def killed_between(self: StateWriter) -> None:
        if len(self._newest) == stop_at:
            raise Stop
        write(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StateWriter, "_write_history", killed_between)
        with pytest.raises(Stop):
            train_fold(stopped)
    assert torch.load(stopped.fold_dir / "state.pt", weights_only=True)["progress"]["epoch"] == stop_at
    history = stopped.fold_dir / "history.csv"
    assert (history.read_text().count("\n") if history.exists() else 1) == stop_at
    train_fold(stopped)
    assert [row.split(",")[0] for row in history.read_text().splitlines()] == ["epoch", "1", "2", "3"]


def test_a_job_survives_json(job: Callable[..., Job]) -> None:
    one = job()
    assert json.dumps(job_as_dict(job_from_dict(json.loads(json.dumps(job_as_dict(one)))))) == json.dumps(
        job_as_dict(one)
    )


@pytest.mark.parametrize("step", [1, 3, 7])
def test_a_job_stopped_inside_an_epoch_goes_on_to_the_same_bytes(job: Callable[..., Job], step: int) -> None:
    straight = job(epochs=2, ema=0.9)
    train_fold(straight)
    expected = {name: (straight.fold_dir / name).read_bytes() for name in ("oof.npy", "test.npy")}
    losses = [row.split(",")[:3] for row in (straight.fold_dir / "history.csv").read_text().splitlines()]
    start_over()

    stopped = replace(job(epochs=2, ema=0.9), save_seconds=-1.0)  # after every step
    steps = 0

    def stop(event: dict[str, Any]) -> None:
        nonlocal steps
        steps += event["event"] == "step"
        if steps > step:  # before this step is saved
            raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "_REPORT_SECONDS", -1.0)
        with pytest.raises(Stop):
            train_fold(stopped, stop)
    saved = torch.load(stopped.fold_dir / "state.pt", weights_only=True)["progress"]
    assert (saved["epoch"], saved["step"]) == divmod(step, 4)
    train_fold(stopped)
    assert {name: (stopped.fold_dir / name).read_bytes() for name in expected} == expected
    assert [row.split(",")[:3] for row in (stopped.fold_dir / "history.csv").read_text().splitlines()] == losses


TRANSFORM = """
import random
def jitter(image):
    return image // 2 + random.randrange(100)
"""


def test_a_transform_in_processes_gives_the_same_bytes(job: Callable[..., Job]) -> None:
    """With any number of processes, batches started ahead or not; also if the training is stopped in an epoch."""
    Path("in_processes.py").write_text(TRANSFORM)
    make = partial(job, transform="in_processes:jitter", epochs=1)
    here = make()
    train_fold(here)
    files = [here.fold_dir / "oof.npy", Path(here.checkpoint)]
    expected = [file.read_bytes() for file in files]
    pools: list[int] = []

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["done"] == 2:
            raise Stop

    def pool_of(job: Job) -> TransformPool:
        pool = kept_pool("in_processes:jitter", workers, job.fold_dir)
        pools.append(pool._children[0].process.pid)
        return pool

    try:
        for workers, ahead in ((2, 2), (1, 0)):
            start_over()
            one = replace(make(), save_seconds=-1.0)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(training, "_transform", pool_of)
                patch.setattr(fold_setup, "AHEAD", ahead)
                if workers == 2:
                    patch.setattr(fitting, "_REPORT_SECONDS", -1.0)
                    with pytest.raises(Stop):
                        train_fold(one, stop)
                train_fold(one)
            assert [file.read_bytes() for file in files] == expected
        assert pools[0] == pools[1] != pools[2]  # an error of a training does not end the processes
    finally:
        close_kept_pool()


@pytest.mark.parametrize(("device", "workers"), [("cpu", 0), ("cuda:0", 3)])
def test_a_gpu_has_processes_for_the_transform_as_long_as_needed(
    job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, device: str, workers: int
) -> None:
    Path("in_processes.py").write_text(TRANSFORM)
    one = replace(job(transform="in_processes:jitter"), device=device, threads=3)
    pool = training._transform(one)
    assert pool is not None
    assert pool.workers == len(pool._children) == workers
    assert training._transform(replace(one, fold=1)) is pool
    assert training._transform(job(name="plain")) is None
    assert pool.closed
    assert not pool._children


def test_out_of_memory_halves_the_micro_batch_only(job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    create = training.create_model

    def small_memory(*arguments: Any, **named: Any) -> torch.nn.Module:
        model = create(*arguments, **named)

        def refuse(module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
            if len(inputs[0]) > 9:
                raise torch.OutOfMemoryError("out of memory")
            if module.training:
                sizes.append(len(inputs[0]))

        model.register_forward_pre_hook(refuse)
        return model

    monkeypatch.setattr(training, "create_model", small_memory)
    notes: list[str] = []
    one = job(epochs=1, batch_size=32)
    done = train_fold(one, lambda event: notes.append(event["text"]) if event["event"] == "note" else None)
    assert done["micro_batch"] == 8  # 32, 16, 8
    assert len(notes) == 2
    assert "8 images at a time in batches of 32" in notes[-1]
    assert sum(sizes) == done["images"]
    assert max(sizes) == 8
    assert (one.fold_dir / "history.csv").read_text().count("\n") == 2


def test_a_step_that_ran_out_of_memory_leaves_no_trace(
    job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its batch statistics nor its random numbers: the result is that of a training that knew the size from its
    beginning.
    """
    create = training.create_model

    def small_memory(*arguments: Any, **named: Any) -> torch.nn.Module:
        model = create(*arguments, **named)

        def refuse(module: torch.nn.Module, inputs: tuple[torch.Tensor], outputs: torch.Tensor) -> None:
            if len(inputs[0]) > 9:  # after the pass: its statistics are counted by then
                raise torch.OutOfMemoryError("out of memory")

        model.register_forward_hook(refuse)
        return model

    predicted = []
    for name, progress in (("knew", Progress(micro_batch_size=8)), ("found out", Progress())):
        one = job(name.replace(" ", "-"), epochs=1, batch_size=32, model_args={"drop_rate": 0.3})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training, "TrainingState", partial(TrainingState, progress=progress))
            patch.setattr(training, "create_model", small_memory)
            for module in (training, fitting, fold_setup, sampling):  # the name of the run is part of every seed
                patch.setattr(module, "derive_seed", lambda *parts: derive_seed(0, "same", *parts[2:]))
            train_fold(one)
        predicted.append((one.fold_dir / "oof.npy").read_bytes())
    assert predicted[0] == predicted[1]


def test_a_job_that_shares_its_device_gives_way_before_its_batch_is_split(
    job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images on the device are given up first, which changes nothing; parts of a batch would change its statistics."""
    sizes: list[int] = []

    def short(state: Any, loss_of: Any, inputs: torch.Tensor, labels: Any) -> None:
        sizes.append(state.progress.micro_batch_size)
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(fitting, "_accumulate_gradients", short)
    released = [True, False]
    monkeypatch.setattr(fold_setup.PixelSource, "release", lambda pixels: released.pop(0))
    shared = replace(job(epochs=1, batch_size=32), gives_way=True)
    with pytest.raises(DeviceSharedError, match="fold 0: out of memory on cpu"):
        train_fold(shared)
    assert sizes == [0, 0]
    assert not (shared.fold_dir / "done.json").exists()

    def full(*arguments: Any, **named: Any) -> None:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(fitting, "apply_changes", full)  # outside of the passes of the model as well
    with pytest.raises(DeviceSharedError):
        train_fold(shared)


@pytest.mark.parametrize("of_test_images", [False, True])
def test_a_job_that_shares_its_device_gives_way_before_smaller_predictions(
    job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, of_test_images: bool
) -> None:
    """Logits of another batch size may have other last bits."""
    shared = replace(job(epochs=1, batch_size=32), gives_way=True)
    alone = replace(shared, gives_way=False)
    tested = 0 if shared.test_pixels is None else len(np.load(shared.test_pixels, mmap_mode="r"))
    assert tested > 1
    failed: list[int] = []
    real = inference._predict_blocks

    def short(predict: Any, index: np.ndarray, *rest: Any) -> Any:
        def once(rows: np.ndarray, following: np.ndarray) -> torch.Tensor:
            if (len(index) == tested) == of_test_images and not failed:
                failed.append(len(rows))
                raise torch.OutOfMemoryError("out of memory")
            return predict(rows, following)

        return real(once, index, *rest)

    monkeypatch.setattr(inference, "_predict_blocks", short)
    with pytest.raises(DeviceSharedError, match="fold 0: out of memory on cpu"):
        train_fold(shared)
    assert len(failed) == 1
    assert not (shared.fold_dir / "done.json").exists()
    failed.clear()
    assert train_fold(alone)["fold"] == 0
    assert len(failed) == 1


def test_too_little_memory_for_the_optimizer_is_said_as_that(
    job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*arguments: Any, **named: Any) -> None:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(fitting, "apply_changes", none)
    with pytest.raises(EnsembleError, match="the model, the state of its optimizer and one batch of images do not fit"):
        train_fold(job(epochs=1))


def test_gradients_of_small_parts_add_up_to_those_of_the_batch(job: Callable[..., Job]) -> None:
    arrays = []
    for micro in (0, 7):
        # No batch normalisation in a ViT, so the parts see what the whole sees.
        one = job(f"run{micro}", epochs=1, model_args={}, arch="test_vit", augment="none")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training, "TrainingState", partial(TrainingState, progress=Progress(micro_batch_size=micro)))
            patch.setattr(training, "derive_seed", lambda *parts: 1)
            patch.setattr(fitting, "derive_seed", lambda *parts: 1)
            patch.setattr(sampling, "derive_seed", lambda *parts: 1)
            train_fold(one)
        arrays.append(np.load(one.fold_dir / "oof.npy"))
    np.testing.assert_allclose(arrays[0], arrays[1], atol=1e-4)


def test_memory_that_does_not_suffice_for_one_image_is_an_error(
    job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*arguments: Any, **named: Any) -> None:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(fitting, "_accumulate_gradients", none)
    with pytest.raises(EnsembleError, match="out of memory on cpu, even with one image at a time") as error:
        train_fold(job(epochs=1))
    assert "`img_size`" in (error.value.hint or "")


def test_full_disk_fails_the_job_and_keeps_the_saved_state(
    job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = job(epochs=3)
    train_fold(straight)
    expected = (straight.fold_dir / "oof.npy").read_bytes()
    start_over()
    one, saves, save = replace(job(epochs=3), save_seconds=1e-9), 0, torch.save
    monkeypatch.setattr(fitting._Loop, "_save_is_due", lambda loop: loop.state.progress.step == 0)

    def full(value: Any, file: Any) -> None:
        nonlocal saves
        saves += 1
        if saves == 2:
            file.write(b"half of it")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(value, file)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(EnsembleError, match="no space left on device") as error:
        train_fold(one)
    assert "`resume=True`" in (error.value.hint or "")
    assert not list(one.fold_dir.glob(".*"))
    assert torch.load(one.fold_dir / "state.pt", weights_only=True)["progress"]["epoch"] == 1
    train_fold(one)
    assert (one.fold_dir / "oof.npy").read_bytes() == expected


def test_what_a_killed_process_left_half_written_is_removed(job: Callable[..., Job]) -> None:
    one = job(epochs=1)
    one.fold_dir.mkdir(parents=True)
    leftover = one.fold_dir / ".state.pt.1-abcd.tmp"
    leftover.write_bytes(b"half")
    train_fold(one)
    assert not leftover.exists()


def test_a_fold_is_trained_by_one_process_at_a_time(job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:
    one = job(epochs=1)
    monkeypatch.setattr(training, "LOCK_SECONDS", 0.2)
    with exclusive_lock(one.lock, "it"), pytest.raises(EnsembleError, match="run fold 0 is in use by process"):
        train_fold(one)
    assert not (one.fold_dir / "done.json").exists()


def test_folds_share_one_compiled_model_and_come_out_as_without(
    job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = []
    for fold in (0, 1):
        one = replace(job(f"run{fold}", epochs=1), fold=fold)
        train_fold(one)
        expected.append((one.fold_dir / "oof.npy").read_bytes())
    compiled: list[torch.nn.Module] = []

    def stand_in(model: torch.nn.Module, dynamic: bool) -> torch.nn.Module:
        assert dynamic is False
        compiled.append(model)
        return model

    monkeypatch.setattr(torch, "compile", stand_in)  # the real one takes a minute on a CPU
    monkeypatch.setattr(training, "_compiled", {})
    for fold in (0, 1):
        shutil.rmtree(f"runs/run{fold}")
        shutil.rmtree(f"checkpoints/run{fold}")
        one = replace(job(f"run{fold}", epochs=1, compile=True), fold=fold)
        train_fold(one)
        assert (one.fold_dir / "oof.npy").read_bytes() == expected[fold]
    assert len(compiled) == 1


def test_compiled_model_is_unfrozen_for_the_next_fold(job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda model, dynamic: model)  # what is kept is the same

    def trained(name: str, **recipe: Any) -> bytes:
        one = job(name, epochs=1, compile=True, **recipe)
        train_fold(one)
        return (one.fold_dir / "oof.npy").read_bytes()

    training._compiled.clear()
    expected = trained("whole")
    start_over()
    training._compiled.clear()
    trained("frozen", freeze=1)
    assert trained("whole") == expected
    training._compiled.clear()


def test_images_on_the_device_are_given_up_before_the_batch_is_split(
    job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result is that of a device with enough memory, because batch statistics are of whole batches."""
    for module in (training, fitting, fold_setup, sampling):  # the name of the run is part of every seed
        monkeypatch.setattr(module, "derive_seed", lambda *parts: derive_seed(0, "same", *parts[2:]))
    enough, short = job("enough", epochs=1, batch_size=16), job("short", epochs=1, batch_size=16)
    train_fold(enough)
    pixels = PixelSource(np.load(short.pixels), "cpu")
    pixels.resident = torch.from_numpy(pixels.values)
    accumulate = fitting._accumulate_gradients

    def with_less_memory(*arguments: Any) -> torch.Tensor:
        if pixels.resident is not None:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate")
        return accumulate(*arguments)

    monkeypatch.setattr(PixelSource, "of", lambda *arguments: pixels)
    monkeypatch.setattr(fitting, "_accumulate_gradients", with_less_memory)
    notes: list[str] = []
    done = train_fold(short, lambda event: notes.append(event["text"]) if event["event"] == "note" else None)
    assert (enough.fold_dir / "oof.npy").read_bytes() == (short.fold_dir / "oof.npy").read_bytes()
    assert done["micro_batch"] is None
    assert [note.partition(", ")[2] for note in notes] == ["continuing with images that are sent batch by batch"]


def test_parts_too_small_for_a_normalization_are_told_as_memory(
    job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_small(state: Any, *arguments: Any) -> None:
        if state.progress.micro_batch_size == 1:
            raise ValueError("Expected more than 1 value per channel when training, got input size [1, 4]")
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(fitting, "_accumulate_gradients", too_small)
    with pytest.raises(EnsembleError, match="out of memory on cpu, even with one image at a time"):
        train_fold(job(epochs=1))


def test_other_errors_of_a_step_are_not_taken_for_short_memory(
    job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(fitting, "_accumulate_gradients", broken)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        train_fold(job(epochs=1))


def test_deterministic_kernels_are_chosen_for_each_job(job: Callable[..., Job]) -> None:
    """The next job of the process may want the other kind."""
    for wanted in (True, False):
        train_fold(job(f"run-{wanted}", epochs=1, deterministic=wanted))
        assert torch.are_deterministic_algorithms_enabled() == wanted


def test_a_kernel_that_is_not_deterministic_is_an_error_with_the_way(
    job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*arguments: Any) -> None:
        raise RuntimeError("cumsum_cuda_kernel does not have a deterministic implementation, but you set ...")

    monkeypatch.setattr(fitting, "_accumulate_gradients", none)
    try:
        with pytest.raises(EnsembleError, match="not deterministic: cumsum_cuda_kernel does not have") as error:
            train_fold(job(epochs=1, deterministic=True))
    finally:
        torch.use_deterministic_algorithms(False)
    assert "without `deterministic`" in (error.value.hint or "")
