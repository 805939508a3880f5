"""Compute the features of images, once for all jobs that share backbone and images, on all cores or GPUs."""

from __future__ import annotations

import itertools
import logging
import queue
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from folds.augmentation.batch import center_crop
from folds.config.frozen import views_of
from folds.errors import EnsembleError
from folds.features.backbone import Backbone, backbone_of, channels_last_of
from folds.features.store import FeatureKey, FeatureWriter, locked_features, read_features
from folds.images.channel_sums import mean_std
from folds.models.accelerators import kind_of, prefers_channels_last
from folds.models.fusion import fused
from folds.models.inference import PixelSource, View, identity, predict_logits
from folds.models.precision import resolve_amp
from folds.splits.assignment import read_folds
from folds.training.examples import learned_rows
from folds.training.job import Job
from folds.utils.files import json_text
from folds.utils.parallel import cpu_count
from folds.utils.progress import SILENT, Progress

logger = logging.getLogger(__name__)

BATCH = 32  # images of a forward pass; part of the result, as other batches give other last bits
_DIFFERENCE = 2e-3  # of a rebuilt model from the model, relative to the largest feature: the step of float16
_FLIPS: dict[str, tuple[int, ...]] = {"hflip": (3,), "vflip": (2,), "rot180": (2, 3)}


def view_of(name: str) -> View:
    """Return a view as a function of images (n, 3, height, width)."""
    if name == "plain":
        return _geometric(identity)
    return _geometric(lambda batch: batch.flip(_FLIPS[name]))


def _geometric(function: Callable[[Tensor], Tensor]) -> View:
    def view(batch: Tensor) -> Tensor:
        return function(batch)

    view.geometric_only = True  # type: ignore[attr-defined]
    return view


def embed_jobs(jobs: Sequence[Job], devices: Sequence[str], progress: Progress = SILENT) -> list[Job]:
    """Return the jobs with the files of their features, which are computed first if they do not exist.

    Jobs that are not about frozen features stay as they are.

    Parameters
    ----------
    devices : of torch, without repetition.
    """
    if not any(is_frozen(job) for job in jobs):
        return list(jobs)
    done: dict[str, dict[str, str | None]] = {}
    ready: list[Job] = []
    with progress.step("computing features") as advance:
        for job in jobs:
            if not is_frozen(job) or job.features is not None:
                ready.append(job)
                continue
            job = _with_statistics(job)
            key = json_text([job.architecture, job.recipe.get("init"), job.init, job.recipe.get("pretrained")])
            key += json_text(
                [
                    job.recipe.get("channels_last"),
                    job.pretrained_sha,
                    job.pixels,
                    job.test_pixels,
                    job.recipe.get("feature_views"),
                    job.amp,
                ]
            )
            if key not in done:
                done[key] = _embed(job, devices, advance)
            ready.append(replace(job, features=done[key]))
    return ready


def is_frozen(job: Job) -> bool:
    """Return whether a job trains a head on frozen features."""
    return bool(job.recipe.get("features"))


def _with_statistics(job: Job) -> Job:
    """Return the job with the mean and std of its training images in its architecture, if it normalizes with them."""
    if job.recipe.get("normalise") != "data":
        return job
    pixels = PixelSource.of(Path(job.pixels), "cpu").values
    assignment = read_folds(Path(job.folder) / "folds.csv")
    rows = np.arange(len(assignment)) if job.refit is not None else assignment.training_index(job.fold)
    rows = learned_rows(job, assignment, rows)
    mean, std = mean_std(pixels, rows, file=Path(job.pixels), threads=job.threads)
    statistics = {"mean": tuple(mean.tolist()), "std": tuple(np.maximum(std, 1e-3).tolist())}
    return replace(job, architecture=job.architecture | statistics)


def _embed(job: Job, devices: Sequence[str], advance: Callable[[int, int], None]) -> dict[str, str | None]:
    """Return the files of the features of the training images, with all views, and of the test images, plain.

    The hash of the weights goes with them, so that a job notices a file of weights that was changed since.
    """
    views = list(views_of(job.recipe.get("feature_views")))
    folder = Path(job.pixels).parent.parent / "features"
    backbone = backbone_of(job)
    engine = _Engine(backbone, job, devices)
    train = engine.features(Path(job.pixels), views, folder, advance)
    test = None if job.test_pixels is None else engine.features(Path(job.test_pixels), ["plain"], folder, advance)
    return {"train": str(train), "test": None if test is None else str(test), "weights": backbone.sha}


