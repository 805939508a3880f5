"""Choose and weight views on out-of-fold rows, with nested scores (numpy only)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.tta.columns import column_weights
from ensemble.tta.merge import Merge, MergeConfig, margins, merges_of
from folds.errors import EnsembleError
from folds.metrics.classification import METRICS, Metric
from folds.metrics.confusion import argmax_classes, confusion_counts
from folds.metrics.task_names import CLASSES, COLUMN_TASKS
from folds.metrics.tasks import metric_for_task
from folds.predictions.links import predictions_of
from folds.utils.numeric import softmax

PLAIN = "plain"  # additional choice of `auto`: the plain image only
METRIC = METRICS["macro_f1"]
TOLERANCE = 0.001  # macro F1 that saving views may cost
STEPS = 50  # fitted weights are multiples of 1/50 at the finest
EQUAL = 0.5  # part of a fitted weight that is equal for all views: regularization, because there are few people
GROUPS = 5  # groups of people, if there is only one fold
SPREAD = 0.5  # prior standard deviation of the log weight of a class around the weight for all classes


@dataclass(frozen=True)
class OOFViews:
    """Out-of-fold logits of all views, with labels.

    Attributes
    ----------
    views : names of the views, the plain image first.
    logits : (views, n, classes).
    labels, persons, folds : (n,) class indices, person codes and folds; labels of `COLUMN_TASKS` are (n, columns), nan
        where they are not known.
    task : what the columns are.
    by_person : whether people are scored, because only persons are labeled.
    """

    views: tuple[str, ...]
    logits: NDArray[np.floating]
    labels: NDArray[Any]
    persons: NDArray[np.int64]
    folds: NDArray[np.int64]
    task: str = CLASSES
    by_person: bool = False

    @property
    def metric(self) -> Metric:
        """Return the metric by which merges are chosen and scored."""
        return metric_of_task(self.task)

    @property
    def plain(self) -> NDArray[np.float64]:
        """Return (n, classes) the predictions of the plain image."""
        return predictions_of(self.task, self.logits[0])

    def take(self, rows: NDArray[np.bool_]) -> OOFViews:
        """Return the rows where `rows` (n,) is true."""
        return replace(
            self,
            logits=self.logits[:, rows],
            labels=self.labels[rows],
            persons=self.persons[rows],
            folds=self.folds[rows],
        )

    def parts(self) -> Iterator[NDArray[np.bool_]]:
        """Yield the mask (n,) of each outer fold: the folds, or five groups of people if there is only one fold.

        Raises
        ------
        EnsembleError : there is only one person.
        """
        groups = self.folds
        if len(np.unique(groups)) < 2:
            people, codes = np.unique(self.persons, return_inverse=True)
            if len(people) < 2:
                raise EnsembleError(
                    "the views are fitted and scored on different people: expected 2 or more people, found 1"
                )
            groups = (np.random.default_rng(0).permutation(len(people)) % GROUPS)[codes]
        for group in np.unique(groups):
            yield groups == group


def metric_of_task(task: str) -> Metric:
    """Return the metric of the views of a task: its default."""
    return metric_for_task(None, task)


def fit(evidence: OOFViews, request: MergeConfig) -> Merge:
    """Fit a merge to all rows. Its score on these rows is in-sample; `nested_view_scores` gives the nested one."""
    how, views = request.how, evidence.views
    if how == "auto":
        how = _best(evidence, request)
    if how == PLAIN:
        weights = np.eye(len(views))[0]
    elif evidence.task in COLUMN_TASKS:
        limit = len(views) if request.budget is None else min(request.budget, len(views))
        values = predictions_of(evidence.task, evidence.logits)
        weights = column_weights(values, evidence.labels, evidence.task, how, limit, steps=STEPS, equal=EQUAL)
    else:
        weights = _weights(evidence, how, request.budget, request.adaptive or request.plain)
    used = {
        view: tuple(np.atleast_1d(weight).tolist())
        for view, weight in zip(views, weights, strict=True)
        if np.any(weight > 0)
    }
    merge = Merge("mean" if how == PLAIN else how, used)
    if not request.adaptive:
        return merge
    if len(used) == 1:
        return replace(merge, threshold=0.0)
    full, _ = nested_view_scores(evidence, MergeConfig(how, request.budget, plain=True))
    return replace(merge, threshold=fit_threshold(softmax(evidence.logits[0]), full, evidence.labels))


def apply(merge: Merge, evidence: OOFViews) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return probabilities (n, classes) and the number of views per image (n,)."""
    logits = evidence.logits[[evidence.views.index(view) for view in merge.views]]
    merged = merge.merged(logits, evidence.task)
    if merge.threshold is None:
        return merged, np.full(merged.shape[0], len(merge.weights))
    further = merge.needs_more_views(logits[0])
    return np.where(further[:, None], merged, softmax(logits[0])), np.where(further, len(merge.weights), 1)


