"""Choose what a report suggests to submit, and the simple choice that it is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ensemble.report.evidence.evidence import Evidence, Part, Predicted
from ensemble.report.evidence.scoring import difference_of, scored_part
from folds.metrics.classification import Metric
from folds.metrics.custom import metric_of
from folds.metrics.intervals import Difference
from folds.utils.text import counted

SAVED = "blend "  # the names of saved blends begin with it


def left_out_text(part: Part, members: Sequence[Predicted]) -> str:
    """Return who is left out of the differences between these members because of changed labels; "" if no person is."""
    counts = changed_people(part, members)
    if not counts:
        return ""
    named = [f"`{name}`" for name in counts]
    listed = ", ".join(named[:5]) + (f" and {len(named) - 5} more" if len(named) > 5 else "")
    people = len(np.unique(part.persons[part.with_changed_labels(members)]))
    whom = (
        f"{counted(people, 'person', 'people')} of whom" if part.persons_known else f"{counted(people, 'image')} where"
    )
    return f", without {whom} {listed} changed training labels"


def changed_people(part: Part, members: Sequence[Predicted]) -> dict[str, int]:
    """Return member → the number of people of whom it changed training labels, of those that changed any."""
    found = {one.name: len(np.unique(part.persons[part.with_changed_labels((one,))])) for one in members}
    return {name: count for name, count in found.items() if count}


def ranked_with(part: Part, member: Predicted) -> list[Predicted]:
    """Return the members among which `member` is the best by the score: those of its kind that compete with it.

    Of blends these are the saved ones, if there are any. Members that do not predict all labeled rows compete only if
    none does.
    """
    alike = [one for one in part.members if one.kind == member.kind]
    if member.kind == "blend":
        alike = [one for one in alike if one.name.startswith(SAVED)] or alike
    return _complete_ones(part, alike)


def _complete_ones(part: Part, members: Sequence[Predicted]) -> list[Predicted]:
    """Return the members that predict all labeled rows; all members if none does."""
    return [one for one in members if one.present[part.has_label].all()] or list(members)


def is_worse(difference: Difference, metric: Metric) -> bool:
    """Return whether the second of two is significantly worse."""
    return difference.is_significant and (difference.difference.value < 0) == metric.greater_is_better


def is_better(difference: Difference, metric: Metric) -> bool:
    """Return whether the second of two is significantly better."""
    return difference.is_significant and not is_worse(difference, metric)


def choose(evidence: Evidence, preferred: Sequence[str] = ()) -> tuple[str | None, str | None]:
    """Return the names of the member to submit, and of the simple choice.

    The simple choice is the best single run by its out-of-fold score. Suggested is the blend, unless it is
    significantly worse than the simple choice: of several, a named one, then one that was saved, then the one with the
    best out-of-fold score. Without blends, views replace the simple choice only if they are significantly better.
    Members that do not predict all labeled rows are ranked only if none does, and then on the rows that all predict.

    Parameters
    ----------
    preferred : members that were named.
    """
    part = evidence.oof if evidence.oof is not None and evidence.oof.has_label.any() else evidence.test
    if part is None or not part.members:
        return None, None
    metric = metric_of(evidence.metric)

    def best(names: Sequence[str]) -> str:
        ranked = _complete_ones(part, [one for one in part.members if one.name in names])
        found = scored_part(part, ranked, evidence.per_person, evidence.task)
        if found is None or len(ranked) == 1:
            return ranked[0].name
        scores = [metric(found.labels, values) * (1 if metric.greater_is_better else -1) for values in found.values]
        return ranked[int(np.argmax(np.nan_to_num(scores, nan=-np.inf)))].name  # the first of equals

    runs = [one.name for one in part.members if one.kind == "run"]
    views = [one.name for one in part.members if one.kind == "tta"]
    blends = [one.name for one in part.members if one.kind == "blend"]
    simple = best(runs or views or blends)
    named = [name for name in blends if name in preferred]
    saved = [name for name in blends if name.startswith(SAVED)]
    candidates = named or saved or blends
    if candidates:
        chosen = best(candidates)
        found = difference_of(evidence, part, part.member(simple), part.member(chosen))
        return (simple if found is not None and is_worse(found, metric) else chosen), simple
    if views and runs:
        chosen = best(views)
        found = difference_of(evidence, part, part.member(simple), part.member(chosen))
        if found is not None and is_better(found, metric):
            return chosen, simple
    return simple, simple
