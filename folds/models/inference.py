"""Predict logits from uint8 pixels; out-of-fold, test and view predictions share one loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from folds.augmentation.batch import center_crop
from folds.models.accelerators import memory, of_device, streams_of
from folds.models.memory import is_out_of_memory
from folds.models.precision import autocast
from folds.models.transfers import Sent, Transfers

# A view of a batch: float32 (n, 3, height, width) with values 0–1 → the same shape.
View = Callable[[Tensor], Tensor]
# (step, rows, images uint8 (n, height, width, 3)) → images of the same shape.
Change = Callable[[int, NDArray[np.integer], NDArray[np.uint8]], NDArray[np.uint8]]


@dataclass(frozen=True)
class ChangeAhead:
    """A change that other processes make, some batches ahead.

    Attributes
    ----------
    start : (step, rows, uint8 (images, height, width, 3)) → a function that waits for the changed images of these rows.
        They are valid until as many batches as can be under way are started after this one.
    batches : how many batches are started before they are needed; at most one more is under way.
    """

    start: Callable[[int, NDArray[np.integer], NDArray[np.uint8]], Callable[[], NDArray[np.uint8]]]
    batches: int


# The batch size changes logits by a few 1e-6 (other kernels, other sums), so all predictions use the same size.
BATCH = 64
# For views, which are compared with each other only: a GPU would wait for the launches of small batches.
GPU_BATCH = 256


class PixelSource:
    """All images of a table, on the GPU if they fit into its memory, otherwise memory-mapped.

    Parameters
    ----------
    values : uint8 (images, height, width, 3).
    device : device of the batches.
    memory_fraction : share of the device's memory that may be used; 0.5 if two jobs train on it.
    """

    def __init__(self, values: NDArray[np.uint8], device: str, memory_fraction: float = 1.0) -> None:
        self.values = values
        self.device = torch.device(device)
        self.transfers = Transfers(self.device)
        self.resident: Tensor | None = None
        room = memory(device)
        # Half of the memory is left for the model, its gradients and activations.
        if room is not None and values.nbytes < min(room[0], room[1] * memory_fraction) / 2:
            self.resident = copy_in_blocks(values, self.device)

    @classmethod
    def sent(cls, values: NDArray[np.uint8], device: str) -> PixelSource:
        """Return images that are on the device when this returns, if they fit.

        They are sent on a stream of their own, so a thread can send the next images while a model works.

        Parameters
        ----------
        values : in pinned memory, if the device is a GPU.
        """
        streams, room = streams_of(torch.device(device)), memory(device)
        if streams is None:
            return cls(values, device)
        source = cls(values[:0], device)
        source.values, source.resident = values, None
        if room is not None and values.nbytes < room[0] / 4:  # two chunks are there at a time
            stream = streams.Stream(source.device)
            with streams.stream(stream):
                source.resident = torch.from_numpy(values).to(source.device, non_blocking=True)
            stream.synchronize()
        return source

    @classmethod
    def of(cls, path: Path, device: str, memory_fraction: float = 1.0, more: Path | None = None) -> PixelSource:
        """Return the images of a cache file and, after them, those of another one.

        The two sources that the process used last are kept, so that the next fold does not send them to the device
        again.
        """
        paths = [path] if more is None else [path, more]
        key = (*((str(one), one.stat().st_mtime_ns) for one in paths), device, memory_fraction)
        if key in _recent:
            _recent[key] = _recent.pop(key)
        else:
            while len(_recent) > 1:  # training and test images; older sources are freed before new ones are loaded
                del _recent[next(iter(_recent))]
            arrays = [np.load(one, mmap_mode="r", allow_pickle=False) for one in paths]
            values = arrays[0] if more is None else JoinedArrays(*arrays)
            _recent[key] = cls(values, device, memory_fraction)  # type: ignore[arg-type]
        return _recent[key]

    def __len__(self) -> int:
        return len(self.values)

    def release(self) -> bool:
        """Free the images on the device, which are then sent batch by batch; return whether there were any."""
        held, self.resident = self.resident is not None, None
        return held

    def take(self, rows: NDArray[np.integer]) -> Tensor:
        """Return uint8 (n, height, width, 3) the images of these rows, on the device."""
        if self.resident is not None:
            return self.resident[torch.from_numpy(np.asarray(rows, dtype=np.int64)).to(self.device, non_blocking=True)]
        return self._send(rows).received()

    def ahead(self) -> Prefetcher:
        """Return a prefetcher of batches of these images, a context manager."""
        return Prefetcher(self)

    def _take_ordered(self, rows: NDArray[np.integer], order: Tensor) -> Tensor:
        # Asked at every step, and held by nothing else: a step that ran out of memory gives the images up.
        return self.take(rows) if self.resident is None else self.resident[order]

    def batches(
        self,
        rows: Sequence[NDArray[np.integer]],
        order: Tensor | None = None,
        change: Change | ChangeAhead | None = None,
        first: int = 0,
    ) -> Generator[Tensor]:
        """Yield the images of each element of `rows`; the next batch is prepared while the device works on this one.

        Close it if it is not read to its end: batches that a thread or other processes prepare are then waited for.

        Parameters
        ----------
        order : all rows concatenated, on the device; if the images are on the device, nothing is sent.
        change : applied to the images before they are sent; on a GPU in a thread of its own, or in other processes.
        first : step of the first element of `rows`, for `change`.
        """
        if self.resident is not None and order is not None and change is None:
            start = 0
            for some in rows:
                yield self._take_ordered(some, order[start : start + len(some)])
                start += len(some)
        elif isinstance(change, ChangeAhead):
            yield from self._changed_ahead(rows, change, first)
        elif not self.transfers.overlap:
            for i, some in enumerate(rows):  # no thread: gathering takes about 1% of the model's time
                yield self._send(some, change, first + i).received()
        else:
            with ThreadPoolExecutor(max_workers=1, thread_name_prefix="pixels") as executor:
                pending = executor.submit(self._send, rows[0], change, first)
                for i in range(len(rows)):
                    batch = pending.result()
                    if i + 1 < len(rows):
                        pending = executor.submit(self._send, rows[i + 1], change, first + i + 1)
                    yield batch.received()

    def _changed_ahead(self, rows: Sequence[NDArray[np.integer]], change: ChangeAhead, first: int) -> Generator[Tensor]:
        """Yield the changed images of each element of `rows`; the changes of the next ones are started before."""

        def start(i: int) -> Callable[[], NDArray[np.uint8]]:
            return change.start(first + i, rows[i], self.values)

        count, ahead = len(rows), change.batches
        if not self.transfers.overlap:
            waiting = deque(start(i) for i in range(min(ahead, count)))
            for i in range(count):
                if i + ahead < count:
                    waiting.append(start(i + ahead))
                yield self.transfers.send_copy(waiting.popleft()()).received()
            return

        def send(started: Future[Callable[[], NDArray[np.uint8]]]) -> Sent:
            return self.transfers.send_copy(started.result()())

        # All in one thread, in this order: a start gathers images, and a send waits for the other processes.
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pixels")
        try:
            starts = deque(executor.submit(start, i) for i in range(min(ahead, count)))
            pending: Future[Sent] | None = None
            for i in range(count):
                if i + ahead < count:
                    starts.append(executor.submit(start, i + ahead))
                batch = (pending or executor.submit(send, starts.popleft())).result()
                pending = executor.submit(send, starts.popleft()) if starts else None
                yield batch.received()
        finally:
            executor.shutdown(wait=True, cancel_futures=True)

    def _send(self, rows: NDArray[np.integer], change: Change | None = None, step: int = 0) -> Sent:
        """Gather the images of these rows and begin to send them to the device."""
        if change is not None:
            return self.transfers.send(torch.from_numpy(change(step, rows, self.values[rows])))
        return self.transfers.send_rows(self.values, rows)


class Prefetcher:
    """Give batches of images on the device, and prepare the next one while the device works on this one.

    A thread gathers the rows of the next batch and sends them on a stream of its own. Nothing is done ahead on the CPU,
    or if the images are on the device already.
    """

    def __init__(self, pixels: PixelSource) -> None:
        self._pixels = pixels
        ahead = pixels.resident is None and pixels.transfers.overlap
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pixels") if ahead else None
        self._next: tuple[NDArray[np.integer], Future[Sent]] | None = None

    def __enter__(self) -> Prefetcher:
        return self

    def __exit__(self, *error: object) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)

    def take(self, rows: NDArray[np.integer], following: NDArray[np.integer]) -> Tensor:
        """Return uint8 (n, height, width, 3) the images of `rows`, on the device; `following` are prepared meanwhile.

        Other rows than the `following` ones of the last call may be asked for.
        """
        if self._executor is None:
            return self._pixels.take(rows)
        prepared, self._next = self._next, None
        if prepared is not None and np.array_equal(prepared[0], rows):
            sent = prepared[1].result()
        else:
            sent = self._pixels._send(rows)
        if len(following):
            self._next = following, self._executor.submit(self._pixels._send, following)
        return sent.received()


_BLOCK_BYTES = 64 << 20


def copy_in_blocks(values: NDArray[np.uint8], device: torch.device, block_bytes: int = _BLOCK_BYTES) -> Tensor:
    """Return uint8 images on a device, sent through two pinned buffers.

    A memory-mapped cache copied as a whole would need its size in host memory, once for every process.
    """
    with of_device(device):  # events belong to the stream of the current device
        return _copied(values, device, block_bytes)


def _copied(values: NDArray[np.uint8], device: torch.device, block_bytes: int) -> Tensor:
    out = torch.empty(values.shape, dtype=torch.uint8, device=device)
    streams = streams_of(device)
    pinned = streams is not None
    rows = max(1, block_bytes // max(1, values[:1].nbytes))
    buffers = [
        torch.empty((min(rows, len(values)), *values.shape[1:]), dtype=torch.uint8, pin_memory=pinned) for _ in "ab"
    ]
    sent: list[Any] = [None, None]
    for i, start in enumerate(range(0, len(values), rows)):
        buffer, event = buffers[i % 2], sent[i % 2]
        if event is not None:
            event.synchronize()
        block = values[start : start + rows]
        np.copyto(buffer.numpy()[: len(block)], block)
        out[start : start + len(block)].copy_(buffer[: len(block)], non_blocking=pinned)
        if pinned:
            sent[i % 2] = streams.Event()
            sent[i % 2].record()
    for event in sent:
        if event is not None:
            event.synchronize()
    return out


class JoinedArrays:
    """Two arrays of images of one size, one after the other, without a copy of either.

    Parameters
    ----------
    first, second : uint8 (images, height, width, 3).
    """

    def __init__(self, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> None:
        self.parts = first, second
        self.shape = (len(first) + len(second), *first.shape[1:])
        self.nbytes = first.nbytes + second.nbytes

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | NDArray[np.integer]) -> NDArray[np.uint8]:
        """Return the images of a range of rows or of an array of rows, as a new array."""
        rows = np.arange(len(self))[rows] if isinstance(rows, slice) else np.asarray(rows)
        first, second = self.parts
        out = np.empty((len(rows), *self.shape[1:]), np.uint8)
        of_first = rows < len(first)
        out[of_first] = first[rows[of_first]]
        out[~of_first] = second[rows[~of_first] - len(first)]
        return out


_recent: dict[tuple[object, ...], PixelSource] = {}


def identity(batch: Tensor) -> Tensor:
    """Return the batch unchanged."""
    return batch


@torch.inference_mode()
def predict_logits(
    model: torch.nn.Module,
    pixels: PixelSource,
    index: NDArray[np.integer],
    mean: Sequence[float],
    std: Sequence[float],
    *,
    device: str,
    amp: str = "off",
    channels_last: bool = False,
    views: Sequence[View] = (identity,),
    batch: int = BATCH,
    progress: Callable[[int, int], None] | None = None,
    size: tuple[int, int] | None = None,
    halve: bool = True,
) -> NDArray[np.float32]:
    """Return float32 (views, n, classes) the logits of every view.

    Parameters
    ----------
    model : a model on `device`, in evaluation mode.
    pixels : all images of the table.
    index : (n,) rows to predict, in this order.
    mean, std : for pixels scaled to 0–1.
    views : functions of pixels scaled to 0–1, before normalization. A view with a true `geometric_only` gets normalized
        pixels, which is equivalent, and normalization is done once for all such views. Each view has forward passes of
        its own, so its logits do not depend on the other views.
    batch : images per forward pass.
    progress : called with (rows done, total rows).
    size : (height, width) of the center of the images that the model gets; None for the whole images.
    halve : whether smaller batches are used if memory runs out; their logits may differ in the last bits.

    Raises
    ------
    ValueError : `index` is empty.
    torch.OutOfMemoryError : the memory is too small even for one image, or for a batch that is not halved.
    """
    center, deviation = (torch.tensor(values, device=device)[:, None, None] for values in (mean, std))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    geometric = [getattr(view, "geometric_only", False) for view in views]

    def predict(images: Tensor) -> Tensor:
        images = images if size is None else center_crop(images, size)
        scaled = images.permute(0, 3, 1, 2).float().div_(255)
        # The pixels before normalization are kept only if a view needs them.
        normal = scaled.sub_(center).div_(deviation) if all(geometric) else (scaled - center).div_(deviation)
        logits = []
        for view, on_normal in zip(views, geometric, strict=True):
            inputs = view(normal) if on_normal else (view(scaled) - center).div_(deviation)
            with autocast(amp, device):
                # Rotations and flips change the memory layout, which would slow convolutions down.
                logits.append(model(inputs.contiguous(memory_format=layout)).float())
        return torch.stack(logits)

    with pixels.ahead() as images:
        blocks = list(
            _predict_blocks(
                lambda rows, following: predict(images.take(rows, following)), index, batch, progress, halve
            )
        )
    if not blocks:
        raise ValueError("no rows to predict")
    return torch.cat(blocks, dim=1).cpu().numpy()


def _predict_blocks(
    predict: Callable[[NDArray[np.integer], NDArray[np.integer]], Tensor],
    index: NDArray[np.integer],
    batch: int,
    progress: Callable[[int, int], None] | None,
    halve: bool = True,
) -> Iterator[Tensor]:
    """Yield the predictions of `index`, `batch` rows at a time; if memory runs out, half as many for the rest.

    Parameters
    ----------
    predict : called with the rows to predict and those that are predicted next.
    halve : False raises the error of the memory instead.
    """
    done, size = 0, batch
    finished = _FinishedRows(progress, len(index))
    while done < len(index):
        try:
            block = predict(index[done : done + size], index[done + size : done + 2 * size])
        except RuntimeError as error:
            if not halve or not is_out_of_memory(error) or size == 1:
                raise
            size //= 2
        else:
            done = min(done + size, len(index))
            finished.add(block, done)
            yield block
    finished.report_last()


class _FinishedRows:
    """Progress in rows that are computed: a GPU works on a block when the next one is sent already."""

    def __init__(self, progress: Callable[[int, int], None] | None, total: int) -> None:
        self._progress, self._total = progress, total
        self._last: tuple[Any, int] | None = None

    def add(self, block: Tensor, done: int) -> None:
        """Report the block before this one when it is computed; `done` rows are those up to this one."""
        if self._progress is None:
            return
        event, streams = None, streams_of(block.device)
        if streams is not None:
            event = streams.Event()
            event.record(streams.current_stream(block.device))
        self.report_last()
        self._last = event, done
        if event is None:
            self.report_last()

    def report_last(self) -> None:
        """Report the last block when it is computed."""
        if self._last is not None and self._progress is not None:
            event, done = self._last
            if event is not None:
                event.synchronize()
            self._progress(done, self._total)
            self._last = None
