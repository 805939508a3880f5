"""Choose what a report suggests to submit, and the simple choice that it is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ensemble.report.evidence import Evidence, Part, Predicted
from folds.metrics.classification import Metric
from folds.metrics.custom import metric_of
from folds.metrics.grouping import average_by_person
from folds.metrics.intervals import Difference, Interval, difference_over_people, interval_over_people
from folds.utils.text import counted

SAVED = "blend "  # the names of saved blends begin with it
ScoredArrays = tuple[NDArray[np.int64], tuple[NDArray[np.floating], ...], NDArray]


def scored_rows(part: Part, members: Sequence[Predicted], per_person: bool = False) -> ScoredArrays | None:
    """Return labels (n,), the probabilities of each member (n, classes) and persons (n,) of the rows with a label that
    all of these members predict; one row per person if `per_person`. None if there are no such rows.
    """
    kept = part.labels >= 0
    for one in members:
        kept = kept & one.present
    if not kept.any():
        return None
    labels, persons = part.labels[kept], part.persons[kept]
    values = [np.asarray(one.probabilities[kept]) for one in members]
    if not per_person or not part.persons_known:
        return labels, tuple(values), persons
    averaged = [average_by_person(labels, one, persons, one.shape[1]) for one in values]
    return averaged[0][0], tuple(one[1] for one in averaged), averaged[0][2]


def score_of(evidence: Evidence, part: Part | None, member: Predicted | None) -> Interval | None:
    """Return the score of a member with its interval over people; None without labels."""
    rows = None if part is None or member is None else scored_rows(part, [member], evidence.per_person)
    if rows is None:
        return None
    return interval_over_people(metric_of(evidence.metric), rows[0], rows[1][0], rows[2])


def difference_of(
    evidence: Evidence, part: Part | None, first: Predicted | None, second: Predicted | None
) -> Difference | None:
    """Return the paired difference second − first, on the rows that both predict; None without labels.

    People with a training label that either member changed are left out.
    """
    if part is None or first is None or second is None:
        return None
    kept = part.without_changed_labels((first, second))
    rows = None if kept is None else scored_rows(kept, [first, second], evidence.per_person)
    if rows is None:
        return None
    return difference_over_people(metric_of(evidence.metric), rows[0], rows[1][0], rows[1][1], rows[2])


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
    return [one for one in members if one.present[part.labels >= 0].all()] or list(members)


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
    part = evidence.oof if evidence.oof is not None and (evidence.oof.labels >= 0).any() else evidence.test
    if part is None or not part.members:
        return None, None
    metric = metric_of(evidence.metric)

    def best(names: Sequence[str]) -> str:
        ranked = _complete_ones(part, [one for one in part.members if one.name in names])
        rows = scored_rows(part, ranked, evidence.per_person)
        if rows is None or len(ranked) == 1:
            return ranked[0].name
        scores = [metric(rows[0], values) * (1 if metric.greater_is_better else -1) for values in rows[1]]
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
