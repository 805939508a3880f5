"""The background of an image replaced, by a U²-Net (Qin et al. 2020, arXiv 2005.09007) in an ONNX file that the user
names.

The file is run with onnxruntime itself. rembg, whose models these are, would add SciPy, scikit-image, numba and a
downloader, would fetch
a model by itself where none is named, and takes a file of the user's own only from its own folder. The mask here is
rembg's to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from folds.errors import EnsembleError
from folds.images.decode import BACKGROUND

SIDE = 320  # pixels of the model's input, along both sides
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BLUR = 0.05  # radius as a share of the image's shorter side
# A mask of less than this share has found nobody, and an image that loses all but that is no image of anybody.
NOTHING = 0.01


def _plain(colour: tuple[int, int, int]) -> Callable[[Image.Image], Image.Image]:
    return lambda image: Image.new("RGB", image.size, colour)


FILLS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "grey": _plain(BACKGROUND),
    "white": _plain((255, 255, 255)),
    "black": _plain((0, 0, 0)),
    "blur": lambda image: image.filter(ImageFilter.GaussianBlur(max(1.0, BLUR * min(image.size)))),
}


class BackgroundModel:
    """A U²-Net that tells the foreground; may be used by several threads at once.

    Parameters
    ----------
    model : an ONNX file of u2net, u2netp, u2net_human_seg or silueta: input (1, 3, 320, 320) float32, first output (1,
        1, height, width).

    Raises
    ------
    EnsembleError : onnxruntime is not installed, the file is no ONNX model, or one of another kind.
    """

    def __init__(self, model: Path) -> None:
        runtime = import_onnxruntime()
        options = runtime.SessionOptions()
        # Images are worked on side by side already, and sums in one order give one result.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = runtime.InferenceSession(
                str(model), sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # it raises whatever its C++ says
            raise EnsembleError(
                f"onnxruntime cannot use {model}: {' '.join(str(error).split())}", hint=_EXPECTED
            ) from None
        (given, *more), wanted = self._session.get_inputs(), (1, 3, SIDE, SIDE)
        # A name or None stands for a size that is free.
        fits = len(given.shape) == 4 and all(
            not isinstance(size, int) or size == want for size, want in zip(given.shape, wanted)
        )
        if more or not fits or given.type != "tensor(float)":
            shape = ", ".join(map(str, given.shape))
            raise EnsembleError(
                f"{model} takes {1 + len(more)} inputs, the first {given.type} ({shape}), not a U²-Net's",
                hint=_EXPECTED,
            )
        self._input, self._output, self._path = given.name, self._session.get_outputs()[0].name, model

    def mask(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return how much of each pixel is foreground, (height, width) uint8, 255 is all of it.

        Parameters
        ----------
        image : (height, width, 3) uint8 RGB.
        """
        small = Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        values = np.asarray(small, np.float64)
        values = (values / max(values.max(), 1e-6) - MEAN) / STD
        result = np.asarray(
            self._session.run([self._output], {self._input: values.transpose(2, 0, 1)[None].astype(np.float32)})[0]
        )
        if result.ndim != 4 or result.shape[:2] != (1, 1) or not np.isfinite(result).all():
            raise EnsembleError(
                f"{self._path} gives {result.shape}, expected finite numbers (1, 1, height, width)", hint=_EXPECTED
            )
        least, most = float(result.min()), float(result.max())
        # As in the original, an image's own range becomes 0 to 1; where all is alike, nothing stands out.
        spread = (result[0, 0] - least) / (most - least) if most > least else np.zeros(result.shape[2:])
        drawn = Image.fromarray((spread * 255).clip(0, 255).astype(np.uint8))
        return np.asarray(drawn.resize((image.shape[1], image.shape[0]), Image.Resampling.LANCZOS))


_EXPECTED = "expected an ONNX file of u2net, u2netp, u2net_human_seg or silueta; ISNet and BiRefNet take other inputs"


def replace_background(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], fill: str = "grey"
) -> tuple[NDArray[np.uint8], float]:
    """Return the image with its background replaced, and the share of it that is foreground.

    A share below `NOTHING` found nobody: the image is returned as it is.

    Parameters
    ----------
    image, mask : (height, width, 3) and (height, width) uint8.
    fill : a name of `FILLS`; ``blur`` is the image itself out of focus.
    """
    share = float(mask.mean(dtype=np.float64)) / 255
    if share < NOTHING:
        return image, share
    picture = Image.fromarray(image)
    return np.asarray(Image.composite(picture, FILLS[fill](picture), Image.fromarray(mask))), share


def import_onnxruntime() -> Any:
    """onnxruntime.

    Raises
    ------
    EnsembleError : it is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise EnsembleError(f"onnxruntime cannot be imported: {error}", hint="pip install onnxruntime") from None
    return onnxruntime
