"""Backgrounds replaced by a real ONNX file through onnxruntime, held to what rembg computes of the same model."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from folds.errors import EnsembleError
from folds.preparation.background import FILLS, BackgroundModel, replace_background
from tests.folds.tiny_models import write_model


@pytest.fixture
def model(tmp_path: Path) -> BackgroundModel:
    return BackgroundModel(write_model(tmp_path / "u2net.onnx"))


def disc(height: int = 120, width: int = 90) -> np.ndarray:
    """A bright disc on a dark ground."""
    y, x = np.mgrid[:height, :width]
    inside = (y - height / 2) ** 2 + (x - width / 2) ** 2 < (width / 4) ** 2
    return np.where(inside[:, :, None], (250, 240, 220), (20, 30, 60)).astype(np.uint8)


def test_mask_has_the_size_of_the_image_and_the_model_output(model: BackgroundModel) -> None:
    image = disc()
    mask = model.mask(image)
    assert mask.shape == image.shape[:2]
    assert mask.dtype == np.uint8
    assert mask[60, 45] > 235
    assert mask[5, 5] < 20


def test_the_mask_is_that_of_the_original_s_arithmetic(model: BackgroundModel) -> None:
    # rembg 2.0 (U2netSession.predict), written out, with the tiny model's own formula for the network.
    image = np.random.default_rng(0).integers(0, 60, (64, 48, 3), dtype=np.uint8)
    values = np.array(Image.fromarray(image).resize((320, 320), Image.Resampling.LANCZOS))
    values = values / max(np.max(values), 1e-6)
    normal = (values - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    predicted = 1 / (1 + np.exp(-(normal.astype(np.float32) @ np.array([0.3, 0.6, 0.1], np.float32))))
    predicted = (predicted - predicted.min()) / (predicted.max() - predicted.min())
    expected = Image.fromarray((predicted * 255).astype(np.uint8)).resize((48, 64), Image.Resampling.LANCZOS)
    assert np.abs(model.mask(image).astype(int) - np.asarray(expected)).max() <= 1


def test_threads_that_share_a_model_get_the_same_masks(model: BackgroundModel) -> None:
    images = [np.random.default_rng(seed).integers(0, 256, (40, 30, 3), dtype=np.uint8) for seed in range(8)]
    alone = [model.mask(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        assert all(np.array_equal(one, other) for one, other in zip(alone, pool.map(model.mask, images)))


@pytest.mark.parametrize("fill", FILLS)
def test_foreground_stays_and_background_becomes_the_fill(model: BackgroundModel, fill: str) -> None:
    image = disc()
    made, share = replace_background(image, model.mask(image), fill)
    assert np.abs(made[60, 45].astype(int) - image[60, 45]).max() <= 20
    expected = {"grey": (128, 128, 128), "white": (255, 255, 255), "black": (0, 0, 0), "blur": image[3, 3]}[fill]
    assert np.abs(made[3, 3].astype(int) - expected).max() <= 20
    assert 0.1 < share < 0.3
    assert made.shape == image.shape


def test_half_a_mask_is_half_of_each() -> None:
    image = np.full((4, 4, 3), 200, np.uint8)
    made, share = replace_background(image, np.full((4, 4), 51, np.uint8), "black")
    assert np.abs(made.astype(int) - 40).max() <= 1
    assert share == pytest.approx(0.2)


def test_an_image_in_which_nothing_stands_out_is_kept(model: BackgroundModel) -> None:
    flat = np.full((30, 20, 3), 90, np.uint8)
    mask = model.mask(flat)
    assert mask.max() == 0
    made, share = replace_background(flat, mask)
    assert share == 0
    assert np.array_equal(made, flat)


def test_files_that_are_no_u2net_are_refused_with_what_was_found(tmp_path: Path) -> None:
    with pytest.raises(
        EnsembleError, match=r"isnet\.onnx has 1 inputs, the first tensor\(float\) \(1, 3, 1024, 1024\)"
    ) as caught:
        BackgroundModel(write_model(tmp_path / "isnet.onnx", "isnet"))
    assert "u2netp" in (caught.value.hint or "")
    with pytest.raises(EnsembleError, match=r"classes\.onnx, found \(1, 2, 320, 320\)"):
        BackgroundModel(write_model(tmp_path / "classes.onnx", "classes")).mask(disc())
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(EnsembleError, match=r"onnxruntime cannot use .*text\.onnx"):
        BackgroundModel(tmp_path / "text.onnx")


def test_without_onnxruntime_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EnsembleError, match="onnxruntime cannot be imported") as caught:
        BackgroundModel(write_model(tmp_path / "u2net.onnx"))
    assert caught.value.hint == "pip install onnxruntime"
