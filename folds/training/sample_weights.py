"""Read the weights of the images in the loss from a column of the table."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from folds.config.recipe import Recipe
from folds.data.raw_columns import MISSING
from folds.data.table import SampleTable
from folds.errors import EnsembleError, unknown_name
from folds.splits.assignment import FoldAssignment
from folds.utils.text import counted


def sample_weights_of(recipe: Recipe, table: SampleTable) -> NDArray[np.float64] | None:
    """Return (n,) the weight of each image of a table, as in its column; None without `weight_column`.

    Raises
    ------
    EnsembleError : the column does not exist, a weight is missing or no finite number from 0, or all are 0.
    """
    name = recipe.weight_column
    if name is None:
        return None
    weights = number_column(table, name, "weight_column")
    negative = np.flatnonzero(weights < 0)
    if len(negative):
        raise EnsembleError(
            f"`weight_column={name}`: expected weights from 0, found {weights[negative[0]]:g} in "
            f"{table.locations[int(negative[0])]}",
            hint="0 leaves an image out of the training",
        )
    if not weights.any():
        raise EnsembleError(f"`weight_column={name}`: all weights are 0", hint="nothing would be trained on")
    return weights


def number_column(table: SampleTable, name: str, setting: str, *, empty: bool = False) -> NDArray[np.float64]:
    """Return (n,) the finite numbers in a column of a table.

    Parameters
    ----------
    setting : the setting that names the column, for messages.
    empty : whether cells may be empty; they are nan.

    Raises
    ------
    EnsembleError : the column does not exist, or a cell is no finite number, or missing without `empty`.
    """
    if name not in table.attributes:
        free = ", ".join(list(table.attributes)[:20]) or "all are taken (image, label, person)"
        raise unknown_name(
            f"column of `{setting}`", name, list(table.attributes), hint=f"columns of {table.source}: {free}"
        )
    cells: list[str] = table.attributes[name].tolist()
    missing = [row for row, cell in enumerate(cells) if cell.strip() in MISSING]
    if missing and not empty:
        raise EnsembleError(
            f"`{setting}`: column '{name}' has no value for {counted(len(missing), 'image')} of {len(cells):,}",
            hint="only you know what an empty cell means: fill it in (1 is a usual weight, 0 leaves an image out)",
            details=[table.locations[row] for row in missing[:10]],
        )
    numbers = np.full(len(cells), np.nan)
    unknown = np.isin(np.arange(len(cells)), missing)
    for row in np.flatnonzero(~unknown).tolist():
        try:
            numbers[row] = float(cells[row])
        except ValueError:
            break
    wrong = np.flatnonzero(~np.isfinite(numbers) & ~unknown)
    if len(wrong):
        row = int(wrong[0])
        raise EnsembleError(
            f"`{setting}`: column '{name}' must have finite numbers, found '{cells[row][:60]}' in "
            f"{table.locations[row]}"
        )
    return numbers


def check_weights_of_folds(weights: NDArray[np.float64], assignment: FoldAssignment, folds: range | list[int]) -> None:
    """Raise EnsembleError if the training part of a fold has fewer than two images with a weight above 0."""
    for fold in folds:
        if (weights[assignment.training_index(fold)] > 0).sum() < 2:
            raise EnsembleError(
                f"fold {fold} has fewer than two training images with a weight above 0",
                hint="other folds, or other weights",
            )


def zero_weight_note(name: str, weights: NDArray[np.float64]) -> str:
    """Return one line about images of weight 0; "" if there are none."""
    zero = int((weights == 0).sum())
    return f"`weight_column={name}`: {counted(zero, 'image')} of weight 0 are predicted, not trained on" if zero else ""
