from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from folds.augmentation.custom import TransformPool
from folds.errors import EnsembleError, UsageError

MODULE = """
import os, random
def jitter(image):
    if (image == 1).all():
        raise ValueError("no such luck")
    if (image == 2).all():
        os._exit(9)
    return image // 2 + random.randrange(100)
"""


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pooled.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "pooled", raising=False)


def images(n: int = 7) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 12, 10, 3), dtype=np.uint8)


def test_several_processes_give_the_result_and_errors_of_one() -> None:
    seeds = list(range(7))
    with TransformPool("pooled:jitter") as here, TransformPool("pooled:jitter", workers=2) as there:
        expected = here.batch(images(), seeds)
        assert np.array_equal(there.batch(images(), seeds), expected)
        assert np.array_equal(there.batch(images(1), seeds[:1]), expected[:1])
        assert there.batch(images(0), []).shape == (0, 12, 10, 3)
        with pytest.raises(EnsembleError, match="failed on an image of 12×10: ValueError: no such luck") as error:
            there.batch(np.full_like(images(), 1), seeds)
        assert "uint8" in (error.value.hint or "")
        assert np.array_equal(there.batch(images(), seeds), expected)
        with pytest.raises(EnsembleError, match="was killed") as error:
            there.batch(np.full_like(images(), 2), seeds)
        assert "`resume=True`" in (error.value.hint or "")


def test_an_unknown_name_is_refused_before_processes_start() -> None:
    with pytest.raises(UsageError, match="has no 'jiter'; did you mean jitter"):
        TransformPool("pooled:jiter", workers=2)


PARENT = """
import sys, time
import numpy as np
from folds.augmentation.custom import TransformPool
if __name__ == "__main__":
    pool = TransformPool("pooled:jitter", workers=1)
    pool.batch(np.zeros((2, 8, 8, 3), dtype=np.uint8), [0, 1])
    print(*pool._pool._processes, flush=True)
    time.sleep(60)
"""


def test_its_processes_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    parent = subprocess.Popen(
        [sys.executable, "parent.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert parent.stdout is not None
    workers = [int(process) for process in parent.stdout.readline().split()]
    assert len(workers) == 1
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    end = time.monotonic() + 20
    while any(Path(f"/proc/{worker}").exists() for worker in workers) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
