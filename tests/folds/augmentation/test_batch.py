from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from scipy import ndimage
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import affine

from folds.augmentation import batch as module_of_batch
from folds.augmentation import changes as module_of_changes
from folds.augmentation import operations as policies
from folds.augmentation.batch import (
    PRESETS,
    Augmentation,
    augment_batch,
    blocks,
    preset,
    sample_batches,
    sample_parameters,
    to_input,
)
from folds.augmentation.mixup import mix_batch
from folds.augmentation.operations import OPERATIONS

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Pixels out of the normalisation, so that what comes out can be compared with pixels.
PLAIN = ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))


def augment(
    batch: torch.Tensor, how: Any, mean: Any, std: Any, generator: torch.Generator, *more: Any, **named: Any
) -> torch.Tensor:
    """Drawn and applied at once."""
    return augment_batch(
        batch, sample_parameters(len(batch), how, generator).to(batch.device), how, mean, std, *more, **named
    )


def images(n: int = 4, height: int = 12, width: int = 10, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, height, width, 3), dtype=np.uint8))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pixels(batch: torch.Tensor, how: Augmentation, seed: int = 0) -> torch.Tensor:
    """The augmented batch in pixel values, (n, 3, height, width)."""
    return augment(batch, how, *PLAIN, generator(seed))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_an_input_is_the_pixels_less_the_mean_by_the_deviation(seed: int) -> None:
    batch = images(seed=seed)
    expected = (batch.numpy().astype(np.float64) / 255 - MEAN) / STD
    found = to_input(batch, MEAN, STD)
    assert (found.dtype, tuple(found.shape)) == (torch.float32, (4, 3, 12, 10))
    np.testing.assert_allclose(found.numpy(), expected.transpose(0, 3, 1, 2), atol=2e-6)


