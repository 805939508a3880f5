"""Draw people with several labels, or with numbers and grades: stacks in memory, and prediction files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.learning.columns.stack import ColumnStack
from folds.predictions.files import PredictionMetadata, SampleRows, write_prediction
from folds.predictions.label_columns import label_texts
from folds.predictions.links import kind_of

LABELS = ("hat", "glasses", "beard")
SHARES = (0.45, 0.25, 0.12)


def labels_of(
    seed: int, people: int, each: int = 2, shares: tuple[float, ...] = SHARES
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return (n, labels) 0 and 1, and persons; the labels of a person's images are mostly the same."""
    random = np.random.default_rng(seed)
    persons = np.repeat(np.arange(people), each)
    own = random.random((people, len(shares))) < shares
    changed = random.random((len(persons), len(shares))) < 0.1
    return np.where(changed, ~own[persons], own[persons]).astype(np.float64), persons


def probabilities_of(
    labels: NDArray[np.float64], persons: NDArray[np.int64], seed: int, skills: tuple[float, ...], sharp: float = 1.0
) -> NDArray[np.float32]:
    """Return (runs, n, labels): each run has errors of its own, half of them common to a person's images."""
    random, found = np.random.default_rng(seed), []
    for skill in skills:
        noise = 0.7 * random.normal(size=(persons.max() + 1, labels.shape[1]))[persons]
        logits = skill * (2 * labels - 1) + noise + 0.7 * random.normal(size=labels.shape)
        found.append(1 / (1 + np.exp(-sharp * logits)))
    return np.array(found, np.float32)


def label_stack(
    seed: int = 0,
    people: int = 60,
    skills: tuple[float, ...] = (1.2, 0.7, 0.3),
    unknown: float = 0.0,
    sharp: float = 1.0,
) -> ColumnStack:
    """Return a stack of several labels, a share of which is unknown."""
    labels, persons = labels_of(seed, people)
    values = probabilities_of(labels, persons, seed + 1000, skills, sharp)
    random = np.random.default_rng(seed + 2000)
    labels[random.random(labels.shape) < unknown] = np.nan
    names = tuple(f"r{i}" for i in range(len(skills)))
    return ColumnStack(names, values, None, labels, persons, persons % 5, columns=LABELS, task="multilabel")


def number_stack(
    seed: int = 0, people: int = 60, errors: tuple[float, ...] = (4, 6, 9), columns: int = 1
) -> ColumnStack:
    """Return a stack of numbers, of runs with errors of these sizes and biases of their own."""
    random = np.random.default_rng(seed)
    persons = np.repeat(np.arange(people), 2)
    truth = random.normal(40, 10, (people, columns))[persons] + random.normal(0, 1, (2 * people, columns))
    values = [truth + random.normal(i, error, truth.shape) for i, error in enumerate(errors)]
    names = tuple(f"r{i}" for i in range(len(errors)))
    numbers = tuple(f"n{i}" for i in range(columns))
    made = np.array(values, np.float32)
    return ColumnStack(names, made, None, truth, persons, persons % 5, columns=numbers, task="regression")


def write_columns(
    path: Path,
    values: NDArray[Any],
    task: str,
    names: tuple[str, ...],
    labels: NDArray[np.float64] | None = None,
    persons: NDArray[np.int64] | None = None,
    start: int = 0,
    logit: bool = False,
) -> Path:
    """Write a prediction file of labels or numbers, named ``RUN.oof.npy`` or ``RUN.test.npy``."""
    run, split = path.name.split(".")[:2]
    ids = np.array([f"{split}{i}" for i in range(start, start + len(values))])
    rows = SampleRows(
        ids,
        None if labels is None else label_texts(labels, names, task),
        None if persons is None else np.array([f"p{one}" for one in persons]),
    )
    fold = None if persons is None else persons % 5
    kind = "logit" if logit else kind_of(task)
    return write_prediction(path, values, PredictionMetadata(kind, split, names, rows, fold=fold, run=run, task=task))
