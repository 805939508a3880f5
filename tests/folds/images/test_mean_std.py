"""The channels' mean and deviation are exact."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from folds.errors import EnsembleError
from folds.images.cache import mean_std


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 7), st.integers(1, 4), st.integers(1, 4), st.just(3))),
    st.integers(1, 9),
    st.data(),
)
def test_mean_and_deviation_are_those_of_numpy(pixels: np.ndarray, block: int, data: st.DataObject) -> None:
    rows = np.array(data.draw(st.lists(st.integers(0, len(pixels) - 1), min_size=1)))
    mean, std = mean_std(pixels, rows, block)
    flat = pixels[rows].reshape(-1, 3) / 255
    np.testing.assert_allclose(mean, flat.mean(axis=0), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(std, flat.std(axis=0), rtol=1e-7, atol=1e-8)


def test_mean_and_deviation_take_a_mask_and_do_not_overflow() -> None:
    white = np.full((300, 64, 64, 3), 255, np.uint8)
    white[0] = 0
    mean, std = mean_std(white, np.arange(300) > 0)
    assert mean.tolist() == [1, 1, 1]
    assert std.tolist() == [0, 0, 0]
    with pytest.raises(EnsembleError, match="at least one image"):
        mean_std(white, np.array([], int))
