"""Replace the linear classifier of a model by one that predicts numbers in their own unit.

The layer works in standard deviations from the mean of the training part, in which losses and learning rates do not
depend on the unit. In evaluation mode the head returns mean + deviation · output. So this is the only place that knows
the unit: validation, predictions, views, soups, exported models and their ONNX graphs contain it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import linear

from folds.errors import EnsembleError
from folds.models.classifier import replace_classifier
from folds.models.head_spec import GAUSSIAN


@dataclass(frozen=True)
class Units:
    """The center and the scale (columns,) float32 of numbers; a value y is (y − center) / scale in these units."""

    center: NDArray[np.float32]
    scale: NDArray[np.float32]

    @property
    def are_usual(self) -> bool:
        """Return whether these are the units of a new head, which nothing was trained in."""
        return not self.center.any() and bool((self.scale == 1).all())

    def standardize(self, values: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return (n, columns) values in these units; nan stays."""
        return ((values - self.center.astype(np.float64)) / self.scale.astype(np.float64)).astype(np.float32)

    def restore(self, outputs: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return (n, columns) outputs in the unit of the table, as the head computes them."""
        return np.asarray(self.center + self.scale * np.asarray(outputs, np.float32), np.float32)


def units_of_numbers(values: NDArray[np.float64], names: tuple[str, ...]) -> Units:
    """Return mean and standard deviation of the known values (n, columns) of a training part.

    A number that does not vary has the scale 1.

    Raises
    ------
    EnsembleError : a column has no known value.
    """
    known = ~np.isnan(values)
    absent = [name for name, some in zip(names, np.any(known, axis=0).tolist(), strict=True) if not some]
    if absent:
        raise EnsembleError(
            f"no image of the training part has a number of '{absent[0]}'",
            hint="leave this column out, or give more people their numbers",
        )
    center = np.nanmean(values, axis=0)
    scale = np.nanstd(values, axis=0)
    varies = scale > 1e-9 * np.maximum(np.abs(center), 1e-30)
    return Units(center.astype(np.float32), np.where(varies, scale, 1).astype(np.float32))


class NumberHead(torch.nn.Module):
    """A linear layer for numbers: features (…, n) → float32 (…, numbers).

    In evaluation mode they are in the unit of the table. In training mode they are in standard deviations from the
    mean, followed by the logarithms of the variances if these are learned: (…, 2·numbers).

    Parameters
    ----------
    spread : whether the variance of each number is learned as well.
    """

    center: Tensor
    scale: Tensor

    def __init__(self, in_features: int, numbers: int, spread: bool) -> None:
        super().__init__()
        self.in_features, self.out_features, self.spread = in_features, numbers, spread
        layer = torch.nn.Linear(in_features, 2 * numbers if spread else numbers)
        self.weight, self.bias = layer.weight, layer.bias
        with torch.no_grad():  # all variances begin as 1
            self.weight[numbers:] = 0
            self.bias[numbers:] = 0
        self.register_buffer("center", torch.zeros(numbers))
        self.register_buffer("scale", torch.ones(numbers))

    def forward(self, features: Tensor) -> Tensor:
        """Return the numbers of features (…, in_features)."""
        if self.training:
            return linear(features, self.weight, self.bias).float()
        weight, bias = self.weight[: self.out_features], self.bias[: self.out_features]
        return self.center + self.scale * linear(features, weight, bias).float()

    def extra_repr(self) -> str:
        """Return the sizes, for the text of the model."""
        return f"in_features={self.in_features}, out_features={self.out_features}, spread={self.spread}"


def with_number_head(model: torch.nn.Module, head: str, timm_name: str) -> torch.nn.Module:
    """Replace the linear classifier of a timm model by a `NumberHead`; return the model.

    Parameters
    ----------
    head : ``number``, or ``gaussian`` with variances.

    Raises
    ------
    UsageError : the classifier of this model is not one linear layer.
    """
    return replace_classifier(
        model,
        lambda features, numbers: NumberHead(features, numbers, head == GAUSSIAN),
        "task=regression",
        timm_name,
        hint="choose another `arch`",
    )


def number_head_of(model: torch.nn.Module) -> NumberHead:
    """Return the head of a model that `with_number_head` made.

    Raises
    ------
    EnsembleError : the model has another head.
    """
    found = next((module for module in model.modules() if isinstance(module, NumberHead)), None)
    if found is None:
        raise EnsembleError(
            "a model of numbers has a head with their unit, found one without",
            hint="leave out `head`; a checkpoint without it was not trained with `task=regression`",
        )
    return found


def set_units(model: torch.nn.Module, units: Units) -> None:
    """Set the unit in which a model with a `NumberHead` predicts."""
    head = number_head_of(model)
    with torch.no_grad():
        head.center.copy_(torch.from_numpy(units.center))
        head.scale.copy_(torch.from_numpy(units.scale))


def units_of_model(model: torch.nn.Module) -> Units:
    """Return the unit in which a model with a `NumberHead` predicts."""
    head = number_head_of(model)
    return Units(head.center.detach().cpu().numpy().copy(), head.scale.detach().cpu().numpy().copy())
