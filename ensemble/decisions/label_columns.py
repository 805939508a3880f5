"""Fit a threshold for each of several labels, and say what it is worth on unseen people; numpy only.

Each label is a decision of two classes, with and without it, on the rows where it is known: its aims, fits, guarantees
and nested scores are those of two classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ensemble.decisions.decision import Decision
from ensemble.decisions.fit import RuleRequest, fit_rules, nested_decisions
from ensemble.decisions.labels import F1, MACRO_F1, OBSERVED, UNREACHABLE, YOUDEN, Aim, missing_evidence, parse_aims
from ensemble.decisions.oof import check_decidable
from ensemble.decisions.record import (
    CROSS_FITTED,
    ONE_MODEL,
    STUDENT,
    UNKNOWN,
    DecisionSource,
    MeasuredValue,
    RuleRecord,
)
from ensemble.decisions.report import HEADER, guarantee_lines, measured_row, optimism_warning
from ensemble.decisions.rows import IMAGE, PERSON, LabeledRows
from ensemble.decisions.scores import records_of
from ensemble.learning.nested import outer_fold_ids
from folds.errors import EnsembleError, UsageError
from folds.metrics.arrays import as_array
from folds.metrics.grouping import average_by_person
from folds.metrics.intervals import Interval, interval_over_people
from folds.metrics.label_scores import THRESHOLD, is_predicted
from folds.metrics.task_names import MULTILABEL
from folds.metrics.tasks import metric_for_task
from folds.predictions.label_columns import encode_labels
from folds.predictions.predictions import Predictions
from folds.utils.display import Displayed, Table
from folds.utils.files import sha256_bytes
from folds.utils.numeric import factorize

if TYPE_CHECKING:
    import pandas as pd

PLAIN = THRESHOLD  # of a label without an aim
MIN_PEOPLE = 2  # with and without a label; with fewer, its threshold stays
_WHOLE = (MACRO_F1, F1, YOUDEN)  # aims that may be those of all labels


@dataclass(frozen=True, eq=False)
class LabelColumns:
    """Out-of-fold predictions of several labels, from which thresholds are fitted.

    Attributes
    ----------
    probabilities : (n, labels) float64.
    labels : (n, labels) 0, 1, or nan if unknown.
    persons, parts : (n,) person, and outer fold; all rows of a person are in the same one.
    ids : (n,).
    names : the labels.
    """

    probabilities: NDArray[np.float64]
    labels: NDArray[np.float64]
    persons: NDArray[np.int64]
    parts: NDArray[np.int64]
    ids: NDArray[np.str_]
    names: tuple[str, ...]

    def of_label(self, column: int) -> LabeledRows:
        """Return the rows where a label is known, as two classes: without and with it."""
        rows = np.flatnonzero(~np.isnan(self.labels[:, column]))
        yes = self.probabilities[rows, column]
        return LabeledRows(
            np.stack([1 - yes, yes], axis=1),
            self.labels[rows, column].astype(np.int64),
            np.unique(self.persons[rows], return_inverse=True)[1].astype(np.int64),
            self.parts[rows],
            self.ids[rows],
            (f"not {self.names[column]}", self.names[column]),
        )


@dataclass(frozen=True, eq=False, repr=False)
class LabelThresholds(Displayed):
    """A threshold for each of several labels, and what these are worth.

    Attributes
    ----------
    labels : the labels, in the order of the columns.
    decisions : label → its rule, with its nested scores; without labels that keep a threshold of 0.5.
    totals : measure → nested value over all labels, and that of thresholds of 0.5.
    warnings : what limits the rules.
    """

    labels: tuple[str, ...]
    decisions: Mapping[str, Decision]
    totals: Mapping[str, Interval]
    source: DecisionSource
    unit: str = IMAGE
    warnings: tuple[str, ...] = ()

    @property
    def thresholds(self) -> dict[str, float]:
        """Return label → the probability above which (from which on, if it was fitted) the label is given."""
        return {name: _threshold(self.decisions[name]) if name in self.decisions else PLAIN for name in self.labels}

    @property
    def scores(self) -> dict[str, MeasuredValue]:
        """Return measure → its nested value with the interval over people."""
        found = {name: MeasuredValue(name, interval) for name, interval in self.totals.items()}
        for decision in self.decisions.values():
            for record in decision.records.values():
                found |= {score.measure: score for score in record.scores}
        return found

    def apply(self, probabilities: ArrayLike) -> NDArray[np.bool_]:
        """Return (n, labels) whether each label is given, for probabilities (n, labels).

        Raises
        ------
        UsageError : another number of columns.
        """
        values = np.asarray(as_array(probabilities, "probabilities"), np.float64)
        if values.ndim != 2 or values.shape[1] != len(self.labels):
            raise UsageError(
                f"`probabilities` must be (samples, {len(self.labels)}), a column for each label, found {values.shape}"
            )
        limits = np.array([self.thresholds[name] for name in self.labels])
        fitted = np.array([name in self.decisions for name in self.labels])
        return np.where(fitted, values >= limits, is_predicted(values))

    def frame(self) -> pd.DataFrame:
        """Return one row per label: its threshold, and nested F1, sensitivity, specificity and precision."""
        import pandas as pd

        rows = []
        for name, threshold in self.thresholds.items():
            row: dict[str, Any] = {"label": name, "threshold": threshold}
            for record in self.decisions[name].records.values() if name in self.decisions else ():
                for score in record.scores:
                    if score.measure.endswith(f" of {name}"):
                        row[score.measure[: -len(f" of {name}")]] = score.interval.value
            rows.append(row)
        return pd.DataFrame(rows).set_index("label")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as ``ensemble decide --json`` prints them."""
        return {
            "task": MULTILABEL,
            "thresholds": self.thresholds,
            "totals": {name: interval.to_dict() for name, interval in self.totals.items()},
            "labels": {name: decision.to_dict() for name, decision in self.decisions.items()},
            "warnings": list(self.warnings),
        }

    def display_table(self) -> Table:
        """Return the table to display: one row per nested score, and the thresholds below."""
        title = f"Thresholds of {self.source.kind} {self.source.name}".rstrip()
        title += f", fitted to {self.source.people:,} people ({self.source.images:,} images)"
        notes = [*self.lines(), *(f"warning: {text}" for text in self.warnings)]
        return Table(title, HEADER, self.rows(), tuple(notes), left=1)

    def rows(self) -> list[list[object]]:
        """Return the rows of the table of nested scores, under `HEADER`: all labels together, then each."""
        found = [MeasuredValue(name, interval) for name, interval in self.totals.items()]
        for decision in self.decisions.values():
            found += [score for record in decision.records.values() for score in record.scores]
        return [measured_row(score) for score in found]

    def lines(self) -> list[str]:
        """Return the thresholds in words, and what is guaranteed."""
        listed = ", ".join(f"{name} {value:.4g}" for name, value in self.thresholds.items())
        lines = [f"a label is given from a probability on: {listed}"]
        for decision in self.decisions.values():
            lines += [line for line in guarantee_lines(decision) if any(name in line for name in self.labels)]
        return lines


