"""Combine the probabilities of fold models in torch, as `Combination.apply` does in numpy, for a graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ensemble.learning.columns.combination import ColumnCombination
from ensemble.learning.combination import Calibration, Combination
from ensemble.learning.cumulative import LEAST, NumberToGrades
from ensemble.prediction.source import PredictionSource, RunModels
from ensemble.voting.base import FLOOR, TIE, TIE_MARGIN
from folds.errors import EnsembleError
from folds.metrics.task_names import COLUMN_TASKS, REGRESSION

_ROUNDING = 1e-9


class RunPoolModule(torch.nn.Module):
    """A combination of runs of classes that are all present: weights are scaled to sum to 1."""

    weights: Tensor
    stacked: Tensor | None
    bias: Tensor | None
    before_temperature: Tensor
    before_offset: Tensor | None
    after_temperature: Tensor
    after_offset: Tensor | None

    def __init__(self, made: Combination) -> None:
        super().__init__()
        self.pool, self.options = made.pool, made.options
        weights = np.ones(len(made.runs)) if made.weights is None else np.asarray(made.weights, np.float64)
        self._store("weights", weights / weights.sum(axis=0))
        self._store("stacked", made.stacked)
        self._store("bias", made.bias)
        self.has_before, self.has_after = made.before is not None, made.after is not None
        self._calibration("before", made.before)
        self._calibration("after", made.after)

    def _store(self, name: str, values: object) -> None:
        self.register_buffer(name, None if values is None else torch.from_numpy(np.array(values, np.float64)))

    def _calibration(self, name: str, made: Calibration | None) -> None:
        self._store(f"{name}_temperature", None if made is None else made.temperature)
        self._store(f"{name}_offset", None if made is None else made.offset)

    def pooled(self, values: Tensor, votes: Tensor) -> Tensor:
        """Return float64 (n, classes) of the probabilities and the votes of the runs, each (runs, n, classes)."""
        if self.has_before:
            values = _calibrated(values, self.before_temperature, self.before_offset)
        if self.stacked is not None:
            pooled = self._stacked(values, self.stacked)
        elif self.weights.dim() == 2:
            pooled = (values * self.weights[:, None, :]).sum(dim=0)
        else:
            pooled = self._pooled(values, votes)
        pooled = pooled.clamp(min=0)
        mean = (values * self._run_weights).sum(dim=0)
        pooled = torch.where(pooled.amax(dim=1, keepdim=True) <= 0, mean, pooled)
        pooled = pooled / pooled.sum(dim=1, keepdim=True)
        if self.has_after:
            pooled = _calibrated(pooled, self.after_temperature, self.after_offset)
        if self.bias is not None:
            pooled = pooled * torch.exp(self.bias - self.bias.amax())
            pooled = pooled / pooled.sum(dim=1, keepdim=True)
        return pooled

    @property
    def _counts(self) -> bool:
        return self.pool in ("hard", "grades") and self.stacked is None

    @property
    def _run_weights(self) -> Tensor:
        weights = self.weights if self.weights.dim() == 1 else self.weights.mean(dim=1)
        return weights[:, None, None]

    def _stacked(self, values: Tensor, coefficients: Tensor) -> Tensor:
        logs = torch.log(values.clamp(min=FLOOR))
        logs = logs - logs.mean(dim=2, keepdim=True)
        features = torch.cat(list(logs.unbind(0)), dim=1)
        return (features @ coefficients[:-1] + coefficients[-1]).softmax(dim=1)

    def _pooled(self, values: Tensor, votes: Tensor) -> Tensor:
        weights, pool = self.weights[:, None, None], self.pool
        power = self.options.power
        if pool == "grades":
            shares = (votes * weights).sum(dim=0)
            up = torch.cumsum(shares, dim=1)
            depth = torch.minimum(up, up[:, -1:] - up + shares)
            return _settled(depth, (values * weights).sum(dim=0))
        if pool == "hard":
            return _settled((votes * weights).sum(dim=0), (values * weights).sum(dim=0))
        if pool == "geometric" or (pool == "power" and abs(power) < 1e-6):
            logs = (torch.log(values.clamp(min=FLOOR)) * weights).sum(dim=0)
            return torch.exp(logs - logs.amax(dim=1, keepdim=True))
        if pool == "power":
            return _power_mean(values, weights, power)
        if pool == "max":
            return torch.where(weights > 0, values, torch.zeros_like(values)).amax(dim=0)
        if pool in ("median", "trimmed"):
            return self._ordered(values, values.shape[0])
        return (values * weights).sum(dim=0)

    def _ordered(self, values: Tensor, runs: int) -> Tensor:
        """Return the weighted median, or the trimmed mean, of each class."""
        ordered, order = torch.topk(values, runs, dim=0, largest=False, sorted=True)
        weights = self.weights[order]
        above = torch.cumsum(weights, dim=0)
        if self.pool == "median":
            low = (above < 0.5 - _ROUNDING).sum(dim=0, keepdim=True)
            high = (above <= 0.5 + _ROUNDING).sum(dim=0, keepdim=True).clamp(max=runs - 1)
            return (torch.gather(ordered, 0, low) + torch.gather(ordered, 0, high))[0] / 2
        trim = self.options.trim
        inside = (above.clamp(max=1 - trim) - (above - weights).clamp(min=trim)).clamp(min=0)
        inside = torch.where(weights == 0, torch.zeros_like(inside), inside)
        return (inside * ordered).sum(dim=0) / (1 - 2 * trim)


class GradesModule(torch.nn.Module):
    """A number that is handed over to grades: float64 (n, 1) → (n, grades), as `NumberToGrades.probabilities`."""

    cuts: Tensor

    def __init__(self, fit: NumberToGrades) -> None:
        super().__init__()
        self.slope = fit.slope
        self.register_buffer("cuts", torch.tensor(fit.cuts, dtype=torch.float64))

    def forward(self, number: Tensor) -> Tensor:
        """Return the probabilities of the grades."""
        below = torch.sigmoid(self.cuts - self.slope * number)
        edges = torch.cat([torch.zeros_like(number), below, torch.ones_like(number)], dim=1)
        values = (edges[:, 1:] - edges[:, :-1]).clamp(min=LEAST)
        return values / values.sum(dim=1, keepdim=True)


class CombinationModule(RunPoolModule):
    """The combination of a source: probabilities of all fold models, in the order of the source → (n, classes).

    Every run is present for every image. Labels are pooled one by one, as two classes; numbers by column.
    """

    linear: Tensor | None
    intercept: Tensor | None

    def __init__(self, source: PredictionSource) -> None:
        super().__init__(source.combination)
        made, runs = source.combination, {run.name: run for run in source.runs}
        starts = np.cumsum([0, *(len(run.models) for run in source.runs)]).tolist()
        self.places = {run.name: range(starts[i], starts[i + 1]) for i, run in enumerate(source.runs)}
        self.names, self.task = made.runs, source.task
        self.joined = {name: self._factors(runs[name], source) for name in made.runs if runs[name].joined}
        # The columns of a run are in the order of its recipe, those of the result in the order of the source.
        self.columns = {
            name: [runs[name].classes.index(one) for one in source.classes]
            for name in made.runs
            if not runs[name].joined and runs[name].hand_over is None
        }
        fits = {run.name: run.hand_over for run in source.runs if run.hand_over is not None}
        self.columns |= {name: list(range(len(source.classes))) for name in fits}
        self.grades = torch.nn.ModuleList(map(GradesModule, fits.values()))
        self.handed = {at: i for i, name in enumerate(fits) for at in self.places[name]}
        of_columns = made if isinstance(made, ColumnCombination) else None
        self._store("linear", None if of_columns is None else of_columns.linear)
        self._store("intercept", None if of_columns is None else of_columns.intercept)
        self.each = torch.nn.ModuleList(map(RunPoolModule, () if of_columns is None else of_columns.each))

    def _factors(self, run: RunModels, source: PredictionSource) -> list[tuple[list[str], list[int]]]:
        """Return for each attribute its runs, and the column of each class of the result in their predictions."""
        found: dict[str, tuple[list[str], list[int]]] = {}
        for part in source.runs:
            if part.name not in run.joined:
                continue
            columns = [part.classes.index(source.class_attributes[name][part.target]) for name in source.classes]
            names, first = found.setdefault(part.target, ([], columns))
            if first != columns:
                raise EnsembleError(f"the runs of {part.target} have their classes in different orders")
            names.append(part.name)
        return list(found.values())

    def forward(self, members: Sequence[Tensor]) -> Tensor:
        """Return float64 (n, classes) of float64 members, each (n, classes of its run)."""
        if self.handed:
            members = [
                self.grades[self.handed[at]](one) if at in self.handed else one for at, one in enumerate(members)
            ]
        values = torch.stack([self._run(name, members) for name in self.names])
        if self.task in COLUMN_TASKS:
            return self._numbers(values) if self.task == REGRESSION else self._labels(values, members)
        votes = torch.stack([self._votes(name, members) for name in self.names]) if self._counts else values
        return self.pooled(values, votes)

    def _numbers(self, values: Tensor) -> Tensor:
        if self.linear is None:
            return self._pooled(values, values)
        total = (values * self.linear[:, None, :]).sum(dim=0)
        return total if self.intercept is None else total + self.intercept

    def _labels(self, values: Tensor, members: Sequence[Tensor]) -> Tensor:
        """Return (n, labels): each label is pooled as the second of two classes."""
        votes = values
        if any(one._counts for one in self.each) or self._counts:
            votes = torch.stack([self._label_votes(name, members) for name in self.names])
        found = []
        for column in range(values.shape[2]):
            yes, voted = values[:, :, column], votes[:, :, column]
            two, two_votes = torch.stack([1 - yes, yes], dim=2), torch.stack([1 - voted, voted], dim=2)
            pooling = self.each[column] if len(self.each) else self
            assert isinstance(pooling, RunPoolModule)  # noqa: S101 - a ModuleList holds any module
            found.append(pooling.pooled(two, two_votes)[:, 1])
        return torch.stack(found, dim=1)

    def _label_votes(self, name: str, members: Sequence[Tensor]) -> Tensor:
        """Return (n, labels) the share of the fold models of a run that say a label is there."""
        own = [(members[at][:, self.columns[name]] > 0.5).double() for at in self.places[name]]
        return torch.stack(own).mean(dim=0)

    def _run(self, name: str, members: Sequence[Tensor]) -> Tensor:
        """Return (n, classes) the mean of the folds of a run, or the product of the attributes that it joins."""
        if name in self.joined:
            product = None
            for names, columns in self.joined[name]:
                mean = torch.stack([self._mean(one, members) for one in names]).mean(dim=0)[:, columns]
                product = mean if product is None else product * mean
            assert product is not None  # noqa: S101 - a joined run has parts
            total = product.sum(dim=1, keepdim=True)
            equal = torch.full_like(product, 1 / product.shape[1])
            return torch.where(total > 0, product / torch.where(total > 0, total, torch.ones_like(total)), equal)
        return self._mean(name, members)[:, self.columns[name]]

    def _mean(self, name: str, members: Sequence[Tensor]) -> Tensor:
        return torch.stack([members[at] for at in self.places[name]]).mean(dim=0)

    def _votes(self, name: str, members: Sequence[Tensor]) -> Tensor:
        """Return (n, classes) the share of the fold models of a run that vote for each class."""
        if name in self.joined:
            return _one_hot(self._run(name, members))
        own = [_one_hot(members[at][:, self.columns[name]]) for at in self.places[name]]
        return torch.stack(own).mean(dim=0)


def _calibrated(values: Tensor, temperature: Tensor, offset: Tensor | None) -> Tensor:
    logs = torch.log(values.clamp(min=FLOOR)) / temperature
    return (logs if offset is None else logs + offset).softmax(dim=-1)


def _one_hot(values: Tensor) -> Tensor:
    """Return 1 for the largest value of each row (the first among equals), 0 elsewhere."""
    places = torch.arange(values.shape[1])
    largest = values >= values.amax(dim=1, keepdim=True)
    first = torch.where(largest, places, values.shape[1]).amin(dim=1, keepdim=True)
    return (places == first).double()


def _settled(shares: Tensor, means: Tensor) -> Tensor:
    """Return the shares of the votes, with a little more for the most probable of the classes that are tied."""
    best = shares >= shares.amax(dim=1, keepdim=True) - TIE
    winner = _one_hot(torch.where(best, means, torch.full_like(means, -1.0)))
    tied = best.double().sum(dim=1, keepdim=True) > 1
    raised = shares.amax(dim=1, keepdim=True) + TIE_MARGIN
    return torch.where(tied & (winner > 0), raised, shares)


def _power_mean(values: Tensor, weights: Tensor, power: float) -> Tensor:
    floored = values.clamp(min=0.0 if power > 0 else FLOOR)
    has_weight = weights > 0
    if power > 0:
        end = torch.where(has_weight, floored, torch.zeros_like(floored)).amax(dim=0)
        ratio = floored / torch.where(end > 0, end, torch.ones_like(end))
    else:
        end = torch.where(has_weight, floored, torch.full_like(floored, 1e300)).amin(dim=0)
        ratio = end / floored
    mean = (weights * ratio.clamp(max=1) ** abs(power)).sum(dim=0)
    tiny = 1e-300  # log of 0 is -inf, which not every runtime treats alike
    logs = torch.log(end.clamp(min=tiny)) + torch.log(mean.clamp(min=tiny)) / power
    return torch.exp(logs - logs.amax(dim=1, keepdim=True))
