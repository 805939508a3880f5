"""Plan the devices, parallel jobs and threads of a command, with the reason for the automatic choices."""

from __future__ import annotations

from dataclasses import dataclass

from folds.errors import UsageError, unknown_name
from folds.models.accelerators import jobs_at_once, kind_of, resolve_devices, trains_in_groups
from folds.utils.parallel import cpu_count

BACKENDS = ("local", "ray")


@dataclass(frozen=True)
class Execution:
    """Settings of where and how jobs run.

    On one kind of device they do not change the results, because a run records the number of threads of its jobs.

    Attributes
    ----------
    devices : ``auto``, ``cpu``, CUDA numbers ``0,1``, UUIDs of GPUs or MIG slices, ``mps``, ``xpu`` or ``xpu:0``.
    per_device : parallel jobs per device; None for the number that a run was started with, else the rule of
        `plan_devices`, and on CUDA GPUs what is measured (`folds.runs.gpu_jobs`).
    backend : ``local`` (processes of this machine) or ``ray``.
    address : address of the Ray cluster; None for a cluster of this machine only.
    save_seconds : time between two saved states, which are taken after any step.
    gpus_per_job : GPUs that train one fold together; None for the number that a run was started with, else 1.
    """

    devices: str = "auto"
    per_device: int | None = None
    backend: str = "local"
    address: str | None = None
    save_seconds: float = 30.0
    gpus_per_job: int | None = None

    def check(self) -> None:
        """Raise UsageError for invalid or contradicting settings."""
        if self.backend not in BACKENDS:
            raise unknown_name("`backend`", self.backend, BACKENDS)
        if self.address is not None and self.backend != "ray":
            raise UsageError(
                f"`ray_address` needs `backend=ray`, found `backend={self.backend}`",
                hint=f"`backend=ray` `ray_address={self.address}`",
            )
        if self.per_device is not None and self.per_device < 1:
            raise UsageError(f"`jobs` must be 1 or more, found {self.per_device}")
        if self.gpus_per_job is not None and self.gpus_per_job < 1:
            raise UsageError(f"`gpus_per_job` must be 1 or more, found {self.gpus_per_job}")
        if (self.gpus_per_job or 1) > 1 and self.backend == "ray":
            raise UsageError(
                f"`gpus_per_job={self.gpus_per_job}` works on one machine, and not with `backend=ray`",
                hint="`backend=local`, or one GPU per job",
            )
        if self.save_seconds <= 0:
            raise UsageError(f"`save_every` must be above 0 seconds, found {self.save_seconds:g}")


@dataclass(frozen=True)
class DevicePlan:
    """The slots for the jobs of a command.

    Attributes
    ----------
    devices : the device of each slot.
    threads : CPU threads per slot.
    reason : the plan and its reason, for messages.
    gpu_share : share of a GPU that a Ray task requests.
    shares_cores : whether the last jobs run beside each other, more than there are slots, so that no core is idle.
    partners : of each slot, the further GPUs that train a fold together with its device; () if there are none.
    measured_on : name of the GPU that the number of jobs was measured on; "" if it was not measured.
    jobs_reason : why each GPU trains this number of jobs at once; "" if it was not measured.
    """

    devices: tuple[str, ...]
    threads: int
    reason: str
    backend: str = "local"
    gpu_share: float = 0.0
    shares_cores: bool = False
    partners: tuple[tuple[str, ...], ...] = ()
    measured_on: str = ""
    jobs_reason: str = ""

    @property
    def gpus_per_job(self) -> int:
        """Return the number of GPUs that train one fold together."""
        return 1 + len(self.partners[0]) if self.partners else 1

    @property
    def kind(self) -> str:
        """Return ``cpu``, ``cuda``, ``xpu`` or ``mps``."""
        return kind_of(self.devices[0])

    @property
    def per_device(self) -> int:
        """Return the most jobs that a device trains at once."""
        return max(map(self.devices.count, self.devices))


