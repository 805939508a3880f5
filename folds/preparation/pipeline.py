"""Prepare a table of images: crop to the face, replace the background, write a new table; originals are not changed.

All images are read three times: read (unusable images are found before anything is written), detect faces, make
the images. Detection is a pass of its own because the typical position of faces is known only after all are detected.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from folds.data.sources import LoadedData
from folds.data.table import Dataset, SampleTable
from folds.errors import EnsembleError, without_marks
from folds.images.bit_depth import depth_notes, group_depths
from folds.metrics.task_names import CLASSES, COLUMN_TASKS, MULTILABEL
from folds.preparation.background import BackgroundModel, replace_background
from folds.preparation.boxes import Box, Window, center_window, choose, typical_window, window_round
from folds.preparation.contact_sheet import write_crop_sheet
from folds.preparation.detectors import Detector, DetectorSettings, OnePerThread, open_detector
from folds.preparation.originals import Original, read_original, survey
from folds.preparation.output import (
    LOCK,
    TABLES,
    PreparedFolder,
    check_output_folder,
    image_names,
    label_names,
    write_table,
)
from folds.preparation.results import PreparedImage, by_label, count, uneven_label_misses, uneven_misses
from folds.preparation.settings import Preparation
from folds.utils.display import Displayed, Table
from folds.utils.files import make_folder, remove_stale_temporaries, sha256_bytes, write_atomic
from folds.utils.locks import exclusive_lock
from folds.utils.parallel import map_threads
from folds.utils.progress import SILENT, Advance, Progress

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, repr=False)
class Prepared(Displayed):
    """A prepared image set.

    Attributes
    ----------
    images : in the order of the tables.
    made_now : number of images that were made now, not before a resume.
    notes, warnings : one line each; may mark parameters (see `folds.errors`).
    task, classes : as in `folds.data.table.SampleTable`.
    labels : the columns of the tables with the labels or numbers.
    """

    folder: Path
    images: tuple[PreparedImage, ...]
    made_now: int
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    task: str = CLASSES
    classes: tuple[str, ...] = ()
    labels: tuple[str, ...] = ("label",)

    @property
    def table(self) -> Path:
        """Return the path of ``index.csv``, for `read_table`."""
        return self.folder / "index.csv"

    @property
    def test_table(self) -> Path | None:
        """Return the path of ``test.csv``; None if there are no test images."""
        return self.folder / "test.csv" if any(image.part == "test" for image in self.images) else None

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain values, for JSON."""
        parts = by_label(self.images, self._found(), self.task)
        none = {"images": 0, "without_face": None, "without_foreground": None}
        counts = {name: count(inside).get("train", none) for name, inside in parts.items()}
        return {
            "folder": str(self.folder),
            "tables": {"train": str(self.table), "test": None if self.test_table is None else str(self.test_table)},
            "sheet": str(self.folder / "worst.png"),
            "counts": count(self.images),
            **({"task": self.task, "columns": counts} if self.task in COLUMN_TASKS else {"classes": counts}),
            "made_now": self.made_now,
            "warnings": list(map(without_marks, self.warnings)),
        }

    def _found(self) -> list[str]:
        """Return the classes in the order in which they occur, or the names of the labels."""
        if self.task in COLUMN_TASKS:
            return list(self.classes)
        train = [image for image in self.images if image.part == "train"]
        return list(dict.fromkeys(image.label for image in train if image.label is not None))

    def display_table(self) -> Table:
        """Return the table to display: numbers of images and of detected faces."""
        header = ["part", "images", *(["faces found"] if self.images[0].looked_for else [])]
        rows = []
        for part in ("train", "test"):
            inside = [image for image in self.images if image.part == part]
            found = [f"{sum(not image.missed for image in inside):,}"] if len(header) > 2 else []
            rows += [[part, f"{len(inside):,}", *found]] if inside else []
        return Table(
            f"{self.folder}: {len(self.images):,} images",
            header,
            rows,
            [*map(without_marks, self.warnings), f"check {self.folder / 'worst.png'}"],
        )


@dataclass
class _Work:
    """State of a preparation: the samples of all tables, concatenated, and the results so far."""

    folder: PreparedFolder
    settings: Preparation
    tables: dict[str, SampleTable]
    parts: list[str] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    locations: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    originals: list[Original] = field(default_factory=list)

    def __post_init__(self) -> None:
        for part, table in self.tables.items():
            if table.paths is None:
                raise EnsembleError(
                    f"{table.source} has no image paths", hint="name the column of the paths: `path=COLUMN`"
                )
            self.parts += [part] * len(table)
            self.paths += table.paths
            self.locations += table.locations
            self.names += image_names(part, table.ids.tolist())


