"""Features on disk: complete or absent, continued after a kill, computed again if damaged."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from folds.errors import EnsembleError
from folds.features import store
from folds.features.store import FeatureKey, FeatureWriter, locked_features, open_features, read_features
from tests.conftest import Logged, holding

KEY = FeatureKey({"weights": "a"}, "pixels", (600, 2, 3))
VALUES = np.random.default_rng(0).normal(size=KEY.shape).astype(np.float16)


def write(folder: Path, blocks: int = 3) -> FeatureWriter:
    writer = FeatureWriter(folder, KEY)
    for first, after in writer.missing[:blocks]:
        writer.write(first, VALUES[first:after])
    return writer


def test_a_killed_computation_continues_where_it_was(tmp_path: Path) -> None:
    write(tmp_path, 2).close()
    assert read_features(tmp_path, KEY) is None
    again = FeatureWriter(tmp_path, KEY)
    assert again.missing == [(512, 600)]
    again.write(512, VALUES[512:])
    path = again.finish()
    again.close()
    assert read_features(tmp_path, KEY) == path
    np.testing.assert_array_equal(open_features(path), VALUES)
    assert sorted(one.name for one in tmp_path.iterdir()) == [f"{KEY.name}.json", f"{KEY.name}.npy"]


def test_a_damaged_block_is_computed_again(tmp_path: Path) -> None:
    writer = write(tmp_path, 2)
    writer.close()
    with open(writer.part, "r+b") as file:
        file.seek(writer.start + 5)
        file.write(b"\xff")
    with open(writer.list, "a") as file:
        file.write("512 60")  # what a killed process has written of a line
    assert FeatureWriter(tmp_path, KEY).missing == [(0, 256), (512, 600)]


def test_a_damaged_file_is_not_used(tmp_path: Path, logged: Logged) -> None:
    path = write(tmp_path).finish()
    with open(path, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x01" if VALUES.tobytes()[-1:] != b"\x01" else b"\x02")
    assert read_features(tmp_path, KEY) is None
    assert "is damaged" in logged.warnings[0]


def test_other_weights_or_images_are_other_features(tmp_path: Path) -> None:
    write(tmp_path).finish()
    for other in (
        FeatureKey({"weights": "b"}, "pixels", KEY.shape),
        FeatureKey({"weights": "a"}, "changed", KEY.shape),
    ):
        assert read_features(tmp_path, other) is None


def test_a_full_disk_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    writer = write(tmp_path, 1)
    monkeypatch.setattr(store.os, "pwrite", full)
    with pytest.raises(EnsembleError, match="cannot write"):
        writer.write(256, VALUES[256:512])
    writer.close()
    assert list(tmp_path.iterdir()) == []


def test_two_processes_do_not_write_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: Logged) -> None:
    monkeypatch.setattr(store, "_WAIT", 0.0)
    with (
        holding(tmp_path / f".{KEY.name}.lock"),
        pytest.raises(EnsembleError),
        locked_features(tmp_path, KEY),
    ):
        pass
    assert "waiting for its features" in logged.notes[0]
