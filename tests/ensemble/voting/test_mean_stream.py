"""Votes over files of any size need only the memory of blocks, measured in subprocesses, and are exact."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ensemble.voting.vote import mean_of_runs
from tests.ensemble.small_runs import probability_run

CHILD = """
import sys
import numpy as np
from pathlib import Path
from folds.utils import memmap as maps
from ensemble.alignment.align import align
from ensemble.members.reading import read_members
from ensemble.voting.vote import vote
maps._LARGE = 1 << 20
def peak():  # since the start of the process; getrusage of a child includes the peak of its parent
    return float(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
folder, method = Path(sys.argv[1]), sys.argv[2]
vote(align(read_members([folder / "small.npy"])).splits["test"], method)
before = peak()
result = vote(align(read_members(sorted(folder.glob("m*.npy")))).splits["test"], method).probabilities
print((peak() - before) / 1024, float(result[-1].sum()))
"""


@pytest.mark.parametrize("method", ["soft", "median"])
def test_peak_memory_depends_on_blocks_not_on_file_size(tmp_path: Path, method: str) -> None:
    rng = np.random.default_rng(0)
    for i in range(6):
        values = rng.random((40_000, 200), np.float32)
        np.save(tmp_path / f"m{i}.npy", (values / values.sum(1, keepdims=True)).astype(np.float16 if i else np.float32))
    np.save(tmp_path / "small.npy", np.full((20, 200), 1 / 200, np.float32))
    done = subprocess.run(
        [sys.executable, "-c", CHILD, tmp_path, method],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    growth, total = map(float, done.stdout.split())
    # 107 MiB of files and 31 MiB of result; a median sorts a block of a million numbers, with temporary arrays.
    assert growth < {"soft": 25, "median": 80}[method]
    assert total == pytest.approx(1, abs=1e-5)
    assert {path.suffix for path in tmp_path.iterdir()} == {".npy"}, "the file of the result has no name"


def test_the_mean_is_that_of_numpy_in_float64_rounded_once() -> None:
    values = [np.random.default_rng(i).dirichlet(np.ones(18), 9_000).astype(np.float32) for i in range(7)]
    runs = [probability_run(f"r{i}", each) for i, each in enumerate(values)]
    expected = np.mean([each.astype(np.float64) for each in values], axis=0).astype(np.float32)
    assert np.array_equal(mean_of_runs(runs, np.ones(7), 9_000), expected)
    assert np.array_equal(mean_of_runs(runs, np.full(7, 1 / 7), 9_000), expected), (
        "equal weights are the same as no weights"
    )
    assert np.array_equal(mean_of_runs(runs[:1], np.array([0.3]), 9_000), values[0])
    np.testing.assert_allclose(mean_of_runs(runs, np.ones(7), 9_000, np.float32), expected, rtol=0, atol=1e-6)
    weights = np.array([1.0, 2, 0, 3, 0, 0, 1])
    np.testing.assert_allclose(
        mean_of_runs(runs, weights, 9_000), np.average(values, axis=0, weights=weights), rtol=0, atol=1e-7
    )


def test_rows_without_a_run_are_nan_and_others_are_normalized() -> None:
    values = np.random.default_rng(0).dirichlet(np.ones(3), 3)
    runs = [
        probability_run("a", values, rows=np.array([0, -1, -1])),
        probability_run("b", values[::-1].copy(), rows=np.array([0, 1, -1])),
    ]
    result = mean_of_runs(runs, np.array([3.0, 1.0]), 3)
    np.testing.assert_allclose(result[0], (3 * values[0] + values[2]) / 4, atol=1e-7)
    np.testing.assert_allclose(result[1], values[1], atol=1e-7)
    assert np.isnan(result[2]).all()
