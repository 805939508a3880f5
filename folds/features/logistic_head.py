"""Train the logistic head of a fold: one multinomial regression per head of the target."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from folds.features.column_heads import train_columns
from folds.features.data import sampling_weights
from folds.features.logistic import Fit, Floats, Rotation, fit_path, rotate
from folds.features.selection import Selection, inner_folds, select_strength
from folds.optim.column_losses import CellCounts
from folds.optim.loss_spec import parse_loss
from folds.optim.losses import class_weights
from folds.training.context import FoldContext
from folds.training.loop import Report
from folds.utils.files import derive_seed


def train_logistic(
    context: FoldContext, features: Floats, views: int, persons: NDArray[Any], head: nn.Module, report: Report
) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """Fit the head to standardized features (views × n, d); return what was chosen, and the losses of all strengths.

    Several labels and numbers are fitted by `train_columns`.

    Parameters
    ----------
    persons : of all rows of the table.
    head : the linear layer that gets the weights.
    report : called with notes.
    """
    if context.target.has_columns:
        return train_columns(context, features, views, persons, head, report)
    recipe, training = context.recipe, context.training
    weights = sampling_weights(context.epochs)
    each = np.tile(weights / (weights.sum() * views), views)
    rotated, rotation = rotate(features, each)
    codes = np.tile(context.training_labels[training], (views, 1))
    fold = None
    if recipe.l2 is None:
        seed = derive_seed(*context.seed, "inner folds")
        fold = inner_folds(persons[training], context.labels[training], recipe.inner_folds or 5, seed)
    # The strength is chosen on the images themselves, which is half of the work: their views say nearly the same.
    images = rotated[: len(training)]
    blocks: list[tuple[Fit, Rotation]] = []
    chosen: dict[str, Any] = {}
    losses: list[dict[str, float]] = []
    for i, one in enumerate(context.target.heads):
        targets = _targets(context, i, codes[:, i], each)
        selection = None
        if fold is not None:
            selection = select_strength(images, targets[: len(training)] * views, rotation, fold)
        fit = _fit(rotated, targets, rotation, recipe.l2 or 0.0 if selection is None else selection.best)
        blocks.append((fit, rotation))
        chosen[one.name] = _record(fit, selection, len(training))
        if selection is not None:
            losses += [
                {"head": i, "l2": l2, "inner_log_loss": loss}
                for l2, loss in zip(selection.strengths, selection.inner_losses, strict=False)
            ]
        for line in _doubts(context, one.name, fit, selection):
            report({"event": "note", "text": f"{context.job.title}: {line}"})
    _set_weights(head, blocks)
    return chosen, losses


def _targets(
    context: FoldContext, head: int, codes: NDArray[np.int64], each: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return (n, classes) the share of each row in each class, with the weights of sampler and loss; they sum to 1."""
    recipe, one = context.recipe, context.target.heads[head]
    targets = np.zeros((len(codes), len(one.values)))
    targets[np.arange(len(codes)), codes] = each
    term = parse_loss(recipe.head_loss.get(one.name, recipe.loss)).terms[0]
    if term.weights != "none":
        counts = context.counts()
        assert not isinstance(counts, CellCounts)  # noqa: S101 - these are classes
        weights = class_weights(counts[head], term.beta if term.weights == "effective" else None)
        targets *= weights.double().numpy()
    return targets / targets.sum()


def _fit(features: Floats, targets: NDArray[np.float64], rotation: Rotation, l2: float) -> Fit:
    """Return the fit of a strength, by way of two stronger ones."""
    path = [100 * l2, 10 * l2, l2]
    return list(fit_path(features, targets, rotation.variance, path))[-1]


def _record(fit: Fit, selection: Selection | None, images: int) -> dict[str, Any]:
    found: dict[str, Any] = {"l2": fit.l2} if selection is None else selection.record()
    # Of two classes scikit-learn has one column of weights, which is worth half the penalty of the two here.
    return found | {"C": (2 if len(fit.intercepts) == 2 else 1) / (fit.l2 * images), "loss": fit.loss}


def _doubts(context: FoldContext, name: str, fit: Fit, selection: Selection | None) -> list[str]:
    head = f"head {name}: " if context.target.joined else ""
    lines = []
    if selection is not None and selection.at_edge:
        lines.append(f"{head}the weakest L2 strength, {selection.best:g}, is the best: `l2` can be set below it")
    if not fit.converged:
        lines.append(f"{head}the fit did not converge in {fit.iterations} iterations (L2 strength {fit.l2:g})")
    return lines


def _set_weights(head: nn.Module, blocks: list[tuple[Fit, Rotation]]) -> None:
    """Write the weights of all heads of the target into the linear layer."""
    assert isinstance(head, nn.Linear)  # noqa: S101 - `build_head` made it
    with torch.no_grad():
        weights = [rotation.axes.astype(np.float64) @ fit.weights for fit, rotation in blocks]
        head.weight.copy_(torch.from_numpy(np.concatenate(weights, axis=1).T.astype(np.float32)))
        head.bias.copy_(torch.from_numpy(np.concatenate([fit.intercepts for fit, _ in blocks]).astype(np.float32)))
