"""The accelerators of this machine: the one place that asks torch which there are, and what each kind can do.

Three kinds are known: ``cuda`` (NVIDIA, and AMD by ROCm), ``xpu`` (Intel) and ``mps`` (Apple). A question about a
device is a function here, so that no other module calls ``torch.cuda`` on a device of another kind.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from folds.errors import EnsembleError, UsageError
from folds.models.gpus import all_slices, driver_loaded, named_devices, service_folder
from folds.utils.memory import available_bytes

if TYPE_CHECKING:
    import torch

_OTHERS = ("xpu", "mps")  # beside cuda, which has numbers, UUIDs and slices (`folds.models.gpus`)
_UNSUPPORTED = ("rocm", "hip", "tpu", "xla", "hpu", "npu")
# Read when torch is loaded: operators that Apple's GPUs lack are then computed on the CPU.
_FALLBACK = {"PYTORCH_ENABLE_MPS_FALLBACK": "1"}
_MAC_SHARE = 0.8  # of the memory of the system that is left, which is that of Apple's GPU

logger = logging.getLogger(__name__)


def kind_of(device: str) -> str:
    """Return the kind of a device: ``cpu``, ``cuda``, ``xpu`` or ``mps``."""
    return device.partition(":")[0]


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


def other_devices() -> list[str]:
    """Return the devices that are not CUDA's: ``mps``, or ``xpu:0`` and so on; [] if torch can use none."""
    import torch

    found = torch.accelerator.current_accelerator(check_available=True)
    if found is None or found.type not in _OTHERS:
        return []
    # Apple's GPU is one device, and torch gives it no number.
    return ["mps"] if found.type == "mps" else [f"{found.type}:{i}" for i in range(torch.accelerator.device_count())]


def resolve_devices(devices: str = "auto", workers: bool = False) -> list[str]:
    """Return the names of the requested devices as torch names: ``cpu``, ``mps``, or ``cuda:0``, ``xpu:0`` and so on.

    Parameters
    ----------
    devices : ``auto`` (all CUDA devices, else those of `other_devices`, else the CPU), ``cpu``, CUDA numbers ``0,1``,
        UUIDs of GPUs or MIG slices, ``mps``, ``xpu`` (all of them) or ``xpu:0``.
    workers : whether each device gets a process of its own (`folds.models.gpus.device_variables`); names may then be
        ``cuda:MIG-…``.

    Raises
    ------
    UsageError : a device does not exist.
    EnsembleError : there are GPUs that torch cannot use.
    """
    if devices == "auto":
        found = cuda_devices()
        slices = all_slices(found) if workers else []
        return slices or [f"cuda:{i}" for i in range(found)] or other_devices() or ["cpu"]
    if devices == "cpu":
        return ["cpu"]
    kind = kind_of(devices)
    if kind in _UNSUPPORTED:
        raise UsageError(
            f"`devices={devices}` is not supported: training runs on the CPU, on CUDA GPUs, and on Apple's (mps) and "
            "Intel's (xpu) GPUs",
            hint="`devices=cpu` works on every machine; on ROCm, the GPUs have CUDA numbers",
        )
    if kind in _OTHERS:
        return _other_devices(devices, kind)
    return named_devices(devices, cuda_devices(), workers)


def _other_devices(devices: str, kind: str) -> list[str]:
    """Return the devices of a list such as ``mps`` or ``xpu:0,xpu:1``."""
    found = other_devices()
    if kind == "mps":
        if "mps" in found and devices in ("mps", "mps:0"):
            return ["mps"]
    elif found and devices == kind == kind_of(found[0]):
        return found
    else:
        names = [part.strip() for part in devices.split(",")]
        names = [name if name.startswith(f"{kind}:") else f"{kind}:{name}" for name in names]
        if all(name in found for name in names):
            return names
    import torch

    raise UsageError(
        f"`devices={devices}`: torch {torch.__version__} can use {', '.join(found) or 'no such device'} on this "
        "machine",
        hint="`devices=auto` takes what there is; Apple's GPUs need the torch for macOS on Apple silicon"
        if kind == "mps"
        else "`devices=auto` takes what there is; Intel's GPUs need a torch that was built for xpu",
    )