def plan_devices(
    jobs: int,
    devices: str = "auto",
    per_device: int | None = None,
    threads: int | None = None,
    gpus_per_job: int = 1,
) -> DevicePlan:
    """Return the slots for `jobs` jobs.

    A GPU gets one job, because two processes on one GPU take turns; whether more pay is measured later. On a
    CPU, parallel processes with one thread each are faster than one process with all threads, which wait for each
    other. So there are as many slots as cores, at most one per job, and the cores are divided among them.

    The number of jobs is rarely a multiple of the cores. So that no core is idle at the end, the jobs of the last two
    rounds (the last one incomplete) run beside each other and share the cores; their threads, and so the bytes of their
    results, do not change. Fewer jobs than cores have enough threads for all cores.

    Parameters
    ----------
    devices : as for `resolve_devices`.
    per_device : slots per device, which are never exceeded; None for the rule.
    threads : CPU threads per slot; None for the rule. A resumed run keeps its number of threads.
    gpus_per_job : GPUs that train one fold together.

    Raises
    ------
    UsageError : a device does not exist, there are fewer GPUs than `gpus_per_job`, or a device of this kind trains one
        job at a time.
    """
    names = resolve_devices(devices, workers=True)
    most = jobs_at_once(names[0])
    if most is not None and (per_device or 1) > most:
        raise UsageError(
            f"`jobs={per_device}`: {names[0]} trains {_counted(most, 'job')} at a time", hint="leave out `jobs`"
        )
    cores = cpu_count()
    if gpus_per_job > 1:
        return _plan_groups(jobs, names, per_device or 1, threads, gpus_per_job)
    if names == ["cpu"]:
        slots = min(jobs, per_device or max(1, cores // (threads or 1)))
        each = threads or max(1, cores // max(slots, 1))
        shares = per_device is None and each == 1 and 1 < slots < jobs
        return DevicePlan(("cpu",) * slots, each, _cpu_reason(slots, each, cores, jobs, shares), shares_cores=shares)
    slots_each = per_device or 1
    used = tuple(name for _ in range(slots_each) for name in names)[: max(jobs, 1)]
    each = threads or max(1, cores // len(used))
    idle = len(used) - jobs % len(used) if jobs > len(used) and jobs % len(used) else 0
    reason = f"training {_counted(len(used), 'fold')} in parallel on {', '.join(names)} ({slots_each} per GPU)"
    if idle:
        reason += f"; {_counted(idle, 'GPU')} idle in the last round of {_counted(jobs, 'training')}"
    return DevicePlan(used, each, reason)


def _plan_groups(jobs: int, names: list[str], slots_each: int, threads: int | None, size: int) -> DevicePlan:
    """Return the slots for jobs that train on `size` GPUs each."""
    names = list(dict.fromkeys(names))
    if not trains_in_groups(names[0]):
        raise UsageError(
            f"`gpus_per_job={size}` works on CUDA GPUs, found {', '.join(names)}",
            hint="without `gpus_per_job`, each fold is trained on one device",
        )
    if names == ["cpu"] or len(names) < size:
        found = "no GPU" if names == ["cpu"] else _counted(len(names), "GPU")
        raise UsageError(
            f"`gpus_per_job={size}` needs {size} GPUs, found {found}",
            hint="without `gpus_per_job`, each fold is trained on one device",
        )
    if any("MIG-" in name for name in names):
        raise UsageError(
            f"`gpus_per_job={size}`: CUDA gives a process one MIG slice only", hint="whole GPUs, or one slice per job"
        )
    groups = [names[start : start + size] for start in range(0, len(names) - size + 1, size)]
    used = (groups * slots_each)[: max(jobs, 1)]
    reason = f"training {_counted(len(used), 'fold')} in parallel on {size} GPUs each: " + ", ".join(
        "+".join(group) for group in groups[: len(used)]
    )
    if len(names) % size:
        reason += f"; {_counted(len(names) % size, 'GPU')} idle, because {len(names)} is not a multiple of {size}"
    return DevicePlan(
        tuple(group[0] for group in used),
        threads or max(1, cpu_count() // len(used)),
        reason,
        partners=tuple(tuple(group[1:]) for group in used),
    )


def _cpu_reason(slots: int, threads: int, cores: int, jobs: int, shares: bool) -> str:
    """Return the plan for a CPU and its reason."""
    reason = (
        f"training {_counted(slots, 'fold')} in parallel on the CPU, {_counted(threads, 'thread')} each "
        f"({_counted(cores, 'core')})"
    )
    if not shares:
        return reason
    together = min(jobs, 2 * slots - 1)
    which = f"all {jobs}" if together == jobs else f"the last {together} of {jobs}"
    return f"{reason}; {which} share the cores, so that none is idle at the end"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
