"""A worker process as seen by the parent: what it leaves open."""

from __future__ import annotations

import gc
import warnings
from typing import Any

import pytest

from folds.execution.worker import Worker, WorkerDied


def test_an_ended_worker_leaves_no_file_open() -> None:
    worker = Worker(1)
    worker.process = worker._start()
    process, log = worker.process, worker.stderr
    worker.stop()
    worker.stop()
    assert process.poll() is not None
    assert log is not None
    assert all(file is not None and file.closed for file in (process.stdin, process.stdout, log))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        del worker, process, log
        gc.collect()


def test_a_worker_stopped_during_a_job_is_closed_by_its_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(1)

    def stopped_meanwhile(process: Any, job: Any, report: Any) -> dict[str, Any]:
        worker.stop()
        assert not process.stdout.closed  # it is still read
        raise WorkerDied("killed")

    monkeypatch.setattr(worker, "_run", stopped_meanwhile)
    with pytest.raises(WorkerDied, match="killed"):
        worker.run({}, lambda event: None)
    assert worker.process is not None
    assert worker.process.stdout is not None
    assert worker.process.stdout.closed
    with pytest.raises(WorkerDied, match="not started again"):
        worker.run({}, lambda event: None)


def test_a_module_that_lies_in_the_folder_is_not_imported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("json", "torch", "numpy"):
        (tmp_path / f"{name}.py").write_text("open('was-run', 'w')\n", encoding="utf-8")
    process = Worker(1)._start()
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait() == 0
    assert not (tmp_path / "was-run").exists()
