"""Load and run a transform of the user (``module:object``), on the decoded uint8 image and before all other
augmentation.

Three kinds of transforms are supported: albumentations (``transform(image=image)["image"]``), torchvision and other
torch modules (a uint8 tensor (3, height, width)), and any callable of ``(image)`` or ``(image, rng)``. Each image has
its own random numbers from its own seed, so the result does not depend on the batch or on earlier calls.
"""

from __future__ import annotations

import contextlib
import inspect
import random
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.errors import EnsembleError, UsageError
from folds.utils.files import sha256_file
from folds.utils.plugins import load_object

Images = NDArray[np.uint8]
_EXAMPLE = "`transform=my_transforms:train` takes train from my_transforms.py in the current folder"
# Random states are global to the process, so only one image at a time may be transformed with them.
_globals = threading.Lock()


@dataclass(frozen=True)
class Transform:
    """A loaded transform.

    Attributes
    ----------
    name : as the user gave it.
    sha : hex SHA-256 of the module's file, empty if it has none; modules that it imports are not included.
    call : uint8 (height, width, 3) that may be changed, seed → the result of the user's object.
    torch_threads : threads of torch, if the transform uses torch; None to leave them as they are.
    """

    name: str
    sha: str
    call: Callable[[Images, int], Any]
    torch_threads: int | None = None

    def batch(self, images: Images, seeds: Sequence[int], out: Images | None = None) -> Images:
        """Return uint8 (n, height, width, 3) with each image transformed; the random states of the process are
        unchanged.

        Only one thread at a time may call this, and no other thread may use the random states of torch, numpy or Python
        meanwhile.

        Parameters
        ----------
        out : where the result is written, which may be `images`; None for a new array.

        Raises
        ------
        EnsembleError : the transform fails, or does not return an image of the size that it was given.
        """
        transformed = np.empty_like(images) if out is None else out
        with _preserve_random_states():
            for i, seed in enumerate(seeds):
                transformed[i] = self._one(images[i], seed)
        return transformed

    def check(self, height: int, width: int) -> None:
        """Check on random noise of this size that the transform returns an image, and the same image for the same seed.

        Raises
        ------
        EnsembleError : an error of `batch`, or the transform is not repeatable.
        """
        noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        seeds = list(range(8))
        first = self.batch(np.stack([noise] * len(seeds)), seeds)
        again = self.batch(np.stack([noise] * len(seeds)), seeds[::-1])[::-1]
        if not np.array_equal(first, again):
            raise EnsembleError(
                f"`transform={self.name}` gave different images for the same seed: training could not be repeated or "
                "resumed",
                hint="use random, numpy.random or torch, which are seeded for each image, or rng in a function of "
                "(image, rng)",
            )

    def _one(self, image: Images, seed: int) -> Images:
        if (before := _torch()) is not None:
            return self._seeded(image, seed)
        try:
            result = self._seeded(image, seed)
        except EnsembleError:
            if _torch() is before:
                raise
        else:
            if _torch() is before:
                return result
        # The first call of the transform has imported torch, whose random numbers were not seeded before it.
        self.limit_torch()
        return self._seeded(image, seed)

    def limit_torch(self) -> None:
        """Set the threads of torch, if it is loaded."""
        torch = _torch()
        if torch is not None and self.torch_threads is not None:
            torch.set_num_threads(self.torch_threads)

    def _seeded(self, image: Images, seed: int) -> Images:
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch = _torch()
        if torch is not None:
            torch.default_generator.manual_seed(seed)  # only of the CPU: the model uses that of the GPU
        try:
            result = self.call(np.array(image), seed)
        except Exception as error:
            size = f"{image.shape[0]}×{image.shape[1]}"
            raise EnsembleError(
                f"`transform={self.name}` failed on an image of {size}: {type(error).__name__}: {error}",
                hint="its input is the decoded uint8 image: remove ToTensor, Normalize and transforms that read files",
            ) from error
        return self._checked(result, image.shape)

    def _checked(self, result: Any, shape: tuple[int, ...]) -> Images:
        # A result of a library that is not loaded cannot be.
        is_tensor = _is_instance(result, "torch", "Tensor")
        if not (is_tensor or isinstance(result, np.ndarray) or _is_instance(result, "PIL.Image", "Image")):
            raise self._wrong(
                f"a {type(result).__name__}",
                "return the image: an array (height, width, 3) or a tensor (3, height, width)",
            )
        values = result.detach().cpu().numpy() if is_tensor else np.asarray(result)
        expected = (shape[2], *shape[:2]) if is_tensor else shape
        if values.shape != expected:
            hint = "crop and resize to `img_size`, e.g. RandomResizedCrop(size=(height, width))"
            raise self._wrong(f"{type(result).__name__} of shape {values.shape}, expected {expected}", hint)
        if np.issubdtype(values.dtype, np.floating):
            low, high = float(values.min()), float(values.max())
            if not (low >= -1e-3 and high <= 1 + 1e-3):  # also true for nan
                raise self._wrong(
                    f"floats from {low:g} to {high:g}, expected 0 to 1",
                    "remove Normalize, which is applied later, or return uint8",
                )
            values = (values.clip(0, 1) * 255).round().astype(np.uint8)
        if values.dtype != np.uint8:
            raise self._wrong(
                f"values of type {values.dtype}, expected uint8 or floats from 0 to 1",
                "return image.astype(numpy.uint8)",
            )
        return values.transpose(1, 2, 0) if is_tensor else values

    def _wrong(self, found: str, hint: str) -> EnsembleError:
        return EnsembleError(f"`transform={self.name}` returned {found}", hint=hint)


