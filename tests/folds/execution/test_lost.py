"""Each way in which Ray loses a task, in words that name what happened and what mends it."""

from __future__ import annotations

from typing import Any

import pytest

from folds.execution.ray_cluster import error_from_ray

ray = pytest.importorskip("ray", reason="the extra 'ray' is not installed")
JOB: Any = type("JobOfATitle", (), {"title": "swin fold 2"})()
DIED = "Task failed because the node it was running on is dead or unavailable. Node IP: 192.0.2.2, node ID: 7362. This can happen if …"
MEMORY = "2 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 192.0.2.7, ID: 66e2) was 9.50GB / 10.00GB\nmore"


def absent() -> Exception:
    trace = "\x1b[36mray::run_task()\x1b[39m (pid=8282, ip=192.0.2.9)\n  File …\nModuleNotFoundError: No module named 'torch'\n"
    return ray.exceptions.RayTaskError(
        "run_task", trace, ModuleNotFoundError("No module named 'torch'")
    ).as_instanceof_cause()


@pytest.mark.parametrize(
    ("error", "what", "hint"),
    [
        (
            ray.exceptions.WorkerCrashedError(),
            "worker crashed or was killed; stopped after 5 retries",
            "use fewer `jobs`",
        ),
        (ray.exceptions.NodeDiedError(DIED), "its machine 192.0.2.2 was lost; stopped after 5 retries", "ray status"),
        (
            ray.exceptions.OutOfMemoryError(MEMORY),
            "its machine 192.0.2.7 ran out of memory at every attempt",
            "machines with more memory",
        ),
        (
            ray.exceptions.TaskUnschedulableError("no node"),
            "Ray has no machine for it: The task is not schedulable: no node",
            "ray status",
        ),
        (ray.exceptions.TaskCancelledError(), "its task was canceled outside of this command", "`resume=True`"),
        (
            ray.exceptions.RuntimeEnvSetupError("no pip"),
            "Ray could not start its worker: no pip",
            "runtime_env_setup*.log",
        ),
        (ray.exceptions.LocalRayletDiedError(), "Ray has ended on this machine", "ray start"),
        (
            absent(),
            "it could not start on the machine 192.0.2.9: ModuleNotFoundError: No module named 'torch'",
            "same versions",
        ),
        (ray.exceptions.ObjectStoreFullError("no {room}"), "ObjectStoreFullError: no {room}", "`resume=True`"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_end_is_told_apart(error: Exception, what: str, hint: str) -> None:
    told = error_from_ray(JOB, error, retries=5)
    assert told.message == f"swin fold 2: {what}"
    assert hint in (told.hint or "")
    assert "`resume=True`" in (told.hint or "")
    assert ("retries" in told.message) == isinstance(
        error, ray.exceptions.WorkerCrashedError | ray.exceptions.NodeDiedError
    )


def test_an_error_without_words_is_told_by_its_name() -> None:
    assert error_from_ray(JOB, ray.exceptions.RayError(), retries=5).message == "swin fold 2: RayError: no reason given"
