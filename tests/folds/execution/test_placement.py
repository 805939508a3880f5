from __future__ import annotations

import pytest
import torch

from folds.errors import UsageError
from folds.execution import placement as devices
from folds.execution.placement import Execution, plan_devices
from folds.models.precision import AMP, autocast, resolve_amp


@pytest.fixture(autouse=True)
def _a_machine_with_eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cpu_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


@pytest.mark.parametrize(
    ("jobs", "slots", "threads"), [(1, 1, 8), (2, 2, 4), (3, 3, 2), (5, 5, 1), (8, 8, 1), (9, 8, 1), (100, 8, 1)]
)
def test_cpu_has_a_slot_per_job_up_to_the_number_of_cores(jobs: int, slots: int, threads: int) -> None:
    for choice in ("auto", "cpu"):
        placement = plan_devices(jobs, choice)
        assert placement.devices == ("cpu",) * slots
        assert placement.threads == threads
        assert placement.threads * len(placement.devices) <= 8


def test_the_reason_says_jobs_threads_and_cores() -> None:
    reason = plan_devices(3).reason
    assert "training 3 folds in parallel" in reason
    assert "2 threads each" in reason
    assert "8 cores" in reason
    assert "1 thread each" in plan_devices(8).reason


def test_slots_and_threads_can_be_given() -> None:
    assert (plan_devices(10, "cpu", per_device=2).devices, plan_devices(10, "cpu", per_device=2).threads) == (
        ("cpu", "cpu"),
        4,
    )
    assert plan_devices(10, "cpu", per_device=20).threads == 1
    assert len(plan_devices(10, "cpu", per_device=20).devices) == 10
    assert plan_devices(2, threads=3).threads == 3


@pytest.mark.parametrize("choice", ["0", "cuda:0", "0,1", "gpu", "", "-1", "cpu,0"])
def test_error_for_an_unknown_device_counts_the_devices(choice: str) -> None:
    with pytest.raises(UsageError) as error:
        plan_devices(1, choice)
    assert error.value.message.startswith(f"`devices={choice}`: device cuda:")
    assert error.value.message.endswith("this machine has 0 CUDA devices")
    assert (error.value.hint or "").startswith("`devices` must be auto, cpu, CUDA numbers such as 0,1, or UUIDs")


@pytest.mark.parametrize(
    ("execution", "said"),
    [
        (Execution(per_device=0), "jobs must be 1 or more, found 0"),
        (Execution(per_device=-1), "jobs must be 1 or more, found -1"),
        (Execution(backend="rya"), "unknown backend 'rya'; did you mean ray"),
        (Execution(address="auto"), "ray_address needs backend=ray, found backend=local"),
        (Execution(gpus_per_job=0), "gpus_per_job must be 1 or more, found 0"),
        (Execution(gpus_per_job=2, backend="ray"), "gpus_per_job=2 works on one machine"),
        (Execution(save_seconds=0), "save_every must be above 0 seconds, found 0"),
    ],
)
def test_an_execution_that_cannot_be_is_wrong_usage(execution: Execution, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        execution.check()


def test_a_gpu_of_a_cluster_decides_the_number_format_itself() -> None:
    assert resolve_amp("auto", "cuda") == ("auto", "chosen for the GPU that a job gets")


def test_gpus_have_one_job_each_and_no_more_slots_than_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    assert plan_devices(5).devices == ("cuda:0", "cuda:1")
    assert plan_devices(5).threads == 4
    assert plan_devices(1).devices == ("cuda:0",)
    assert plan_devices(5, "1").devices == ("cuda:1",)
    assert plan_devices(5, "cuda:1, 0").devices == ("cuda:1", "cuda:0")
    # Jobs go to all GPUs before any has two.
    assert plan_devices(3, "auto", per_device=2).devices == ("cuda:0", "cuda:1", "cuda:0")
    assert plan_devices(5, "cpu").devices == ("cpu",) * 5
    with pytest.raises(UsageError, match="device cuda:2 not found; this machine has 2"):
        plan_devices(1, "0,2")


def test_a_cpu_computes_in_full_precision_unless_told() -> None:
    assert resolve_amp("auto", "cpu") == ("off", "unless bf16 is measured to be faster before the training")
    for choice in ("bf16", "fp16", "off"):
        assert resolve_amp(choice, "cpu") == (choice, "as requested")


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_a_gpu_takes_the_half_precision_it_is_built_for(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    choice, reason = resolve_amp("auto", "cuda:0")
    assert choice == expected
    assert f"{capability[0]}.{capability[1]}" in reason


def test_an_unknown_precision_offers_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown amp 'bf-16'; did you mean bf16") as error:
        resolve_amp("bf-16", "cpu")
    assert error.value.hint == f"known: {', '.join(AMP)}"


@pytest.mark.parametrize(("amp", "dtype"), [("off", torch.float32), ("bf16", torch.bfloat16)])
@pytest.mark.filterwarnings("error")
def test_autocast_computes_in_the_chosen_precision(amp: str, dtype: torch.dtype) -> None:
    with autocast(amp, "cpu"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


@pytest.mark.parametrize(
    ("jobs", "said"),
    [
        (9, "all 9 share the cores, so that none is idle at the end"),
        (40, "the last 15 of 40 share the cores"),
        (8, ""),
        (3, ""),
    ],
)
def test_last_jobs_share_cores_if_there_are_more_than_cores(jobs: int, said: str) -> None:
    placement = plan_devices(jobs)
    assert placement.shares_cores == bool(said)
    assert said in placement.reason
    assert ("share" in placement.reason) == bool(said)


def test_cores_are_not_shared_if_jobs_or_threads_are_set() -> None:
    assert not plan_devices(9, per_device=8).shares_cores
    assert not plan_devices(9, threads=2).shares_cores  # threads of one job would wait for each other
    assert plan_devices(9, threads=1).shares_cores


def test_a_plan_of_gpus_says_which_stay_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    assert plan_devices(5).reason.endswith("(1 per GPU); 3 GPUs idle in the last round of 5 trainings")
    assert "idle" not in plan_devices(8).reason + plan_devices(3).reason
    assert not plan_devices(5).shares_cores


def gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)


def test_a_slot_has_several_gpus_if_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 5)
    placement = plan_devices(7, gpus_per_job=2)
    assert placement.devices == ("cuda:0", "cuda:2")
    assert placement.partners == (("cuda:1",), ("cuda:3",))
    assert (placement.gpus_per_job, placement.threads, placement.kind) == (2, 4, "cuda")
    assert "2 GPUs each: cuda:0+cuda:1, cuda:2+cuda:3; 1 GPU idle" in placement.reason
    one = plan_devices(1, "3,1,4", gpus_per_job=3)
    assert (one.devices, one.partners) == (("cuda:3",), (("cuda:1", "cuda:4"),))
    assert plan_devices(7).gpus_per_job == 1


@pytest.mark.parametrize(
    ("count", "devices", "found"), [(0, "auto", "no GPU"), (3, "0,2", "2 GPUs"), (3, "0,0", "1 GPU")]
)
def test_too_few_gpus_for_a_job_are_wrong_usage(
    count: int, devices: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(monkeypatch, count)
    with pytest.raises(UsageError, match=f"gpus_per_job=3 needs 3 GPUs, found {found}"):
        plan_devices(4, devices, gpus_per_job=3)
