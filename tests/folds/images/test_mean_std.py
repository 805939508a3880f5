"""The channels' mean and deviation are exact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from folds.errors import EnsembleError
from folds.images import channel_sums as module
from folds.images.channel_sums import mean_std


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 7), st.integers(1, 4), st.integers(1, 4), st.just(3))),
    st.integers(1, 9),
    st.data(),
)
def test_mean_and_deviation_are_those_of_numpy(pixels: np.ndarray, block: int, data: st.DataObject) -> None:
    rows = np.array(data.draw(st.lists(st.integers(0, len(pixels) - 1), min_size=1)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK_BYTES", block * pixels[0].nbytes)
        mean, std = mean_std(pixels, rows, threads=2)
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


def test_sums_of_a_cache_file_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 5, 4, 3), dtype=np.uint8)
    file, computed, sums_of = tmp_path / "images.npy", [], module.channel_sums

    def counted(pixels: np.ndarray, rows: np.ndarray, threads: int) -> np.ndarray:
        computed.append(len(rows))
        return sums_of(pixels, rows, threads)

    monkeypatch.setattr(module, "channel_sums", counted)
    for rows in (np.arange(3, 20), np.arange(10), np.arange(20) % 3 == 0):
        found, expected = mean_std(pixels, rows, file=file), pixels[rows].reshape(-1, 3) / 255
        np.testing.assert_allclose(found, [expected.mean(axis=0), expected.std(axis=0)], rtol=1e-12)
    assert computed == [20]
    assert [path.name for path in tmp_path.iterdir()] == ["images.sums"]
    for damage in (b"no array", b"", (tmp_path / "images.sums").read_bytes()[:-8]):
        (tmp_path / "images.sums").write_bytes(damage)
        np.testing.assert_array_equal(mean_std(pixels, rows, file=file), found)
    assert computed == [20] * 4