def _torch() -> Any:
    """Return the module torch; None if it is not loaded.

    A process that only transforms images does not import it by itself: that takes seconds and a quarter of a gigabyte.
    """
    torch = sys.modules.get("torch")
    return torch if hasattr(torch, "default_generator") else None


def _is_instance(result: Any, module: str, name: str) -> bool:
    """Return whether a value is an instance of a class of a module that may not be loaded."""
    kind = getattr(sys.modules.get(module), name, None)
    return kind is not None and isinstance(result, kind)


def load_transform(name: str, torch_threads: int | None = None) -> Transform:
    """Return the transform named ``module:object``; the current folder is searched first, as in `python -m`.

    Importing a module runs it, so use this only for a name that the user gave, never for one read from a checkpoint.

    Parameters
    ----------
    torch_threads : see `Transform`.

    Raises
    ------
    UsageError : the module or the object does not exist, cannot be imported, or cannot be called with an image.
    """
    module, found = load_object(name, "transform", _EXAMPLE)
    if inspect.isclass(found):
        hint = f"write train = {name.partition(':')[2]}(…) into {module.__name__} and give {module.__name__}:train"
        raise UsageError(f"`transform={name}` is a class, expected an instance", hint=hint)
    if not callable(found):
        raise UsageError(
            f"`transform={name}` is a {type(found).__name__}, expected a function of an image", hint=_EXAMPLE
        )
    file = getattr(module, "__file__", None)
    sha = sha256_file(Path(file)) if file else ""
    transform = Transform(name, sha, _call_with_seed(name, found), torch_threads)
    transform.limit_torch()
    return transform


def _call_with_seed(name: str, found: Callable[..., Any]) -> Callable[[Images, int], Any]:
    roots = {str(getattr(kind, "__module__", "")).split(".")[0] for kind in (found, *type(found).__mro__)}
    if "albumentations" in roots:
        seeded = getattr(found, "set_random_seed", None)  # versions before 1.4.19 use Python's random state

        def by_keyword(image: Images, seed: int) -> Any:
            if seeded is not None:
                seeded(seed % 2**32)
            return found(image=image)["image"]

        return by_keyword
    if roots & {"torchvision", "torch"}:
        import torch

        return lambda image, seed: found(torch.from_numpy(image).permute(2, 0, 1).contiguous())
    match _call_style(name, found):
        case "image":
            return lambda image, seed: found(image)
        case "positional":
            return lambda image, seed: found(image, np.random.default_rng(seed))
    return lambda image, seed: found(image, rng=np.random.default_rng(seed))


def _call_style(name: str, found: Callable[..., Any]) -> str:
    """Return how to call a callable: with the ``image`` only, with a generator as second ``positional`` argument, or
    ``named`` ``rng``.
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
            f"`transform={name}` takes {inspect.signature(found)}, expected (image) or (image, rng)",
            hint="rng is a numpy.random.Generator",
        )
    if any(
        p.name == "rng" and p.kind != p.POSITIONAL_ONLY for p in (p for p in parameters if p not in by_position[:1])
    ):
        return "named"
    return "positional" if len(needed) == 2 else "image"


@contextlib.contextmanager
def _preserve_random_states() -> Iterator[None]:
    """Restore the random states of Python, numpy and torch (CPU) after the block; one thread at a time."""
    with _globals:
        states = random.getstate(), np.random.get_state()
        torch = _torch()
        of_torch = None if torch is None else torch.get_rng_state()
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
            if of_torch is not None:
                torch.set_rng_state(of_torch)
