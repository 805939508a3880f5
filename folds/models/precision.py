"""Choose number formats (fp32, bf16, fp16), with the reason for each automatic choice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from folds.errors import unknown_name
from folds.models.accelerators import computes_in, kind_of, scales_gradients
from folds.models.gpus import torch_name

if TYPE_CHECKING:
    import torch


AMP = ("auto", "bf16", "fp16", "off")


def resolve_amp(choice: str, device: str) -> tuple[str, str]:
    """Return the number format for a device (``bf16``, ``fp16`` or ``off``) and the reason for it.

    The format is ``auto`` for the device ``cuda``, a GPU of a cluster that is not known yet. On a CPU and on Apple's
    GPU it is ``off``, the format of a run for which nothing is measured (`folds.runs.run_formats`).

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
    kind = kind_of(device)
    if kind == "mps":
        return "off", "unless another format is measured to be faster before the training"
    if kind == "xpu":
        bf16 = computes_in("xpu", "bf16") and torch.xpu.is_bf16_supported()
        return ("bf16", "this Intel GPU has bf16") if bf16 else ("off", "this Intel GPU has no bf16")
    if device == "cuda":  # some GPU of a cluster; the one of this machine says nothing about it
        return "auto", "chosen for the GPU that a job gets"
    major, minor = torch.cuda.get_device_capability(torch.device(torch_name(device)))
    if major >= 8:
        return "bf16", f"CUDA compute capability {major}.{minor} has bf16"
    return "fp16", f"CUDA compute capability {major}.{minor} has no fast bf16"


def amp_warning(choice: str, device: str) -> str:
    """Return a warning if a number format is slow on a device; "" otherwise."""
    kind = kind_of(device)
    if choice == "fp16" and kind == "cpu":
        return "`amp=fp16` on a CPU is about 25 times slower than `amp=off` (measured with ResNet18), and no smaller"
    if choice in ("fp16", "bf16") and not computes_in(kind, choice):
        return f"`amp={choice}`: torch does not compute in {choice} on this {kind} device, and the training may fail"
    if choice == "fp16" and kind in ("mps", "xpu") and not scales_gradients(kind):
        return (
            f"`amp=fp16`: torch does not scale gradients on {kind}, so small gradients are lost; `amp=off` keeps them"
        )
    return ""


def usable_amp(amp: str, device: str) -> str:
    """Return the number format to predict in with a model that was trained in `amp`: ``off`` where it cannot be used.

    A CPU predicts in full precision unless a command measures otherwise.
    """
    kind = kind_of(device)
    return amp if kind != "cpu" and computes_in(kind, amp) else "off"


def autocast(amp: str, device: str) -> torch.autocast:
    """Return the autocast context of a resolved number format; a no-op for ``off``."""
    import torch

    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "off": torch.float32}[amp]
    return torch.autocast(kind_of(device), dtype=dtype, enabled=amp != "off")
