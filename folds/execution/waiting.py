"""What a job of a cluster waits for, and for how long: a lock that another process holds, a machine that could run
it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from folds.errors import EnsembleError
from folds.training.job import Job
from folds.utils.text import duration

logger = logging.getLogger(__name__)

AGAIN_SECONDS = 10.0  # between two tries to take a lock
LOOK_SECONDS = 5.0  # between two looks at which machines there are


class LockedJobs:
    """Jobs whose lock another process holds: of a machine that was cut off, or that is on its way out.

    Parameters
    ----------
    patience : seconds after which a job is given up.
    """

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self._since: dict[str, float] = {}
        self._later: list[tuple[float, Job]] = []

    @property
    def jobs(self) -> list[Job]:
        """Return those that wait."""
        return [job for _, job in self._later]

    def add(self, job: Job, message: str) -> EnsembleError | None:
        """Keep a job for later, logged at the first time; the error for one that has waited long enough.

        `message` says who holds the lock.
        """
        now = time.monotonic()
        since = self._since.setdefault(job.title, now)
        if now - since >= self.patience:
            hint = (
                f"--resume after that process has ended; if its machine is gone and the lock remains, rm {job.lock} "
                "first"
            )
            return EnsembleError(f"{message}, for {duration(now - since)} now", hint=hint)
        if since == now:
            logger.info(f"{message}; trying again for up to {duration(self.patience)}")
        self._later.append((now + AGAIN_SECONDS, job))
        return None

    def due(self) -> list[Job]:
        """Return the jobs that are to be tried again now; they are not kept any longer."""
        now = time.monotonic()
        due = [job for when, job in self._later if when <= now]
        self._later = [(when, job) for when, job in self._later if when > now]
        return due

    def taken(self, job: Job) -> None:
        """The job has its lock: the next time that it is held is a new one."""
        self._since.pop(job.title, None)


class ResourceWatch:
    """Whether any machine that is left could run a job, were it idle; a task that none could run is pending for ever.

    Parameters
    ----------
    needs : what a job asks for: ``{"CPU": 4}``, ``{"GPU": 0.5}``.
    nodes : the machines, as `ray.nodes` lists them.
    """

    def __init__(self, needs: Mapping[str, float], nodes: Callable[[], Sequence[Mapping[str, Any]]]) -> None:
        self.needs = {name: amount for name, amount in needs.items() if amount}
        self._nodes = nodes
        self._since: float | None = None
        self._next = 0.0
        self._noted = False
        self._most: dict[str, float] = {}

    def lacking(self, patience: float) -> float:
        """Seconds since there is no such machine, 0.0 while there is one; logged once, when it is more than a
        moment.
        """
        now = time.monotonic()
        if now >= self._next:
            self._next = now + LOOK_SECONDS
            alive = [node["Resources"] for node in self._nodes() if node["Alive"]]
            self._most = {name: max((has.get(name, 0) for has in alive), default=0) for name in self.needs}
            if any(all(has.get(name, 0) >= amount for name, amount in self.needs.items()) for has in alive):
                self._since, self._noted = None, False
            elif self._since is None:
                self._since = now
        seconds = 0.0 if self._since is None else now - self._since
        if seconds >= LOOK_SECONDS and not self._noted:
            self._noted = True
            logger.info(f"{self._what()}; waiting for one for up to {duration(patience)}")
        return seconds

    def error(self, job: Job, seconds: float) -> EnsembleError:
        """Return the error for a job that has waited long enough."""
        lines = ["a run keeps the number of threads that it was begun with"] if self.needs.get("CPU", 1) > 1 else []
        hint = (
            "ray status shows what there is; start a machine that has it, and --resume continues from the last saved "
            "state"
        )
        return EnsembleError(f"{job.title}: {self._what()}, for {duration(seconds)} now", hint=hint, details=lines)

    def _what(self) -> str:
        if "GPU" in self.needs:
            return "no machine of the cluster has a GPU"
        return (
            f"no machine of the cluster has {self.needs['CPU']:g} CPU cores for a job (the most is "
            f"{self._most['CPU']:g})"
        )
