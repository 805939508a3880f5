"""Score what can predict in place of a blend, on the people whom it has not seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.cascade.combine import Combiner, used_runs
from ensemble.cascade.evidence import Loaded
from ensemble.cascade.fit import FittedCascade
from ensemble.cascade.predictions import CascadeEvidence, full_blend
from ensemble.prediction.costs_table import CostRow
from ensemble.prediction.source import PredictionSource
from folds.metrics.classification import Metric
from folds.metrics.intervals import difference_over_people, interval_over_people
from folds.predictions.predictions import Predictions

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class CostPart:
    """A way to predict that exists, with what is known before it is measured."""

    row: CostRow
    source: PredictionSource
    job: dict[str, Any] = field(default_factory=dict)


class PartScores:
    """The predictions that scores are made of, in the rows of the evidence."""

    def __init__(self, source: PredictionSource, loaded: Loaded, fitted: FittedCascade) -> None:
        self.source, self.evidence, self.metric = source, loaded.evidence, loaded.metric
        self.names = list(source.combination.runs)
        evidence, unseen = self.evidence, self.evidence.unseen
        everything = np.arange(len(evidence.labels))
        used = used_runs(source.combination)
        self.best = self.names[_best(evidence, self.metric, everything, [self.names.index(name) for name in used])]
        at = self.names.index(self.best)
        chosen = np.zeros(len(everything), np.int64)  # the best run of the people of the other parts
        for part in np.unique(evidence.parts):
            rest = np.flatnonzero(evidence.parts != part)
            chosen[evidence.parts == part] = _best(
                evidence, self.metric, rest, [self.names.index(name) for name in used]
            )
        self.plain = evidence.first[chosen, everything], None if unseen is None else unseen.first[at].mean(axis=0)
        self.views = evidence.full[chosen, everything], None if unseen is None else unseen.full[at].mean(axis=0)
        tests = fitted.score.unseen
        combiner = Combiner(source.combination, source.ranking)
        self.full = (
            fitted.score.out_of_sample[0],
            None if unseen is None else full_blend(unseen, combiner),
        )
        self.cascade = fitted.score.out_of_sample[1], None if tests is None else tests[1]
        self.at = at

    def best_fold(self) -> int:
        """Return the fold model of the best run with the best score of its own people, as is usually taken."""
        evidence, sign = self.evidence, 1 if self.metric.greater_is_better else -1
        run = next(one for one in self.source.runs if one.name == self.best)
        scores = []
        for model in run.models:
            rows = np.flatnonzero(evidence.parts == model.checkpoint.fold)
            found = self.metric(evidence.labels[rows], evidence.first[self.at, rows]) if len(rows) else -np.inf
            scores.append(sign * found)
        return int(np.argmax(scores))

    def part(
        self,
        name: str,
        what: str,
        predicted: tuple[Floats | None, Floats | None],
        source: PredictionSource,
        passes: float | None,
        job: Mapping[str, Any],
    ) -> CostPart:
        """Return a row with its scores; of the best fold, the test score is that of its own predictions."""
        oof, test = predicted
        unseen, evidence = self.evidence.unseen, self.evidence
        if name == "best fold" and unseen is not None:
            test = unseen.first[self.at][self.best_fold()]
        score = difference = None
        if oof is not None:
            score = interval_over_people(self.metric, evidence.labels, oof, evidence.persons)
            if name != "full blend":
                difference = difference_over_people(self.metric, evidence.labels, self.full[0], oof, evidence.persons)
        on_test = None
        if test is not None and unseen is not None and unseen.labels is not None:
            known = unseen.labels >= 0
            if known.any():
                on_test = interval_over_people(self.metric, unseen.labels[known], test[known], unseen.persons[known])
        size = sum({model.path: model.path.stat().st_size for model in source.models}.values()) / 1e6
        return CostPart(CostRow(name, what, score, difference, on_test, passes, None, size), source, dict(job))

    def aligned(self, found: Predictions | None, ids: Sequence[str]) -> Floats | None:
        """Return (n, classes) predictions in the rows and classes of the evidence; None if a row is missing."""
        if found is None or set(found.classes) != set(self.source.classes):
            return None
        at = {name: row for row, name in enumerate(found.ids.tolist())}
        if not ids or any(name not in at for name in ids):
            return None
        columns = [found.classes.index(name) for name in self.source.classes]
        values: Floats = found.probabilities[[at[name] for name in ids]][:, columns]
        return values

    def test_ids(self) -> Sequence[str]:
        """Return the ids of the unseen images."""
        return () if self.evidence.unseen is None else self.evidence.unseen.ids


def _best(evidence: CascadeEvidence, metric: Metric, rows: NDArray[np.int64], runs: Sequence[int]) -> int:
    """Return the run with the best score on the first view."""
    sign = 1 if metric.greater_is_better else -1
    return max(runs, key=lambda run: sign * metric(evidence.labels[rows], evidence.first[run, rows]))
