"""The sheet of the worst cases: who comes first, and that box, crop and result are there to be seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from folds.preparation.boxes import Box
from folds.preparation.contact_sheet import MAX_CASES, worst_cases, write_crop_sheet
from folds.preparation.results import PreparedImage


def image(id: str, confidence: float | None, foreground: float | None = None, looked_for: bool = True) -> PreparedImage:
    box = None if confidence is None else Box(20, 20, 40, 40, confidence)
    return PreparedImage("train", id, "cat", Path("x.png"), "x.png", looked_for, box, (10, 10, 70, 70), foreground)


def test_misses_come_first_then_the_least_certain() -> None:
    rows = [image("sure", 0.9), image("missed", None), image("doubtful", 0.5), image("missed too", None)]
    assert [row.id for row in worst_cases(rows)] == ["missed", "missed too", "doubtful", "sure"]
    assert len(worst_cases(rows * 100)) == MAX_CASES


def test_without_faces_nothing_and_all_come_before_a_half() -> None:
    rows = [image("half", None, 0.5, False), image("all", None, 0.99, False), image("nothing", None, 0.0, False)]
    assert [row.id for row in worst_cases(rows)] == ["nothing", "all", "half"]


def test_the_sheet_shows_box_crop_and_result(tmp_path: Path) -> None:
    Image.new("RGB", (100, 120), (90, 90, 90)).save(tmp_path / "x.png")
    Image.new("RGB", (60, 60), (0, 160, 0)).save(tmp_path / "made.png")
    rows = [
        PreparedImage(
            "train", f"täst/{'long' * 30}/{at}", "…", tmp_path / "x.png", "made.png", True, box, (10, 10, 70, 70), 0.4
        )
        for at, box in enumerate([None, Box(20, 20, 40, 40, 0.6), Box(-10, 90, 200, 200, 0.7)])
    ]
    pixels = np.asarray(Image.open(write_crop_sheet(tmp_path, rows)).convert("RGB")).reshape(-1, 3).tolist()
    seen = set(map(tuple, pixels))
    assert (0, 160, 0) in seen
    assert any(r > 200 and g < 100 and b < 100 for r, g, b in seen), "the face's box is red"
    assert any(r > 200 and g > 180 and b < 80 for r, g, b in seen), "what was cut out is yellow"
