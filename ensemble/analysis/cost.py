"""What a run costs to use: forward passes an image on new samples, or what the user says that a pass of each costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ensemble.alignment.split import AlignedFile, AlignedSplit, RunPredictions
from folds.errors import UsageError, unknown_name

MIN_PASSES, MOST = 1e-6, 1e12  # of what a pass costs: sums and shares of costs stay finite and keep their digits


@dataclass(frozen=True)
class Cost:
    """What one run costs to use.

    Training time is no measure of it, and time of prediction is not recorded: passes are counted, and weighed only as the user says.

    Attributes
    ----------
    models : how many fold models predict a new image.
    passes : forward passes an image: models × views.
    each : what a pass costs, in the user's unit; 1 without one.
    """

    models: int
    passes: int
    each: float = 1.0

    @property
    def total(self) -> float:
        """Passes × what each costs."""
        return self.passes * self.each

    def to_dict(self) -> dict[str, Any]:
        """For --json and records."""
        return {"models": self.models, "passes": self.passes, "cost": self.total}


@dataclass(frozen=True)
class Costs:
    """What each run costs.

    `given` : whether the user has said what a pass costs; otherwise costs are passes.
    """

    of: Mapping[str, Cost]
    given: bool = False

    def total(self, runs: Sequence[str]) -> float:
        """Return what these runs cost together."""
        return math.fsum(self.of[run].total for run in runs)

    def saved(self, runs: Sequence[str]) -> float:
        """Return share of the cost of all that is saved when only these are used, 0 to 1."""
        return 1 - self.total(runs) / self.total(list(self.of))

    @property
    def unit(self) -> str:
        """Return what is counted, in a word."""
        return "cost" if self.given else "passes"

    def to_dict(self) -> dict[str, Any]:
        """For --json and records."""
        return {"unit": self.unit, "runs": {run: cost.to_dict() for run, cost in self.of.items()}}


def costs_of(splits: Mapping[str, AlignedSplit], each: Mapping[str, float] | None = None) -> Costs:
    """Return what the runs of all splits cost, in the order of their names.

    A run's test files are its models; where it has none, its out-of-fold file says which folds there are, and on new images all of
    them would be used. A file over several views costs a pass a view.

    Parameters
    ----------
    each : what a pass of each run costs, as `parse_costs` reads it.
    """
    found: dict[str, Cost] = {}
    for name in sorted(splits, key=lambda split: split != "test"):
        for run in splits[name].runs:
            if run.name not in found:
                models, passes = _models(run, name == "test")
                found[run.name] = Cost(models, passes, 1.0 if each is None else each[run.name])
    return Costs(dict(sorted(found.items())), each is not None)


def _models(run: RunPredictions, test: bool) -> tuple[int, int]:
    models = passes = 0
    for part in run.parts:
        count = 1 if test else _folds(part)
        models += count
        passes += count * max(1, len(part.member.views))
    return models, passes


def _folds(part: AlignedFile) -> int:
    """Return how many models have predicted the rows of an out-of-fold file; one where it does not say."""
    if part.fold is None or isinstance(part.fold, int):
        return 1
    there = part.fold if part.rows is None else part.fold[part.rows >= 0]
    return max(1, len(np.unique(there[there >= 0])))


def parse_costs(text: str, runs: Sequence[str]) -> dict[str, float]:
    """Return ``swin=3,resnet18=1``: what a forward pass of each run costs, in any unit.

    Raises
    ------
    UsageError : a run that is unknown, named twice or left out, or a cost that is not a number from 1e-6 to 1e12.
    """
    example = ",".join(f"{name}=1" for name in runs[:4]) + (",…" if len(runs) > 4 else "")
    given: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = (word.strip() for word in part.rpartition("="))
        if not equals:
            raise UsageError(f"`cost={text}`: expected RUN=NUMBER, found '{part}'", hint=f"`cost={example}`")
        if name not in runs:
            raise unknown_name("run in `cost`", name, runs)
        if name in given:
            raise UsageError(f"`cost` names {name} twice", hint=f"`cost={example}`")
        given[name] = positive(value, f"`cost={text}`", "what a pass costs")
        if not MIN_PASSES <= given[name] <= MOST:
            raise UsageError(
                f"`cost`: what a pass of {name} costs must be from {MIN_PASSES:g} to {MOST:g}, found {value}",
                hint="take another unit",
            )
    missing = [name for name in runs if name not in given]
    if missing:
        raise UsageError(
            f"`cost` says nothing of {', '.join(missing)}", hint=f"`cost={example}`; without it, passes are counted"
        )
    return {name: given[name] for name in runs}


def positive(value: str, option: str, what: str) -> float:
    """Return a finite number above 0, from an option's text."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number <= 0:
        raise UsageError(
            f"{option}: {what} must be a number above 0, found '{value}'",
            hint="any unit: costs are only compared with each other",
        )
    return number
