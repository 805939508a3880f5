"""The result of merging the views of a run (numpy only)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ensemble.tta.merge import Merge, MergeConfig
from ensemble.tta.weights import OOFViews, metric_of_task
from folds.metrics.classification import Metric
from folds.metrics.task_names import CLASSES


@dataclass(frozen=True)
class MergedViews:
    """The merged views of a run.

    Attributes
    ----------
    merge : the merge fitted to all out-of-fold rows; used for test.
    evidence : the out-of-fold views and labels used for fitting; None if labels are not known.
    merged : (n, classes) merged out-of-fold rows; if anything was fitted, each fold by a merge fitted to the other
        folds.
    full : (n, classes) the same with all views of the merge for all images; None unless the merge is adaptive.
    task : what the columns are.
    oof_views, test_views : mean number of forward passes per image; `test_views` is None if there is no test split.
    predicted : number of forward passes made by this command.
    """

    run: str
    request: MergeConfig
    merge: Merge
    evidence: OOFViews | None
    merged: NDArray[np.float64]
    full: NDArray[np.float64] | None
    oof_views: float
    task: str = CLASSES
    test_views: float | None = None
    predicted: int = 0

    @property
    def metric(self) -> Metric:
        """Return the metric of all scores: macro F1 for classes, else the default one of the task."""
        return metric_of_task(self.task)
