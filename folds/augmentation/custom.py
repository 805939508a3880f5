"""Load and run a transform that the user brings (``module:object``), on the decoded uint8 image and before everything
else.

Three ways of calling are known: albumentations (``transform(image=image)["image"]``), torchvision and other torch
modules
(a uint8 tensor (3, height, width)), and any callable of ``(image)`` or ``(image, rng)``. Whichever it is, each image
gets
random numbers of its own from a seed of its own, so that the result depends neither on the batch nor on what ran
before.
"""

from __future__ import annotations

import contextlib
import inspect
import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from folds.errors import EnsembleError, UsageError
from folds.utils.files import sha256_file
from folds.utils.plugins import load_object

Images = NDArray[np.uint8]
_EXAMPLE = "--transform my_transforms:train takes train from my_transforms.py in this folder"
# The random states of the process are one a process: while they are an image's, no other image may be transformed.
_globals = threading.Lock()


@dataclass(frozen=True)
class Transform:
    """A transform, loaded.

    Attributes
    ----------
    name : as the user gave it.
    sha : hex SHA-256 of the file that its module is, empty where it is none; modules that this one imports are not in
        it.
    call : uint8 (height, width, 3) that may be written to, seed → what the user's object returns.
    """

    name: str
    sha: str
    call: Callable[[Images, int], Any]

    def batch(self, images: Images, seeds: Sequence[int]) -> Images:
        """uint8 (n, height, width, 3) → the same shape, transformed; the images themselves and the process's random
        states stay.

        On one thread at a time, and not beside another thread that draws from the random states of torch, numpy or
        Python.

        Raises
        ------
        EnsembleError : the transform fails, or does not return an image of the size that it was given.
        """
        done = np.empty_like(images)
        with _kept_states():
            for i, seed in enumerate(seeds):
                done[i] = self._one(images[i], seed)
        return done

    def check(self, height: int, width: int) -> None:
        """Try it on noise of that size: what it returns is an image, and with the same seed the same image.

        Raises
        ------
        EnsembleError : as `batch`, or it is not repeatable.
        """
        noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        seeds = list(range(8))
        first = self.batch(np.stack([noise] * len(seeds)), seeds)
        again = self.batch(np.stack([noise] * len(seeds)), seeds[::-1])[::-1]
        if not np.array_equal(first, again):
            raise EnsembleError(
                f"--transform {self.name} gave another image for the same seed: a training could not be repeated or "
                "resumed",
                hint="draw from random, numpy.random or torch, which are seeded for each image, or from rng in a "
                "function of (image, rng)",
            )

    def _one(self, image: Images, seed: int) -> Images:
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)  # of the CPU alone: a GPU's is the model's
        try:
            result = self.call(np.array(image), seed)
        except Exception as error:
            size = f"{image.shape[0]}×{image.shape[1]}"
            raise EnsembleError(
                f"--transform {self.name} failed on an image of {size}: {type(error).__name__}: {error}",
                hint="it is given the decoded uint8 image: leave out ToTensor, Normalize and what reads files",
            ) from error
        return self._checked(result, image.shape)

    def _checked(self, result: Any, shape: tuple[int, ...]) -> Images:
        if not isinstance(result, torch.Tensor | np.ndarray | Image.Image):
            raise self._wrong(
                f"a {type(result).__name__}",
                "return the image: an array (height, width, 3) or a tensor (3, height, width)",
            )
        of_torch = isinstance(result, torch.Tensor)
        values = result.detach().cpu().numpy() if isinstance(result, torch.Tensor) else np.asarray(result)
        expected = (shape[2], *shape[:2]) if of_torch else shape
        if values.shape != expected:
            hint = "the size is --img-size's: crop and resize to it, e.g. RandomResizedCrop(size=(height, width))"
            raise self._wrong(f"{type(result).__name__} of shape {values.shape}, expected {expected}", hint)
        if np.issubdtype(values.dtype, np.floating):
            low, high = float(values.min()), float(values.max())
            if not (low >= -1e-3 and high <= 1 + 1e-3):  # also what is no number
                raise self._wrong(
                    f"floats from {low:g} to {high:g}, expected 0 to 1",
                    "leave out Normalize, which comes later anyway, or return uint8",
                )
            values = (values.clip(0, 1) * 255).round().astype(np.uint8)
        if values.dtype != np.uint8:
            raise self._wrong(
                f"values of type {values.dtype}, expected uint8 or floats from 0 to 1",
                "return image.astype(numpy.uint8)",
            )
        return values.transpose(1, 2, 0) if of_torch else values

    def _wrong(self, found: str, hint: str) -> EnsembleError:
        return EnsembleError(f"--transform {self.name} returned {found}", hint=hint)


