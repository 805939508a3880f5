from __future__ import annotations

import errno
import fcntl
import os
import signal
import threading
from pathlib import Path
from typing import IO

import pytest

from folds.errors import EnsembleError, ResourceLockedError
from folds.utils.locks import exclusive_lock, remove_stale_locks, try_lock
from tests.conftest import holding


def test_a_lock_names_its_process_and_ends_when_it_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "runs" / ".swin.lock"
    with holding(path) as process:
        with pytest.raises(EnsembleError) as error, exclusive_lock(path, "the run runs/swin"):
            pytest.fail("entered while another process holds the lock")
        assert type(error.value) is ResourceLockedError
        assert error.value.exit_code == 1
        assert error.value.message == f"the run runs/swin is in use by process {process.pid}"
        assert "`resume=True`" in str(error.value.hint)
        process.send_signal(signal.SIGKILL)
        process.wait()
        with exclusive_lock(path, "the run"):
            assert path.read_text() == f"{os.getpid()} {os.uname().nodename}"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("12 elsewhere", "process 12 on elsewhere"),
        (f"12 {os.uname().nodename}", "process 12"),
        ("12", "process 12"),
        ("", "another process"),
    ],
)
def test_a_lock_held_on_another_machine_names_the_machine(tmp_path: Path, written: str, said: str) -> None:
    path = tmp_path / "lock"
    with exclusive_lock(path, "it"):
        path.write_text(written)
        with pytest.raises(ResourceLockedError, match=f"it is in use by {said}$"), exclusive_lock(path, "it"):
            pytest.fail("entered twice")


def test_a_lock_is_free_after_its_block_even_if_that_failed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with pytest.raises(ZeroDivisionError), exclusive_lock(path, "it"):
        raise ZeroDivisionError
    with (
        exclusive_lock(path, "it"),
        pytest.raises(EnsembleError, match=f"process {os.getpid()}"),
        exclusive_lock(path, "it"),
    ):
        pytest.fail("entered twice")
    with exclusive_lock(path, "it"):
        pass


def test_a_lock_that_is_waited_for_is_taken_when_it_is_free(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holding(path) as process:
        timer = threading.Timer(0.3, process.kill)
        timer.start()
        with exclusive_lock(path, "it", wait=30):
            assert path.read_text().startswith(f"{os.getpid()} ")
        timer.join()


def test_an_open_file_is_locked_once_and_freed_by_closing_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with open(path, "w") as first, open(path) as second:
        assert try_lock(first) is True
        assert try_lock(second.fileno()) is False
        first.close()
        assert try_lock(second, wait=True) is True


def test_a_disk_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(file: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", none)
    with open(tmp_path / "file", "w") as file:
        assert try_lock(file) is None
        assert try_lock(file, wait=True) is None
    with pytest.raises(EnsembleError, match="has no file locks"), exclusive_lock(tmp_path / "lock", "the run"):
        pytest.fail("entered without a lock")


def test_a_released_lock_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "runs" / ".swin.lock"
    with exclusive_lock(path, "it"):
        assert path.exists()
    assert not path.exists()
    with exclusive_lock(path, "it"):
        path.unlink()  # removed by someone else meanwhile: the file of the next holder stays
        path.touch()
    assert path.exists()


def test_a_lock_of_a_removed_file_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lock"
    tried = []

    def removed_at_first(file: IO[str], wait: bool = False) -> bool | None:
        tried.append(os.fstat(file.fileno()).st_ino)
        if len(tried) == 1:
            path.rename(tmp_path / "old")
        return try_lock(file, wait)

    monkeypatch.setattr("folds.utils.locks.try_lock", removed_at_first)
    with exclusive_lock(path, "it"):
        assert path.stat().st_ino == tried[1] != tried[0]


def test_only_old_locks_that_nobody_holds_are_removed(tmp_path: Path) -> None:
    for name in (".a.lock", ".held.lock", ".new.lock", "kept.lock"):
        (tmp_path / name).touch()
        if name != ".new.lock":
            os.utime(tmp_path / name, (0, 0))
    with open(tmp_path / ".held.lock", "a") as file:  # as an earlier version holds it
        assert try_lock(file)
        remove_stale_locks(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".held.lock", ".new.lock", "kept.lock"]
