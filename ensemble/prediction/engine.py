"""Predict chunks of images with all models: every core of the CPU, or all GPUs, works; weights are bounded in memory.

A **lane** is a device with its own models. On the CPU there is one lane with several streams: small batches are
predicted side by side, each by few threads, so that no core waits for another one. Plain models, whose batches are
large, are predicted by all threads together. Each GPU is a lane with one stream; models are spread over the lanes, or
the rows if there are fewer models than lanes.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ensemble.prediction.cascade import fill_cascade
from ensemble.prediction.combine import member_key
from ensemble.prediction.prediction_formats import (
    EQUAL,
    FAST_BATCH,
    Choice,
    architecture_key,
    batch_size,
    built,
    built_body,
    choose,
)
from ensemble.prediction.source import FoldModel, PredictionSource, RunModels
from ensemble.prediction.work import CASCADE, WorkState
from ensemble.tta.merge import Merge
from ensemble.tta.views import view_named
from folds.images.settings import ImageSettings
from folds.models.inference import PixelSource, predict_logits
from folds.models.person_models import in_features
from folds.models.precision import resolve_amp
from folds.models.timing import torch_threads
from folds.predictions.links import predictions_of
from folds.utils.memory import give_back_freed_memory
from folds.utils.parallel import cpu_count

logger = logging.getLogger(__name__)

# Weights that a lane keeps between chunks; other models are loaded again for each chunk, which is the larger for it.
_MODEL_BYTES, _MODEL_BYTES_CPU = 768 << 20, 384 << 20
_STREAMS = 8  # at most: each holds the activations of a batch

Pixels = Mapping[ImageSettings, NDArray[np.uint8]]


@dataclass
class Lane:
    """A device, the pool of its streams, and the models that it keeps."""

    device: str
    streams: int
    pool: ThreadPoolExecutor
    kept: dict[tuple[Path, str], tuple[torch.nn.Module, bool]] = field(default_factory=dict)
    kept_bytes: int = 0

    @property
    def room(self) -> int:
        """Return how many bytes of weights it keeps."""
        return _MODEL_BYTES_CPU if torch.device(self.device).type == "cpu" else _MODEL_BYTES


@dataclass(frozen=True)
class _Task:
    """Rows of a chunk that one model predicts on one lane."""

    run: RunModels
    model: FoldModel
    rows: NDArray[np.int64]
    lane: Lane


class Engine:
    """All models of a source on the devices; a context manager.

    Parameters
    ----------
    state : where predictions are written; a choice of formats recorded in it is taken over.
    precision : see `ensemble.prediction.prediction_formats.choose`.
    images : number of images in all, to know whether a measurement pays.
    tolerance : largest difference of a probability from the plain computation.
    root : the folder that holds ``runs/``, to check reduced formats on images of the training.
    """

    def __init__(
        self,
        source: PredictionSource,
        devices: Sequence[str],
        state: WorkState,
        precision: str,
        images: int,
        tolerance: float = EQUAL,
        root: Path = Path(),
    ) -> None:
        self.source, self.devices, self.state, self.precision = source, devices, state, precision
        self.images, self.tolerance, self.root = images, tolerance, root
        self.models = state.computed(source)
        try:
            self.choices = {key: Choice(**record) for key, record in state.formats.items()}
        except TypeError:  # of another version
            self.choices = {}
        self.preparing = 0.0  # seconds of loading and measuring, which say nothing about the rate
        self._seen: set[tuple[Path, str]] = set()
        self._stack = ExitStack()
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._stopping = threading.Event()

    def __enter__(self) -> Engine:
        on_cpu = all(torch.device(device).type == "cpu" for device in self.devices)
        self.cores = cores = max(1, cpu_count() // len(self.devices))
        # A few images make few batches: then several threads work on each.
        streams = min(_STREAMS, cores, -(-self.images // FAST_BATCH)) if on_cpu else 1
        if on_cpu:
            self._stack.enter_context(torch_threads(max(1, cores // streams)))
        self.lanes = [Lane(device, streams, self._pool(streams)) for device in self.devices]
        self._coordinators = self._pool(len(self.lanes))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()  # after an error or an interrupt: no thread begins another batch
        self._stack.close()

    def _pool(self, threads: int) -> ThreadPoolExecutor:
        pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="predict")
        self._stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        return pool

    @property
    def keeps_all(self) -> bool:
        """Return whether all weights stay in memory between chunks."""
        weights = sum(model.checkpoint.weight_bytes for _, model in self.models)
        return weights <= sum(lane.room for lane in self.lanes)

    def formats(self) -> dict[str, dict[str, Any]]:
        """Return how each architecture was computed, by its name."""
        named: dict[str, dict[str, Any]] = {}
        for model in self.source.models:
            choice, name = self.choices.get(architecture_key(model)), model.checkpoint.architecture.name
            while choice is not None and named.get(name, choice.to_dict()) != choice.to_dict():
                name += "'"
            if choice is not None:
                named[name] = choice.to_dict()
        return named

    def send(self, pixels: Pixels) -> dict[str, dict[ImageSettings, PixelSource]]:
        """Return the pixels of a chunk for each device; on GPUs they are sent while the chunk before is predicted."""
        return {
            device: {one: PixelSource.sent(values, device) for one, values in pixels.items()} for device in self.devices
        }

    def fill(
        self,
        pixels: Mapping[str, Mapping[ImageSettings, PixelSource]],
        usable: NDArray[np.int64],
        start: int,
        advance: Callable[[float], None] = lambda share: None,
    ) -> int:
        """Write the probabilities of the rows `usable` of a chunk that begins at row `start`; return forward passes.

        Parameters
        ----------
        advance : called with the share of the chunk that is predicted, from one thread at a time.
        """
        self._prepare(pixels[self.devices[0]], usable)
        if self.source.cascade is not None:
            return self._fill_cascade(pixels, usable, start)
        tasks = self._tasks(usable)
        finished = [0.0]

        def work(lane: Lane) -> int:
            passes = 0
            for task in tasks:
                if task.lane is lane and not self._stopping.is_set():
                    passes += self._run(task, pixels[lane.device], start)
                    with self._lock:
                        finished[0] += len(task.rows)
                        advance(finished[0] / (len(usable) * len(self.models)))
            return passes

        passes = sum(self._coordinators.map(work, self.lanes))
        self.state.record["passes"] += passes
        return passes

    def _fill_cascade(
        self, pixels: Mapping[str, Mapping[ImageSettings, PixelSource]], usable: NDArray[np.int64], start: int
    ) -> int:
        """Write the probabilities by the cascade of the source, the rows spread over the lanes; return passes."""

        def work(lane: Lane, rows: NDArray[np.int64]) -> int:
            def logits(model: FoldModel, some: NDArray[np.int64], views: Sequence[str]) -> NDArray[np.float32]:
                task = _Task(self.source.runs[0], model, some, lane)
                images = pixels[lane.device][model.checkpoint.image_settings]
                return self._logits(task, self._network(task), images, some, views)

            return fill_cascade(self.source, rows, logits, start, self.state.arrays[CASCADE]) if len(rows) else 0

        passes = sum(self._coordinators.map(work, self.lanes, np.array_split(usable, len(self.lanes))))
        self.state.record["passes"] += passes
        return passes

    def _tasks(self, usable: NDArray[np.int64]) -> list[_Task]:
        parts = -(-len(self.lanes) // len(self.models))  # more than one if there are fewer models than lanes
        lanes = itertools.cycle(self.lanes)
        split = [part for part in np.array_split(usable, parts) if len(part)]
        return [_Task(run, model, rows, next(lanes)) for run, model in self.models for rows in split]

    def _prepare(self, pixels: Mapping[ImageSettings, PixelSource], usable: NDArray[np.int64]) -> None:
        """Choose how each architecture is computed, unless that is known."""
        began = time.perf_counter()
        passes: dict[str, int] = {}
        first: dict[str, FoldModel] = {}
        for run, model in self.models:
            key = architecture_key(model)
            first.setdefault(key, model)
            passes[key] = passes.get(key, 0) + self.images * len(run.merge.views)
        for key, model in first.items():
            if key in self.choices:
                continue
            device = self.devices[0]
            if torch.device(device).type != "cpu":
                self.choices[key] = _on_gpu(model, device, self.precision)
            else:
                images = pixels[model.checkpoint.image_settings]
                self.choices[key] = choose(
                    model, images, usable, self.precision, passes[key], self.tolerance, self.root
                )
            _log_choice(model, self.choices[key])
            give_back_freed_memory()
        self.state.record["formats"] = {key: _fields_of(choice) for key, choice in self.choices.items()}
        self.preparing += time.perf_counter() - began

    def _run(self, task: _Task, pixels: Mapping[ImageSettings, PixelSource], start: int) -> int:
        checkpoint = task.model.checkpoint
        features = self.state.features.get(member_key(task.run, task.model))
        if features is not None:
            features[start + task.rows] = self._features(task, pixels[checkpoint.image_settings])
            return len(task.rows) * len(task.run.merge.views)
        values, passes = self._predict(task, pixels[checkpoint.image_settings])
        # Columns in the order of the blend's recipe.
        order = [checkpoint.classes.index(name) for name in task.run.classes]
        self.state.arrays[member_key(task.run, task.model)][start + task.rows] = values[:, order]
        return passes

    def _features(self, task: _Task, pixels: PixelSource) -> NDArray[np.float16]:
        """Return the features (n, views · features) of the rows, for a model that needs all images of a person."""
        found = self._logits(task, self._network(task), pixels, task.rows, task.run.merge.views)
        each = in_features(found, task.model.checkpoint.architecture.name)
        return each[0] if len(each) == 1 else np.concatenate(list(each), axis=1)

    def _predict(self, task: _Task, pixels: PixelSource) -> tuple[NDArray[np.float64], int]:
        """Return the merged probabilities (n, classes) of the rows, and the forward passes made."""
        merge: Merge = task.run.merge
        of_task = task.model.checkpoint.task
        rows, views = task.rows, merge.views
        network = self._network(task)
        first = self._logits(task, network, pixels, rows, views if merge.threshold is None else views[:1])
        if merge.threshold is None:
            values = merge.merged(first, of_task) if len(views) > 1 else predictions_of(of_task, first[0])
            return values, len(rows) * len(views)
        values, more = predictions_of(of_task, first[0]), merge.needs_more_views(first[0])
        if more.any() and len(views) > 1:
            further = self._logits(task, network, pixels, rows[more], views[1:])
            values[more] = merge.merged(np.concatenate([first[:, more], further]), of_task)
        return values, len(rows) + int(more.sum()) * (len(views) - 1)

    def _logits(
        self,
        task: _Task,
        network: tuple[torch.nn.Module, bool],
        pixels: PixelSource,
        rows: NDArray[np.int64],
        views: Sequence[str],
    ) -> NDArray[np.float32]:
        lane, choice = task.lane, self.choices[architecture_key(task.model)]
        architecture = task.model.checkpoint.architecture
        functions = [view_named(name) for name in views]
        batch = batch_size(task.model, choice, lane.device)

        def predict(some: NDArray[np.int64]) -> NDArray[np.float32]:
            if self._stopping.is_set():
                raise CancelledError
            return predict_logits(
                network[0],
                pixels,
                some,
                architecture.mean,
                architecture.std,
                device=lane.device,
                amp=choice.amp,
                channels_last=network[1],
                views=functions,
                batch=batch,
            )

        parts = [rows[at : at + batch] for at in range(0, len(rows), batch)]
        if choice.is_exact and torch.device(lane.device).type == "cpu":
            with torch_threads(self.cores):
                return np.concatenate([predict(part) for part in parts], axis=1)
        if lane.streams == 1:
            return predict(rows)
        return np.concatenate(list(lane.pool.map(predict, parts)), axis=1)

    def _network(self, task: _Task) -> tuple[torch.nn.Module, bool]:
        """Return a model on its lane. The first models whose weights fit stay; the others are loaded for each chunk."""
        lane, choice = task.lane, self.choices[architecture_key(task.model)]
        key = (task.model.path, choice.way)
        if key in lane.kept:
            return lane.kept[key]
        with self._loading:  # one checkpoint is in memory at a time
            began = time.perf_counter()
            of_people = member_key(task.run, task.model) in self.state.features
            network = (built_body if of_people else built)(task.model, lane.device, choice)
            give_back_freed_memory()
            weights = task.model.checkpoint.weight_bytes
            if lane.kept_bytes + weights <= lane.room:
                lane.kept[key] = network
                lane.kept_bytes += weights
            if key not in self._seen:  # a model that is loaded for each chunk costs that time for each chunk
                self._seen.add(key)
                self.preparing += time.perf_counter() - began
        return network


def _fields_of(choice: Choice) -> dict[str, Any]:
    """Return the fields of a choice, to be recorded."""
    return {**choice.to_dict(), "rates": dict(choice.rates)}


def _on_gpu(model: FoldModel, device: str, precision: str) -> Choice:
    """Return the number format of a model on a GPU: that of its training, unless another one is asked for."""
    if precision == "auto":
        return Choice(model.checkpoint.amp_on(device), "as in the training")
    if precision == "fp32":
        return Choice("off", "as requested")
    return Choice(*resolve_amp("bf16" if precision == "bf16" else "auto", device))


def _log_choice(model: FoldModel, choice: Choice) -> None:
    """Log how an architecture is computed, with the measured rates, in one line, unless it is as in the training."""
    if choice.is_exact and not choice.rates:
        return
    name = model.checkpoint.architecture.name
    rates = ", ".join(f"{way} {rate:.1f}" for way, rate in choice.rates.items())
    measured = f" (images/s per stream: {rates})" if rates else ""
    logger.info("%s is computed in %s: %s%s", name, choice.way, choice.reason, measured)