def is_available(kind: str) -> bool:
    """Return whether torch finds a device of a kind in this process."""
    import torch

    return torch.cuda.is_available() if kind == "cuda" else any(kind_of(device) == kind for device in other_devices())


def worker_variables(device: str) -> dict[str, str]:
    """Return the environment variables that a process needs for its kind of device, of those that are not set."""
    return {key: value for key, value in _FALLBACK.items() if key not in os.environ} if device == "mps" else {}


def _module(device: str) -> Any:
    """Return the module of a kind of device: ``torch.cuda``, ``torch.xpu`` or ``torch.mps``."""
    import torch

    return torch.get_device_module(torch.device(kind_of(device)))


def synchronize(device: str) -> None:
    """Wait until a device has done what it was given; on a CPU nothing waits."""
    if kind_of(device) == "cpu":
        return
    module = _module(device)
    module.synchronize() if device.startswith("mps") else module.synchronize(device)


def free_cache(device: str) -> None:
    """Give memory that torch keeps for later back to the device."""
    if kind_of(device) != "cpu":
        _module(device).empty_cache()


def memory(device: str) -> tuple[int, int] | None:
    """Return the free and the total bytes of a device; None for the CPU, and where the driver does not say it.

    Apple's GPU shares the memory of the system, of which macOS recommends a part; what torch has taken is subtracted,
    and what other programs leave is the limit if it is known.
    """
    kind = kind_of(device)
    if kind == "cpu":
        return None
    module = _module(device)
    try:
        if kind != "mps":
            free, total = module.mem_get_info(device)
            return int(free), int(total)
        total = int(module.recommended_max_memory())
        free = total - int(module.driver_allocated_memory())
    except RuntimeError:  # some of Intel's drivers
        return None
    left = available_bytes()
    return max(0, free if left is None else min(free, int(_MAC_SHARE * left))), total


def peak_bytes() -> int:
    """Return the most bytes that this process has had on a GPU; on Apple's GPU those it has now, 0 without a GPU."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    found = other_devices()
    if not found:
        return 0
    module = _module(found[0])
    return int(module.driver_allocated_memory() if found[0] == "mps" else module.max_memory_allocated())


def device_name(device: str) -> str:
    """Return the name of the model of a device; "" for the CPU."""
    kind = kind_of(device)
    if kind == "cpu":
        return ""
    if kind == "mps":
        import torch

        get_name = getattr(torch.backends.mps, "get_name", None)
        return str(get_name()) if get_name is not None else "Apple GPU"
    return str(_module(device).get_device_name(device))


def pins(device: str) -> bool:
    """Return whether images for a device are gathered in pinned memory, which it reads by itself."""
    return kind_of(device) in ("cuda", "xpu")


def streams_of(device: torch.device) -> Any:
    """Return the module with the streams of a device, ``torch.cuda`` or ``torch.xpu``; None if it has none to use.

    The CPU has none, and Apple's GPUs (``mps``) share their memory with the CPU and work in one stream.
    """
    return _module(str(device)) if pins(str(device)) else None


@contextmanager
def of_device(device: torch.device) -> Iterator[None]:
    """Make a device the current one, whose stream events belong to; nothing where there are no streams."""
    streams = streams_of(device)
    if streams is None:
        yield
        return
    with streams.device(device):
        yield


def prefers_channels_last(device: str) -> bool:
    """Return whether convolutions of a device are faster in the memory format channels_last; not on Apple's GPUs."""
    return kind_of(device) != "mps"


def has_tunable_kernels(device: str) -> bool:
    """Return whether the kernels of a device are chosen by torch's settings of cuDNN and cuBLAS."""
    return kind_of(device) == "cuda"