def load_transform(name: str) -> Transform:
    """Return the transform of that name: ``module:object``, the module looked for in the current folder first, as
    `python -m` does.

    Importing a module runs it: only for a name that the user gave, never for one that was read from a checkpoint.

    Raises
    ------
    UsageError : the module or the object is not there, cannot be imported, or cannot be called with an image.
    """
    module, found = load_object(name, "--transform", _EXAMPLE)
    if inspect.isclass(found):
        hint = f"write train = {name.partition(':')[2]}(…) into {module.__name__} and name that"
        raise UsageError(f"--transform {name} is a class, expected an object of it", hint=hint)
    if not callable(found):
        raise UsageError(
            f"--transform {name} is a {type(found).__name__}, expected something to call with an image", hint=_EXAMPLE
        )
    file = getattr(module, "__file__", None)
    return Transform(name, sha256_file(Path(file)) if file else "", _calling(name, found))


def _calling(name: str, found: Callable[..., Any]) -> Callable[[Images, int], Any]:
    roots = {str(getattr(kind, "__module__", "")).split(".")[0] for kind in (found, *type(found).__mro__)}
    if "albumentations" in roots:
        seeded = getattr(found, "set_random_seed", None)  # its versions before 1.4.19 draw from Python's random state

        def by_keyword(image: Images, seed: int) -> Any:
            if seeded is not None:
                seeded(seed % 2**32)
            return found(image=image)["image"]

        return by_keyword
    if roots & {"torchvision", "torch"}:
        return lambda image, seed: found(torch.from_numpy(image).permute(2, 0, 1).contiguous())
    match _wanted(name, found):
        case "image":
            return lambda image, seed: found(image)
        case "positional":
            return lambda image, seed: found(image, np.random.default_rng(seed))
    return lambda image, seed: found(image, rng=np.random.default_rng(seed))


def _wanted(name: str, found: Callable[..., Any]) -> str:
    """Return how a callable is called: with the ``image`` alone, with a generator as second ``positional`` argument, or
    by the name ``rng``.
    """
    try:
        parameters = list(inspect.signature(found).parameters.values())
    except (TypeError, ValueError):  # written in C: no signature
        return "image"
    by_position = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = [p for p in by_position if p.default is p.empty]
    keywords = [p.name for p in parameters if p.kind == p.KEYWORD_ONLY and p.default is p.empty]
    starred = any(p.kind == p.VAR_POSITIONAL for p in parameters)
    if len(needed) > 2 or not (by_position or starred) or set(keywords) - {"rng"}:
        raise UsageError(
            f"--transform {name} takes {inspect.signature(found)}, expected (image) or (image, rng)",
            hint="rng is a numpy.random.Generator",
        )
    if any(
        p.name == "rng" and p.kind != p.POSITIONAL_ONLY for p in (p for p in parameters if p not in by_position[:1])
    ):
        return "named"
    return "positional" if len(needed) == 2 else "image"


@contextlib.contextmanager
def _kept_states() -> Iterator[None]:
    """The random states of Python, numpy and torch (CPU) are afterwards what they were; one thread at a time."""
    with _globals:
        states = random.getstate(), np.random.get_state(), torch.get_rng_state()
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
            torch.set_rng_state(states[2])


_loaded: Transform | None = None  # of a worker


class TransformPool:
    """Batches through a transform; what comes out is the same for any number of workers.

    Parameters
    ----------
    name : ``module:object``, which each worker loads for itself.
    workers : processes; 0: this one, which then must not draw random numbers in another thread meanwhile.

    Raises
    ------
    UsageError : as `load_transform`.
    """

    def __init__(self, name: str, workers: int = 0) -> None:
        self.transform = load_transform(name)
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None
        if workers:
            # Not forked: torch's threads and the GPU do not survive it.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(
                workers, mp_context=context, initializer=_begin, initargs=(name, os.getpid())
            )

    def batch(self, images: Images, seeds: Sequence[int]) -> Images:
        """Return as `Transform.batch`: uint8 (n, height, width, 3) → the same shape."""
        if self._pool is None:
            return self.transform.batch(images, seeds)
        parts = np.array_split(np.arange(len(images)), self.workers)
        try:
            sent = [
                self._pool.submit(_transformed, images[rows], [seeds[i] for i in rows]) for rows in parts if len(rows)
            ]
            done = [one.result() for one in sent]
        except BrokenProcessPool as error:
            raise EnsembleError(
                f"--transform {self.transform.name}: a process that transforms images was ended from outside or could "
                "not start",
                hint="out of memory is the usual reason; go on with --resume",
            ) from error
        return np.concatenate(done) if done else images.copy()

    def close(self) -> None:
        """End the workers."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> TransformPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _begin(name: str, parent: int) -> None:
    global _loaded
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's; it ends its workers
    torch.set_num_threads(1)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _loaded = load_transform(name)


def _end_with(parent: int) -> None:
    # However the parent dies: a worker that waits for work does not notice it.
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _transformed(images: Images, seeds: Sequence[int]) -> Images:
    if _loaded is None:
        raise RuntimeError("a worker without a transform")
    return _loaded.batch(images, seeds)
