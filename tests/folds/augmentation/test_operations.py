from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from folds.augmentation import operations as policies
from folds.augmentation.operations import OPERATIONS, choose, erase, inside, recoding, rectangles, sharpen


def images(n: int = 5, height: int = 14, width: int = 11, seed: int = 0) -> torch.Tensor:
    """Images of various ranges of levels, one of a single colour."""
    rng = np.random.default_rng(seed)
    found = np.stack(
        [
            rng.integers(low, high, (height, width, 3))
            for low, high in rng.permutation([[0, 256], [90, 130], [7, 250], [10, 60], [77, 78]])
        ]
    )
    return torch.from_numpy(found[np.arange(n) % 5].astype(np.uint8))


def chosen(operation: str, strength: float, n: int) -> policies.Chosen:
    row = torch.tensor(
        [0.0, (OPERATIONS.index(operation) + 0.5) / len(OPERATIONS), (strength + 1) / 2], dtype=torch.float64
    )
    return choose(row.float().expand(n, 3), 1.0)


def recode(batch: torch.Tensor, which: policies.Chosen) -> torch.Tensor:
    return policies.recode(batch, recoding(which))


def uniform(n: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.rand((n, columns), generator=torch.Generator().manual_seed(seed))


def test_operations_are_equally_likely_and_none_at_probability_0() -> None:
    draws = uniform(14_000, 3)
    counts = torch.bincount(choose(draws, 1.0).index, minlength=len(OPERATIONS))
    assert (counts - 1000).abs().max() < 150
    assert choose(draws, 0.0).index.eq(0).all()
    mixed = choose(draws, torch.tensor([0.0, 1.0]).repeat(7000)).index
    assert mixed[::2].eq(0).all()
    assert mixed[1::2].ne(0).float().mean() > 0.9


def test_an_operation_changes_only_its_own_property() -> None:
    for name in OPERATIONS:
        effects = chosen(name, -0.5, 2).effects
        assert all((effect != 0).all() == (effect_name == name) for effect_name, effect in effects.items())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("strength", [-1.0, -0.6, 0.0, 0.3, 1.0])
@pytest.mark.parametrize("operation", ["posterize", "solarize", "autocontrast", "equalize"])
def test_recoded_levels_are_those_of_pillow(operation: str, strength: float, seed: int) -> None:
    batch = images(seed=seed)
    found = recode(batch, chosen(operation, strength, len(batch)))
    for image, result in zip(batch, found, strict=True):
        picture = Image.fromarray(image.numpy())
        expected = {
            "posterize": lambda: ImageOps.posterize(picture, 7 - min(3, int(abs(strength) * 4))),  # noqa: B023 - called at once
            "solarize": lambda: ImageOps.solarize(picture, 256 - 128 * abs(strength)),  # noqa: B023
            "autocontrast": lambda: ImageOps.autocontrast(picture),  # noqa: B023
            "equalize": lambda: ImageOps.equalize(picture),  # noqa: B023
        }[operation]()
        # Pillow stretches in floating point and cuts off what should have been whole.
        tolerance = 1 if operation == "autocontrast" else 0
        assert np.abs(result.numpy().astype(int) - np.asarray(expected).astype(int)).max() <= tolerance


def test_recoding_leaves_other_samples_and_the_input_unchanged() -> None:
    batch = images(len(OPERATIONS), 8, 8)
    before = batch.clone()
    each = torch.stack(
        [
            torch.zeros(len(OPERATIONS)),
            (torch.arange(len(OPERATIONS)) + 0.5) / len(OPERATIONS),
            torch.ones(len(OPERATIONS)),
        ],
        1,
    )
    found = recode(batch, choose(each, 1.0))
    assert torch.equal(batch, before)
    same = (found == batch).flatten(1).all(1)
    assert same[: OPERATIONS.index("posterize")].all()
    assert torch.equal(recode(batch, chosen("identity", 1.0, len(batch))), batch)
    changed = policies.recode(batch, recoding(choose(each, 1.0)), in_place=True)
    assert changed is batch
    assert torch.equal(batch, found)


@pytest.mark.parametrize("change", [-0.9, -0.3, 0.9])
def test_sharpness_is_that_of_pillow(change: float) -> None:
    batch = images()
    found = sharpen(batch.permute(0, 3, 1, 2).float(), torch.full((5,), change)).clamp(0, 255)
    for image, result in zip(batch, found, strict=True):
        expected = np.asarray(ImageEnhance.Sharpness(Image.fromarray(image.numpy())).enhance(1 + change)).transpose(
            2, 0, 1
        )
        # Pillow rounds the blurred image, which is then extrapolated, and the result.
        assert np.abs(result.numpy() - expected).max() <= 1.6


def test_only_the_samples_that_are_to_be_sharpened_change() -> None:
    pixels = images().permute(0, 3, 1, 2).float()
    found = sharpen(pixels.clone(), torch.tensor([0.0, 0.5, 0.0, -0.5, 0.0]))
    for i, changes in enumerate([False, True, False, True, False]):
        single = len(images()[i].unique()) == 1  # of one colour there is nothing to sharpen
        assert torch.equal(found[i], pixels[i]) != (changes and not single)


# What a GPU computes for every sample and a CPU for those that need it must be the same.
def test_all_samples_at_once_give_what_the_needing_ones_give(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, operations = images(60, 9, 7), choose(uniform(60, 3), 1.0)
    pixels, boxes = batch.permute(0, 3, 1, 2).float(), rectangles(uniform(60, 5, 1), 0.5, 9, 7)
    some = (
        recode(batch, operations),
        sharpen(pixels.clone(), operations.effects["sharpness"]),
        erase(pixels.clone(), boxes),
    )
    monkeypatch.setattr(policies, "rows_of", lambda needs: None)
    every = recode(batch, operations), sharpen(pixels.clone(), operations.effects["sharpness"])
    assert torch.equal(some[0], every[0])
    torch.testing.assert_close(some[1], every[1], atol=1e-4, rtol=0)
    assert torch.equal(some[2], pixels.masked_fill(inside(boxes, 9, 7), 0))


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 200), st.integers(3, 200), st.integers(0, 1000))
def test_rectangles_are_inside_the_image_with_the_right_areas(height: int, width: int, seed: int) -> None:
    draws = uniform(50, 5, seed)
    top, bottom, left, right = rectangles(draws, 1.0, height, width).unbind(1)
    tall, wide = bottom - top, right - left
    assert min(top.min(), left.min()) >= 0
    assert min(tall.min(), wide.min()) >= 1
    assert (bottom.max() <= height, right.max() <= width) == (True, True)
    wanted = (0.02 + 0.31 * draws[:, 1]) * height * width
    # Half a pixel at each side.
    assert ((tall * wide - wanted).abs() <= (tall + wide) / 2 + 1).all()
    if 1 / 3 < height / width < 3:
        assert ((tall + 0.5) / (wide - 0.5)).min() > 1 / 3.4
        assert ((tall - 0.5) / (wide + 0.5)).max() < 3.4


