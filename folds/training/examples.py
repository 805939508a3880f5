"""Put together what a fold learns from: images with classes, people, weights and targets, pseudo-labeled ones too.

Pseudo-labeled images are rows after those of the table: row n + j is test image j.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from folds.config.recipe import Recipe
from folds.data.targets import Target
from folds.errors import EnsembleError
from folds.metrics.task_names import COLUMN_TASKS
from folds.predictions.files import load_npy, read_array
from folds.predictions.label_columns import label_matrix
from folds.splits.assignment import FoldAssignment
from folds.training.job import Job
from folds.utils.csv_table import read_csv

_AGAIN = "this file is part of the run; `force=True` retrains the run from scratch"


@dataclass(frozen=True)
class Examples:
    """What a fold learns from; all arrays have a row for each image of the table, then for each test image if used.

    Attributes
    ----------
    rows : rows to learn from.
    codes : (rows,) class index; (rows, columns) float64 with several labels or numbers, nan if not known.
    persons : (rows,) person.
    weights : (rows,) float32 weight in the loss, 1 on average over the labeled rows to learn from; None if all are 1.
    targets : float32 (rows, outputs) target of each row; None if all are one class.
    soft_labels : float32 (rows, outputs) soft labels; None without them.
    pseudo_ids : ids of the test images to learn from.
    """

    rows: NDArray[np.int64]
    codes: NDArray
    persons: NDArray[np.str_]
    weights: NDArray[np.float32] | None = None
    targets: NDArray[np.float32] | None = None
    soft_labels: NDArray[np.float32] | None = None
    pseudo_ids: tuple[str, ...] = ()


def examples_of(
    job: Job,
    recipe: Recipe,
    target: Target,
    assignment: FoldAssignment,
    training: NDArray[np.int64],
    codes: NDArray,
) -> Examples:
    """Return what a fold learns from.

    Parameters
    ----------
    training : rows of the table to learn from.
    codes : (n,) class index of each row of the table in training, or (n, columns).

    Raises
    ------
    EnsembleError : a file of the run is missing or damaged.
    """
    soft = _array(job.soft_labels, (len(codes), target.outputs))
    targets = _array(job.softened, (len(codes), target.outputs))
    weights = None if job.weights is None else _array(job.weights, (len(codes), 1))
    scaled = None
    if weights is not None:
        training = training[weights[training, 0] > 0]
        scaled = (weights[:, 0] / weights[training, 0].astype(np.float64).mean()).astype(np.float32)
    found = Examples(training, codes, assignment.persons, scaled, targets, soft)
    return found if job.pseudo is None else _with_pseudo(job, recipe, target, found)


def trained_rows(examples: Examples, rows: int) -> NDArray[np.int64]:
    """Return the rows of the table that a fold learns from.

    Parameters
    ----------
    rows : number of rows of the table.
    """
    return examples.rows[examples.rows < rows]


def _with_pseudo(job: Job, recipe: Recipe, target: Target, own: Examples) -> Examples:
    """Return the examples of the table with the pseudo-labeled test images after them."""
    assert job.pseudo is not None  # noqa: S101 - the caller has checked it
    path = Path(job.pseudo)
    table = read_csv(path.with_suffix(".csv"))
    ids, people = table.column("id"), table.column("person")
    both, shape = load_npy(path), (job.k + 1, len(ids), len(job.classes))
    if getattr(both, "shape", None) != shape:
        raise EnsembleError(f"{path} does not have the shape {shape}", hint=_AGAIN)
    of_classes = np.array(both[job.fold], np.float32)  # the fold of a refit is k, and its pseudo-labels are the last
    used = np.flatnonzero(is_learned(of_classes, target.task))
    n, m = len(own.codes), len(ids)
    # Several labels may be shares and numbers are values, so they need no targets beside them.
    codes = np.concatenate([own.codes, of_classes if target.has_columns else of_classes.argmax(1)])
    # An image without a person is its own person.
    named = [person or f"image {one}" for one, person in zip(ids, people, strict=True)]
    persons = np.concatenate([own.persons, np.array(named, dtype=str)])
    of_heads = of_classes if target.has_columns else outputs_of(target, of_classes)
    targets = None
    if recipe.pseudo_soft and not target.has_columns:
        targets = np.concatenate([one_hot_rows(target, own.codes), of_heads])
    soft = None
    if own.soft_labels is not None:
        soft = np.concatenate([own.soft_labels, of_heads if target.has_columns else _filled(of_heads)])
    weights, factor = own.weights, recipe.pseudo_weight or 1.0
    if weights is not None or factor != 1:
        known = np.ones(n, np.float32) if weights is None else weights
        weights = np.concatenate([known, np.full(m, factor, np.float32)])
    rows = np.concatenate([own.rows, n + used])
    return Examples(rows, codes, persons, weights, targets, soft, tuple(ids[row] for row in used.tolist()))


def is_learned(values: NDArray[np.floating], task: str) -> NDArray[np.bool_]:
    """Return (…, images) whether each image is learned, for targets (…, images, classes) of pseudo-labels.

    They are 0 in all classes of an image that is not learned, and nan in all its columns.
    """
    return np.asarray((~np.isnan(values) if task in COLUMN_TASKS else values).any(axis=-1))


def _filled(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return targets with equal shares where there are none, in rows that nothing learns."""
    return np.where(values.any(1, keepdims=True), values, np.float32(1))


