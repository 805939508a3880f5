"""Write a contact sheet of the worst cases of a preparation: images without a face first, then the least confident.

Each case shows original and result side by side, with the box drawn into the original and cases sorted. The sheet of
the audit shows the files of a case unchanged.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from folds.images.content_index import read_content
from folds.preparation.originals import read_original
from folds.preparation.output import SHEET
from folds.preparation.results import PreparedImage
from folds.utils.files import write_atomic

MAX_CASES = 48  # cases on a sheet
_SIDE, _GAP, _LINE, _ACROSS = 144, 8, 13, 4  # three lengths in pixels; cases per row
_LETTERS = 46
_FACE, _CROP = (230, 40, 40), (250, 210, 0)


def worst_cases(images: Sequence[PreparedImage], max_cases: int = MAX_CASES) -> list[PreparedImage]:
    """Return the images to inspect, worst first: without a face, then by increasing confidence.

    Ties, and images without face detection, are sorted by foreground share; shares near 0 and near 1 come first.
    """

    def rank(image: PreparedImage) -> tuple[float, float]:
        confidence = -1.0 if image.box is None else image.box.confidence
        share = 0.5 if image.foreground is None else image.foreground
        return confidence, min(share, 1 - share)

    return sorted(images, key=rank)[:max_cases]


def write_crop_sheet(
    out: Path,
    images: Sequence[PreparedImage],
    window: tuple[float, float] | None = None,
    max_pixels: int | None = None,
    kind: str = "class",
) -> Path:
    """Write the sheet, a PNG, into the folder of a prepared set; return its path.

    The box of the face is red, the crop yellow, and the result next to it. `kind` is the word for what an image has:
    class, or label.
    """
    cases = worst_cases(images)
    width, height = 2 * (_SIDE + 2) + 2 * _GAP, _SIDE + 2 * _LINE + 2 * _GAP
    across = min(_ACROSS, len(cases))
    sheet = Image.new("RGB", (_GAP + across * width, _GAP + -(-len(cases) // across) * height), "white")
    pen = ImageDraw.Draw(sheet)
    for number, image in enumerate(cases):
        left, top = _GAP + number % across * width, _GAP + number // across * height
        sheet.paste(_original(image, window, max_pixels), (left, top))
        with Image.open(io.BytesIO(read_content(out / image.made).data)) as made:
            sheet.paste(_small(made.convert("RGB")), (left + _SIDE + 4, top))
        for line, text in enumerate((_caption(image, kind), _end(image.id))):
            pen.text((left, top + _SIDE + line * _LINE + 2), _plain(text), "black")
    png = io.BytesIO()
    sheet.save(png, "PNG")
    return write_atomic(out / SHEET, png.getvalue())


def _original(image: PreparedImage, window: tuple[float, float] | None, max_pixels: int | None) -> Image.Image:
    picture = Image.fromarray(np.array(read_original(image.source, window, max_pixels)[0]))
    pen = ImageDraw.Draw(picture)
    thick = max(1, round(3 * max(picture.size) / _SIDE))
    left, top, right, bottom = image.crop
    if image.crop != (0, 0, *picture.size):
        pen.rectangle((left, top, right - 1, bottom - 1), outline=_CROP, width=thick)
    if image.box is not None:
        box = image.box
        pen.rectangle(
            (box.left, box.top, box.left + box.width - 1, box.top + box.height - 1), outline=_FACE, width=thick
        )
    return _small(picture)


def _small(picture: Image.Image) -> Image.Image:
    scale = _SIDE / max(picture.size)
    return picture.resize(
        (max(1, round(picture.width * scale)), max(1, round(picture.height * scale))), Image.Resampling.BICUBIC
    )


def _caption(image: PreparedImage, kind: str) -> str:
    parts = [image.part]
    if image.looked_for:
        parts.append("no face" if image.box is None else f"face {image.box.confidence:.2f}")
    if image.label is not None:
        parts.append(f"{kind} {image.label}")
    if image.foreground is not None:
        parts.append(f"foreground {image.foreground:.0%}")
    return ", ".join(parts)


def _end(id: str) -> str:
    return id if len(id) <= _LETTERS else "…" + id[1 - _LETTERS :]  # files differ at the end of their names


def _plain(text: str) -> str:
    # The built-in font of Pillow without FreeType has only Latin-1 characters.
    return text.replace("…", "...").encode("latin-1", "replace").decode("latin-1")
