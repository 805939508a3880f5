"""All ways to combine runs, by the name that ``--method`` takes.

What they find depends on the stack and the seed alone, and runs are in the order of their names. Other orders of the
samples change sums in their last digits, and what is found by steps (simplex, exp, per-class, stacking, calibration) as
far as its tolerance; greedy takes another run only where two score alike to six decimals.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import replace
from functools import wraps
from threading import Lock

from ensemble.learning.calibration import calibrated
from ensemble.learning.class_bias import biased
from ensemble.learning.class_weights import per_class
from ensemble.learning.combination import Combination, Fit, Fitter
from ensemble.learning.stack import Stack
from ensemble.learning.stacking import stacking
from ensemble.learning.weights import BAGS, WARM, best_single, exponential, greedy, simplex
from ensemble.voting.vote import METHODS
from folds.metrics.classification import Metric

_MOST = 64


def memoize_fit(fit: Fit) -> Fit:
    """The fit, of which the last results are kept by the content of what it learnt on.

    A combination is a few numbers; to hash what it is learnt on takes a hundredth of the time that learning takes.
    """
    known: OrderedDict[tuple[str, str, int], Combination] = OrderedDict()
    lock = Lock()

    @wraps(fit)
    def once(stack: Stack, metric: Metric, seed: int = 0) -> Combination:
        key = (_content(stack), f"{metric.name} {metric.sha}", seed)
        with lock:
            if key in known:
                known.move_to_end(key)
                return known[key]
        found = fit(stack, metric, seed)
        with lock:
            known[key] = found
            while len(known) > _MOST:
                known.popitem(last=False)
        return found

    return once


def _content(stack: Stack) -> str:
    digest = hashlib.blake2b(repr((stack.names, stack.probabilities.shape)).encode())
    for values in (stack.probabilities, stack.present, stack.labels, stack.persons, stack.outer_folds):
        if values is not None:
            digest.update(values.tobytes() if not values.flags.c_contiguous else values.data)
    return digest.hexdigest()


# Of `METHODS`, the one whose weights a user has to give.
GIVEN = "weighted"
SOFT, BEST = "soft", "best"


def plain(method: str) -> Fitter:
    """A method of `ensemble.voting.METHODS` with every run worth the same: nothing is learnt."""

    def fit(stack: Stack, metric: Metric, seed: int = 0) -> Combination:
        return Combination(stack.names, pool=method)

    return Fitter(method, METHODS[method].title, fit, is_fitted=False)


PLAIN: dict[str, Fitter] = {name: plain(name) for name in METHODS if name != GIVEN}
STACKING = Fitter("stacking", "logistic regression on log probabilities", memoize_fit(stacking))
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


def candidates(metric: Metric) -> list[Fitter]:
    """What ``auto`` tries: everything there is; where a metric is not of decisions, calibration in place of what moves
    those.
    """
    if metric.from_counts is not None:
        return list(FITTERS.values())
    calibrations = [
        calibrated(FITTERS[name], "temperature", where)
        for name in ("soft", "geometric", "greedy")
        for where in ("before", "after")
    ]
    return [*(fitter for fitter in FITTERS.values() if not fitter.moves), *calibrations]
