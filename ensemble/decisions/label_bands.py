"""Leave labels open between two cuts, for a stated error of yes and of no or for stated costs; numpy only.

A label is given from the higher cut on, not given below the lower one, and unsure between them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ensemble.decisions.abstention import NEVER
from ensemble.decisions.column_rows import LabeledColumns
from ensemble.decisions.costs import MAX_COST, calibration_warning, read_cost_table, source_of_costs
from ensemble.decisions.decision import Decision
from ensemble.decisions.evidence import lowest_threshold
from ensemble.decisions.label_columns import MIN_PEOPLE
from ensemble.decisions.label_decision import DecidedLabels, LabelDecision
from ensemble.decisions.label_report import LabelThresholds
from ensemble.decisions.labels import (
    ABSTAINED,
    GUARANTEED,
    MIN_THRESHOLD,
    NO_PROMISE,
    OBSERVED,
    THRESHOLDS,
    UNREACHABLE,
    LabelRule,
)
from ensemble.decisions.record import DecisionSource, MeasuredValue, RuleRecord
from ensemble.decisions.report import optimism_warning
from ensemble.decisions.rows import (
    IMAGE,
    PERSON,
    LabeledRows,
    mean_interval,
    person_shares,
    share_interval,
    sums_by_person,
)
from folds.errors import UsageError
from folds.metrics.intervals import Interval
from folds.metrics.label_scores import THRESHOLD, is_predicted
from folds.metrics.scored_units import known_rows
from folds.utils.numeric import factorize

FALSE_NO, FALSE_YES, ASK = "fn", "fp", "ask"  # in texts and files of costs
_FORM = f"LABEL:{FALSE_NO}=5,{FALSE_YES}=1 or LABEL:{FALSE_NO}=5,{FALSE_YES}=1,{ASK}=0.5"


@dataclass(frozen=True)
class LabelCosts:
    """What a false no, a false yes and an open label cost; nan if a label may not stay open."""

    false_no: float
    false_yes: float
    ask: float = math.nan

    def __str__(self) -> str:
        """Return the costs as they are typed."""
        text = f"{FALSE_NO}={self.false_no:g},{FALSE_YES}={self.false_yes:g}"
        return text if math.isnan(self.ask) else f"{text},{ASK}={self.ask:g}"

    def of(self, decided: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return (n,) the costs of decisions: 1, 0, or `ABSTAINED`."""
        wrong = np.where(labels == 1, self.false_no, self.false_yes) * (decided != labels)
        return np.where(decided == ABSTAINED, self.ask, wrong)


