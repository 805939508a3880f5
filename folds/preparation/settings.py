"""What is to be done to every image, and what the result depends on besides the images."""

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

VERSION = 1  # raised when the same settings would give other images
FALLBACKS = ("center", "typical", "keep")


@dataclass(frozen=True)
class Preparation:
    """What is done to every image.

    Attributes
    ----------
    detector : what finds the faces to cut to; None: images are not cut.
    margin : what is added on each side of a face, as a share of its box.
    aspect : width / height of what is cut out.
    choose : which face is meant where there are several, a name of `boxes.CHOICES`.
    fallback : where no face is found, ``center`` (the largest part of that aspect in the middle), ``typical`` (where
        the faces of the other images
        are) or ``keep`` (the whole image).
    background : a U²-Net in an ONNX file; None: the background stays.
    fill : what the background becomes, a name of `background.FILLS`.
    window : for grey images of more than 8 bits, as in `ImageSettings`.

    Raises
    ------
    UsageError : nothing to do, an unknown name, an impossible value.
    """

    detector: DetectorSettings | None = None
    margin: float = 0.3
    aspect: float = 1.0
    choose: str = "largest"
    fallback: str = "center"
    background: Path | None = None
    fill: str = "grey"
    window: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.detector is None and self.background is None:
            raise UsageError(
                "nothing to do: neither --crop nor --background is given",
                hint="--crop faces, --background MODEL.onnx, or both",
            )
        for kind, name, known in (
            ("--choose", self.choose, list(CHOICES)),
            ("--fallback", self.fallback, list(FALLBACKS)),
            ("--fill", self.fill, list(FILLS)),
        ):
            if name not in known:
                raise unknown_name(kind, name, known)
        if not 0 <= self.margin <= 5:
            raise UsageError(
                f"--margin must be from 0 to 5, found {self.margin:g}",
                hint="it is a share of the face on each side: --margin 0.3",
            )

    def record(self) -> dict[str, Any]:
        """Return what the images depend on besides the originals: settings, versions, hashes of models."""
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
                    hint="--background names a U²-Net in ONNX; nothing is downloaded",
                )
            version = import_onnxruntime().__version__
            record["background"] = {
                "model_sha": sha256_file(self.background),
                "fill": self.fill,
                "onnxruntime": version,
            }
        return record
