"""Say what decision rules are worth on people who were not used to fit them, and what is guaranteed; numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ensemble.decisions.abstention import NEVER, area_interval
from ensemble.decisions.decision import Decided
from ensemble.decisions.fit import FittedRules, RuleRequest, UnseenDecisions
from ensemble.decisions.labels import (
    COSTS,
    GUARANTEED,
    MACRO_F1,
    NO_PROMISE,
    OBSERVED,
    ROUNDER,
    UNREACHABLE,
    Aim,
    class_shares,
    missing_evidence,
)
from ensemble.decisions.record import MeasuredValue, RuleRecord
from ensemble.decisions.rounder import GRADE_ERROR, rounder_metric
from ensemble.decisions.rows import LabeledRows, mean_interval, person_shares, share_interval, sums_by_person
from ensemble.decisions.sets import ALL_IMAGES, ANY_IMAGE, EACH_CLASS, EVERYTHING, people_for_sets
from folds.metrics.classification import METRICS
from folds.metrics.grades import decided_as
from folds.metrics.intervals import Interval, interval_over_people
from folds.metrics.scored_units import known_rows


def records_of(
    rows: LabeledRows, request: RuleRequest, rules: FittedRules, unseen: UnseenDecisions
) -> dict[str, RuleRecord]:
    """Return rule → how it was fitted, what is guaranteed, and its nested scores.

    Parameters
    ----------
    rules : fitted to all rows.
    unseen : nested decisions.
    """
    found = {}
    if rules.labels is not None:
        found["labels"] = _label_record(rows, request, rules, unseen)
    if request.abstain is not None:
        found["abstention"] = _abstention_record(rows, request, rules, unseen)
    if rules.sets is not None and unseen.sets is not None:
        found["sets"] = _sets_record(rows, rules, unseen.sets)
    return found


def _label_record(rows: LabeledRows, request: RuleRequest, rules: FittedRules, unseen: UnseenDecisions) -> RuleRecord:
    scores = []
    for aim in request.aims:
        if not aim.name:
            continue
        for measure, (part, whole) in class_shares(rows, unseen.decided, rows.classes.index(aim.name)).items():
            target = aim.value if aim.kind == measure else None
            scores.append(MeasuredValue(f"{measure} of {aim.name}", share_interval(part, whole), target))
    if request.costs is not None:
        scores += _cost_scores(rows, request.costs, unseen)
    scores += [score for aim in request.aims if aim.kind == ROUNDER for score in _grade_scores(rows, aim, unseen)]
    if (unseen.decided >= 0).all():
        metric = METRICS[MACRO_F1]
        for name, decided in (("macro F1", unseen.decided), ("macro F1 of argmax", rows.probabilities.argmax(axis=1))):
            interval = interval_over_people(metric, rows.labels, rows.probabilities, rows.persons, predicted=decided)
            scores.append(MeasuredValue(name, interval))
    aims = tuple(map(str, request.aims)) if request.aims else (COSTS,)
    statuses = rules.statuses
    if len(statuses) > 1:  # thresholds compete for images
        statuses = tuple(NO_PROMISE if status == GUARANTEED else status for status in statuses)
    return RuleRecord(aims, statuses or (NO_PROMISE,), _label_guarantee(rows, request, rules), tuple(scores))


def _grade_scores(rows: LabeledRows, aim: Aim, unseen: UnseenDecisions) -> list[MeasuredValue]:
    """Return the score that the cuts maximize and the mean error in grades, each also of the most probable class."""
    classes, plain, found = len(rows.classes), rows.probabilities.argmax(axis=1), []
    for metric in dict.fromkeys((rounder_metric(aim.metric), METRICS[GRADE_ERROR])):
        if metric.name == MACRO_F1:  # follows anyway
            continue
        for name, decided in ((metric.title, unseen.decided), (f"{metric.title} of argmax", plain)):
            interval = interval_over_people(metric, rows.labels, decided_as(decided, classes), rows.persons)
            found.append(MeasuredValue(name, interval))
    return found


def _cost_scores(rows: LabeledRows, costs: NDArray[np.float64], unseen: UnseenDecisions) -> list[MeasuredValue]:
    """Return the mean cost of an image of a random person, and that of the most probable class."""
    # The index −1 of an image without an answer is the last column, its cost.
    own = costs[rows.labels, unseen.decided]
    plain = costs[rows.labels, rows.probabilities.argmax(axis=1)]
    scores = [
        MeasuredValue(name, mean_interval(sums_by_person(values * rows.weights, rows.persons, rows.people), lower=0.0))
        for name, values in (("mean cost", own), ("mean cost of argmax", plain))
    ]
    if (unseen.decided < 0).any():
        scores.append(MeasuredValue("answered", _share(rows, unseen.decided >= 0)))
    return scores


def _label_guarantee(rows: LabeledRows, request: RuleRequest, rules: FittedRules) -> str:
    texts = []
    for aim, status in zip(request.aims, rules.statuses, strict=bool(rules.statuses)):
        if status == GUARANTEED and len(request.aims) > 1:
            texts.append(f"{aim}: measured, not guaranteed, because several thresholds compete for an image")
        elif status == GUARANTEED:
            texts.append(
                f"{aim}: holds with {request.confidence:.0%} confidence for a random image of a random new person"
            )
        elif status == OBSERVED and request.error > 0:
            texts.append(f"{aim}: not guaranteed. {missing_evidence(rows, aim, request.error)}")
        elif status == OBSERVED:
            texts.append(f"{aim}: reached in the observed data only; new people may be below it as often as above")
        elif status == UNREACHABLE:
            texts.append(f"{aim}: not reachable with any threshold; the nearest one was taken")
    return "; ".join(texts) or "nothing is guaranteed; the nested scores are measured"


def _abstention_record(
    rows: LabeledRows, request: RuleRequest, rules: FittedRules, unseen: UnseenDecisions
) -> RuleRecord:
    wrong, limit = unseen.decided != rows.labels, request.abstain
    assert limit is not None  # noqa: S101 - the caller checks it
    scores = [
        MeasuredValue("error of answers", _share(rows, wrong, unseen.answered), limit, at_least=False),
        MeasuredValue("answered", _share(rows, unseen.answered)),
        MeasuredValue("error without abstention", _share(rows, wrong, unseen.decided >= 0)),
        MeasuredValue("AURC", area_interval(unseen.confidence, wrong, rows.persons)),
    ]
    if rules.threshold == NEVER:
        status = UNREACHABLE
        text = (
            f"no confidence is shown to keep the error of answers at {limit:g} "
            + (f"with {request.confidence:.0%} confidence" if request.error > 0 else "in these data")
            + ": nothing is answered"
        )
    elif request.error > 0:
        status = GUARANTEED
        text = (
            f"with {request.confidence:.0%} confidence, at most {limit:.3g} of the answers for random images of random "
            f"new people are wrong"
        )
        if request.aims and any(aim.kind != "given" for aim in request.aims):
            status, text = OBSERVED, f"measured, because the thresholds were fitted to the same people: {text}"
    else:
        status, text = OBSERVED, "reached in the observed data only; new people may be above it as often as below"
    return RuleRecord((f"error<={limit:g}",), (status,), text, tuple(scores))


def _sets_record(rows: LabeledRows, rules: FittedRules, sets: NDArray[np.bool_]) -> RuleRecord:
    rule = rules.sets
    assert rule is not None  # noqa: S101 - the caller checks it
    inside = sets[np.arange(len(rows)), rows.labels]
    size, people = sets.sum(axis=1), rows.people
    every = np.bincount(rows.persons, ~inside, people) == 0
    target = {one: rule.level if rule.target == one else None for one in (ANY_IMAGE, ALL_IMAGES, EACH_CLASS)}
    scores = [
        MeasuredValue("coverage of an image", _share(rows, inside), target[ANY_IMAGE]),
        MeasuredValue(
            "coverage of all images of a person",
            share_interval(every.astype(float), np.ones(people)),
            target[ALL_IMAGES],
        ),
        MeasuredValue(
            "mean set size", mean_interval(sums_by_person(size * rows.weights, rows.persons, people), lower=0.0)
        ),
        MeasuredValue("sets of one class", _share(rows, size == 1)),
    ]
    for column, name in enumerate(rows.classes if rule.target == EACH_CLASS else ()):
        scores.append(MeasuredValue(f"coverage of {name}", _share(rows, inside, rows.labels == column), rule.level))
    trivial = [
        name for name, limit in zip(_limit_names(rows, rule.target), rule.limits, strict=True) if limit >= EVERYTHING
    ]
    what = {
        ANY_IMAGE: "a random image of a new person",
        ALL_IMAGES: "all images of a new person at once",
        EACH_CLASS: "a random image of each class of a new person",
    }[rule.target]
    text = f"on average, the set holds the true class with a probability of at least {rule.level:.3g}, for {what}"
    if trivial:
        text += (
            f"; too few people for {', '.join(trivial[:5])}: below {people_for_sets(rule.level)} people the set is "
            "every class"
        )
    status = UNREACHABLE if len(trivial) == len(rule.limits) else GUARANTEED
    return RuleRecord((f"coverage>={rule.level:g} for {rule.target} by {rule.score}",), (status,), text, tuple(scores))


def _limit_names(rows: LabeledRows, target: str) -> list[str]:
    return [f"the class '{name}'" for name in rows.classes] if target == EACH_CLASS else ["all classes"]


def measured_on(decided: Decided, labels: NDArray[np.int64], persons: NDArray[np.str_]) -> list[MeasuredValue]:
    """Return what decisions achieve on labeled rows that the rules were not fitted to, over people.

    Parameters
    ----------
    labels : (n,) class indices, −1 where one is not known.
    persons : (n,) the person of each row.

    Returns
    -------
    [] if no label is known.
    """
    known = known_rows(labels)
    if not known.any():
        return []
    codes = np.unique(persons, return_inverse=True)[1].astype(np.int64)
    people, wrong = int(codes.max()) + 1, decided.codes != labels
    decision = decided.decision

    def share(what: NDArray[np.bool_], among: NDArray[np.bool_]) -> Interval:
        return share_interval(*person_shares(what, among, codes, people))

    answers = decided.answered & known
    found = [MeasuredValue("error of answers", share(wrong, answers), decision.error, at_least=False)]
    if not decided.answered[known].all():
        found.append(MeasuredValue("answered", share(decided.answered, known)))
    if decided.sets is not None and decision.sets is not None:
        inside = decided.sets[np.arange(len(labels)), labels]
        target = decision.sets.level if decision.sets.target == ANY_IMAGE else None
        found.append(MeasuredValue("coverage of an image", share(inside, known), target))
    return found


def _share(rows: LabeledRows, what: NDArray[np.bool_], among: NDArray[np.bool_] | None = None) -> Interval:
    """Return the mean over people of the share of `what` in the person's rows, or in those that are `among`."""
    inside = np.ones(len(rows), bool) if among is None else among
    return share_interval(*person_shares(what, inside, rows.persons, rows.people))
