"""The way of images to a GPU; here the streams are fakes, and the device is the CPU."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from folds.models import transfers
from folds.models.inference import ChangeAhead, JoinedArrays, PixelSource, predict_logits
from folds.models.transfers import Transfers, streams_of


class FakeStreams:
    """Stands for ``torch.cuda``: streams that are contexts, and events that are counted."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.threads: list[str] = []
        outer = self

        class Event:
            def record(self, stream: object) -> None:
                assert stream == "side"
                outer.log.append("sent")
                outer.threads.append(threading.current_thread().name)

        class Current:
            def wait_event(self, event: object) -> None:
                assert isinstance(event, Event)
                outer.log.append("waited")

        self.Event, self._current = Event, Current()

    def Stream(self, device: torch.device) -> str:
        return "side"

    def stream(self, stream: str) -> Any:
        from contextlib import nullcontext

        return nullcontext()

    def current_stream(self, device: torch.device) -> Any:
        return self._current


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> FakeStreams:
    fake = FakeStreams()
    monkeypatch.setattr(transfers, "streams_of", lambda device: fake)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: fake.log.append("kept"), raising=False)
    return fake


def images(n: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (n, 3, 2, 3), dtype=np.uint8)


class FirstPixel(torch.nn.Module):
    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return batch[:, :, 0, 0]


def test_the_next_batch_is_sent_while_this_one_is_computed(streams: FakeStreams) -> None:
    values, rows = images(10), np.array([9, 1, 1, 0, 4, 3, 8])
    found = predict_logits(FirstPixel(), PixelSource(values, "cpu"), rows, (0, 0, 0), (1, 1, 1), device="cpu", batch=3)
    np.testing.assert_allclose(found[0], values[rows, 0, 0] / 255, atol=1e-6)
    assert streams.log.count("sent") == streams.log.count("waited") == streams.log.count("kept") == 3
    assert streams.threads[0] == threading.current_thread().name
    assert all(name.startswith("pixels") for name in streams.threads[1:])


def test_training_batches_are_sent_ahead_too(streams: FakeStreams) -> None:
    values, rows = images(6), [np.array([5, 0]), np.array([2]), np.array([3, 3])]
    pixels = PixelSource(values, "cpu")
    plain = [batch.numpy() for batch in pixels.batches(rows)]
    changed = [batch.numpy() for batch in pixels.batches(rows, None, lambda step, some, batch: batch + step, 7)]
    for i, some in enumerate(rows):
        np.testing.assert_array_equal(plain[i], values[some])
        np.testing.assert_array_equal(changed[i], values[some] + np.uint8(7 + i))
    assert streams.log.count("waited") == 6
    assert all(name.startswith("pixels") for name in streams.threads)


class Elsewhere:
    """Changes batches as other processes would: in a ring of buffers that are used again."""

    def __init__(self, ahead: int) -> None:
        self.buffers = [np.zeros((2, 3, 2, 3), np.uint8) for _ in range(ahead + 1)]
        self.log: list[str] = []
        self.threads: set[str] = set()

    def start(self, step: int, rows: NDArray[np.integer], values: NDArray[np.uint8]) -> Any:
        def finish() -> NDArray[np.uint8]:
            self.log.append(f"finish {step}")
            if step == 13:
                raise ValueError("no such luck")
            return buffer

        self.log.append(f"start {step}")
        self.threads.add(threading.current_thread().name[:6])
        buffer = self.buffers[step % len(self.buffers)]
        buffer[:] = values[rows] + np.uint8(step)
        return finish


