from __future__ import annotations

import os
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray

from folds.models import inference
from folds.models.inference import BATCH, PixelSource, copy_in_blocks, identity, predict_logits
from folds.models.memory import is_out_of_memory

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model("test_vit", num_classes=4, img_size=32).eval()


def images(n: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)


def expected(model: torch.nn.Module, values: NDArray, flip: bool = False) -> NDArray:
    """The model called on each image alone, normalised by the formula."""
    plain = (values.astype(np.float64) / 255 - MEAN) / STD
    batch = torch.from_numpy(plain.transpose(0, 3, 1, 2).astype(np.float32))
    with torch.no_grad():
        return torch.cat([model(one[None].flip(3) if flip else one[None]) for one in batch]).numpy()


class FirstPixel(torch.nn.Module):
    """The first pixel's three normalised values as logits; remembers the batches it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        self.seen.append(batch)
        return batch[:, :, 0, 0]


def test_logits_are_those_of_the_model_for_each_view(model: torch.nn.Module) -> None:
    values = images(5)
    found = predict_logits(
        model,
        PixelSource(values, "cpu"),
        np.arange(5),
        MEAN,
        STD,
        device="cpu",
        views=(identity, lambda batch: batch.flip(3)),
    )
    assert (found.shape, found.dtype) == ((2, 5, 4), np.float32)
    np.testing.assert_allclose(found[0], expected(model, values), atol=1e-4)
    np.testing.assert_allclose(found[1], expected(model, values, flip=True), atol=1e-4)
    assert np.abs(found[0] - found[1]).max() > 1e-3


def test_channels_last_does_not_change_logits() -> None:
    resnet = timm.create_model("test_resnet", num_classes=4).eval()
    values, rows = images(3), np.arange(3)
    plain, other = (
        predict_logits(resnet, PixelSource(values, "cpu"), rows, MEAN, STD, device="cpu", channels_last=layout)
        for layout in (False, True)
    )
    np.testing.assert_allclose(plain, other, atol=1e-4)
    probe = FirstPixel()
    predict_logits(probe, PixelSource(values, "cpu"), rows, MEAN, STD, device="cpu", channels_last=True)
    assert probe.seen[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("n", [1, BATCH - 1, BATCH, BATCH + 1, 2 * BATCH, 2 * BATCH + 3])
def test_logits_are_in_index_order_for_any_number_of_batches(n: int) -> None:
    values = images(2 * BATCH + 3)
    index = np.random.default_rng(1).permutation(len(values))[:n]
    probe = FirstPixel()
    found = predict_logits(probe, PixelSource(values, "cpu"), index, MEAN, STD, device="cpu")
    np.testing.assert_allclose(found[0], (values[index, 0, 0] / 255 - MEAN) / STD, atol=1e-5)
    assert [len(batch) for batch in probe.seen] == [BATCH] * (n // BATCH) + [n % BATCH] * (n % BATCH > 0)


def test_a_row_may_be_asked_for_twice() -> None:
    values = images(3)
    found = predict_logits(FirstPixel(), PixelSource(values, "cpu"), np.array([2, 0, 2]), MEAN, STD, device="cpu")[0]
    assert (found[0] == found[2]).all()
    assert (found[0] != found[1]).any()


def test_views_get_pixels_from_zero_to_one_before_normalization() -> None:
    seen: list[torch.Tensor] = []

    def half(batch: torch.Tensor) -> torch.Tensor:
        seen.append(batch)
        return batch / 2

    values = images(2)
    found = predict_logits(
        FirstPixel(), PixelSource(values, "cpu"), np.arange(2), MEAN, STD, device="cpu", views=(half,)
    )
    np.testing.assert_allclose(seen[0].numpy(), values.transpose(0, 3, 1, 2) / 255, atol=1e-6)
    np.testing.assert_allclose(found[0], (values[:, 0, 0] / 255 / 2 - MEAN) / STD, atol=1e-5)


def test_a_view_that_only_moves_pixels_sees_normalized_ones() -> None:
    class Flip:
        geometric_only = True

        def __call__(self, batch: torch.Tensor) -> torch.Tensor:
            self.seen = batch
            return batch.flip(3)

    values, flip = images(2), Flip()
    normal = (values.transpose(0, 3, 1, 2) / 255 - np.array(MEAN)[:, None, None]) / np.array(STD)[:, None, None]
    for views in ((flip,), (flip, lambda batch: batch / 2)):  # also beside one that sees plain pixels
        predict_logits(FirstPixel(), PixelSource(values, "cpu"), np.arange(2), MEAN, STD, device="cpu", views=views)
        np.testing.assert_allclose(flip.seen.numpy(), normal, atol=1e-5)


def test_progress_is_told_after_each_batch_and_ends_at_all_rows() -> None:
    told: list[tuple[int, int]] = []
    n = BATCH + 5
    predict_logits(
        FirstPixel(),
        PixelSource(images(n), "cpu"),
        np.arange(n),
        MEAN,
        STD,
        device="cpu",
        views=(identity, identity),
        progress=lambda *at: told.append(at),
    )
    assert told == [(BATCH, n), (n, n)]


def test_half_precision_logits_are_close_and_returned_as_float32(model: torch.nn.Module) -> None:
    pixels = PixelSource(images(3), "cpu")
    full, half = (
        predict_logits(model, pixels, np.arange(3), MEAN, STD, device="cpu", amp=amp) for amp in ("off", "bf16")
    )
    assert half.dtype == np.float32
    assert not np.array_equal(full, half)
    np.testing.assert_allclose(half, full, atol=0.1)


def test_nothing_to_predict_is_an_error() -> None:
    with pytest.raises(ValueError, match="no rows"):
        predict_logits(FirstPixel(), PixelSource(images(1), "cpu"), np.array([], int), MEAN, STD, device="cpu")


def test_images_are_read_from_a_memory_map_which_is_not_changed(tmp_path: Path) -> None:
    np.save(tmp_path / "pixels.npy", images(4))
    mapped = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    pixels = PixelSource(mapped, "cpu")
    taken = pixels.take(np.array([3, 1]))
    assert (len(pixels), taken.dtype) == (4, torch.uint8)
    np.testing.assert_array_equal(taken.numpy(), images(4)[[3, 1]])
    taken.zero_()
    np.testing.assert_array_equal(np.load(tmp_path / "pixels.npy"), images(4))


def test_two_most_recent_pixel_sources_are_kept(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.npy" for name in "abc"]
    for path in paths:
        np.save(path, images(2))
    first, second = PixelSource.of(paths[0], "cpu"), PixelSource.of(paths[1], "cpu")
    assert PixelSource.of(paths[0], "cpu") is first
    third = PixelSource.of(paths[2], "cpu")  # the second was used longest ago
    assert (PixelSource.of(paths[0], "cpu") is first, PixelSource.of(paths[2], "cpu") is third) == (True, True)
    assert PixelSource.of(paths[1], "cpu") is not second
    assert len(inference._recent) == 2
    before = PixelSource.of(paths[0], "cpu")
    os.utime(paths[0], ns=(1, 1))  # written anew
    assert PixelSource.of(paths[0], "cpu") is not before


@pytest.mark.parametrize(("share", "fits"), [(1.0, True), (0.5, False)])
def test_a_job_takes_no_more_than_its_share_of_the_memory(
    share: float, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = images(4)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3 * values.nbytes, 3 * values.nbytes))
    monkeypatch.setattr(inference, "copy_in_blocks", lambda values, device: torch.from_numpy(values))
    assert (PixelSource(values, "cuda:0", share).resident is not None) == fits


def test_batches_are_the_rows_asked_for_wherever_the_pixels_lie() -> None:
    values = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), dtype=np.uint8)
    rows = [np.array([3, 1, 19]), np.array([0]), np.array([7, 7])]
    pixels = PixelSource(values, "cpu")
    mapped = [batch.numpy() for batch in pixels.batches(rows)]
    pixels.resident = torch.from_numpy(values)
    resident = [batch.numpy() for batch in pixels.batches(rows, torch.from_numpy(np.concatenate(rows)))]
    for found in (mapped, resident):
        assert len(found) == 3
        for batch, some in zip(found, rows, strict=True):
            np.testing.assert_array_equal(batch, values[some])


def test_too_little_memory_predicts_fewer_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    class Small(torch.nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            if len(batch) > 20:
                raise torch.OutOfMemoryError("out of memory")
            return batch.mean((2, 3))

    values = np.random.default_rng(0).integers(0, 256, (70, 4, 4, 3), dtype=np.uint8)
    seen: list[int] = []
    logits = predict_logits(
        Small(),
        PixelSource(values, "cpu"),
        np.arange(70),
        (0, 0, 0),
        (1, 1, 1),
        device="cpu",
        progress=lambda done, total: seen.append(done),
    )
    np.testing.assert_allclose(logits[0], values.mean((1, 2)) / 255, atol=1e-5)
    assert seen[-1] == 70


def test_images_are_the_same_on_the_device_copied_in_blocks() -> None:
    values = np.random.default_rng(0).integers(0, 256, (23, 5, 4, 3), dtype=np.uint8)
    for rows in (1, 4, 23, 100):
        made = copy_in_blocks(values, torch.device("cpu"), block_bytes=rows * 60)
        np.testing.assert_array_equal(made.numpy(), values)
    assert copy_in_blocks(values[:0], torch.device("cpu")).shape == (0, 5, 4, 3)


def test_batches_go_on_when_the_images_on_the_device_are_given_up() -> None:
    values = np.random.default_rng(1).integers(0, 256, (12, 2, 2, 3), dtype=np.uint8)
    pixels = PixelSource(values, "cpu")
    pixels.resident = torch.from_numpy(values.copy())
    rows = [np.arange(4), np.array([11, 5, 7]), np.arange(8, 12)]
    held = weakref.ref(pixels.resident)
    found = []
    for batch in pixels.batches(rows, torch.from_numpy(np.concatenate(rows))):
        found.append(batch.numpy())
        assert pixels.release() == (len(found) == 1)
        assert held() is None  # the memory is free in the step that asked for it
    assert [batch.tolist() for batch in found] == [values[some].tolist() for some in rows]


@pytest.mark.parametrize("text", ["CUDA error: out of memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"])
def test_short_memory_is_recognized_in_errors_without_a_class(text: str) -> None:
    assert is_out_of_memory(RuntimeError(text))
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    assert not is_out_of_memory(ValueError(text))


def test_progress_counts_rows_that_the_gpu_has_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU is one block behind what was sent to it."""
    log: list[object] = []

    class Event:
        def record(self, stream: object) -> None:
            log.append("sent")

        def synchronize(self) -> None:
            log.append("computed")

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    block = SimpleNamespace(is_cuda=True, device="cuda:0")
    found = inference._predict_blocks(
        lambda rows, following: block, np.arange(5), 2, lambda done, total: log.append(done)
    )
    assert list(found) == [block] * 3
    assert log == ["sent", "sent", "computed", 2, "sent", "computed", 4, "computed", 5]


@pytest.mark.parametrize("halve", [True, False])
def test_a_batch_is_halved_only_where_that_is_allowed(halve: bool) -> None:
    sizes: list[int] = []

    class Small(FirstPixel):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            sizes.append(len(batch))
            if len(batch) > 2:
                raise torch.OutOfMemoryError("out of memory")
            return super().forward(batch)

    def predict() -> np.ndarray:
        pixels = PixelSource(images(5), "cpu")
        return predict_logits(Small(), pixels, np.arange(5), MEAN, STD, device="cpu", batch=4, halve=halve)

    if halve:
        assert predict().shape[1] == 5
        assert sizes == [4, 2, 2, 1]
    else:
        with pytest.raises(torch.OutOfMemoryError):
            predict()
        assert sizes == [4]
