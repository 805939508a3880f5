"""One pass over an array gives the same result as a check of each row, and the hash of the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.members import scan as scans
from ensemble.members.scan import scan, scan_arrays
from folds.utils.files import sha256_file


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2", ">f2"])
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 40), spoiled=st.integers(0, 3))
def test_wrong_rows_are_counted_like_one_by_one(
    tmp_path_factory: pytest.TempPathFactory, order: str, dtype: str, seed: int, n: int, spoiled: int
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.dirichlet(np.ones(3), n)
    for row in rng.integers(0, n, spoiled):
        values[row] = [[0.5, 0.6, 0.1], [1.2, -0.2, 0], [0.5, 0.49, 0.0]][row % 3]
    path = tmp_path_factory.mktemp("scan") / "a.npy"
    np.save(path, np.array(values.astype(dtype), order=order))
    stored = np.load(path, mmap_mode="r")
    wrong = [i for i, row in enumerate(stored.astype(float)) if abs(row.sum() - 1) > 5e-3 or row.min() < -1e-6]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scans, "_CHECKED_AT_ONCE", 12)
        found = scan(path, stored)
    assert (found.rows, found.wrong, found.first) == (n, len(wrong), wrong[0] if wrong else -1)
    assert found.sha == sha256_file(path)
    assert found.not_finite is None
    if wrong:
        assert found.total == pytest.approx(stored[wrong[0]].astype(float).sum())
        assert found.lowest == pytest.approx(float(stored[wrong[0]].min()))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_the_first_number_that_is_not_finite_is_found(tmp_path: Path, dtype: str, value: float) -> None:
    values = np.full((70_000, 3), 1 / 3).astype(dtype)
    values[69_000, 1] = values[69_001, 0] = value
    np.save(tmp_path / "a.npy", values)
    found = scan(tmp_path / "a.npy", np.load(tmp_path / "a.npy", mmap_mode="r")).not_finite
    assert found is not None
    assert found[:2] == (69_000, 1)
    np.testing.assert_equal(found[2], value)


def test_logits_that_overflow_a_sum_are_finite(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.full((4, 5), 3e38, np.float32))
    found = scan(tmp_path / "a.npy", np.load(tmp_path / "a.npy", mmap_mode="r"))
    assert (found.not_finite, found.wrong) == (None, 4)


def test_bytes_after_the_array_count_in_the_hash(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.eye(3, dtype="f4"))
    with open(tmp_path / "a.npy", "ab") as file:
        file.write(b"more")
    assert scan(tmp_path / "a.npy", np.load(tmp_path / "a.npy", mmap_mode="r")).sha == sha256_file(tmp_path / "a.npy")


def test_many_arrays_come_back_in_order(tmp_path: Path) -> None:
    arrays = []
    for i in range(9):
        np.save(tmp_path / f"{i}.npy", np.full((2000 - 200 * i, 2), 0.5, np.float32))
        arrays.append((tmp_path / f"{i}.npy", np.load(tmp_path / f"{i}.npy", mmap_mode="r")))
    with scan_arrays(arrays) as found:
        assert [each.result().rows for each in found] == [len(values) for _, values in arrays]
    with scan_arrays([]) as none:
        assert none == []
