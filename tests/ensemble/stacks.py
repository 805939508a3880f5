"""Draw stacks for the tests of fitted methods: runs of different skill and confidence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ensemble.learning.stack import Stack


def drawn(seed: int = 0, runs: int = 4, n: int = 300, classes: int = 4, per_person: int = 3, parts: int = 5) -> Stack:
    """Return runs of increasing skill; the first class is eight times as frequent as the last."""
    random = np.random.default_rng(seed)
    persons = np.arange(n) // per_person
    share = np.geomspace(8, 1, classes)
    labels = random.choice(classes, n, p=share / share.sum())
    shared = random.normal(size=(n, classes))
    values = np.empty((runs, n, classes))
    for run in range(runs):
        logits = shared + random.normal(size=(n, classes))
        logits[np.arange(n), labels] += 1 + 0.5 * run
        logits *= random.uniform(0.5, 2)
        values[run] = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return Stack(
        tuple(f"r{run}" for run in range(runs)),
        values.astype(np.float32),
        None,
        labels.astype(np.int64),
        persons,
        persons % parts,
    )


def with_gaps(stack: Stack, share: float = 0.2, seed: int = 0) -> Stack:
    """Return the stack with some predictions removed, but at least one left for each sample."""
    present = np.random.default_rng(seed).random(stack.probabilities.shape[:2]) >= share
    present[0, ~present.any(axis=0)] = True
    return replace(stack, probabilities=stack.probabilities * present[:, :, None], present=present)
