"""Predict new images: decode each once per image size, predict with all models and views, and combine.

Images are processed in chunks, so memory use does not depend on their number. The predictions of every model are
written to a work folder chunk by chunk; a command that was interrupted continues with the first missing chunk.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ensemble.prediction.combine import combine_members
from ensemble.prediction.engine import Engine
from ensemble.prediction.member_spread import member_spread
from ensemble.prediction.models import check_rows_compared
from ensemble.prediction.people import apply_heads, check_precision_of_heads
from ensemble.prediction.prediction_formats import EQUAL, Choice, check_precision, check_reduced
from ensemble.prediction.source import PredictionSource
from ensemble.prediction.work import CASCADE, WorkState, work_key
from folds.data.table import SampleTable
from folds.errors import EnsembleError
from folds.images.checks import refusal
from folds.images.content_index import UnreadableImageError, read_content
from folds.images.decode import decode_image
from folds.images.settings import ImageSettings
from folds.models.accelerators import pins, resolve_devices
from folds.models.inference import BATCH, PixelSource
from folds.utils.files import remove
from folds.utils.locks import exclusive_lock
from folds.utils.parallel import cpu_count, map_threads
from folds.utils.progress import SILENT, Advance, Progress
from folds.utils.text import duration

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 192 << 20  # decoded pixels of a chunk, over all image sizes; two chunks are in memory
_CHUNK_PASSES = 8_000  # forward passes of a chunk: what an interrupt costs, unless weights are loaded for each chunk
_LONG_SECONDS = 5.0  # a shorter prediction reports no rate


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
    formats : architecture → how it was computed (`ensemble.prediction.prediction_formats.Choice`).
    exact : whether every model was computed as in the training.
    choices : key of an architecture → how it was computed.
    work : the work folder, if it was kept.
    spread : (n, columns) how much the runs of a blend of numbers differ; None of other models.
    """

    probabilities: NDArray[np.float32]
    kept: NDArray[np.int64]
    unreadable: SkippedImages
    passes: float
    formats: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    exact: bool = True
    work: Path | None = None
    choices: Mapping[str, Choice] = field(default_factory=dict)
    spread: NDArray[np.float64] | None = None


def predict_table(
    source: PredictionSource,
    table: SampleTable,
    *,
    work: Path,
    device: str = "auto",
    precision: str = "auto",
    tolerance: float = EQUAL,
    root: Path = Path(),
    skip_unreadable: bool = False,
    keep_work: bool = False,
    progress: Progress = SILENT,
) -> Predicted:
    """Return the predictions of all images of a table.

    Parameters
    ----------
    work : folder for the predictions of each model. A later call with the same images, models and precision continues
        there after an interrupt.
    device : ``auto``, ``cpu``, or numbers of GPUs.
    precision, tolerance : how the models are computed; see `ensemble.prediction.prediction_formats.choose`.
    root : the folder that holds ``runs/``.
    skip_unreadable : whether to leave out images that cannot be used.
    keep_work : whether the work folder stays, for the case that the result cannot be written; else it is removed.

    Raises
    ------
    EnsembleError : images cannot be used, all of them in one error; the disk is full; or another command predicts the
        same.
    """
    assert table.paths is not None  # noqa: S101 - tables of images have paths
    check_rows_compared(source, len(table))
    precision = check_precision(precision)
    for task in sorted({source.task, *(model.checkpoint.task for model in source.models)}):
        check_reduced(precision, task)
    check_precision_of_heads(source, precision)
    devices = resolve_devices(device)
    folder = work / work_key(source, table, devices, f"{precision} {tolerance}")
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(folder / "lock", "the prediction of these images"):
        state = WorkState.open(folder, source, len(table))
        if 0 < state.done < len(table):
            logger.info("continuing with image %s of %s", f"{state.done + 1:,}", f"{len(table):,}")
        engine = Engine(source, devices, state, precision, len(table), tolerance, root)
        with engine, progress.step("predicting") as advance:
            _predict_chunks(engine, table, state, advance)
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
        apply_heads(source, table, state, kept)
        values = _combine(source, table.take(kept), state, kept)
        spread = member_spread(source, state.arrays, kept)
    if not keep_work:
        remove(folder)
    unreadable = SkippedImages(tuple(at for at, _ in state.unreadable), tuple(text for _, text in state.unreadable))
    return Predicted(
        values,
        kept,
        unreadable,
        state.passes / max(1, len(kept)),
        engine.formats(),
        all(choice.is_exact for choice in engine.choices.values()),
        folder if keep_work else None,
        dict(engine.choices),
        spread,
    )


