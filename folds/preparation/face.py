"""`prepare` of the face: images in, a new set of images cut to faces or without background out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from folds.data.read_table import as_dataset
from folds.data.sources import LoadedData
from folds.data.table import DataSpec
from folds.errors import UsageError, unknown_name
from folds.images.settings import parse_window
from folds.preparation.boxes import parse_aspect
from folds.preparation.detectors import DetectorSettings
from folds.preparation.pipeline import Prepared, check_output
from folds.preparation.pipeline import prepare as make_set
from folds.preparation.settings import Preparation
from folds.utils.bars import log_in_notebook, progress_of
from folds.utils.progress import Progress

if TYPE_CHECKING:
    from folds.data.read_table import Data

CROPS = ("faces",)


def prepare(
    data: Data | None = None,
    output: str | Path = "prepared",
    *,
    crop: str | None = None,
    detector: str = "opencv",
    detector_model: str | Path | None = None,
    min_confidence: float = 0.5,
    min_face: float = 0.25,
    choose: str = "largest",
    margin: float = 0.3,
    aspect: str = "1:1",
    fallback: str = "center",
    background: str | Path | None = None,
    fill: str = "grey",
    window: str | tuple[float, float] | None = None,
    jobs: int | None = None,
    resume: bool = True,
    force: bool = False,
    root: str | Path = ".",
    progress: bool | Progress = True,
) -> Prepared:
    """Make a new image set: every image cut to the face, its background replaced, or both. As ``ensemble prepare``.

    Originals are never touched. ``Prepared.folder`` has ``index.csv`` (and ``test.csv``), which `read_table` takes.

    Parameters
    ----------
    data : what `read_table` has returned, or takes.
    output : the folder of the new set.
    crop : ``faces``.
    detector, detector_model, min_confidence, min_face, choose, margin, aspect, fallback : how faces are found and cut
        out.
    background : a U²-Net in an ONNX file; `fill` : what the background becomes: ``grey``, ``white``, ``black`` or
        ``blur``.
    window : the values that become black and white in images of more than 8 bits: ``"LO,HI"``, or two numbers.
    jobs : images worked on at a time; without it, one a CPU core.
    resume : go on with what is missing; `force` : make an existing set again.
    root : the folder in which the synthetic people are, where no `data` are given.
    progress : False for silence.

    Raises
    ------
    UsageError : nothing to do, an unknown name, an impossible value.
    EnsembleError : images that cannot be used; the folder holds something else; a package or a model is missing.

    Examples
    --------
    >>> import folds
    >>> folds.prepare(crop="cats")
    Traceback (most recent call last):
    ...
    folds.errors.UsageError: unknown crop 'cats'
    """
    log_in_notebook()
    if crop is not None and crop not in CROPS:
        raise unknown_name("crop", crop, CROPS)
    if crop is None and (detector_model is not None or detector != "opencv"):
        raise UsageError("a `detector` is named, and nothing is cut", hint="`crop='faces'`")
    model = None if detector_model is None else Path(detector_model)
    wanted = Preparation(
        detector=DetectorSettings(detector, model, min_confidence, min_face) if crop else None,
        margin=margin,
        aspect=parse_aspect(aspect),
        choose=choose,
        fallback=fallback,
        background=None if background is None else Path(background),
        fill=fill,
        window=parse_window(window) if isinstance(window, str) else window,
    )
    read = as_dataset(data, root=root)
    place = read.spec or DataSpec(Path(output) / ".." / "no such file")
    check_output(Path(output), LoadedData(place, read, False))
    return make_set(
        read,
        Path(output),
        wanted,
        resume=resume and not force,
        force=force,
        threads=jobs,
        progress=progress_of(progress),
    )
