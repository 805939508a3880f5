"""All ways to combine runs, by the name that ``--method`` takes.

What they find depends on the stack and the seed alone, and runs are in the order of their names. Other orders of the
samples change sums in their last digits, and what is found by steps (simplex, exp, per-class, stacking, calibration) as
far as its tolerance; greedy takes another run only where two score alike to six decimals.
"""

from __future__ import annotations

from dataclasses import replace

from ensemble.learning.calibration import calibrated
from ensemble.learning.class_bias import biased
from ensemble.learning.class_weights import per_class
from ensemble.learning.combination import Combination, Fitter
from ensemble.learning.remembered import remembered
from ensemble.learning.stack import Stack
from ensemble.learning.stacking import stacking
from ensemble.learning.weights import BAGS, WARM, best_single, exponential, greedy, simplex
from ensemble.voting.vote import METHODS
from folds.errors import unknown
from folds.metrics.classification import Metric

# Of `METHODS`, the one whose weights a user has to give.
GIVEN = "weighted"
SOFT, BEST = "soft", "best"


def plain(method: str) -> Fitter:
    """A method of `ensemble.voting.METHODS` with every run worth the same: nothing is learnt."""

    def fit(stack: Stack, metric: Metric, seed: int = 0) -> Combination:
        return Combination(stack.names, pool=method)

    return Fitter(method, METHODS[method].title, fit, learns=False)


PLAIN: dict[str, Fitter] = {name: plain(name) for name in METHODS if name != GIVEN}
STACKING = Fitter("stacking", "logistic regression on log probabilities", remembered(stacking))
FITTERS: dict[str, Fitter] = PLAIN | {
    fitter.name: fitter
    for fitter in (
        Fitter("best", "the best single run", best_single),
        Fitter("greedy", "greedy selection of runs", greedy()),
        Fitter("greedy-bagged", f"greedy selection, the mean of {BAGS} among half of the runs", greedy(bags=BAGS)),
        Fitter("greedy-warm", f"greedy selection that starts with the {WARM} best runs", greedy(warm=WARM)),
        Fitter("simplex", "mean of probabilities, weights of the least log loss", simplex),
        Fitter("exp", "mean of probabilities, weights exp(−t · log loss)", exponential),
        Fitter("per-class", "mean of probabilities, weights for each class", per_class),
        replace(biased(PLAIN["soft"]), name="bias"),
        replace(biased(PLAIN["geometric"]), name="bias-geometric"),
        STACKING,
        replace(biased(STACKING), name="stacking-bias"),
    )
}


def fitter_of(name: str) -> Fitter:
    """The fitter of a name.

    Raises
    ------
    UsageError : there is none; the nearest are offered.
    """
    if name not in FITTERS:
        raise unknown("method", name, list(FITTERS))
    return FITTERS[name]


def candidates(metric: Metric) -> list[Fitter]:
    """What ``auto`` tries: everything there is; where a metric is not of decisions, calibration in place of what moves those."""
    if metric.of_counts is not None:
        return list(FITTERS.values())
    calibrations = [calibrated(FITTERS[name], "temperature", where) for name in ("soft", "geometric", "greedy") for where in ("before", "after")]
    return [*(fitter for fitter in FITTERS.values() if not fitter.moves), *calibrations]
