"""Draw a sheet of augmented images with the same code that training uses."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from folds.augmentation.batch import augment_batch, center_crop, sample_parameters
from folds.augmentation.custom import Transform
from folds.augmentation.mixup import MixupCutmix, draw_mixing, mix_batch
from folds.augmentation.presets import preset, without_colors
from folds.utils.drawing import drawable, shown_colors
from folds.utils.files import derive_seed, write_atomic
from folds.utils.text import sort_classes

MAX_IMAGES = 8  # on a sheet, one per row
_MIN_SIDE, _MAX_SIDE, _GAP, _LINE = 112, 224, 8, 13  # pixels
_LETTER = 6  # pixels, width of a letter of the built-in font


@dataclass(frozen=True)
class PreviewSettings:
    """The augmentation of the images of a sheet.

    Attributes
    ----------
    presets : the presets in use.
    codes : (n,) the position in `presets` for each image.
    erase : probability of an erased rectangle; None for that of the preset.
    mixing, transform : as in training.
    mean, std : normalization of the model's inputs; the mean is the color of erased rectangles.
    seed : of the sheet.
    crop_scale, crop_ratio : as in training.
    size : (height, width) of the input, if the images are larger.
    colors : whether the channels are red, green and blue; of others the first three are shown.
    """

    presets: tuple[str, ...]
    codes: NDArray[np.int64]
    erase: float | None = None
    mixing: MixupCutmix = field(default_factory=MixupCutmix)
    transform: Transform | None = None
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    seed: int = 0
    crop_scale: float = 1.0
    crop_ratio: float = 1.0
    size: tuple[int, int] | None = None
    colors: bool = True


def preview_rows(
    labels: Sequence[str], codes: NDArray[np.int64], seed: int = 0, max_images: int = MAX_IMAGES
) -> list[int]:
    """Return the images to show: one per class, of at most `max_images` classes, and all presets if possible.

    Parameters
    ----------
    labels : (n,) the class of each image.
    codes : (n,) the preset of each image.
    """
    order = {name: i for i, name in enumerate(sort_classes(labels))}
    rng = np.random.default_rng(derive_seed(seed, "preview"))
    first: dict[tuple[int, str], int] = {}
    for row in rng.permutation(len(labels)).tolist():
        first.setdefault((int(codes[row]), labels[row]), row)
    # Presets take turns, so that one with many classes does not displace the others.
    queues = [
        sorted((order[label], row) for (code, label), row in first.items() if code == each)
        for each in sorted({code for code, _ in first})
    ]
    round_robin = [queue[i] for i in range(max(map(len, queues), default=0)) for queue in queues if i < len(queue)]
    selected: dict[int, int] = {}
    for position, row in round_robin:
        if len(selected) < max_images:
            selected.setdefault(position, row)
    return [row for _, row in sorted(selected.items())]


def augmented_versions(
    pixels: NDArray[np.uint8], labels: Sequence[str], settings: PreviewSettings, versions: int
) -> tuple[NDArray[np.uint8], list[list[dict[str, float]]]]:
    """Return each image `versions` times as augmented in training, without the normalization.

    Returns
    -------
    uint8 (versions, n, height, width, channels), and for each image the shares of the classes in its mixture, if at
    least 0.005.
    """
    crop = settings.crop_scale, settings.crop_ratio
    augmentations = tuple(preset(name, settings.erase, *crop) for name in settings.presets)
    if not settings.colors:
        augmentations = tuple(map(without_colors, augmentations))
    classes = sort_classes(labels)
    targets = torch.eye(len(classes))[[classes.index(label) for label in labels]]
    mean, std = (torch.tensor(values)[:, None, None] for values in (settings.mean, settings.std))
    shown, shares = [], []
    for version in range(versions):
        batch = pixels
        if settings.transform is not None:
            batch = settings.transform.batch(
                pixels, [derive_seed(settings.seed, "preview", version, row, "transform") for row in range(len(pixels))]
            )
        generator = torch.Generator().manual_seed(derive_seed(settings.seed, "preview", version))
        draws = sample_parameters(len(batch), augmentations, generator)
        inputs, mixed = (
            augment_batch(
                torch.from_numpy(np.array(batch)),
                draws,
                augmentations,
                settings.mean,
                settings.std,
                torch.from_numpy(settings.codes),
                size=settings.size,
            ),
            targets,
        )
        if settings.mixing:
            inputs, mixed = mix_batch(inputs, targets, draw_mixing(len(batch), settings.mixing, generator))
        shown.append(
            inputs.mul(std).add(mean).mul(255).round().clamp(0, 255).permute(0, 2, 3, 1).to(torch.uint8).numpy()
        )
        shares.append([{classes[i]: share for i, share in enumerate(row) if share >= 0.005} for row in mixed.tolist()])
    return np.stack(shown), shares


def write_preview(
    path: Path, pixels: NDArray[np.uint8], labels: Sequence[str], settings: PreviewSettings, versions: int = 8
) -> Path:
    """Write a PNG with one row per image: the decoded image, then `versions` augmented ones; mixed images show their
    shares.

    Parameters
    ----------
    pixels : uint8 (n, height, width, channels), e.g. those of `preview_rows`. With mixing they are the batch that is
        mixed.
    labels : (n,) their classes.
    """
    shown, shares = augmented_versions(pixels, labels, settings, versions)
    if settings.size is not None:  # as predictions see it
        pixels = center_crop(torch.from_numpy(np.array(pixels)), settings.size).numpy()
    pixels, shown = shown_colors(pixels), shown_colors(shown)
    height, width = pixels.shape[1:3]
    # Small images are enlarged by a whole number, so that their pixels are visible.
    scale = max(1, -(-_MIN_SIDE // max(height, width)))
    scale = scale if max(height, width) <= _MAX_SIDE else _MAX_SIDE / max(height, width)
    size = (round(width * scale), round(height * scale))
    lines = 2 if settings.mixing else 1
    step = (size[0] + _GAP, size[1] + lines * _LINE + _GAP)
    sheet = Image.new("RGB", (_GAP + (versions + 1) * step[0], 2 * _GAP + _LINE + len(pixels) * step[1]), "white")
    pen = ImageDraw.Draw(sheet)
    letters = max(4, step[0] // _LETTER)

    def write(left: int, top: int, text: str) -> None:
        pen.text((left, top), drawable(text if len(text) <= letters else text[: letters - 1] + "…"), "black")

    write(_GAP, _GAP // 2, "as decoded")
    write(_GAP + step[0], _GAP // 2, "augmented")
    for row in range(len(pixels)):
        top = _GAP + _LINE + _GAP // 2 + row * step[1]
        for column in range(versions + 1):
            left = _GAP + column * step[0]
            image = Image.fromarray(pixels[row] if column == 0 else shown[column - 1, row])
            sheet.paste(
                image.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS), (left, top)
            )
            if column == 0:
                named = [labels[row], settings.presets[settings.codes[row]]]
                caption = named if lines == 2 else ["  ".join(named)]
            else:
                parts = sorted(shares[column - 1][row].items(), key=lambda item: -item[1])
                caption = [f"{share:.0%} {label}" for label, share in parts] if len(parts) > 1 else []
            for line, text in enumerate(caption[:lines]):
                write(left, top + size[1] + line * _LINE, text)
    png = io.BytesIO()
    sheet.save(png, "PNG")
    return write_atomic(path, png.getvalue())
