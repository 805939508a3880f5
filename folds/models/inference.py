"""Predict: uint8 pixels in, logits out; one loop for out-of-fold, test and view predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from folds.models.precision import autocast

# A view of a batch: float32 (n, 3, height, width) with values 0–1 → the same shape.
View = Callable[[Tensor], Tensor]
# A step, its rows and their images, uint8 (n, height, width, 3) → images of the same shape.
Change = Callable[[int, NDArray[np.integer], NDArray[np.uint8]], NDArray[np.uint8]]

# The size of a batch moves logits by a few 1e-6 (other kernels, other sums): one size for every use of a model.
BATCH = 64


class PixelSource:
    """All images of a table, as uint8, where batches are made: on the GPU when they fit, else memory-mapped.

    Parameters
    ----------
    values : uint8 (images, height, width, 3).
    device : where batches are wanted.
    share : of the device's memory that may be used: where two jobs train on it, half.
    """

    def __init__(self, values: NDArray[np.uint8], device: str, share: float = 1.0) -> None:
        self.values = values
        self.device = torch.device(device)
        self.resident: Tensor | None = None
        if self.device.type == "cuda":
            free, whole = torch.cuda.mem_get_info(self.device)
            # Half is left to the model, its gradients and activations.
            if values.nbytes < min(free, whole * share) / 2:
                self.resident = torch.from_numpy(np.array(values)).to(self.device)

    @classmethod
    def of(cls, path: Path, device: str, share: float = 1.0) -> PixelSource:
        """Return the images of a file of the cache; those that the process used last are kept, so that a fold need not
        send them again.
        """
        key = (str(path), path.stat().st_mtime_ns, device, share)
        if key in _kept:
            _kept[key] = _kept.pop(key)
        else:
            while len(_kept) > 1:  # training and test: those of another size go before these come
                del _kept[next(iter(_kept))]
            _kept[key] = cls(np.load(path, mmap_mode="r", allow_pickle=False), device, share)
        return _kept[key]

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: NDArray[np.integer]) -> Tensor:
        """uint8 (n, height, width, 3) on the device."""
        if self.resident is not None:
            return self.resident[torch.from_numpy(np.asarray(rows, dtype=np.int64)).to(self.device, non_blocking=True)]
        return self._gathered(rows).to(self.device, non_blocking=True)

    def batches(
        self,
        rows: Sequence[NDArray[np.integer]],
        order: Tensor | None = None,
        change: Change | None = None,
        first: int = 0,
    ) -> Iterator[Tensor]:
        """`take` of each of `rows`, the next one gathered and pinned while the device works on this one.

        Parameters
        ----------
        order : all rows one after the other, on the device: where the images are there, nothing is sent at all.
        change : done to the images before they are sent; on a GPU in another thread than the caller's.
        first : the step of the first of `rows`, for `change`.
        """
        if self.resident is not None and order is not None and change is None:
            start = 0
            for some in rows:
                yield self.resident[order[start : start + len(some)]]
                start += len(some)
        elif self.device.type != "cuda":
            for i, some in enumerate(rows):  # the cores are for the model: a gather takes a hundredth of its time
                yield self._gathered(some, change, first + i)
        else:
            with ThreadPoolExecutor(max_workers=1, thread_name_prefix="pixels") as ahead:
                following = ahead.submit(self._gathered, rows[0], change, first)
                for i in range(len(rows)):
                    batch = following.result()
                    if i + 1 < len(rows):
                        following = ahead.submit(self._gathered, rows[i + 1], change, first + i + 1)
                    yield batch.to(self.device, non_blocking=True)

    def _gathered(self, rows: NDArray[np.integer], change: Change | None = None, step: int = 0) -> Tensor:
        images = self.values[rows]
        batch = torch.from_numpy(images if change is None else change(step, rows, images))
        return batch.pin_memory() if self.device.type == "cuda" else batch


_kept: dict[tuple[str, int, str, float], PixelSource] = {}


def identity(batch: Tensor) -> Tensor:
    """Return the view that changes nothing."""
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
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Return the logits of every view.

    Parameters
    ----------
    model : on `device`, in evaluation mode.
    pixels : of all images, shared by all folds and views.
    index : (n,) the rows to predict, in this order.
    views : see plain pixels, values 0–1, and normalization comes after them; those with a true `geometric_only` see
        normalized ones,
        which is the same and is done once for all of them. Each has passes of its own: its logits do not depend on the
        others.
    mean, std : of pixels scaled to 0–1.
    progress : called with (rows done, rows in all).

    Returns
    -------
    float32 (views, n, classes).

    Raises
    ------
    ValueError : `index` is empty.
    torch.OutOfMemoryError : memory does not suffice even for one image.
    """
    center, deviation = (torch.tensor(values, device=device)[:, None, None] for values in (mean, std))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    geometric = [getattr(view, "geometric_only", False) for view in views]

    def predict(rows: NDArray[np.integer]) -> Tensor:
        batch = pixels.take(rows).permute(0, 3, 1, 2).float().div_(255)
        # Plain pixels are kept only where a view wants them.
        normal = batch.sub_(center).div_(deviation) if all(geometric) else (batch - center).div_(deviation)
        logits = []
        for view, on_normal in zip(views, geometric, strict=True):
            inputs = view(normal) if on_normal else (view(batch) - center).div_(deviation)
            with autocast(amp, device):
                # Turns and flips lay their pixels out anew, which would slow convolutions down.
                logits.append(model(inputs.contiguous(memory_format=layout)).float())
        return torch.stack(logits)

    blocks = list(_predict_blocks(predict, index, progress))
    if not blocks:
        raise ValueError("no rows to predict")
    return torch.cat(blocks, dim=1).cpu().numpy()


def _predict_blocks(
    predict: Callable[[NDArray[np.integer]], Tensor],
    index: NDArray[np.integer],
    progress: Callable[[int, int], None] | None,
) -> Iterator[Tensor]:
    """Yield the predictions of `index`, `BATCH` rows at a time; out of memory halves that for the rest."""
    done, size = 0, BATCH
    while done < len(index):
        try:
            block = predict(index[done : done + size])
        except torch.OutOfMemoryError:
            if size == 1:
                raise
            size //= 2
        else:
            done += size
            yield block
        if progress is not None:
            progress(min(done, len(index)), len(index))
