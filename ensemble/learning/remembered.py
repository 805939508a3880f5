"""A fit that is asked for again is not made again: a choice inside the nest fits on the same people many times."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from functools import wraps
from threading import Lock

from ensemble.learning.combination import Combination, Fit
from ensemble.learning.stack import Stack
from folds.metrics.classification import Metric

_MOST = 64


def remembered(fit: Fit) -> Fit:
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
    for values in (stack.probabilities, stack.present, stack.labels, stack.persons, stack.nests):
        if values is not None:
            digest.update(values.tobytes() if not values.flags.c_contiguous else values.data)
    return digest.hexdigest()
