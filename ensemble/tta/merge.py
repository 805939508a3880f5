"""Merge the logits of several views into one prediction (numpy only)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.errors import EnsembleError, UsageError, unknown_name
from folds.metrics.task_names import CLASSES, COLUMN_TASKS, MULTILABEL, REGRESSION, require_classes
from folds.predictions.links import predictions_of
from folds.utils.numeric import softmax
from folds.utils.schema import NUMBER, either, list_of, mapping_of, one_of, optional, validate_fields

MAX_VIEWS = 256  # of one run
MERGES = ("mean", "geometric", "weighted", "classwise", "auto")
MEDIAN = "median"  # of numbers
# Several labels have no weights per class, because no row is normalized; numbers have no geometric mean, because they
# can be negative.
_MERGES_OF = {MULTILABEL: ("mean", "geometric", "weighted", "auto"), REGRESSION: ("mean", MEDIAN, "weighted", "auto")}


def merges_of(task: str) -> tuple[str, ...]:
    """Return the merges for a task, ``auto`` last."""
    return _MERGES_OF.get(task, MERGES)


def merge_views(
    logits: NDArray[np.floating],
    how: str = "mean",
    weights: NDArray[np.floating] | None = None,
    task: str = CLASSES,
) -> NDArray[np.float64]:
    """Return the merged predictions (n, classes) of the outputs of all views (views, n, classes).

    ``mean`` is the arithmetic mean of the views' probabilities. ``geometric`` is their geometric mean, computed in log
    space and normalized; it has the argmax of the mean logits, which the arithmetic mean may not have. ``weighted`` and
    ``classwise`` are weighted means of the probabilities (Shanmugam et al., arXiv 2011.11156).

    With several labels ``geometric`` is that of each label and its opposite, which is the sigmoid of the mean logit.
    Numbers are merged as they are; ``median`` is for them.

    Parameters
    ----------
    weights : (views,), or (views, classes) for ``classwise``: weight of each view's probability, per class; the result
        is normalized.
    task : what the outputs are (`folds.predictions.links.predictions_of`).
    """
    if task in COLUMN_TASKS:
        return _merge_columns(logits, how, weights, task)
    if how == "mean":
        return softmax(logits).mean(axis=0)
    if how == "geometric":
        shifted = np.asarray(logits, np.float64)
        shifted = shifted - shifted.max(axis=-1, keepdims=True)
        # The normalizer of each view is the same for all classes, so the mean of the logits is enough.
        return softmax(shifted.mean(axis=0))
    if how not in MERGES or weights is None:
        raise unknown_name("`merge`", how, MERGES)
    per_view = np.reshape(np.asarray(weights, np.float64), (len(logits), 1, -1))
    merged = (softmax(logits) * per_view).sum(axis=0)
    return merged / merged.sum(axis=1, keepdims=True)


def _merge_columns(
    outputs: NDArray[np.floating], how: str, weights: NDArray[np.floating] | None, task: str
) -> NDArray[np.float64]:
    """Return the merged labels or numbers (n, columns); no row is normalized."""
    if how == "geometric" and task == MULTILABEL:
        return predictions_of(task, np.asarray(outputs, np.float64).mean(axis=0))
    values = predictions_of(task, outputs)
    if how == "mean":
        return np.asarray(values.mean(axis=0))
    if how == MEDIAN and task == REGRESSION:
        return np.asarray(np.median(values, axis=0))
    if how != "weighted" or weights is None:
        raise unknown_name("`merge`", how, merges_of(task))
    per_view = np.asarray(weights, np.float64).reshape(len(values), -1)[:, :1, None]
    return np.asarray((values * per_view).sum(axis=0) / per_view.sum())


@dataclass(frozen=True)
class MergeConfig:
    """The options of a merge.

    Attributes
    ----------
    how : one of `merges_of` the task.
    budget : maximum number of views per image; None for no limit.
    adaptive : whether to use more views than the plain image only if its margin is small.
    plain : whether the plain image is always among the chosen views; implied by `adaptive`.
    """

    how: str = "mean"
    budget: int | None = None
    adaptive: bool = False
    plain: bool = False

    def check(self) -> None:
        """Raise UsageError if an option is invalid."""
        if self.how not in (*MERGES, MEDIAN):
            raise unknown_name("`merge`", self.how, (*MERGES, MEDIAN))
        if self.budget is not None and self.budget < 1:
            raise UsageError(
                f"`budget={self.budget}`: expected 1 or more views per image",
                hint="`budget=1` uses the best single view",
            )

    def check_task(self, task: str) -> None:
        """Raise UsageError if an option is not for this task."""
        if self.how not in merges_of(task):
            raise UsageError(
                f"`merge={self.how}` is not for the task {task}", hint=f"its merges: {', '.join(merges_of(task))}"
            )
        if self.adaptive:
            require_classes(task, "`adaptive`, which compares the two most probable classes,", "leave out `adaptive`")

    def fitted(self, views: int) -> bool:
        """Return whether the merge of this number of views is fitted to labels."""
        plain = ("mean", "geometric", MEDIAN)
        return views > 1 and (self.how not in plain or self.adaptive or not self.all_on_test(views))

    def all_on_test(self, views: int) -> bool:
        """Return whether all views are predicted on test: without a limit, the files then serve any merge."""
        return not self.adaptive and (self.budget is None or self.budget >= views)


@dataclass(frozen=True)
class Merge:
    """A fitted or plain merge of views, the same for all folds of a run.

    Attributes
    ----------
    weights : view → its weight, or one weight per class; the plain image comes first if it is used. Equal weights for
        ``mean``, ``geometric`` and ``median``.
    threshold : more views are used for images whose margin on the plain image is below it; None for all images.
    """

    how: str
    weights: Mapping[str, tuple[float, ...]]
    threshold: float | None = None

    @property
    def views(self) -> tuple[str, ...]:
        """Return the names of the used views."""
        return tuple(self.weights)

    def check_task(self, task: str) -> None:
        """Raise EnsembleError if the merge is not for this task: then its record was changed, or is of another run."""
        if self.how not in merges_of(task)[:-1] or (task in COLUMN_TASKS and self.threshold is not None):
            what = "an adaptive merge" if self.how in merges_of(task) else f"the merge '{self.how}'"
            raise EnsembleError(
                f"{what} of views is not for the task {task}", hint="ensemble tta RUN merges them again"
            )

    def merged(self, logits: NDArray[np.floating], task: str = CLASSES) -> NDArray[np.float64]:
        """Return predictions (n, classes) of the outputs of `views` (views, n, classes), all views for all images."""
        return merge_views(logits, self.how, np.array(list(self.weights.values())), task)

    def needs_more_views(self, plain: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Return (n,) whether each image needs more views, given its logits on the plain image (n, classes)."""
        if self.threshold is None:
            return np.full(len(plain), len(self.weights) > 1)
        return margins(softmax(plain)) < self.threshold

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for the sidecar and ``--json``."""
        listed = {view: weights[0] if len(weights) == 1 else list(weights) for view, weights in self.weights.items()}
        return {"how": self.how, "weights": listed, "threshold": self.threshold}

    @classmethod
    def from_json(cls, record: Any, classes: int) -> Merge:
        """Return the merge of a record (inverse of `to_dict`), validated.

        Raises
        ------
        EnsembleError : the record is not a merge for this number of classes.
        """
        table = {
            "how": one_of(*MERGES[:-1], MEDIAN),
            "weights": mapping_of(either(NUMBER, list_of(NUMBER, classes))),
            "threshold": optional(NUMBER),
        }
        wrong = validate_fields(record, table)
        weights = (
            {} if wrong else {view: tuple(np.atleast_1d(weight).tolist()) for view, weight in record["weights"].items()}
        )
        if not wrong and (not weights or len({*map(len, weights.values())}) > 1 or min(map(min, weights.values())) < 0):
            wrong = ["'weights' must have one or more views, equally many weights per view, and none below 0"]
        if len(weights) > MAX_VIEWS:
            wrong = [f"'weights' has {len(weights):,} views, at most {MAX_VIEWS} are read"]
        if not wrong and not all(0 < sum(of_class) < math.inf for of_class in zip(*weights.values(), strict=True)):
            wrong = ["'weights' of all views together must be a finite number above 0, for each class"]
        if wrong:
            raise EnsembleError(f"invalid merge of views: {wrong[0]}", hint="ensemble tta RUN writes the merge again")
        return cls(record["how"], weights, record.get("threshold"))


def merge_or_plain(merge: Merge, logits: NDArray[np.floating], task: str) -> NDArray[np.float64]:
    """Return the predictions (n, classes) of the outputs of all views (views, n, classes), as images get them.

    Rows that need no further views have the prediction of the first one, and a single view is not merged.
    """
    first = predictions_of(task, logits[0])
    if len(logits) == 1:
        return first
    if merge.threshold is None:
        return merge.merged(logits, task)
    more = merge.needs_more_views(logits[0])
    if more.any():
        first[more] = merge.merged(logits[:, more], task)
    return first


def margins(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return (n,) the highest minus the second highest probability."""
    top = np.sort(np.asarray(probabilities, np.float64), axis=1)[:, -2:]
    return np.asarray(top[:, 1] - top[:, 0])
