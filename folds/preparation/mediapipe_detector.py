"""Detect faces with the face detector task of mediapipe and a model file of the user; nothing is downloaded."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.errors import EnsembleError
from folds.preparation.boxes import Box

_quiet = threading.Lock()


class MediapipeDetector:
    """The face detector of mediapipe; an instance belongs to one thread and is closed at the end.

    Parameters
    ----------
    model : a .tflite file of the face detector task (short or full range).
    min_confidence : threshold of the detector.
    min_face : size of the smallest face, as a fraction of the shorter side of the image.

    Raises
    ------
    EnsembleError : mediapipe is not installed, or cannot use the model file.
    """

    def __init__(self, model: Path, min_confidence: float = 0.5, min_face: float = 0.0) -> None:
        self._min_face = min_face
        self._mediapipe = import_mediapipe()
        tasks = self._mediapipe.tasks
        options = tasks.vision.FaceDetectorOptions(
            # The bytes instead of the path, because mediapipe resolves relative paths against its own package.
            base_options=tasks.BaseOptions(model_asset_buffer=model.read_bytes()),
            min_detection_confidence=min_confidence,
        )
        try:
            with _silence():
                self._detector = tasks.vision.FaceDetector.create_from_options(options)
                # One image here, because mediapipe reports problems of the model at the first image.
                self.find(np.zeros((64, 64, 3), np.uint8))
        except Exception as error:  # mediapipe raises several types of its C++ code
            reason = " ".join(str(error).split())
            hint = "expected a .tflite file of mediapipe's face detector, such as blaze_face_short_range.tflite"
            raise EnsembleError(f"mediapipe cannot use {model}: {reason}", hint=hint) from None

    def find(self, image: NDArray[np.uint8]) -> list[Box]:
        """Return the faces in an image, (height, width, 3) uint8 RGB; most confident first."""
        picture = self._mediapipe.Image(image_format=self._mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(image))
        smallest = self._min_face * min(image.shape[:2])
        boxes = []
        for detection in self._detector.detect(picture).detections:
            box = detection.bounding_box
            confidence = round(float(detection.categories[0].score), 4)
            if box.width >= smallest:
                boxes.append(Box(int(box.origin_x), int(box.origin_y), int(box.width), int(box.height), confidence))
        return sorted(boxes, key=lambda box: (-box.confidence, box.top, box.left, box.width, box.height))

    def close(self) -> None:
        """Release the resources of the detector."""
        with _silence():
            self._detector.close()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Redirect standard error to the null device, because some models log fifty lines; errors are still raised."""
    with _quiet:
        kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)


def import_mediapipe() -> Any:
    """Return the module mediapipe.

    Raises
    ------
    EnsembleError : mediapipe is not installed, or too old to have tasks.
    """
    try:
        import mediapipe
    except ImportError as error:
        raise EnsembleError(
            f"mediapipe cannot be imported: {error}", hint="pip install mediapipe, or use `detector=opencv`"
        ) from None
    if not hasattr(mediapipe, "tasks"):
        raise EnsembleError(
            f"mediapipe {getattr(mediapipe, '__version__', '')} has no tasks", hint="pip install --upgrade mediapipe"
        )
    return mediapipe
