"""Make up the persons and columns of the expected images of a model that needs them; numpy only.

The images of ``expected.npz`` belong to no one, so a combination that pools the images of a person, or has columns
beside the predictions, could not be checked with them. Both follow from the combination alone. A file does not hold
them, so what these functions return must stay the same: models that were exported before are checked with it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ensemble.learning.combination import Combination
from ensemble.learning.further_columns import Encoding
from folds.predictions.rows import SampleRows
from folds.utils.cells import number_text

_EACH = 2  # images of a made-up person
# Two people of two images, whose pooling matters, and one of one image, whose columns are not known.
IMAGES = 5


def needs_rows(combination: Combination) -> bool:
    """Return whether a combination needs the persons or further columns of the images."""
    return combination.pooling is not None or combination.extra is not None


def expected_answers(combination: Combination, images: int) -> int:
    """Return the rows of the answer to a number of expected images: one per person of a combination for people."""
    return images if combination.pooling is None else -(-images // _EACH)


def made_up_rows(combination: Combination, images: int) -> SampleRows:
    """Return the rows of expected images: numbers as ids, and made-up persons and columns if they are needed.

    The columns of the last image are empty, which is how a value that is not known is written.
    """
    number = np.arange(images)
    persons = None if combination.pooling is None else (number // _EACH).astype(str)
    encodings = () if combination.extra is None else combination.extra.encodings
    return SampleRows(number.astype(str), None, persons, {one.name: _cells(one, images) for one in encodings})


def _cells(encoding: Encoding, images: int) -> NDArray[np.str_]:
    """Return (images,) cells: numbers that differ by image, or texts that differ by person; "" for the last image."""
    if encoding.mean is None or encoding.deviation is None:
        known = [encoding.categories[at // _EACH % len(encoding.categories)] for at in range(images)]
    else:
        known = [number_text(encoding.mean + (at - 1) * encoding.deviation) for at in range(images)]
    return np.array([*known[:-1], ""], dtype=str)