def outputs_of(target: Target, of_classes: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return float32 (n, outputs) for probabilities (n, classes): of each head, the sum over the classes of a value."""
    blocks = []
    for head in target.heads:
        # (classes, values): one where the class has the value
        has = np.array(head.of_label)[:, None] == np.arange(len(head.values))
        blocks.append(of_classes @ has)
    return np.ascontiguousarray(np.concatenate(blocks, axis=1), np.float32)


def one_hot_rows(target: Target, codes: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return float32 (n, outputs) the one-hot targets of class indices (n,), head by head."""
    heads = target.encode_heads(codes)
    blocks = [np.eye(len(head.values), dtype=np.float32)[heads[:, i]] for i, head in enumerate(target.heads)]
    return np.concatenate(blocks, axis=1)


def _array(file: str | None, shape: tuple[int, int]) -> NDArray[np.float32] | None:
    """Return an array that was saved with the run; None without a file.

    Raises
    ------
    EnsembleError : the file is missing or damaged.
    """
    if file is None:
        return None
    values = read_array(Path(file))
    if values.shape != shape:
        raise EnsembleError(f"{file} has shape {values.shape}, expected {shape}", hint=_AGAIN)
    return np.array(values, np.float32)


def class_codes(job: Job, assignment: FoldAssignment) -> tuple[NDArray, NDArray]:
    """Return (n,) the class that each image of the table is scored as, and the class that is learned.

    With several labels or numbers both are (n, columns) float64, nan where a value is not known.

    Raises
    ------
    EnsembleError : the file of other training labels lacks an image or a class.
    """
    task = job.recipe.get("task")
    if task in COLUMN_TASKS:
        values = label_matrix(assignment.labels, job.classes, task)
        return values, values
    code = {name: i for i, name in enumerate(job.classes)}
    codes = np.array([code[name] for name in assignment.labels.tolist()])
    if job.training_labels is None:
        return codes, codes
    return codes, _training_codes(Path(job.training_labels), assignment.ids, code)


def learned_rows(job: Job, assignment: FoldAssignment, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows without the images that the run does not learn (`drop`).

    Raises
    ------
    EnsembleError : the file of these images is missing or damaged.
    """
    if job.dropped is None:
        return rows
    return rows[~np.isin(assignment.ids[rows], read_csv(Path(job.dropped)).column("id"))]


def _training_codes(path: Path, ids: NDArray[np.str_], code: Mapping[str, int]) -> NDArray[np.int64]:
    """Return (n,) the training class of each sample, from a CSV file ``id,label``.

    Raises
    ------
    EnsembleError : a sample or a class is missing.
    """
    table = read_csv(path)
    label = dict(zip(table.column("id"), table.column("label"), strict=True))
    try:
        return np.array([code[label[name]] for name in ids.tolist()])
    except KeyError as error:
        raise EnsembleError(f"{path} lacks {error}", hint=_AGAIN) from None