def test_black_and_white_come_to_the_ends_of_the_range() -> None:
    ends = torch.tensor([0, 255], dtype=torch.uint8)[:, None, None, None].expand(2, 4, 4, 3)
    found = to_input(ends, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    torch.testing.assert_close(found[0], torch.full((3, 4, 4), -1.0))
    torch.testing.assert_close(found[1], torch.full((3, 4, 4), 1.0))


def test_the_batch_itself_is_left_as_it_was() -> None:
    batch = images()
    before = batch.clone()
    to_input(batch, MEAN, STD)
    augment(batch, PRESETS["standard"], MEAN, STD, generator())
    augment(batch, PRESETS["strong"], MEAN, STD, generator())
    assert torch.equal(batch, before)


def test_no_augmentation_is_the_plain_input() -> None:
    torch.testing.assert_close(
        augment(images(), PRESETS["none"], MEAN, STD, generator()), to_input(images(), MEAN, STD)
    )


def test_a_certain_flip_is_the_mirror_image() -> None:
    flipped = augment(images(), Augmentation(flip=1.0), MEAN, STD, generator())
    torch.testing.assert_close(flipped, to_input(images().flip(2), MEAN, STD))


def test_a_flip_by_the_grid_equals_the_mirror_image() -> None:
    by_grid = pixels(images(), Augmentation(flip=1.0, rotate=1e-5))
    assert (by_grid - images().flip(2).permute(0, 3, 1, 2)).abs().max() < 0.1


def test_half_of_the_images_are_mirrored_when_half_should_be() -> None:
    one = images(1).expand(1000, -1, -1, -1)
    found = pixels(one, Augmentation(flip=0.5))
    mirrored = (found == images(1).flip(2).permute(0, 3, 1, 2)).flatten(1).all(1)
    straight = (found == images(1).permute(0, 3, 1, 2)).flatten(1).all(1)
    assert (mirrored ^ straight).all()
    assert 430 < int(mirrored.sum()) < 570


@pytest.mark.parametrize("how", [{"scale": 1e-7}, {"shift": 1e-7}, {"rotate": 1e-5}])
@pytest.mark.parametrize("size", [(12, 10), (7, 15), (16, 16)])
def test_a_grid_that_hardly_moves_leaves_every_pixel_where_it_is(how: dict[str, float], size: tuple[int, int]) -> None:
    batch = images(4, *size)
    assert (pixels(batch, Augmentation(**how)) - batch.permute(0, 3, 1, 2)).abs().max() < 0.1


@pytest.mark.parametrize(
    "how", [{}, {"flip": 1.0}, {"scale": 1e-7}, {"brightness": 1e-7}, {"flip": 1.0, "shift": 1e-7}]
)
def test_of_larger_images_the_center_is_shown_with_its_own_pixels(how: dict[str, float]) -> None:
    batch = images(4, 18, 14)
    center = batch[:, 3:15, 2:12].permute(0, 3, 1, 2)
    found = augment(batch, Augmentation(**how), *PLAIN, generator(), size=(12, 10))
    assert (found - (center.flip(3) if "flip" in how else center)).abs().max() < 0.1


def ramp(n: int, height: int, width: int) -> torch.Tensor:
    """Images whose first two channels are the position of each pixel, across and down."""
    across, down = torch.arange(width).expand(height, width), torch.arange(height)[:, None].expand(height, width)
    return torch.stack([across, down, torch.zeros_like(down)], 2).to(torch.uint8).expand(n, -1, -1, -1)


def test_a_random_crop_is_a_window_of_its_area_and_ratio() -> None:
    how = Augmentation(crop=0.7, aspect=math.log(1.4))
    draws = sample_parameters(500, how, generator())
    assert draws.shape == (500, 9)
    found = augment_batch(ramp(500, 200, 160), draws, how, *PLAIN, size=(100, 80))
    across, down = found[:, 0, 0], found[:, 1, :, 0]
    width, height = (across[:, -1] - across[:, 0]) * 80 / 79, (down[:, -1] - down[:, 0]) * 100 / 99
    area, ratio = width * height / (160 * 200), (width / 160) / (height / 200)
    inside = (width < 159) & (height < 199)  # a side that would be longer than the image is as long as it
    torch.testing.assert_close(area[inside], 1 - 0.7 * draws[inside, 1], atol=0.01, rtol=0)
    torch.testing.assert_close(ratio[inside], 1.4 ** (2 * draws[inside, -1] - 1), atol=0.02, rtol=0)
    assert inside.sum() > 350
    assert across.min() >= 0
    assert across.max() <= 159
    left = across[:, 0] - width / 160
    assert left.min() < 5  # all of the image is reached
    assert (across[:, -1] + width / 160).max() > 155


def test_a_random_crop_replaces_scale_and_shift_of_a_preset() -> None:
    found = preset("standard", None, 0.35, 1.33)
    assert (found.scale, found.shift, found.crop, found.aspect) == (0, 0, 0.65, pytest.approx(math.log(1.33)))
    assert (found.flip, found.rotate) == (PRESETS["standard"].flip, PRESETS["standard"].rotate)
    assert preset("standard", None, 1.0, 1.0) == PRESETS["standard"]


def test_the_outside_of_an_image_is_filled_by_reflection() -> None:
    plain = torch.full((4, 12, 10, 3), 200, dtype=torch.uint8)
    moved = pixels(plain, Augmentation(scale=0.5, shift=0.5, rotate=45.0))
    torch.testing.assert_close(moved, torch.full_like(moved, 200.0), atol=1e-2, rtol=0)


def uniforms(n: int, seed: int = 0) -> np.ndarray:
    """The numbers that stand behind the parameters: 8 a sample, from the generator alone."""
    return torch.rand((n, 8), generator=generator(seed)).numpy().astype(np.float64)


@pytest.mark.parametrize(
    "how",
    [
        Augmentation(rotate=30.0),
        Augmentation(shift=0.2),
        Augmentation(scale=0.3),
        Augmentation(flip=0.5, scale=0.2, shift=0.1, rotate=25.0),
    ],
)
def test_affine_changes_are_exact_in_pixels_of_any_aspect_ratio(
    how: Augmentation,
) -> None:
    height, width = 24, 40
    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.uniform(0, 255, (6, height, width, 3)), (0, 2, 2, 0), mode="mirror").astype(
        np.uint8
    )
    found = pixels(torch.from_numpy(smooth), how).numpy()
    rows, columns = np.mgrid[:height, :width] + 0.5
    for i, uniform in enumerate(uniforms(6)):
        mirror = -1 if uniform[0] < how.flip else 1
        zoom = 1 + how.scale * (2 * uniform[1] - 1)
        angle = np.radians(how.rotate * (2 * uniform[2] - 1))
        # From the middle of the image, in pixels: mirrored, turned, scaled, moved.
        x, y = mirror * (columns - width / 2), rows - height / 2
        source_x = (
            zoom * (np.cos(angle) * x - np.sin(angle) * y) + how.shift * width * (2 * uniform[3] - 1) + width / 2 - 0.5
        )
        source_y = (
            zoom * (np.sin(angle) * x + np.cos(angle) * y)
            + how.shift * height * (2 * uniform[4] - 1)
            + height / 2
            - 0.5
        )
        inside = (source_x > 0) & (source_x < width - 1) & (source_y > 0) & (source_y < height - 1)
        assert inside.mean() > 0.4
        for channel in range(3):
            expected = ndimage.map_coordinates(
                smooth[i, :, :, channel].astype(np.float64), [source_y, source_x], order=1
            )
            assert np.abs(found[i, channel] - expected)[inside].max() < 0.05


