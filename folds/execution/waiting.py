"""Limit how long jobs of a cluster wait for a locked fold, or for a machine with enough resources."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from folds.errors import EnsembleError
from folds.training.job import Job
from folds.utils.text import duration

logger = logging.getLogger(__name__)

AGAIN_SECONDS = 10.0  # between two attempts to take a lock
LOOK_SECONDS = 5.0  # between two checks of the machines


class LockedJobs:
    """Jobs whose lock is held by another process, e.g. on a disconnected machine, or one that is exiting.

    Parameters
    ----------
    patience : seconds after which a job fails.
    """

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self._since: dict[str, float] = {}
        self._later: list[tuple[float, Job]] = []

    @property
    def jobs(self) -> list[Job]:
        """Return the waiting jobs."""
        return [job for _, job in self._later]

    def add(self, job: Job, message: str) -> EnsembleError | None:
        """Keep a job for a later attempt and return None, or return the error if it has waited too long.

        The first attempt of a job is logged.

        Parameters
        ----------
        message : names the process that holds the lock.
        """
        now = time.monotonic()
        since = self._since.setdefault(job.title, now)
        if now - since >= self.patience:
            hint = (
                f"run again with `resume=True` when that process has ended; if its machine is lost and the lock "
                f"remains, rm {job.lock} first"
            )
            return EnsembleError(f"{message}, waited for {duration(now - since)}", hint=hint)
        if since == now:
            logger.info(f"{message}; trying again for up to {duration(self.patience)}")
        self._later.append((now + AGAIN_SECONDS, job))
        return None

    def due(self) -> list[Job]:
        """Return the jobs to be tried again now, and remove them from the waiting jobs."""
        now = time.monotonic()
        due = [job for when, job in self._later if when <= now]
        self._later = [(when, job) for when, job in self._later if when > now]
        return due

    def taken(self, job: Job) -> None:
        """Reset the waiting time of a job that has got its lock."""
        self._since.pop(job.title, None)


class ResourceWatch:
    """A check whether some machine of the cluster has enough resources for a job; otherwise Ray waits without limit.

    Parameters
    ----------
    needs : resources of a job: ``{"CPU": 4}``, ``{"GPU": 0.5}``.
    nodes : returns the machines, as `ray.nodes` does.
    """

    def __init__(self, needs: Mapping[str, float], nodes: Callable[[], Sequence[Mapping[str, Any]]]) -> None:
        self.needs = {name: amount for name, amount in needs.items() if amount}
        self._nodes = nodes
        self._since: float | None = None
        self._next = 0.0
        self._noted = False
        self._maximum: dict[str, float] = {}

    def lacking(self, patience: float) -> float:
        """Return the seconds since no machine has enough resources; 0.0 if there is one.

        The problem is logged once, when it lasts longer than `LOOK_SECONDS`.

        Parameters
        ----------
        patience : seconds that jobs wait, for the log.
        """
        now = time.monotonic()
        if now >= self._next:
            self._next = now + LOOK_SECONDS
            alive = [node["Resources"] for node in self._nodes() if node["Alive"]]
            self._maximum = {name: max((has.get(name, 0) for has in alive), default=0) for name in self.needs}
            if any(all(has.get(name, 0) >= amount for name, amount in self.needs.items()) for has in alive):
                self._since, self._noted = None, False
            elif self._since is None:
                self._since = now
        seconds = 0.0 if self._since is None else now - self._since
        if seconds >= LOOK_SECONDS and not self._noted:
            self._noted = True
            logger.info(f"{self._problem()}; waiting for one for up to {duration(patience)}")
        return seconds

    def error(self, job: Job, seconds: float) -> EnsembleError:
        """Return the error for a job that has waited too long."""
        lines = ["a run keeps the number of threads that it was started with"] if self.needs.get("CPU", 1) > 1 else []
        hint = (
            "ray status shows the resources; start a machine that has enough, then `resume=True` continues from the "
            "last saved state"
        )
        message = f"{job.title}: {self._problem()}, waited for {duration(seconds)}"
        return EnsembleError(message, hint=hint, details=lines)

    def _problem(self) -> str:
        if "GPU" in self.needs:
            return "no machine of the cluster has a GPU"
        return (
            f"no machine of the cluster has {self.needs['CPU']:g} CPU cores for a job (the largest has "
            f"{self._maximum['CPU']:g})"
        )
