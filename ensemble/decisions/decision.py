"""Hold fitted decision rules with what they are worth on unseen people, and apply them to probabilities; numpy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ensemble.decisions.abstention import NEVER, confidence_of
from ensemble.decisions.labels import ABSTAINED, LabelRule, plain_rule
from ensemble.decisions.record import DecisionSource, RuleRecord, read_record, to_record
from ensemble.decisions.rows import PERSON, uniform_of
from ensemble.decisions.sets import SetRule
from folds.errors import UsageError
from folds.metrics.array_checks import by_name
from folds.metrics.arrays import as_probabilities, names_of

if TYPE_CHECKING:
    import pandas as pd

ABSTAIN_LABEL = "abstain"
SEPARATOR = "|"  # between the classes of a set in a CSV
_SHOWN = 5  # answers that the text of a result names


@dataclass(frozen=True, eq=False)
class Decision:
    """Rules from probabilities to labels, to no answer, and to sets of classes.

    Attributes
    ----------
    classes : the class of each column of the probabilities.
    unit : ``image``, or ``person`` if the rules were fitted to the mean probabilities of each person's images.
    labels : thresholds or costs; None for the most probable class.
    threshold : confidence below which there is no answer; None if all images are answered, `NEVER` if no confidence
        keeps the stated error.
    error : the stated error of what is answered; None without abstention.
    sets : the rule of the prediction sets; None without sets.
    confidence : the confidence with which guaranteed aims hold; 0 if aims were fitted to observed values.
    source : what the rules were fitted to.
    records : rule (``labels``, ``abstention``, ``sets``) → how it was fitted and what it is worth.
    abstain_label : the label of images without an answer.
    """

    classes: tuple[str, ...]
    unit: str = "image"
    labels: LabelRule | None = None
    threshold: float | None = None
    error: float | None = None
    sets: SetRule | None = None
    confidence: float = 0.9
    source: DecisionSource = field(default_factory=DecisionSource)
    records: Mapping[str, RuleRecord] = field(default_factory=dict)
    abstain_label: str = ABSTAIN_LABEL

    @property
    def answers_nothing(self) -> bool:
        """Return whether no confidence keeps the stated error, so that no image gets an answer."""
        return self.threshold is not None and self.threshold >= NEVER

    def apply(
        self, probabilities: ArrayLike, persons: ArrayLike | None = None, ids: ArrayLike | None = None
    ) -> Decided:
        """Return the decisions for probabilities.

        Parameters
        ----------
        probabilities : (n, classes), rows sum to 1; columns of a DataFrame that are the classes are taken by name.
        persons : (n,) the person of each row, if known. If the rules are for people, the rows of a person are averaged,
            and the result has one row per person, in the order of the names.
        ids : (n,) the id of each row, from which the random part of the scores ``aps`` and ``raps`` is derived: the
            same id gets the same set. `ensemble.predict`, exported models and the server give the hash of the image's
            content (of rows for people, the person). By default the number of the row.

        Raises
        ------
        UsageError : the probabilities have other columns, or lengths differ.
        """
        values = np.asarray(as_probabilities(probabilities, "probabilities"), np.float64)
        if values.shape[1] != len(self.classes):
            raise UsageError(f"`probabilities` has {values.shape[1]} columns, expected {len(self.classes)} classes")
        values = by_name(values, probabilities, self.classes)
        names = None if persons is None else names_of(persons, "persons", len(values))
        rows = None if ids is None else names_of(ids, "ids", len(values))
        if self.unit == PERSON and names is not None:
            names, codes = np.unique(names, return_inverse=True)
            sums = np.zeros((len(names), values.shape[1]))
            np.add.at(sums, codes, values)
            values, rows = sums / np.bincount(codes)[:, None], names
        return self._decided(values, names, rows)

    def _decided(
        self, values: NDArray[np.float64], persons: NDArray[np.str_] | None, ids: NDArray[np.str_] | None
    ) -> Decided:
        codes = (self.labels or plain_rule(self.classes)).decide(values)
        confidence, first = confidence_of(values, codes), codes
        if self.threshold is not None:
            codes = np.where(confidence >= self.threshold, codes, ABSTAINED)
        sets = None
        if self.sets is not None:
            if ids is None:
                ids = np.array([str(row) for row in range(len(values))], dtype=str)
            sets = set_members(self.sets, values, uniform_of(ids), first)
        return Decided(self, codes, confidence, sets, persons)

    def with_label(self, text: str) -> Decision:
        """Return the same rules with another label for images without an answer.

        Raises
        ------
        UsageError : it is the name of a class, or empty.
        """
        if not text.strip() or text in self.classes:
            raise UsageError(
                f"`abstain_label={text}`: expected a text that is not a class", hint="`abstain_label=unknown`"
            )
        return replace(self, abstain_label=text)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values without None, for TOML and JSON; `from_json` reads them."""
        return to_record(self)

    @classmethod
    def from_json(cls, record: Any, classes: Sequence[str] | None = None, source: str = "the decision") -> Decision:
        """Return the decision of a record from `to_dict`, which may come from a stranger.

        Parameters
        ----------
        classes : the classes of the model, which must be those of the record, in this order; None if unknown.
        source : the name of the file in errors.

        Raises
        ------
        EnsembleError : a field is missing, unknown, of the wrong type or out of range, or fields contradict each other.
        """
        return cls(**read_record(record, classes, source))


