"""Diversity of runs: how similar their errors are (numpy only)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ensemble.learning.stack import Stack

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Diversity:
    """Pairwise measures over the rows that both runs predict; each (runs, runs), nan where undefined.

    Names as in Kuncheva and Whitaker, *Measures of diversity in classifier ensembles* (2003).

    Attributes
    ----------
    names : names of the runs.
    correlation : correlation of being right, −1 to 1; nan if one of the two is always right or always wrong.
    disagreement : share of rows where one is right and the other wrong.
    double_fault : share of rows where both are wrong.
    q : Yule's Q, (both right × both wrong − one × other) / (the sum of the two).
    differing : share of rows where the two predict different classes.
    """

    names: tuple[str, ...]
    correlation: Matrix
    disagreement: Matrix
    double_fault: Matrix
    q: Matrix
    differing: Matrix

    def most_similar(self, run: int) -> tuple[str, float] | None:
        """Return the run with the errors most similar to those of `run`, and their correlation; None if undefined."""
        others = self.correlation[run].copy()
        others[run] = np.nan
        if np.isnan(others).all():
            return None
        at = int(np.nanargmax(others))
        return self.names[at], float(others[at])

    def mean(self, measure: str = "correlation") -> float | None:
        """Return the mean of a measure over all pairs; None if it is undefined for all."""
        values: Matrix = getattr(self, measure)
        pairs = values[np.triu_indices(len(self.names), 1)]
        return None if np.isnan(pairs).all() else float(np.nanmean(pairs))

    def to_dict(self) -> dict[str, object]:
        """Return the means and one matrix per measure, for ``--json``."""
        measures = ("correlation", "disagreement", "double_fault", "q", "differing")
        means = {measure: self.mean(measure) for measure in measures}
        return {"runs": list(self.names), "mean": means} | {
            measure: _plain(getattr(self, measure)) for measure in measures
        }


def diversity(stack: Stack) -> Diversity:
    """Return how similar the errors of the runs of a stack are."""
    # Row by row of the stack: argmax over a block of all runs would copy it.
    decided = np.stack([values.argmax(axis=1) for values in stack.probabilities])
    return diversity_of(stack.names, decided, stack.present, stack.labels, stack.classes)


def diversity_of(
    names: tuple[str, ...],
    decided: NDArray[np.int64],
    present: NDArray[np.bool_] | None,
    labels: NDArray[np.int64],
    classes: int,
) -> Diversity:
    """Return how similar errors are, from the predicted classes (runs, n) alone.

    Parameters
    ----------
    present : (runs, n) whether the run predicts the sample; None if all runs predict all samples.
    labels : (n,) class indices.
    """
    there = np.ones(decided.shape) if present is None else present.astype(float)
    right = (decided == labels) * there
    wrong = there - right
    both_right, both_wrong, first_only = right @ right.T, wrong @ wrong.T, right @ wrong.T
    second_only, rows = first_only.T, there @ there.T
    spread = np.sqrt(
        (both_right + first_only) * (second_only + both_wrong) * (both_right + second_only) * (first_only + both_wrong)
    )  # 0 where one of the two is always right or always wrong
    alike, unlike = both_right * both_wrong, first_only * second_only
    same = np.zeros_like(rows)
    for label in range(classes):
        named = (decided == label) * there
        same += named @ named.T
    return Diversity(
        names,
        _ratio(alike - unlike, spread),
        _ratio(first_only + second_only, rows),
        _ratio(both_wrong, rows),
        _ratio(alike - unlike, alike + unlike),
        _ratio(rows - same, rows),
    )


def _ratio(part: Matrix, whole: Matrix) -> Matrix:
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def _plain(values: Matrix) -> list[list[float | None]]:
    return [[None if np.isnan(value) else round(float(value), 6) for value in row] for row in values]
