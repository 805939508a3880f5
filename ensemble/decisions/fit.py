"""Fit decision rules to out-of-fold predictions, and score them nested over people; numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ensemble.decisions.abstention import NEVER, confidence_of, fit_abstention
from ensemble.decisions.decision import set_members
from ensemble.decisions.labels import ABSTAINED, Aim, LabelRule, fit_labels, plain_rule
from ensemble.decisions.rows import LabeledRows, uniform_of
from ensemble.decisions.sets import ANY_IMAGE, LAC, SetRule, fit_sets
from folds.errors import EnsembleError

_CALIBRATION = "calibration of "  # before an id: the random part of a score is independent of that of a new image


@dataclass(frozen=True, eq=False)
class RuleRequest:
    """What is asked for.

    Attributes
    ----------
    aims : thresholds; () for none.
    costs : (classes, decisions); None for none.
    abstain : the error of what is answered; None to answer all.
    sets : the level of prediction sets; None for none.
    target, score : of the sets.
    confidence : with which guaranteed aims hold; 0 for observed values.
    """

    aims: tuple[Aim, ...] = ()
    costs: NDArray[np.float64] | None = None
    abstain: float | None = None
    sets: float | None = None
    target: str = ANY_IMAGE
    score: str = LAC
    confidence: float = 0.9

    @property
    def error(self) -> float:
        """Return the accepted probability that a guaranteed aim does not hold; 0 for observed values."""
        return 1 - self.confidence if self.confidence > 0 else 0.0


@dataclass(frozen=True, eq=False)
class FittedRules:
    """Fitted rules; `statuses` has how each aim was reached, and `threshold` is None to answer all."""

    labels: LabelRule | None
    statuses: tuple[str, ...]
    threshold: float | None
    sets: SetRule | None


@dataclass(frozen=True, eq=False)
class UnseenDecisions:
    """The decisions for each row by rules that were fitted without its person.

    Attributes
    ----------
    decided : (n,) class indices before abstention; −1 where no answer has the smallest expected cost.
    answered : (n,) bool.
    confidence : (n,).
    sets : (n, classes) bool, or None.
    """

    decided: NDArray[np.int64]
    answered: NDArray[np.bool_]
    confidence: NDArray[np.float64]
    sets: NDArray[np.bool_] | None


def fit_rules(rows: LabeledRows, request: RuleRequest) -> FittedRules:
    """Return the rules fitted to all rows: the labels, then the confidence for these labels; and the sets."""
    rule: LabelRule | None = None
    statuses: tuple[str, ...] = ()
    if request.costs is not None:
        rule = LabelRule("costs", rows.classes, np.full(len(rows.classes), np.nan), request.costs)
    elif request.aims:
        rule, statuses = fit_labels(rows, request.aims, request.error)
    threshold = sets = None
    if request.abstain is not None:
        decided = (rule or plain_rule(rows.classes)).decide(rows.probabilities)
        confidence, wrong = confidence_of(rows.probabilities, decided), decided != rows.labels
        found = fit_abstention(confidence, wrong, decided >= 0, rows.persons, rows.draw, request.abstain, request.error)
        threshold = NEVER if found is None else found
    if request.sets is not None:
        uniform = uniform_of(np.char.add(_CALIBRATION, rows.ids))
        sets = fit_sets(
            rows.probabilities, rows.labels, rows.persons, uniform, request.sets, request.target, request.score
        )
    return FittedRules(rule, statuses, threshold, sets)


def apply_rules(rules: FittedRules, rows: LabeledRows) -> UnseenDecisions:
    """Return the decisions of fitted rules for other rows."""
    decided = (rules.labels or plain_rule(rows.classes)).decide(rows.probabilities)
    confidence = confidence_of(rows.probabilities, decided)
    answered = decided != ABSTAINED
    if rules.threshold is not None:
        answered &= confidence >= rules.threshold
    sets = None
    if rules.sets is not None:
        sets = set_members(rules.sets, rows.probabilities, uniform_of(rows.ids), decided)
    return UnseenDecisions(decided, answered, confidence, sets)


def nested_decisions(rows: LabeledRows, request: RuleRequest) -> tuple[UnseenDecisions, tuple[FittedRules, ...]]:
    """Return the decisions for each outer fold by rules that were fitted to the other ones, and these rules.

    Raises
    ------
    EnsembleError : all rows are in one outer fold, so no rule can be scored on people who were not used to fit it.
    """
    parts = np.unique(rows.parts)
    if len(parts) < 2:
        raise EnsembleError(
            "decision rules need two people or more, found one",
            hint="name the person of each image: a column of the table, or `groups` of decide() for arrays",
        )
    n, classes = rows.probabilities.shape
    decided, answered = np.zeros(n, np.int64), np.zeros(n, bool)
    confidence, fitted = np.zeros(n), []
    sets = np.zeros((n, classes), bool) if request.sets is not None else None
    for part in parts:
        inside = np.flatnonzero(rows.parts == part)
        fitted.append(fit_rules(rows.take(np.flatnonzero(rows.parts != part)), request))
        found = apply_rules(fitted[-1], rows.take(inside))
        decided[inside], answered[inside], confidence[inside] = found.decided, found.answered, found.confidence
        if sets is not None and found.sets is not None:
            sets[inside] = found.sets
    return UnseenDecisions(decided, answered, confidence, sets), tuple(fitted)
