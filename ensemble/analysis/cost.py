"""Prediction cost of runs: forward passes per new image, or the cost per pass that the user gives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ensemble.alignment.precedence import folds_of
from ensemble.alignment.split import AlignedFile, AlignedSplit, RunPredictions
from folds.errors import UsageError, unknown_name

MIN_COST, MAX_COST = 1e-6, 1e12  # per pass, so that sums and shares of costs stay finite and precise


@dataclass(frozen=True)
class Cost:
    """The prediction cost of one run.

    Training time does not measure it and prediction time is not recorded, so forward passes are counted. The user can
    give a cost per pass.

    Attributes
    ----------
    models : number of fold models that predict a new image.
    passes : forward passes per image: models × views.
    each : cost per pass in the user's unit, 1 by default.
    """

    models: int
    passes: int
    each: float = 1.0

    @property
    def total(self) -> float:
        """Return passes × cost per pass."""
        return self.passes * self.each

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for ``--json`` and blend.json."""
        return {"models": self.models, "passes": self.passes, "cost": self.total}


@dataclass(frozen=True)
class Costs:
    """The prediction cost of all runs.

    Attributes
    ----------
    of : run → its cost.
    given : whether the user gave costs per pass; otherwise costs are numbers of passes.
    """

    of: Mapping[str, Cost]
    given: bool = False

    def total(self, runs: Sequence[str]) -> float:
        """Return the total cost of these runs."""
        return math.fsum(self.of[run].total for run in runs)

    def saved(self, runs: Sequence[str]) -> float:
        """Return the share of the total cost that is saved by using only these runs, 0 to 1."""
        return 1 - self.total(runs) / self.total(list(self.of))

    @property
    def unit(self) -> str:
        """Return the unit: ``cost`` or ``passes``."""
        return "cost" if self.given else "passes"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for ``--json`` and blend.json."""
        return {"unit": self.unit, "runs": {run: cost.to_dict() for run, cost in self.of.items()}}


def costs_of(splits: Mapping[str, AlignedSplit], each: Mapping[str, float] | None = None) -> Costs:
    """Return the costs of the runs of all splits, ordered by name.

    Each test file of a run is one model. A run without test files has one model per fold of its out-of-fold file. A
    file over several views costs one pass per view.

    Parameters
    ----------
    each : run → cost per pass, a result of `parse_costs`.
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
    """Return the number of models behind an out-of-fold file; 1 if its folds are unknown."""
    if part.fold is None or isinstance(part.fold, int):
        return 1
    folds = part.fold if part.rows is None else part.fold[part.rows >= 0]
    return max(1, len(folds_of(folds)))


def parse_costs(text: str, runs: Sequence[str]) -> dict[str, float]:
    """Parse ``swin=3,resnet18=1``: the cost of one forward pass of each run, in any unit.

    Raises
    ------
    UsageError : a run is unknown, named twice or missing, or a cost is not a number from 1e-6 to 1e12.
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
        given[name] = positive(value, f"`cost={text}`", "the cost per pass")
        if not MIN_COST <= given[name] <= MAX_COST:
            raise UsageError(
                f"`cost`: the cost per pass of {name} must be from {MIN_COST:g} to {MAX_COST:g}, found {value}",
                hint="use another unit",
            )
    missing = [name for name in runs if name not in given]
    if missing:
        raise UsageError(
            f"`cost` has no value for {', '.join(missing)}", hint=f"`cost={example}`; without it, passes are counted"
        )
    return {name: given[name] for name in runs}


def positive(value: str, option: str, what: str) -> float:
    """Parse a finite number above 0 from the text of an option."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number <= 0:
        raise UsageError(
            f"{option}: {what} must be a number above 0, found '{value}'",
            hint="any unit works: costs are only compared with each other",
        )
    return number