def set_members(
    rule: SetRule, values: NDArray[np.float64], uniform: NDArray[np.float64], decided: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return (n, classes) whether each class is in the set.

    The decided class, or the most probable one where there is no decision, always is: no set is empty or contradicts
    the label.
    """
    members = rule.contains(values, uniform)
    chosen = np.where(decided >= 0, decided, values.argmax(axis=1))
    members[np.arange(len(values)), chosen] = True
    return members


def decided_text(labels: NDArray[np.str_]) -> str:
    """Return the text of a result of n rows: ``3 rows decided: sick, well, abstain``."""
    more = ", …" if len(labels) > _SHOWN else ""
    return f"{len(labels):,} rows decided: {', '.join(labels[:_SHOWN].tolist())}{more}"


@dataclass(frozen=True, eq=False, repr=False)
class Decided:
    """The decisions for n rows.

    Attributes
    ----------
    decision : the rules.
    codes : (n,) class indices; −1 without an answer.
    confidence : (n,) the probability of the class that the label rule chose.
    sets : (n, classes) bool; None without sets.
    persons : (n,) of str, if known.
    """

    decision: Decision
    codes: NDArray[np.int64]
    confidence: NDArray[np.float64]
    sets: NDArray[np.bool_] | None = None
    persons: NDArray[np.str_] | None = None

    def __len__(self) -> int:
        return len(self.codes)

    def __repr__(self) -> str:
        return decided_text(self.labels)

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the classes."""
        return self.decision.classes

    @property
    def answered(self) -> NDArray[np.bool_]:
        """Return (n,) whether there is an answer."""
        return self.codes >= 0

    @property
    def labels(self) -> NDArray[np.str_]:
        """Return (n,) the decided classes, and `abstain_label` where there is no answer."""
        return np.array([*self.classes, self.decision.abstain_label])[self.codes]

    def set_texts(self, separator: str = SEPARATOR) -> list[str]:
        """Return the classes of each set in one text, joined by `separator`.

        Raises
        ------
        UsageError : there are no sets, or a class contains the separator.
        """
        if self.sets is None:
            raise UsageError("there are no prediction sets", hint="`sets=0.9`")
        if any(separator in name for name in self.classes):
            raise UsageError(f"a class contains the separator {separator!r} of sets", hint="use the array `sets`")
        names = np.array(self.classes, dtype=object)
        return [separator.join(names[row]) for row in self.sets]

    def frame(self, ids: ArrayLike | None = None) -> pd.DataFrame:
        """Return a DataFrame with ``id`` if given, ``label``, ``confidence``, and ``set`` if there are sets."""
        import pandas as pd

        columns: dict[str, Any] = {} if ids is None else {"id": names_of(ids, "ids", len(self))}
        columns |= {"label": self.labels, "confidence": self.confidence}
        if self.sets is not None:
            columns["set"] = self.set_texts()
        return pd.DataFrame(columns)
