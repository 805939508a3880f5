"""Register all methods of combining runs by the name in ``--method``.

Results depend only on the stack and the seed; runs are in the order of their names. Another order of the samples
changes sums in their last digits and iterative methods (simplex, exp, per-class, stacking, calibration) within their
tolerance. Greedy selection takes another run only if two scores are equal to six decimals.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from functools import partial, update_wrapper
from threading import Lock

from ensemble.learning.calibration import calibrated
from ensemble.learning.class_bias import biased
from ensemble.learning.class_weights import per_class
from ensemble.learning.combination import Combination, Fit, Fitter
from ensemble.learning.stack import Stack
from ensemble.learning.stacking import stacking
from ensemble.learning.weights import BAGS, WARM, best_single, exponential, greedy, simplex
from ensemble.voting.vote import GRADES, METHODS
from folds.metrics.classification import Metric

_MAX_RESULTS = 64


def memoize_fit(fit: Fit) -> Fit:
    """Return the fit with a cache of its last results, keyed by the content of the stack, the metric and the seed.

    A combination is a few numbers, and hashing a stack takes about 1/100 of the time of a fit.
    """
    return _Memoized(fit)


class _Memoized:
    """A fit with a cache, which is not pickled."""

    def __init__(self, fit: Fit) -> None:
        self.fit = fit
        self.cache: OrderedDict[tuple[str, str, int], Combination] = OrderedDict()
        self.lock = Lock()
        update_wrapper(self, fit)

    def __call__(self, stack: Stack, metric: Metric, seed: int = 0) -> Combination:
        key = (_content(stack), f"{metric.name} {metric.sha}", seed)
        with self.lock:
            if key in self.cache:
                self.cache.move_to_end(key)
                return self.cache[key]
        found = self.fit(stack, metric, seed)
        with self.lock:
            self.cache[key] = found
            while len(self.cache) > _MAX_RESULTS:
                self.cache.popitem(last=False)
        return found

    def __reduce__(self) -> tuple[Callable[[Fit], Fit], tuple[Fit]]:
        return memoize_fit, (self.fit,)


def _content(stack: Stack) -> str:
    digest = hashlib.blake2b(repr((stack.names, stack.probabilities.shape)).encode())
    for values in (stack.probabilities, stack.present, stack.labels, stack.persons, stack.outer_folds):
        if values is not None:
            digest.update(values.tobytes() if not values.flags.c_contiguous else values.data)
    for column in stack.extra:
        digest.update(repr((column.name, column.is_number, column.texts.tolist())).encode())
    return digest.hexdigest()


# The method of `METHODS` that needs weights from the user, and the one that needs ordered classes.
GIVEN = "weighted"
SOFT, BEST = "soft", "best"


def plain(method: str) -> Fitter:
    """Return a method of `ensemble.voting.vote.METHODS` with equal weights as a fitter that fits nothing."""

    return Fitter(method, METHODS[method].title, partial(_equal_weights, method), is_fitted=False)


def _equal_weights(method: str, stack: Stack, metric: Metric, seed: int = 0) -> Combination:
    return Combination(stack.names, pool=method)


PLAIN: dict[str, Fitter] = {name: plain(name) for name in METHODS if name != GIVEN}
STACKING = Fitter("stacking", "logistic regression on log probabilities", memoize_fit(stacking))
FITTERS: dict[str, Fitter] = PLAIN | {
    fitter.name: fitter
    for fitter in (
        Fitter("best", "the best single run", best_single),
        Fitter("greedy", "greedy selection of runs", greedy()),
        Fitter("greedy-bagged", f"greedy selection, mean of {BAGS} from half of the runs each", greedy(bags=BAGS)),
        Fitter("greedy-warm", f"greedy selection, starts with the {WARM} best runs", greedy(warm=WARM)),
        Fitter("simplex", "mean of probabilities, weights with the smallest log loss", simplex),
        Fitter("exp", "mean of probabilities, weights exp(−t · log loss)", exponential),
        Fitter("per-class", "mean of probabilities, weights for each class", per_class),
        replace(biased(PLAIN["soft"]), name="bias"),
        replace(biased(PLAIN["geometric"]), name="bias-geometric"),
        STACKING,
        replace(biased(STACKING), name="stacking-bias"),
    )
}


def candidates(metric: Metric) -> list[Fitter]:
    """Return the fitters that ``auto`` compares, for classes without an order.

    For metrics not of counts, calibrations replace class biases.
    """
    known = [fitter for fitter in FITTERS.values() if fitter.name != GRADES]
    if metric.from_counts is not None:
        return known
    calibrations = [
        calibrated(FITTERS[name], "temperature", where)
        for name in ("soft", "geometric", "greedy")
        for where in ("before", "after")
    ]
    return [*(fitter for fitter in known if not fitter.adds_bias), *calibrations]