def test_areas_and_places_of_rectangles_are_spread_evenly() -> None:
    boxes = rectangles(uniform(20_000, 5), 0.25, 200, 200)
    drawn = boxes[boxes[:, 1] > 0]
    assert len(drawn) / 20_000 == pytest.approx(0.25, abs=0.015)
    top, bottom, left, right = drawn.unbind(1)
    shares = ((bottom - top) * (right - left)).double() / 200**2
    assert shares.mean().item() == pytest.approx((0.02 + 0.33) / 2, abs=0.005)
    assert shares.std().item() == pytest.approx(0.31 / 12**0.5, abs=0.005)
    hit = inside(drawn, 200, 200).float().mean(0)[0]
    assert hit[:, :100].mean().item() == pytest.approx(hit[:, 100:].mean().item(), rel=0.05)
    assert hit[:100].mean().item() == pytest.approx(hit[100:].mean().item(), rel=0.05)
    ratio = (bottom - top).double().log() - (right - left).double().log()
    assert ratio.mean().item() == pytest.approx(0, abs=0.05)


def test_the_inside_of_a_box_repeats_each_column() -> None:
    boxes = torch.tensor([[1, 3, 0, 2], [0, 0, 0, 0]])
    found = inside(boxes, 4, 3, repeat=2)
    expected = np.zeros((2, 1, 4, 6), dtype=bool)
    expected[0, 0, 1:3, 0:4] = True
    assert np.array_equal(found.numpy(), expected)
