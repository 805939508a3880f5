"""Apple's and Intel's GPUs: which are found, and what each kind is asked; torch's modules of them are fakes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ensemble.cli.commands import doctor
from folds.errors import EnsembleError, UsageError
from folds.execution import serve
from folds.execution.placement import Execution, plan_devices
from folds.models import accelerators, gpus, inference
from folds.models.accelerators import (
    computes_in,
    described,
    device_name,
    free_cache,
    memory,
    of_device,
    peak_bytes,
    pins,
    prefers_channels_last,
    resolve_devices,
    scaler_of,
    scales_gradients,
    streams_of,
    synchronize,
    worker_variables,
)
from folds.models.inference import PixelSource
from folds.models.memory import is_out_of_memory
from folds.models.precision import amp_warning, resolve_amp, usable_amp
from folds.training import versions
from folds.training.job import Job
from folds.training.trainer import _set_numerics

GIB = 2**30
_OF_CUDA = ("mem_get_info", "synchronize", "empty_cache", "Stream", "Event", "get_device_capability", "get_device_name")


class FakeModule:
    """Stands for ``torch.mps`` or ``torch.xpu``, and counts its calls."""

    def __init__(self, kind: str) -> None:
        self.kind, self.calls = kind, list[tuple[Any, ...]]()

    def synchronize(self, *device: str) -> None:
        self.calls.append(("synchronize", *device))

    def empty_cache(self) -> None:
        self.calls.append(("empty_cache",))

    def recommended_max_memory(self) -> int:
        assert self.kind == "mps"
        return 12 * GIB

    def driver_allocated_memory(self) -> int:
        assert self.kind == "mps"
        return 3 * GIB

    def mem_get_info(self, device: str) -> tuple[int, int]:
        assert self.kind == "xpu"
        if device == "xpu:1":
            raise RuntimeError("The device doesn't support querying the available free memory.")
        return 10 * GIB, 16 * GIB

    def max_memory_allocated(self) -> int:
        return 5

    def get_device_name(self, device: str) -> str:
        return f"Arc of {device}"


@pytest.fixture(autouse=True)
def _no_cuda(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A machine without CUDA, on which a call of it is an error, and what was tried is forgotten."""

    def forbidden(*arguments: Any) -> None:
        raise AssertionError("asked CUDA on a machine without it")

    for name in _OF_CUDA:
        monkeypatch.setattr(torch.cuda, name, forbidden)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(gpus, "_DRIVER", tmp_path / "none")
    for tried in (scales_gradients, computes_in):
        tried.cache_clear()
    yield
    for tried in (scales_gradients, computes_in):
        tried.cache_clear()


def machine(monkeypatch: pytest.MonkeyPatch, kind: str, count: int = 1) -> FakeModule:
    """Let torch find devices of one kind."""
    fake = FakeModule(kind)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: torch.device(kind))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)

    def module_of(device: torch.device) -> FakeModule:
        assert device.type == kind
        return fake

    monkeypatch.setattr(torch, "get_device_module", module_of)
    monkeypatch.setattr(accelerators, "available_bytes", lambda: None)
    return fake


@pytest.mark.parametrize(
    ("kind", "count", "asked", "found"),
    [
        ("mps", 1, "auto", ["mps"]),
        ("mps", 1, "mps", ["mps"]),
        ("mps", 1, "mps:0", ["mps"]),
        ("mps", 1, "cpu", ["cpu"]),
        ("xpu", 2, "auto", ["xpu:0", "xpu:1"]),
        ("xpu", 2, "xpu", ["xpu:0", "xpu:1"]),
        ("xpu", 2, "xpu:1", ["xpu:1"]),
        ("xpu", 2, "xpu:1, 0", ["xpu:1", "xpu:0"]),
    ],
)
def test_other_accelerators_are_found_and_named(
    kind: str, count: int, asked: str, found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, kind, count)
    assert resolve_devices(asked) == found