Problems = list[tuple[int, UnreadableImageError]]
Sent = tuple[dict[str, dict[ImageSettings, PixelSource]], Problems]


def chunk_rows(source: PredictionSource, settings: Sequence[ImageSettings], keeps_all: bool) -> int:
    """Return the images of a chunk: bounded by memory, and by time unless weights must be loaded for each chunk."""
    rows = _CHUNK_BYTES // sum(one.height * one.width * one.depth for one in settings)
    if keeps_all:
        passes = sum(len(run.merge.views) * len(run.models) for run in source.runs)
        rows = min(rows, _CHUNK_PASSES // max(1, passes))
    return max(BATCH, rows // BATCH * BATCH)


def _predict_chunks(engine: Engine, table: SampleTable, state: WorkState, advance: Advance) -> None:
    """Fill the arrays of `state` chunk by chunk; the next chunk is decoded while the models work on this one."""
    settings = list(dict.fromkeys(model.checkpoint.image_settings for model in engine.source.models))
    size, n = chunk_rows(engine.source, settings, engine.keeps_all), len(table)
    bounds = [(start, min(start + size, n)) for start in range(state.done, n, size)]
    first, began = state.done, time.perf_counter()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="decode") as ahead:
        decode = partial(_decode_chunk, engine, table, settings)
        pending: Future[Sent] | None = ahead.submit(decode, *bounds[0]) if bounds else None
        for at, (start, stop) in enumerate(bounds):
            assert pending is not None  # noqa: S101 - submitted above or in the last round
            pixels, problems = pending.result()
            if at == 0:  # the first images are decoded while no model works: not a part of the rate
                began = time.perf_counter()
                advance(0, n - first)
            if at + 1 < len(bounds):
                pending = ahead.submit(decode, *bounds[at + 1])
            usable = np.setdiff1d(np.arange(stop - start), [row for row, _ in problems])
            if len(usable):
                engine.fill(
                    pixels, usable, start, partial(_advance_within, advance, start - first, stop - first, n - first)
                )
            state.finish(stop, [(start + row, str(problem)) for row, problem in problems])
            advance(stop - first, n - first)
    seconds = time.perf_counter() - began - engine.preparing
    if bounds and seconds > _LONG_SECONDS:
        rate = (n - first) / seconds
        logger.info(f"{n - first:,} images in {duration(seconds)}, {rate:.1f} images/s without loading of models")


def _advance_within(advance: Advance, start: int, stop: int, n: int, share: float) -> None:
    advance(start + int(share * (stop - start)), n)


def _decode_chunk(engine: Engine, table: SampleTable, settings: Sequence[ImageSettings], start: int, stop: int) -> Sent:
    """Return the pixels (rows, …) of each image size, and the unusable images; a file is read once."""
    paths = (table.paths or ())[start:stop]
    pinned = any(map(pins, engine.devices))
    pixels = {one: _buffer((stop - start, *one.shape), pinned) for one in settings}
    problems: list[UnreadableImageError | None] = [None] * (stop - start)

    def decode(at: int) -> None:
        try:
            data = read_content(paths[at]).data
            for one in settings:
                pixels[one][at] = decode_image(data, one).pixels
        except UnreadableImageError as error:
            problems[at] = error

    map_threads(decode, stop - start, cpu_count(), None)
    return engine.send(pixels), [(at, problem) for at, problem in enumerate(problems) if problem is not None]


def _buffer(shape: tuple[int, ...], pinned: bool) -> NDArray[np.uint8]:
    """Return room for pixels; pinned memory is sent to a GPU while it computes."""
    if not pinned:
        return np.zeros(shape, np.uint8)
    buffer: NDArray[np.uint8] = torch.zeros(shape, dtype=torch.uint8, pin_memory=True).numpy()
    return buffer


def _combine(
    source: PredictionSource, table: SampleTable, state: WorkState, kept: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the combination (n, classes) of the predictions of all models, as `ensemble blend` makes it."""
    if source.cascade is not None:
        return np.array(state.arrays[CASCADE][kept], np.float32)
    all_rows = len(kept) == len(next(iter(state.arrays.values())))
    return combine_members(source, state.arrays, table.rows(), None if all_rows else kept)
