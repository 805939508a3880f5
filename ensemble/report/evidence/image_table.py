"""Read the table of the images and what is known about their pixels, as far as it is on disk."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.report.evidence.evidence import Part, TableRecord
from ensemble.report.page.thumbnails import small_pixels
from folds.data.readers import read_data
from folds.data.sources import BUILT_IN, recorded_place
from folds.data.table import Dataset, DataSpec, SampleTable
from folds.errors import EnsembleError, UsageError
from folds.images.cache import cached_pixels
from folds.images.content_index import UnreadableImageError, open_regular
from folds.images.decode import identify_image
from folds.images.stacks import stack_parts
from folds.metrics.grouping import crosstab
from folds.metrics.task_names import CLASSES, COLUMN_TASKS
from folds.predictions.label_columns import label_matrix, label_texts
from folds.utils.memmap import release_pages
from folds.utils.numeric import factorize
from folds.utils.parallel import map_threads
from folds.utils.progress import SILENT, Progress

logger = logging.getLogger(__name__)

# Columns of a table and folders of images, as config.toml of a run has them.
_TEXTS = ("path", "label", "person", "id", "split", "person_regex", "missing_persons", "task", "label_of", "uncertain")
_FLAGS = ("test_labels", "merge_spellings", "skip_unusable")
_LISTS = ("images", "test_images", "classes", "stack")
MAX_DECODED = 4_000  # images that are decoded for their brightness if the decoded pixels are not kept on disk
_SIDE = 96  # pixels of these
_PIXELS_AT_ONCE = 8_000_000  # measured by a thread: about 100 MB as float32


def read_image_table(
    data: Path | None,
    configs: Sequence[Mapping[str, Any]],
    root: Path,
    warnings: list[str],
    task: str | None = None,
    label: str | None = None,
    uncertain: str | None = None,
) -> Dataset | None:
    """Return the table of the images, which need not be there; None, with a warning, if it cannot be read.

    Parameters
    ----------
    data : the table that was named, which then must be readable.
    configs : contents of config.toml of runs; the first that says where its data are is followed.
    task : what the predictions answer, if there are any; else what the columns of labels are, if that was given.
    label : the columns of labels or numbers of a table, if they were given.
    uncertain : what labels of -1 in a table are read as, if that was given.
    """
    config = next((one for one in configs if isinstance(one.get("data"), str)), {})
    try:
        if data is not None:
            given = {"label": label, "uncertain": uncertain}
            given = {name: value for name, value in given.items() if value is not None}
            spec = _spec_of({**config, **given}, data, None, task)
        elif config:
            spec = _spec_of(config, _place_of(config["data"], "data", root), root, task)
        else:
            return None
        return read_data(spec, need_images=False, find_images=True)
    except (EnsembleError, UsageError) as error:
        if data is not None:
            raise
        warnings.append(f"the table of the images is not shown: {error.message}")
        return None


def _place_of(text: str, name: str, root: Path) -> Path:
    found = Path(text)
    if found == BUILT_IN or not (found.is_absolute() or found.exists()):
        found = root / found  # the folder of the runs was moved, or is not the working folder
    return recorded_place(str(found), name)


def _spec_of(config: Mapping[str, Any], data: Path, root: Path | None, task: str | None) -> DataSpec:
    fields: dict[str, Any] = {name: value for name in _TEXTS if isinstance(value := config.get(name), str)}
    fields |= {name: value for name in _FLAGS if isinstance(value := config.get(name), bool)}
    for name in _LISTS:
        value = config.get(name)
        listed = [value] if isinstance(value, str) else value
        if isinstance(listed, list) and listed and all(isinstance(one, str) for one in listed):
            fields[name] = tuple(listed)
    if task is not None:  # classes may be numbers
        fields["task"] = task
    if type(config.get("max_pixels")) is int:
        fields["max_pixels"] = config["max_pixels"]
    if root is not None and isinstance(config.get("test"), str):
        fields["test"] = _place_of(config["test"], "test", root)
    return DataSpec(data, **fields)


def image_paths(dataset: Dataset) -> dict[str, Path]:
    """Return id → file, for the images that are there."""
    return {
        sample: path
        for table in (dataset.train, dataset.test)
        if table is not None and table.paths is not None
        for sample, path in zip(table.ids.tolist(), table.paths, strict=True)
        if all(os.access(part, os.R_OK) for part in stack_parts(path))
    }


def table_record(
    dataset: Dataset,
    paths: Mapping[str, Path],
    root: Path,
    progress: Progress = SILENT,
) -> TableRecord:
    """Return the table of a report, with the sizes of the files and the brightness and sharpness of their images.

    Pixels that are kept in ``.ensemble/images`` of `root` are used; otherwise at most `MAX_DECODED` are decoded.
    """
    tables = [one for one in (dataset.train, dataset.test) if one is not None]
    ids = np.concatenate([one.ids for one in tables])
    labels = np.concatenate([_texts(one.labels, len(one)) for one in tables])
    persons = np.concatenate([one.ids if one.persons is None else one.persons for one in tables])
    test = np.concatenate([np.full(len(one), one is not dataset.train) for one in tables])
    names = dict.fromkeys(name for one in tables for name in one.attributes)
    attributes = {
        name: np.concatenate([_texts(one.attributes.get(name), len(one)) for one in tables]) for name in names
    }
    width = height = brightness = sharpness = None
    if paths:
        width, height = _sizes(ids.tolist(), paths, progress)
        parts = [_light_of(one, paths, root, progress) for one in tables]
        values = np.concatenate(parts)
        if not np.isnan(values).all():
            brightness, sharpness = values[:, 0], values[:, 1]
    return TableRecord(
        ids, labels, persons, test, attributes, width, height, brightness, sharpness,
        persons_known=all(one.persons is not None for one in tables), left_out=dataset.left_out,
    )  # fmt: skip


def table_of_parts(parts: Iterable[Part], classes: Sequence[str], task: str = CLASSES) -> TableRecord | None:
    """Return the table as far as the predictions have it: ids, labels and people."""
    found = list(parts)
    if not found:
        return None
    return TableRecord(
        np.concatenate([one.ids for one in found]),
        np.concatenate([texts_of(one, classes, task) for one in found]),
        np.concatenate([one.persons for one in found]),
        np.concatenate([np.full(len(one), one.name == "test") for one in found]),
        persons_known=all(one.persons_known for one in found),
        of_predictions=True,
    )


def texts_of(part: Part, classes: Sequence[str], task: str = CLASSES) -> NDArray[np.str_]:
    """Return (n,) the labels of a part as texts; "" where they are not known."""
    if task in COLUMN_TASKS:
        return label_texts(part.labels, classes, task)
    return np.array([*classes, ""])[part.labels]


def label_codes(texts: NDArray[np.str_] | None, rows: int, classes: Sequence[str], task: str) -> NDArray:
    """Return the labels of `Part`: (rows,) class indices, or (rows, columns) of several labels or numbers.

    Parameters
    ----------
    texts : (rows,) text; None if no label is known.
    """
    if task in COLUMN_TASKS:
        return label_matrix(np.full(rows, "") if texts is None else texts, classes, task)
    code = {name: at for at, name in enumerate(classes)}
    codes = [] if texts is None else [code.get(one, -1) for one in texts.tolist()]
    return np.full(rows, -1, np.int64) if texts is None else np.array(codes, np.int64)


def _texts(values: NDArray[np.str_] | None, rows: int) -> NDArray[np.str_]:
    return np.full(rows, "") if values is None else values


def _sizes(
    ids: Sequence[str], paths: Mapping[str, Path], progress: Progress
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (n,) width and height of the files in pixels, from their headers; 0 for unreadable ones."""

    def one(at: int) -> tuple[int, int]:
        path = paths.get(ids[at])
        if path is None:
            return 0, 0
        try:
            with open_regular(stack_parts(path)[0]) as file:
                return identify_image(file)
        except UnreadableImageError:
            return 0, 0

    with progress.step("reading the sizes of the images") as advance:
        found = np.array(map_threads(one, len(ids), None, advance), np.int64).reshape(-1, 2)
    return found[:, 1], found[:, 0]


