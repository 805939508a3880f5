"""Hard voting equals a count by hand for mixed fold models and hard labels, with weights and absent runs."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ensemble.voting.vote import vote
from tests.ensemble.small_runs import answer_run, draw, probability_run, split_of

CLASSES = 3


def decided(row: int, models: dict[str, list[NDArray]], weight: dict[str, int], ranking: list[str]) -> tuple[int, bool]:
    """Return the class that wins a row, and whether it was a tie; models give (n, classes) values or (n,) labels."""
    active = {run: own for run, own in models.items() if weight[run] > 0}
    predictions = {
        run: [int(model[row].argmax()) if model.ndim == 2 else int(model[row]) for model in own]
        for run, own in active.items()
    }
    count = [
        sum(Fraction(weight[run] * votes.count(c), len(votes)) for run, votes in predictions.items())
        for c in range(CLASSES)
    ]
    tied = [c for c in range(CLASSES) if count[c] == max(count)]
    if len(tied) == 1:
        return tied[0], False
    means = {
        run: np.mean([model[row] for model in own], axis=0) * weight[run]
        for run, own in active.items()
        if own[0].ndim == 2
    }
    if means:
        mean = sum(means.values())
        candidates = [c for c in tied if mean[c] >= max(mean[c] for c in tied) - 1e-9]
    else:
        candidates = tied
    for run in ranking:
        own = [c for c in predictions.get(run, []) if c in candidates]
        if own:
            most = max(own.count(c) for c in own)
            candidates = [c for c in candidates if own.count(c) == most]
    return candidates[0], True


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    kinds=st.lists(st.integers(0, 3), min_size=1, max_size=5),  # 0: hard labels; else that many fold models
    weights=st.lists(st.integers(0, 2), min_size=5, max_size=5),
)
def test_a_tie_goes_to_the_mean_then_to_the_first_ranked(seed: int, kinds: list[int], weights: list[int]) -> None:
    rng, n = np.random.default_rng(seed), 4
    models: dict[str, list[NDArray]] = {}
    runs = []
    for i, kind in enumerate(kinds):
        name = f"r{i}"
        models[name] = (
            [rng.integers(0, CLASSES, n)] if kind == 0 else [draw(n, CLASSES, seed + 10 * i + j) for j in range(kind)]
        )
        runs.append(answer_run(name, models[name][0], CLASSES) if kind == 0 else probability_run(name, *models[name]))
    weight = {f"r{i}": w for i, w in enumerate(weights[: len(kinds)])}
    if not any(weight.values()):
        weight["r0"] = 1
    ranking = [f"r{i}" for i in rng.permutation(len(kinds))]
    result = vote(split_of(*runs, n=n), "hard", {run: float(w) for run, w in weight.items()}, ranking)
    expected = [decided(row, models, weight, ranking) for row in range(n)]
    assert result.probabilities.argmax(1).tolist() == [c for c, _ in expected]
    assert result.ties == sum(tie for _, tie in expected)
