"""Sparklines: one character per value on a stated scale, in characters that the stream has."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from folds.utils.sparkline import BLOCKS, PLAIN, RunCurves, blocks_for, scale_of, sparkline


def test_the_ends_of_the_scale_are_the_ends_of_the_blocks() -> None:
    assert sparkline([0.0, 0.5, 1.0, 2.0, -1.0], (0.0, 1.0)) == "▁▅██▁"
    assert sparkline([0.0, 1.0], (0.0, 1.0), blocks=PLAIN) == ".@"
    assert sparkline([], (0.0, 1.0)) == ""


def test_many_values_are_means_of_neighbors_and_unknown_ones_a_gap() -> None:
    assert sparkline([0.0, 1.0, 1.0, 1.0], (0.0, 1.0), width=2) == "▅█"
    assert len(sparkline([0.5] * 1000, (0.0, 1.0), width=12)) == 12
    assert sparkline([math.nan, 1.0], (0.0, 1.0)) == " █"


def test_noise_in_the_third_decimal_looks_flat() -> None:
    scale = scale_of([[0.700, 0.702], [0.701]])
    assert scale == pytest.approx((0.651, 0.751))
    assert scale is not None
    heights = [BLOCKS.index(one) for one in sparkline([0.700, 0.702, 0.701], scale)]
    assert max(heights) - min(heights) <= 1
    assert scale_of([[0.1, 0.9], [0.5]]) == (0.1, 0.9)
    assert scale_of([[math.nan], []]) is None


def test_folds_of_a_run_share_a_scale() -> None:
    curves = RunCurves()
    curves.add("swin", 0, "macro F1", [0.2, 0.7])
    assert curves.text("swin", 0) == "macro F1 0.700 ▁█ (0.20 to 0.70)"
    curves.add("swin", 1, "macro F1", [0.2, 1.0])
    curves.add("vit", 0, "macro F1", [0.0, 0.1])
    curves.add("swin", 2, "loss", [9.0, 1.0])
    assert curves.text("swin", 0) == "macro F1 0.700 ▁▆ (0.20 to 1.00)"
    assert curves.text("swin", 2, PLAIN) == "loss 1.000 @. (1.00 to 9.00)"
    assert curves.text("swin", 3) == ""


@pytest.mark.parametrize(
    ("encoding", "term", "blocks"),
    [
        ("utf-8", "xterm", BLOCKS),
        ("ascii", "xterm", PLAIN),
        ("cp437", "xterm", PLAIN),  # it has two of the eight
        ("utf-8", "linux", PLAIN),
        ("utf-8", "dumb", PLAIN),
        ("nothing", "xterm", PLAIN),
    ],
)
def test_a_stream_gets_the_characters_that_it_has(
    encoding: str, term: str, blocks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    stream: Any = SimpleNamespace(encoding=encoding)
    assert blocks_for(stream) == blocks