def _threshold(decision: Decision) -> float:
    assert decision.labels is not None  # noqa: S101 - every decision of a label has a threshold
    return float(decision.labels.thresholds[1])


def columns_of_predictions(
    found: Predictions, name: str, kind: str, per_person: bool
) -> tuple[LabelColumns, DecisionSource]:
    """Return the rows with a known label, and their source.

    Raises
    ------
    UsageError : numbers, `per_person` without persons, or only persons are labeled and `per_person` is not given.
    EnsembleError : there are no labels, or not of two people.
    """
    if found.metadata.task != MULTILABEL:
        raise UsageError(
            f"decision rules do not support the task {found.metadata.task}: numbers have no thresholds",
            hint="ensemble runs and ensemble blend score numbers: `metric=within:error=5` is the share within 5",
        )
    check_decidable(found, name, per_person)
    if found.labels is None or not (found.labels != "").any():
        raise EnsembleError(f"the predictions of {name} have no labels, to which decision rules are fitted")
    labels = encode_labels(found.labels, found.classes, MULTILABEL)
    rows, source = columns_of_arrays(
        found.probabilities, labels, found.persons, found.fold, found.ids, found.classes, per_person, (name, kind)
    )
    return rows, replace(source, basis=STUDENT if found.metadata.teacher else source.basis)


