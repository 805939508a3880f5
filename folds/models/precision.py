"""Choose devices and number formats of training and prediction, and say why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from folds.errors import UsageError, unknown_name

if TYPE_CHECKING:
    import torch


AMP = ("auto", "bf16", "fp16", "off")


def resolve_amp(choice: str, device: str) -> tuple[str, str]:
    """Return (``bf16``, ``fp16`` or ``off``, the reason) for a device."""
    import torch

    if choice not in AMP:
        raise unknown_name("--amp", choice, AMP)
    if choice != "auto":
        return choice, "as asked"
    if device == "cpu":
        return "off", "a CPU is not faster in half precision"
    if device == "cuda" and not torch.cuda.is_available():  # some GPU of a cluster
        return "auto", "decided by the GPU that a job gets"
    major, minor = torch.cuda.get_device_capability(torch.device(device))
    if major >= 8:
        return "bf16", f"CUDA compute capability {major}.{minor} has bf16"
    return "fp16", f"CUDA compute capability {major}.{minor} has no fast bf16"


def autocast(amp: str, device: str) -> torch.autocast:
    """Return the autocast context of a resolved number format; a no-op for ``off``."""
    import torch

    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "off": torch.float32}[amp]
    return torch.autocast(device.split(":")[0], dtype=dtype, enabled=amp != "off")


def resolve_devices(devices: str = "auto") -> list[str]:
    """Return the names of the devices that are asked for, as torch has them: ``cpu``, or ``cuda:0`` and so on.

    Parameters
    ----------
    devices : ``auto`` (all CUDA devices, else the CPU), ``cpu``, or CUDA numbers ``0,1``.

    Raises
    ------
    UsageError : there is no such device.
    """
    import torch

    if devices == "auto":
        return [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cpu"]
    if devices == "cpu":
        return ["cpu"]
    names = [f"cuda:{number.strip().removeprefix('cuda:')}" for number in devices.split(",")]
    found = torch.cuda.device_count()
    bad = [name for name in names if not name[5:].isdigit() or int(name[5:]) >= found]
    if bad:
        message = f"--devices {devices}: no device {bad[0]}; this machine has {found} CUDA devices"
        raise UsageError(message, hint="--devices auto, cpu, or 0,1")
    return names