def measures_formats(device: str) -> bool:
    """Return whether number formats are measured before the training: on others than these, the kind decides."""
    return kind_of(device) in ("cpu", "mps")


def jobs_at_once(device: str) -> int | None:
    """Return the most jobs that a device of a kind trains at once; None if that is to be measured or asked for."""
    return 1 if kind_of(device) == "mps" else None


def trains_in_groups(device: str) -> bool:
    """Return whether several devices of a kind can train one fold together."""
    return kind_of(device) in ("cpu", "cuda")


@lru_cache(maxsize=4)
def scales_gradients(kind: str) -> bool:
    """Return whether torch scales gradients on a kind of device, without which fp16 loses the small ones.

    It is tried with one number, because torch says it nowhere.
    """
    import torch

    try:
        weight = torch.ones(1, device=kind, requires_grad=True)
        optimizer = torch.optim.SGD([weight], lr=1.0)
        scaler = torch.amp.GradScaler(kind, init_scale=2.0)
        scaler.scale((weight * 0.5).sum()).backward()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        return bool(weight.item() == 0.5 and scaler.is_enabled())
    except (RuntimeError, TypeError, AssertionError, NotImplementedError):
        return False


def scaler_of(device: str, amp: str) -> torch.amp.GradScaler:
    """Return the scaler of the gradients of a training; a no-op unless it is in fp16 on a device that can scale.

    On a CPU it is a no-op as well: fp16 there has no scaling (torch says so once).
    """
    import torch

    kind = kind_of(device)
    if kind in ("cpu", "cuda"):
        return torch.amp.GradScaler("cuda", enabled=amp == "fp16")
    return torch.amp.GradScaler(kind, enabled=amp == "fp16" and scales_gradients(kind))


@lru_cache(maxsize=16)
def computes_in(kind: str, amp: str) -> bool:
    """Return whether a kind of device computes in a number format (``bf16``, ``fp16``, ``off``); tried, if it is new.

    bf16 on Apple's GPUs needs macOS 14.
    """
    if amp == "off" or kind in ("cpu", "cuda"):
        return True
    import torch

    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[amp]
    try:
        image, weight = torch.ones(1, 1, 2, 2, device=kind), torch.ones(1, 1, 1, 1, device=kind)
        with torch.autocast(kind, dtype=dtype):
            found = torch.nn.functional.conv2d(image, weight)
        return found.dtype == dtype and bool((found == 1).all().item())
    except (RuntimeError, TypeError, NotImplementedError):
        return False


def described() -> list[str]:
    """Return a line for each accelerator, for `ensemble doctor`.

    Raises
    ------
    EnsembleError : there are GPUs that torch cannot use.
    """
    import torch

    lines = []
    for i in range(cuda_devices()):
        major, minor = torch.cuda.get_device_capability(i)
        lines.append(
            f"cuda:{i} {device_name(f'cuda:{i}')}, {_room(f'cuda:{i}')}, compute capability {major}.{minor} "
            f"({'bf16' if major >= 8 else 'fp16'}), torch for CUDA {torch.version.cuda}"
        )
    if lines and (folder := service_folder()):
        lines.append(f"CUDA's Multi-Process Service listens in {folder}: jobs that share a GPU compute side by side")
    return lines or [
        f"{device} {device_name(device)}, {_room(device)}, {_formats(device)}" for device in other_devices()
    ]


def _room(device: str) -> str:
    known = memory(device)
    if known is None:
        return "memory unknown"
    free, total = known
    return f"{free / 2**30:.0f} of {total / 2**30:.0f} GiB free"


def _formats(device: str) -> str:
    """Return the number formats of a device in words."""
    kind = kind_of(device)
    able = ["fp32", *(amp for amp in ("fp16", "bf16") if computes_in(kind, amp))]
    if "fp16" in able and not scales_gradients(kind):
        able[able.index("fp16")] = "fp16 (predictions only: no gradient scaling)"
    return ", ".join(able)
