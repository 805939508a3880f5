"""Define the settings of a preparation, and the record of all that determines its results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL

from folds.errors import EnsembleError, UsageError, unknown_name
from folds.images.decode import DECODER_VERSION
from folds.preparation.background import FILLS, import_onnxruntime
from folds.preparation.boxes import CHOICES
from folds.preparation.detectors import DetectorSettings, describe_detector
from folds.utils.files import sha256_file

VERSION = 1  # increased when the same settings give other images
FALLBACKS = ("center", "typical", "keep")


@dataclass(frozen=True)
class Preparation:
    """Settings of a preparation.

    Attributes
    ----------
    detector : face detector for cropping; None for no cropping.
    margin : margin added on each side of a face, as a fraction of its box, 0 to 5.
    aspect : width / height of the crop.
    choose : rule to choose among several faces, a key of `boxes.CHOICES`.
    fallback : crop of an image without a face: ``center`` (the largest part of that aspect in the center), ``typical``
        (the typical position of faces in the other images) or ``keep`` (the whole image).
    background : U²-Net in an ONNX file; None to keep the background.
    fill : new background, a key of `background.FILLS`.
    window, max_pixels : as in `ImageSettings`.

    Raises
    ------
    UsageError : nothing to do, an unknown name, or an invalid value.
    """

    detector: DetectorSettings | None = None
    margin: float = 0.3
    aspect: float = 1.0
    choose: str = "largest"
    fallback: str = "center"
    background: Path | None = None
    fill: str = "grey"
    window: tuple[float, float] | None = None
    max_pixels: int | None = None

    def __post_init__(self) -> None:
        if self.detector is None and self.background is None:
            raise UsageError(
                "nothing to do: neither `crop` nor `background` is given",
                hint="give `crop=faces`, `background=MODEL.onnx`, or both",
            )
        for kind, name, known in (
            ("`choose`", self.choose, list(CHOICES)),
            ("`fallback`", self.fallback, list(FALLBACKS)),
            ("`fill`", self.fill, list(FILLS)),
        ):
            if name not in known:
                raise unknown_name(kind, name, known)
        if not 0 <= self.margin <= 5:
            raise UsageError(
                f"`margin` must be from 0 to 5, found {self.margin:g}",
                hint="it is a fraction of the face, added on each side: `margin=0.3`",
            )

    def record(self) -> dict[str, Any]:
        """Return all that determines the images besides the originals: settings, versions, hashes of models.

        Raises
        ------
        EnsembleError : a model file or a package is missing.
        """
        record: dict[str, Any] = {
            "version": VERSION,
            "decoder": DECODER_VERSION,
            "pillow": PIL.__version__,
            "crop": None,
            "background": None,
        }
        record["window"] = None if self.window is None else list(self.window)
        if self.detector is not None:
            crop = {
                "margin": self.margin,
                "aspect": round(self.aspect, 6),
                "choose": self.choose,
                "fallback": self.fallback,
            }
            record["crop"] = {"detector": describe_detector(self.detector), **crop}
        if self.background is not None:
            if not self.background.is_file():
                raise EnsembleError(
                    f"there is no model file {self.background}",
                    hint="`background` is a U²-Net in an ONNX file; nothing is downloaded",
                )
            version = import_onnxruntime().__version__
            record["background"] = {
                "model_sha": sha256_file(self.background),
                "fill": self.fill,
                "onnxruntime": version,
            }
        return record
