"""Describe prepared images: columns for the tables, counts, and warnings about the detector."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from folds.metrics.task_names import CLASSES, COLUMN_TASKS, MULTILABEL
from folds.predictions.label_columns import SEPARATOR, UNKNOWN
from folds.preparation.background import NOTHING
from folds.preparation.boxes import Box, Window
from folds.preparation.output import SOURCE

_ADVICE = (
    "a model could learn the label from the crop; lower `min_confidence` to miss fewer, or use `fallback=typical` to "
    "crop images without a face like the others"
)


@dataclass(frozen=True)
class PreparedImage:
    """A prepared image.

    Attributes
    ----------
    part : ``train`` or ``test``.
    source, made : path of the original, and name of the new image in the folder.
    label : class, or the text of several labels or numbers; None if unknown.
    looked_for : whether face detection was run.
    box : the face; None if none was found, or detection was not run.
    crop : part of the upright original that was kept.
    foreground : share of the image that is foreground; None if the background was not segmented.
    """

    part: str
    id: str
    label: str | None
    source: Path
    made: str
    looked_for: bool
    box: Box | None
    crop: Window
    foreground: float | None

    @property
    def missed(self) -> bool:
        """Return whether face detection was run and found no face."""
        return self.looked_for and self.box is None

    def cells(self, folder: Path) -> dict[str, str]:
        """Return the additional columns of the image in the tables; `folder` is the folder of the tables."""
        cells = {SOURCE: os.path.relpath(self.source, folder.absolute())}
        if self.looked_for:
            box = self.box
            cells["face_found"] = "no" if box is None else "yes"
            cells["face_confidence"] = "" if box is None else f"{box.confidence:.4f}"
            cells["face_box"] = "" if box is None else f"{box.left} {box.top} {box.width} {box.height}"
            cells["face_crop"] = " ".join(map(str, self.crop))
        if self.foreground is not None:
            cells["foreground_share"] = f"{self.foreground:.4f}"
        return cells


def by_label(
    images: Sequence[PreparedImage], classes: Sequence[str], task: str = CLASSES
) -> dict[str, list[PreparedImage]]:
    """Return class, or label, → the training images with it; {} for numbers.

    Parameters
    ----------
    classes : the declared classes, or the names of several labels.
    task : one of `folds.metrics.task_names.ALL_TASKS`.
    """
    train = [image for image in images if image.part == "train" and image.label is not None]
    if task == MULTILABEL:
        return {name: [image for image in train if name in _names(image)] for name in classes}
    return {} if task in COLUMN_TASKS else {name: [image for image in train if image.label == name] for name in classes}


def _names(image: PreparedImage) -> list[str]:
    return (image.label or "").split(SEPARATOR)


def count(images: Sequence[PreparedImage]) -> dict[str, Any]:
    """Return by part the numbers of images, of images without a face, and without foreground; None if not examined."""
    counts: dict[str, Any] = {}
    for part in dict.fromkeys(image.part for image in images):
        rows = [image for image in images if image.part == part]
        shares = [image.foreground for image in rows if image.foreground is not None]
        counts[part] = {
            "images": len(rows),
            "without_face": sum(image.missed for image in rows) if rows[0].looked_for else None,
            "without_foreground": sum(share < NOTHING for share in shares) if shares else None,
        }
    return counts


def uneven_label_misses(
    images: Sequence[PreparedImage], labels: Sequence[str], gap: float = 0.1, fewest: int = 20
) -> list[str]:
    """Return a warning for the label that most depends on whether a face is found, because the crop then reveals it.

    Parameters
    ----------
    labels : names of several labels.
    gap, fewest : as in `uneven_misses`, of the images with a label and those without it.
    """
    found: list[tuple[float, float, str]] = []
    train = [image for image in images if image.part == "train" and image.label]
    for label in labels:
        has = [image for image in train if label in _names(image)]
        lacks = [image for image in train if not {label, UNKNOWN + label} & set(_names(image))]
        if min(len(has), len(lacks)) >= fewest:
            shares = [sum(image.missed for image in part) / len(part) for part in (has, lacks)]
            found.append((shares[0], shares[1], label))
    worst = max(found, key=lambda one: abs(one[0] - one[1]), default=None)
    if worst is None or abs(worst[0] - worst[1]) <= gap:
        return []
    return [
        f"faces are missed in {worst[0]:.0%} of the images with the label {worst[2]} and in {worst[1]:.0%} of those "
        f"without it: {_ADVICE}"
    ]


def uneven_misses(images: Sequence[PreparedImage], gap: float = 0.1, fewest: int = 20) -> list[str]:
    """Return a warning if faces are missed much more often in some classes, because the crop then reveals the class.

    Parameters
    ----------
    gap : smallest difference between the shares of missed faces for a warning.
    fewest : smallest number of images of a class to be compared.
    """
    shares: dict[str, float] = {}
    for label in dict.fromkeys(image.label for image in images if image.part == "train" and image.label is not None):
        rows = [image for image in images if image.part == "train" and image.label == label]
        if len(rows) >= fewest:
            shares[label] = sum(image.missed for image in rows) / len(rows)
    if not shares or max(shares.values()) - min(shares.values()) <= gap:
        return []
    highest, lowest = max(shares, key=lambda label: shares[label]), min(shares, key=lambda label: shares[label])
    return [
        f"faces are missed in {shares[highest]:.0%} of the images of class {highest} and in {shares[lowest]:.0%} of "
        f"class {lowest}: {_ADVICE.replace('label', 'class')}"
    ]
