from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from folds.errors import EnsembleError, UsageError
from folds.models import accelerators, gpus
from folds.models.accelerators import resolve_devices
from folds.models.precision import amp_warning, resolve_amp


def test_half_precision_on_a_cpu_is_warned_of_with_the_factor() -> None:
    assert "about 25 times slower" in amp_warning("fp16", "cpu")
    assert amp_warning("fp16", "cuda:0") == amp_warning("bf16", "cpu") == amp_warning("auto", "cpu") == ""


@pytest.mark.parametrize("device", ["rocm", "xla:0", "tpu"])
def test_devices_that_are_not_supported_are_named(device: str) -> None:
    with pytest.raises(UsageError, match=f"devices={device} is not supported"):
        resolve_devices(device)


def test_gpus_that_torch_cannot_use_are_an_error_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def old_driver() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old\n(found version 12020).")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "init", old_driver)
    for devices in ("auto", "0"):
        with pytest.raises(
            EnsembleError, match=r"2 GPUs that torch \S+ cannot use: The NVIDIA driver .* 12020"
        ) as error:
            resolve_devices(devices)
        assert "`devices=cpu` trains without GPUs" in (error.value.hint or "")
    assert resolve_devices("cpu") == ["cpu"]


@pytest.mark.parametrize(
    ("hidden", "cuda", "said"),
    [
        (None, None, "is a build without CUDA: training runs on the CPU"),
        (None, "13.0", "torch finds no GPU: training runs on the CPU"),
        ("7", "13.0", "torch finds no GPU (CUDA_VISIBLE_DEVICES is '7')"),
        ("", "13.0", ""),
        ("-1", None, ""),
    ],
)
def test_a_driver_without_a_usable_gpu_is_warned_of(
    hidden: str | None, cuda: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(gpus, "_DRIVER", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert resolve_devices() == ["cpu"]
    assert said in caplog.text
    assert bool(said) == bool(caplog.records)
    monkeypatch.setattr(gpus, "_DRIVER", tmp_path / "none")
    assert accelerators.unused_gpu() == ""


def test_the_format_of_a_gpu_of_a_cluster_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where this machine has a GPU: it may be of another kind."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert resolve_amp("auto", "cuda")[0] == "auto"
    assert resolve_amp("auto", "cuda:0")[0] == "fp16"
    assert resolve_amp("off", "cuda")[0] == "off"