def test_cuda_comes_before_others(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, "xpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    assert resolve_devices() == ["cuda:0", "cuda:1"]


@pytest.mark.parametrize(("kind", "asked"), [("mps", "xpu"), ("xpu", "mps"), ("xpu", "xpu:2"), ("mps", "mps:1")])
def test_a_device_that_is_not_there_is_an_error_with_what_is(
    kind: str, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, kind)
    with pytest.raises(UsageError, match=f"devices={asked}: torch .* can use {resolve_devices()[0]} on this") as error:
        resolve_devices(asked)
    assert "`devices=auto` takes what there is" in (error.value.hint or "")


def test_without_an_accelerator_none_can_be_asked_for() -> None:
    assert resolve_devices() == ["cpu"]
    for asked in ("mps", "xpu:0"):
        with pytest.raises(UsageError, match="can use no such device on this machine"):
            resolve_devices(asked)


def test_apples_gpu_trains_one_job_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, "mps")
    placement = plan_devices(5)
    assert (placement.devices, placement.kind, placement.partners) == (("mps",), "mps", ())
    assert plan_devices(5, per_device=1).devices == ("mps",)
    with pytest.raises(UsageError, match="jobs=2: mps trains 1 job at a time"):
        plan_devices(5, per_device=2)
    machine(monkeypatch, "xpu", 2)
    assert plan_devices(5).devices == ("xpu:0", "xpu:1")
    assert plan_devices(5, per_device=2).devices == ("xpu:0", "xpu:1") * 2
    with pytest.raises(UsageError, match="gpus_per_job=2 works on CUDA GPUs, found xpu:0, xpu:1"):
        plan_devices(5, gpus_per_job=2)
    Execution(devices="mps").check()


def test_workers_on_apples_gpu_compute_missing_operators_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTORCH_ENABLE_MPS_FALLBACK", raising=False)
    assert worker_variables("mps") == {"PYTORCH_ENABLE_MPS_FALLBACK": "1"}
    assert worker_variables("cpu") == worker_variables("cuda:0") == worker_variables("xpu:0") == {}
    monkeypatch.setenv("PYTORCH_ENABLE_MPS_FALLBACK", "0")  # as the user wants it
    assert worker_variables("mps") == {}


def test_each_kind_is_asked_in_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    mps = machine(monkeypatch, "mps")
    synchronize("mps")
    free_cache("mps")
    assert mps.calls == [("synchronize",), ("empty_cache",)]
    assert memory("mps") == (9 * GIB, 12 * GIB)
    assert peak_bytes() == 3 * GIB
    monkeypatch.setattr(accelerators, "available_bytes", lambda: 5 * GIB)  # the rest is that of other programs
    assert memory("mps") == (4 * GIB, 12 * GIB)
    xpu = machine(monkeypatch, "xpu", 2)
    synchronize("xpu:1")
    assert xpu.calls == [("synchronize", "xpu:1")]
    assert memory("xpu:0") == (10 * GIB, 16 * GIB)
    assert memory("xpu:1") is None
    assert (peak_bytes(), device_name("xpu:0"), device_name("cpu")) == (5, "Arc of xpu:0", "")
    assert memory("cpu") is None
    synchronize("cpu")
    free_cache("cpu")


def test_apples_gpu_has_no_streams_no_pinned_memory_and_no_channels_last(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, "mps")
    assert not pins("mps")
    assert streams_of(torch.device("mps")) is None
    assert not prefers_channels_last("mps")
    with of_device(torch.device("mps")):
        pass
    assert all(prefers_channels_last(device) for device in ("cpu", "cuda:0", "xpu:0"))


@pytest.mark.parametrize(("kind", "resident"), [("mps", True), ("xpu:0", True), ("xpu:1", False)])
def test_images_lie_on_an_accelerator_whose_memory_is_known(
    kind: str, resident: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, kind.partition(":")[0], 2)
    sent: list[str] = []
    monkeypatch.setattr(inference, "copy_in_blocks", lambda values, device: sent.append(str(device)))
    PixelSource(np.zeros((4, 2, 2, 3), np.uint8), kind)
    assert sent == ([kind] if resident else [])


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("MPS backend out of memory (MPS allocated: 8.9 GB, max allowed: 9.07 GB).", True),
        ("Invalid buffer size: 24.00 GiB", True),
        ("level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)", True),
        ("The operator 'aten::x' is not currently implemented for the MPS device", False),
    ],
)
def test_each_kind_says_in_its_own_words_that_memory_ran_out(text: str, short: bool) -> None:
    assert is_out_of_memory(RuntimeError(text)) == short


