"""The number of jobs on a GPU: measured once, recorded, repeated, and chosen anew on another GPU; the GPUs are fakes."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from folds.config.command_settings import Settings
from folds.config.recipe import Recipe
from folds.execution import placement as devices
from folds.execution.gpu_sharing import Cost, Headroom
from folds.execution.placement import Execution
from folds.models import gpus
from folds.runs import gpu_jobs as module
from folds.runs import open as opening
from folds.runs.open import prepare
from folds.runs.plan import Plan, build_plan
from tests.conftest import Logged

GIB = 2**30
COST = Cost(2 * GIB, 0.97, (400.0, 760.0, 1000.0, 1030.0))


class Machine:
    """GPUs that measure as the test says, and count how often they do."""

    def __init__(self) -> None:
        self.names, self.cost, self.count, self.held = ["H100"], COST, 0, 2
        self.orders: list[dict[str, Any]] = []

    def measure(
        self, order: dict[str, Any], device: str, room_of: Callable[[int, int], Headroom], waiting: int
    ) -> tuple[Cost, Headroom]:
        self.count += 1
        self.orders.append(order)
        return self.cost, room_of(78 * GIB, 80 * GIB)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine with GPUs on which any training is worth measuring, and that remembers nothing."""
    made = Machine()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(module, "_WORTH_STEPS", 0)
    monkeypatch.setattr(module, "measure_cost", made.measure)
    monkeypatch.setattr(devices, "cpu_count", lambda: 16)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(made.names))
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: made.names[int(device[5:])])
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: SimpleNamespace(uuid=f"0000-{i}"))
    lines = lambda *what: [f"GPU-0000-{i}, {made.held * 1024}, 81920" for i in range(len(made.names))]  # noqa: E731
    monkeypatch.setattr(gpus, "_ask", lines)
    monkeypatch.setattr(opening, "environment", dict)
    return made


@pytest.fixture
def plan(drawn: Path) -> Callable[..., Plan]:
    """Makes the plan of three folds of a tiny run."""

    def make(execution: Execution | None = None, **more: Any) -> Plan:
        recipe = Recipe(**({"epochs": 2, "img_size": "32", "pretrained": False} | more))
        settings = Settings(data=drawn, arch=("test_resnet",), k=3, name="run")
        return build_plan(settings, recipe, execution=execution)

    return make


def resolved() -> dict[str, Any]:
    return tomllib.loads(Path("runs/run/config.toml").read_text())["resolved"]


def test_the_measured_number_is_used_said_recorded_and_repeated(
    machine: Machine, plan: Callable[..., Plan], logged: Logged
) -> None:
    made = plan()
    assert made.placement.devices == ("cuda:0",)
    prepared = prepare(made)
    assert prepared.placement.devices == ("cuda:0",) * 3
    # The threads are those of one job on each GPU, so that a job does not depend on the number.
    assert {job.threads for job in prepared.jobs} == {made.placement.threads} == {16}
    reason = (
        "3 jobs on each GPU: one takes 2.0 of 78.0 GiB that are free, and images/s of jobs together are 1 400, 2 760,"
    )
    assert [line for line in logged.notes if line.startswith(reason)] == [resolved()["jobs_reason"]]
    assert (resolved()["jobs"], resolved()["jobs_measured_on"], resolved()["threads"]) == (3, "H100", 16)
    machine.cost = Cost(2 * GIB, 0.3, (400.0,))
    assert plan().placement.devices == ("cuda:0",) * 3  # a resume does not measure
    assert prepare(plan(), resume=True).placement.devices == ("cuda:0",) * 3
    assert machine.count == 1


def test_another_gpu_chooses_anew_and_says_so(machine: Machine, plan: Callable[..., Plan], logged: Logged) -> None:
    prepare(plan())
    machine.names, machine.cost = ["T4"], Cost(2 * GIB, 0.3, (90.0,))
    again = prepare(plan(), resume=True)  # not refused: the number changes no result
    assert again.placement.devices == ("cuda:0",)
    assert any("3 were measured on H100; this machine has T4" in line for line in logged.notes)
    assert machine.count == 2
    assert resolved()["jobs"] == 3


def test_what_was_measured_serves_other_runs_with_the_memory_of_now(
    machine: Machine, plan: Callable[..., Plan]
) -> None:
    prepare(plan())
    shutil.rmtree("runs", ignore_errors=True)
    assert len(prepare(plan()).placement.devices) == 3
    shutil.rmtree("runs", ignore_errors=True)
    machine.held = 75  # others use the GPU
    assert len(prepare(plan()).placement.devices) == 2
    assert machine.count == 1
    assert machine.orders[0]["amp"] == "bf16"


def test_a_number_that_is_given_wins(machine: Machine, plan: Callable[..., Plan]) -> None:
    prepared = prepare(plan(Execution(per_device=2)))
    assert prepared.placement.devices == ("cuda:0",) * 2
    assert resolved()["jobs"] == 2
    assert "jobs_reason" not in resolved()
    machine.names = ["T4"]
    assert plan().placement.devices == ("cuda:0",) * 2  # given, so it holds for any GPU
    assert machine.count == 0


def test_one_job_is_left_where_nothing_can_be_gained(
    machine: Machine, plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    def reason_of(**more: Any) -> str:
        shutil.rmtree("runs", ignore_errors=True)
        placement = prepare(plan(**more)).placement
        assert len(placement.devices) == len(set(placement.devices))
        return placement.jobs_reason

    machine.names = ["H100", "T4"]
    assert "because they differ (H100, T4)" in reason_of()
    machine.names = ["H100"] * 3
    assert reason_of() == ""  # as many GPUs as jobs
    machine.names = ["H100"]
    monkeypatch.setattr(module, "_WORTH_STEPS", 10_000)
    assert "too short to measure" in reason_of()
    assert machine.count == 0


def test_a_measurement_that_fails_is_no_error(
    machine: Machine, plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*what: Any) -> None:
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(module, "measure_cost", broken)
    placement = prepare(plan()).placement
    assert placement.devices == ("cuda:0",)
    assert placement.jobs_reason == "1 job on each GPU, because more could not be measured: CUDA out of memory"