def prepare(
    data: Dataset,
    out: Path,
    settings: Preparation,
    *,
    resume: bool = False,
    force: bool = False,
    threads: int | None = None,
    progress: Progress = SILENT,
    detector: Callable[[], Detector] | None = None,
) -> Prepared:
    """Make the new images and their tables in `out`; log notes and warnings, and return them with the set.

    The bytes depend only on the originals and the settings, not on the number of threads or on interruptions. Call
    `check_output` first to check that `out` is a safe folder.

    Parameters
    ----------
    resume : whether to continue a set; images of originals that changed are made again.
    force : whether to start from scratch in a folder that holds a prepared set.
    threads : images processed in parallel; None for the number of cores.
    detector : function that creates a detector for one thread; None for the detector of the settings.

    Raises
    ------
    EnsembleError : unusable images (nothing is written then); `out` holds other files, or a set with other settings; a
        package or model is missing.
    """
    tables = {part: table for part, table in (("train", data.train), ("test", data.test)) if table is not None}
    label_names(data.train)  # which may refuse the table, before images are read
    record = {**settings.record(), "tables": {part: table.sha for part, table in tables.items()}}
    folder = PreparedFolder(out, record)
    folder.check(resume, force)
    work = _Work(folder, settings, tables)
    # Opened before the images are read, so that an unusable model is reported at once.
    model = BackgroundModel(settings.background) if settings.background is not None else None
    finder = None if settings.detector is None else OnePerThread(detector or _opening(settings.detector))
    with progress.step("reading the originals") as advance:
        work.originals = survey(work.paths, work.locations, settings.window, threads, advance, settings.max_pixels)
    make_folder(folder.out)
    with exclusive_lock(folder.out / LOCK, f"the preparation in {folder.out}"):
        folder.check(resume, force)
        folder.begin(resume)
        remove_stale_temporaries(folder.out)
        boxes: list[Box | None] = [None] * len(work.paths)
        if finder is not None:
            with contextlib.closing(finder), progress.step("detecting faces") as advance:
                boxes = _detect(work, finder, threads, advance)
        crops = _crops(work, boxes)
        with progress.step("making images") as advance:
            made_now, shares = _make(work, crops, model, threads, advance)
        images = _images(work, boxes, crops, shares)
        notes = _write_tables(work, images)
        counts = count(images)
        kind = "label" if data.train.has_columns else "class"
        write_crop_sheet(folder.out, images, settings.window, settings.max_pixels, kind)
        folder.complete([*(original.digest for original in work.originals), *work.names], counts)
    notes += depth_notes(group_depths(original.depth for original in work.originals if original.depth is not None))
    warnings = _warnings(data.train, images, settings)
    for line in notes:
        logger.info(line)
    for line in warnings:
        logger.warning(line)
    labels = tuple(label_names(data.train))
    messages = tuple(notes), tuple(warnings)
    return Prepared(folder.out, images, made_now, *messages, data.train.task, data.train.classes, labels)


def check_output(out: Path, opened: LoadedData) -> None:
    """Raise EnsembleError if `out` is not a safe folder for the results (see `check_output_folder`)."""
    tables = [table for table in (opened.data.train, opened.data.test) if table is not None]
    originals = [original for table in tables for original in table.paths or ()]
    for source in (opened.spec.data, opened.spec.test):
        if source is not None:
            check_output_folder(out, source, originals)


def _opening(settings: DetectorSettings) -> Callable[[], Detector]:
    # One test image, so that a missing package or model is reported before images are read.
    with contextlib.closing(OnePerThread(lambda: open_detector(settings))) as first:
        first.find(np.zeros((64, 64, 3), np.uint8))
    return lambda: open_detector(settings)


def _detect(work: _Work, finder: OnePerThread, threads: int | None, progress: Advance) -> list[Box | None]:
    """Return the face of each image, None if none is found; files with equal bytes are analyzed once."""
    first = {original.digest: at for at, original in reversed(list(enumerate(work.originals)))}
    missing = [at for digest, at in first.items() if _boxes(work.folder.entry(digest)) is None]

    def one(number: int) -> None:
        pixels, original = read_original(work.paths[missing[number]], work.settings.window, work.settings.max_pixels)
        found = [[box.left, box.top, box.width, box.height, box.confidence] for box in finder.find(pixels)]
        work.folder.note(original.digest, boxes=found)

    map_threads(one, len(missing), threads, progress)
    faces = []
    for original in work.originals:
        boxes = _boxes(work.folder.entry(original.digest))
        faces.append(choose(boxes or [], original.size, work.settings.choose))
    return faces


