"""Publish the finished folds of a run as prediction files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from folds.data.tasks import recorded_task
from folds.metrics.task_names import CLASSES
from folds.predictions.files import PredictionMetadata, oof_file, read_array, sidecar_path, write_prediction
from folds.predictions.links import kind_of
from folds.runs.plan import Plan
from folds.runs.run import Run
from folds.utils.files import read_json


def write_predictions(plan: Plan, run: Run) -> None:
    """Write the finished folds of a run to ``runs/<run>.oof.npy``, and its test predictions.

    The out-of-fold file has one row per training sample, in the order of the table, without the rows of folds that are
    not trained.
    """
    finished = [(fold, done) for fold in range(run.assignment.k) if (done := run.done(fold)) is not None]
    if not finished:
        return
    table = plan.table
    probabilities = np.zeros((len(table), len(run.target.classes)), np.float32)
    present = np.zeros(len(table), bool)
    for fold, _ in finished:
        rows = run.assignment.validation_index(fold)
        probabilities[rows] = read_array(run.fold_folder(fold) / "oof.npy")
        present[rows] = True
    index = np.flatnonzero(present)
    shared = PredictionMetadata(
        kind=kind_of(run.target.task),
        split="oof",
        classes=run.target.classes,
        rows=table.rows().take(index),
        target=run.target.name,
        class_attributes=table.class_attributes,
        fold=run.assignment.fold[index],
        run=run.name,
        arch=run.architecture.timm_name,
        seed=run.recipe.seed,
        repeat=run.assignment.repeat,
        folds_sha=run.assignment.sha,
        checkpoint_sha={str(fold): done["checkpoint_sha"] for fold, done in finished},
        teacher=finished[0][1].get("teacher"),
        task=recorded_task(run.recipe.task, run.recipe.positive, run.target.name, run.target.classes),
        exclusive=run.recipe.task == CLASSES,
        label_of=plan.spec.label_of,
    )
    path = oof_file(run.runs, run.name)
    if not _published(path, shared):
        write_prediction(path, probabilities[index], shared, samples=table.rows())
    test = plan.data.test
    if test is None:
        return
    for fold, done in finished:
        path = run.runs / f"{run.name}.fold{fold}.test.npy"
        sidecar = replace(shared, split="test", rows=test.rows(), fold=fold, checkpoint_sha=done["checkpoint_sha"])
        if not _published(path, sidecar):
            write_prediction(path, read_array(run.fold_folder(fold) / "test.npy"), sidecar, samples=test.rows())


def _published(path: Path, sidecar: PredictionMetadata) -> bool:
    """Return whether `path` already has the predictions of exactly these folds."""
    if not (path.exists() and sidecar_path(path).exists()):
        return False
    return read_json(sidecar_path(path)).get("checkpoint_sha") == sidecar.checkpoint_sha and len(
        read_array(path)
    ) == len(sidecar.rows)
