"""One prepared image, what the tables say of it, and what all of them together say about the detector."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from folds.preparation.background import NOTHING
from folds.preparation.boxes import Box, Window
from folds.preparation.output import SOURCE


@dataclass(frozen=True)
class PreparedImage:
    """One image and what was made of it.

    Attributes
    ----------
    part : ``train`` or ``test``.
    source, made : the original, and the new image's name in the folder.
    label : its class, None where unknown.
    looked_for : whether a face was looked for.
    box : the face; None where none was found, or none was looked for.
    crop : the part of the upright original that was kept.
    foreground : the share that is not background; None where it was not looked for.
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
        """Return a face was looked for and not found."""
        return self.looked_for and self.box is None

    def cells(self, folder: Path) -> dict[str, str]:
        """Return what the tables say of it besides the sample's own columns; `folder` is the tables'."""
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


def count(images: Sequence[PreparedImage]) -> dict[str, Any]:
    """Return how many images there are, without a face and without a foreground, by part; None where that was not
    looked for.
    """
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


def uneven_misses(images: Sequence[PreparedImage], gap: float = 0.1, fewest: int = 20) -> list[str]:
    """Return a warning where faces are missed in some classes much more than in others: then the crop itself tells the
    classes apart.

    Parameters
    ----------
    gap : the difference of the shares missed that is worth a warning.
    fewest : images a class must have for its share to say anything.
    """
    shares: dict[str, float] = {}
    for label in dict.fromkeys(image.label for image in images if image.part == "train" and image.label is not None):
        rows = [image for image in images if image.part == "train" and image.label == label]
        if len(rows) >= fewest:
            shares[label] = sum(image.missed for image in rows) / len(rows)
    if not shares or max(shares.values()) - min(shares.values()) <= gap:
        return []
    most, least = max(shares, key=lambda label: shares[label]), min(shares, key=lambda label: shares[label])
    return [
        f"faces are missed in {shares[most]:.0%} of the images of class {most} and in {shares[least]:.0%} of class "
        f"{least}: a model could tell them "
        "by how they are cut; a lower --min-confidence misses fewer, --fallback typical cuts misses as the others"
    ]
