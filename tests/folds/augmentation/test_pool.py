from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from folds.augmentation import pool as pool_module
from folds.augmentation.custom import load_transform
from folds.augmentation.pool import TransformPool, close_kept_pool, kept_pool
from folds.errors import EnsembleError, UsageError
from tests.conftest import interruptible

SHARED = Path("/dev/shm")  # noqa: S108 - it is looked at only
MODULE = """
import os, random, signal, sys, time
from pathlib import Path
import numpy as np

def jitter(image):
    if (image == 1).all():
        raise ValueError("no such luck")
    if (image == 2).all():
        os._exit(9)
    return image // 2 + random.randrange(100)

def numbered(image):  # fails, and later at 253 than at 255
    if (image >= 250).all():
        time.sleep(0.2 if (image == 253).all() else 0)
        raise ValueError(image.max() - 250)
    return image

def killed_once(image):
    if (image == 3).all() and not Path("killed").exists():
        Path("killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return jitter(image)

def slow(image):
    Path("started").touch()
    time.sleep(0.05 if (image == 4).all() else 0)
    return jitter(image)

def stuck(image):
    Path("started").touch()
    time.sleep(60)
    return image

def leaves(image):
    sys.exit(3)

def loaded(image):  # which libraries the process has
    return np.full_like(image, ("torch" in sys.modules) + 2 * ("PIL" in sys.modules))

def late(image):
    import torch
    return (image // 2 + torch.randint(0, 100, image.shape, dtype=torch.uint8).numpy()) // torch.get_num_threads()
"""


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "pooled.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "pooled", raising=False)
    yield
    close_kept_pool()
    sys.modules.pop("pooled", None)
    assert children() == []


def images(n: int = 7) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 12, 10, 3), dtype=np.uint8)


def started_children(number: int) -> list[int]:
    """`children`, as soon as there are this many: a new process has its name only after it was executed."""
    end = time.monotonic() + 20
    while len(found := children()) < number and time.monotonic() < end:
        time.sleep(0.02)
    return found


