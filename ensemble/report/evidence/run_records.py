"""Read what runs recorded about themselves, and with which images they were trained."""

from __future__ import annotations

import csv
import glob
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ensemble.report.evidence.evidence import RunRecord
from folds.errors import UsageError
from folds.images.settings import parse_channels, parse_frame
from folds.predictions.file_names import FOLD_DONE, FOLD_HISTORY, RUN_CONFIG
from folds.utils.files import json_or_nothing, read_json
from folds.utils.toml import read_toml


def record_of(name: str, folder: Path) -> RunRecord | None:
    """Return what a run recorded; None if its config.toml is damaged."""
    try:
        config = read_toml(folder / RUN_CONFIG)
    except (OSError, ValueError):
        return None
    history, done = {}, {}
    for inside in sorted(folder.glob("fold*")):
        number = inside.name.removeprefix("fold")
        if not number.isdecimal():
            continue
        if (inside / FOLD_HISTORY).is_file():
            history[int(number)] = _history(inside / FOLD_HISTORY)
        if (inside / FOLD_DONE).is_file():
            found = read_json(inside / FOLD_DONE)
            if isinstance(found, dict):
                done[int(number)] = found
    k = config.get("k")
    environment, folds = (json_or_nothing(folder / file) for file in ("environment.json", "folds.json"))
    tested = [
        int(found[1])
        for path in folder.parent.glob(f"{glob.escape(name)}.fold*.test.npy")
        if (found := re.fullmatch(r"\.fold([0-9]{1,9})\.test\.npy", path.name[len(name) :]))
    ]
    return RunRecord(
        name,
        folder,
        k if type(k) is int else len(done),
        dict(sorted(history.items())),
        dict(sorted(done.items())),
        config,
        environment,
        folds,
        tuple(sorted(tested)),
    )


def _history(path: Path) -> list[dict[str, float]]:
    """Return one record per epoch; numbers that cannot be read are NaN."""

    def number(text: str | None) -> float:
        try:
            return float(text or "nan")
        except ValueError:
            return float("nan")

    with open(path, encoding="utf-8", errors="replace", newline="") as file:
        return [{name: number(text) for name, text in row.items() if name} for row in csv.DictReader(file)]


def window_of(records: Mapping[str, RunRecord]) -> tuple[tuple[float, float] | None, int | None]:
    """Return the window and the largest number of pixels that the runs read images with: of each the first given."""
    limits = [one.config.get("max_pixels") for one in records.values()]
    limit = next((one for one in limits if type(one) is int), None)
    for one in records.values():
        window = one.config.get("window")
        if isinstance(window, str) and window.count(",") == 1:
            try:
                low, high = map(float, window.split(","))
            except ValueError:
                continue
            if low < high:
                return (low, high), limit
    return None, limit


def channels_of(records: Mapping[str, RunRecord]) -> tuple[tuple[int, ...], int | str | None]:
    """Return the channels and the frame that the runs read of each file: of each the first given."""
    channels: tuple[int, ...] = ()
    frame: int | str | None = None
    for one in records.values():
        listed, number = one.config.get("channels"), one.config.get("frame")
        with suppress(UsageError):
            if not channels and isinstance(listed, list) and all(isinstance(text, str) for text in listed):
                channels = parse_channels(",".join(listed))
            if frame is None and isinstance(number, str):
                frame = parse_frame(number)
    return channels, frame
