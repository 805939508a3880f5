"""Fit a linear head for several labels or numbers: one logistic or one ridge regression each."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from folds.errors import EnsembleError
from folds.features.data import sampling_weights
from folds.features.logistic import Fit, Floats, Rotation, fit_path, rotate
from folds.features.ridge import ridge_path, select_ridge
from folds.features.selection import Selection, inner_folds, select_strength
from folds.metrics.task_names import MULTILABEL
from folds.models.heads import RelativeHead, output_layer
from folds.models.number_head import Units
from folds.optim.column_losses import CellCounts, label_weights
from folds.optim.loss_spec import parse_loss
from folds.training.context import FoldContext
from folds.training.loop import Report
from folds.utils.files import derive_seed

Fitted = tuple[NDArray[np.float64], float, dict[str, Any], Selection | None]  # weights, intercept, record, selection


def train_columns(
    context: FoldContext, features: Floats, views: int, persons: NDArray[Any], head: nn.Module, report: Report
) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """Fit the head to standardized features (views × n, d); return what was chosen, and the losses of all strengths.

    A label or number is fitted on the rows on which it is known. Its strength is chosen by inner folds over people
    within the training part; they have about the same shares of the label. Numbers are in standard deviations.

    Parameters
    ----------
    persons : of all rows of the table.
    head : the linear layer that gets the weights.
    report : called with notes.

    Raises
    ------
    EnsembleError : a label or number is known of no image of the training part, or of one person only.
    """
    training, target = context.training, context.target
    weights = np.tile(sampling_weights(context.epochs), views)
    values = np.tile(context.training_labels[training].astype(np.float64), (views, 1))
    fit_column = _LabelFits(context, features, weights, views) if target.task == MULTILABEL else _fit_number
    chosen: dict[str, Any] = {}
    losses: list[dict[str, float]] = []
    columns: list[NDArray[np.float64]] = []
    intercepts: list[float] = []
    for i, name in enumerate(target.classes):
        known = np.where(np.isnan(values[:, i]), 0.0, weights)
        own = np.flatnonzero(known[: len(training)])
        if not len(own):
            raise EnsembleError(f"no image of the training part of {context.job.title} has a known '{name}'")
        fold = None
        if context.recipe.l2 is None:
            seed = derive_seed(*context.seed, "inner folds", i)
            codes = values[own, i] > 0  # of numbers: above the mean
            fold = np.full(len(training), -1)
            fold[own] = inner_folds(persons[training][own], codes.astype(np.int64), _count(context), seed)
        column, intercept, record, selection = fit_column(
            context, i, features, np.nan_to_num(values[:, i]), known, fold, len(training)
        )
        columns.append(column)
        intercepts.append(intercept)
        chosen[name] = record
        if selection is not None:
            kind = "inner_log_loss" if target.task == MULTILABEL else "inner_squared_error"
            for l2, loss in zip(selection.strengths, selection.inner_losses, strict=False):
                losses.append({"head": i, "l2": l2, kind: loss})
            if selection.at_edge:
                text = f"{name}: the weakest L2 strength, {selection.best:g}, is the best: `l2` can be set below it"
                report({"event": "note", "text": f"{context.job.title}: {text}"})
    assert isinstance(head, nn.Linear)  # noqa: S101 - `build_head` made it
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(np.stack(columns).astype(np.float32)))
        head.bias.copy_(torch.from_numpy(np.array(intercepts, np.float32)))
    return chosen, losses


def _count(context: FoldContext) -> int:
    return context.recipe.inner_folds or 5


class _LabelFits:
    """Binary logistic regressions on one rotation of the features."""

    def __init__(self, context: FoldContext, features: Floats, weights: NDArray[np.float64], views: int) -> None:
        self.rotated, self.rotation = rotate(features, weights / weights.sum())
        term = parse_loss(context.recipe.loss).terms[0]
        counts = context.counts()
        assert isinstance(counts, CellCounts)  # noqa: S101 - several labels have cells
        self.of_classes = np.ones((2, len(context.target.classes)))
        if term.weights != "none":
            beta = term.beta if term.weights == "effective" else None
            self.of_classes = label_weights(counts, beta).double().cpu().numpy()

    def __call__(
        self,
        context: FoldContext,
        column: int,
        features: Floats,
        values: NDArray[np.float64],
        known: NDArray[np.float64],
        fold: NDArray[np.int64] | None,
        images: int,
    ) -> Fitted:
        """Fit one label; rows that are not known have the weight 0."""
        targets = np.stack([(1 - values) * known, values * known], axis=1) * self.of_classes[:, column]
        targets /= targets.sum()
        rotation, selection = self.rotation, None
        if fold is not None:
            # On the images themselves: their views say nearly the same.
            own = np.flatnonzero(fold >= 0)
            shares = targets[:images][own]
            selection = select_strength(self.rotated[:images][own], shares / shares.sum(), rotation, fold[own])
        l2 = context.recipe.l2 or 0.0 if selection is None else selection.best
        fit = _fit(self.rotated, targets, rotation, l2)
        # The softmax of two outputs is the sigmoid of their difference.
        weights = rotation.axes.astype(np.float64) @ (fit.weights[:, 1] - fit.weights[:, 0])
        record = {"l2": l2} if selection is None else selection.record()
        record |= {"loss": fit.loss, "converged": fit.converged}
        return weights, float(fit.intercepts[1] - fit.intercepts[0]), record, selection


def _fit(features: Floats, targets: NDArray[np.float64], rotation: Rotation, l2: float) -> Fit:
    """Return the fit of a strength, by way of two stronger ones."""
    return list(fit_path(features, targets, rotation.variance, [100 * l2, 10 * l2, l2]))[-1]


def _fit_number(
    context: FoldContext,
    column: int,
    features: Floats,
    values: NDArray[np.float64],
    known: NDArray[np.float64],
    fold: NDArray[np.int64] | None,
    images: int,
) -> Fitted:
    """Fit one number by ridge regression; rows that are not known have the weight 0."""
    selection = None
    if fold is not None:
        selection = select_ridge(features[:images], values[:images], known[:images], fold)
    l2 = context.recipe.l2 or 0.0 if selection is None else selection.best
    fit = ridge_path(features, values, known, [l2])[0]
    record: dict[str, Any] = {"l2": l2, "loss": fit.loss}
    if selection is not None:
        record |= {"inner_folds": selection.folds, "inner_squared_error": min(selection.inner_losses)}
    return fit.weights, fit.intercept, record, selection


def in_unit_of_table(head: nn.Module, units: Units) -> nn.Module:
    """Change a head of numbers in standard deviations to one of numbers in the unit of the table."""
    layer = output_layer(head)
    center, scale = (torch.from_numpy(one.astype(np.float64)) for one in (units.center, units.scale))
    with torch.no_grad():
        layer.weight.copy_((layer.weight.double() * scale[:, None]).float())
        if isinstance(head, RelativeHead):  # the outputs are a sum, of which the other layer has the bias
            layer = head.inputs
            layer.weight.copy_((layer.weight.double() * scale[:, None]).float())
        layer.bias.copy_((layer.bias.double() * scale + center).float())
    return head
