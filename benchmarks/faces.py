"""Measure how many synthetic faces each detector finds, and locates correctly, by mask state; one thread.

    python benchmarks/faces.py [--people 60] [--size 384x512] [--mediapipe MODEL.tflite]

A location is correct if the center of the box is on the face and its width is between a quarter and five sixths of the
image's: the true locations are known (`folds/data/synthetic/portraits.py`). "one cascade" is the usual call:
haarcascade_frontalface_default, scale 1.1, five neighbors.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from folds.data.synthetic.faces import random_face
from folds.data.synthetic.portraits import MASK_STATES, draw_portrait
from folds.preparation.boxes import Box, choose
from folds.preparation.mediapipe_detector import MediapipeDetector
from folds.preparation.opencv_detector import CascadeDetector, cascade_file, import_cv2

Find = Callable[[NDArray[np.uint8]], list[Box]]


def one_cascade() -> Find:
    cv2 = import_cv2()
    cascade = cv2.CascadeClassifier(str(cascade_file(cv2, "frontalface_default")))

    def find(image: NDArray[np.uint8]) -> list[Box]:
        found = cascade.detectMultiScale(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), 1.1, 5)
        return [Box(int(left), int(top), int(width), int(height), confidence=1.0) for left, top, width, height in found]

    return find


def is_right(box: Box, size: tuple[int, int]) -> bool:
    x, y, wide = (box.left + box.width / 2) / size[0], (box.top + box.height / 2) / size[1], box.width / size[0]
    return abs(x - 0.5) < 0.125 and 0.33 < y < 0.61 and 0.26 < wide < 0.83


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--people", type=int, default=60)
    parser.add_argument("--size", default="384x512")
    parser.add_argument("--mediapipe", type=Path)
    given = parser.parse_args()
    width, height = map(int, given.size.split("x"))
    detectors: dict[str, Find] = {"one cascade": one_cascade()}
    for least in (0.5, 0.3, 0.15):
        detectors[f"opencv, --min-confidence {least:g}"] = CascadeDetector(least).find
    opened = {least: MediapipeDetector(given.mediapipe, least, 0.25) for least in (0.5, 0.3)} if given.mediapipe else {}
    detectors |= {f"mediapipe, --min-confidence {least:g}": detector.find for least, detector in opened.items()}
    pictures: dict[str, list[NDArray[np.uint8]]] = {state: [] for state in MASK_STATES}
    for person in range(given.people):
        face = random_face(person % 2, person // 2 % 3, np.random.default_rng([0, person]))
        for state, drawn in pictures.items():
            drawn.append(np.array(draw_portrait(face, state, np.random.default_rng([1, person]), (width, height))))
    print(f"{given.people} people, {width}×{height}; found / in the right place, of each mask state")
    print(f"{'detector':32}", *(f"{state:>16}" for state in MASK_STATES), f"{'ms an image':>12}")
    for name, find in detectors.items():
        cells, started = [], time.process_time()
        for drawn in pictures.values():
            boxes = [choose(find(picture), (width, height)) for picture in drawn]
            found = [box for box in boxes if box is not None]
            right = sum(is_right(box, (width, height)) for box in found)
            cells.append(f"{len(found) / given.people:.2f} / {right / given.people:.2f}")
        spent = (time.process_time() - started) * 1000 / (given.people * len(pictures))
        print(f"{name:32}", *(f"{cell:>16}" for cell in cells), f"{spent:12.0f}", flush=True)
    for detector in opened.values():
        detector.close()


if __name__ == "__main__":
    main()
