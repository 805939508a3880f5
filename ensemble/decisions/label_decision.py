"""Hold the thresholds of several labels with what they are worth on unseen people, and apply them; numpy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ensemble.decisions.decision import Decided, Decision, decided_text
from ensemble.decisions.label_record import read_label_record, to_label_record
from ensemble.decisions.labels import GUARANTEED
from ensemble.decisions.number_decision import DecidedNumbers, NumberDecision
from ensemble.decisions.record import DecisionSource, MeasuredValue, RuleRecord
from ensemble.decisions.rows import IMAGE, PERSON
from folds.errors import UsageError
from folds.metrics.array_checks import as_array, by_name
from folds.metrics.arrays import names_of
from folds.metrics.label_scores import THRESHOLD, is_predicted
from folds.metrics.task_names import MULTILABEL, REGRESSION
from folds.predictions.label_columns import label_texts

if TYPE_CHECKING:
    import pandas as pd

_TOLERANCE = 1e-6  # outside of 0 to 1, by rounding


@dataclass(frozen=True, eq=False)
class LabelDecision:
    """A threshold for each of several labels, from which on the label is given.

    Attributes
    ----------
    classes : the label of each column of the probabilities.
    thresholds : one for each label, above 0 and at most 1; above 1 for a label that is never given.
    unit : ``image``, or ``person`` if they were fitted to the mean probabilities of each person's images.
    confidence : with which guaranteed aims hold; 0 if aims were fitted to observed values.
    source : what the thresholds were fitted to.
    records : label → how its threshold was found and what it is worth. A label without one keeps a threshold of 0.5,
        and is given above it, as without decision rules.
    totals : nested scores over all labels, and those of thresholds of 0.5.
    lows : one for each label: below it the label is not given, and from it to the threshold it is unsure; () if no
        label stays open.
    """

    classes: tuple[str, ...]
    thresholds: tuple[float, ...]
    unit: str = IMAGE
    confidence: float = 0.9
    source: DecisionSource = field(default_factory=DecisionSource)
    records: Mapping[str, RuleRecord] = field(default_factory=dict)
    totals: tuple[MeasuredValue, ...] = ()
    lows: tuple[float, ...] = ()

    @property
    def leaves_open(self) -> bool:
        """Return whether a label can be unsure."""
        return any(low < high for low, high in zip(self.lows, self.thresholds, strict=bool(self.lows)))

    def apply(
        self, probabilities: ArrayLike, persons: ArrayLike | None = None, ids: ArrayLike | None = None
    ) -> DecidedLabels:
        """Return the labels for probabilities.

        Parameters
        ----------
        probabilities : (n, labels), from 0 to 1; rows need not sum to 1. Columns of a DataFrame that are the labels are
            taken by name.
        persons : (n,) the person of each row, if known. If the thresholds are for people, the rows of a person are
            averaged, and the result has one row per person, in the order of the names.
        ids : not used, because thresholds of labels have no random part; `Decision.apply` takes them.

        Raises
        ------
        UsageError : the probabilities have other columns or are none, or lengths differ.
        """
        array = as_array(probabilities, "probabilities")
        if array.ndim != 2 or array.shape[1] != len(self.classes) or array.dtype.kind not in "fiub":
            raise UsageError(
                f"`probabilities` must be (samples, {len(self.classes)}), a column for each label, found {array.shape} "
                f"of {array.dtype}"
            )
        values = by_name(array.astype(np.float64), probabilities, self.classes)
        wrong = np.argwhere(~((values >= -_TOLERANCE) & (values <= 1 + _TOLERANCE)))  # nan is outside, too
        if len(wrong):
            row, column = wrong[0].tolist()
            raise UsageError(
                f"`probabilities` has {values[row, column]:g} for '{self.classes[column]}' in row {row}, expected a "
                "number from 0 to 1",
                hint="convert logits by scipy.special.expit(logits)",
            )
        names = None if persons is None else names_of(persons, "persons", len(values))
        if self.unit == PERSON and names is not None:
            names, codes = np.unique(names, return_inverse=True)
            sums = np.zeros((len(names), values.shape[1]))
            np.add.at(sums, codes, values)
            values = sums / np.bincount(codes)[:, None]
        fitted = np.array([name in self.records for name in self.classes])
        given = np.where(fitted, values >= np.array(self.thresholds), is_predicted(values))
        unsure = fitted & ~given & (values >= np.array(self.lows)) if self.lows else None
        return DecidedLabels(self, given, names, unsure)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values without None, for TOML and JSON; `from_json` reads them."""
        return to_label_record(self)

    @classmethod
    def from_json(
        cls, record: Any, classes: Sequence[str] | None = None, source: str = "the decision"
    ) -> LabelDecision:
        """Return the thresholds of a record from `to_dict`, which may come from a stranger.

        Parameters
        ----------
        classes : the labels of the model, which must be those of the record, in this order; None if unknown.
        source : the name of the file in errors.

        Raises
        ------
        EnsembleError : a field is missing, unknown, of the wrong type or out of range, or fields contradict each other.
        """
        return cls(**read_label_record(record, classes, source))