def nested_view_scores(evidence: OOFViews, request: MergeConfig) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return nested probabilities (n, classes) and the number of views per image (n,).

    Each outer fold is merged by a merge that is fitted to the other folds.
    """
    probabilities, views = np.empty(evidence.logits.shape[1:]), np.empty(len(evidence.labels), np.int64)
    for rows in evidence.parts():
        probabilities[rows], views[rows] = apply(fit(evidence.take(~rows), request), evidence.take(rows))
    return probabilities, views


def _best(evidence: OOFViews, request: MergeConfig) -> str:
    """Return the merge method with the best nested score; a tie goes to the simpler one."""
    metric = evidence.metric
    scores = {PLAIN: metric(evidence.labels, evidence.plain)}
    for how in merges_of(evidence.task)[:-1]:
        scores[how] = metric(
            evidence.labels, nested_view_scores(evidence, replace(request, how=how, adaptive=False))[0]
        )
    sign = 1 if metric.greater_is_better else -1
    return max(scores, key=lambda how: sign * scores[how])


def _weights(evidence: OOFViews, how: str, budget: int | None, plain: bool) -> NDArray[np.float64]:
    """Return weights (views,) or (views, classes), 0 for a view that is not used."""
    views = len(evidence.views)
    limit = views if budget is None else min(budget, views)
    if how in ("mean", "geometric"):
        chosen = _greedy(evidence, how, limit, plain, again=False) > 0 if limit < views else np.ones(views, bool)
        return np.asarray(chosen / chosen.sum())
    counts = _greedy(evidence, "mean", limit, plain, again=True)
    allowed = counts > 0 if limit < views else np.ones(views, bool)
    shared: NDArray[np.float64] = EQUAL * allowed / allowed.sum() + (1 - EQUAL) * counts / counts.sum()
    return shared if how == "weighted" else _by_class(evidence, shared)


def _greedy(evidence: OOFViews, how: str, limit: int, plain: bool, again: bool) -> NDArray[np.int64]:
    """Return (views,) how often greedy selection takes each view (Caruana et al., 2004).

    Each step takes the view that lowers the log loss most. Log loss depends on every row; macro F1 changes only when
    decisions change.

    Parameters
    ----------
    limit : maximum number of different views.
    again : whether a view can be taken more than once, for `STEPS` steps.
    """
    index, geometric = np.arange(len(evidence.labels)), how == "geometric"
    # The log loss of the arithmetic mean depends only on the probability of the true class.
    values = (
        np.asarray(evidence.logits, np.float64) if geometric else softmax(evidence.logits)[:, index, evidence.labels]
    )

    def loss(total: NDArray[np.float64], count: int) -> float:
        mean = total / count
        if not geometric:
            return float(-np.log(np.maximum(mean, np.finfo(np.float64).eps)).mean())
        shifted = mean - mean.max(axis=1, keepdims=True)
        return float((np.log(np.exp(shifted).sum(axis=1)) - shifted[index, evidence.labels]).mean())

    counts = np.zeros(len(values), np.int64)
    total, best, kept = np.zeros(values.shape[1:]), np.inf, counts
    for step in range(1, (STEPS if again else limit) + 1):
        allowed = counts == 0 if not again else (counts > 0) | (np.count_nonzero(counts) < limit)
        candidates = [0] if plain and step == 1 else np.flatnonzero(allowed).tolist()
        losses = [loss(total + values[view], step) for view in candidates]
        taken = candidates[int(np.argmin(losses))]
        counts[taken] += 1
        total = total + values[taken]
        if min(losses) < best - 1e-12:
            best, kept = min(losses), counts.copy()
    return kept


def _by_class(
    evidence: OOFViews, shared: NDArray[np.float64], rate: float = 0.1, steps: int = 100
) -> NDArray[np.float64]:
    """Return the weights (views, classes) with the lowest log loss, regularized towards the shared weights.

    Adam on the log weights, with a normal prior of standard deviation `SPREAD` around the shared log weights. The prior
    has more effect on rarer classes.
    """
    used = np.flatnonzero(shared)
    n, classes = evidence.logits.shape[1:]
    index, labels = np.arange(n), evidence.labels
    # One matrix product per class is the fastest way to apply the weights.
    probabilities = np.ascontiguousarray(softmax(evidence.logits[used]).transpose(2, 0, 1))
    prior = np.log(shared[used])
    theta = np.tile(prior, (classes, 1))
    slope, square = np.zeros_like(theta), np.zeros_like(theta)
    for step in range(1, steps + 1):
        weights = softmax(theta)
        sums = (weights[:, None, :] @ probabilities)[:, 0, :]  # (classes, n)
        pull = np.broadcast_to(1 / sums.sum(axis=0), (classes, n)).copy()
        pull[labels, index] -= 1 / np.maximum(sums[labels, index], np.finfo(np.float64).eps)
        gradient = (probabilities @ pull[:, :, None])[:, :, 0] / n
        gradient = weights * (gradient - (weights * gradient).sum(axis=1, keepdims=True)) + (theta - prior) / (
            SPREAD**2 * n
        )
        slope, square = 0.9 * slope + 0.1 * gradient, 0.99 * square + 0.01 * gradient**2
        theta = theta - rate * (slope / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.99**step)) + 1e-8)
    out = np.zeros((len(shared), classes))
    out[used] = softmax(theta).T
    return out


def fit_threshold(
    plain: NDArray[np.floating], full: NDArray[np.floating], labels: NDArray[np.int64], tolerance: float = TOLERANCE
) -> float:
    """Return the smallest threshold: more views are used for images with a margin below it on the plain image.

    With this and every larger threshold, macro F1 is at most `tolerance` below that of all views for all images. A
    smaller threshold that scores as well by chance is not chosen.

    Parameters
    ----------
    plain, full : (n, classes) probabilities of the plain image and of all views.
    labels : (n,) class indices.
    """
    margin = margins(plain)
    before, after = argmax_classes(full), argmax_classes(plain)
    # Only these rows change the score. They are switched to the plain image one by one, largest margin first.
    moved = np.flatnonzero(before != after)
    moved = moved[np.argsort(-margin[moved], kind="stable")]
    step, right = np.arange(len(moved)), labels[moved]
    change = np.zeros((len(moved), 3, np.shape(plain)[1]), np.int64)
    change[step, 0, right] = (after[moved] == right).astype(int) - (before[moved] == right)
    change[step, 2, after[moved]] = 1
    change[step, 2, before[moved]] = -1
    assert METRIC.from_counts is not None  # noqa: S101 - macro F1 is computed from counts
    counts = confusion_counts(labels, before, np.shape(plain)[1])
    scores = METRIC.from_counts(counts + change.cumsum(axis=0)) if len(moved) else np.zeros(0)
    worse = np.flatnonzero(scores < METRIC.from_counts(counts) - tolerance - 1e-12)
    if not len(worse):
        return 0.0
    first = int(worse[0])
    above = margin[moved[first - 1]] if first else 1.0
    # Halfway between the last row that needs its views and the next that does not.
    return float((margin[moved[first]] + above) / 2)
