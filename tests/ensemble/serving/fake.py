"""A model that needs no training: its probabilities follow from the mean color of an image."""

from __future__ import annotations

import io
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ensemble.serving.model import Answers
from ensemble.serving.needs import Needs
from folds.images.decode import decode_image
from folds.images.settings import ImageSettings

SETTINGS = ImageSettings(8, 8)
CLASSES = ("red", "green", "blue")


class FakeModel:
    """Classes are colors; two members, of which the second sees the channels in another order."""

    name = "fake"
    classes = CLASSES
    needs = Needs()

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.go = threading.Event()
        self.go.set()
        self.broken: NDArray[np.uint8] | None = None
        self.decisions: Sequence[Any] | None = None

    def decode(self, data: bytes, max_pixels: int) -> NDArray[np.uint8]:
        return decode_image(data, replace(SETTINGS, max_pixels=max_pixels)).pixels

    def answer(self, images: Sequence[NDArray[np.uint8]]) -> Answers:
        self.go.wait(30)
        self.batches.append(len(images))
        if self.broken is not None and any((image == self.broken).all() for image in images):
            raise RuntimeError("a secret of the server")
        values = np.stack([expected(image) for image in images])
        return Answers(values, np.stack([values, values[:, ::-1]]), self.decisions and self.decisions[: len(images)])

    def describe(self) -> dict[str, Any]:
        return {"kind": "fake", "models": 2}


def expected(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The probabilities (3,) of an image, as the fake gives them."""
    mean = pixels.reshape(-1, 3).mean(axis=0) + 1
    return (mean / mean.sum()).astype(np.float32)


def picture(color: tuple[int, int, int] = (200, 30, 10), size: tuple[int, int] = (20, 16), kind: str = "PNG") -> bytes:
    """An encoded image of one color."""
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, kind)
    return file.getvalue()
