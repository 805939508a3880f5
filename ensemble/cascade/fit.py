"""Fit a cascade to predictions of people whom no model has seen, and score it by nested cross-validation; numpy only.

Out of fold, an image has one unseen model per run, so what is lost by leaving out runs and views is measured there,
with labels. What is lost by leaving out fold models is measured on images that no model has seen (the test images),
without labels: by how much less probable the decisions of the cascade are than those of the full blend.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ensemble.cascade.combine import Combiner, Floats, check_combination, used_runs
from ensemble.cascade.predictions import CascadeEvidence, full_blend, out_of_fold, regret_of, replay
from ensemble.cascade.record import Cascade
from ensemble.cascade.run import CascadeResult, RowIndex
from ensemble.cascade.search import search
from ensemble.learning.combination import Combination
from ensemble.learning.nested import outer_fold_ids
from folds.errors import UsageError
from folds.metrics.classification import Metric
from folds.metrics.intervals import Difference, Interval, difference_over_people, interval_over_people

# (loss while fitting, raise of the thresholds): thresholds that lose little where they were fitted may lose more of
# other people, so stricter ones are tried until the nested loss is within the tolerance.
_STRICTER = ((0.0, 0.0), (0.0, 0.2), (0.0, 0.4), (0.0, 0.6), (0.0, 0.8))


@dataclass(frozen=True)
class CascadeScore:
    """What a cascade costs and saves; every person is predicted by a cascade that was fitted without them.

    Attributes
    ----------
    full, cascade : nested out-of-fold score of the blend, and of the cascade, with one fold model per run.
    difference : cascade − full, paired over people.
    images : number of unseen images; 0 if there are none, and then the next values are unknown (None).
    passes, all_passes : forward passes per unseen image of the cascade and of the full blend.
    cost_share : share of the cost of the full blend.
    agreement : share of unseen images that the cascade and the full blend decide alike.
    expected_loss : loss of accuracy on them by the probabilities of the full blend, without labels.
    test : difference of the scores of unseen images with labels.
    greater_is_better : the direction of the metric.
    out_of_sample : (n, classes) the out-of-fold predictions of the full blend and of the cascade that are scored.
    unseen : (images, classes) the same of the unseen images, in their order; None without any.
    """

    full: Interval
    cascade: Interval
    difference: Difference
    images: int
    passes: float | None
    all_passes: int
    cost_share: float | None
    agreement: float | None
    expected_loss: float | None
    test: Difference | None
    greater_is_better: bool = True
    out_of_sample: tuple[Floats, Floats] = field(default=(np.zeros(0), np.zeros(0)), repr=False, compare=False)
    unseen: tuple[Floats, Floats] | None = field(default=None, repr=False, compare=False)

    @property
    def loss(self) -> float:
        """Return the larger loss: of the out-of-fold score, and of the expected accuracy on unseen images."""
        change = self.difference.difference.value
        return max(-change if self.greater_is_better else change, self.expected_loss or 0.0)

    def to_dict(self) -> dict[str, object]:
        """Return plain values."""
        return {
            "full": self.full.to_dict(),
            "cascade": self.cascade.to_dict(),
            "difference": self.difference.to_dict(),
            "images": self.images,
            "passes": self.passes,
            "all_passes": self.all_passes,
            "cost_share": self.cost_share,
            "agreement": self.agreement,
            "expected_loss": self.expected_loss,
            "test": None if self.test is None else self.test.to_dict(),
        }


@dataclass(frozen=True)
class FittedCascade:
    """A cascade, fitted on all people, its nested score, and what a reader must know about it."""

    cascade: Cascade
    score: CascadeScore
    notes: tuple[str, ...] = ()


def fit_cascade(
    evidence: CascadeEvidence,
    combination: Combination,
    parts: Mapping[int, Combination],
    metric: Metric,
    *,
    tolerance: float | None,
    costs: Mapping[str, float],
    ranking: Sequence[str] = (),
) -> FittedCascade:
    """Return the cascade with the smallest cost that loses at most `tolerance`, and its nested score.

    Parameters
    ----------
    combination : fitted on all people; its runs are those of the evidence.
    parts : outer fold → the combination fitted without it.
    metric : metric of the tolerance; where it counts decisions, only those that become wrong count, so that lucky ones
        cannot pay for them.
    tolerance : largest loss of the score; None for exact skips only, which never change a decision.
    costs : run → cost of one forward pass.

    Raises
    ------
    UsageError : the combination compares images with each other, or there is only one pass per image.
    """
    check_combination(combination)
    if tolerance is not None and not 0 <= tolerance <= 1:
        raise UsageError(f"`cascade={tolerance:g}`: expected a loss of the score from 0 to 1, or exact")
    total = sum(one.folds * one.views for one in evidence.runs if one.name in used_runs(combination))
    if total < 2:
        raise UsageError("a cascade needs two or more forward passes per image", hint="use all models (no cascade)")
    procedure = _Procedure(evidence, combination, parts, metric, costs, tuple(ranking), total)
    closest: CascadeScore | None = None
    for stricter, raised in () if tolerance is None else dict.fromkeys(((tolerance, 0.0), *_STRICTER)):
        if stricter > (tolerance or 0.0):
            continue
        score = procedure.nested(stricter, raised)
        if score.loss <= (tolerance or 0.0) + 1e-9:
            return FittedCascade(replace(procedure.fit(stricter, raised), tolerance=tolerance), score)
        closest = score if closest is None or score.loss < closest.loss else closest
    exact = FittedCascade(replace(procedure.fit(None), tolerance=tolerance), procedure.nested(None))
    if closest is None:
        return exact
    note = (
        f"no cascade loses at most {tolerance:g} {metric.title} of people it was not fitted to (the closest one loses "
        f"{closest.loss:.4f}): models are skipped only where they cannot change the decision"
    )
    return replace(exact, notes=(note,))


class _Procedure:
    """Fit cascades to all people and without each outer fold, and score them; fits are kept."""

    def __init__(
        self,
        evidence: CascadeEvidence,
        combination: Combination,
        parts: Mapping[int, Combination],
        metric: Metric,
        costs: Mapping[str, float],
        ranking: tuple[str, ...],
        total: int,
    ) -> None:
        self.evidence, self.combination, self.metric = evidence, combination, metric
        self.costs, self.ranking, self.total = costs, ranking, total
        self.parts = {part: parts.get(part, combination) for part in np.unique(evidence.parts).tolist()}
        self.unseen_parts: NDArray[np.int64] | None = None
        if evidence.unseen is not None:
            one_class = np.zeros(len(evidence.unseen), np.int64)
            self.unseen_parts = outer_fold_ids(evidence.unseen.persons, one_class, None, max(2, len(self.parts)))
        self.known: dict[tuple[float | None, int | None], Cascade] = {}

    def fit(self, tolerance: float | None, raised: float = 0.0, part: int | None = None) -> Cascade:
        """Return the cascade fitted to all people, or without an outer fold; see `with_raised`."""
        if (tolerance, part) not in self.known:
            some, combination = self.evidence, self.combination
            if part is not None:
                number = list(self.parts).index(part)
                others = None if self.unseen_parts is None else np.flatnonzero(self.unseen_parts != number)
                some = some.take(np.flatnonzero(some.parts != part), others)
                combination = self.parts[part]
            found = search(some, combination, tolerance, self.metric, self.costs, self.ranking)
            self.known[tolerance, part] = found
        return with_raised(self.known[tolerance, part], raised)

    def nested(self, tolerance: float | None, raised: float = 0.0) -> CascadeScore:
        """Return the score of cascades that were fitted without each outer fold in turn."""
        evidence, unseen = self.evidence, self.evidence.unseen
        shape = (len(evidence.labels), evidence.full.shape[2])
        full, out = np.zeros(shape), np.zeros(shape)
        found: list[tuple[RowIndex, CascadeResult, Floats]] = []
        for number, (part, own) in enumerate(self.parts.items()):
            fitted, combiner = self.fit(tolerance, raised, part), Combiner(own, self.ranking)
            inside = np.flatnonzero(evidence.parts == part)
            full[inside], out[inside] = out_of_fold(evidence.take(inside, None), fitted, combiner)
            here = None if self.unseen_parts is None else np.flatnonzero(self.unseen_parts == number)
            if unseen is not None and here is not None and len(here):
                some = unseen.take(here)
                found.append((here, replay(fitted, combiner, evidence.runs, some), full_blend(some, combiner)))
        return _score(evidence, self.combination, full, out, found, self.metric, self.costs, self.total)


def with_raised(cascade: Cascade, share: float) -> Cascade:
    """Return the cascade with every threshold moved up by this share of its distance to 1."""
    steps = [replace(step, threshold=step.threshold + share * max(1 - step.threshold, 0)) for step in cascade.steps]
    return replace(cascade, steps=tuple(steps))


def _score(
    evidence: CascadeEvidence,
    combination: Combination,
    full: Floats,
    out: Floats,
    found: Sequence[tuple[RowIndex, CascadeResult, Floats]],
    metric: Metric,
    costs: Mapping[str, float],
    total: int,
) -> CascadeScore:
    labels, persons = evidence.labels, evidence.persons
    scores = [interval_over_people(metric, labels, values, persons) for values in (full, out)]
    change = difference_over_people(metric, labels, full, out, persons)
    if not found:
        up = metric.greater_is_better
        return CascadeScore(scores[0], scores[1], change, 0, None, total, None, None, None, None, up, (full, out))
    unseen = evidence.unseen
    assert unseen is not None  # noqa: S101 - `found` is of these
    rows = np.concatenate([some for some, _, _ in found])
    before = np.concatenate([values for _, _, values in found])
    after = np.concatenate([result.probabilities for _, result, _ in found])
    whole = sum(
        one.folds * one.views * costs.get(one.name, 1.0) for one in evidence.runs if one.name in used_runs(combination)
    )
    test = None
    if unseen.labels is not None and (unseen.labels >= 0).any():
        known = unseen.labels[rows] >= 0
        test = difference_over_people(
            metric, unseen.labels[rows][known], before[known], after[known], unseen.persons[rows][known]
        )
    return CascadeScore(
        scores[0],
        scores[1],
        change,
        len(rows),
        float(np.concatenate([result.passes for _, result, _ in found]).mean()),
        total,
        sum(float(result.costs.sum()) for _, result, _ in found) / (whole * len(rows)),
        float((before.argmax(1) == after.argmax(1)).mean()),
        float(regret_of(before, after.argmax(1)).mean()),
        test,
        metric.greater_is_better,
        (full, out),
        (before[np.argsort(rows)], after[np.argsort(rows)]),
    )
