"""Build small runs in memory, as alignment makes them from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ensemble.alignment.split import AlignedFile, AlignedSplit, RunPredictions
from ensemble.members.reading import Member
from folds.predictions.files import SampleRows


def member(values: NDArray | None, answers: NDArray | None = None) -> Member:
    return Member(Path("x.npy"), "x", values, answers, False, None, None, None, "")


def probability_run(name: str, *folds: NDArray, rows: NDArray | None = None) -> RunPredictions:
    return RunPredictions(
        name, tuple(AlignedFile(member(values), rows) for values in folds), folds[0].shape[1], tuple(range(len(folds)))
    )


def answer_run(name: str, codes: NDArray, classes: int) -> RunPredictions:
    return RunPredictions(
        name, (AlignedFile(member(None, codes.astype(str)), answers=np.asarray(codes, np.int64)),), classes
    )


def split_of(*runs: RunPredictions, n: int) -> AlignedSplit:
    return AlignedSplit("test", SampleRows(np.arange(n).astype(str)), tuple(map(str, range(runs[0].classes))), runs)


def draw(n: int, classes: int, seed: int) -> NDArray[np.float64]:
    values = np.random.default_rng(seed).integers(1, 4, (n, classes)).astype(float)
    return values / values.sum(1, keepdims=True)


def grid(n: int, classes: int, seed: int, sizes: list[int]) -> list[RunPredictions]:
    return [
        probability_run(f"r{i}", *(draw(n, classes, seed + 100 * i + j) for j in range(size)))
        for i, size in enumerate(sizes)
    ]


def values_of(run: RunPredictions) -> list[NDArray]:
    return [np.asarray(part.member.values) for part in run.parts]
