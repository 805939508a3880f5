"""Make augmented images to look at, by the very code that training uses."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from folds.augmentation.batch import augment_batch, sample_parameters
from folds.augmentation.custom import Transform
from folds.augmentation.mixup import MixupCutmix, draw_mixing, mix_batch
from folds.augmentation.presets import preset
from folds.utils.drawing import drawable
from folds.utils.files import derive_seed, write_atomic
from folds.utils.text import sort_classes

MOST = 8  # images on a sheet, one a row
_LEAST_SIDE, _MOST_SIDE, _GAP, _LINE = 112, 224, 8, 13  # pixels
_LETTER = 6  # pixels, of the built-in font


@dataclass(frozen=True)
class PreviewSettings:
    """How the images of a sheet are augmented.

    Attributes
    ----------
    presets : the presets in use.
    codes : (n,) the position in `presets` of each image's own.
    erase : the probability of an erased rectangle; None: the preset's.
    mixing, transform : as in training.
    mean, std : what the model's inputs are normalised by; the mean is the colour of erased rectangles.
    seed : of the sheet.
    """

    presets: tuple[str, ...]
    codes: NDArray[np.int64]
    erase: float | None = None
    mixing: MixupCutmix = field(default_factory=MixupCutmix)
    transform: Transform | None = None
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    seed: int = 0


def preview_rows(labels: Sequence[str], codes: NDArray[np.int64], seed: int = 0, most: int = MOST) -> list[int]:
    """Return which images to show: one a class, of at most `most` classes, every preset among them where that is
    possible.

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
    # In turn from each preset, so that none is crowded out by one that has many classes.
    queues = [
        sorted((order[label], row) for (code, label), row in first.items() if code == each)
        for each in sorted({code for code, _ in first})
    ]
    turns = [queue[i] for i in range(max(map(len, queues), default=0)) for queue in queues if i < len(queue)]
    chosen: dict[int, int] = {}
    for position, row in turns:
        if len(chosen) < most:
            chosen.setdefault(position, row)
    return [row for _, row in sorted(chosen.items())]


def augmented_versions(
    pixels: NDArray[np.uint8], labels: Sequence[str], how: PreviewSettings, versions: int
) -> tuple[NDArray[np.uint8], list[list[dict[str, float]]]]:
    """Return each image `versions` times as training would see it, but for the normalisation, which is undone.

    Returns
    -------
    uint8 (versions, n, height, width, 3), and for each of them the shares of the classes that it is a mixture of, from
    half a hundredth on.
    """
    ways = tuple(preset(name, how.erase) for name in how.presets)
    classes = sort_classes(labels)
    targets = torch.eye(len(classes))[[classes.index(label) for label in labels]]
    mean, std = (torch.tensor(values)[:, None, None] for values in (how.mean, how.std))
    shown, shares = [], []
    for version in range(versions):
        batch = pixels
        if how.transform is not None:
            batch = how.transform.batch(
                pixels, [derive_seed(how.seed, "preview", version, row, "transform") for row in range(len(pixels))]
            )
        generator = torch.Generator().manual_seed(derive_seed(how.seed, "preview", version))
        draws = sample_parameters(len(batch), ways, generator)
        inputs, mixed = (
            augment_batch(
                torch.from_numpy(np.array(batch)), draws, ways, how.mean, how.std, torch.from_numpy(how.codes)
            ),
            targets,
        )
        if how.mixing:
            inputs, mixed = mix_batch(inputs, targets, draw_mixing(len(batch), how.mixing, generator))
        shown.append(
            inputs.mul(std).add(mean).mul(255).round().clamp(0, 255).permute(0, 2, 3, 1).to(torch.uint8).numpy()
        )
        shares.append([{classes[i]: share for i, share in enumerate(row) if share >= 0.005} for row in mixed.tolist()])
    return np.stack(shown), shares


def write_preview(
    path: Path, pixels: NDArray[np.uint8], labels: Sequence[str], how: PreviewSettings, versions: int = 8
) -> Path:
    """Write a PNG: a row an image, first as it is decoded, then `versions` times augmented; mixed ones say of what.

    Parameters
    ----------
    pixels : uint8 (n, height, width, 3), e.g. those of `preview_rows`. With mixing they are the batch that is mixed.
    labels : (n,) their classes.
    """
    shown, shares = augmented_versions(pixels, labels, how, versions)
    height, width = pixels.shape[1:3]
    # Small images are enlarged by a whole number, so that their pixels are seen.
    scale = max(1, -(-_LEAST_SIDE // max(height, width)))
    scale = scale if max(height, width) <= _MOST_SIDE else _MOST_SIDE / max(height, width)
    size = (round(width * scale), round(height * scale))
    lines = 2 if how.mixing else 1
    step = (size[0] + _GAP, size[1] + lines * _LINE + _GAP)
    sheet = Image.new("RGB", (_GAP + (versions + 1) * step[0], 2 * _GAP + _LINE + len(pixels) * step[1]), "white")
    pen = ImageDraw.Draw(sheet)
    letters = max(4, step[0] // _LETTER)

    def write(left: int, top: int, text: str) -> None:
        pen.text((left, top), drawable(text if len(text) <= letters else text[: letters - 1] + "…"), "black")

    write(_GAP, _GAP // 2, "as decoded")
    write(_GAP + step[0], _GAP // 2, "as training sees it")
    for row in range(len(pixels)):
        top = _GAP + _LINE + _GAP // 2 + row * step[1]
        for column in range(versions + 1):
            left = _GAP + column * step[0]
            picture = Image.fromarray(pixels[row] if column == 0 else shown[column - 1, row])
            sheet.paste(
                picture.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS), (left, top)
            )
            if column == 0:
                named = [labels[row], how.presets[how.codes[row]]]
                caption = named if lines == 2 else ["  ".join(named)]
            else:
                parts = sorted(shares[column - 1][row].items(), key=lambda item: -item[1])
                caption = [f"{share:.0%} {label}" for label, share in parts] if len(parts) > 1 else []
            for line, text in enumerate(caption[:lines]):
                write(left, top + size[1] + line * _LINE, text)
    png = io.BytesIO()
    sheet.save(png, "PNG")
    return write_atomic(path, png.getvalue())
