"""`ensemble prepare`: write a new image set, cropped to faces or with backgrounds replaced."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ensemble.cli.terminal import console
from ensemble.cli.terminal.options import (
    COLUMNS,
    DATA,
    READING,
    RUN,
    ResumeOption,
    check_resume_or_force,
    takes_settings,
)
from folds.metrics.task_names import MULTILABEL
from folds.utils.text import counted

if TYPE_CHECKING:
    from folds.data.table import Dataset
    from folds.preparation.pipeline import Prepared
    from folds.preparation.results import PreparedImage
    from folds.preparation.settings import Preparation

CROPS = ("faces",)
FACES, BACKGROUND = "Faces", "Background"


def _option(*flags: str, help: str, metavar: str | None = None, panel: str = RUN) -> Any:
    return typer.Option(*flags, help=help, metavar=metavar, rich_help_panel=panel)


@takes_settings("data", "test", *COLUMNS, *READING, "task", "window", panels={"window": DATA})
def prepare(
    crop: Annotated[
        str | None, _option(help="crop every image to its face: faces", metavar="faces", panel=FACES)
    ] = None,
    detector: Annotated[
        str, _option(help="opencv (its cascades, no file needed), or mediapipe", metavar="NAME", panel=FACES)
    ] = "opencv",
    detector_model: Annotated[
        Path | None, _option(help="mediapipe: a .tflite of its face detector", metavar="FILE", panel=FACES)
    ] = None,
    min_confidence: Annotated[
        float,
        _option(help="ignore faces below this confidence; .3 finds more masked ones", metavar="SHARE", panel=FACES),
    ] = 0.5,
    min_face: Annotated[
        float, _option(help="smallest face, as a share of the image's shorter side", metavar="SHARE", panel=FACES)
    ] = 0.25,
    choose: Annotated[
        str, _option(help="which of several faces: largest, central or confident", metavar="WHICH", panel=FACES)
    ] = "largest",
    margin: Annotated[
        float,
        _option(help="added on each side, as a share of the face's width and height", metavar="SHARE", panel=FACES),
    ] = 0.3,
    aspect: Annotated[str, _option(help="width:height of the crop", metavar="W:H", panel=FACES)] = "1:1",
    fallback: Annotated[
        str,
        _option(
            help="without a face: center, typical (where the faces of other images are), or keep the whole image",
            metavar="HOW",
            panel=FACES,
        ),
    ] = "center",
    background: Annotated[
        Path | None,
        _option(help="replace the background, segmented by this U²-Net", metavar="MODEL.onnx", panel=BACKGROUND),
    ] = None,
    fill: Annotated[
        str, _option(help="new background: grey, white, black or blur", metavar="HOW", panel=BACKGROUND)
    ] = "grey",
    output: Annotated[Path, _option("-o", "--output", help="folder of the new set", metavar="OUT")] = Path("prepared"),
    jobs: Annotated[str, _option(help="images processed in parallel; auto: one per CPU core", metavar="N")] = "auto",
    resume: ResumeOption = False,
    force: Annotated[bool, _option("--force", help="make an existing set again from scratch")] = False,
    **given: Any,
) -> None:
    """Write a new image set and its tables: images cropped to the face, backgrounds replaced, or both.

    Originals are never changed. OUT/index.csv (and test.csv) list the same samples with the same ids and the position
    of each face, as input of ensemble kfold. OUT/worst.png shows the images to check: those without a face, then the
    least certain. The background is segmented on the whole image, before it is cropped. --crop needs the extra [faces],
    --background the extra [background].
    """
    from ensemble.cli.terminal.options import jobs_asked, resuming
    from ensemble.cli.terminal.progress import TerminalProgress
    from folds.config.files import load_settings
    from folds.data.sources import open_data
    from folds.errors import Interrupted, UsageError, unknown_name
    from folds.preparation.boxes import parse_aspect
    from folds.preparation.detectors import DetectorSettings
    from folds.preparation.pipeline import check_output
    from folds.preparation.pipeline import prepare as make_set
    from folds.preparation.settings import Preparation

    check_resume_or_force(resume, force)
    if crop is not None and crop not in CROPS:
        raise unknown_name("`crop`", crop, CROPS)
    if crop is None and (detector_model is not None or detector != "opencv"):
        raise UsageError("a detector is given, but images are not cropped", hint="add --crop faces")
    threads = jobs_asked(jobs)
    settings, recipe, _ = load_settings(given, runs_code=False)
    wanted = Preparation(
        detector=DetectorSettings(detector, detector_model, min_confidence, min_face) if crop else None,
        margin=margin,
        aspect=parse_aspect(aspect),
        choose=choose,
        fallback=fallback,
        background=background,
        fill=fill,
        window=recipe.value_window(),
        max_pixels=settings.max_pixels,
    )
    opened = open_data(settings, task=recipe.task)
    check_output(output, opened)
    _describe(opened.data, wanted)
    try:
        made = make_set(
            opened.data, output, wanted, resume=resume, force=force, threads=threads, progress=TerminalProgress()
        )
    except KeyboardInterrupt:
        raise Interrupted("finished images are kept", hint=resuming()) from None
    _print(made, opened.data)
    words = ["ensemble", "kfold", "--data", str(made.folder / "index.csv")]
    if opened.data.train.has_columns:  # the columns of the new table, and what they hold
        words += ["--label", ",".join(made.labels), "--task", made.task]
    if opened.spec.label_of is not None:  # each image has the label of its person there
        words += ["--label-of", opened.spec.label_of]
    if opened.data.test is not None:
        words += ["--test", str(made.folder / "test.csv")]
    console.next_step(shlex.join(words))


def _describe(data: Dataset, wanted: Preparation) -> None:
    test = "" if data.test is None else f"; test: {len(data.test):,} images"
    classes = f"of {len(data.train.classes)} classes"
    if data.train.has_columns:
        one = "label" if data.train.task == MULTILABEL else "number"
        classes = f"with {counted(len(data.train.classes), one)}"
    console.note(f"{len(data.train):,} images {classes}{test}")
    if wanted.detector is not None:
        finder = wanted.detector
        console.note(
            f"face detector {finder.name}, confidence from {finder.min_confidence:g}, size from {finder.min_face:g} "
            "of the shorter side"
        )
    if wanted.background is not None:
        console.note(f"backgrounds are replaced by {wanted.fill}, segmented by {wanted.background}")


def _print(made: Prepared, data: Dataset) -> None:
    from folds.preparation.results import by_label

    looked_for = made.images[0].looked_for
    masked = made.images[0].foreground is not None
    meaning = data.train.class_attributes
    rows: list[list[object]] = []
    train = [image for image in made.images if image.part == "train"]
    test = [image for image in made.images if image.part == "test"]
    for name, inside in by_label(made.images, data.train.classes, data.train.task).items():
        rows.append([name, " ".join(meaning.get(name, {}).values()), *_counts(inside, looked_for, masked)])
    rows.append(["all", "", *_counts(train, looked_for, masked)])
    if test:
        rows.append(["test", "", *_counts(test, looked_for, masked)])
    header = [
        "label" if data.train.task == MULTILABEL else "" if data.train.has_columns else "class",
        "",
        "images",
        *(["faces", "found"] if looked_for else []),
        *(["no foreground"] if masked else []),
    ]
    left = 2
    if not any(meaning.values()):
        header, rows, left = [header[0], *header[2:]], [[row[0], *row[2:]] for row in rows], 1
    now = "all finished before" if not made.made_now else f"{made.made_now:,} new"
    text = (
        f"{console.table(header, rows, left)}\n\n{made.folder}: {len(made.images):,} images, {now}; check "
        f"{made.folder / 'worst.png'}"
    )
    console.result(text, made.to_dict())


def _counts(images: Sequence[PreparedImage], looked_for: bool, masked: bool) -> list[object]:
    from folds.preparation.background import NOTHING

    cells: list[object] = [f"{len(images):,}"]
    if looked_for:
        found = sum(not image.missed for image in images)
        cells += [f"{found:,}", f"{found / len(images):.1%}" if images else ""]
    if masked:
        cells.append(f"{sum(image.foreground is not None and image.foreground < NOTHING for image in images):,}")
    return cells
