"""Name the GPUs of this machine by number or UUID, and show a process only the one that it works on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from folds.errors import UsageError

_DRIVER = Path("/proc/driver/nvidia/version")  # exists where the driver of NVIDIA GPUs is loaded
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_SERVICE = "CUDA_MPS_PIPE_DIRECTORY"
_SERVICE_FOLDER = "/tmp/nvidia-mps"  # noqa: S108 - where the daemon puts its pipes by default
# As nvidia-smi -L prints them; older drivers name a slice MIG-GPU-<uuid>/<instance>/<slice>.
_UUID = re.compile(r"(GPU|MIG)-[0-9A-Za-z/-]{4,80}")
_SMI_SECONDS = 10.0
_MUCH = 0.1  # of a GPU's memory
_HINT = (
    "`devices` must be auto, cpu, CUDA numbers such as 0,1, or UUIDs as nvidia-smi -L prints them; or mps, xpu, xpu:0"
)


def driver_loaded() -> bool:
    """Return whether this machine has the driver of NVIDIA GPUs, without importing torch."""
    return _DRIVER.exists()


def is_uuid(name: str) -> bool:
    """Return whether a name is the UUID of a GPU or of a MIG slice."""
    return _UUID.fullmatch(name) is not None


def visible_devices() -> list[str] | None:
    """Return the entries of ``CUDA_VISIBLE_DEVICES``, which torch numbers from 0; None if it is not set."""
    value = os.environ.get(_VISIBLE)
    return None if value is None else [part.strip() for part in value.split(",") if part.strip()]


def device_variables(device: str) -> dict[str, str]:
    """Return the environment variables of a process that has only this device, as its ``cuda:0``.

    Such a process cannot take memory of another GPU by mistake, and it can use a MIG slice, of which CUDA gives a
    process only one. {} for the CPU, and for GPUs without CUDA (ROCm), whose processes see all devices.

    Parameters
    ----------
    device : ``cpu``, ``cuda:1`` as torch numbers the GPUs in this process, or ``cuda:GPU-…`` or ``cuda:MIG-…``.
    """
    kind, _, name = device.partition(":")
    if kind != "cuda" or not name or _is_rocm():
        return {}
    visible = visible_devices()
    if is_uuid(name) or visible is None:
        return {_VISIBLE: name}
    return {_VISIBLE: visible[int(name)]} if int(name) < len(visible) else {}


def group_variables(devices: Sequence[str]) -> dict[str, str]:
    """Return the environment variables of a process that has only these devices, as ``cuda:0``, ``cuda:1`` and so on.

    {} if a process must see all devices (`device_variables`).
    """
    each = [device_variables(device) for device in devices]
    return {_VISIBLE: ",".join(one[_VISIBLE] for one in each)} if all(each) else {}


def _is_rocm() -> bool:
    import torch

    return torch.version.hip is not None


def torch_name(device: str) -> str:
    """Return the name of a device in this process; for a slice that only workers see, the GPU that stands for it."""
    return "cuda:0" if is_uuid(device.partition(":")[2]) else device


def named_devices(devices: str, found: int, workers: bool) -> list[str]:
    """Return the torch names of the devices that a user listed: ``cuda:0``, or ``cuda:MIG-…`` for workers.

    Parameters
    ----------
    devices : numbers or UUIDs, separated by commas.
    found : GPUs that torch sees.
    workers : whether each device gets a process of its own.

    Raises
    ------
    UsageError : a device does not exist, or cannot be used in this process.
    """
    names = []
    for part in (part.strip() for part in devices.split(",")):
        name = f"cuda:{part.removeprefix('cuda:')}"
        if is_uuid(name[5:]):
            name = _by_uuid(name[5:], found, workers)
        if not is_uuid(name[5:]) and (not name[5:].isdecimal() or int(name[5:]) >= found):
            message = f"`devices={devices}`: device {name} not found; this machine has {found} CUDA devices"
            raise UsageError(message, hint=_HINT)
        names.append(name)
    return names


def _by_uuid(uuid: str, found: int, workers: bool) -> str:
    """Return the torch name of a GPU or MIG slice with this UUID."""
    for i in range(found):
        if _same(uuid, uuid_of(i)):
            return f"cuda:{i}"
    visible = visible_devices() or []
    if visible[:1] == [uuid]:
        return "cuda:0"
    # CUDA shows a process one slice only, so torch does not count the others.
    if uuid.startswith("MIG-") and found and (uuid in visible if visible else _exists(uuid)):
        if workers:
            return f"cuda:{uuid}"
        raise UsageError(
            f"`devices={uuid}`: this process works on another MIG slice", hint=f"start it with {_VISIBLE}={uuid}"
        )
    raise UsageError(f"`devices={uuid}`: this machine has no such GPU that torch can use", hint=_HINT)


def uuid_of(number: int) -> str:
    """Return the UUID of a GPU (``GPU-…``), as torch numbers them in this process; "" if torch does not tell it."""
    import torch

    uuid = str(getattr(torch.cuda.get_device_properties(number), "uuid", ""))
    return uuid if not uuid or is_uuid(uuid) else f"GPU-{uuid}"


def _same(asked: str, uuid: str) -> bool:
    """Return whether a UUID is the one that was asked for; as for CUDA, its beginning is enough."""
    return bool(uuid) and uuid.lower().startswith(asked.lower())


def all_slices(found: int) -> list[str]:
    """Return the MIG slices that ``CUDA_VISIBLE_DEVICES`` lists, as devices for workers; [] if there is at most one.

    Parameters
    ----------
    found : GPUs that torch sees; it sees the first of several slices.
    """
    visible = visible_devices() or []
    slices = found == 1 and len(visible) > 1 and all(name.startswith("MIG-") for name in visible)
    return [f"cuda:{name}" for name in dict.fromkeys(visible)] if slices else []


def _exists(uuid: str) -> bool:
    """Return whether nvidia-smi lists a UUID, or cannot be asked."""
    listed = _ask("-L")
    return not listed or any(uuid in line for line in listed)


def service_folder() -> str:
    """Return the folder of the pipes of CUDA's Multi-Process Service, if its daemon has made them; "" otherwise.

    With ``nvidia-cuda-mps-control -d``, processes that share a GPU compute side by side instead of in turn.
    """
    folder = Path(os.environ.get(_SERVICE) or _SERVICE_FOLDER)
    try:
        return str(folder) if (folder / "control").exists() else ""
    except OSError:  # of another user
        return ""


def held_memory(devices: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return the bytes that processes hold of each GPU, and all of its bytes, as nvidia-smi says; {} without it.

    torch could say it too, but would take some hundred MB of the GPU for this process. MIG slices are not asked for.

    Parameters
    ----------
    devices : torch names.
    """
    memory = {}
    for line in _ask("--query-gpu=uuid,memory.used,memory.total", "--format=csv,noheader,nounits"):
        uuid, *numbers = (part.strip() for part in line.split(","))
        if len(numbers) == 2 and all(number.isdecimal() for number in numbers):
            memory[uuid.lower()] = int(numbers[0]) << 20, int(numbers[1]) << 20
    numbered = [device for device in dict.fromkeys(devices) if device.partition(":")[2].isdecimal()] if memory else []
    found = {device: memory.get(uuid_of(int(device[5:])).lower()) for device in numbered}
    return {device: sizes for device, sizes in found.items() if sizes is not None}


def busy_gpus(devices: Sequence[str]) -> list[str]:
    """Return a line for each GPU of which processes hold much memory already; [] without nvidia-smi.

    Parameters
    ----------
    devices : torch names; called before this process uses a GPU.
    """
    numbered = [device for device in dict.fromkeys(devices) if device.partition(":")[2].isdecimal()]
    found = held_memory(numbered)
    busy = {device: sizes for device, sizes in found.items() if sizes[0] > _MUCH * sizes[1]}
    free = ",".join(device[5:] for device in numbered if device not in busy)
    advice = f"`devices={free}` trains on the others" if free else "`devices=cpu` trains without GPUs"
    return [
        f"{device}: processes hold {used / 2**30:.1f} of {total / 2**30:.1f} GiB already, which may slow the training "
        f"down or be too little memory; {advice}"
        for device, (used, total) in busy.items()
    ]


def _ask(*arguments: str) -> list[str]:
    """Return the lines that nvidia-smi prints; [] if there is none, or if it fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        done = subprocess.run(
            [program, *arguments], capture_output=True, text=True, timeout=_SMI_SECONDS, errors="replace", check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.splitlines()[:1000] if done.returncode == 0 else []
