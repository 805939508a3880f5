"""Predict new images: decode each once per image size, predict with all models and views, and combine.

Images are processed in chunks, so memory use does not depend on their number. The predictions of every model are
written to a work folder chunk by chunk; a command that was interrupted continues with the first missing chunk.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ensemble.prediction.cascade import fill_cascade
from ensemble.prediction.combine import combine_members, member_key
from ensemble.prediction.source import FoldModel, PredictionSource
from ensemble.tta.merge import Merge
from ensemble.tta.views import view_named
from ensemble.voting.vote import METHODS
from folds.data.table import SampleTable
from folds.errors import EnsembleError, UsageError
from folds.images.checks import refusal
from folds.images.content_index import UnreadableImageError, read_content
from folds.images.decode import decode_image
from folds.images.settings import ImageSettings
from folds.models.inference import BATCH, PixelSource, predict_logits
from folds.models.precision import resolve_devices
from folds.utils.files import remove, sha256_bytes, write_json
from folds.utils.locks import exclusive_lock
from folds.utils.numeric import softmax
from folds.utils.parallel import cpu_count, map_threads
from folds.utils.progress import SILENT, Progress

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 256 << 20  # decoded pixels of a chunk, for each of its image sizes
CASCADE = "cascade"  # key of the array of a cascade
_MODEL_BYTES = 2 << 30  # weights that are kept between chunks; beyond it models are loaded again for each chunk


@dataclass(frozen=True)
class SkippedImages:
    """Images that could not be used: their rows in the table, and the problem of each."""

    rows: tuple[int, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Predicted:
    """The predictions of a table.

    Attributes
    ----------
    probabilities : (n, classes) float32.
    kept : (n,) rows of the table that were predicted.
    unreadable : images that were left out.
    passes : forward passes per image, on average.
    """

    probabilities: NDArray[np.float32]
    kept: NDArray[np.int64]
    unreadable: SkippedImages
    passes: float


def check_source(source: PredictionSource, images: int) -> None:
    """Raise UsageError if the combination cannot be applied to this number of new images."""
    if METHODS[source.combination.pool].needs_all_rows and images < 2:
        raise UsageError(
            f"{source.combination.pool} voting compares the images of a table with each other, found 1 image",
            hint="predict a table of images, or blend with another `method`",
        )


def predict_table(
    source: PredictionSource,
    table: SampleTable,
    *,
    work: Path,
    device: str = "auto",
    skip_unreadable: bool = False,
    progress: Progress = SILENT,
) -> Predicted:
    """Return the predictions of all images of a table.

    Parameters
    ----------
    work : folder for the predictions of each model; removed at the end. A later call with the same images and models
        continues there after an interrupt.
    skip_unreadable : whether to leave out images that cannot be used.

    Raises
    ------
    EnsembleError : images cannot be used, all of them in one error; or another command uses `work`.
    """
    assert table.paths is not None  # noqa: S101 - tables of images have paths
    check_source(source, len(table))
    torch_device = resolve_devices(device)[0]
    folder = work / _work_key(source, table, torch_device)
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(folder / "lock", "the prediction of these images"):
        state = _WorkState.open(folder, source, len(table))
        if state.done:
            logger.info("continuing with image %s of %s", f"{state.done + 1:,}", f"{len(table):,}")
        with progress.step("predicting") as advance:
            for start, stop, problems in _predict_chunks(source, table, state, torch_device):
                state.finish(stop, [(start + at, str(problem)) for at, problem in problems])
                advance(stop, len(table))
        problems = [(at, UnreadableImageError(text)) for at, text in state.unreadable]
        if problems and not skip_unreadable:
            error = refusal(problems, table.paths, table.locations)
            raise EnsembleError(
                error.message,
                hint="repair or remove them, or leave them out with `skip_unreadable`",
                details=error.details,
            )
        kept = np.setdiff1d(np.arange(len(table)), [at for at, _ in state.unreadable])
        if not len(kept):
            raise EnsembleError(f"no image of {table.source} can be used", hint="expected at least one readable image")
        values = _combine(source, table.take(kept), state, kept)
    passes = state.passes / max(1, len(kept))
    remove(folder)
    unreadable = SkippedImages(tuple(at for at, _ in state.unreadable), tuple(text for _, text in state.unreadable))
    return Predicted(values, kept, unreadable, passes)


def _work_key(source: PredictionSource, table: SampleTable, device: str) -> str:
    """Return a name that changes with the models, the images (names, sizes, times) and the device."""
    files = []
    for path in table.paths or ():
        try:
            status = path.stat()
            files.append((str(path), status.st_size, status.st_mtime_ns))
        except OSError:
            files.append((str(path), -1, -1))
    return sha256_bytes(repr((1, source.sha, device, table.ids.tolist(), files)).encode())[:16]


class _WorkState:
    """The work folder: one array (n, classes) per fold model, and how far they are filled."""

    def __init__(self, folder: Path, arrays: dict[str, np.memmap[Any, Any]], record: dict[str, Any]) -> None:
        self.folder, self.arrays, self.record = folder, arrays, record

    @classmethod
    def open(cls, folder: Path, source: PredictionSource, n: int) -> _WorkState:
        """Return the state in `folder`; a new one if it is empty or damaged."""
        record = {"done": 0, "unreadable": [], "passes": 0}
        try:
            stored = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            if set(stored) == set(record) and 0 <= stored["done"] <= n:
                record = stored
        except (OSError, ValueError, TypeError):
            pass
        arrays: dict[str, np.memmap[Any, Any]] = {}
        if source.cascade is not None:  # models that are skipped have no predictions: only the result is kept
            path, shape = folder / "cascade.npy", (n, len(source.classes))
            return cls(folder, {CASCADE: _open_array(path, shape, new=record["done"] == 0)}, record)
        for run in source.runs:
            for model in run.models:
                path, shape = folder / f"{len(arrays)}.npy", (n, len(run.classes))
                arrays[member_key(run, model)] = _open_array(path, shape, new=record["done"] == 0)
        return cls(folder, arrays, record)

    @property
    def done(self) -> int:
        """Return the number of rows that are complete."""
        return int(self.record["done"])

    @property
    def unreadable(self) -> list[tuple[int, str]]:
        """Return (row, problem) of the images that cannot be used."""
        return [(int(at), str(text)) for at, text in self.record["unreadable"]]

    @property
    def passes(self) -> int:
        """Return the forward passes so far."""
        return int(self.record["passes"])

    def finish(self, done: int, problems: Sequence[tuple[int, str]]) -> None:
        """Record that all rows before `done` are written."""
        for array in self.arrays.values():
            array.flush()
        self.record["done"] = done
        self.record["unreadable"] += [[at, text] for at, text in problems]
        write_json(self.folder / "state.json", self.record)


def _open_array(path: Path, shape: tuple[int, int], new: bool) -> np.memmap[Any, Any]:
    try:
        return np.lib.format.open_memmap(
            path, mode="w+" if new else "r+", dtype=np.float32, shape=shape if new else None
        )
    except (OSError, ValueError) as error:
        raise EnsembleError(f"cannot open {path}: {error}", hint=f"remove {path.parent} to start again") from None


Problems = list[tuple[int, UnreadableImageError]]


def _predict_chunks(
    source: PredictionSource, table: SampleTable, state: _WorkState, device: str
) -> Iterator[tuple[int, int, Problems]]:
    """Fill the arrays of `state` chunk by chunk; yield (first row, row after the last, unusable images) of each.

    The next chunk is decoded while the models work on this one.
    """
    settings = list(dict.fromkeys(model.checkpoint.image_settings for model in source.models))
    largest = max(one.height * one.width * 3 for one in settings)
    size = max(BATCH, _CHUNK_BYTES // len(settings) // largest // BATCH * BATCH)
    starts = list(range(state.done, len(table), size))
    predictor = _Models(source, device)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="decode") as ahead:
        decode = partial(_decode_chunk, table, settings)
        pending = ahead.submit(decode, starts[0], min(starts[0] + size, len(table))) if starts else None
        for at, start in enumerate(starts):
            assert pending is not None  # noqa: S101 - submitted above or in the last round
            stop = min(start + size, len(table))
            pixels, problems = pending.result()
            if at + 1 < len(starts):
                following = starts[at + 1]
                pending = ahead.submit(decode, following, min(following + size, len(table)))
            usable = np.setdiff1d(np.arange(stop - start), [row for row, _ in problems])
            if len(usable):
                state.record["passes"] += predictor.fill(pixels, usable, start, state.arrays)
            yield start, stop, problems


def _decode_chunk(
    table: SampleTable, settings: Sequence[ImageSettings], start: int, stop: int
) -> tuple[dict[ImageSettings, NDArray[np.uint8]], Problems]:
    """Return the pixels (rows, height, width, 3) of each image size, and the unusable images; a file is read once."""
    paths = (table.paths or ())[start:stop]
    pixels = {one: np.zeros((stop - start, one.height, one.width, 3), np.uint8) for one in settings}
    problems: list[UnreadableImageError | None] = [None] * (stop - start)

    def decode(at: int) -> None:
        try:
            data = read_content(paths[at]).data
            for one in settings:
                pixels[one][at] = decode_image(data, one).pixels
        except UnreadableImageError as error:
            problems[at] = error

    map_threads(decode, stop - start, cpu_count(), None)
    return pixels, [(at, problem) for at, problem in enumerate(problems) if problem is not None]


class _Models:
    """The models of a source on a device; kept between chunks if their weights fit `_MODEL_BYTES`."""

    def __init__(self, source: PredictionSource, device: str) -> None:
        self.source, self.device = source, device
        weights = sum(value.nbytes for model in source.models for value in model.checkpoint.weights.values())
        self.kept: dict[Path, tuple[torch.nn.Module, bool]] | None = {} if weights <= _MODEL_BYTES else None

    def fill(
        self,
        pixels: Mapping[ImageSettings, NDArray[np.uint8]],
        usable: NDArray[np.int64],
        start: int,
        arrays: Mapping[str, np.memmap[Any, Any]],
    ) -> int:
        """Write the probabilities of the rows `usable` of a chunk that begins at row `start`; return forward passes."""
        passes = 0
        sources = {one: PixelSource(values, self.device) for one, values in pixels.items()}
        if self.source.cascade is not None:

            def logits(model: FoldModel, rows: NDArray[np.int64], views: Sequence[str]) -> NDArray[np.float32]:
                return self._logits(model, sources[model.checkpoint.image_settings], rows, views)

            return fill_cascade(self.source, usable, logits, start, arrays[CASCADE])
        for run in self.source.runs:
            for model in run.models:
                values, made = self._predict(run.merge, model, sources[model.checkpoint.image_settings], usable)
                # Columns in the order of the blend's recipe.
                order = [model.checkpoint.classes.index(name) for name in run.classes]
                arrays[member_key(run, model)][start + usable] = values[:, order]
                passes += made
        return passes

    def _predict(
        self, merge: Merge, model: FoldModel, pixels: PixelSource, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], int]:
        """Return the merged probabilities (n, classes) of the rows, and the forward passes made."""
        views = merge.views
        first = self._logits(model, pixels, rows, views if merge.threshold is None else views[:1])
        if merge.threshold is None:
            return merge.merged(first) if len(views) > 1 else softmax(first[0]), len(rows) * len(views)
        values, more = softmax(first[0]), merge.needs_more_views(first[0])
        if more.any() and len(views) > 1:
            further = self._logits(model, pixels, rows[more], views[1:])
            values[more] = merge.merged(np.concatenate([first[:, more], further]))
        return values, len(rows) + int(more.sum()) * (len(views) - 1)

    def _logits(
        self, model: FoldModel, pixels: PixelSource, rows: NDArray[np.int64], views: Sequence[str]
    ) -> NDArray[np.float32]:
        network, channels_last = self._network(model)
        checkpoint = model.checkpoint
        return predict_logits(
            network,
            pixels,
            rows,
            checkpoint.architecture.mean,
            checkpoint.architecture.std,
            device=self.device,
            amp=checkpoint.amp_on(self.device),
            channels_last=channels_last,
            views=[view_named(name) for name in views],
        )

    def _network(self, model: FoldModel) -> tuple[torch.nn.Module, bool]:
        if self.kept is not None and model.path in self.kept:
            return self.kept[model.path]
        built = model.checkpoint.build_on(self.device, model.path)
        if self.kept is not None:
            self.kept[model.path] = built
        return built


def _combine(
    source: PredictionSource, table: SampleTable, state: _WorkState, kept: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the combination (n, classes) of the predictions of all models, as `ensemble blend` makes it."""
    if source.cascade is not None:
        return np.array(state.arrays[CASCADE][kept], np.float32)
    all_rows = len(kept) == len(next(iter(state.arrays.values())))
    return combine_members(source, state.arrays, table.rows(), None if all_rows else kept)
