"""What is waited for and what is given up, on a clock that the test turns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from folds.execution import waiting as patience
from folds.execution.waiting import LockedJobs, ResourceWatch
from tests.conftest import Logged

BUSY = "swin fold 0 is in use by process 12 on elsewhere"


def job(fold: int) -> Any:
    return type("SomeJob", (), {"title": f"swin fold {fold}", "lock": Path(f"/runs/.swin.fold{fold}.lock")})()


@pytest.fixture
def turn(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let so many seconds go by."""
    now = [1000.0]
    monkeypatch.setattr(patience.time, "monotonic", lambda: now[0])

    def by(seconds: float) -> None:
        now[0] += seconds

    return by


def test_locked_job_is_retried_after_a_pause_and_finally_fails(turn: Callable[[float], None], logged: Logged) -> None:
    held, one = LockedJobs(35), job(0)
    for _ in range(4):
        assert held.add(one, BUSY) is None
        assert held.jobs == [one]
        turn(patience.AGAIN_SECONDS - 1)
        assert held.due() == []
        turn(1)
        assert held.due() == [one]
        assert held.jobs == []
    error = held.add(one, BUSY)
    assert error is not None
    assert error.message == f"{BUSY}, waited for 40 s"
    assert "rm /runs/.swin.fold0.lock first" in (error.hint or "")
    assert held.jobs == []
    assert logged.notes == [f"{BUSY}; trying again for up to 35 s"]


def test_patience_is_per_job_and_restarts_after_a_taken_lock(
    turn: Callable[[float], None],
    logged: Logged,
) -> None:
    held = LockedJobs(60)
    assert held.add(job(0), "0") is None
    turn(50)
    assert held.add(job(1), "1") is None
    held.taken(job(0))  # trained for a while, and its machine was lost again
    turn(50)
    assert held.add(job(0), "0") is None
    assert held.add(job(1), "1") is None
    assert [note[0] for note in logged.notes] == ["0", "1", "0"]


def machine(alive: bool = True, **resources: float) -> dict[str, Any]:
    return {"Alive": alive, "Resources": resources}


def test_missing_resources_are_logged_once_per_loss(
    turn: Callable[[float], None],
    logged: Logged,
) -> None:
    machines = [machine(CPU=2.0), machine(CPU=8.0, alive=False)]
    room = ResourceWatch({"CPU": 4}, lambda: machines)
    assert room.lacking(600) == 0
    assert logged.notes == [], "a machine may be on its way"
    for seconds in (5.0, 10.0, 15.0):
        turn(5)
        assert room.lacking(600) == seconds
    said = "no machine of the cluster has 4 CPU cores for a job (the largest has 2)"
    assert logged.notes == [f"{said}; waiting for one for up to 10 min"]
    error = room.error(job(1), 15)
    assert error.message == f"swin fold 1: {said}, waited for 15 s"
    assert "`resume=True`" in (error.hint or "")
    machines[1]["Alive"] = True
    turn(5)
    assert room.lacking(600) == 0
    machines[1]["Alive"] = False
    for _ in range(2):
        turn(5)
        room.lacking(600)
    assert len(logged.notes) == 2


def test_machines_are_looked_at_now_and_then(turn: Callable[[float], None]) -> None:
    looks: list[int] = []
    room = ResourceWatch({"CPU": 1}, lambda: looks.append(1) or [])  # type: ignore[func-returns-value]
    for _ in range(40):
        room.lacking(600)
        turn(0.25)
    assert len(looks) == 2


@pytest.mark.parametrize(
    ("needs", "machines", "fits"),
    [
        ({"GPU": 0.5}, [machine(CPU=64.0)], False),
        ({"GPU": 0.5}, [machine(CPU=64.0), machine(GPU=1.0)], True),
        ({"GPU": 0.5}, [machine(GPU=1.0, alive=False)], False),
        ({"CPU": 4}, [machine(CPU=2.0), machine(CPU=2.0)], False),
        ({"CPU": 4}, [machine(CPU=4.0)], True),
        ({"CPU": 1}, [], False),
    ],
)
def test_a_job_fits_on_one_living_machine_or_not_at_all(
    turn: Callable[[float], None], needs: dict[str, float], machines: list[dict[str, Any]], fits: bool
) -> None:
    room = ResourceWatch(needs, lambda: machines)
    room.lacking(600)
    turn(60)
    assert (room.lacking(600) == 0) == fits