def test_brightness_contrast_and_saturation_are_their_formulas() -> None:
    how = Augmentation(brightness=0.3, contrast=0.4, saturation=0.5)
    batch = images(6)
    found = pixels(batch, how).numpy()
    for i, uniform in enumerate(uniforms(6)):
        saturation, contrast, brightness = (
            1 + strength * (2 * u - 1) for strength, u in zip((0.5, 0.4, 0.3), uniform[5:], strict=True)
        )
        image = batch[i].numpy().astype(np.float64).transpose(2, 0, 1)
        grey = image.mean(0)
        image = grey + saturation * (image - grey)
        image = (grey.mean() + contrast * (image - grey.mean())) * brightness
        np.testing.assert_allclose(found[i], image.clip(0, 255), atol=1e-3)


def test_brightness_alone_scales_every_pixel_alike() -> None:
    batch = images(5) // 2
    ratio = pixels(batch, Augmentation(brightness=0.5)) / batch.permute(0, 3, 1, 2).clamp_min(1)
    expected = torch.from_numpy(1 + 0.5 * (2 * uniforms(5)[:, 7] - 1)).float()
    for i in range(5):
        positive = batch[i].permute(2, 0, 1) > 0
        torch.testing.assert_close(ratio[i][positive], expected[i].expand(int(positive.sum())), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", PRESETS)
def test_the_seed_determines_the_batch(name: str) -> None:
    first, again, other = (augment(images(), PRESETS[name], MEAN, STD, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (name == "none")


def test_only_the_generator_matters_not_the_global_random_state() -> None:
    torch.manual_seed(0)
    first = augment(images(), PRESETS["standard"], MEAN, STD, generator())
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert torch.equal(first, augment(images(), PRESETS["standard"], MEAN, STD, generator()))
    assert torch.equal(before, torch.get_rng_state())


def test_the_next_batch_of_a_generator_is_augmented_otherwise() -> None:
    stream = generator()
    first, second = (augment(images(), PRESETS["standard"], MEAN, STD, stream) for _ in range(2))
    assert not torch.equal(first, second)


def test_every_sample_of_a_batch_has_parameters_of_its_own() -> None:
    one = images(1, 32, 32).expand(8, -1, -1, -1)
    for strength in ("scale", "shift", "brightness", "contrast", "saturation"):
        found = pixels(one, Augmentation(**{strength: 0.2}))
        assert len({sample.numpy().tobytes() for sample in found}) == 8, strength


def test_an_augmented_image_does_not_depend_on_its_batch() -> None:
    batch = images(4, 16, 16)
    changed = torch.cat([batch[:3], images(1, 16, 16, seed=9)])
    for name in ("standard", "strong"):
        found, beside = (augment(some, PRESETS[name], MEAN, STD, generator()) for some in (batch, changed))
        assert torch.equal(found[:3], beside[:3])


strengths = st.floats(0, 0.9)
anyhow = st.builds(
    Augmentation,
    flip=st.floats(0, 1),
    scale=strengths,
    shift=strengths,
    rotate=st.floats(0, 180),
    brightness=strengths,
    contrast=strengths,
    saturation=strengths,
    operation=st.floats(0, 1),
    erase=st.floats(0, 1),
)


@settings(max_examples=40, deadline=None)
@given(anyhow, st.integers(0, 1000), st.integers(4, 20), st.integers(4, 20))
def test_any_augmentation_gives_finite_values_in_range(how: Augmentation, seed: int, height: int, width: int) -> None:
    found = augment(images(3, height, width, seed), how, MEAN, STD, generator(seed))
    assert found.shape == (3, 3, height, width)
    assert found.isfinite().all()
    back = (found * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]) * 255
    assert back.min() > -0.01
    assert back.max() < 255.01


CHANNELS_LAST, CONTIGUOUS = torch.channels_last, torch.contiguous_format


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("layout", [CHANNELS_LAST, CONTIGUOUS])
def test_blocks_and_layouts_give_bit_identical_results(
    name: str, layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = images(7, 20, 16)
    whole = augment(batch, PRESETS[name], MEAN, STD, generator())
    monkeypatch.setattr(module_of_batch, "_BLOCK", 20 * 16 * 3 * 4 * 2)
    assert len(blocks(batch.numel() * 4, 7, batch.device)) == 4
    found = augment(batch, PRESETS[name], MEAN, STD, generator(), layout=layout)
    assert torch.equal(found, whole)
    assert found.is_contiguous(memory_format=layout)
    assert to_input(batch, MEAN, STD, layout).is_contiguous(memory_format=layout)


@pytest.mark.parametrize(("size", "n"), [(0, 1), (1, 3), (10**7, 3), (10**7, 64), (3 * 10**6, 5)])
def test_blocks_are_all_samples_once_and_of_near_equal_size(size: int, n: int) -> None:
    found = blocks(size, n, torch.device("cpu"))
    lengths = [len(range(n)[some]) for some in found]
    assert [i for some in found for i in range(n)[some]] == list(range(n))
    assert max(lengths) - min(lengths) <= 1
    assert blocks(size, n, torch.device("cuda")) == [slice(0, n)]


def test_plain_presets_use_only_the_first_random_numbers() -> None:
    for name in ("none", "light", "standard"):
        stream, beside = generator(3), generator(3)
        assert torch.equal(sample_parameters(5, PRESETS[name], stream), torch.rand((5, 8), generator=beside))
        assert torch.equal(stream.get_state(), beside.get_state())
    strong = sample_parameters(5, PRESETS["strong"], generator(3))
    assert torch.equal(strong[:, :8], sample_parameters(5, PRESETS["standard"], generator(3)))
    assert torch.equal(strong, sample_parameters(5, [PRESETS["none"], PRESETS["strong"]], generator(3)))


def test_numbers_drawn_ahead_are_those_of_the_single_steps() -> None:
    how = PRESETS["strong"]
    drawn = sample_batches(lambda n, stream: sample_parameters(n, how, stream), [3, 2, 4], [11, 12, 13], "cpu")
    for size, seed, found in zip((3, 2, 4), (11, 12, 13), drawn, strict=True):
        assert torch.equal(found, sample_parameters(size, how, generator(seed)))
        batch = images(size, 16, 16)
        assert torch.equal(augment_batch(batch, found, how, MEAN, STD), augment(batch, how, MEAN, STD, generator(seed)))


def test_each_sample_gets_the_augmentation_that_is_chosen_for_it() -> None:
    batch, ways = images(9, 16, 16), [PRESETS["none"], PRESETS["standard"], PRESETS["strong"]]
    which = torch.tensor([0, 1, 2] * 3)
    draws = sample_parameters(9, ways, generator())
    found = augment_batch(batch, draws, ways, MEAN, STD, which)
    for code, way in enumerate(ways):
        expected = augment_batch(batch, draws, way, MEAN, STD)
        torch.testing.assert_close(found[which == code], expected[which == code], atol=2e-3, rtol=0)
    assert not torch.allclose(found[1], to_input(batch, MEAN, STD)[1], atol=0.1)


def test_one_augmentation_for_all_equals_the_plain_path() -> None:
    batch = images(4, 16, 16)
    plain = augment(batch, PRESETS["standard"], MEAN, STD, generator())
    assert torch.equal(
        augment(batch, [PRESETS["standard"]], MEAN, STD, generator(), torch.zeros(4, dtype=torch.int64)), plain
    )


def strong_draws(n: int, operation: str, strength: float) -> torch.Tensor:
    """Numbers that leave a sample as it is but for one operation of that strength, −1…1."""
    draws = torch.full((n, 16), 0.5)
    draws[:, 8], draws[:, 9], draws[:, 10] = (
        0.0,
        (OPERATIONS.index(operation) + 0.5) / len(OPERATIONS),
        (strength + 1) / 2,
    )
    return draws


ONE = Augmentation(operation=1.0)


@pytest.mark.parametrize(
    "operation", [name for name in OPERATIONS if name not in ("posterize", "autocontrast", "equalize")]
)
def test_an_operation_without_strength_leaves_the_image(operation: str) -> None:
    batch = images(3, 12, 10)
    found = augment_batch(batch, strong_draws(3, operation, 0.0), ONE, *PLAIN)
    assert (found - batch.permute(0, 3, 1, 2)).abs().max() < 0.1


@pytest.mark.parametrize(
    ("operation", "strength", "arguments"),
    [
        ("rotate", 0.5, {"angle": 15.0}),
        ("rotate", -1.0, {"angle": -30.0}),
        ("shear-x", 0.5, {"shear": [math.degrees(math.atan(0.15)), 0.0]}),
        ("shear-y", -1.0, {"shear": [0.0, -math.degrees(math.atan(0.3))]}),
        ("shift-x", 1.0, {"translate": [-6, 0]}),
        ("shift-y", -1.0, {"translate": [0, 3.6]}),
    ],
)
def test_geometric_operations_are_those_of_torchvision(
    operation: str, strength: float, arguments: dict[str, Any]
) -> None:
    height, width = 24, 40
    rng = np.random.default_rng(0)
    smooth = torch.from_numpy(
        ndimage.gaussian_filter(rng.uniform(0, 255, (1, height, width, 3)), (0, 2, 2, 0), mode="mirror").astype(
            np.uint8
        )
    )
    found = augment_batch(smooth, strong_draws(1, operation, strength), ONE, *PLAIN)
    given = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]} | arguments
    # torchvision turns the image, the map here turns the coordinates: the reverse.
    given["angle"] *= -1
    known = torch.cat([smooth.permute(0, 3, 1, 2).float(), torch.ones(1, 1, height, width)], 1)
    expected = affine(known, **given, interpolation=InterpolationMode.BILINEAR, fill=[0.0])
    expected, inside = expected[:, :3], expected[0, 3] > 0.9999
    assert inside.float().mean() > 0.5
    assert (found - expected)[0][:, inside].abs().max() < 0.1


@pytest.mark.parametrize("strength", [-0.8, 0.8])
def test_colour_operations_are_those_of_pillow(strength: float) -> None:
    batch = images(2, 24, 20) // 2 + 40
    picture = Image.fromarray(batch[0].numpy())
    bright = augment_batch(batch, strong_draws(2, "brightness", strength), ONE, *PLAIN)[0].permute(1, 2, 0).numpy()
    assert (
        np.abs(bright - np.asarray(ImageEnhance.Brightness(picture).enhance(1 + 0.5 * strength), dtype=float)).max()
        <= 1
    )
    grey = batch.float().mean(3)
    contrast = augment_batch(batch, strong_draws(2, "contrast", strength), ONE, *PLAIN)[0].permute(1, 2, 0)
    expected = grey[0].mean() + (1 + 0.6 * strength) * (batch[0].float() - grey[0].mean())
    torch.testing.assert_close(contrast, expected.clamp(0, 255), atol=0.1, rtol=0)
    saturated = augment_batch(batch, strong_draws(2, "saturation", strength), ONE, *PLAIN)[0].permute(1, 2, 0)
    expected = grey[0, :, :, None] + (1 + 0.9 * strength) * (batch[0].float() - grey[0, :, :, None])
    torch.testing.assert_close(saturated, expected.clamp(0, 255), atol=0.1, rtol=0)


def test_an_erased_rectangle_is_the_mean_the_rest_unchanged() -> None:
    batch = images(64, 16, 16)
    found = augment(batch, Augmentation(erase=1.0), MEAN, STD, generator())
    erased = (found == 0).all(1)
    assert 0.1 < erased.float().mean() < 0.25
    torch.testing.assert_close(found, torch.where(erased[:, None], 0.0, to_input(batch, MEAN, STD)))
    for mask in erased:
        rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
        assert mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()
        assert int(mask.sum()) == (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)


def test_strong_differs_from_standard_and_changes_every_image() -> None:
    batch = images(1, 32, 32).expand(200, -1, -1, -1)
    strong = augment(batch, PRESETS["strong"], MEAN, STD, generator())
    assert len({sample.numpy().tobytes() for sample in strong}) == 200
    standard = augment(batch, PRESETS["standard"], MEAN, STD, generator())
    same = (strong - standard).abs().flatten(1).amax(1) < 1e-3
    assert 0.01 < same.float().mean() < 0.15  # the identity, and no rectangle: 1/14 · 3/4


# Without a GPU: tensors that have a device and a shape and no values, so that whatever needs a value is an error.
def test_on_a_gpu_nothing_waits_for_a_value() -> None:
    try:
        with FakeTensorMode():
            batch, which = (
                torch.empty((6, 16, 16, 3), dtype=torch.uint8, device="cuda"),
                torch.empty(6, dtype=torch.int64, device="cuda"),
            )
            for layout in (CHANNELS_LAST, CONTIGUOUS):
                draws = torch.empty((6, 16), device="cuda")
                found = [augment_batch(batch, draws, PRESETS[name], MEAN, STD, layout=layout) for name in PRESETS]
                found.append(augment_batch(batch, draws, list(PRESETS.values()), MEAN, STD, which, layout))
                for columns in (2, 5):
                    found.extend(
                        mix_batch(
                            found[-1], torch.empty((6, 4), device="cuda"), torch.empty((6, columns), device="cuda")
                        )[:1]
                    )
                assert all(
                    inputs.device.type == "cuda" and inputs.is_contiguous(memory_format=layout) for inputs in found
                )
    finally:  # what is kept for this device has no values either
        for module in (module_of_batch, module_of_changes, policies):
            for kept in vars(module).values():
                if hasattr(kept, "cache_clear"):
                    kept.cache_clear()
