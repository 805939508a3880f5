"""GPUs by number and UUID, MIG slices, and GPUs that others use; torch and nvidia-smi are fakes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from folds.errors import UsageError
from folds.models import gpus
from folds.models.accelerators import resolve_devices
from folds.models.gpus import busy_gpus, device_variables
from folds.models.precision import resolve_amp

UUIDS = ("8f2c0000-aaaa", "9d1e0000-bbbb")


@pytest.fixture(autouse=True)
def _two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: SimpleNamespace(uuid=UUIDS[i]))
    monkeypatch.setattr(gpus.shutil, "which", lambda name: None)


def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, code: int = 0) -> None:
    """Let nvidia-smi be a script that prints a text."""
    (tmp_path / "text").write_text(text)
    script = tmp_path / "nvidia-smi"
    script.write_text(f"#!/bin/sh\ncat '{tmp_path}/text'\nexit {code}\n")
    script.chmod(0o755)
    monkeypatch.setattr(gpus.shutil, "which", lambda name: str(script))


@pytest.mark.parametrize(
    ("visible", "device", "seen"),
    [
        (None, "cuda:1", "1"),
        ("3,5", "cuda:1", "5"),
        (" GPU-8f2c , MIG-77aa ", "cuda:1", "MIG-77aa"),
        ("3,5", "cuda:MIG-11bb", "MIG-11bb"),
        ("3", "cuda:1", None),
        (None, "cpu", None),
        (None, "cuda", None),
    ],
)
def test_a_worker_sees_the_gpu_that_its_parent_numbers(
    visible: str | None, device: str, seen: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert device_variables(device) == ({} if seen is None else {"CUDA_VISIBLE_DEVICES": seen})


def test_workers_on_rocm_see_all_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "hip", "6.2")
    assert device_variables("cuda:1") == {}


def test_gpus_are_chosen_by_uuid_or_its_beginning() -> None:
    assert resolve_devices("GPU-9d1e0000-bbbb,0") == ["cuda:1", "cuda:0"]
    assert resolve_devices("GPU-8F2C") == ["cuda:0"]
    with pytest.raises(UsageError, match="devices=GPU-77770000: this machine has no such GPU that torch can use"):
        resolve_devices("GPU-77770000")


def test_slices_are_for_workers_and_this_process_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-aaaa,MIG-bbbb")
    assert resolve_devices("auto", workers=True) == ["cuda:MIG-aaaa", "cuda:MIG-bbbb"]
    assert resolve_devices("auto") == ["cuda:0"]
    assert resolve_devices("MIG-bbbb", workers=True) == ["cuda:MIG-bbbb"]
    assert resolve_devices("MIG-aaaa") == ["cuda:0"]
    with pytest.raises(UsageError, match="this process works on another MIG slice") as error:
        resolve_devices("MIG-bbbb")
    assert error.value.hint == "start it with CUDA_VISIBLE_DEVICES=MIG-bbbb"
    with pytest.raises(UsageError, match="no such GPU"):
        resolve_devices("MIG-cccc", workers=True)


def test_a_slice_that_nvidia_smi_does_not_list_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi(tmp_path, monkeypatch, "GPU 0: A100 (UUID: GPU-8f2c)\n  MIG 1g.5gb Device 0: (UUID: MIG-aaaa)\n")
    assert resolve_devices("MIG-aaaa", workers=True) == ["cuda:MIG-aaaa"]
    with pytest.raises(UsageError, match="no such GPU"):
        resolve_devices("MIG-bbbb", workers=True)


def test_the_format_of_a_slice_is_that_of_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: asked.append(str(device)) or (9, 0))
    assert resolve_amp("auto", "cuda:MIG-aaaa")[0] == "bf16"
    assert asked == ["cuda:0"]


def test_gpus_that_others_use_are_named_with_the_free_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # In the order of nvidia-smi, which may be another one than that of torch.
    smi(tmp_path, monkeypatch, "GPU-9D1E0000-bbbb, 40960, 81920\nGPU-8f2c0000-aaaa, 600, 81920\n")
    [line] = busy_gpus(["cuda:0", "cuda:1", "cuda:1"])
    assert line.startswith("cuda:1: processes hold 40.0 of 80.0 GiB already")
    assert line.endswith("`devices=0` trains on the others")
    assert busy_gpus(["cuda:1"])[0].endswith("`devices=cpu` trains without GPUs")
    assert busy_gpus(["cuda:0"]) == []


@pytest.mark.parametrize(("text", "code"), [("", 0), ("NVML: error", 9), ("GPU-9d1e0000-bbbb, [N/A], 5\nodd", 0)])
def test_without_an_answer_of_nvidia_smi_no_gpu_is_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, code: int
) -> None:
    assert busy_gpus(["cuda:0"]) == []
    smi(tmp_path, monkeypatch, text, code)
    assert busy_gpus(["cuda:0", "cuda:1"]) == []
