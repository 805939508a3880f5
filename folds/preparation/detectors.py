"""Detect faces with one of several detectors behind a common interface."""

from __future__ import annotations

import importlib.metadata
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from folds.errors import EnsembleError, UsageError, unknown_name
from folds.preparation.boxes import Box
from folds.preparation.mediapipe_detector import MediapipeDetector, import_mediapipe
from folds.preparation.opencv_detector import CascadeDetector, import_cv2
from folds.utils.files import sha256_file

DETECTORS = ("opencv", "mediapipe")


class Detector(Protocol):
    """A face detector. An instance is used by one thread; if it has a `close`, that is called at the end."""

    def find(self, image: NDArray[np.uint8]) -> list[Box]:
        """Return the faces in an upright image, (height, width, 3) uint8 RGB."""
        ...


@dataclass(frozen=True)
class DetectorSettings:
    """Settings of a face detector.

    Attributes
    ----------
    name : one of `DETECTORS`.
    model : model file, for mediapipe only.
    min_confidence : smallest confidence of a face, 0 to 1; each detector has its own scale.
    min_face : size of the smallest face, as a fraction of the shorter side of the image, 0 to 1.

    Raises
    ------
    UsageError : an unknown name, a missing or superfluous model file, or a number outside 0 to 1.
    """

    name: str = "opencv"
    model: Path | None = None
    min_confidence: float = 0.5
    min_face: float = 0.25

    def __post_init__(self) -> None:
        if self.name not in DETECTORS:
            raise unknown_name("`detector`", self.name, DETECTORS)
        if self.name == "mediapipe" and self.model is None:
            raise UsageError(
                "`detector=mediapipe` needs a model file",
                hint="`detector_model=FILE`, e.g. blaze_face_short_range.tflite; nothing is downloaded",
            )
        if self.name == "opencv" and self.model is not None:
            raise UsageError(
                "`detector_model` is only for mediapipe: OpenCV includes its models",
                hint="add `detector=mediapipe`, or omit `detector_model`",
            )
        for name, value in (("min_confidence", self.min_confidence), ("min_face", self.min_face)):
            if not 0 <= value <= 1:
                raise UsageError(f"`{name}` must be from 0 to 1, found {value:g}")


def open_detector(settings: DetectorSettings) -> Detector:
    """Return the detector of the settings.

    Raises
    ------
    EnsembleError : the package or the model file is missing or unusable.
    """
    if settings.name == "opencv":
        return CascadeDetector(settings.min_confidence, settings.min_face)
    return MediapipeDetector(_model_file(settings), settings.min_confidence, settings.min_face)


def describe_detector(settings: DetectorSettings) -> dict[str, object]:
    """Return what determines the boxes besides the images: settings, version of the package, hash of the model."""
    record: dict[str, object] = {
        "name": settings.name,
        "min_confidence": settings.min_confidence,
        "min_face": settings.min_face,
    }
    if settings.name == "opencv":
        return record | {"version": str(import_cv2().__version__)}
    import_mediapipe()
    return record | {
        "version": importlib.metadata.version("mediapipe"),
        "model_sha": sha256_file(_model_file(settings)),
    }


def _model_file(settings: DetectorSettings) -> Path:
    if settings.model is None or not settings.model.is_file():
        raise EnsembleError(
            f"there is no model file {settings.model}",
            hint="`detector_model` is a .tflite file; nothing is downloaded",
        )
    return settings.model


class OnePerThread:
    """Detectors for parallel threads; each thread creates its own at its first image."""

    def __init__(self, make: Callable[[], Detector]) -> None:
        self._make, self._local = make, threading.local()
        self._made: list[Any] = []

    def find(self, image: NDArray[np.uint8]) -> list[Box]:
        """Return the faces in an image, found by the detector of this thread."""
        if not hasattr(self._local, "detector"):
            self._local.detector = self._make()
            self._made.append(self._local.detector)
        found: list[Box] = self._local.detector.find(image)
        return found

    def close(self) -> None:
        """Close all detectors that have a `close`."""
        for detector in self._made:
            if hasattr(detector, "close"):
                detector.close()
        self._made.clear()
