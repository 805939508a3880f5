"""Turn what people pass as images (paths, arrays, PIL images, bytes, tables) into functions that decode them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ensemble.prediction.inputs import content_ids
from folds.data.image_folder import is_image
from folds.data.table import SampleTable
from folds.errors import EnsembleError, UsageError
from folds.images.checks import refusal
from folds.images.content_index import UnreadableImageError, read_content
from folds.images.decode import decode_image, fit_array, fit_image
from folds.images.settings import ImageSettings
from folds.utils.arguments import described
from folds.utils.files import sha256_bytes
from folds.utils.parallel import cpu_count, map_threads

if TYPE_CHECKING:
    from PIL import Image

EXPECTED = "paths, uint8 arrays (height, width, 3), PIL images, a DataFrame, a folder or a table"


Problems = list[tuple[int, UnreadableImageError]]  # place in the list, and why it cannot be used


@dataclass(frozen=True)
class ImageList:
    """Images that are decoded one by one.

    Attributes
    ----------
    ids : one per image: its path, or its number.
    openers : functions (settings) → uint8 (height, width, 3).
    names : of the images in errors; () for their ids.
    contents : functions that return a hash of the content of an image.
    """

    ids: tuple[str, ...]
    openers: tuple[Callable[[ImageSettings], NDArray[np.uint8]], ...]
    names: tuple[str, ...] = ()
    contents: tuple[Callable[[], str], ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def decoded(
        self, index: Sequence[int], settings: Sequence[ImageSettings]
    ) -> tuple[dict[ImageSettings, NDArray[np.uint8]], Problems]:
        """Return the pixels of some images in every size, and the images that cannot be used."""
        pixels = {one: np.empty((len(index), *one.shape), np.uint8) for one in settings}
        problems: list[UnreadableImageError | None] = [None] * len(index)

        def decode(at: int) -> None:
            try:
                for one in settings:
                    pixels[one][at] = self.openers[index[at]](one)
            except UnreadableImageError as error:
                problems[at] = error

        if len(index) == 1:
            decode(0)
        else:
            map_threads(decode, len(index), cpu_count(), None)
        return pixels, [(index[at], one) for at, one in enumerate(problems) if one is not None]

    def refusal(self, problems: Problems) -> EnsembleError:
        """Return one error for all images that cannot be used."""
        return refusal(problems, [Path(name) for name in self.names or self.ids], None)


def images_of_table(table: SampleTable) -> ImageList:
    """Return the images of a table, with its ids."""
    paths = list(table.paths or ())
    openers = tuple(_opener(at, path) for at, path in enumerate(paths))
    contents = tuple(_content(path) for path in paths)
    return ImageList(tuple(table.ids.tolist()), openers, tuple(map(str, paths)), contents)


def images_of(images: Any, stack: Sequence[str] = (), channels: bool = False) -> ImageList | SampleTable | Path:
    """Return the images as a list, as a table (of a DataFrame), or as the path of a folder, a table or a pattern.

    Parameters
    ----------
    stack : columns of a DataFrame with the files of a sample, if the models read several.
    channels : whether arrays may have other channels than those of a picture.

    Raises
    ------
    UsageError : it is nothing of this kind, or empty.
    """
    if hasattr(images, "columns") and hasattr(images, "iloc"):
        return _of_frame(images, stack)
    if isinstance(images, str | Path):
        path, text = Path(images), str(images)
        one_file = is_image(text) and not path.is_dir() and (path.exists() or not any(mark in text for mark in "*?["))
        return _list([images]) if one_file else path
    if isinstance(images, np.ndarray):
        return _list(list(images) if images.ndim == 4 or images.ndim == 1 else [images], channels)
    if isinstance(images, bytes | bytearray) or _is_pil(images):
        return _list([images])
    if not isinstance(images, Iterable) or isinstance(images, dict):
        raise UsageError(f"`images` must be {EXPECTED}, found {described(images)}")
    return _list(list(images), channels)


def _of_frame(frame: Any, stack: Sequence[str]) -> SampleTable:
    from folds.data.readers import table_from_frame

    return table_from_frame(frame, stack=stack, training=False)


def _list(images: list[Any], channels: bool = False) -> ImageList:
    if not images:
        raise UsageError("expected one image or more, found none", hint=f"`images` are {EXPECTED}")
    openers = tuple(_opener(at, one, channels) for at, one in enumerate(images))
    return ImageList(
        tuple(str(one) if isinstance(one, str | Path) else str(at) for at, one in enumerate(images)),
        openers,
        contents=tuple(map(_content, images)),
    )


def _content(image: Any) -> Callable[[], str]:
    """Return a function that hashes an image: the bytes of its file, or the mode, size and pixels of one in memory."""
    if isinstance(image, str | Path):
        return lambda: content_ids([Path(image)])[0]
    if isinstance(image, bytes | bytearray):
        return lambda: sha256_bytes(bytes(image))

    def of_channels() -> str:
        return sha256_bytes(f"{image.shape} ".encode() + np.ascontiguousarray(image).tobytes())

    if isinstance(image, np.ndarray) and _has_channels(image):
        return of_channels

    def of_pixels() -> str:
        picture = image if _is_pil(image) else _of_array(0, image)
        header = f"{picture.mode} {picture.size} {picture.getpalette()} ".encode()
        return sha256_bytes(header + picture.tobytes())

    return of_pixels


def _opener(at: int, image: Any, channels: bool = False) -> Callable[[ImageSettings], NDArray[np.uint8]]:
    if isinstance(image, str | Path):
        path = Path(image)
        return lambda settings: decode_image(read_content(path).data, settings).pixels
    if isinstance(image, bytes | bytearray):
        data = bytes(image)
        return lambda settings: decode_image(data, settings).pixels
    if _is_pil(image):
        return lambda settings: fit_image(image, settings)
    if isinstance(image, np.ndarray) and channels and _has_channels(image):
        return lambda settings: fit_array(image, settings)
    if isinstance(image, np.ndarray):
        picture = _of_array(at, image)

        def fit(settings: ImageSettings) -> NDArray[np.uint8]:
            return fit_array(np.atleast_3d(image), settings) if settings.stack else fit_image(picture, settings)

        return fit
    raise UsageError(f"image {at} must be a path, a uint8 array, a PIL image or bytes, found {described(image)}")


def _has_channels(values: NDArray[Any]) -> bool:
    """Return whether an array has other channels than those of a picture, as models of chosen channels read them."""
    return values.dtype == np.uint8 and values.ndim == 3 and values.shape[2] not in (1, 3, 4) and 0 not in values.shape


def _of_array(at: int, values: NDArray[Any]) -> Image.Image:
    from PIL import Image

    shape = values.shape
    if values.dtype != np.uint8:
        raise UsageError(
            f"image {at} has the type {values.dtype}, expected uint8 values from 0 to 255",
            hint="(values * 255).round().astype('uint8') converts values from 0 to 1",
        )
    if values.ndim == 3 and shape[2] == 1:
        values, shape = values[:, :, 0], shape[:2]
    if not (values.ndim == 2 or (values.ndim == 3 and shape[2] in (3, 4))) or 0 in shape:
        listed = " × ".join(map(str, shape))
        raise UsageError(
            f"image {at} is an array of shape {listed}, expected (height, width, 3), (height, width, 4) or "
            "(height, width)",
            hint="several images are an array (images, height, width, 3) or a list; torch's order needs "
            "transpose(1, 2, 0)",
        )
    return Image.fromarray(np.ascontiguousarray(values))


def _is_pil(value: Any) -> bool:
    return any(kind.__module__.startswith("PIL.") and kind.__name__ == "Image" for kind in type(value).__mro__)