def children() -> list[int]:
    """The processes of pools that this process has started, ended ones that nobody waited for included."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, parent = (entry / "stat").read_text().rsplit(")", 1)[1].split()[:2]
            of_pool = "pool_worker" in (entry / "cmdline").read_text() or state == "Z"
            if int(parent) == os.getpid() and of_pool:
                found.append(int(entry.name))
    return sorted(found)


def wait_until(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 20
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


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
        assert there.closed
        assert children() == []


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_that_are_started_ahead_are_the_same(workers: int) -> None:
    """In their order, with rows in any order, and of any sizes: later ones may be larger."""
    values, transform = images(30), load_transform("pooled:jitter")
    rows = [np.random.default_rng(i).integers(0, 30, size) for i, size in enumerate([4, 1, 9, 20, 3, 0, 12, 2])]
    with TransformPool("pooled:jitter", workers) as pool:
        started = [pool.start(values, some, some.tolist()) for some in rows[:2]]
        for i, some in enumerate(rows):
            started += [pool.start(values, rows[i + 2], rows[i + 2].tolist())] if i + 2 < len(rows) else []
            np.testing.assert_array_equal(started[i](), transform.batch(values[some], some.tolist()))


def test_the_memory_holds_three_batches() -> None:
    with TransformPool("pooled:jitter", workers=1) as pool:
        started = [pool.start(images(), np.arange(7), range(7)) for _ in range(3)]
        with pytest.raises(RuntimeError, match="more than 3 batches"):
            pool.start(images(), np.arange(7), range(7))
        started[0]()
        pool.start(images(), np.arange(7), range(7))


def test_an_error_is_that_of_the_first_image_that_has_one() -> None:
    values = images()
    values[3], values[5] = 253, 255
    with (
        TransformPool("pooled:numbered", workers=7) as pool,
        pytest.raises(EnsembleError, match=r"ValueError: 3$"),
    ):
        pool.batch(values, range(7))


def test_a_killed_process_is_replaced_once_for_a_batch() -> None:
    values, rows = images(12), np.arange(12)
    values[5] = 3
    expected = load_transform("pooled:jitter").batch(values, range(12))
    with TransformPool("pooled:killed_once", workers=2) as pool:
        started = [pool.start(values, rows, range(12)) for _ in range(3)]
        for one in started:
            np.testing.assert_array_equal(one(), expected)
        assert Path("killed").exists()
        os.kill(pool._children[0].process.pid, signal.SIGKILL)  # while it waits
        np.testing.assert_array_equal(pool.batch(values, range(12)), expected)
        assert len(children()) == 2


def test_batches_that_are_given_up_do_not_mix_with_the_next() -> None:
    values, rows = np.full_like(images(), 4), np.arange(7)
    expected = load_transform("pooled:jitter").batch(images(), range(7))
    with TransformPool("pooled:slow", workers=2) as pool:
        for _ in range(2):
            pool.start(values, rows, range(7))
        assert wait_until(Path("started").exists)
        os.kill(pool._children[1].process.pid, signal.SIGKILL)
        pool.abandon()
        for _ in range(4):
            np.testing.assert_array_equal(pool.batch(images(), range(7)), expected)


def test_whatever_a_transform_raises_is_an_error() -> None:
    with (
        TransformPool("pooled:leaves", workers=1) as pool,
        pytest.raises(RuntimeError, match=r"(?s)^SystemExit: 3.*pooled.py"),
    ):
        pool.batch(images(), range(7))


def test_an_unknown_name_is_refused_before_processes_start() -> None:
    with pytest.raises(UsageError, match="has no 'jiter'; did you mean jitter"):
        TransformPool("pooled:jiter", workers=2)


def test_a_module_that_cannot_be_imported_in_a_worker_is_a_usage_error(tmp_path: Path) -> None:
    """This process has torch, and a worker has not."""
    (tmp_path / "pooled.py").write_text(f"import sys\nif 'torch' not in sys.modules:\n    raise OSError\n{MODULE}")
    with (
        TransformPool("pooled:jitter", workers=1) as pool,
        pytest.raises(UsageError, match="importing pooled failed: OSError"),
    ):
        pool.batch(images(), range(7))


def test_processes_import_torch_only_with_the_transform(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch that the first call imports is seeded for this call too, and has one thread."""
    with TransformPool("pooled:loaded", workers=1) as pool:
        assert pool.batch(images(), range(7)).max() == 0
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    expected = load_transform("pooled:late").batch(images(), range(7))
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    with TransformPool("pooled:late", workers=2) as pool:
        np.testing.assert_array_equal(pool.batch(images(), range(7)), expected)


def test_a_pool_stays_until_another_one_is_needed(tmp_path: Path) -> None:
    pool = kept_pool("pooled:jitter", 2)
    first, result = started_children(2), pool.batch(images(), range(7))
    assert len(first) == 2
    pool.start(images(), np.arange(7), range(7))
    pool.abandon()
    assert kept_pool("pooled:jitter", 2) is pool
    np.testing.assert_array_equal(pool.batch(images(), range(7)), result)
    assert children() == first

    (tmp_path / "pooled.py").write_text(MODULE.replace("image // 2", "image // 4"))
    changed = kept_pool("pooled:jitter", 2)
    second = started_children(2)
    assert pool.closed
    assert len(second) == 2
    assert not set(first) & set(second)
    assert not np.array_equal(changed.batch(images(), range(7)), result)

    kept_pool("pooled:slow", 1)
    assert len(started_children(1)) == 1
    assert not set(second) & set(children())
    with pytest.raises(EnsembleError, match="was killed"):
        kept_pool("pooled:slow", 1).batch(np.full_like(images(), 2), range(7))
    assert not kept_pool("pooled:slow", 1).closed
    close_kept_pool()
    assert children() == []


