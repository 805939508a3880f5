"""OpenCV's own cascades on drawn people: real faces to them, found where they are; and what is said where there are
none.
"""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
from numpy.typing import NDArray

from folds.data.synthetic.faces import random_face
from folds.data.synthetic.portraits import draw_portrait
from folds.errors import EnsembleError
from folds.preparation.boxes import Box
from folds.preparation.opencv_detector import CascadeDetector, cascade_file, import_cv2

WIDTH, HEIGHT = 192, 256


def portrait(person: int, state: str) -> NDArray[np.uint8]:
    face = random_face(person % 2, person % 3, np.random.default_rng(person))
    return np.asarray(draw_portrait(face, state, np.random.default_rng(1000 + person), (WIDTH, HEIGHT)))


def is_the_face(box: Box) -> bool:
    """A drawn face is about the middle of the picture's width and the upper half of its height, some 40 of 96 units
    wide.
    """
    x, y, wide = (box.left + box.width / 2) / WIDTH, (box.top + box.height / 2) / HEIGHT, box.width / WIDTH
    return abs(x - 0.5) < 0.13 and 0.3 < y < 0.62 and 0.26 < wide < 0.9


def rate(state: str, detector: CascadeDetector, people: int = 12) -> tuple[int, int]:
    """How many of `people` were found, and how many of those in the right place (the most confident box)."""
    found = [boxes[0] for boxes in (detector.find(portrait(person, state)) for person in range(people)) if boxes]
    return len(found), sum(map(is_the_face, found))


@pytest.fixture(scope="module")
def detector() -> CascadeDetector:
    return CascadeDetector()


def test_unmasked_faces_are_found_where_they_are(detector: CascadeDetector) -> None:
    found, right = rate("normal", detector)
    assert found >= 11
    assert right >= found - 1


def test_most_masked_faces_are_found_where_one_cascade_finds_few(detector: CascadeDetector) -> None:
    cv2 = import_cv2()
    alone = cv2.CascadeClassifier(str(cascade_file(cv2, "frontalface_default")))
    usual = sum(
        len(alone.detectMultiScale(cv2.cvtColor(portrait(person, "wear"), cv2.COLOR_RGB2GRAY), 1.1, 5, 0, (48, 48))) > 0
        for person in range(12)
    )
    found, right = rate("wear", detector)
    assert right >= 7
    assert found - right <= 1
    assert right >= usual + 2


def test_what_shows_no_face_has_none(detector: CascadeDetector) -> None:
    rng = np.random.default_rng(0)
    stripes = np.zeros((200, 160, 3), np.uint8)
    stripes[::20] = 255
    for image in (np.full((200, 160, 3), 128, np.uint8), stripes, rng.integers(0, 256, (200, 160, 3), dtype=np.uint8)):
        assert detector.find(image) == []


def test_lower_confidence_adds_faces_and_changes_no_other(detector: CascadeDetector) -> None:
    loose, more = CascadeDetector(min_confidence=0.15), 0
    for person in range(12):
        image = portrait(person, "wear")
        firm = detector.find(image)
        if firm:
            assert loose.find(image) == firm
        else:
            more += bool(loose.find(image))
    assert more > 0


def test_the_smallest_face_is_a_share_of_the_shorter_side() -> None:
    image = portrait(0, "normal")
    assert CascadeDetector(min_face=0.2).find(image)
    assert CascadeDetector(min_face=0.95).find(image) == []


def test_boxes_are_deterministic_and_scale_with_the_image(
    detector: CascadeDetector,
) -> None:
    image = portrait(3, "normal")
    first = detector.find(image)
    assert CascadeDetector().find(image) == first
    twice = detector.find(image.repeat(2, axis=0).repeat(2, axis=1))
    assert abs(twice[0].left - 2 * first[0].left) <= 0.1 * 2 * WIDTH
    assert abs(twice[0].width - 2 * first[0].width) <= 0.2 * twice[0].width


def test_mirrored_image_has_mirrored_profile_windows(detector: CascadeDetector) -> None:
    compared = 0
    for person in range(4):
        gray = np.ascontiguousarray(portrait(person, "normal")[:, :, 1])
        *_, windows = detector._passes(gray, 40)
        *_, mirrored = detector._passes(np.ascontiguousarray(gray[:, ::-1]), 40)
        windows[:, 0] = WIDTH - windows[:, 0] - windows[:, 2]
        assert sorted(windows.tolist()) == sorted(mirrored.tolist())
        compared += len(windows)
    assert compared > 0


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 400, 3), (400, 3, 3), (24, 24, 3)])
def test_images_too_small_or_too_narrow_for_a_face_are_no_error(detector: CascadeDetector, shape) -> None:
    assert detector.find(np.zeros(shape, np.uint8)) == []


def test_without_opencv_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(EnsembleError, match="OpenCV cannot be imported") as caught:
        CascadeDetector()
    assert caught.value.hint == "pip install 'opencv-python-headless<5'"


def test_opencv_without_cascades_differs_from_missing_opencv(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setitem(sys.modules, "cv2", types.SimpleNamespace(__version__="5.0.0"))
    with pytest.raises(EnsembleError, match=r"OpenCV 5\.0\.0 no longer has cascades") as caught:
        CascadeDetector()
    assert "<5" in (caught.value.hint or "")
    bare = types.SimpleNamespace(__version__="4.99", data=types.SimpleNamespace(haarcascades=str(tmp_path)))
    with pytest.raises(EnsembleError, match=r"OpenCV 4\.99 does not include haarcascade_eye\.xml"):
        cascade_file(bare, "eye")
