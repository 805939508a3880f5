"""Slots of this machine: how many jobs run beside each other, and what a killed worker does to them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from folds.execution import local
from folds.execution.local import train_on_this_machine
from folds.execution.placement import DevicePlan
from folds.execution.worker import WorkerDied
from folds.models.memory import DeviceSharedError
from folds.training.job import Job
from tests.conftest import Logged

SHARED = DevicePlan(("cpu", "cpu"), 1, "", shares_cores=True)
GIB = 2**30


def job(folder: Path, fold: int) -> Job:
    empty: dict[str, Any] = {}
    return Job("swin", fold, 9, str(folder), "", "", None, empty, empty, empty, empty, ("a", "b"), {}, "")


class Jobs:
    """What a worker of a test does: each job reports a step, then waits until the test lets it end."""

    def __init__(self) -> None:
        self.order: list[int] = []
        self.variables: list[dict[str, str]] = []
        self.devices: set[tuple[str, str | None]] = set()
        self.partners: set[tuple[str, ...]] = set()
        self.now: set[int] = set()
        self.most = 0
        self.may_end: Callable[[int], bool] = lambda fold: True
        self.dies: list[int] = []  # folds whose worker is killed once
        self.lacks_memory: Callable[[int], bool] = lambda fold: False  # asked if the job may give way
        self.shares: list[tuple[int, float, bool]] = []
        self.stopped = 0
        self.changed = threading.Condition()

    def run(self, record: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        fold = record["fold"]
        with self.changed:
            self.order.append(fold)
            self.devices.add((record["device"], record["physical_device"]))
            self.partners.add(tuple(record["partners"]))
            self.now.add(fold)
            self.most = max(self.most, len(self.now))
            self.shares.append((fold, record["memory_fraction"], record["gives_way"]))
        report({"event": "step", "done": 1, "total": 2})
        with self.changed:
            self.changed.notify_all()
            ended = self.changed.wait_for(lambda: self.may_end(fold), timeout=10)
            self.now.remove(fold)
            self.changed.notify_all()
        assert ended, "the jobs of the test wait for each other"
        if record["gives_way"] and self.lacks_memory(fold):
            raise DeviceSharedError(f"swin fold {fold}: out of memory on cuda:0")
        if fold in self.dies:
            self.dies.remove(fold)
            raise WorkerDied("killed (SIGKILL)")
        return {"fold": fold}


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Jobs:
    """Fake workers of 1 GiB each on a machine with 4 GiB left."""
    shared = Jobs()

    class Fake:
        pid, stopped = 1, False

        def __init__(self, threads: int, variables: Mapping[str, str]) -> None:
            self.run = shared.run
            shared.variables.append(dict(variables))

        def stop(self) -> None:
            shared.stopped += not self.stopped
            self.stopped = True

    monkeypatch.setattr(local, "Worker", Fake)
    monkeypatch.setattr(local, "private_bytes", lambda pid: GIB)
    monkeypatch.setattr(local, "available_bytes", lambda: 4 * GIB)
    return shared


def trained(folder: Path, count: int, placement: DevicePlan = SHARED) -> set[int]:
    outcomes = train_on_this_machine([job(folder, i) for i in range(count)], placement, lambda job, event: None)
    return {outcome.result["fold"] for outcome in outcomes if outcome.result is not None}


def test_three_jobs_share_two_cores(jobs: Jobs, tmp_path: Path) -> None:
    jobs.may_end = lambda fold: jobs.most == 3
    assert trained(tmp_path, 3) == {0, 1, 2}
    assert jobs.order[-1] == 2


def test_only_the_last_round_and_a_half_shares_the_cores(jobs: Jobs, tmp_path: Path) -> None:
    def may_end(fold: int) -> bool:
        """Two run at a time until three are left, which run together."""
        left = 5 - len(jobs.order) + len(jobs.now)
        return len(jobs.now) == (2 if left > 3 else 3) or len(jobs.order) == 5

    jobs.may_end = may_end
    assert trained(tmp_path, 5) == set(range(5))
    assert jobs.most == 3


@pytest.mark.parametrize(
    "placement", [DevicePlan(("cpu", "cpu"), 1, ""), DevicePlan(("cuda:0", "cuda:1"), 1, "")], ids=["--jobs 2", "GPUs"]
)
def test_slots_are_not_exceeded_where_they_were_chosen(jobs: Jobs, tmp_path: Path, placement: DevicePlan) -> None:
    assert trained(tmp_path, 5, placement) == set(range(5))
    assert jobs.most <= 2


@pytest.mark.parametrize(("each", "left"), [(GIB, GIB), (GIB, None), (None, 4 * GIB)])
def test_jobs_do_not_share_cores_without_memory_for_one_more(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, each: int | None, left: int | None
) -> None:
    monkeypatch.setattr(local, "private_bytes", lambda pid: each)
    monkeypatch.setattr(local, "available_bytes", lambda: left)
    assert trained(tmp_path, 3) == {0, 1, 2}
    assert jobs.most <= 2


def test_a_job_killed_while_cores_are_shared_waits_for_a_slot(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    withdraw, withdrawn = local._Slots._withdraw, list[bool]()

    def remember(self: Any, worker: Any) -> bool:
        withdrawn.append(withdraw(self, worker))
        with jobs.changed:
            jobs.changed.notify_all()
        return withdrawn[-1]

    monkeypatch.setattr(local._Slots, "_withdraw", remember)
    jobs.dies = [2]
    jobs.may_end = lambda fold: jobs.most == 3 and (fold == 2 or withdrawn == [True])
    assert trained(tmp_path, 3) == {0, 1, 2}
    assert jobs.order.count(2) == 2
    assert any("swin fold 2: worker killed (SIGKILL); it continues" in line for line in logged.notes)


def test_an_error_of_the_progress_display_ends_the_training(jobs: Jobs, tmp_path: Path) -> None:
    def broken(job: Job, event: dict[str, Any]) -> None:
        raise OSError("no terminal")

    with pytest.raises(OSError, match="no terminal"):
        list(train_on_this_machine([job(tmp_path, 0)], SHARED, broken))


def test_each_worker_sees_its_gpu_only_as_the_first_one(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-8f2c,7")
    jobs.may_end = lambda fold: len(jobs.order) >= 3
    trained(tmp_path, 5, DevicePlan(("cuda:0", "cuda:1", "cuda:MIG-11aa"), 1, ""))
    assert jobs.variables == [{"CUDA_VISIBLE_DEVICES": name} for name in ("5", "GPU-8f2c", "MIG-11aa")]
    assert jobs.devices == {("cuda:0", name) for name in ("cuda:0", "cuda:1", "cuda:MIG-11aa")}
    assert jobs.partners == {()}


def test_a_worker_sees_the_gpus_of_its_group(jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    placement = DevicePlan(("cuda:0", "cuda:2"), 1, "", partners=(("cuda:1",), ("cuda:3",)))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    jobs.may_end = lambda fold: len(jobs.order) >= 2
    trained(tmp_path, 3, placement)
    assert jobs.variables == [{"CUDA_VISIBLE_DEVICES": name} for name in ("0,1", "2,3")]
    assert jobs.devices == {("cuda:0", "cuda:0+cuda:1"), ("cuda:0", "cuda:2+cuda:3")}
    assert jobs.partners == {("cuda:1",)}


def test_a_group_that_sees_all_gpus_has_their_own_names(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "group_variables", lambda devices: {})
    trained(tmp_path, 1, DevicePlan(("cuda:2",), 1, "", partners=(("cuda:3", "cuda:5"),)))
    assert jobs.devices == {("cuda:2", None)}
    assert jobs.partners == {("cuda:3", "cuda:5")}


def test_a_gpu_without_memory_for_its_jobs_trains_one_less(jobs: Jobs, tmp_path: Path, logged: Logged) -> None:
    """The job waits at the front of the queue and comes back; the other GPU keeps its number."""
    placement = DevicePlan(("cuda:0", "cuda:1", "cuda:0", "cuda:1"), 1, "")
    short = [0]
    jobs.may_end = lambda fold: len(jobs.order) >= 4 and (fold == 0 or 0 not in jobs.now)  # the queue is full then
    jobs.lacks_memory = lambda fold: fold in short and not short.remove(fold)  # type: ignore[func-returns-value]
    assert trained(tmp_path, 7, placement) == set(range(7))
    assert jobs.order.count(0) == 2
    assert sorted(jobs.shares)[:2] in ([(0, 0.5, True)] * 2, [(0, 0.5, True), (0, 1.0, False)])
    assert len(jobs.variables) == 4  # no worker is started for it
    assert jobs.most <= 4
    [line] = [line for line in logged.notes if "at a time from now" in line]
    assert "swin fold 0: out of memory on cuda:0: cuda:0 trains 1 at a time from now" in line


def test_the_last_job_of_a_gpu_gives_way_no_more(jobs: Jobs, tmp_path: Path) -> None:
    """All jobs of the GPU run out of memory as often as they may give way; one is left, and has it for itself."""
    jobs.lacks_memory = lambda fold: True
    jobs.may_end = lambda fold: len(jobs.order) >= 3
    assert trained(tmp_path, 3, DevicePlan(("cuda:0",) * 3, 1, "")) == {0, 1, 2}
    assert jobs.shares[0][1:] == (1 / 3, True)
    assert {fold: (share, way) for fold, share, way in jobs.shares} == dict.fromkeys(range(3), (1.0, False))
    assert jobs.stopped == 3


def test_a_job_whose_neighbors_have_ended_continues_at_once(jobs: Jobs, tmp_path: Path, logged: Logged) -> None:
    jobs.may_end = lambda fold: fold == 1 or jobs.stopped == 1  # fold 0 waits until the other slot has ended
    jobs.lacks_memory = lambda fold: fold == 0
    assert trained(tmp_path, 2, DevicePlan(("cuda:0", "cuda:0"), 1, "")) == {0, 1}
    assert [one for one in jobs.shares if one[0] == 0] == [(0, 0.5, True), (0, 1.0, False)]
    assert not any("at a time from now" in line for line in logged.notes)


def test_neither_groups_nor_cores_give_way(jobs: Jobs, tmp_path: Path) -> None:
    jobs.lacks_memory = lambda fold: True
    groups = DevicePlan(("cuda:0", "cuda:0"), 1, "", partners=(("cuda:1",), ("cuda:1",)))
    assert trained(tmp_path, 2, groups) == {0, 1}
    assert trained(tmp_path, 2, DevicePlan(("cpu", "cpu"), 1, "")) == {0, 1}
    assert {way for _, _, way in jobs.shares} == {False}


def test_a_worker_on_apples_gpu_has_its_variable_and_no_gpu_of_cuda(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTORCH_ENABLE_MPS_FALLBACK", raising=False)
    trained(tmp_path, 1, DevicePlan(("mps",), 1, ""))
    assert jobs.variables == [{"PYTORCH_ENABLE_MPS_FALLBACK": "1"}]
    assert jobs.devices == {("mps", None)}
