"""Workers as copies of a process that has imported the libraries; see test_execute.py for training in them."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from folds.execution import local, template, worker
from folds.execution.template import Copy, copy_worker
from folds.execution.worker import Worker
from tests.folds.runs.test_execute import wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are copied on Linux only")


def test_a_copy_has_its_own_folder_and_errors_and_tells_its_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(template, "subprocess", subprocess)  # a new process, as everywhere but in the tests
    monkeypatch.setattr(template, "_template", None)
    environment = worker.worker_environment(1)
    with tempfile.TemporaryFile() as stderr:
        first, second = (copy_worker(environment, stderr) for _ in range(2))
        assert first is not None
        assert second is not None
        folder = Path(f"/proc/{second.pid}/cwd")
        wait_for(lambda: folder.readlink() == tmp_path)  # which it enters after its number is known
        assert first.poll() is None
        first.stdin.write("no job\n")
        first.stdin.flush()
        assert (first.wait(), first.poll()) == (1, 1)
        stderr.seek(0)
        assert "JSONDecodeError" in stderr.read().decode()
        # The other one lives on.
        assert second.poll() is None
        second.kill()
        assert second.wait() == -signal.SIGKILL
        for copy in (first, second):
            copy.stdout.close()
            copy.stdin.close()
    template._end()


def test_copies_have_the_variables_of_their_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(worker, "copy_worker", lambda environment, stderr: sent.append(environment))
    monkeypatch.setattr(worker.subprocess, "Popen", lambda command, env, **more: sent.append(env))
    Worker(3)._start()
    assert [environment["OMP_NUM_THREADS"] for environment in sent] == ["3", "3"]
    assert template._key(sent[0]) == template._key(worker.worker_environment(1))  # made by one template
    # CUDA does not survive a copy.
    Worker(2, {"CUDA_VISIBLE_DEVICES": "1"})._start()
    assert [environment.get("CUDA_VISIBLE_DEVICES") for environment in sent[2:]] == ["1"]


_COMMAND = """
from folds.execution import template, worker
from folds.execution.local import prepare_workers
prepare_workers("cpu", "local")
first = template._template
import folds.runs.session, torch._dynamo, torch._inductor.runtime.cache_dir_utils
print({name for name, _ in set(first.key.items()) ^ set(template._key(worker.worker_environment(1)).items())})
"""


def test_what_the_command_imports_needs_no_second_template(tmp_path: Path) -> None:
    """A library that sets a variable when it is imported would cost each command the imports of another template."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("TORCHINDUCTOR", "TRITON"))
    }
    ended = subprocess.run(
        [sys.executable, "-c", _COMMAND], capture_output=True, text=True, cwd=tmp_path, env=environment, check=True
    )
    assert ended.stdout.strip() == "set()"


class Lost:
    """A template that has ended, or one that still imports."""

    def __init__(self, lives: bool) -> None:
        self.lives = lives

    def send(self, message: dict[str, Any]) -> bool:
        return self.lives


def copy_of(lives: bool) -> Copy:
    return Copy(Lost(lives), 0, io.StringIO(), io.StringIO())  # type: ignore[arg-type]


def test_a_copy_whose_template_has_ended_ends_with_its_input() -> None:
    copy = copy_of(lives=False)
    copy.hear({"copy": 0, "pid": 7})
    copy.hear(None)
    assert copy.poll() is None  # it may work on
    copy.kill()
    assert copy.stdin.closed
    assert (copy.wait(), copy.poll(), copy.pid) == (1, 1, 7)


def test_a_copy_killed_before_it_exists_is_not_waited_for() -> None:
    copy = copy_of(lives=True)
    copy.kill()
    assert (copy.wait(), copy.pid, copy.has_existed) == (-signal.SIGKILL, 0, False)


def test_a_worker_is_started_itself_if_it_could_not_be_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    copy = copy_of(lives=True)
    copy.hear({"copy": 0, "status": 1})
    started = Worker(1)
    monkeypatch.setattr(started, "_start", lambda: copy)
    with pytest.raises(worker.WorkerDied, match="ended with status 1"):
        started.run({}, print)
    assert not started.may_copy


@pytest.mark.parametrize(
    ("devices", "backend", "driver", "warmed"),
    [
        ("auto", "local", False, True),
        ("auto", "local", True, False),
        ("cpu", "local", True, True),
        ("0", "local", False, False),
        ("cpu", "ray", False, False),
    ],
)
def test_the_template_is_started_early_for_workers_on_the_cpu(
    devices: str, backend: str, driver: bool, warmed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bool] = []
    monkeypatch.setattr(local, "Worker", SimpleNamespace(warm_up=lambda: calls.append(True)))
    monkeypatch.setattr(local, "driver_loaded", lambda: driver)
    local.prepare_workers(devices, backend)
    assert calls == [True] * warmed