@pytest.mark.parametrize("ahead", [0, 1, 2])
@pytest.mark.parametrize("overlap", [False, True])
def test_changes_elsewhere_are_started_ahead(ahead: int, overlap: bool, request: pytest.FixtureRequest) -> None:
    fake = request.getfixturevalue("streams") if overlap else None
    values, rows = images(6), [np.array([i, 5 - i]) for i in range(5)]
    change = Elsewhere(ahead)
    found = list(PixelSource(values, "cpu").batches(rows, None, ChangeAhead(change.start, ahead), 7))
    for i, some in enumerate(rows):
        np.testing.assert_array_equal(found[i].numpy(), values[some] + np.uint8(7 + i))
    started = 0
    for i in range(5):
        finished = change.log.index(f"finish {7 + i}")
        started = sum(entry.startswith("start") for entry in change.log[:finished])
        assert i < started <= min(5, i + 1 + ahead)
    assert started == 5
    assert change.log.index(f"start {7 + ahead}") < change.log.index("finish 7")
    assert change.threads == ({"pixels"} if overlap else {"MainTh"})
    assert fake is None or fake.log.count("waited") == 5


@pytest.mark.parametrize("overlap", [False, True])
def test_an_error_of_a_change_elsewhere_is_raised(overlap: bool, request: pytest.FixtureRequest) -> None:
    if overlap:
        request.getfixturevalue("streams")
    pixels, rows = PixelSource(images(6), "cpu"), [np.array([i, i]) for i in range(6)]
    batches = pixels.batches(rows, None, ChangeAhead(Elsewhere(2).start, 2), 12)
    next(batches)
    with pytest.raises(ValueError, match="no such luck"):
        next(batches)
    with pytest.raises(IndexError):
        next(pixels.batches([np.array([0, 6])], None, ChangeAhead(Elsewhere(2).start, 2)))


def test_batches_that_are_not_read_leave_no_thread(streams: FakeStreams) -> None:
    rows = [np.array([i, i]) for i in range(6)]
    change = Elsewhere(2)
    batches = PixelSource(images(6), "cpu").batches(rows, None, ChangeAhead(change.start, 2))
    next(batches)
    batches.close()
    assert not any(thread.name.startswith("pixels") for thread in threading.enumerate())
    assert "start 3" not in change.log


def test_a_smaller_batch_than_the_prepared_one_is_sent_anew(streams: FakeStreams) -> None:
    class Small(FirstPixel):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            if len(batch) > 2:
                raise torch.OutOfMemoryError("out of memory")
            return super().forward(batch)

    values = images(9)
    found = predict_logits(
        Small(), PixelSource(values, "cpu"), np.arange(9), (0, 0, 0), (1, 1, 1), device="cpu", batch=4
    )
    np.testing.assert_allclose(found[0], values[:, 0, 0] / 255, atol=1e-6)


@pytest.mark.parametrize("layout", ["plain", "columns first"])
def test_rows_are_gathered_into_pinned_memory(
    layout: str, streams: FakeStreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = images(5) if layout == "plain" else np.asfortranarray(images(5))
    way = Transfers(torch.device("cpu"))
    way.pinned = True
    monkeypatch.setattr(Transfers, "_empty", lambda self, shape: torch.empty(shape, dtype=torch.uint8))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor.clone())
    np.testing.assert_array_equal(way.send_rows(values, np.array([4, 0, 4])).received().numpy(), values[[4, 0, 4]])
    for rows in ([5], [-1]):
        with pytest.raises(IndexError):
            way.send_rows(images(5), np.array(rows))


def test_joined_arrays_are_gathered_for_a_gpu_too(streams: FakeStreams, monkeypatch: pytest.MonkeyPatch) -> None:
    way = Transfers(torch.device("cpu"))
    way.pinned = True
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor.clone())
    values = images(5)
    found = way.send_rows(JoinedArrays(values[:3], values[3:]), np.array([4, 0, 3])).received()  # type: ignore[arg-type]
    np.testing.assert_array_equal(found.numpy(), values[[4, 0, 3]])


def test_only_gpus_with_streams_send_ahead() -> None:
    assert [streams_of(torch.device(kind)) is None for kind in ("cpu", "mps", "cuda", "xpu")] == [
        True,
        True,
        False,
        False,
    ]
    assert not Transfers(torch.device("cpu")).overlap
