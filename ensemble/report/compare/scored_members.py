"""Score the members of a report: out of fold, on test people, and a fitted blend on the people of its fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ensemble.report.evidence.evidence import Evidence, Part, Predicted
from ensemble.report.evidence.scoring import score_of, scored_part
from folds.metrics.classification import Metric
from folds.metrics.custom import metric_of
from folds.metrics.intervals import Interval

MOST_ROWS = 30  # of a drawing; the tables have all members
KINDS = {"run": "run", "tta": "run with views", "blend": "blend"}


@dataclass(frozen=True)
class ScoredMember:
    """A member with its scores; None where it has no labeled rows."""

    name: str
    kind: str
    fitted: bool
    passes: float | None
    oof: Interval | None
    test: Interval | None
    in_sample: float | None
    images: int
    of_images: int
    selected: bool

    @property
    def score(self) -> Interval | None:
        """Return the out-of-fold score, or the test score if there is none."""
        return self.oof if self.oof is not None else self.test


def score_members(evidence: Evidence, oof: Part | None, test: Part | None) -> list[ScoredMember]:
    """Return all members, in the order of the user."""
    parts = [part for part in (oof, test) if part is not None]
    names = dict.fromkeys(one.name for part in parts for one in part.members)
    return [_score_member(evidence, name, oof, test) for name in names]


def _score_member(evidence: Evidence, name: str, oof: Part | None, test: Part | None) -> ScoredMember:
    inside, outside = (None if part is None else part.member(name) for part in (oof, test))
    one = inside or outside
    assert one is not None  # noqa: S101 - the name is that of a member
    in_sample, images, of_images = None, 0, 0
    if oof is not None and inside is not None:
        images, of_images = int((inside.present & oof.has_label).sum()), int(oof.has_label.sum())
        if inside.in_sample is not None:
            fit = Predicted(name, inside.kind, inside.in_sample, changed=inside.changed)
            found = scored_part(oof, [fit], evidence.per_person, evidence.task)
            in_sample = None if found is None else metric_of(evidence.metric)(found.labels, found.values[0])
    return ScoredMember(
        name,
        one.kind,
        inside is not None and inside.in_sample is not None,
        one.passes if one.passes is not None or outside is None else outside.passes,
        score_of(evidence, oof, inside),
        score_of(evidence, test, outside),
        in_sample,
        images,
        of_images,
        one.selected_on_validation,
    )


def best_first(members: Sequence[ScoredMember], metric: Metric) -> list[ScoredMember]:
    """Return the members, the best score first; those without a score last."""

    def rank(one: ScoredMember) -> float:
        if one.score is None or math.isnan(one.score.value):
            return math.inf
        return -one.score.value if metric.greater_is_better else one.score.value

    return sorted(members, key=rank)


def score_text(score: Interval | None) -> str | None:
    """Return a score with its interval as a cell."""
    return None if score is None else score.text()
