"""Draw what a cascade is fitted to: runs of several fold models, out of fold and on unseen people."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ensemble.cascade.predictions import CascadeEvidence, Unseen
from ensemble.cascade.run import RunModel
from ensemble.tta.merge import Merge
from folds.utils.numeric import softmax

CLASSES = 4


def run_models(folds: int = 5, views: int = 2, runs: int = 2) -> tuple[RunModel, ...]:
    names = ["none", "hflip", "vflip", "rot90"][:views]
    return tuple(RunModel(f"r{i}", Merge("mean", dict.fromkeys(names, (1.0,))), folds) for i in range(runs))


def logits(random: np.random.Generator, labels: NDArray, models: int, skill: float = 2.0) -> NDArray[np.float64]:
    """Return (models, 2, n, classes): models share an image's difficulty, and its two views a model's error."""
    n = len(labels)
    shared = random.normal(size=(n, CLASSES)) * random.choice([0.2, 2.0], n, p=[0.7, 0.3])[:, None]
    own = shared + 0.5 * random.normal(size=(models, n, CLASSES))
    own[:, np.arange(n), labels] += skill
    return np.stack([own, own + 0.2 * random.normal(size=own.shape)], axis=1)


def evidence(
    seed: int = 0, n: int = 300, folds: int = 5, views: int = 2, runs: int = 2, unseen: int = 240, skill: float = 2.0
) -> CascadeEvidence:
    """Return predictions of `n` images of people in five parts, and of `unseen` other images by every fold model."""
    random = np.random.default_rng(seed)
    models = run_models(folds, views, runs)

    def draw(count: int, each: int) -> tuple[NDArray, NDArray, NDArray]:
        labels = random.integers(0, CLASSES, count)
        found = logits(random, labels, runs * each, skill).reshape(runs, each, 2, count, CLASSES)
        first = softmax(found[:, :, 0])
        full = first if views < 2 else (first + softmax(found[:, :, 1])) / 2
        return labels, first.astype(np.float32), full.astype(np.float32)

    labels, first, full = draw(n, 1)
    persons = np.arange(n) // 3
    other = None
    if unseen:
        truth, other_first, other_full = draw(unseen, folds)
        other = Unseen(tuple(other_first), tuple(other_full), np.arange(unseen) // 3, truth)
    return CascadeEvidence(models, first[:, 0], full[:, 0], labels, persons, persons % 5, other)