@dataclass(frozen=True)
class Band:
    """Two cuts: the label is given from `high` on, not given below `low`, and unsure between them.

    A `high` of `NEVER` gives it to no image, a `low` of 0 denies it to none.
    """

    low: float
    high: float

    def decide(self, probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return (n,) 1, 0, or `ABSTAINED`, for the probabilities (n,) of the label."""
        return np.where(probabilities >= self.high, 1, np.where(probabilities < self.low, 0, ABSTAINED))


def read_label_costs(
    given: str | Path | Mapping[str, Mapping[str, float]], names: Sequence[str]
) -> dict[str, LabelCosts]:
    """Return label → its costs; labels without costs are not there.

    Parameters
    ----------
    given : ``hat:fn=5,fp=1,ask=0.5``, several separated by ``;``; a CSV with the columns ``label``, ``fn``, ``fp`` and
        perhaps ``ask``, or a TOML file with a table for each label; or a mapping label → fn, fp, ask → cost.

    Raises
    ------
    UsageError, EnsembleError : a label is unknown, a cost is missing or not a number from 0 on, or both are 0.
    """
    source, text = source_of_costs(given), str(given)
    is_text = not isinstance(given, Mapping) and not Path(text).exists() and ":" in text and "=" in text
    table = _parse(text) if is_text else read_cost_table(given, f"a table of labels, {_FORM}")
    if not table:
        raise UsageError(f"{source}: expected costs of a label, {_FORM}", hint=f"`cost_matrix={names[0]}:fn=5,fp=1`")
    found = {}
    for name, costs in table.items():
        if name not in names:
            raise UsageError(f"{source}: '{name}' is not a label", hint=f"the labels are {', '.join(list(names)[:20])}")
        unknown = [one for one in costs if one not in (FALSE_NO, FALSE_YES, ASK)]
        absent = [one for one in (FALSE_NO, FALSE_YES) if one not in costs]
        if unknown or absent:
            what = f"unknown: {unknown[0]}" if unknown else f"missing: {absent[0]}"
            raise UsageError(
                f"{source}: expected the costs fn (false no), fp (false yes) and perhaps ask of '{name}', {what}",
                hint=_FORM,
            )
        for one, value in costs.items():
            if not 0 <= value <= MAX_COST:
                raise UsageError(f"{source}: {one} of '{name}' is {value:g}, expected 0 to {MAX_COST:g}")
        if not costs[FALSE_NO] and not costs[FALSE_YES]:
            raise UsageError(f"{source}: every decision of '{name}' costs 0", hint="wrong decisions need a cost")
        found[name] = LabelCosts(costs[FALSE_NO], costs[FALSE_YES], costs.get(ASK, math.nan))
    return found


def _parse(text: str) -> dict[str, dict[str, float]]:
    """Return label → name of a cost → cost, of ``hat:fn=5,fp=1;scarf:fn=1,fp=1``."""
    table: dict[str, dict[str, float]] = {}
    for part in text.split(";"):
        name, _, rest = part.strip().rpartition(":")
        costs: dict[str, float] = {}
        for cell in rest.split(","):
            key, sign, value = cell.partition("=")
            try:
                number = float(value)
            except ValueError:
                number = math.nan
            if not sign or math.isnan(number) or key.strip() in costs:
                raise UsageError(f"`cost_matrix={text}`: expected {_FORM}, found '{cell.strip()}'")
            costs[key.strip()] = number
        if not name or name in table:
            raise UsageError(f"`cost_matrix={text}`: expected {_FORM}, each label once, found '{part.strip()}'")
        table[name] = costs
    return table


def band_of_costs(costs: LabelCosts) -> Band:
    """Return the cuts with the smallest expected cost, for calibrated probabilities."""
    if not costs.false_no:
        return Band(NEVER, NEVER)
    equal = costs.false_yes / (costs.false_no + costs.false_yes)  # yes and no cost the same
    if costs.ask < costs.false_no * equal:
        high = max(1 - costs.ask / costs.false_yes, MIN_THRESHOLD)
        return Band(min(costs.ask / costs.false_no, high), high)
    one = max(equal, MIN_THRESHOLD)
    return Band(one, one)


def fit_band(rows: LabeledRows, limit: float, error: float) -> Band:
    """Return the cuts beyond which at most the share `limit` of a new person's yes, and of its no, is wrong.

    Both hold at once with a probability of 1 − `error` over the people in the data: each side is tested with half of
    it (`lowest_threshold`). If no yes is shown to be right, a no is still only given below a half, so that a rare label
    is not denied to every image.

    Parameters
    ----------
    error : 0 for the observed values.
    """
    no, yes = rows.probabilities.T
    found = lowest_threshold(yes, rows.labels == 0, rows.persons, rows.draw, limit, error / 2)
    high = NEVER if found is None else max(found, MIN_THRESHOLD)
    least = THRESHOLD if found is None else max(0.0, 1 - high)
    denied = lowest_threshold(no, rows.labels == 1, rows.persons, rows.draw, limit, error / 2, least)
    # A probability of no is accepted from `denied` on, so that a label is denied up to 1 − `denied`, not only below it.
    return Band(0.0 if denied is None else min(float(np.nextafter(1 - denied, 2)), high), high)


def fit_bands(
    rows: LabeledColumns,
    source: DecisionSource,
    limit: float | None = None,
    costs: Mapping[str, LabelCosts] | None = None,
    confidence: float = 0.9,
    per_person: bool = False,
) -> LabelThresholds:
    """Return the cuts of labels, with their nested scores.

    Parameters
    ----------
    limit : the largest share of the yes and of the no of each label that is wrong; None for `costs`.
    costs : label → its costs; other labels are given above 0.5.
    confidence : with which `limit` holds; 0 for the observed values.
    """
    decided = is_predicted(rows.values).astype(np.float64)
    decisions: dict[str, Decision] = {}
    lows: dict[str, float] = {}
    warnings: list[str] = []
    unit = PERSON if per_person else IMAGE
    for column, name in enumerate(rows.names):
        own = None if costs is None else costs.get(name)
        if limit is None and own is None:
            continue
        one = rows.of_label(column)
        if any(len(np.unique(one.persons[one.labels == value])) < MIN_PEOPLE for value in (0, 1)):
            warnings.append(f"fewer than {MIN_PEOPLE} people have or lack {name}: it is given above {THRESHOLD:g}")
            continue
        if own is None:
            error = 1 - confidence if confidence > 0 else 0.0
            band, unseen = fit_band(one, limit or 0.0, error), nested_bands(one, limit or 0.0, error)
            record = band_record(one, name, band, unseen, limit or 0.0, confidence, unit)
            warnings += _doubts(name, band, limit or 0.0)
        else:
            band = band_of_costs(own)
            unseen = band.decide(one.probabilities[:, 1])
            record = cost_record(one, name, own, unseen)
            warnings += [f"{name}: {text}" for text in (calibration_warning(one),) if text]
        lows[name] = band.low
        decided[~np.isnan(rows.labels[:, column]), column] = np.where(unseen == ABSTAINED, np.nan, unseen)
        rule = LabelRule(THRESHOLDS, one.classes, np.array([np.nan, band.high]))
        records = {"labels": record}
        decisions[name] = Decision(one.classes, unit, rule, confidence=confidence, source=source, records=records)
    if not source.persons_known:
        warnings.append("persons are unknown: every image counts as its own person, and the 95% CIs may be too narrow")
    if decisions:
        warnings += [text for text in (optimism_warning(source.basis),) if text]
    return LabelThresholds(
        rows.names, decisions, band_totals(rows, decided), source, unit, tuple(warnings), confidence, lows
    )


def _doubts(name: str, band: Band, limit: float) -> list[str]:
    if band.high == NEVER and band.low == 0:
        return [f"no cut of {name} is shown to keep an error of {limit:g}: it is unsure for every image"]
    if band.high == NEVER:
        return [f"no probability of {name} is shown to keep the error of yes at {limit:g}: it is never given"]
    return (
        []
        if band.low > 0 or band.high <= MIN_THRESHOLD
        else [f"no probability of {name} is shown to keep the error of no at {limit:g}: it is never denied"]
    )


def costs_without_fit(names: Sequence[str], costs: Mapping[str, LabelCosts], per_person: bool) -> LabelDecision:
    """Return the cuts of costs, of which no score is known."""
    bands = {name: band_of_costs(one) for name, one in costs.items()}
    return LabelDecision(
        tuple(names),
        tuple(bands[name].high if name in bands else THRESHOLD for name in names),
        PERSON if per_person else IMAGE,
        confidence=0.0,
        records={name: RuleRecord((str(one),), (NO_PROMISE,)) for name, one in costs.items()},
        lows=tuple(bands[name].low if name in bands else THRESHOLD for name in names),
    )


def nested_bands(rows: LabeledRows, limit: float, error: float) -> NDArray[np.int64]:
    """Return (n,) the decisions for each outer fold by cuts that were fitted to the others."""
    decided = np.full(len(rows), ABSTAINED, np.int64)
    for part in np.unique(rows.parts):
        inside, others = np.flatnonzero(rows.parts == part), np.flatnonzero(rows.parts != part)
        decided[inside] = fit_band(rows.take(others), limit, error).decide(rows.probabilities[inside, 1])
    return decided


def band_record(
    rows: LabeledRows,
    name: str,
    band: Band,
    decided: NDArray[np.int64],
    limit: float,
    confidence: float,
    unit: str = IMAGE,
) -> RuleRecord:
    """Return how the cuts of a label were fitted, and what they are worth.

    Parameters
    ----------
    decided : (n,) the decisions for unseen people.
    """
    if band.high == NEVER and band.low == 0:
        status, text = UNREACHABLE, f"{name}: no cut is shown to keep the error at {limit:g}: it is always unsure"
    elif confidence > 0:
        status = GUARANTEED
        whom = "random new people" if unit == PERSON else "random images of random new people"
        text = (
            f"with {confidence:.0%} confidence, at most {limit:.3g} of the yes and at most {limit:.3g} of the no for "
            f"{whom} are wrong"
        )
    else:
        status, text = OBSERVED, "reached in the observed data only; new people may be above it as often as below"
    scores = [
        MeasuredValue(f"error of {word} of {name}", _wrong(rows, decided, decided == code), limit, at_least=False)
        for word, code in (("yes", 1), ("no", 0))
        if (decided == code).any()
    ]
    scores += _decided_scores(rows, name, decided)
    return RuleRecord((f"error<={limit:g}",), (status,), text, tuple(scores))


def cost_record(rows: LabeledRows, name: str, costs: LabelCosts, decided: NDArray[np.int64]) -> RuleRecord:
    """Return what the cuts of costs are worth: the mean cost of an image of a random person, and that at 0.5."""
    plain = is_predicted(rows.probabilities[:, 1]).astype(np.int64)
    scores = [
        MeasuredValue(measure, _mean_cost(rows, costs.of(codes, rows.labels)))
        for measure, codes in ((f"mean cost of {name}", decided), (f"mean cost at 0.5 of {name}", plain))
    ]
    if (decided == ABSTAINED).any():
        scores += _decided_scores(rows, name, decided)
    guarantee = "nothing is guaranteed; the nested scores are measured"
    return RuleRecord((str(costs),), (NO_PROMISE,), guarantee, tuple(scores))


def _decided_scores(rows: LabeledRows, name: str, decided: NDArray[np.int64]) -> list[MeasuredValue]:
    every = np.ones(len(rows), bool)
    plain = is_predicted(rows.probabilities[:, 1]).astype(np.int64)
    return [
        MeasuredValue(f"decided of {name}", _share(rows, decided != ABSTAINED, every)),
        MeasuredValue(f"error without abstention of {name}", _wrong(rows, plain, every)),
    ]


def _wrong(rows: LabeledRows, decided: NDArray[np.int64], among: NDArray[np.bool_]) -> Interval:
    return _share(rows, decided != rows.labels, among)


def _share(rows: LabeledRows, what: NDArray[np.bool_], among: NDArray[np.bool_]) -> Interval:
    return share_interval(*person_shares(what, among, rows.persons, rows.people))


def _mean_cost(rows: LabeledRows, costs: NDArray[np.float64]) -> Interval:
    return mean_interval(sums_by_person(costs * rows.weights, rows.persons, rows.people), lower=0.0)


def band_totals(rows: LabeledColumns, decided: NDArray[np.float64]) -> dict[str, Interval]:
    """Return the error of all decided labels, the share that is decided, and the error of all labels at 0.5.

    Parameters
    ----------
    decided : (n, labels) 1 and 0, nan where a label is unsure.
    """
    known = ~np.isnan(rows.labels)
    people = int(rows.persons.max()) + 1
    persons = np.repeat(rows.persons[:, None], len(rows.names), axis=1)[known]
    truth, found = rows.labels[known], decided[known]
    plain = is_predicted(rows.values)[known]
    is_decided, every = ~np.isnan(found), np.ones(len(truth), bool)

    def share(what: NDArray[np.bool_], among: NDArray[np.bool_]) -> Interval:
        return share_interval(*person_shares(what, among, persons, people))

    return {
        "error of decided": share(found != truth, is_decided),
        "decided": share(is_decided, every),
        "error at 0.5": share(plain != truth, every),
    }


def measured_bands(
    decided: DecidedLabels, probabilities: NDArray[np.floating], labels: NDArray[np.float64], persons: NDArray[np.str_]
) -> list[MeasuredValue]:
    """Return what decisions with open labels achieve on rows that they were not fitted to, over people.

    Parameters
    ----------
    probabilities : (n, labels), for the error at 0.5.
    labels : (n, labels) 0, 1, or nan if unknown.
    persons : (n,) the person of each row.

    Returns
    -------
    Values over all labels, then the error of what is decided of each label; [] if no label is known.
    """
    known = np.flatnonzero(known_rows(labels))
    if not len(known):
        return []
    codes, ids = factorize(persons[known])[1], np.arange(len(known)).astype(str)
    rows = LabeledColumns(
        np.asarray(probabilities, np.float64)[known], labels[known], codes, codes, ids, tuple(decided.classes)
    )
    answers = decided.answers()[known]
    found = [MeasuredValue(name, interval) for name, interval in band_totals(rows, answers).items()]
    for column, name in enumerate(rows.names):
        inside = np.flatnonzero(~np.isnan(rows.labels[:, column]))
        if len(inside):
            one, own = rows.of_label(column), answers[inside, column]
            decided_codes = np.where(np.isnan(own), ABSTAINED, own).astype(np.int64)
            found.append(
                MeasuredValue(f"error of decided of {name}", _wrong(one, decided_codes, decided_codes != ABSTAINED))
            )
    return found
