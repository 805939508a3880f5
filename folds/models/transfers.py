"""Send images to a GPU on a stream of their own, so that the copy runs while the GPU computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from folds.models.accelerators import pins, streams_of
from folds.utils.memmap import is_contiguous, take_rows


@dataclass(frozen=True)
class Sent:
    """Images on their way to the device.

    Attributes
    ----------
    images : on the device, complete after `event`.
    event : of the stream of the copy; None if there was nothing to wait for.
    streams : the module of the streams, ``torch.cuda``.
    """

    images: Tensor
    event: Any = None
    streams: Any = None

    def received(self) -> Tensor:
        """Return the images, for the current stream of the device."""
        if self.event is not None:
            stream = self.streams.current_stream(self.images.device)
            stream.wait_event(self.event)
            # The memory came from the stream of the copy: it must not be used again before this stream is done.
            self.images.record_stream(stream)
        return self.images


class Transfers:
    """The way of images to one device.

    Attributes
    ----------
    overlap : whether a copy can run while the device computes, so that sending ahead pays.
    pinned : whether images are gathered in pinned memory, which the device reads by itself.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.pinned = pins(device.type)
        self._streams: Any = streams_of(device)
        self._stream: Any = None

    @property
    def overlap(self) -> bool:
        """Return whether the device has streams."""
        return self._streams is not None

    def send_rows(self, values: NDArray[np.uint8], rows: NDArray[np.integer]) -> Sent:
        """Gather rows of images, in one copy into pinned memory for a GPU, and begin to send them.

        Raises
        ------
        IndexError : there is no such row.
        """
        # Joined arrays gather rows themselves.
        if not self.pinned or not is_contiguous(values):
            return self.send(torch.from_numpy(values[rows]))
        with self._side():
            images = self._empty((len(rows), *values.shape[1:]))
            take_rows(values, rows, images.numpy())
            return self._copied(images)

    def send_copy(self, images: NDArray[np.uint8]) -> Sent:
        """Begin to send a copy of images, whose memory may be used again when this returns."""
        if self._streams is None:
            return Sent(torch.from_numpy(images).clone().to(self.device))
        with self._side():
            copy = self._empty(images.shape) if self.pinned else torch.empty(images.shape, dtype=torch.uint8)
            np.copyto(copy.numpy(), images)
            return self._copied(copy)

    def send(self, images: Tensor) -> Sent:
        """Begin to send images that lie in host memory."""
        if self._streams is None:
            return Sent(images.to(self.device))
        with self._side():
            return self._copied(images.pin_memory() if self.pinned else images)

    def _empty(self, shape: tuple[int, ...]) -> Tensor:
        return torch.empty(shape, dtype=torch.uint8, pin_memory=True)

    def _side(self) -> Any:
        """Return the context of the stream of the copies, and of its device: a thread begins on the first GPU."""
        if self._stream is None:
            self._stream = self._streams.Stream(self.device)
        return self._streams.stream(self._stream)

    def _copied(self, images: Tensor) -> Sent:
        sent = images.to(self.device, non_blocking=True)
        event = self._streams.Event()
        event.record(self._stream)
        return Sent(sent, event, self._streams)
