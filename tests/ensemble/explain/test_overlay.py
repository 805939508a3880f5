"""Colors that are read the same by everyone, and pictures."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from ensemble.explain.overlay import color_of, encode, overlay, side_by_side


def lightness(colors: np.ndarray) -> np.ndarray:
    """CIE L* of sRGB colors 0–255."""
    linear = np.where(colors / 255 <= 0.04045, colors / 255 / 12.92, ((colors / 255 + 0.055) / 1.055) ** 2.4)
    luminance = linear @ np.array([0.2126, 0.7152, 0.0722])
    return np.where(luminance > 0.008856, 116 * np.cbrt(luminance) - 16, 903.3 * luminance)


def test_lightness_rises_evenly_so_that_no_color_vision_is_needed() -> None:
    steps = np.diff(lightness(color_of(np.linspace(0, 1, 33))))
    assert steps.min() > 0
    assert steps.max() < 2 * np.mean(steps)


def test_heat_is_drawn_over_the_image_and_no_heat_leaves_it() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    heat = np.zeros((20, 30), np.float32)
    heat[5:10, 5:10] = 1
    drawn = overlay(pixels, heat)
    np.testing.assert_array_equal(drawn[heat == 0], pixels[heat == 0])
    np.testing.assert_allclose(drawn[6, 6], 0.25 * pixels[6, 6] + 0.75 * np.array([252, 255, 164]), atol=1)
    np.testing.assert_array_equal(overlay(pixels, np.full((20, 30), np.nan)), pixels)


def test_files_have_the_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encode(pixels)))), pixels)
    assert Image.open(io.BytesIO(encode(pixels, "jpeg"))).format == "JPEG"


def test_panels_of_any_shape_and_captions_that_do_not_fit() -> None:
    pixels = np.zeros((32, 64, 3), np.uint8)
    picture = side_by_side([("input", pixels), ("heat", pixels)], ["x" * 500, "名前 …", ""])
    assert picture.dtype == np.uint8
    assert picture.shape[1] == 2 * (256 + 6) + 6
