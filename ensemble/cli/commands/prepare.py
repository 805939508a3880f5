"""`ensemble prepare`: a new image set, cut to faces or without backgrounds."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ensemble.cli.terminal import console
from ensemble.cli.terminal.options import (
    DataOption,
    IdOption,
    LabelOption,
    PathOption,
    PersonOption,
    PersonRegexOption,
    SplitOption,
    TestOption,
    WindowOption,
)

if TYPE_CHECKING:
    from folds.data.table import Dataset
    from folds.preparation.pipeline import Prepared
    from folds.preparation.results import PreparedImage
    from folds.preparation.settings import Preparation

CROPS = ("faces",)


def prepare(
    data: DataOption = None,
    test: TestOption = None,
    path: PathOption = None,
    label: LabelOption = None,
    person: PersonOption = None,
    id: IdOption = None,
    split: SplitOption = None,
    person_regex: PersonRegexOption = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="the folder of the new set", metavar="OUT")] = Path(
        "prepared"
    ),
    crop: Annotated[str | None, typer.Option(help="cut every image to its face: faces", metavar="faces")] = None,
    detector: Annotated[str, typer.Option(help="opencv (its cascades, no file needed), or mediapipe")] = "opencv",
    detector_model: Annotated[
        Path | None, typer.Option(help="mediapipe: a .tflite of its face detector", metavar="FILE")
    ] = None,
    min_confidence: Annotated[
        float, typer.Option(help="below it a face does not count; .3 finds more masked ones", metavar="SHARE")
    ] = 0.5,
    min_face: Annotated[
        float, typer.Option(help="the smallest face, in the image's shorter side", metavar="SHARE")
    ] = 0.25,
    choose: Annotated[str, typer.Option(help="of several faces: largest, central or confident")] = "largest",
    margin: Annotated[
        float, typer.Option(help="added on each side of the face, in its width and height", metavar="SHARE")
    ] = 0.3,
    aspect: Annotated[str, typer.Option(help="width:height of what is cut out", metavar="W:H")] = "1:1",
    fallback: Annotated[
        str,
        typer.Option(
            help="without a face: center, typical (where the faces of the others are), or keep the whole image"
        ),
    ] = "center",
    background: Annotated[
        Path | None, typer.Option(help="replace the background, told by this U²-Net", metavar="MODEL.onnx")
    ] = None,
    fill: Annotated[str, typer.Option(help="what the background becomes: grey, white, black or blur")] = "grey",
    window: WindowOption = None,
    jobs: Annotated[str, typer.Option(help="images worked on at a time; auto: one a CPU core", metavar="N")] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="go on with what is missing")] = False,
    force: Annotated[bool, typer.Option("--force", help="make an existing set again from nothing")] = False,
) -> None:
    """Write a new image set and its tables: every image cut to the face, its background replaced, or both. Originals are never touched.

    OUT/index.csv (and test.csv) hold the same samples under the same ids, with where each face was found, and go straight into
    ensemble kfold. OUT/worst.png shows the images to look at: those without a face, then the least certain. The background is told on the whole
    image, before it is cut. The extra [faces] brings what --crop needs, [background] what --background needs.
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

    if resume and force:
        raise UsageError("--resume and --force contradict each other", hint="give one of them")
    if crop is not None and crop not in CROPS:
        raise unknown_name("--crop", crop, CROPS)
    if crop is None and (detector_model is not None or detector != "opencv"):
        raise UsageError("a detector is named, and nothing is cut", hint="add --crop faces")
    threads = jobs_asked(jobs)
    columns = {"path": path, "label": label, "person": person, "id": id, "split": split, "person_regex": person_regex}
    settings, recipe, _ = load_settings({"data": data, "test": test, "window": window, **columns})
    wanted = Preparation(
        detector=DetectorSettings(detector, detector_model, min_confidence, min_face) if crop else None,
        margin=margin,
        aspect=parse_aspect(aspect),
        choose=choose,
        fallback=fallback,
        background=background,
        fill=fill,
        window=recipe.value_window(),
    )
    opened = open_data(settings)
    check_output(output, opened)
    _describe(opened.data, wanted)
    try:
        made = make_set(
            opened.data, output, wanted, resume=resume, force=force, threads=threads, progress=TerminalProgress()
        )
    except KeyboardInterrupt:
        raise Interrupted("what was made is kept", hint=resuming()) from None
    _print(made, opened.data)
    words = ["ensemble", "kfold", "--data", str(made.folder / "index.csv")]
    if opened.data.test is not None:
        words += ["--test", str(made.folder / "test.csv")]
    console.next_step(shlex.join(words))


def _describe(data: Dataset, wanted: Preparation) -> None:
    test = "" if data.test is None else f"; test: {len(data.test):,} images"
    console.note(f"{len(data.train):,} images of {len(data.train.classes)} classes{test}")
    if wanted.detector is not None:
        finder = wanted.detector
        console.note(
            f"faces by {finder.name}, from a confidence of {finder.min_confidence:g} and {finder.min_face:g} of the shorter side"
        )
    if wanted.background is not None:
        console.note(f"backgrounds become {wanted.fill}, told by {wanted.background}")


def _print(made: Prepared, data: Dataset) -> None:
    looked_for = made.images[0].looked_for
    masked = made.images[0].foreground is not None
    meaning = data.train.class_attributes
    rows: list[list[object]] = []
    train = [image for image in made.images if image.part == "train"]
    test = [image for image in made.images if image.part == "test"]
    for name in data.train.classes:
        rows.append(
            [
                name,
                " ".join(meaning.get(name, {}).values()),
                *_counts([i for i in train if i.label == name], looked_for, masked),
            ]
        )
    rows.append(["all", "", *_counts(train, looked_for, masked)])
    if test:
        rows.append(["test", "", *_counts(test, looked_for, masked)])
    header = ["class", "", "images", *(["faces", "found"] if looked_for else []), *(["nobody"] if masked else [])]
    left = 2
    if not any(meaning.values()):
        header, rows, left = [header[0], *header[2:]], [[row[0], *row[2:]] for row in rows], 1
    now = "all of them there already" if not made.made_now else f"{made.made_now:,} of them made now"
    text = f"{console.table(header, rows, left)}\n\n{made.folder}: {len(made.images):,} images, {now}; look at {made.folder / 'worst.png'}"
    console.result(text, _record(made, train, test))


def _counts(images: Sequence[PreparedImage], looked_for: bool, masked: bool) -> list[object]:
    from folds.preparation.background import NOTHING

    cells: list[object] = [f"{len(images):,}"]
    if looked_for:
        found = sum(not image.missed for image in images)
        cells += [f"{found:,}", f"{found / len(images):.1%}" if images else ""]
    if masked:
        cells.append(f"{sum(image.foreground is not None and image.foreground < NOTHING for image in images):,}")
    return cells


def _record(made: Prepared, train: Sequence[PreparedImage], test: Sequence[PreparedImage]) -> dict[str, Any]:
    from folds.preparation.results import count

    labels = dict.fromkeys(image.label for image in train if image.label is not None)
    return {
        "folder": str(made.folder),
        "tables": {"train": str(made.folder / "index.csv"), "test": str(made.folder / "test.csv") if test else None},
        "sheet": str(made.folder / "worst.png"),
        "counts": count(made.images),
        "classes": {label: count([image for image in train if image.label == label])["train"] for label in labels},
        "made_now": made.made_now,
        "warnings": list(made.warnings),
    }
