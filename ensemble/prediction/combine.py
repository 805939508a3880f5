"""Combine the predictions of fold models as `ensemble blend` does: average each run's folds, then pool the runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ensemble.alignment.attributes import join_attributes
from ensemble.alignment.split import AlignedFile, AlignedSplit, RunPredictions
from ensemble.learning.apply import apply_combination
from ensemble.members.reading import Member
from ensemble.pooling.people import split_by_person
from ensemble.prediction.source import FoldModel, PredictionSource, RunModels
from folds.errors import EnsembleError
from folds.predictions.rows import SampleRows


def member_key(run: RunModels, model: FoldModel) -> str:
    """Return the key of the predictions of a fold model among those of all models."""
    return f"{run.name} {model.checkpoint.fold}"


def as_combined(run: RunModels, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (n, columns) the predictions of a fold model as they are combined: a number that is handed over as grades.

    Each model's number is handed over before the folds are averaged, as `ensemble blend` does with the test files.

    Parameters
    ----------
    values : (n, classes of the run).
    """
    return values if run.hand_over is None else run.hand_over.probabilities(values[:, 0]).astype(np.float32)


def combine_members(
    source: PredictionSource,
    members: Mapping[str, NDArray[np.float32]],
    rows: SampleRows,
    kept: NDArray[np.int64] | None = None,
) -> NDArray[np.float32]:
    """Return (n, classes) the combination of the predictions of all fold models.

    A combination for people returns (people, classes), in the order of their sorted names.

    Parameters
    ----------
    members : `member_key` → (m, classes of the run) probabilities.
    rows : of the n images.
    kept : (n,) rows of the members; None if they are all.
    """
    by_name: dict[str, RunPredictions] = {}
    for run in source.runs:
        parts = []
        for model in run.models:
            values = as_combined(run, members[member_key(run, model)])
            member = Member(model.path, run.name, values, None, False, None, rows, None, model.sha, task=source.task)
            parts.append(AlignedFile(member, kept, _columns_of(source, run), fold=model.checkpoint.fold))
        if parts:
            columns = len(run.classes if run.hand_over is None else source.classes)
            by_name[run.name] = RunPredictions(run.name, tuple(parts), columns, run.folds, len(rows.ids))
    for run in source.runs:
        if run.joined:
            by_name[run.name] = _joined(source, run, by_name)
    runs = tuple(by_name[name] for name in source.combination.runs)
    split = AlignedSplit("test", rows, source.classes, runs, source.target, source.class_attributes, task=source.task)
    if source.combination.pooling is not None:
        split = split_by_person(split, source.combination.pooling)
    return apply_combination(split, source.combination, source.ranking).probabilities


def _columns_of(source: PredictionSource, run: RunModels) -> NDArray[np.int64] | None:
    """Return the column of each class of the source in the predictions of a run; None if they have one order.

    The order differs only in a file that was changed. Runs of attributes and numbers have columns of their own.
    """
    if run.hand_over is not None or run.name not in source.combination.runs or run.classes == source.classes:
        return None
    return np.array([run.classes.index(name) for name in source.classes], np.int64)


def _joined(source: PredictionSource, run: RunModels, by_name: Mapping[str, RunPredictions]) -> RunPredictions:
    """Return attribute runs as one run of the label."""
    factors: dict[str, tuple[tuple[str, ...], list[RunPredictions]]] = {}
    for part in source.runs:
        if part.name in run.joined:
            factors.setdefault(part.target, (part.classes, []))[1].append(by_name[part.name])
    made = join_attributes(factors, source.classes, source.class_attributes)
    if len(made) != 1:
        raise EnsembleError(f"the attribute runs of {run.name} do not join to one run", hint="run ensemble blend again")
    return replace(made[0], name=run.name)
