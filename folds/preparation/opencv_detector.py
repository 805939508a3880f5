"""Faces by the cascades that OpenCV's wheel brings along (Viola and Jones 2001): no model file, no download.

A cascade looks at every place and size and says yes or no; a face draws many yeses that nearly agree. Here the yeses of
several
cascades, on the image as it is and with its histogram equalised, are votes for one box. A mask hides half of what a
frontal cascade looks
for, so a pair of eyes votes too: it is what a masked face still shows.
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

# One vote more halves nothing and doubles nothing: n votes are a confidence of n / (n + 5). Five neighbours are what is
# usually asked of
# a cascade, so half is where a face counts as found.
VOTES = 5
FIRM = 0.5
SIDE = 256  # pixels of the image's shorter side in which faces are looked for
_LONGEST = 4 * SIDE
_ALIKE = 0.3  # windows whose edges differ by less than this share of their size are one
_SMALLEST = 24  # pixels, what the cascades were trained at
_EYES = 2  # windows that must agree on an eye

_FRONTAL = ("frontalface_default", "frontalface_alt2")
_PROFILE = "profileface"
_EYE = ("eye", "eye_tree_eyeglasses")


class CascadeDetector:
    """OpenCV's cascades; an instance belongs to one thread.

    Parameters
    ----------
    min_confidence : below `FIRM`, images in which nothing firm is found are taken at their best guess.
    min_face : the smallest face, as a share of the image's shorter side.

    Raises
    ------
    EnsembleError : OpenCV is not installed, or came without cascades (5.0 and later do).
    """

    def __init__(self, min_confidence: float = FIRM, min_face: float = 0.25) -> None:
        self._cv2 = import_cv2()
        self._least, self._firm, self._min_face = min_confidence, max(FIRM, min_confidence), min_face
        self._loaded: dict[str, Any] = {}

    def find(self, image: NDArray[np.uint8]) -> list[Box]:
        """Return the faces in an image, (height, width, 3) uint8 RGB; most confident first.

        The passes go from what is rarely wrong to what is more often wrong, and end with the first that finds a face
        firmly. So a lower
        `min_confidence` adds faces where none was found, and changes none that was.
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
        return [box for box in boxes if box.confidence >= self._least]

    def _small(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], float]:
        """Grey, `SIDE` pixels along the shorter side; and its scale."""
        gray = self._cv2.cvtColor(np.ascontiguousarray(image), self._cv2.COLOR_RGB2GRAY)
        scale = min(SIDE / min(gray.shape), _LONGEST / max(gray.shape))
        size = (max(1, round(gray.shape[1] * scale)), max(1, round(gray.shape[0] * scale)))
        way = self._cv2.INTER_AREA if scale < 1 else self._cv2.INTER_CUBIC
        return self._cv2.resize(gray, size, interpolation=way), scale

    def _passes(self, gray: NDArray[np.uint8], smallest: int) -> Iterator[Windows]:
        yield np.vstack([self._windows(gray, name, smallest) for name in _FRONTAL])
        yield self._by_eyes(gray, smallest)
        equalised = self._cv2.equalizeHist(gray)
        yield np.vstack([self._windows(equalised, name, smallest) for name in _FRONTAL])
        mirrored = self._windows(np.ascontiguousarray(gray[:, ::-1]), _PROFILE, smallest)
        mirrored[:, 0] = gray.shape[1] - mirrored[:, 0] - mirrored[:, 2]
        yield np.vstack([self._windows(gray, _PROFILE, smallest), mirrored])

    def _windows(self, gray: NDArray[np.uint8], name: str, smallest: int, largest: int = 0) -> Windows:
        """Every window that a cascade says yes to, ungrouped."""
        if name not in self._loaded:
            self._loaded[name] = self._cv2.CascadeClassifier(str(cascade_file(self._cv2, name)))
        found = self._loaded[name].detectMultiScale(gray, 1.1, 0, 0, (smallest, smallest), (largest, largest))
        return np.array(found, np.float64).reshape(-1, 4)

    def _by_eyes(self, gray: NDArray[np.uint8], smallest: int) -> Windows:
        """Return the faces that pairs of eyes belong to, once for each window that agreed on the weaker eye.

        The eyes stand level, equally large, and apart by 1 to 2.6 times the window of one; the face is 2.2 times as
        wide as they are apart.
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
        """Windows that nearly agree as one, with their number. The order of the windows decides nothing."""
        if not len(windows):
            return []
        # Doubled: OpenCV leaves out what stands alone.
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
    """OpenCV, working in the calling thread alone: with threads of its own the order of what it finds, and so its
    groups, could differ.

    Raises
    ------
    EnsembleError : it is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise EnsembleError(
            f"OpenCV cannot be imported: {error}", hint="pip install 'opencv-python-headless<5'"
        ) from None
    if not hasattr(cv2, "CascadeClassifier"):
        raise EnsembleError(
            f"OpenCV {cv2.__version__} has no cascades any more", hint="pip install 'opencv-python-headless<5'"
        )
    cv2.setNumThreads(1)
    return cv2


def cascade_file(cv2: Any, name: str) -> Path:
    """Return the file of a cascade in OpenCV's wheel.

    Raises
    ------
    EnsembleError : this build of OpenCV does not bring it.
    """
    path = Path(cv2.data.haarcascades) / f"haarcascade_{name}.xml"
    if not path.is_file():
        raise EnsembleError(
            f"OpenCV {cv2.__version__} came without {path.name}", hint="pip install 'opencv-python-headless<5'"
        )
    return path