def test_number_formats_of_kinds_follow_from_what_torch_can(monkeypatch: pytest.MonkeyPatch) -> None:
    able = {("mps", "fp16"), ("xpu", "bf16")}
    monkeypatch.setattr(accelerators, "computes_in", lambda kind, amp: (kind, amp) in able or amp == "off")
    for name in ("computes_in", "scales_gradients"):
        monkeypatch.setattr(f"folds.models.precision.{name}", lambda *what: tuple(what) in able or what == ("mps",))
    monkeypatch.setattr(torch.xpu, "is_bf16_supported", lambda: True)
    assert resolve_amp("auto", "mps") == ("off", "unless another format is measured to be faster before the training")
    assert resolve_amp("auto", "xpu:0")[0] == "bf16"
    assert resolve_amp("fp16", "mps") == ("fp16", "as requested")
    assert usable_amp("fp16", "mps") == "fp16"
    assert usable_amp("bf16", "mps") == "off"  # a model that another machine trained
    assert usable_amp("bf16", "cpu") == "off"
    assert "torch does not compute in bf16 on this mps device" in amp_warning("bf16", "mps")
    assert amp_warning("fp16", "mps") == ""
    monkeypatch.setattr("folds.models.precision.scales_gradients", lambda kind: False)
    assert "torch does not scale gradients on mps" in amp_warning("fp16", "mps")


def test_gradients_are_scaled_only_where_torch_can(monkeypatch: pytest.MonkeyPatch) -> None:
    assert scales_gradients("cpu")  # tried with torch itself
    assert not scales_gradients("mps")  # here there is none
    assert not computes_in("mps", "bf16")
    assert computes_in("mps", "off")
    monkeypatch.setattr(accelerators, "scales_gradients", lambda kind: False)
    assert not scaler_of("mps", "fp16").is_enabled()
    monkeypatch.setattr(accelerators, "scales_gradients", lambda kind: True)
    scaler = scaler_of("mps", "fp16")
    assert (scaler.is_enabled(), scaler._device) == (True, "mps")
    assert not scaler_of("mps", "off").is_enabled()


def test_the_kernels_of_cuda_are_left_alone_on_other_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    empty: dict[str, Any] = {}
    job = Job("run", 0, 3, "runs/run", "", "", None, empty, empty, empty, empty, ("a", "b"), {}, "", device="mps")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    before = torch.get_float32_matmul_precision()
    _set_numerics(job)
    assert not torch.backends.cudnn.benchmark
    assert torch.get_float32_matmul_precision() == before
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ


def test_a_worker_without_its_device_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    empty: dict[str, Any] = {}
    job = Job("run", 0, 3, "runs/run", "", "", None, empty, empty, empty, empty, ("a", "b"), {}, "", device="mps")
    with pytest.raises(EnsembleError, match="torch finds no mps device in the worker for mps"):
        serve._require_gpu(job)
    machine(monkeypatch, "mps")
    serve._require_gpu(job)


def test_records_and_doctor_name_the_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, "xpu", 2)
    monkeypatch.setattr(accelerators, "computes_in", lambda kind, amp: True)
    monkeypatch.setattr(accelerators, "scales_gradients", lambda kind: False)
    assert versions.environment()["accelerator"] == "xpu Arc of xpu:0"
    first, second = described()
    assert first == "xpu:0 Arc of xpu:0, 10 of 16 GiB free, fp32, fp16 (predictions only: no gradient scaling), bf16"
    assert "xpu:1 Arc of xpu:1, memory unknown" in second
    assert doctor._devices([]) == [first, second]


def test_doctor_says_that_the_service_for_shared_gpus_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (70 * GIB, 80 * GIB))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "H100")
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    assert [line[:50] for line in described()] == ["cuda:0 H100, 70 of 80 GiB free, compute capability"]
    (tmp_path / "control").touch()
    assert f"Multi-Process Service listens in {tmp_path}" in described()[-1]
