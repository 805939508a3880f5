"""What the views of a run were merged to; numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ensemble.tta.merge import Merge, MergeConfig
from ensemble.tta.weights import OOFViews


@dataclass(frozen=True)
class MergedViews:
    """What a run's views were merged to.

    Attributes
    ----------
    merge : fitted on all of its out-of-fold rows; what test is merged by.
    evidence : what it was fitted on; None where labels are not known.
    merged : (n, classes) the out-of-fold rows of `evidence`, each as the other folds say where anything was fitted.
    full : (n, classes) the same with all views of the merge for all images, where it is adaptive.
    oof_views, test_views : forward passes an image, on average; the latter None where there is no test.
    predicted : forward passes that this command made.
    """

    run: str
    request: MergeConfig
    merge: Merge
    evidence: OOFViews | None
    merged: NDArray[np.float64]
    full: NDArray[np.float64] | None
    oof_views: float
    test_views: float | None = None
    predicted: int = 0