@dataclass(frozen=True, eq=False, repr=False)
class DecidedLabels:
    """The labels of n rows.

    Attributes
    ----------
    decision : the thresholds.
    given : (n, labels) bool, whether a row has each label.
    persons : (n,) of str, if known.
    unsure : (n, labels) bool, whether a label stays open, which is not given then; None if none can.
    """

    decision: LabelDecision
    given: NDArray[np.bool_]
    persons: NDArray[np.str_] | None = None
    unsure: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.given)

    def __repr__(self) -> str:
        return decided_text(self.labels)

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the labels."""
        return self.decision.classes

    @property
    def labels(self) -> NDArray[np.str_]:
        """Return (n,) the labels of each row in one text: ``hat;scarf``, ``-`` for none, ``hat;?scarf`` if unsure."""
        return label_texts(self.answers(), self.classes, MULTILABEL)

    def answers(self) -> NDArray[np.float64]:
        """Return (n, labels) 1 and 0, nan where a label is unsure."""
        answers = self.given.astype(np.float64)
        return answers if self.unsure is None else np.where(self.unsure, np.nan, answers)

    def frame(self, ids: ArrayLike | None = None) -> pd.DataFrame:
        """Return a DataFrame with ``id`` if given, and a column of 0 and 1 for each label, missing if it is unsure."""
        import pandas as pd

        frame = pd.DataFrame(self.given.astype(np.int64), columns=list(self.classes))
        if self.unsure is not None:
            frame = frame.astype("Int64").mask(self.unsure)
        if ids is not None:
            frame.insert(0, "id", names_of(ids, "ids", len(self)))
        return frame


AnyDecision = Decision | LabelDecision | NumberDecision
AnyDecided = Decided | DecidedLabels | DecidedNumbers


def read_decision(record: Any, classes: Sequence[str] | None = None, source: str = "the decision") -> AnyDecision:
    """Return the rules of a record that `to_dict` of `Decision`, `LabelDecision` or `NumberDecision` made.

    Raises
    ------
    EnsembleError : see `Decision.from_json`.
    """
    if isinstance(record, Mapping) and record.get("task") == REGRESSION:
        return NumberDecision.from_json(record, classes, source)
    if isinstance(record, Mapping) and "task" in record:
        return LabelDecision.from_json(record, classes, source)
    return Decision.from_json(record, classes, source)


def label_lines(decision: LabelDecision) -> list[str]:
    """Return the thresholds in words."""
    fitted = [name for name in decision.classes if name in decision.records]
    limits = dict(zip(decision.classes, decision.thresholds, strict=True))
    parts = []
    if fitted:
        texts = [f"{name} {limits[name]:.4g}" if limits[name] <= 1 else f"{name} never" for name in fitted]
        parts.append(f"from a probability on: {', '.join(texts)}")
    kept = [name for name in decision.classes if name not in decision.records]
    if kept:
        parts.append(f"above {THRESHOLD:g}: {', '.join(kept)}")
    lines = [f"a label is given {'; '.join(parts)}"]
    lows = dict(zip(decision.classes, decision.lows, strict=bool(decision.lows)))
    unsure = [f"{name} {low:.4g}" for name, low in lows.items() if low < limits[name]]
    return lines + ([f"below that it is unsure down to: {', '.join(unsure)}"] if unsure else [])


def label_guarantees(decision: LabelDecision) -> list[str]:
    """Return what is guaranteed and what is only measured: each text once, with the labels that it is for."""
    labels_of: dict[str, list[str]] = {}
    for name, record in decision.records.items():
        if record.guarantee:
            labels_of.setdefault(record.guarantee, []).append(name)
    lines = [
        text if len(labels_of) == 1 or text.startswith(f"{names[0]}:") else f"{', '.join(names)}: {text}"
        for text, names in labels_of.items()
    ]
    if sum(GUARANTEED in record.status for record in decision.records.values()) > 1:
        lines.append("each of these aims holds with this confidence by itself, not all of them at once")
    return lines


def label_scores(decision: LabelDecision) -> list[MeasuredValue]:
    """Return the nested scores to show: over all labels, then of each label its F1 and its aim."""
    found = list(decision.totals)
    for name, record in decision.records.items():
        shown = (f"F1 of {name}", f"decided of {name}", f"mean cost of {name}", f"mean cost at 0.5 of {name}")
        found += [one for one in record.scores if one.target is not None or one.measure in shown]
    return found
