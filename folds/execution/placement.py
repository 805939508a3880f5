"""Where and how a job runs: device, number format, threads; every automatic choice comes with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from folds.errors import UsageError, unknown_name
from folds.models.precision import resolve_devices
from folds.utils.parallel import cpu_count

if TYPE_CHECKING:
    pass


BACKENDS = ("local", "ray")


@dataclass(frozen=True)
class Execution:
    """Where and how jobs are run; on one kind of device, none of it changes what comes out (the threads a job are
    recorded by the run).

    Attributes
    ----------
    devices : ``auto``, ``cpu``, or CUDA numbers ``0,1``.
    per_device : jobs at a time on a device; None for the rule of `place`.
    backend : ``local`` (processes of this machine) or ``ray``.
    address : of the Ray cluster; None: one of this machine alone.
    save_seconds : an epoch that takes longer than this is saved inside, too.
    """

    devices: str = "auto"
    per_device: int | None = None
    backend: str = "local"
    address: str | None = None
    save_seconds: float = 180.0

    def check(self) -> None:
        """Refuse what cannot be."""
        if self.backend not in BACKENDS:
            raise unknown_name("--backend", self.backend, BACKENDS)
        if self.address is not None and self.backend != "ray":
            raise UsageError(
                "--ray-address belongs to --backend ray", hint=f"--backend ray --ray-address {self.address}"
            )
        if self.per_device is not None and self.per_device < 1:
            raise UsageError(f"--jobs must be 1 or more, found {self.per_device}")
        if self.save_seconds <= 0:
            raise UsageError(f"--save-every must be above 0 seconds, found {self.save_seconds:g}")


@dataclass(frozen=True)
class DevicePlan:
    """The slots of a command.

    `devices` names one slot each; `threads` CPU threads a slot; `reason` is printed; `gpu_share` of a GPU that a Ray
    task asks for.
    """

    devices: tuple[str, ...]
    threads: int
    reason: str
    backend: str = "local"
    gpu_share: float = 0.0

    @property
    def kind(self) -> str:
        """Return ``cpu`` or ``cuda``."""
        return self.devices[0].split(":")[0]


def plan_devices(
    jobs: int, devices: str = "auto", per_device: int | None = None, threads: int | None = None
) -> DevicePlan:
    """Slots for `jobs` jobs.

    On a GPU, one job a device: two processes on one GPU take turns. On a CPU, one thread a job in parallel processes
    beats all threads on one job (threads wait for each other), so there are as many slots as cores, at most one a job,
    and the cores are shared out among them.

    Parameters
    ----------
    devices : ``auto``, ``cpu``, or CUDA numbers ``0,1``.
    per_device : slots a device, instead of the rule.
    threads : CPU threads a slot, instead of the rule (a run that is resumed keeps its own).
    """
    names = resolve_devices(devices)
    cores = cpu_count()
    if names == ["cpu"]:
        slots = min(jobs, per_device or max(1, cores // (threads or 1)))
        each = threads or max(1, cores // max(slots, 1))
        reason = (
            f"training {slots} fold{'s' if slots > 1 else ''} in parallel on the CPU, "
            f"{each} thread{'s' if each > 1 else ''} each ({cores} core{'s' if cores > 1 else ''})"
        )
        return DevicePlan(("cpu",) * slots, each, reason)
    slots_each = per_device or 1
    spread = tuple(name for _ in range(slots_each) for name in names)[: max(jobs, 1)]
    each = threads or max(1, cores // len(spread))
    count = f"{len(spread)} fold{'s' if len(spread) > 1 else ''}"
    return DevicePlan(spread, each, f"training {count} in parallel on {', '.join(names)} ({slots_each} per GPU)")
