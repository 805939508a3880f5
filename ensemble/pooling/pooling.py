"""Describe how the images of a person become one prediction, as plain numbers for a file; numpy only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.pooling.bags import Bags
from ensemble.pooling.evidence import STATISTICS, damped_log_odds, learned_pool
from ensemble.pooling.rules import pool_images
from ensemble.pooling.spec import ANY_IMAGE, DEFAULT_K, FIXED, LEARNED, LOG_ODDS, MEAN, RULES, TOP_K, PoolSpec
from folds.errors import EnsembleError
from folds.utils.number_arrays import NumberFields
from folds.utils.schema import (
    BOOL,
    NUMBER,
    ONE_LINE,
    integer,
    list_of,
    one_of,
    optional,
    raise_problems,
    validate_fields,
)

_DIGITS, _MAX_NUMBER = 9, 1e6
_TOLERANCE = 1e-3  # of the sum of probabilities of single precision, written with 9 digits
HINT = "blend again to write the file anew"
_FIELDS = {
    "rule": one_of(*RULES),
    "ordered": optional(BOOL),
    "majority": optional(BOOL),
    "k": optional(integer(1, 2**31 - 1)),
    "runs": optional(list_of(ONE_LINE)),
    "damping": optional(list_of(NUMBER)),
    "prior": optional(list_of(list_of(NUMBER))),
    "coefficients": optional(list_of(list_of(list_of(NUMBER)))),
}


@dataclass(frozen=True)
class Pooling:
    """A pooling rule with its fitted numbers. Each run's images are pooled first, then the runs are combined.

    Attributes
    ----------
    rule : one of `ensemble.pooling.spec.RULES`.
    ordered : whether the classes are grades in their order.
    k : images of ``top-k``.
    majority : whether people have the most frequent label of their images, whatever the rule: it was chosen among rules
        that were scored with the same labels.
    runs : the runs that the numbers of fitted rules are for; () for rules that fit nothing.
    damping : (runs,), of ``log-odds``.
    prior : (runs, classes), of ``log-odds``.
    coefficients : (runs, classes, statistics + 1), of ``learned``.
    """

    rule: str = MEAN
    ordered: bool = False
    k: int = DEFAULT_K
    majority: bool = False
    runs: tuple[str, ...] = ()
    damping: NDArray[np.float64] | None = None
    prior: NDArray[np.float64] | None = None
    coefficients: NDArray[np.float64] | None = None

    @property
    def text(self) -> str:
        """Return the rule as in ``--pool``."""
        return PoolSpec(self.rule, self.k).text

    def takes_highest(self, classes: int) -> bool:
        """Return whether the label of a person is the last class (the positive one, the highest grade) of an image.

        The rule then asks whether any image shows it, and the classes have an order.
        """
        return self.rule in ANY_IMAGE and not self.majority and (self.ordered or classes == 2)

    def apply(self, run: str, probabilities: NDArray[np.floating], bags: Bags) -> NDArray[np.float64]:
        """Return (people, classes) the predictions of people by one run; 0 for people without an image.

        Parameters
        ----------
        probabilities : (n, classes) of the images by one model of the run.

        Raises
        ------
        EnsembleError : the rule is fitted, and not to this run.
        """
        if self.rule in FIXED:
            return pool_images(probabilities, bags, self.rule, self.k, self.ordered)
        at = self.place(run)
        if self.rule == LOG_ODDS:
            assert self.damping is not None  # noqa: S101 - set for this rule
            assert self.prior is not None  # noqa: S101 - set for this rule
            return damped_log_odds(probabilities, bags, float(self.damping[at]), self.prior[at])
        assert self.coefficients is not None  # noqa: S101 - set for this rule
        return learned_pool(probabilities, bags, self.coefficients[at])

    def place(self, run: str) -> int:
        """Return the place of a run among those of a fitted rule; raise EnsembleError if it was not fitted to it."""
        if run not in self.runs:
            raise EnsembleError(f"`pool={self.rule}` was not fitted to the run '{run}'", hint=HINT)
        return self.runs.index(run)

    def as_record(self) -> dict[str, Any]:
        """Return plain values for a file, without what is not set."""
        record: dict[str, Any] = {"rule": self.rule}
        record |= {"ordered": True} if self.ordered else {}
        record |= {"majority": True} if self.majority else {}
        record |= {"k": self.k} if self.rule == TOP_K else {}
        record |= {"runs": list(self.runs)} if self.runs else {}
        for name in ("damping", "prior", "coefficients"):
            values = getattr(self, name)
            if values is not None:
                record[name] = plain_values(values)
        return record

    @staticmethod
    def from_record(record: Mapping[str, Any], classes: int, source: str) -> Pooling:
        """Return the pooling of a record of `as_record`; `source` is the name of the file in errors.

        Raises
        ------
        EnsembleError : a field is missing, has the wrong type or shape, or is out of range.
        """
        problems = validate_fields(record, _FIELDS)
        raise_problems(problems, f"{source}: pooling", HINT)
        rule, runs = record["rule"], tuple(record.get("runs") or ())
        n = len(runs)
        shapes: dict[str, tuple[int, ...]] = {}
        if rule == LOG_ODDS:
            shapes = {"damping": (n,), "prior": (n, classes)}
        elif rule == LEARNED:
            shapes = {"coefficients": (n, classes, len(STATISTICS) + 1)}
        if bool(shapes) != bool(runs) or len(set(runs)) < len(runs):
            raise EnsembleError(f"{source}: pooling: 'runs' must be the runs of a fitted rule", hint=HINT)
        numbers_of = NumberFields(record, f"{source}: pooling", _MAX_NUMBER, HINT).require
        arrays: Any = {name: numbers_of(name, shape) for name, shape in shapes.items()}
        if rule == LOG_ODDS:
            damping, prior = arrays["damping"], arrays["prior"]
            if not ((damping >= 0) & (damping <= 1)).all():
                raise EnsembleError(f"{source}: pooling: 'damping' must be from 0 to 1", hint=HINT)
            if (prior < 0).any() or not (np.abs(prior.sum(axis=1) - 1) <= _TOLERANCE).all():
                raise EnsembleError(f"{source}: pooling: 'prior' must be ≥ 0, with the sum 1 for each run", hint=HINT)
        ordered, majority = bool(record.get("ordered")), bool(record.get("majority"))
        return Pooling(rule, ordered, int(record.get("k") or DEFAULT_K), majority, runs, **arrays)


def plain_values(values: NDArray[np.float64]) -> Any:
    """Return nested lists of numbers, rounded for a file."""
    if values.ndim > 1:
        return [plain_values(row) for row in values]
    return [float(f"{value:.{_DIGITS}g}") for value in values.tolist()]
