"""Say how the scores of a report came about, for the methods of a paper: only what its files say; the rest is a gap."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ensemble.report.evidence.scoring import direction, labeled
from ensemble.report.method.column_facts import answers_of
from ensemble.report.method.method_data import DataFacts
from ensemble.report.method.method_models import ModelFacts
from ensemble.report.method.method_runs import to_state
from ensemble.report.method.method_split import SplitFacts
from folds.metrics.custom import metric_of
from folds.metrics.resampling import N_RESAMPLES


@dataclass(frozen=True, eq=False)
class Facts(DataFacts, SplitFacts, ModelFacts):
    """Sentences about the methods, each a complete text; "" where a subject does not apply."""

    def metrics(self) -> str:
        """Return the metric, and what is averaged before it."""
        if not self.is_scored:
            return to_state("metrics")
        metric = metric_of(self.evidence.metric)
        what = answers_of(self.evidence.task)
        each = f", after averaging the {what} of each person's images" if self.evidence.per_person else ""
        return f"The main metric was {metric.title}{direction(metric)}{each}."

    def intervals(self) -> str:
        """Return how the confidence intervals and the differences are made."""
        if not self.is_scored:
            return to_state("how confidence intervals were computed")
        unit, metric = self._unit_of_intervals(), metric_of(self.evidence.metric)
        if metric.function is not None:
            how = f"a bootstrap over {unit} (up to {N_RESAMPLES:,} resamples)"
        elif metric.ranking is not None and metric.ranking.bounds is not None and len(self.evidence.classes) == 2:
            how = (
                f"a jackknife over {unit} (Tukey, 1958) with Student's t, whose bounds are taken at the quantile that "
                "is the threshold of the metric"
            )
        else:
            scale = ", on the logit scale" if math.isfinite(metric.upper_bound - metric.lower_bound) else ""
            how = f"a jackknife over {unit} (Tukey, 1958) with Student's t{scale}"
        return (
            f"95% confidence intervals (CIs) were computed by {how}.{self._comparisons()} The CIs do not cover the "
            "choice of the training seed."
        )

    def _unit_of_intervals(self) -> str:
        parts = [part for part in (labeled(self.evidence.oof), labeled(self.evidence.test)) if part is not None]
        known = {part.persons_known for part in parts}
        if len(known) == 1:
            return "people" if True in known else "images, because people are not known"
        without = next("out of fold" if one.name == "oof" else "of the test" for one in parts if not one.persons_known)
        return f"people ({without} over images, because people are not known there)"

    def _comparisons(self) -> str:
        members = max(len(part.members) for part in (self.evidence.oof, self.evidence.test) if part is not None)
        if members < 2:
            return ""
        corrected = ", with the Bonferroni correction for several comparisons" if members > 2 else ""
        by_function = metric_of(self.evidence.metric).function is not None
        same = "bootstrap" if by_function else "jackknife on the scale of the metric"
        return f" Models were compared by paired differences, by the same {same}{corrected}."
