"""Which views count, and how much: chosen and weighed out of fold, with the score that this is worth; numpy only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ensemble.tta.merge import MERGES, Merge, MergeConfig, margins
from folds.errors import EnsembleError
from folds.metrics.classification import METRICS, argmax_classes, confusion_counts
from folds.utils.numeric import softmax

PLAIN = "plain"  # what `auto` can choose besides: no other view than the plain image
METRIC = METRICS["macro_f1"]
TOLERANCE = 0.001  # of the score, which saved views may cost
STEPS = 50  # weights are multiples of one fiftieth at the finest
EQUAL = 0.5  # share of a fitted weight that is the same for all views: what is fitted on few people is half believed
GROUPS = 5  # of people, where there is one fold alone
SPREAD = 0.5  # standard deviation of the logarithm of a class's weight about the weight of all classes


@dataclass(frozen=True)
class OOFViews:
    """Out-of-fold logits of all views, and what was right.

    Attributes
    ----------
    views : names, the plain image first.
    logits : (views, n, classes).
    labels, persons, folds : (n,) class indices, numbers of people, and folds.
    """

    views: tuple[str, ...]
    logits: NDArray[np.floating]
    labels: NDArray[np.int64]
    persons: NDArray[np.int64]
    folds: NDArray[np.int64]

    def take(self, mine: NDArray[np.bool_]) -> OOFViews:
        """Return these rows."""
        return OOFViews(self.views, self.logits[:, mine], self.labels[mine], self.persons[mine], self.folds[mine])

    def parts(self) -> Iterator[NDArray[np.bool_]]:
        """(n,) the rows of each part that is scored by what the others say: the folds, or five groups of the people of a single one.

        Raises
        ------
        EnsembleError : there is one person alone.
        """
        groups = self.folds
        if len(np.unique(groups)) < 2:
            people, codes = np.unique(self.persons, return_inverse=True)
            if len(people) < 2:
                raise EnsembleError(
                    "views are chosen and weighed on other people than they are scored on, and there is one alone"
                )
            groups = (np.random.default_rng(0).permutation(len(people)) % GROUPS)[codes]
        for group in np.unique(groups):
            yield groups == group


def fit(evidence: OOFViews, request: MergeConfig) -> Merge:
    """Return the merge that suits all of the evidence; what it is worth is what `nested` says, not the score on these rows."""
    how, views = request.how, evidence.views
    if how == "auto":
        how = _best(evidence, request)
    weights = (
        np.eye(len(views))[0]
        if how == PLAIN
        else _weights(evidence, how, request.budget, request.adaptive or request.plain)
    )
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
    """Return probabilities (n, classes), and how many views each image needs (n,)."""
    logits = evidence.logits[[evidence.views.index(view) for view in merge.views]]
    merged = merge.merged(logits)
    if merge.threshold is None:
        return merged, np.full(merged.shape[0], len(merge.weights))
    further = merge.needs_more_views(logits[0])
    return np.where(further[:, None], merged, softmax(logits[0])), np.where(further, len(merge.weights), 1)


def nested_view_scores(evidence: OOFViews, request: MergeConfig) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return each part's rows merged as the other parts say: probabilities (n, classes), and views used (n,); nothing saw its own labels."""
    probabilities, views = np.empty(evidence.logits.shape[1:]), np.empty(len(evidence.labels), np.int64)
    for mine in evidence.parts():
        probabilities[mine], views[mine] = apply(fit(evidence.take(~mine), request), evidence.take(mine))
    return probabilities, views


def _best(evidence: OOFViews, request: MergeConfig) -> str:
    """Return the way to merge with the highest nested score; the simpler among equals."""
    scores = {PLAIN: METRIC(evidence.labels, softmax(evidence.logits[0]))}
    for how in MERGES[:-1]:
        scores[how] = METRIC(
            evidence.labels, nested_view_scores(evidence, replace(request, how=how, adaptive=False))[0]
        )
    return max(scores, key=lambda how: scores[how])


def _weights(evidence: OOFViews, how: str, budget: int | None, plain: bool) -> NDArray[np.float64]:
    """Return (views,) or (views, classes), 0 for a view that is not used."""
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
    """Return (views,) how often each view is taken, one after the other, whichever lowers the log loss most (Caruana et al., 2004).

    Log loss, because it says something about every row; the score that is reported may move by single rows.

    Parameters
    ----------
    limit : of different views.
    again : a view may be taken more than once, `STEPS` in all.
    """
    index, geometric = np.arange(len(evidence.labels)), how == "geometric"
    # Of the arithmetic mean only the probability of the true class matters.
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
    """Return (views, classes) weights of least log loss, held near those of all classes: the rarer a class, the nearer.

    Gradient descent (Adam) on the logarithms of the weights, with a normal prior of deviation `SPREAD` about the shared ones.
    """
    used = np.flatnonzero(shared)
    n, classes = evidence.logits.shape[1:]
    index, labels = np.arange(n), evidence.labels
    # A matrix product a class is the quickest way to weigh.
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
    whole = np.zeros((len(shared), classes))
    whole[used] = softmax(theta).T
    return whole


def fit_threshold(
    plain: NDArray[np.floating], full: NDArray[np.floating], labels: NDArray[np.int64], tolerance: float = TOLERANCE
) -> float:
    """Return the smallest margin of the plain image below which further views are made.

    With it, and with any larger one, the score is within `tolerance` of that of all views for all images: a smaller one
    that happens to score as well by the luck of few rows is not taken.

    Parameters
    ----------
    plain, full : (n, classes) probabilities of the plain image and of all views.
    labels : (n,) class indices.
    """
    margin = margins(plain)
    before, after = argmax_classes(full), argmax_classes(plain)
    # Only these rows move the score; one after the other, the surest first, they are left to the plain image.
    moved = np.flatnonzero(before != after)
    moved = moved[np.argsort(-margin[moved], kind="stable")]
    step, right = np.arange(len(moved)), labels[moved]
    change = np.zeros((len(moved), 3, np.shape(plain)[1]), np.int64)
    change[step, 0, right] = (after[moved] == right).astype(int) - (before[moved] == right)
    change[step, 2, after[moved]] = 1
    change[step, 2, before[moved]] = -1
    assert METRIC.from_counts is not None  # noqa: S101 - macro F1 is made of counts
    whole = confusion_counts(labels, before, np.shape(plain)[1])
    scores = METRIC.from_counts(whole + change.cumsum(axis=0)) if len(moved) else np.zeros(0)
    worse = np.flatnonzero(scores < METRIC.from_counts(whole) - tolerance - 1e-12)
    if not len(worse):
        return 0.0
    first = int(worse[0])
    above = margin[moved[first - 1]] if first else 1.0
    # Between the row that must have its views and the next that need not: as far from one as from the other.
    return float((margin[moved[first]] + above) / 2)
