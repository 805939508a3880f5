"""Which face is meant, and what is cut out round it: inside the image, of the aspect asked for, never padded."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from folds.errors import UsageError
from folds.preparation.boxes import CHOICES, Box, center_window, choose, parse_aspect, typical_window, window_round

sides = st.integers(1, 2000)
sizes = st.tuples(sides, sides)
aspects = st.floats(0.1, 10)
boxes = st.builds(
    Box, st.integers(-500, 2500), st.integers(-500, 2500), st.integers(1, 2500), st.integers(1, 2500), st.floats(0, 1)
)


def is_inside(window: tuple[int, int, int, int], size: tuple[int, int]) -> bool:
    left, top, right, bottom = window
    return 0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]


def has_aspect(window: tuple[int, int, int, int], aspect: float) -> bool:
    """To the pixel: rounding moves each side by half of one, and none is below one."""
    width, height = window[2] - window[0], window[3] - window[1]
    return width <= 1 or height <= 1 or (width - 0.51) / (height + 0.51) <= aspect <= (width + 0.51) / (height - 0.51)


@given(boxes, sizes, st.floats(0, 5), aspects)
def test_a_window_lies_inside_the_image_and_has_the_aspect(box, size, margin, aspect) -> None:
    window = window_round(box, size, margin, aspect)
    assert is_inside(window, size)
    assert has_aspect(window, aspect)


@given(sizes, aspects)
def test_center_window_is_the_largest_centered_window(size, aspect) -> None:
    left, top, right, bottom = window = center_window(size, aspect)
    assert is_inside(window, size)
    assert has_aspect(window, aspect)
    assert right - left == size[0] or bottom - top == size[1]
    assert abs((left + right) - size[0]) <= 1
    assert abs((top + bottom) - size[1]) <= 1


def test_the_margin_is_a_share_of_the_box_on_each_side() -> None:
    assert window_round(Box(400, 300, 100, 100, 1.0), (1000, 1000), 0.3, 1.0) == (370, 270, 530, 430)
    assert window_round(Box(400, 300, 100, 100, 1.0), (1000, 1000), 0.0, 0.5) == (400, 250, 500, 450)


def test_windows_are_shifted_inside_or_scaled_down() -> None:
    assert window_round(Box(0, 0, 100, 100, 1.0), (1000, 1000), 0.5, 1.0) == (0, 0, 200, 200)
    assert window_round(Box(950, 950, 100, 100, 1.0), (1000, 1000), 0.5, 1.0) == (800, 800, 1000, 1000)
    assert window_round(Box(10, 40, 80, 80, 1.0), (96, 128), 0.3, 1.0) == (0, 32, 96, 128)


def test_typical_window_is_relative_to_the_image_size() -> None:
    windows = [(20, 10, 60, 50), (22, 12, 62, 52), (24, 14, 64, 54)]
    assert typical_window(windows, [(100, 200)] * 3, (100, 200), 1.0) == (22, 12, 62, 52)
    assert typical_window(windows, [(100, 200)] * 3, (200, 400), 1.0) == (44, 24, 124, 104)
    assert typical_window([], [], (100, 200), 1.0) == center_window((100, 200), 1.0)


def test_faces_are_chosen_by_size_position_or_confidence() -> None:
    large, central, sure = Box(0, 0, 60, 60, 0.7), Box(90, 90, 20, 20, 0.7), Box(150, 0, 20, 20, 0.99)
    faces = [central, sure, large]
    assert choose(faces, (200, 200), "largest") == large
    assert choose(faces, (200, 200), "central") == central
    assert choose(faces, (200, 200), "confident") == sure
    assert choose([], (200, 200)) is None


def test_a_doubtful_large_box_is_not_the_face() -> None:
    assert choose([Box(0, 0, 80, 80, 0.2), Box(50, 50, 60, 60, 0.9)], (200, 200), "largest") == Box(50, 50, 60, 60, 0.9)


@pytest.mark.parametrize("by", CHOICES)
@example([Box(640, 480, 9, 9, 0.2), Box(640, 480, 9, 9, 0.4)], Random(0))
@given(st.lists(boxes, min_size=1, max_size=5), st.randoms())
def test_the_order_in_which_boxes_were_found_decides_nothing(by, found, random) -> None:
    shuffled = list(found)
    random.shuffle(shuffled)
    assert choose(shuffled, (640, 480), by) == choose(found, (640, 480), by)


@pytest.mark.parametrize(("text", "aspect"), [("1", 1.0), ("1:1", 1.0), ("3:4", 0.75), ("0.5", 0.5), ("16:9", 16 / 9)])
def test_an_aspect_is_a_ratio_or_two_numbers(text, aspect) -> None:
    assert parse_aspect(text) == aspect


@pytest.mark.parametrize("text", ["", "wide", "3:4:5", "0", "1:0", "-1", "nan", "100", "1:"])
def test_what_is_no_aspect_is_refused_with_an_example(text) -> None:
    with pytest.raises(UsageError, match=r"must be width:height") as caught:
        parse_aspect(text)
    assert "`aspect=3:4`" in (caught.value.hint or "")
