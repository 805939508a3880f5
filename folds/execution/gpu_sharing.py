"""Measure how many jobs a GPU should train at once, and choose the number.

A small model leaves a large GPU idle: the host starts its kernels more slowly than the GPU computes them. Then several
processes train more images per second together. The number changes no result, only how many jobs run at once.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import IO, Any

from folds.execution.worker import worker_environment
from folds.models.accelerators import worker_variables
from folds.models.gpus import device_variables

MOST = 4  # jobs on a GPU
GAIN = 1.1  # of the time for one more job
_MARGIN = 0.9  # of the memory that is free
# Where the host needs less of a step than this, the GPU is busy, and more processes would wait for each other.
HOST_IS_SLOW = 0.7
_SECONDS = 3.0  # of training, for each number of processes
_PATIENCE = 180.0  # seconds for one answer


@dataclass(frozen=True)
class Headroom:
    """The memory of a GPU for jobs.

    Attributes
    ----------
    free, total : bytes of the GPU; of several GPUs, of the one with the least.
    images : bytes of the images of a run, which each process keeps on the GPU.
    """

    free: int
    total: int
    images: int

    def resident(self, jobs: int = 1) -> int:
        """Return the bytes of the images that each of some jobs keeps on the GPU: all, or 0 if they are too many."""
        return self.images if self.images < min(self.free, self.total / jobs) / 2 else 0

    def most(self, each: int) -> int:
        """Return how many jobs fit that take `each` bytes besides the images; images must not leave the GPU for it."""
        for jobs in range(MOST, 1, -1):
            kept = self.resident(jobs)
            if kept == self.resident() and jobs * (each + kept) <= _MARGIN * self.free:
                return jobs
        return 1


@dataclass(frozen=True)
class Cost:
    """What was measured of the training of a model on a GPU.

    Attributes
    ----------
    bytes : that one process takes of the GPU, without the images of the table.
    host : share of a step in which the host starts its kernels.
    rates : images per second of 1, 2, … processes together.
    """

    bytes: int
    host: float
    rates: tuple[float, ...]

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Cost | None:
        """Return the numbers that `vars` gave; None if the record does not hold them."""
        try:
            found = cls(int(record["bytes"]), float(record["host"]), tuple(map(float, record["rates"])))
        except (KeyError, TypeError, ValueError, OverflowError):
            return None
        good = found.bytes >= 0 and found.rates and all(0 < rate < math.inf for rate in found.rates)
        return found if good and 0 <= found.host <= 1 else None

    def is_enough_for(self, jobs: int) -> bool:
        """Return whether the choice among up to `jobs` jobs needs no further rate."""
        gains = len(self.rates) < 2 or self.rates[-1] >= GAIN * self.rates[-2]
        return len(self.rates) >= min(jobs, MOST) or self.host < HOST_IS_SLOW or not gains


def choose_jobs(cost: Cost, room: Headroom, waiting: int) -> tuple[int, str]:
    """Return how many jobs a GPU trains at once, 1 to 4, and why.

    Parameters
    ----------
    waiting : jobs that a GPU has to train.
    """
    memory = f"one takes {_gib(cost.bytes + room.resident())} of {_gib(room.free)} GiB that are free"
    fit = room.most(cost.bytes)
    if fit == 1:
        return 1, f"1 job on each GPU: {memory}, images included"
    if cost.host < HOST_IS_SLOW:
        return 1, f"1 job on each GPU, which it keeps busy: the host needs {cost.host:.0%} of a step to start it"
    most = max(1, min(fit, waiting, len(cost.rates)))
    chosen = 1
    for jobs in range(2, most + 1):
        if _duration(waiting, chosen, cost.rates) >= GAIN * _duration(waiting, jobs, cost.rates):
            chosen = jobs
    rates = ", ".join(f"{n} {rate:,.0f}" for n, rate in enumerate(cost.rates, 1))
    what = "1 job" if chosen == 1 else f"{chosen} jobs"
    return chosen, f"{what} on each GPU: {memory}, and images/s of jobs together are {rates} (measured)"


def _duration(waiting: int, jobs: int, rates: tuple[float, ...]) -> float:
    """Return the time of `waiting` equal jobs, `jobs` at once, in seconds per image of a job."""
    rounds, left = divmod(waiting, jobs)
    return rounds * jobs / rates[jobs - 1] + (left / rates[left - 1] if left else 0.0)


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f}"


def measure_cost(
    order: Mapping[str, Any], device: str, room_of: Callable[[int, int], Headroom], waiting: int
) -> tuple[Cost, Headroom]:
    """Return what the training of a model costs with 1 to 4 processes on a GPU, and the room that was found.

    Parameters
    ----------
    order : of `folds.execution.gpu_trial`, without ``device``.
    device : name of the GPU in the plan.
    room_of : called with the free and the total bytes of the GPU.
    waiting : jobs that a GPU has to train; not more processes are tried.

    Raises
    ------
    RuntimeError : the training does not run.
    """
    with ExitStack() as stack:

        def started() -> _Trial:
            return stack.enter_context(_Trial(order, device))

        first = started()
        found = first.answer()
        room = room_of(int(found["free"]), int(found["total"]))
        each, host, rates = int(found["bytes"]), float(found["host"]), [_rate([first])]
        more = min(room.most(each), waiting, MOST) - 1 if host >= HOST_IS_SLOW else 0
        others = [started() for _ in range(more)]
        with suppress(RuntimeError):  # less memory than it seemed, or the GPU has another user now: no more processes
            for other in others:
                other.answer()
            for number in range(1, more + 1):
                rates.append(_rate([first, *others[:number]]))
                if rates[-1] < GAIN * rates[-2]:
                    break
    return Cost(each, host, tuple(rates)), room


class _Trial:
    """A process of `folds.execution.gpu_trial`; a context manager that ends it."""

    def __init__(self, order: Mapping[str, Any], device: str) -> None:
        visible = device_variables(device)
        variables = visible | worker_variables(device)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "folds.execution.gpu_trial"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            env=worker_environment(int(order["threads"])) | variables,
            start_new_session=True,
        )
        self.say({**order, "device": "cuda:0" if visible else device})

    def __enter__(self) -> _Trial:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def say(self, what: Mapping[str, Any]) -> None:
        """Send a line."""
        pipe: IO[str] = self._process.stdin  # type: ignore[assignment]
        with suppress(BrokenPipeError):  # its end is noticed by `answer`
            pipe.write(json.dumps(what, default=str) + "\n")
            pipe.flush()

    def answer(self) -> dict[str, Any]:
        """Return the answer to the last line; raise RuntimeError if there is none."""
        timer = threading.Timer(_PATIENCE, self._process.kill)
        timer.start()
        try:
            line = self._process.stdout.readline()  # type: ignore[union-attr]
        finally:
            timer.cancel()
        try:
            found = json.loads(line)
        except ValueError:
            raise RuntimeError("the process that measures has ended") from None
        if "error" in found:
            raise RuntimeError(str(found["error"]))
        return dict(found)


def _rate(trials: list[_Trial]) -> float:
    """Return the images per second of processes together, which train at the same time."""
    for trial in trials:
        trial.say({"seconds": _SECONDS})
    return sum(float(trial.answer()["rate"]) for trial in trials)
