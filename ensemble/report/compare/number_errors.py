"""Compare the errors of models that predict numbers: whether they err in the same direction on the same images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ensemble.analysis.units import IMAGE, Unit
from ensemble.report.evidence.evidence import Part, Predicted
from ensemble.report.page.blocks import Block, Figure, Table
from folds.utils.charts.grids import heat


def error_correlation(part: Part, compared: Sequence[Predicted], unit: Unit = IMAGE) -> list[Block]:
    """Return the correlations of the errors of each two models, as a drawing and as a table; [] without an error.

    Errors of several numbers are divided by the spread of the number, so that each counts alike.
    """
    spread = np.array([float(np.nanstd(column)) if np.isfinite(column).any() else 1.0 for column in part.labels.T])
    errors = [((one.probabilities - part.labels) / np.where(spread > 0, spread, 1.0)).ravel() for one in compared]
    names, count = [one.name for one in compared], len(compared)
    grid = np.full((count, count), np.nan)
    for i in range(count):
        for j in range(i + 1, count):
            both = np.isfinite(errors[i]) & np.isfinite(errors[j])
            if both.sum() > 2 and errors[i][both].std() > 0 and errors[j][both].std() > 0:
                grid[i, j] = grid[j, i] = np.corrcoef(errors[i][both], errors[j][both])[0, 1]
    if not np.isfinite(grid).any():
        return []
    where = "out of fold" if part.name == "oof" else "on test people"
    title = f"Correlation of errors, {where}"
    text = f"The correlation of the errors of two models is {float(np.nanmean(grid)):.2f} on average."
    rows: list[list[str | int | float | None]] = []
    for i, name in enumerate(names):
        if np.isnan(grid[i]).all():
            rows.append([name, None, None, None, None])
            continue
        high, low = int(np.nanargmax(grid[i])), int(np.nanargmin(grid[i]))
        rows.append([name, names[high], f"{grid[i, high]:.2f}", names[low], f"{grid[i, low]:.2f}"])
    table = Table(
        "compare-errors",
        f"Which models err alike, {where}.",
        ["model", "most similar", "highest correlation", "least similar", "lowest correlation"],
        rows,
        note="Correlation of predicted minus true numbers, from -1 to 1: 1 if two models are too high and too low on "
        f"the same {unit.many}. The lower it is, the more a mean of the models can gain.",
    )
    return [Figure("compare-errors-figure", heat(names, grid.tolist(), title, text), title, text), table]
