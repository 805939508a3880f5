"""Describe a cascade as plain values: which models predict first, and when the others are not needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from folds.utils.schema import (
    ANYTHING,
    BOOL,
    NUMBER,
    ONE_LINE,
    integer,
    list_of,
    mapping_of,
    one_of,
    optional,
    raise_problems,
    validate_fields,
)

# The nested score of a cascade with its interval, and cascade − all models with its interval.
SCORE_NAMES = ("score", "low", "high", "difference", "difference_low", "difference_high")
MAX_STEPS, MAX_VIEWS, MAX_FOLDS = 64, 10_000, 10_000
_STEP = {
    "views": mapping_of(integer(1, MAX_VIEWS), ONE_LINE),
    "folds": integer(1, MAX_FOLDS),
    "threshold": NUMBER,
}
_TOP = {
    "steps": list_of(mapping_of(ANYTHING)),
    "exact": BOOL,
    "tolerance": optional(NUMBER),
    "metric": ONE_LINE,
    "costs": mapping_of(NUMBER, ONE_LINE),
    "score": optional(mapping_of(NUMBER, one_of(*SCORE_NAMES))),
}
_HINT = "fit the cascade again"


@dataclass(frozen=True)
class Step:
    """A point at which an image can be decided early.

    Attributes
    ----------
    views : run → number of its views that are used; runs that are not named have not predicted yet.
    folds : number of fold models of each of these runs.
    threshold : an image is decided here if the highest class leads by this probability, and the models of every fold,
        combined, name the same class.
    """

    views: Mapping[str, int]
    folds: int
    threshold: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"views": dict(self.views), "folds": self.folds, "threshold": self.threshold}


@dataclass(frozen=True)
class Cascade:
    """The order in which models predict an image, and when the remaining ones are skipped.

    An image that no step decides is predicted by all models, like without a cascade.

    Attributes
    ----------
    steps : each uses at least the models and views of the step before it.
    exact : whether the remaining models are also skipped once they can no longer change the decision.
    tolerance : largest loss of the score that was allowed; None for a cascade of exact skips only.
    metric : metric of the tolerance.
    costs : run → cost of one forward pass, in any unit; orders the models.
    score : the nested score by the names in `SCORE_NAMES`; None if it is not known. An interval that could not be
        computed is absent.
    """

    steps: tuple[Step, ...] = ()
    exact: bool = True
    tolerance: float | None = None
    metric: str = "macro_f1"
    costs: Mapping[str, float] = field(default_factory=dict)
    score: Mapping[str, float] | None = None

    @property
    def loses_nothing(self) -> bool:
        """Return whether no decision changes: nothing is skipped but what cannot change one."""
        return not self.steps

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a file; the inverse of `from_json`."""
        return {
            "steps": [step.to_dict() for step in self.steps],
            "exact": self.exact,
            "tolerance": self.tolerance,
            "metric": self.metric,
            "costs": dict(self.costs),
        } | ({} if self.score is None else {"score": dict(self.score)})

    @classmethod
    def from_json(cls, record: Any, views: Mapping[str, int], folds: Mapping[str, int], source: str) -> Cascade:
        """Return the cascade of a record from `to_dict`, validated.

        Parameters
        ----------
        views, folds : run → number of its views and of its fold models, for the runs of the blend.
        source : name of the file, for errors.

        Raises
        ------
        EnsembleError : a field is missing or of another type, a run is unknown, a number is out of range, or a step
            uses less than the one before.
        """
        wrong = validate_fields(record, _TOP)
        if not wrong and len(record["steps"]) > MAX_STEPS:
            wrong = [f"expected at most {MAX_STEPS} 'steps', found {len(record['steps']):,}"]
        if not wrong:
            for number, step in enumerate(record["steps"]):
                wrong += [f"step {number}: {line}" for line in validate_fields(step, _STEP)]
        raise_problems(wrong, source, _HINT)
        steps = tuple(Step(dict(step["views"]), step["folds"], float(step["threshold"])) for step in record["steps"])
        tolerance = record.get("tolerance")
        cascade = cls(
            steps,
            record["exact"],
            None if tolerance is None else float(tolerance),
            record["metric"],
            {run: float(cost) for run, cost in record["costs"].items()},
            None if record.get("score") is None else {name: float(one) for name, one in record["score"].items()},
        )
        problems = cascade.problems(views, folds)
        raise_problems(problems, source, _HINT)
        return cascade

    def problems(self, views: Mapping[str, int], folds: Mapping[str, int]) -> list[str]:
        """Return one line for each value that does not fit these runs; see `from_json`."""
        wrong = []
        if self.tolerance is not None and not 0 <= self.tolerance <= 1:
            wrong.append("'tolerance' must be from 0 to 1")
        if any(not 0 < cost < 1e12 for cost in self.costs.values()):
            wrong.append("'costs' must be above 0")
        if self.score is not None and not {"score", "difference"} <= set(self.score):
            wrong.append("'score' must have 'score' and 'difference'")
        wrong += [f"'costs' names '{run}', which is no run of the blend" for run in self.costs if run not in views]
        before: Step | None = None
        for number, step in enumerate(self.steps):
            wrong += [f"step {number}: {line}" for line in _step_problems(step, before, views, folds)]
            before = step
        return wrong


def _step_problems(step: Step, before: Step | None, views: Mapping[str, int], folds: Mapping[str, int]) -> list[str]:
    wrong = []
    if not step.views:
        wrong.append("'views' must name one run or more")
    for run, count in step.views.items():
        if run not in views:
            wrong.append(f"'views' names '{run}', which is no run of the blend")
        elif count not in (1, views[run]) or step.folds > folds[run]:
            wrong.append(
                f"run '{run}': expected 1 or all {views[run]} views, and at most {folds[run]} models, found {count} "
                f"views and {step.folds} models"
            )
    if not 0 <= step.threshold <= 2:
        wrong.append("'threshold' must be from 0 to 2")
    if before is not None and (
        step.folds < before.folds or any(step.views.get(run, 0) < count for run, count in before.views.items())
    ):
        wrong.append("it uses less than the step before")
    return wrong