def columns_of_arrays(
    values: NDArray[np.floating],
    labels: NDArray[np.float64],
    persons: NDArray[np.str_] | None,
    folds: NDArray[np.int64] | None,
    ids: NDArray[np.str_],
    names: tuple[str, ...],
    per_person: bool,
    name_and_kind: tuple[str, str],
) -> tuple[LabelColumns, DecisionSource]:
    """Return the rows of arrays and their source; parameters and errors as `columns_of_predictions`."""
    if persons is None and per_person:
        raise UsageError(
            "rules for people need the person of each image",
            hint="name the person of each image: a column of the table, or `groups` of decide() for arrays",
        )
    known = np.flatnonzero(~np.isnan(labels).all(axis=1))
    values, labels, ids = np.asarray(values, np.float64)[known], labels[known], ids[known]
    persons, folds = None if persons is None else persons[known], None if folds is None else folds[known]
    people = factorize(ids if persons is None else persons)[1]
    sha = sha256_bytes(values.tobytes() + labels.tobytes() + repr(names).encode())
    distinct = 0 if folds is None else len(np.unique(folds))
    basis = UNKNOWN if folds is None else ONE_MODEL if distinct == 1 else CROSS_FITTED
    images = len(values)
    if per_person and persons is not None:
        first = np.unique(people, return_index=True)[1]
        several = folds is not None and len(np.unique(np.stack([people, folds]), axis=1).T) > len(first)
        labels, values, owners, _ = average_by_person(labels, values, persons, len(names), MULTILABEL)
        folds = None if folds is None or several else folds[first]
        people, ids = np.arange(len(owners)), np.array(owners, dtype=str)
    if len(np.unique(people)) < 2:
        raise EnsembleError("decision rules need two people or more, found one")
    parts = outer_fold_ids(people, labels, folds)
    rows = LabelColumns(values, labels, people, parts, ids, names)
    count = int(people.max()) + 1
    return rows, DecisionSource(*name_and_kind, sha, count, images, basis, persons is not None)


def parse_label_aims(texts: Sequence[str], names: Sequence[str]) -> dict[str, Aim]:
    """Return label → aim.

    Parameters
    ----------
    texts : ``macro_f1`` (or ``f1``) or ``youden`` for all labels; ``LABEL=.3``, ``LABEL:sensitivity>=.95``,
        ``LABEL:f1``, ``LABEL:youden`` … for one.

    Raises
    ------
    UsageError : another form, an unknown label, or several aims of one label.
    """
    whole = [text for text in map(str.strip, texts) if text in _WHOLE and text not in names]
    if whole and len(texts) > 1:
        raise UsageError(
            f"`threshold={whole[0]}` sets the thresholds of all labels", hint="remove the other thresholds"
        )
    if whole:
        return {name: Aim(YOUDEN if whole[0] == YOUDEN else F1, name) for name in names}
    aims = parse_aims(texts, tuple(names))
    wrong = next((aim for aim in aims if not aim.name), None)
    if wrong is not None:
        raise UsageError(
            f"`threshold={wrong}` is for classes that exclude each other",
            hint=f"`threshold={MACRO_F1}`, or `threshold={names[0]}:sensitivity>=.9`",
        )
    return {aim.name: aim for aim in aims}


