"""Choose devices and number formats (fp32, bf16, fp16), with the reason for each automatic choice."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from folds.errors import EnsembleError, UsageError, unknown_name
from folds.models.gpus import all_slices, driver_loaded, named_devices, torch_name

if TYPE_CHECKING:
    import torch


AMP = ("auto", "bf16", "fp16", "off")

logger = logging.getLogger(__name__)


def cuda_devices() -> int:
    """Return the number of CUDA devices that torch can use.

    torch counts the GPUs of the driver without starting CUDA; whether they can be used shows only when it is started.
    A driver without a usable GPU is a warning: training on the CPU is what most people there do not want.

    Raises
    ------
    EnsembleError : there are GPUs, but CUDA cannot be started, e.g. because the driver is older than torch needs.
    """
    import torch

    count = torch.cuda.device_count()
    if not count:
        if unused := unused_gpu():
            logger.warning(unused)
        return 0
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:300]
        raise EnsembleError(
            f"this machine has {count} GPU{'' if count == 1 else 's'} that torch {torch.__version__} cannot use: "
            f"{reason}",
            hint="install a newer driver, or a torch for the driver (its CUDA version is shown by nvidia-smi); "
            "`devices=cpu` trains without GPUs",
        ) from None
    return count


def unused_gpu() -> str:
    """Return why torch sees no GPU although a driver is loaded; "" without a driver, or if the user hides the GPUs."""
    import torch

    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not driver_loaded() or (hidden is not None and hidden.strip() in ("", "-1", "NoDevFiles")):
        return ""
    if torch.version.cuda is None and torch.version.hip is None:
        return (
            f"an NVIDIA driver is loaded, but torch {torch.__version__} is a build without CUDA: training runs on the "
            "CPU; pip install --force-reinstall torch torchvision installs a build with CUDA"
        )
    given = f" (CUDA_VISIBLE_DEVICES is {hidden!r})" if hidden is not None else ""
    return f"an NVIDIA driver is loaded, but torch finds no GPU{given}: training runs on the CPU"


def resolve_amp(choice: str, device: str) -> tuple[str, str]:
    """Return the number format for a device (``bf16``, ``fp16`` or ``off``) and the reason for it.

    The format is ``auto`` for the device ``cuda``, a GPU of a cluster that is not known yet. On a CPU it is ``off``,
    the format of a run for which nothing is measured (`folds.runs.run_formats`).

    Raises
    ------
    UsageError : `choice` is unknown.
    """
    import torch

    if choice not in AMP:
        raise unknown_name("`amp`", choice, AMP)
    if choice != "auto":
        return choice, "as requested"
    if device == "cpu":
        return "off", "unless bf16 is measured to be faster before the training"
    if device == "cuda":  # some GPU of a cluster; the one of this machine says nothing about it
        return "auto", "chosen for the GPU that a job gets"
    major, minor = torch.cuda.get_device_capability(torch.device(torch_name(device)))
    if major >= 8:
        return "bf16", f"CUDA compute capability {major}.{minor} has bf16"
    return "fp16", f"CUDA compute capability {major}.{minor} has no fast bf16"


def amp_warning(choice: str, device: str) -> str:
    """Return a warning if a number format is slow on a device; "" otherwise."""
    if choice == "fp16" and device.startswith("cpu"):
        return "`amp=fp16` on a CPU is about 25 times slower than `amp=off` (measured with ResNet18), and no smaller"
    return ""


def autocast(amp: str, device: str) -> torch.autocast:
    """Return the autocast context of a resolved number format; a no-op for ``off``."""
    import torch

    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "off": torch.float32}[amp]
    return torch.autocast(device.split(":")[0], dtype=dtype, enabled=amp != "off")


def resolve_devices(devices: str = "auto", workers: bool = False) -> list[str]:
    """Return the names of the requested devices as torch names: ``cpu``, or ``cuda:0`` and so on.

    Parameters
    ----------
    devices : ``auto`` (all CUDA devices, else the CPU), ``cpu``, CUDA numbers ``0,1``, or UUIDs of GPUs or MIG slices.
    workers : whether each device gets a process of its own (`folds.models.gpus.device_variables`); names may then be
        ``cuda:MIG-…``.

    Raises
    ------
    UsageError : a device does not exist.
    EnsembleError : there are GPUs that torch cannot use.
    """
    if devices == "auto":
        found = cuda_devices()
        return (all_slices(found) if workers else []) or [f"cuda:{i}" for i in range(found)] or ["cpu"]
    if devices == "cpu":
        return ["cpu"]
    if devices.partition(":")[0] in ("mps", "xpu", "rocm", "hip", "tpu", "xla"):
        raise UsageError(
            f"`devices={devices}` is not supported: training runs on the CPU and on CUDA GPUs",
            hint="`devices=cpu` works on every machine; on ROCm, the GPUs have CUDA numbers",
        )
    return named_devices(devices, cuda_devices(), workers)
