"""The heat maps of images: arrays, a table, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ensemble.explain.assignment import OUT_OF_FOLD
from ensemble.explain.overlay import encode, overlay, side_by_side
from folds.metrics.task_names import CLASSES, COLUMN_TASKS, REGRESSION
from folds.utils.display import Displayed, Table
from folds.utils.drawing import shown_colors
from folds.utils.files import check_not_existing, make_folder, write_atomic
from folds.utils.text import counted

if TYPE_CHECKING:
    import pandas as pd

_SHOWN, _PICTURES = 6, 75_000  # pictures in a notebook, and their characters
MAX_SPREAD = 0.5  # largest standard deviation of values in 0–1


@dataclass(frozen=True, eq=False, repr=False)
class HeatMaps(Displayed):
    """What models looked at, for n images in the order in which they were named.

    Attributes
    ----------
    run, head : the run, and the head that is explained (``label``, or an attribute).
    ids : n texts.
    maps : float32 (n, height, width) in 0–1 at the input size of the model, the mean over the models of each image.
        The map of one model is 1 where it is hottest, or 0 everywhere if no place speaks for the class.
    disagreement : float32 (n, height, width), the standard deviation over the models, 0 to 0.5; NaN for one model.
    probabilities : float32 (n, classes), the mean over the models.
    classes : of the head.
    explained, predicted, true : (n,) index in `classes`: of the class that the map is for, of the largest probability,
        and of the label (−1 if it is not known).
    folds : the folds of the models of each image.
    parts : ``out of fold``, ``in no fold`` or ``seen in training`` for each image.
    pixels : uint8 (n, height, width, channels), the input of the models before normalization.
    task : what the columns of `probabilities` are; of a regression they are the numbers.
    method, place, cells : the method, the module whose features it reads, and rows and columns of these.
    """

    run: str
    head: str
    ids: tuple[str, ...]
    maps: NDArray[np.float32]
    disagreement: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    classes: tuple[str, ...]
    explained: NDArray[np.int64]
    predicted: NDArray[np.int64]
    true: NDArray[np.int64]
    folds: tuple[tuple[int, ...], ...]
    parts: tuple[str, ...]
    pixels: NDArray[np.uint8]
    method: str
    place: str
    cells: tuple[int, int]
    task: str = CLASSES

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def spread(self) -> NDArray[np.float32]:
        """Return float32 (n,) the mean disagreement where the map is at least half its maximum; NaN for one model."""
        hot = self.maps >= self.maps.max(axis=(1, 2), keepdims=True) / 2
        return np.array([values[mask].mean() for values, mask in zip(self.disagreement, hot, strict=True)], np.float32)

    def caption(self, row: int) -> tuple[str, ...]:
        """Return three lines about an image: its id, its classes with probabilities, and the models of the map."""
        name, chances = self._class, self.probabilities[row]
        predicted, explained = int(self.predicted[row]), int(self.explained[row])
        true = int(self.true[row])
        if self.task in COLUMN_TASKS:
            known = "" if predicted == explained else f", most probable {name(predicted)} ({chances[predicted]:.2f})"
            what = f"{chances[explained]:.4g}" if self.task == REGRESSION else f"({chances[explained]:.2f}){known}"
            empty = "" if self.maps[row].any() else "; no heat: no place speaks for it"
            return self.ids[row], f"heat for {name(explained)} {what}", f"{self._models(row)}, {self.parts[row]}{empty}"
        known = "true class not known" if true < 0 else f"true {name(true)} ({chances[true]:.2f})"
        facts = f"predicted {name(predicted)} ({chances[predicted]:.2f}), {known}"
        if explained != predicted:
            facts += f"; heat for {name(explained)} ({chances[explained]:.2f})"
        empty = "" if self.maps[row].any() else "; no heat: no place speaks for this class"
        return self.ids[row], facts, f"{self._models(row)}, {self.parts[row]}{empty}"

    def panels(self, row: int) -> list[tuple[str, NDArray[np.uint8]]]:
        """Return the titled pictures (height, width, 3) of an image: itself, its heat and, if known, disagreement."""
        pixels = shown_colors(self.pixels[row])
        of = self._class(int(self.explained[row]))
        found = [("input", pixels), (f"heat: {of}", overlay(pixels, self.maps[row]))]
        if len(self.folds[row]) > 1:
            found.append(("disagreement", overlay(pixels, self.disagreement[row] / MAX_SPREAD)))
        return found

    def picture(self, row: int) -> NDArray[np.uint8]:
        """Return the panels of an image side by side with its caption, uint8 (height, width, 3)."""
        return side_by_side(self.panels(row), self.caption(row))

    def save(self, folder: str | Path, force: bool = False) -> tuple[Path, ...]:
        """Write one PNG per image (`picture`) into a folder; return the files.

        Raises
        ------
        EnsembleError : a file exists and `force` is not set; nothing is written then.
        """
        paths = [Path(folder) / name for name in self._file_names()]
        for path in paths:
            check_not_existing(path, "the file", force)
        make_folder(Path(folder))
        for row, path in enumerate(paths):
            write_atomic(path, encode(self.picture(row)))
        return tuple(paths)

    def frame(self) -> pd.DataFrame:
        """Return one row per image: id, classes, probabilities, folds, part, spread."""
        import pandas as pd

        return pd.DataFrame(self._records())

    def to_dict(self) -> dict[str, Any]:
        """Return the plain values that ``ensemble explain --json`` prints."""
        return {
            "run": self.run,
            "head": self.head,
            "method": self.method,
            "place": self.place,
            "cells": list(self.cells),
            "classes": list(self.classes),
            "images": self._records(),
        }

    def display_table(self) -> Table:
        """Return one row per image, and how the maps were made."""
        rows: list[list[object]] = []
        for row, one in enumerate(self._records()):
            spread = "" if one["spread"] is None else f"{one['spread']:.2f}"
            folds = ",".join(map(str, self.folds[row]))
            if self.task in COLUMN_TASKS:
                rows.append([one["id"], one["explained"], f"{one['value']:.4g}", folds, spread])
                continue
            true = "" if one["true"] is None else one["true"]
            rows.append(
                [one["id"], true, one["predicted"], f"{one['probability']:.2f}", one["explained"], folds, spread]
            )
        kinds = [f"{self.parts.count(part):,} {part}" for part in dict.fromkeys(self.parts)]
        notes = [
            f"{self.method} on {self.place}: {self.cells[0]} × {self.cells[1]} cells, {', '.join(kinds)}",
            "spread: standard deviation over the fold models where the mean map is hot, 0 to 0.5",
        ]
        what = counted(len(self), "heat map")
        title = f"{what} of {self.run}" + ("" if self.head == "label" else f", head {self.head}")
        header = ["image", "true", "predicted", "p", "heat for", "folds", "spread"]
        if self.task in COLUMN_TASKS:
            header = ["image", "heat for", "number" if self.task == REGRESSION else "p", "folds", "spread"]
        notes = notes[: 1 if np.isnan(self.spread).all() else 2]
        return Table(title, header, rows, notes, left=2 if self.task in COLUMN_TASKS else 3)

    def display_parts(self) -> Sequence[str]:
        """Return the pictures of the first images."""
        from PIL import Image

        from folds.utils import html  # here, because only notebooks need it
        from folds.utils.drawing import picture_source

        parts, count = [], min(len(self), _SHOWN)
        for row in range(count):
            source = picture_source(Image.fromarray(np.ascontiguousarray(self.picture(row))), _PICTURES // count)
            parts.append(html.image(source, f"heat map of {self.ids[row]}"))
        if len(self) > _SHOWN:
            parts.append(html.paragraph(f"… and {len(self) - _SHOWN:,} more: .save(folder) writes all", "note"))
        return parts

    def _records(self) -> list[dict[str, Any]]:
        spread = self.spread
        return [
            {
                "id": self.ids[row],
                **self._answer(row),
                "folds": list(self.folds[row]),
                "part": self.parts[row],
                "spread": None if np.isnan(spread[row]) else float(spread[row]),
                "empty": not bool(self.maps[row].any()),
            }
            for row in range(len(self))
        ]

    def _answer(self, row: int) -> dict[str, Any]:
        """Return what the models predict for an image, and what its map is for."""
        explained = int(self.explained[row])
        if self.task in COLUMN_TASKS:
            return {"explained": self._class(explained), "value": float(self.probabilities[row, explained])}
        return {
            "true": None if self.true[row] < 0 else self._class(int(self.true[row])),
            "predicted": self._class(int(self.predicted[row])),
            "probability": float(self.probabilities[row, self.predicted[row]]),
            "explained": self._class(explained),
            "probability_explained": float(self.probabilities[row, explained]),
        }

    def _class(self, code: int) -> str:
        return self.classes[code]

    def _models(self, row: int) -> str:
        folds = self.folds[row]
        if len(folds) == 1:
            return f"model of fold {folds[0]}" if self.parts[row] == OUT_OF_FOLD else f"one model (fold {folds[0]})"
        return f"mean of the models of {len(folds)} folds"

    def _file_names(self) -> list[str]:
        """Return a file name for each image: its number, and the safe part of its id."""
        digits = len(str(len(self)))
        return [f"{row + 1:0{digits}d}-{_safe(name)}.png" for row, name in enumerate(self.ids)]


def _safe(name: str) -> str:
    stem = Path(name.replace("\\", "/")).with_suffix("").as_posix()[-60:]
    return "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in stem).strip("_") or "image"


def join(parts: Sequence[NDArray[Any]], order: NDArray[np.int64]) -> NDArray[Any]:
    """Return arrays of groups of images joined, in the order of the user; `order` holds the place of each row."""
    joined = np.concatenate(parts)
    result = np.empty_like(joined)
    result[order] = joined
    return result
