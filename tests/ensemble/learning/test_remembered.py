"""A fit is cached for equal inputs only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ensemble.learning.combination import Combination
from ensemble.learning.registry import memoize_fit
from ensemble.learning.stack import Stack
from folds.metrics.classification import METRICS, Metric
from tests.ensemble.worlds import world

F1, LOSS = METRICS["macro_f1"], METRICS["log_loss"]


def test_equal_inputs_are_fitted_once() -> None:
    made: list[int] = []

    def fit(stack: Stack, metric: Metric, seed: int = 0) -> Combination:
        made.append(seed)
        return Combination(stack.names, summary=f"fit {len(made)}")

    once = memoize_fit(fit)
    stack = world()
    first = once(stack, F1, 0)
    assert once(replace(stack, probabilities=stack.probabilities.copy()), F1, 0) is first
    changed = stack.probabilities.copy()
    changed[0, 0] = changed[0, 0][::-1]
    others = [
        (stack, LOSS, 0),
        (stack, F1, 1),
        (replace(stack, probabilities=changed), F1, 0),
        (replace(stack, labels=(stack.labels + 1) % 4), F1, 0),
        (replace(stack, persons=stack.persons[::-1]), F1, 0),
        (replace(stack, outer_folds=(stack.outer_folds + 1) % 5), F1, 0),
        (replace(stack, names=("a", "b", "c")), F1, 0),
        (replace(stack, present=np.ones(stack.probabilities.shape[:2], bool)), F1, 0),
        (stack.take(np.arange(10)), F1, 0),
    ]
    for given in others:
        assert once(*given) is not first
    assert len(made) == 1 + len(others)


def test_the_cache_size_is_limited() -> None:
    made: list[int] = []

    def fit(stack: Stack, metric: Metric, seed: int = 0) -> Combination:
        made.append(seed)
        return Combination(stack.names)

    once, stack = memoize_fit(fit), world(people=10)
    for seed in range(65):
        once(stack, F1, seed)
    once(stack, F1, 64)
    assert len(made) == 65
    once(stack, F1, 0)
    assert len(made) == 66
