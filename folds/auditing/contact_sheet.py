"""Write a contact sheet with the images of the audit's findings side by side, for visual inspection."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from folds.auditing.checks import WARNING, Finding, SampleRef
from folds.images.content_index import UnreadableImageError, read_content
from folds.images.decode import decode_image
from folds.images.settings import ImageSettings
from folds.utils.drawing import drawable
from folds.utils.files import write_atomic

MAX_CASES = 60  # cases on a sheet
_SIDE, _GAP, _LINE = 224, 8, 13  # pixels
_ACROSS, _WIDEST = 4, 6  # images shown per set; images per row of the sheet
_LETTERS = 36  # characters of the built-in font per image width


def write_sheet(
    path: Path,
    findings: Sequence[Finding],
    file_of: Callable[[SampleRef], Path | None],
    window: tuple[float, float] | None = None,
    max_pixels: int | None = None,
) -> int:
    """Write a PNG with the images of each case of each warning; return the number of cases on it.

    Parameters
    ----------
    file_of : returns the image file of a row, or None if the table has no paths.
    window, max_pixels : as in `folds.images.settings.ImageSettings`.

    Returns
    -------
    number of cases, at most `MAX_CASES`; 0, and no file, if no finding has images to compare.
    """
    cases = [
        (finding, case)
        for finding in findings
        if finding.severity == WARNING
        for case in finding.cases
        if len(case.rows) > 1
    ][:MAX_CASES]
    if not cases:
        return 0
    height = _SIDE + 5 * _LINE + _GAP
    across = min(_ACROSS, max(len(case.rows) for _, case in cases))
    beside = min(max(1, _WIDEST // across), len(cases))  # cases per row
    width = across * (_SIDE + _GAP) + _GAP
    settings = ImageSettings(_SIDE, _SIDE, "letterbox", window, max_pixels, preview=True)
    sheet = Image.new("RGB", (_GAP + beside * width, _GAP + -(-len(cases) // beside) * height), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (finding, case) in enumerate(cases):
        top, start = _GAP + number // beside * height, _GAP + number % beside * width
        title = f"{finding.kind} {case.detail}" + (
            f" ({len(case.rows) - across} more)" if len(case.rows) > across else ""
        )
        pen.text((start, top), drawable(title), "black")
        for column, row in enumerate(case.rows[:across]):
            left = start + column * (_SIDE + _GAP)
            picture = _picture(file_of(row), settings)
            if picture is not None:
                sheet.paste(picture, (left, top + _LINE + 2))
            for line, text in enumerate(_caption(row)):
                pen.text((left, top + _SIDE + (line + 1) * _LINE + 2), drawable(text), "black")
    png = io.BytesIO()
    sheet.save(png, "PNG")
    write_atomic(path, png.getvalue())
    return len(cases)


def _picture(path: Path | None, settings: ImageSettings) -> Image.Image | None:
    try:
        return None if path is None else Image.fromarray(decode_image(read_content(path).data, settings).pixels)
    except UnreadableImageError:
        return None


def _caption(row: SampleRef) -> list[str]:
    side = "test" if row.part == "test" else "" if row.fold is None else f"fold {row.fold}"
    name = row.id if len(row.id) <= _LETTERS else "…" + row.id[1 - _LETTERS :]  # files differ at the end of their names
    return [name, f"person {row.person or 'unknown'}"[:_LETTERS], f"{row.label or 'no label'}  {side}"[:_LETTERS]]
