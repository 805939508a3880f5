"""Show which members make the same mistakes: the correlation of their errors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ensemble.analysis.diversity import Diversity, diversity_of
from ensemble.report.compare.number_errors import error_correlation
from ensemble.report.compare.scored_members import MOST_ROWS
from ensemble.report.evidence.evidence import Evidence, Part, Predicted
from ensemble.report.page.blocks import Block, Figure, Table
from folds.metrics.confusion import argmax_classes
from folds.metrics.label_scores import is_predicted
from folds.metrics.task_names import MULTILABEL, REGRESSION
from folds.utils.charts.grids import heat


def error_blocks(evidence: Evidence, part: Part | None) -> list[Block]:
    """Return the correlation of the errors of the members that are no blends; of all if there are fewer than two."""
    if part is None:
        return []
    task, unit = evidence.task, evidence.row_of(part)
    compared = [one for one in part.members if one.kind != "blend"]
    compared = compared if len(compared) > 1 else list(part.members)
    if len(compared) < 2:
        return []
    left_out = len(compared) - MOST_ROWS
    compared = compared[:MOST_ROWS]
    if task == REGRESSION:
        return error_correlation(part, compared, unit)
    if task == MULTILABEL:
        return _error_blocks(
            _diversity_of_labels(part, compared), len(compared), part, left_out, f"labels of {unit.many}"
        )
    rows = np.flatnonzero(part.labels >= 0)
    decided = np.stack([_decided(one, rows) for one in compared])
    present = np.stack([one.present[rows] for one in compared])
    found = diversity_of(
        tuple(one.name for one in compared), decided, present, part.labels[rows], compared[0].probabilities.shape[1]
    )
    return _error_blocks(found, len(compared), part, left_out, unit.many)


def _diversity_of_labels(part: Part, compared: Sequence[Predicted]) -> Diversity:
    """Return the correlation of errors over all known labels of all images, each a decision of its own."""
    rows, columns = np.nonzero(np.isfinite(part.labels))
    values = np.stack([one.probabilities[rows, columns] for one in compared])
    present = np.isfinite(values)
    decided = is_predicted(np.where(present, values, 0)).astype(np.int64)
    truth = part.labels[rows, columns].astype(np.int64)
    return diversity_of(tuple(one.name for one in compared), decided, present, truth, 2)


def _error_blocks(found: Diversity, members: int, part: Part, left_out: int, unit: str) -> list[Block]:
    text, where = _error_text(found), "out of fold" if part.name == "oof" else "on test people"
    title = f"Correlation of errors, {where}"
    more = f" The first {MOST_ROWS} models are shown." if left_out > 0 else ""
    drawn = heat(found.names, _without_diagonal(found.correlation), title, text + more)
    header = ["model", "most similar", "highest correlation", "least similar", "lowest correlation", "both wrong (%)"]
    table = Table(
        "compare-errors",
        f"Which models make the same mistakes, {where}.",
        header,
        [_error_row(found, i) for i in range(members)],
        note=f"Correlation of being right, from -1 to 1: 1 if two models fail on the same {unit}, 0 if their mistakes "
        "are independent. The fewer mistakes are shared, the more a blend can gain. Both wrong: the share of the "
        f"{unit} on which the model and the most similar one are wrong.",
    )
    return [Figure("compare-errors-figure", drawn, title, text + more), table]


def _decided(one: Predicted, rows: np.ndarray) -> np.ndarray:
    values = np.where(one.present[rows, None], one.probabilities[rows], 0)
    return argmax_classes(values)


def _without_diagonal(values: np.ndarray) -> list[list[float]]:
    shown = values.copy()
    np.fill_diagonal(shown, np.nan)
    return shown.tolist()


def _error_text(found: Diversity) -> str:
    mean = found.mean()
    if mean is None:
        return "The correlation of errors is not defined: a model is always right or always wrong."
    upper = np.triu_indices(len(found.names), 1)
    values = found.correlation[upper]
    pairs = [f"{found.names[i]} and {found.names[j]}" for i, j in zip(*upper, strict=True)]
    high, low = int(np.nanargmax(values)), int(np.nanargmin(values))
    text = f"The correlation of errors is {mean:.2f} on average"
    if len(pairs) == 1:
        return f"The correlation of the errors of {pairs[0]} is {mean:.2f}."
    return f"{text}; highest for {pairs[high]} ({values[high]:.2f}), lowest for {pairs[low]} ({values[low]:.2f})."


def _error_row(found: Diversity, i: int) -> list[str | int | float | None]:
    others = found.correlation[i].copy()
    others[i] = np.nan
    if np.isnan(others).all():
        return [found.names[i], None, None, None, None, None]
    high, low = int(np.nanargmax(others)), int(np.nanargmin(others))
    return [
        found.names[i],
        found.names[high],
        f"{others[high]:.2f}",
        found.names[low],
        f"{others[low]:.2f}",
        f"{100 * found.double_fault[i, high]:.1f}",
    ]