def _light_of(table: SampleTable, paths: Mapping[str, Path], root: Path, progress: Progress) -> NDArray[np.float32]:
    """Return (n, 2) brightness and sharpness of the images of a table, NaN where they are not known."""
    values = np.full((len(table), 2), np.nan, np.float32)
    if table.paths is None:
        return values
    with progress.step("measuring brightness and sharpness") as advance:
        pixels = cached_pixels(list(table.paths), root / ".ensemble" / "images")
        if pixels is not None:
            at_once = images_at_once(*pixels.shape[1:3])
            starts = range(0, len(pixels), at_once)

            def block(number: int) -> None:
                start = starts[number]
                values[start : start + at_once] = light(pixels[start : start + at_once])
                release_pages(pixels)

            map_threads(block, len(starts), None, advance)
        elif len(table) <= MAX_DECODED:
            ids = table.ids.tolist()

            def one(at: int) -> None:
                found = small_pixels(paths[ids[at]], _SIDE) if ids[at] in paths else None
                if found is not None and min(found.shape[:2]) > 2:
                    values[at] = light(found[None])[0]

            map_threads(one, len(table), None, advance)
    return values


def images_at_once(height: int, width: int) -> int:
    """Return how many images of this size are measured at once, so that large ones do not fill the memory."""
    return max(1, _PIXELS_AT_ONCE // (height * width))


def light(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return (n, 2) for images (n, height, width, 3): the mean of the gray values, and of the absolute Laplacian."""
    gray = pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    inner = gray[:, 1:-1, 1:-1]
    edges = gray[:, :-2, 1:-1] + gray[:, 2:, 1:-1] + gray[:, 1:-1, :-2] + gray[:, 1:-1, 2:] - 4 * inner
    return np.stack([gray.mean(axis=(1, 2)), np.abs(edges).mean(axis=(1, 2))], axis=1).astype(np.float32)


def people_per_class(labels: NDArray[np.str_], persons: NDArray[np.str_]) -> dict[str, tuple[int, int]]:
    """Return class → (images, people)."""
    if not len(labels):
        return {}
    names, codes = factorize(labels)
    people, person = factorize(persons)
    counts = crosstab(codes, person, len(names), len(people))
    return {name: (int(row.sum()), int((row > 0).sum())) for name, row in zip(names, counts, strict=True)}
