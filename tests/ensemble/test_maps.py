"""Votes over files of any size take the memory of their blocks, measured in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ensemble import maps
from ensemble.maps import let_go, result_array, same_values
from folds.errors import EnsembleError

CHILD = """
import resource, sys
import numpy as np
from pathlib import Path
from ensemble import maps
from ensemble.alignment import align
from ensemble.members import read_members
from ensemble.voting import vote
maps._LARGE = 1 << 20
folder, method = Path(sys.argv[1]), sys.argv[2]
vote(align(read_members([folder / "small.npy"]))["test"], method)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
result = vote(align(read_members(sorted(folder.glob("m*.npy"))))["test"], method).probabilities
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, float(result[-1].sum()))
"""


@pytest.mark.parametrize("method", ["soft", "median"])
def test_the_peak_is_that_of_the_blocks_not_of_the_files_or_the_result(tmp_path: Path, method: str) -> None:
    rng = np.random.default_rng(0)
    for i in range(6):
        values = rng.random((40_000, 200), np.float32)
        np.save(tmp_path / f"m{i}.npy", (values / values.sum(1, keepdims=True)).astype(np.float16 if i else np.float32))
    np.save(tmp_path / "small.npy", np.full((20, 200), 1 / 200, np.float32))
    done = subprocess.run([sys.executable, "-c", CHILD, tmp_path, method], capture_output=True, text=True, check=False, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    grown, total = map(float, done.stdout.split())
    # 107 MiB of files and 31 MiB of result; a median sorts a million numbers at once, and what goes with them.
    assert grown < {"soft": 12, "median": 80}[method]
    assert total == pytest.approx(1, abs=1e-5)
    assert {path.suffix for path in tmp_path.iterdir()} == {".npy"}, "the file of the result has no name"


def test_what_is_let_go_of_is_still_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "a.npy", np.arange(50_000.0).reshape(-1, 2))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(maps, "_LARGE", 10)
    result = result_array(mapped.shape)
    assert isinstance(result, np.memmap)
    result[:] = mapped
    let_go(mapped[3:9])
    let_go(result)
    let_go(np.ones(3))
    assert same_values(mapped, result)
    result[-1, 1] += 1
    assert not same_values(mapped, result)
    assert not same_values(mapped, result[1:])


def test_a_folder_without_room_for_the_result_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(maps.os, "posix_fallocate", full)
    monkeypatch.setattr(maps, "_LARGE", 10)
    with pytest.raises(EnsembleError, match="no space left on device"):
        result_array((10, 10))
