"""Provide the public function `prepare`, which writes a new image set cropped to faces or without background."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from folds.data.face import as_dataset
from folds.data.sources import LoadedData
from folds.data.table import DataSpec
from folds.errors import UsageError, unknown_name
from folds.images.settings import parse_window
from folds.preparation.boxes import parse_aspect
from folds.preparation.detectors import DetectorSettings
from folds.preparation.pipeline import Prepared, check_output
from folds.preparation.pipeline import prepare as make_set
from folds.preparation.settings import Preparation
from folds.utils.arguments import FLAG, NAME, NUMBER, PATH, PROGRESS, WINDOW, check_arguments, whole
from folds.utils.bars import log_in_notebook, progress_of
from folds.utils.progress import Progress
from folds.utils.schema import optional

if TYPE_CHECKING:
    from folds.data.face import Data

CROPS = ("faces",)
_KINDS = {
    **dict.fromkeys(("detector", "choose", "aspect", "fallback", "fill"), NAME),
    **dict.fromkeys(("min_confidence", "min_face", "margin"), NUMBER),
    **dict.fromkeys(("detector_model", "background"), optional(PATH)),
    **dict.fromkeys(("resume", "force"), FLAG),
    **dict.fromkeys(("output", "root"), PATH),
    "crop": optional(NAME),
    "window": optional(WINDOW),
    "jobs": optional(whole(1)),
    "progress": PROGRESS,
}


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
    """Write a new image set with images cropped to the face, backgrounds replaced, or both, as ``ensemble prepare``.

    Originals are never changed. ``Prepared.folder`` has ``index.csv`` (and ``test.csv``), which `read_table` reads.
    Several labels or numbers have a column each there: ``read_table(made.table, label=made.labels, task=made.task)``.

    Parameters
    ----------
    data : result or argument of `read_table`.
    output : folder of the new set.
    crop : ``faces`` to crop images to the face; None for no cropping.
    detector, detector_model, min_confidence, min_face : face detector, see
        `folds.preparation.detectors.DetectorSettings`.
    choose, margin, aspect, fallback : cropping, see `folds.preparation.settings.Preparation`.
    background : U²-Net in an ONNX file, to replace the background; None to keep it.
    fill : new background: ``grey``, ``white``, ``black`` or ``blur``.
    window : intensity range mapped to black and white in images with more than 8 bits: ``"LO,HI"``, or two numbers.
    jobs : images processed in parallel; by default one per CPU core.
    resume : whether to continue an interrupted set; `force` : whether to make an existing set again from scratch.
    root : folder of the synthetic faces, if no `data` are given.
    progress : False for no progress bars.

    Raises
    ------
    UsageError : nothing to do, an unknown name, or an invalid value.
    EnsembleError : unusable images, a folder with other content, or a missing package or model.

    Examples
    --------
    Crop all images to the face, look at the worst crops, and train on the new set::

        made = folds.prepare("photos.csv", "faces", crop="faces", margin=0.3)
        made  # numbers of faces found, and where to look
        runs = folds.kfold(made.folder / "index.csv", arch="swin")

    Names are checked before images are read:

    >>> import folds
    >>> folds.prepare(crop="cats")
    Traceback (most recent call last):
    ...
    folds.errors.UsageError: unknown crop 'cats'
    """
    log_in_notebook()
    check_arguments(locals(), _KINDS)
    if crop is not None and crop not in CROPS:
        raise unknown_name("`crop`", crop, CROPS)
    if crop is None and (detector_model is not None or detector != "opencv"):
        raise UsageError("`detector` is given, but images are not cropped", hint="add `crop='faces'`")
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
    if read.spec is not None and read.spec.stack:
        raise UsageError("`stack` names several files of a sample, and one image is prepared", hint="leave it out")
    location = read.spec or DataSpec(Path(output) / ".." / "no such file")
    check_output(Path(output), LoadedData(location, read, False))
    return make_set(
        read,
        Path(output),
        wanted,
        resume=resume and not force,
        force=force,
        threads=jobs,
        progress=progress_of(progress),
    )
