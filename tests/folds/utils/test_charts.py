"""Charts: round ticks, escaped texts, classes only, labels that do not overlap, and every odd input."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from folds.utils import html
from folds.utils.charts.curves import lines, reliability_diagram, reliability_panels
from folds.utils.charts.drawing import TONES, WIDTH
from folds.utils.charts.grids import heat, histogram
from folds.utils.charts.points import cloud, scatter
from folds.utils.charts.rows import bars, forest
from folds.utils.charts.scales import log_ticks, shortened, text_width, tick_texts, ticks
from folds.utils.charts.series import Calibrated, Point, Row, Series
from folds.utils.html import check_svg

CSS = Path(html.__file__).with_name("charts.css")
SVG = "{http://www.w3.org/2000/svg}"
NAN = math.nan
HOSTILE = "</title></svg><script>alert(1)</script>\" onload='x' & \x00\x1b \ufffe\ud800\u202e {{7*7}}"


def elements(svg: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(svg).iter())  # noqa: S314 - drawn by the code under test


def texts(svg: str) -> list[str]:
    """Return the texts that are shown, without tooltips."""
    return [one.text or "" for one in elements(svg) if one.tag == f"{SVG}text"]


def boxes(svg: str) -> list[tuple[float, float, float, float]]:
    """Return the boxes of the texts that are shown, as wide as they are estimated."""
    found = []
    for one in elements(svg):
        if one.tag == f"{SVG}text" and not one.get("transform"):
            css = one.get("class", "").split()
            wide = text_width(one.text or "", 12.0 if {"tick", "value"} & set(css) else 13.0)
            x, y = float(one.get("x", 0)), float(one.get("y", 0))
            start = x - (wide if "end" in css else wide / 2 if "middle" in css else 0)
            found.append((start, y - 9, start + wide, y + 2))
    return found


def overlapping(svg: str) -> list[tuple[str, str]]:
    found, shown = boxes(svg), texts(svg)
    return [
        (shown[i], shown[j])
        for i, a in enumerate(found)
        for j, b in enumerate(found[:i])
        if a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
    ]


def named(count: int, name: str = "model") -> list[str]:
    return [f"{name}_{i}" for i in range(count)]


def forest_of(names: Sequence[str]) -> str:
    rows = [
        Row(name, 0.01 * i, 0.01 * i - 0.02, 0.01 * i + 0.02, "+0.010 [-0.010, +0.030]") for i, name in enumerate(names)
    ]
    return forest(rows, "title", "description", "difference", left="worse", right="better")


def bars_of(names: Sequence[str]) -> str:
    return bars([Row(name, 0.5, 0.4, 0.6, "0.500 [0.400, 0.600]") for name in names], "title", "description", "score")


def scatter_of(names: Sequence[str]) -> str:
    random = np.random.default_rng(0)
    points = [Point(name, float(random.integers(1, 40)), float(random.uniform(0.6, 0.8)), 0.55, 0.85) for name in names]
    front = [(1.0, 0.7), (5.0, 0.75)]
    return scatter(points, "t", "d", "passes", "score", frontier=front, frontier_name="front")


def lines_of(names: Sequence[str]) -> str:
    return lines([Series(name, [1, 2, 3], [0.1, 0.2, 0.3]) for name in names], "t", "d", "epoch", "loss", x_whole=True)


def heat_of(names: Sequence[str]) -> str:
    return heat(names, np.linspace(-1, 1, len(names) ** 2).reshape(len(names), -1).tolist(), "t", "d")


def diagram_of(names: Sequence[str]) -> str:
    bins = [0.2, 0.5, 0.9]
    curves = [Calibrated(name, bins, bins, [0.1] * 3, [0.95] * 3, [5, 5, 5], i) for i, name in enumerate(names)]
    return reliability_diagram(curves, "t", "d", "confidence", "right")


def histogram_of(names: Sequence[str]) -> str:
    return histogram([0, 1, 2, 3], [[1, 2, 3]] * len(names), names, "t", "d", "brightness")


DRAWN: dict[str, Callable[[Sequence[str]], str]] = {
    "forest": forest_of,
    "bars": bars_of,
    "scatter": scatter_of,
    "lines": lines_of,
    "heat": heat_of,
    "reliability": diagram_of,
    "histogram": histogram_of,
}


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.61, 0.69, [0.62, 0.64, 0.66, 0.68]),
        (-3, 7, [-2, 0, 2, 4, 6]),
        (0, 2e6, [0, 5e5, 1e6, 1.5e6, 2e6]),
        (1, 1, [1]),
        (7, -3, [-2, 0, 2, 4, 6]),
        (NAN, 1, []),
        (0, math.inf, []),
    ],
)
def test_ticks_are_round_and_inside(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(20))
def test_ticks_of_any_range_have_steps_of_1_2_or_5(seed: int) -> None:
    random = np.random.default_rng(seed)
    low = float(random.normal() * 10.0 ** random.integers(-6, 6))
    high = low + float(random.exponential() * 10.0 ** random.integers(-4, 4)) + 1e-4 * abs(low)
    found = ticks(low, high)
    assert 2 <= len(found) <= 12
    assert all(low - 1e-6 * (high - low) <= one <= high + 1e-6 * (high - low) for one in found)
    step = found[1] - found[0]
    mantissa = step / 10.0 ** math.floor(math.log10(step) + 1e-6)
    assert min(abs(mantissa - one) for one in (1, 2, 5)) < 1e-3
    shown = tick_texts(found)
    assert len(set(shown)) == len(shown)


def test_log_ticks_are_inside_and_few() -> None:
    assert log_ticks(1, 50) == [1, 2, 5, 10, 20, 50]
    assert log_ticks(1e-6, 1) == pytest.approx([1e-6, 1e-4, 1e-2, 1])
    assert log_ticks(0, 1) == []
    assert log_ticks(3.1, 3.2) == [3.1, 3.2]


def test_tick_texts_have_the_decimals_that_tell_them_apart() -> None:
    assert tick_texts([0.62, 0.64]) == ["0.62", "0.64"]
    assert tick_texts([-0.5, 0, 0.5], signed=True) == ["-0.5", "0.0", "+0.5"]
    assert tick_texts([0, 1000, 2000]) == ["0", "1,000", "2,000"]
    assert tick_texts([0.001, 1, 1000], log=True) == ["0.001", "1", "1,000"]


@pytest.mark.parametrize("kind", DRAWN)
def test_hostile_names_stay_text(kind: str) -> None:
    svg = DRAWN[kind]([HOSTILE, "other"])
    assert {one.tag for one in elements(svg)} <= {
        SVG + name for name in ("svg", "title", "desc", "text", "path", "circle", "rect", "polygon")
    }
    assert all(not name.startswith("on") for one in elements(svg) for name in one.attrib)
    assert "<script" not in svg
    assert "\u202e" not in svg


@pytest.mark.parametrize("kind", DRAWN)
def test_a_drawing_has_classes_only_and_says_what_it_shows(kind: str) -> None:
    svg = DRAWN[kind](named(3))
    root = elements(svg)[0]
    assert root.get("role") == "img"
    assert [one.tag for one in root][:2] == [f"{SVG}title", f"{SVG}desc"]
    assert all((one.text or "").strip() for one in list(root)[:2])
    assert not re.search(r'\s(style|id|fill|stroke|href)="', svg)
    width, height = (float(number) for number in root.get("viewBox", "").split()[2:])
    assert width == WIDTH
    assert 40 < height < 1200


@pytest.mark.parametrize("kind", DRAWN)
def test_every_class_is_in_the_style_sheet(kind: str) -> None:
    known = set(re.findall(r"\.([a-z]+\d*)", CSS.read_text(encoding="utf-8")))
    used = {name for one in elements(DRAWN[kind](named(9))) for name in one.get("class", "").split()}
    assert used <= known


@pytest.mark.parametrize("kind", ["forest", "bars", "scatter", "lines", "heat", "histogram"])
@pytest.mark.parametrize("count", [1, 5, 30])
@pytest.mark.parametrize("name", ["m", "swin_base_patch4_window7_224.ms_in22k_ft_in1k_with_hflip_and_more"])
def test_texts_do_not_overlap_or_leave_the_drawing(kind: str, count: int, name: str) -> None:
    svg = DRAWN[kind](named(count, name))
    assert overlapping(svg) == []
    assert all(box[0] >= -1 and box[2] <= WIDTH + 1 for box in boxes(svg))


def test_wide_letters_are_shortened_to_the_room() -> None:
    assert shortened("short", 200) == "short"
    for text in ("W" * 100, "人" * 80, "i" * 400, "e\u0301" * 90):
        shown = shortened(text, 150)
        assert text_width(shown) <= 150
        assert "…" in shown
    assert shortened("run_of_monday_fold3", 100).endswith("d3")


@pytest.mark.parametrize(
    "svg",
    [
        lines([], "t", "d", "x", "y"),
        lines([Series("a", [1, 2], [NAN, NAN])], "t", "d", "x", "y"),
        lines([Series("a", [1], [0.0])], "t", "d", "x", "y", y_log=True),
        forest([], "t", "d", "x"),
        forest([Row("a", NAN)], "t", "d", "x"),
        bars([Row("a", NAN, NAN, NAN)], "t", "d", "x"),
        scatter([Point("a", NAN, 1)], "t", "d", "x", "y"),
        scatter([Point("a", 0, 1)], "t", "d", "x", "y", x_log=True),
        histogram([0, 1], [[0]], ["a"], "t", "d", "x"),
        heat([], [], "t", "d"),
        reliability_diagram([], "t", "d", "x", "y"),
    ],
)
def test_without_numbers_nothing_is_drawn(svg: str) -> None:
    assert texts(svg) == ["nothing to draw"]


@pytest.mark.parametrize(
    "svg",
    [
        lines([Series("a", [1], [2.0])], "t", "d", "x", "y", x_whole=True),
        lines([Series("a", [1, 2, 3], [1, 1, 1])], "t", "d", "x", "y"),
        lines([Series("a", [1, 2], [1e-300, 1e300], markers=True)], "t", "d", "x", "y"),
        lines([Series("a", range(5000), np.sin(np.arange(5000)))], "t", "d", "x", "y"),
        forest([Row("a", 0.0, 0.0, 0.0)], "t", "d", "x"),
        forest([Row("a", 1.0, NAN, NAN), Row("b", NAN)], "t", "d", "x", reference=None),
        bars([Row("a", 0.0)], "t", "d", "x"),
        bars([Row("a", -2.0), Row("b", 3.0)], "t", "d", "x", x_range=(-1, 1), reference=0.5),
        scatter([Point("a", 1, 1)], "t", "d", "x", "y"),
        heat(["a"], [[NAN]], "t", "d"),
        heat(["a", "b"], [[2.0, -2.0], [0.0, 1.0]], "t", "d"),
    ],
)
def test_every_number_in_a_drawing_is_finite(svg: str) -> None:
    assert not re.search(r"nan|inf\b", svg)
    assert elements(svg)


def test_a_line_is_interrupted_where_a_value_is_missing() -> None:
    svg = lines([Series("a", [1, 2, 3, 4, 5], [1, 2, NAN, 3, 4])], "t", "d", "x", "y")
    (path,) = [one.get("d", "") for one in elements(svg) if one.get("class") == "line s0"]
    assert path.count("M") == 2
    assert path.count("L") == 2
    alone = lines([Series("a", [1, 2, 3], [1, NAN, 2])], "t", "d", "x", "y")
    assert alone.count("<circle") == 2


def test_places_follow_the_values() -> None:
    svg = forest([Row("a", -1, -1.5, -0.5), Row("b", 0, -0.5, 0.5), Row("c", 1, 0.5, 1.5)], "t", "d", "x")
    x = [float(one.get("cx", 0)) for one in elements(svg) if one.tag == f"{SVG}circle"]
    assert x[2] - x[1] == pytest.approx(x[1] - x[0], abs=0.2)
    (line,) = [one.get("d", "") for one in elements(svg) if one.get("class") == "reference"]
    assert float(re.findall(r"M([\d.]+)", line)[0]) == pytest.approx(x[1], abs=0.2)


def test_a_grid_of_30_runs_and_long_curves_stay_small() -> None:
    assert len(heat_of(named(30))) < 40_000
    long = lines([Series("a", range(100_000), np.arange(100_000) / 7)], "t", "d", "x", "y")
    assert len(long) < 10_000


def _luminance(color: str) -> float:
    color = color if len(color) == 7 else "#" + "".join(2 * letter for letter in color[1:])
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [one / 12.92 if one <= 0.03928 else ((one + 0.055) / 1.055) ** 2.4 for one in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(("block", "ground"), [(0, "#ffffff"), (1, "#12161b"), (2, "#12161b")])
def test_tones_stand_out_from_the_page(block: int, ground: str) -> None:
    found = re.findall(r"--s0:.*?--on: #\w+", CSS.read_text(encoding="utf-8"), re.DOTALL)
    assert len(found) == 3
    tones = dict(re.findall(r"--(s\d|quiet): (#\w+)", found[block]))
    assert len(tones) == TONES + 1
    for name, color in tones.items():
        low, high = sorted((_luminance(color), _luminance(ground)))
        assert (high + 0.05) / (low + 0.05) >= (4.5 if name == "quiet" else 3), name


def test_points_with_the_same_x_lie_side_by_side() -> None:
    points = [Point(f"m{i}", 1.0, 0.5 + 0.1 * i, 0.3, 0.9) for i in range(3)]
    svg = scatter([*points, Point("far", 5.0, 0.6)], "t", "d", "x", "y")
    x = [float(one.get("cx", 0)) for one in elements(svg) if one.tag == f"{SVG}circle"]
    assert x[1] - x[0] == pytest.approx(12, abs=0.2)
    assert x[2] - x[1] == pytest.approx(12, abs=0.2)


def test_a_cloud_has_a_place_for_each_point_and_no_more_than_can_be_seen() -> None:
    line = Series("mean", [1, 2], [1, 2], [0, 1], [2, 3])
    drawn = cloud([1, 2, float("nan")], [1, 3, 2], "t", "d", "x", "y", line=line, diagonal=True, above="high")
    check_svg(drawn)
    assert drawn.count("h5v5h-5z") == 2
    assert "reference" in drawn
    assert ">high<" in drawn
    many = cloud(list(range(9000)), list(range(9000)), "t", "d", "x", "y", reference=4.0)
    assert many.count("h5v5h-5z") == 3000
    assert "nothing to draw" in cloud([], [], "t", "d", "x", "y")


def test_small_reliability_diagrams_have_a_diagonal_each() -> None:
    curves = [Calibrated(f"label {at}", [0.1, 0.8], [0.2, 0.7], [0.1, 0.5], [0.3, 0.9], [9, 8]) for at in range(5)]
    drawn = reliability_panels(curves, "t", "d", "x", "y")
    check_svg(drawn)
    assert drawn.count('class="reference"') == 5
    assert drawn.count("label 3: probability") == 2
    assert "nothing to draw" in reliability_panels([], "t", "d", "x", "y")


def test_a_row_of_a_forest_can_have_another_value_within_the_axis() -> None:
    rows = [Row("hat", 0.9, 0.8, 1.0, mark=0.1)]
    drawn = forest(rows, "t", "d", "x", reference=None)
    check_svg(drawn)
    assert "hat: 0.100" in drawn
    assert "hat: 0.100" not in forest([Row("hat", 0.9, 0.8, 1.0)], "t", "d", "x", reference=None)
