"""Detect faces with the cascades included in OpenCV (Viola and Jones 2001): no model file, no download.

A cascade accepts or rejects every window of an image; near a face it accepts many similar windows. Here the windows
accepted by several cascades, on the image as it is and with equalized histogram, are votes for one box. A mask hides
half of the features of a frontal cascade, so pairs of eyes, which a masked face still shows, vote too.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.errors import EnsembleError
from folds.preparation.boxes import Box

Windows = NDArray[np.float64]  # (n, 4): left, top, width, height

# n votes give a confidence of n / (n + VOTES). Cascades usually require five neighbors, so a confidence of .5 (FIRM)
# counts as a detected face.
VOTES = 5
FIRM = 0.5
SIDE = 256  # shorter side in pixels of the image in which faces are detected
_LONGEST = 4 * SIDE
_ALIKE = 0.3  # windows are grouped if their edges differ by less than this fraction of their size
_SMALLEST = 24  # size in pixels of the training images of the cascades
_EYES = 2  # windows that must agree on an eye

_FRONTAL = ("frontalface_default", "frontalface_alt2")
_PROFILE = "profileface"
_EYE = ("eye", "eye_tree_eyeglasses")


class CascadeDetector:
    """The cascades of OpenCV; an instance belongs to one thread.

    Parameters
    ----------
    min_confidence : smallest confidence. If it is below `FIRM`, less confident faces are returned for images without a
        face of confidence `FIRM`.
    min_face : size of the smallest face, as a fraction of the shorter side of the image.

    Raises
    ------
    EnsembleError : OpenCV is not installed, or has no cascades (as 5.0 and later).
    """

    def __init__(self, min_confidence: float = FIRM, min_face: float = 0.25) -> None:
        self._cv2 = import_cv2()
        self._min_confidence, self._firm, self._min_face = min_confidence, max(FIRM, min_confidence), min_face
        self._loaded: dict[str, Any] = {}

    def find(self, image: NDArray[np.uint8]) -> list[Box]:
        """Return the faces in an image, (height, width, 3) uint8 RGB; most confident first.

        The passes are sorted by reliability, the most reliable first, and end with the first that finds a face with
        confidence `FIRM`. So a lower `min_confidence` adds faces to images without one, and changes no other.
        """
        gray, scale = self._small(image)
        votes = np.empty((0, 4))
        boxes: list[Box] = []
        for found in self._passes(gray, max(_SMALLEST, round(self._min_face * min(gray.shape)))):
            votes = np.vstack([votes, found])
            boxes = self._grouped(votes, scale)
            firm = [box for box in boxes if box.confidence >= self._firm]
            if firm:
                return firm
        return [box for box in boxes if box.confidence >= self._min_confidence]

    def _small(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], float]:
        """Return the image in gray with a shorter side of `SIDE` pixels, and its scale."""
        gray = self._cv2.cvtColor(np.ascontiguousarray(image), self._cv2.COLOR_RGB2GRAY)
        scale = min(SIDE / min(gray.shape), _LONGEST / max(gray.shape))
        size = (max(1, round(gray.shape[1] * scale)), max(1, round(gray.shape[0] * scale)))
        interpolation = self._cv2.INTER_AREA if scale < 1 else self._cv2.INTER_CUBIC
        return self._cv2.resize(gray, size, interpolation=interpolation), scale

    def _passes(self, gray: NDArray[np.uint8], smallest: int) -> Iterator[Windows]:
        yield np.vstack([self._windows(gray, name, smallest) for name in _FRONTAL])
        yield self._by_eyes(gray, smallest)
        equalized = self._cv2.equalizeHist(gray)
        yield np.vstack([self._windows(equalized, name, smallest) for name in _FRONTAL])
        mirrored = self._windows(np.ascontiguousarray(gray[:, ::-1]), _PROFILE, smallest)
        mirrored[:, 0] = gray.shape[1] - mirrored[:, 0] - mirrored[:, 2]
        yield np.vstack([self._windows(gray, _PROFILE, smallest), mirrored])

    def _windows(self, gray: NDArray[np.uint8], name: str, smallest: int, largest: int = 0) -> Windows:
        """Return all windows that a cascade accepts, ungrouped."""
        if name not in self._loaded:
            self._loaded[name] = self._cv2.CascadeClassifier(str(cascade_file(self._cv2, name)))
        found = self._loaded[name].detectMultiScale(gray, 1.1, 0, 0, (smallest, smallest), (largest, largest))
        return np.array(found, np.float64).reshape(-1, 4)

    def _by_eyes(self, gray: NDArray[np.uint8], smallest: int) -> Windows:
        """Return the face for each pair of eyes, repeated by the votes of both eyes.

        The eyes of a pair are level and of similar size, at a distance of 1 to 2.6 times their size; the face is 2.2
        times as wide as their distance.
        """
        short = min(gray.shape)
        eyes = self._group(np.vstack([self._windows(gray, name, max(12, short // 20), short // 4) for name in _EYE]))
        found: list[tuple[float, float, float, float]] = []
        for (one, first), (other, second) in itertools.combinations(sorted(eyes, key=lambda eye: tuple(eye[0])), 2):
            (x, y), (to_x, to_y) = one[:2] + one[2:] / 2, other[:2] + other[2:] / 2
            apart, size = to_x - x, (one[2] + other[2]) / 2
            level = abs(to_y - y) < 0.25 * apart and size < apart < 2.6 * size and 0.6 < one[2] / other[2] < 1.6
            if level and min(first, second) >= _EYES and 2.2 * apart >= smallest:
                face = ((x + to_x) / 2 - 1.1 * apart, (y + to_y) / 2 - 0.85 * apart, 2.2 * apart, 2.2 * apart)
                found += [face] * (first + second)
        return np.array(found).reshape(-1, 4)

    def _group(self, windows: Windows) -> list[tuple[Windows, int]]:
        """Return groups of similar windows as one window each, with their number, independent of their order."""
        if not len(windows):
            return []
        # Every window is doubled, because OpenCV drops groups of a single window.
        rectangles, counts = self._cv2.groupRectangles(
            np.repeat(np.rint(windows).astype(int), 2, axis=0).tolist(), 1, _ALIKE
        )
        return [
            (np.array(rectangle, float), int(count) // 2)
            for rectangle, count in zip(rectangles, np.ravel(counts), strict=True)
        ]

    def _grouped(self, windows: Windows, scale: float) -> list[Box]:
        boxes = []
        for window, votes in self._group(windows):
            left, top, width, height = np.rint(window / scale).astype(int).tolist()
            boxes.append(Box(left, top, width, height, round(votes / (votes + VOTES), 4)))
        return sorted(boxes, key=lambda box: (-box.confidence, box.top, box.left, box.width, box.height))


def import_cv2() -> Any:
    """Return the module cv2, limited to one thread.

    With several threads the order of its results, and so their grouping, could differ from run to run.

    Raises
    ------
    EnsembleError : OpenCV is not installed, or has no cascades.
    """
    try:
        import cv2
    except ImportError as error:
        raise EnsembleError(
            f"OpenCV cannot be imported: {error}", hint="pip install 'opencv-python-headless<5'"
        ) from None
    if not hasattr(cv2, "CascadeClassifier"):
        raise EnsembleError(
            f"OpenCV {cv2.__version__} no longer has cascades", hint="pip install 'opencv-python-headless<5'"
        )
    cv2.setNumThreads(1)
    return cv2


def cascade_file(cv2: Any, name: str) -> Path:
    """Return the file of a cascade in the OpenCV package.

    Raises
    ------
    EnsembleError : this build of OpenCV does not include it.
    """
    path = Path(cv2.data.haarcascades) / f"haarcascade_{name}.xml"
    if not path.is_file():
        raise EnsembleError(
            f"OpenCV {cv2.__version__} does not include {path.name}", hint="pip install 'opencv-python-headless<5'"
        )
    return path
