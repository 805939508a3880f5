"""What is said about images of more than 8 bits a pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from folds.images.bit_depth import DepthGroup, depth_notes
from folds.images.cache import ImageSettings, load_images
from tests.conftest import Logged

SMALL = ImageSettings(16, 12)


def deep_images(folder: Path, highest: int) -> list[Path]:
    paths = [folder / f"deep{at}.png" for at in range(2)]
    for path in paths:
        Image.fromarray(np.linspace(0, highest, 64).astype(np.uint16).reshape(8, 8)).save(path)
    return paths


def test_the_window_of_deep_images_is_noted_with_a_cache_too(tmp_path: Path, logged: Logged) -> None:
    paths = deep_images(tmp_path, 60_000)
    for _ in range(2):
        logged.records.clear()
        load_images(paths, SMALL, cache_dir=tmp_path / "cache")
        assert logged.notes == [
            "2 images of 16-bit grey: the values 0 to 65535 become 0 to 255 (`window=LO,HI` sets it)"
        ]


def test_a_window_that_is_too_wide_is_warned_about_with_a_remedy(tmp_path: Path, logged: Logged) -> None:
    paths = deep_images(tmp_path, 4095)
    load_images(paths, SMALL, cache_dir=tmp_path / "cache")
    assert len(logged.notes) == 2
    assert "6.2% of that window" in logged.notes[1]
    assert "`window=0,4095`" in logged.notes[1]
    logged.records.clear()
    load_images(paths, ImageSettings(16, 12, window=(0, 4095)), cache_dir=tmp_path / "cache")
    assert len(logged.notes) == 1


def test_images_of_eight_bits_are_nothing_to_talk_about(tmp_path: Path, logged: Logged) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "grey.png")
    load_images([tmp_path / "grey.png"], SMALL, cache_dir=tmp_path / "cache")
    assert logged.lines == []


def test_dark_16_bit_color_is_warned_about_without_a_window() -> None:
    used, dark = depth_notes([DepthGroup("16-bit colour", 3, 0, 4080, (0, 65535))])
    assert "`window` does not apply to color" in used
    assert "convert these files to 8 bits" in dark


def test_a_window_that_holds_no_value_found_is_warned_about() -> None:
    assert "0.0% of that window" in depth_notes([DepthGroup("16-bit grey", 1, 5000, 9000, (0, 1))])[1]
