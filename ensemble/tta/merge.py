"""How the logits of several views become one prediction: mean, geometric mean, weights, and which images need further views; numpy only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.errors import EnsembleError, UsageError, unknown_name
from folds.utils.numeric import softmax
from folds.utils.schema import NUMBER, either, list_of, mapping_of, one_of, optional, validate_fields

MERGES = ("mean", "geometric", "weighted", "classwise", "auto")


def merge_views(
    logits: NDArray[np.floating], how: str = "mean", weights: NDArray[np.floating] | None = None
) -> NDArray[np.float64]:
    """Logits of all views (views, n, classes) → probabilities (n, classes).

    ``mean`` is the arithmetic mean of the views' probabilities; ``geometric`` their geometric mean, taken in log space
    and renormalised (it has the argmax of the mean logits; the arithmetic mean may not); ``weighted`` and ``classwise`` are
    weighted means of the probabilities (Shanmugam et al., arXiv 2011.11156).

    Parameters
    ----------
    weights : (views,), or (views, classes) for ``classwise``: what a view's probability of each class counts, then renormalised.
    """
    if how == "mean":
        return softmax(logits).mean(axis=0)
    if how == "geometric":
        shifted = np.asarray(logits, np.float64)
        shifted = shifted - shifted.max(axis=-1, keepdims=True)
        # The normaliser of each view is the same for all classes, so the mean of the logits is enough.
        return softmax(shifted.mean(axis=0))
    if how not in MERGES or weights is None:
        raise unknown_name("`merge`", how, MERGES)
    weighed = np.reshape(np.asarray(weights, np.float64), (len(logits), 1, -1))
    merged = (softmax(logits) * weighed).sum(axis=0)
    return merged / merged.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class MergeConfig:
    """What a merge shall be.

    Attributes
    ----------
    budget : views an image at most; None for no limit.
    adaptive : views beyond the plain image only where its margin is small.
    plain : the plain image is among the views whatever is chosen; always so where the others wait for its margin.
    """

    how: str = "mean"
    budget: int | None = None
    adaptive: bool = False
    plain: bool = False

    def check(self) -> None:
        """Refuse what cannot be."""
        if self.how not in MERGES:
            raise unknown_name("`merge`", self.how, MERGES)
        if self.budget is not None and self.budget < 1:
            raise UsageError(
                f"`budget={self.budget}`: expected at least 1 view an image",
                hint="`budget=1` takes the best single view",
            )

    def fitted(self, views: int) -> bool:
        """Return whether anything of it is learnt from labels, given so many views."""
        return views > 1 and (self.how not in ("mean", "geometric") or self.adaptive or not self.all_on_test(views))

    def all_on_test(self, views: int) -> bool:
        """Return whether test is predicted in all of so many views, chosen or not: without a limit, what is kept serves any merge."""
        return not self.adaptive and (self.budget is None or self.budget >= views)


@dataclass(frozen=True)
class Merge:
    """How views become one prediction, the same for all folds of a run.

    Attributes
    ----------
    weights : view → its weight, or one weight a class; the plain image first where it is among them. Equal ones for
        ``mean`` and ``geometric``.
    threshold : further views than the plain image are made where its margin is below; None: always.
    """

    how: str
    weights: Mapping[str, tuple[float, ...]]
    threshold: float | None = None

    @property
    def views(self) -> tuple[str, ...]:
        """Return the views that count."""
        return tuple(self.weights)

    def merged(self, logits: NDArray[np.floating]) -> NDArray[np.float64]:
        """Logits of `views` (views, n, classes) → probabilities (n, classes), as if all views were there for all images."""
        return merge_views(logits, self.how, np.array(list(self.weights.values())))

    def needs_more_views(self, plain: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Return (n,) which images need more than the plain image, whose logits (n, classes) are given."""
        if self.threshold is None:
            return np.full(len(plain), len(self.weights) > 1)
        return margins(softmax(plain)) < self.threshold

    def to_dict(self) -> dict[str, Any]:
        """For the sidecar of what was merged, and for --json."""
        listed = {view: weights[0] if len(weights) == 1 else list(weights) for view, weights in self.weights.items()}
        return {"how": self.how, "weights": listed, "threshold": self.threshold}

    @classmethod
    def from_json(cls, record: Any, classes: int) -> Merge:
        """Return the reverse of `to_dict`, of a record from anywhere.

        Raises
        ------
        EnsembleError : it is no merge of so many classes; what is wrong is said.
        """
        table = {
            "how": one_of(*MERGES[:-1]),
            "weights": mapping_of(either(NUMBER, list_of(NUMBER, classes))),
            "threshold": optional(NUMBER),
        }
        wrong = validate_fields(record, table)
        weights = (
            {} if wrong else {view: tuple(np.atleast_1d(weight).tolist()) for view, weight in record["weights"].items()}
        )
        if not wrong and (not weights or len({*map(len, weights.values())}) > 1 or min(map(min, weights.values())) < 0):
            wrong = ["'weights' must be of one view or more, each with as many, and none below 0"]
        if not wrong and not all(0 < sum(of_class) < math.inf for of_class in zip(*weights.values(), strict=True)):
            wrong = ["'weights' of all views together must be a finite number above 0, for each class"]
        if wrong:
            raise EnsembleError(f"this is no merge of views: {wrong[0]}", hint="ensemble tta RUN makes the merge again")
        return cls(record["how"], weights, record.get("threshold"))


def margins(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return (n,) the highest probability less the second highest."""
    top = np.sort(np.asarray(probabilities, np.float64), axis=1)[:, -2:]
    return np.asarray(top[:, 1] - top[:, 0])