@pytest.mark.parametrize("broken", ["anonymous", "temporary"])
def test_images_travel_through_a_file_without_shared_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def refuse(*arguments: object) -> int:
        raise OSError(28, "No space left on device")

    expected = load_transform("pooled:jitter").batch(images(), range(7))
    monkeypatch.setattr(os, "memfd_create", refuse)
    if broken == "temporary":
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    scratch = tmp_path / "runs" / "fold0"
    with TransformPool("pooled:jitter", 2, scratch) as pool:
        np.testing.assert_array_equal(pool.batch(images(), range(7)), expected)
        assert scratch.exists() == (broken == "temporary")
        assert not scratch.exists() or list(scratch.iterdir()) == []


PARENT = """
import sys, time
import numpy as np
from folds.augmentation.pool import kept_pool
if __name__ == "__main__":
    pool = kept_pool("pooled:" + sys.argv[1], 2)
    print(*(child.process.pid for child in pool._children), flush=True)
    values = np.zeros((2, 8, 8, 3), dtype=np.uint8)
    for _ in range(3):
        result = pool.start(values, np.arange(2), [0, 1])
    if sys.argv[2] == "ends":
        sys.exit()
    result()
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("transform", "end"),
    [("stuck", "SIGKILL"), ("jitter", "SIGKILL"), ("stuck", "SIGINT"), ("stuck", "SIGTERM"), ("stuck", "ends")],
)
def test_its_processes_end_with_their_parent(tmp_path: Path, transform: str, end: str) -> None:
    """Also in the middle of a transform. Nothing is left in shared memory, and nobody warns of it."""
    (tmp_path / "parent.py").write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    before = set(SHARED.iterdir())
    parent = subprocess.Popen(
        [sys.executable, "parent.py", transform, end],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
        preexec_fn=interruptible,
    )
    assert parent.stdout is not None
    assert parent.stderr is not None
    workers = [int(process) for process in parent.stdout.readline().split()]
    assert len(workers) == 2
    if end != "ends":
        assert transform != "stuck" or wait_until(Path("started").exists)
        os.killpg(parent.pid, signal.Signals[end])
    message = parent.stderr.read()  # until the last process has ended
    parent.wait()
    assert wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
    assert message.count("Traceback") == (end == "SIGINT")
    assert "leaked" not in message
    assert end == "SIGINT" or not message
    assert set(SHARED.iterdir()) <= before
    parent.stdout.close()
    parent.stderr.close()


def test_no_process_is_left_if_one_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    start, count = pool_module._Child, iter(range(9))

    def one_only(name: str) -> pool_module._Child:
        if next(count):
            raise OSError(11, "Resource temporarily unavailable")
        return start(name)

    monkeypatch.setattr(pool_module, "_Child", one_only)
    with pytest.raises(EnsembleError, match="could not start"):
        TransformPool("pooled:jitter", workers=2)


def test_memory_is_shared_while_replies_are_pending(monkeypatch: pytest.MonkeyPatch) -> None:
    """Larger batches need more memory. On macOS the standard library waits for an acknowledgment among the replies."""
    monkeypatch.setattr("multiprocessing.reduction.ACKNOWLEDGE", True)
    few, many = images(3), np.concatenate([images(), images()])
    expected = [load_transform("pooled:jitter").batch(one, range(len(one))) for one in (few, many)]
    with TransformPool("pooled:jitter", 2) as pool:
        waiting = [pool.start(few, np.arange(3), range(3))]
        assert all(select.select([child.connection], [], [], 20)[0] for child in pool._children)  # replies are there
        waiting.append(pool.start(many, np.arange(len(many)), range(len(many))))
        for result, right in zip(waiting, expected, strict=True):
            np.testing.assert_array_equal(result(), right)


def test_a_default_timeout_of_sockets_leaves_the_connection_blocking() -> None:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(5)
    try:
        with TransformPool("pooled:jitter", 1) as pool:
            expected = load_transform("pooled:jitter").batch(images(), range(7))
            np.testing.assert_array_equal(pool.batch(images(), range(7)), expected)
            assert os.get_blocking(pool._children[0].connection.fileno())
    finally:
        socket.setdefaulttimeout(before)
