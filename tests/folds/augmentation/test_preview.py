from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from folds.augmentation.batch import augment_batch, sample_parameters
from folds.augmentation.custom import Transform
from folds.augmentation.mixup import MixupCutmix
from folds.augmentation.presets import PRESETS
from folds.augmentation.preview import PreviewSettings, augmented_versions, preview_rows, write_preview
from folds.utils.files import derive_seed

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def images(n: int = 3, height: int = 20, width: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def plain(n: int = 3, **more: object) -> PreviewSettings:
    return PreviewSettings(("none",), np.zeros(n, dtype=np.int64), mean=MEAN, std=STD, **more)  # type: ignore[arg-type]


def test_without_augmentation_every_version_is_the_image() -> None:
    shown, shares = augmented_versions(images(), ["a", "b", "a"], plain(), 2)
    assert np.array_equal(shown, np.stack([images()] * 2))
    assert shares == [[{"a": 1.0}, {"b": 1.0}, {"a": 1.0}]] * 2


def test_a_version_is_what_training_makes_of_the_same_numbers() -> None:
    how = PreviewSettings(("none", "strong"), np.array([1, 0, 1]), mean=MEAN, std=STD, seed=3)
    shown, _ = augmented_versions(images(), ["a", "b", "a"], how, 2)
    ways = [PRESETS["none"], PRESETS["strong"]]
    draws = sample_parameters(3, ways, torch.Generator().manual_seed(derive_seed(3, "preview", 1)))
    expected = (
        augment_batch(torch.from_numpy(images()), draws, ways, MEAN, STD, torch.tensor([1, 0, 1]))
        .permute(0, 2, 3, 1)
        .numpy()
    )
    assert np.abs(shown[1] - (expected * STD + MEAN) * 255).max() <= 0.51
    assert np.abs(shown[:, 1] - images()[1].astype(float)).max() <= 1
    assert not np.array_equal(shown[0], shown[1])


def test_the_users_transform_is_first_with_a_seed_per_image() -> None:
    transform = Transform("here:stamped", "", lambda image, seed: np.full_like(image, seed % 251))
    shown, _ = augmented_versions(images(), ["a", "b", "c"], plain(transform=transform), 2)
    assert len(np.unique(shown)) == 6


def test_mixed_images_say_what_they_are_a_mixture_of(tmp_path: Path) -> None:
    how = plain(4, mixing=MixupCutmix(mixup=1.0))
    flat = np.stack([np.full((16, 16, 3), value, dtype=np.uint8) for value in (0, 200)] * 2)
    shown, shares = augmented_versions(flat, ["dark", "light"] * 2, how, 6)
    for version in range(6):
        for row in range(4):
            assert shown[version, row].max() == pytest.approx(200 * shares[version][row].get("light", 0.0), abs=1.6)
    assert any(len(share) == 2 for row in shares for share in row)
    write_preview(tmp_path / "sheet.png", flat, ["dark", "light"] * 2, how)


@pytest.mark.parametrize(("side", "shown_side"), [(16, 112), (64, 128), (300, 224)])
def test_the_sheet_has_a_row_an_image_first_as_it_is_decoded(tmp_path: Path, side: int, shown_side: int) -> None:
    pixels = np.stack([np.full((side, side, 3), value, dtype=np.uint8) for value in (30, 90, 160)])
    how = PreviewSettings(("standard",), np.zeros(3, dtype=np.int64))
    path = write_preview(tmp_path / "sheet.png", pixels, ["a", "b", "ä" * 99], how, versions=4)
    sheet = np.asarray(Image.open(path).convert("RGB"))
    assert sheet.shape[1] == 8 + 5 * (shown_side + 8)
    lines = [[value for value in (30, 90, 160) if (row == value).all()] for row in sheet[:, 8 : 8 + shown_side]]
    assert [line for i, line in enumerate(lines) if line and line != lines[i - 1]] == [[30], [90], [160]]
    assert sum(line == [30] for line in lines) == shown_side
    first = path.read_bytes()
    assert write_preview(path, pixels, ["a", "b", "ä" * 99], how, versions=4).read_bytes() == first


def test_one_image_per_class_and_every_preset_is_shown() -> None:
    labels = [str(i % 20) for i in range(400)]
    codes = np.array([int(label == "13") for label in labels])
    rows = preview_rows(labels, codes)
    assert len(rows) == 8
    shown = [labels[row] for row in rows]
    assert shown == sorted(set(shown), key=int)
    assert "13" in shown
    assert preview_rows(labels, codes) == rows
    assert preview_rows(labels, codes, seed=1) != rows
    few = ["b", "a", "b"]
    assert [few[row] for row in preview_rows(few, np.zeros(3, dtype=np.int64))] == ["a", "b"]