def _boxes(entry: dict[str, Any] | None) -> list[Box] | None:
    """Return the boxes in a line of the journal; None if it has no valid boxes."""
    lines = None if entry is None else entry.get("boxes")
    if not isinstance(lines, list):
        return None
    good = all(
        isinstance(line, list)
        and len(line) == 5
        and all(isinstance(value, int) for value in line[:4])
        and line[2] > 0 < line[3]
        and isinstance(line[4], int | float)
        and math.isfinite(line[4])
        for line in lines
    )
    return [Box(*line) for line in lines] if good else None


def _crops(work: _Work, boxes: Sequence[Box | None]) -> list[Window]:
    settings, sizes = work.settings, [original.size for original in work.originals]
    if settings.detector is None:
        return [(0, 0, *size) for size in sizes]
    around = [
        None if box is None else window_round(box, size, settings.margin, settings.aspect)
        for box, size in zip(boxes, sizes)
    ]
    known = [at for at, window in enumerate(around) if window is not None]
    found, of = [window for window in around if window is not None], [sizes[at] for at in known]

    def instead(size: tuple[int, int]) -> Window:
        if settings.fallback == "typical":
            return typical_window(found, of, size, settings.aspect)
        return (0, 0, *size) if settings.fallback == "keep" else center_window(size, settings.aspect)

    return [window if window is not None else instead(size) for window, size in zip(around, sizes)]


def _make(
    work: _Work, crops: Sequence[Window], model: BackgroundModel | None, threads: int | None, progress: Advance
) -> tuple[int, list[float | None]]:
    """Write all missing images; return their number, and the foreground share of every image."""
    entries: list[dict[str, Any]] = [{}] * len(work.paths)

    def one(at: int) -> bool:
        name, crop, original = work.names[at], crops[at], work.originals[at]
        there = work.folder.is_made(name, original.digest, crop)
        if there is not None and isinstance(there.get("foreground"), type(None) if model is None else float):
            entries[at] = there
            return False
        pixels, now = read_original(work.paths[at], work.settings.window, work.settings.max_pixels)
        if now.digest != original.digest:
            raise EnsembleError(
                f"{work.locations[at]}: {work.paths[at]} was changed during the preparation",
                hint="run it again with `resume=True`",
            )
        share = None
        if model is not None:
            pixels, share = replace_background(pixels, model.mask(pixels), work.settings.fill)
            share = round(share, 4)
        left, top, right, bottom = crop
        data = encode(pixels[top:bottom, left:right])
        make_folder((work.folder.out / name).parent)
        write_atomic(work.folder.out / name, data)
        entries[at] = work.folder.note(
            name, source=original.digest, window=list(crop), sha=sha256_bytes(data), foreground=share
        )
        return True

    made = map_threads(one, len(work.paths), threads, progress)
    return sum(made), [entry.get("foreground") for entry in entries]


def encode(pixels: NDArray[np.uint8]) -> bytes:
    """Return (height, width, 3) uint8 pixels as a lossless PNG, with one channel if the image is gray."""
    gray = bool((pixels == pixels[:, :, :1]).all())
    png = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if gray else pixels)).save(png, "PNG", compress_level=4)
    return png.getvalue()


def _images(
    work: _Work, boxes: Sequence[Box | None], crops: Sequence[Window], shares: Sequence[float | None]
) -> tuple[PreparedImage, ...]:
    rows: list[tuple[str, str | None]] = []
    for table in work.tables.values():
        rows += zip(table.ids.tolist(), [None] * len(table) if table.labels is None else table.labels.tolist())
    looked_for = work.settings.detector is not None
    columns = zip(work.parts, rows, work.paths, work.names, boxes, crops, shares, strict=True)
    return tuple(
        PreparedImage(part, id, label, path, name, looked_for, box, crop, share)
        for part, (id, label), path, name, box, crop, share in columns
    )


def _write_tables(work: _Work, images: Sequence[PreparedImage]) -> list[str]:
    notes: list[str] = []
    out = work.folder.out
    for part, table in work.tables.items():
        rows = [image for image in images if image.part == part]
        cells = [image.cells(out) for image in rows]
        more = {name: [cell[name] for cell in cells] for name in cells[0]}
        notes += write_table(out / TABLES[part], table, [image.made for image in rows], more)
    return notes


def _warnings(train: SampleTable, images: Sequence[PreparedImage], settings: Preparation) -> list[str]:
    lines: list[str] = []
    used = settings.detector is not None and settings.fallback != "typical"  # which crops all images alike
    if train.has_columns:
        return uneven_label_misses(images, train.classes) if used and train.task == MULTILABEL else lines
    missing = sorted(set(train.classes) - set(() if train.labels is None else train.labels.tolist()))
    if missing:
        names = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        lines.append(f"{len(missing)} declared classes have no image ({names}) and are not in the new table")
    if used:
        lines += uneven_misses(images)
    return lines
