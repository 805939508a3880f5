"""What is let go of is still there, and an array larger than memory goes to the disk and into a file as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from folds.errors import EnsembleError
from folds.predictions.files import PredictionMetadata, SampleRows, write_prediction
from folds.utils import memmap as maps
from folds.utils.memmap import allocate_result, release_pages, same_values


def test_what_is_let_go_of_is_still_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "a.npy", np.arange(50_000.0).reshape(-1, 2))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(maps, "_LARGE", 10)
    result = allocate_result(mapped.shape)
    assert isinstance(result, np.memmap)
    result[:] = mapped
    release_pages(mapped[3:9])
    release_pages(result)
    release_pages(np.ones(3))
    assert same_values(mapped, result)
    result[-1, 1] += 1
    assert not same_values(mapped, result)
    assert not same_values(mapped, result[1:])


def test_an_array_is_written_as_numpy_writes_it(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((70_000, 30), np.float32)
    np.save(tmp_path / "numpy.npy", values)
    sidecar = PredictionMetadata(
        "probability", "test", tuple(map(str, range(30))), SampleRows(np.arange(70_000).astype(str))
    )
    written = write_prediction(tmp_path / "ours.npy", values, sidecar)
    assert written.read_bytes() == (tmp_path / "numpy.npy").read_bytes()
    values[69_999, 29] = np.inf
    with pytest.raises(EnsembleError, match="'69999' is not finite"):
        write_prediction(tmp_path / "ours.npy", values, sidecar)


def test_a_folder_without_room_for_the_result_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(maps.os, "posix_fallocate", full)
    monkeypatch.setattr(maps, "_LARGE", 10)
    with pytest.raises(EnsembleError, match="no space left on device"):
        allocate_result((10, 10))