def fit_thresholds(
    rows: LabelColumns,
    source: DecisionSource,
    texts: Sequence[str],
    confidence: float = 0.9,
    per_person: bool = False,
) -> LabelThresholds:
    """Return the thresholds fitted to aims, with their nested scores.

    Parameters
    ----------
    texts : see `parse_label_aims`.
    confidence : with which a guaranteed aim holds; 0 fits to observed values.
    """
    aims = parse_label_aims(texts, rows.names)
    decided = is_predicted(rows.probabilities).astype(np.float64)
    plain = decided.copy()
    decisions: dict[str, Decision] = {}
    warnings: list[str] = []
    for column, name in enumerate(rows.names):
        if name not in aims:
            continue
        one = rows.of_label(column)
        if any(len(np.unique(one.persons[one.labels == value])) < MIN_PEOPLE for value in (0, 1)):
            warnings.append(f"fewer than {MIN_PEOPLE} people have or lack {name}: its threshold stays {PLAIN:g}")
            continue
        request = RuleRequest((aims[name],), confidence=confidence)
        unseen, _ = nested_decisions(one, request)
        rules = fit_rules(one, request)
        inside = np.flatnonzero(~np.isnan(rows.labels[:, column]))
        decided[inside, column] = unseen.decided
        records = {"labels": _record(one, name, records_of(one, request, rules, unseen)["labels"], unseen.decided)}
        decisions[name] = Decision(
            one.classes, PERSON if per_person else IMAGE, rules.labels, confidence=confidence, source=source,
            records=records,
        )  # fmt: skip
        warnings += _doubts(one, aims[name], rules.statuses[0], request.error)
    if not source.persons_known:
        warnings.append("persons are unknown: every image counts as its own person, and the 95% CIs may be too narrow")
    first = next(iter(decisions.values()), None)
    if first is not None:
        warnings += [text for text in (optimism_warning(first),) if text]
    unit = PERSON if per_person else IMAGE
    return LabelThresholds(rows.names, decisions, _totals(rows, decided, plain), source, unit, tuple(warnings))


def _record(one: LabeledRows, name: str, record: RuleRecord, decided: NDArray[np.int64]) -> RuleRecord:
    """Return the record of a label with its F1 in the place of scores over both classes."""
    scores = [score for score in record.scores if score.measure.endswith(f" of {name}")]
    for measure, values in ((f"F1 of {name}", decided), (f"F1 at 0.5 of {name}", _plain(one))):
        interval = interval_over_people(
            metric_for_task("f_beta", "binary"), one.labels, np.eye(2)[values], one.persons, predicted=values
        )
        scores.append(MeasuredValue(measure, interval))
    return replace(record, scores=tuple(scores))


def _plain(one: LabeledRows) -> NDArray[np.int64]:
    return is_predicted(one.probabilities[:, 1]).astype(np.int64)


def _totals(rows: LabelColumns, decided: NDArray[np.float64], plain: NDArray[np.float64]) -> dict[str, Interval]:
    """Return the mean F1 of the labels and F1 of all cells, nested, and with thresholds of 0.5."""
    found = {}
    for name in ("macro_f1", "micro_f1"):
        metric = metric_for_task(name, MULTILABEL)
        found[metric.title] = interval_over_people(metric, rows.labels, decided, rows.persons)
        found[f"{metric.title} at 0.5"] = interval_over_people(metric, rows.labels, plain, rows.persons)
    return found


def _doubts(one: LabeledRows, aim: Aim, status: str, error: float) -> list[str]:
    if status == UNREACHABLE:
        return [f"{aim} is not reachable with any threshold; the nearest one was taken"]
    if status == OBSERVED and error > 0:
        return [f"{aim} is not guaranteed: {missing_evidence(one, aim, error)}"]
    return []
