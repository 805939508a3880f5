"""Replace the background of an image, with a U²-Net (Qin et al. 2020, arXiv 2005.09007) in a user's ONNX file.

The file is run with onnxruntime directly. rembg, which provides the models, depends on SciPy, scikit-image, numba and a
downloader, downloads a model if none is named, and reads a user's file only from its own folder. The masks are
bit-identical to those of rembg.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from folds.errors import EnsembleError
from folds.images.resizing import BACKGROUND

SIDE = 320  # height and width of the model input in pixels
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BLUR = 0.05  # radius as a fraction of the shorter side of the image
# A mask with a smaller foreground share found no person, and replacing the rest would remove the whole image.
NOTHING = 0.01


def _plain(color: tuple[int, int, int]) -> Callable[[Image.Image], Image.Image]:
    return lambda image: Image.new("RGB", image.size, color)


FILLS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "grey": _plain(BACKGROUND),
    "white": _plain((255, 255, 255)),
    "black": _plain((0, 0, 0)),
    "blur": lambda image: image.filter(ImageFilter.GaussianBlur(max(1.0, BLUR * min(image.size)))),
}


class BackgroundModel:
    """A U²-Net that segments the foreground; safe to use from several threads at once.

    Parameters
    ----------
    model : an ONNX file of u2net, u2netp, u2net_human_seg or silueta: input (1, 3, 320, 320) float32, first output (1,
        1, height, width).

    Raises
    ------
    EnsembleError : onnxruntime is not installed, or the file is not an ONNX model of this kind.
    """

    def __init__(self, model: Path) -> None:
        runtime = import_onnxruntime()
        options = runtime.SessionOptions()
        # One thread, because images are processed in parallel already, and a fixed order of sums is reproducible.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = runtime.InferenceSession(
                str(model), sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime raises several types of its C++ code
            raise EnsembleError(
                f"onnxruntime cannot use {model}: {' '.join(str(error).split())}", hint=_EXPECTED
            ) from None
        (given, *more), wanted = self._session.get_inputs(), (1, 3, SIDE, SIDE)
        # A name or None is a size that is not fixed.
        fits = len(given.shape) == 4 and all(
            not isinstance(size, int) or size == want for size, want in zip(given.shape, wanted)
        )
        if more or not fits or given.type != "tensor(float)":
            shape = ", ".join(map(str, given.shape))
            raise EnsembleError(
                f"expected a U²-Net, but {model} has {1 + len(more)} inputs, the first {given.type} ({shape})",
                hint=_EXPECTED,
            )
        self._input, self._output, self._path = given.name, self._session.get_outputs()[0].name, model

    def mask(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the foreground share of each pixel, (height, width) uint8, with 255 for full foreground.

        Parameters
        ----------
        image : (height, width, 3) uint8 RGB.

        Raises
        ------
        EnsembleError : the output of the model has another shape, or is not finite.
        """
        small = Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        values = np.asarray(small, np.float64)
        values = (values / max(values.max(), 1e-6) - MEAN) / STD
        result = np.asarray(
            self._session.run([self._output], {self._input: values.transpose(2, 0, 1)[None].astype(np.float32)})[0]
        )
        if result.ndim != 4 or result.shape[:2] != (1, 1) or not np.isfinite(result).all():
            raise EnsembleError(
                f"expected finite numbers of shape (1, 1, height, width) from {self._path}, found {result.shape}",
                hint=_EXPECTED,
            )
        low, high = float(result.min()), float(result.max())
        # As in rembg, the range of each image is mapped to 0 to 1; a constant output has no foreground.
        spread = (result[0, 0] - low) / (high - low) if high > low else np.zeros(result.shape[2:])
        drawn = Image.fromarray((spread * 255).clip(0, 255).astype(np.uint8))
        return np.asarray(drawn.resize((image.shape[1], image.shape[0]), Image.Resampling.LANCZOS))


_EXPECTED = "expected an ONNX file of u2net, u2netp, u2net_human_seg or silueta; ISNet and BiRefNet take other inputs"


def replace_background(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], fill: str = "grey"
) -> tuple[NDArray[np.uint8], float]:
    """Return the image with its background replaced, and its foreground share.

    If the share is below `NOTHING`, the image is returned unchanged.

    Parameters
    ----------
    image, mask : (height, width, 3) and (height, width) uint8.
    fill : a key of `FILLS`; ``blur`` is the blurred image itself.
    """
    share = float(mask.mean(dtype=np.float64)) / 255
    if share < NOTHING:
        return image, share
    picture = Image.fromarray(image)
    return np.asarray(Image.composite(picture, FILLS[fill](picture), Image.fromarray(mask))), share


def import_onnxruntime() -> Any:
    """Return the module onnxruntime.

    Raises
    ------
    EnsembleError : onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise EnsembleError(f"onnxruntime cannot be imported: {error}", hint="pip install onnxruntime") from None
    return onnxruntime
