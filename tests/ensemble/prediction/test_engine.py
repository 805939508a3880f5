"""Chunks are predicted by all devices, with bounded weights; what goes wrong is one clear error and costs no work."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import ensemble as en
from ensemble.prediction import engine, work
from ensemble.prediction import predict as data_path
from ensemble.prediction import prediction_formats as formats
from ensemble.prediction.source import load_source
from folds.errors import EnsembleError, UsageError
from folds.images.settings import ImageSettings
from folds.models import stored_weights
from tests.conftest import ROOT, Called, holding

TEST = "people/eval"


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The (file, device) of each model that is built from here on."""
    made: list[tuple[str, str]] = []
    build = engine.built

    def counted(model, device, choice):
        made.append((str(model.path), device))
        return build(model, device, choice)

    monkeypatch.setattr(engine, "built", counted)
    return made


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three chunks of the 42 images."""
    monkeypatch.setattr(data_path, "_CHUNK_BYTES", 1)
    monkeypatch.setattr(data_path, "BATCH", 16)


@pytest.mark.parametrize(("what", "models"), [("soft", 6), ("checkpoints/test_vit/fold1.pt", 1)])
def test_models_or_rows_are_spread_over_the_devices(
    two_blends: Path,
    monkeypatch: pytest.MonkeyPatch,
    builds: list[tuple[str, str]],
    what: str,
    models: int,
) -> None:
    expected = en.predict(what, TEST, progress=False)
    builds.clear()
    monkeypatch.setattr(data_path, "resolve_devices", lambda devices: ["cpu", "cpu"])
    lanes: set[int] = set()
    run = engine.Engine._run

    def seen(self, task, pixels, start):
        lanes.add(id(task.lane))
        return run(self, task, pixels, start)

    monkeypatch.setattr(engine.Engine, "_run", seen)
    found = en.predict(what, TEST, progress=False)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-6)
    assert len(lanes) == 2
    assert len(builds) == max(models, 2)
    assert found.passes == expected.passes


def test_several_streams_give_the_same_in_order(
    two_blends: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = en.predict("views", TEST, progress=False)
    monkeypatch.setattr(engine, "cpu_count", lambda: 3)
    monkeypatch.setattr(formats, "_WORTH_MEASURING", 0)
    monkeypatch.setattr(formats, "_rates", lambda timed, images: {way: len(way) for way in timed})
    before = torch.get_num_threads()
    found = en.predict("views", TEST, progress=False)
    assert {one["way"] for one in found.formats.values()} == {formats.FUSED}
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-6)
    assert torch.get_num_threads() == before


def test_models_that_fit_are_loaded_once_and_others_for_each_chunk(
    two_blends: Path,
    monkeypatch: pytest.MonkeyPatch,
    builds: list[tuple[str, str]],
    small_chunks: None,
) -> None:
    expected = en.predict("test_resnet", TEST, progress=False)
    assert len(builds) == 3
    builds.clear()
    one = load_source("test_resnet").models[0].checkpoint.weight_bytes
    monkeypatch.setattr(engine, "_MODEL_BYTES_CPU", int(1.5 * one))
    found = en.predict("test_resnet", TEST, progress=False)
    assert len(builds) == 1 + 2 * 3  # the first stays
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)


def test_weights_of_checkpoints_do_not_stay_in_memory(
    two_blends: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stored_weights, "_MOST_BYTES", 1)
    source = load_source("soft")
    assert len(stored_weights._recent) == 1
    assert len(en.predict("soft", TEST, progress=False)) == 42
    assert len(stored_weights._recent) == 1
    assert all(model.checkpoint.weight_bytes > 1000 for model in source.models)


def test_a_checkpoint_that_changes_meanwhile_is_refused(grid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_weights, "_MOST_BYTES", 1)
    source = load_source("test_resnet")
    shutil.copyfile("checkpoints/test_resnet/fold1.pt", "checkpoints/test_resnet/fold0.pt")
    with pytest.raises(EnsembleError, match=r"fold0\.pt was changed"):
        source.models[0].checkpoint.build()


def test_chunks_are_larger_where_weights_are_loaded_for_each(two_blends: Path) -> None:
    source, size = load_source("views"), [ImageSettings(32, 32)]
    assert data_path.chunk_rows(source, size, True) < data_path.chunk_rows(source, size, False)
    assert data_path.chunk_rows(source, [ImageSettings(4000, 4000)], False) == data_path.BATCH
    rows = data_path.chunk_rows(source, [ImageSettings(224, 224)], False)
    assert rows * 224 * 224 * 3 <= data_path._CHUNK_BYTES


def test_another_precision_does_not_continue_the_work(
    two_blends: Path,
    monkeypatch: pytest.MonkeyPatch,
    small_chunks: None,
    logged,
) -> None:
    fill = engine.Engine.fill

    def interrupted(self, pixels, usable, start, advance):
        if start >= 16:
            raise KeyboardInterrupt
        return fill(self, pixels, usable, start, advance)

    with monkeypatch.context() as patch:
        patch.setattr(engine.Engine, "fill", interrupted)
        with pytest.raises(KeyboardInterrupt):
            en.predict("soft", TEST, progress=False)
    en.predict("soft", TEST, precision="fp32", progress=False)
    assert not any("continuing" in note for note in logged.notes)
    en.predict("soft", TEST, progress=False)
    assert any("continuing with image 17 of 42" in note for note in logged.notes)


def test_a_disk_without_room_is_an_error_before_any_image(
    two_blends: Path,
    monkeypatch: pytest.MonkeyPatch,
    builds: list[tuple[str, str]],
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(work.os, "posix_fallocate", full)
    with pytest.raises(EnsembleError, match="no space left") as caught:
        en.predict("soft", TEST, progress=False)
    assert "free some space" in str(caught.value.hint)
    assert not builds


def test_a_disk_that_fills_up_keeps_the_work(
    two_blends: Path,
    monkeypatch: pytest.MonkeyPatch,
    builds: list[tuple[str, str]],
    tmp_path: Path,
    call: Callable[..., Called],
) -> None:
    from ensemble.prediction import result

    def full(*arguments: object) -> None:
        raise result.EnsembleError("cannot write p.npy: no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(result, "write_prediction", full)
        failed = call("predict", "soft", TEST, "-o", tmp_path / "p.npy")
    assert failed.code == 1
    assert "no space left" in failed.err
    builds.clear()
    done = call("predict", "soft", TEST, "-o", tmp_path / "p.npy")
    assert done.code == 0, done.err
    assert not builds
    assert not list(Path(".ensemble/predict").glob("*"))


def test_a_second_prediction_into_one_output_is_refused(
    two_blends: Path,
    tmp_path: Path,
    builds: list[tuple[str, str]],
    call: Callable[..., Called],
) -> None:
    with holding(tmp_path / ".p.npy.lock") as process:
        done = call("predict", "soft", TEST, "-o", tmp_path / "p.npy")
    assert done.code != 0
    assert f"p.npy is in use by process {process.pid}" in done.err.replace("\n", " ")
    assert not builds


def test_a_gpu_that_is_not_there_is_named(two_blends: Path, call: Callable[..., Called]) -> None:
    with pytest.raises(UsageError, match="cuda:7 not found"):
        en.predict("soft", TEST, device="7", progress=False)
    assert "cuda:7 not found" in call("predict", "soft", TEST, "--devices", "7").err


def test_a_closed_stdin_does_not_matter(two_blends: Path, tmp_path: Path) -> None:
    command = f'exec "{sys.executable}" -m ensemble predict test_resnet {TEST} -o "{tmp_path}/p.npy" <&-'
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=two_blends,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(en.read_predictions(tmp_path / "p.npy")) == 42
