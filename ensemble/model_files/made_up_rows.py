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
# Of a head that reads all images of a person: with two, z-scores are 1 and -1, and rounding could exchange them.
_EACH_OF_HEADS = 3
IMAGES = 5  # two people of two images, whose pooling matters, and one of one image, whose columns are not known
_IMAGES_OF_HEADS = 7  # likewise, with people of three images


def expected_images(combination: Combination, heads: bool, plain: int) -> int:
    """Return how many images are expected.

    Parameters
    ----------
    heads : whether a model predicts an image from all images of its person.
    plain : the number for a model that needs neither persons nor columns.
    """
    if heads:
        return _IMAGES_OF_HEADS
    return IMAGES if combination.pooling is not None or combination.extra is not None else plain


def expected_answers(combination: Combination, images: int, heads: bool = False) -> int:
    """Return the rows of the answer to a number of expected images: one per person of a combination for people."""
    return images if combination.pooling is None else -(-images // _each(heads))


def _each(heads: bool) -> int:
    return _EACH_OF_HEADS if heads else _EACH


def made_up_rows(combination: Combination, images: int, heads: bool = False) -> SampleRows:
    """Return the rows of expected images: numbers as ids, and made-up persons and columns if they are needed.

    The columns of the last image are empty, which is how a value that is not known is written.

    Parameters
    ----------
    heads : whether a model predicts an image from all images of its person.
    """
    number = np.arange(images)
    persons = None if combination.pooling is None and not heads else (number // _each(heads)).astype(str)
    encodings = () if combination.extra is None else combination.extra.encodings
    return SampleRows(number.astype(str), None, persons, {one.name: _cells(one, images) for one in encodings})


def _cells(encoding: Encoding, images: int) -> NDArray[np.str_]:
    """Return (images,) cells: numbers that differ by image, or texts that differ by person; "" for the last image."""
    if encoding.mean is None or encoding.deviation is None:
        known = [encoding.categories[at // _EACH % len(encoding.categories)] for at in range(images)]
    else:
        known = [number_text(encoding.mean + (at - 1) * encoding.deviation) for at in range(images)]
    return np.array([*known[:-1], ""], dtype=str)