class _Engine:
    """A backbone on the devices; its fast form is built when it is first needed."""

    def __init__(self, backbone: Backbone, job: Job, devices: Sequence[str]) -> None:
        self.backbone, self.devices = backbone, tuple(dict.fromkeys(devices))
        self.amp = resolve_amp(job.amp, self.devices[0])[0]
        self.on_cpu = self.devices[0] == "cpu"
        setting = job.recipe.get("channels_last")
        self.channels_last = channels_last_of(backbone.body, setting)
        if setting is None and not prefers_channels_last(self.devices[0]):
            self.channels_last = False

    def key(self, pixels: Path, views: Sequence[str]) -> FeatureKey:
        """Return what the features of some images depend on."""
        architecture = self.backbone.architecture
        record = {name: value for name, value in architecture.to_dict().items() if name not in ("name", "head")}
        fields = {
            "weights": self.backbone.sha,
            "architecture": record,
            "views": list(views),
            "amp": self.amp,
            "device": kind_of(self.devices[0]),
            "channels_last": self.channels_last,
            "batch": BATCH,
            "versions": {"torch": torch.__version__, "timm": timm.__version__},
            "cpu": torch.backends.cpu.get_cpu_capability() if self.on_cpu else "",
        }
        images = np.load(pixels, mmap_mode="r", allow_pickle=False)
        return FeatureKey(fields, pixels.stem, (len(images), len(views), self.backbone.size))

    def features(self, pixels: Path, views: Sequence[str], folder: Path, advance: Callable[[int, int], None]) -> Path:
        """Return the file of the features of some images."""
        key = self.key(pixels, views)
        found = read_features(folder, key)
        if found is not None:
            return found
        with locked_features(folder, key):
            found = read_features(folder, key)
            if found is not None:  # another process computed them
                return found
            writer = FeatureWriter(folder, key)
            try:
                self._fill(writer, pixels, views, advance)
                return writer.finish()
            finally:
                writer.close()

    def _fill(
        self, writer: FeatureWriter, pixels: Path, views: Sequence[str], advance: Callable[[int, int], None]
    ) -> None:
        """Compute the missing blocks, several at a time."""
        total, functions = writer.key.shape[0], [view_of(name) for name in views]
        finished = total - sum(after - first for first, after in writer.missing)
        if finished:
            logger.info(f"features of {finished:,} of {total:,} images were computed before")
        values = np.load(pixels, mmap_mode="r", allow_pickle=False)
        slots: queue.Queue[tuple[nn.Module, str]] = queue.Queue()
        workers = cpu_count() if self.on_cpu else len(self.devices)
        for model, device in itertools.islice(itertools.cycle(self._models(values)), workers):
            slots.put((model, device))

        def one(block: tuple[int, int]) -> int:
            model, device = slots.get()
            try:
                writer.write(block[0], self._block(model, device, values, np.arange(*block), functions))
            finally:
                slots.put((model, device))
            return block[1] - block[0]

        # Each thread has its own setting of OpenMP, so it is made in each.
        with (
            _one_thread(),
            ThreadPoolExecutor(workers, "features", initializer=torch.set_num_threads, initargs=(1,)) as pool,
        ):
            try:
                for rows in pool.map(one, writer.missing):
                    finished += rows
                    advance(finished, total)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _models(self, values: NDArray[np.uint8]) -> list[tuple[nn.Module, str]]:
        """Return the model on each device; on the CPU in its fastest form that gives the same features."""
        body = self.backbone.body
        layout: Any = torch.channels_last if self.channels_last else torch.contiguous_format
        if not self.on_cpu:
            return [(_copy_to(body, device, layout), device) for device in self.devices]
        body = body.to(memory_format=layout)
        dtype = torch.bfloat16 if self.amp == "bf16" else torch.float32
        architecture = self.backbone.architecture
        images = center_crop(torch.from_numpy(np.array(values[:2])), (architecture.height, architecture.width))
        sample = images.permute(0, 3, 1, 2).float().div_(255)
        center, deviation = (torch.tensor(one)[:, None, None] for one in (architecture.mean, architecture.std))
        sample = sample.sub_(center).div_(deviation)
        try:
            fast, steps = fused(body, dtype, sample)
        except RuntimeError:
            return [(body, "cpu")]
        with torch.inference_mode():
            expected, found = body(sample).float(), fast(sample)
        allowed = _DIFFERENCE * float(expected.abs().max()) * (20 if dtype is torch.bfloat16 else 1)
        if found.shape != expected.shape or not bool(((found - expected).abs() <= allowed).all()):
            return [(body, "cpu")]
        logger.debug(f"features: {steps}")
        return [(_Fast(fast), "cpu")]

    def _block(
        self, model: nn.Module, device: str, values: NDArray[np.uint8], rows: NDArray[np.int64], views: Sequence[View]
    ) -> NDArray[np.float16]:
        architecture = self.backbone.architecture
        found = predict_logits(
            model,
            PixelSource(values, "cpu") if self.on_cpu else _Sent(values, device),
            rows,
            architecture.mean,
            architecture.std,
            device=device,
            amp="off" if isinstance(model, _Fast) else self.amp,
            channels_last=self.channels_last,
            views=views,
            batch=BATCH,
            size=(architecture.height, architecture.width),
        )
        with np.errstate(over="ignore"):
            features = found.astype(np.float16)
        if not np.isfinite(features).all():
            what = "not finite" if not np.isfinite(found).all() else f"up to {np.abs(found).max():.3g}, beyond float16"
            raise EnsembleError(
                f"the features of {architecture.name} are {what}",
                hint="`amp=off` computes in float32; check the weights of the model",
            )
        return features.transpose(1, 0, 2)


class _Fast(nn.Module):
    """A rebuilt model, which casts its inputs itself."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.model(images)
        return result


class _Sent(PixelSource):
    """Images that are sent batch by batch, however large the memory of the device is."""

    def __init__(self, values: NDArray[np.uint8], device: str) -> None:
        super().__init__(values[:0], device)
        self.values, self.resident = values, None


def _copy_to(body: nn.Module, device: str, layout: Any) -> nn.Module:
    import copy

    return copy.deepcopy(body).to(device).to(memory_format=layout)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute each forward pass in one thread: several passes run side by side, and the bytes depend on no number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
