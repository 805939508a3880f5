"""Measure how much the runs of a blend of numbers differ for new images, as it was measured out of fold."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ensemble.decisions.member_spread import spread_of
from ensemble.prediction.combine import member_key
from ensemble.prediction.source import PredictionSource
from folds.metrics.task_names import REGRESSION


def member_spread(
    source: PredictionSource, members: Mapping[str, NDArray[np.float32]], kept: NDArray[np.int64] | None = None
) -> NDArray[np.float64] | None:
    """Return (n, columns) the spread of the runs; None unless it is a blend of numbers of two runs or more.

    Out of fold, the spread is that of one model of each run. So it is measured here for the first models of all runs,
    for the second ones, and so on, and averaged.

    Parameters
    ----------
    members : `ensemble.prediction.combine.member_key` → (m, columns).
    kept : (n,) rows of the members; None if they are all.
    """
    runs = [run for run in source.runs if run.name in source.combination.runs and run.models]
    if source.task != REGRESSION or source.cascade is not None or source.combination.pooling is not None:
        return None
    if len(runs) < 2 or len(runs) < len(source.combination.runs):
        return None
    found = []
    for models in zip(*(run.models for run in runs), strict=False):
        values = []
        for run, model in zip(runs, models, strict=True):
            columns = [run.classes.index(name) for name in source.classes]
            own = members[member_key(run, model)]
            values.append((own if kept is None else own[kept])[:, columns])
        found.append(spread_of(values))
    return np.asarray(np.mean(found, axis=0))
