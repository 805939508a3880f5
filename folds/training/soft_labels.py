"""Read soft labels: a probability of each class for every training image, joined to the table by id.

Of several labels it is a probability of each, and of numbers the numbers that a teacher predicts.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from folds.config.recipe import Recipe
from folds.data.table import SampleTable
from folds.data.targets import Target
from folds.errors import EnsembleError
from folds.predictions.file_names import BLEND_RECORD
from folds.predictions.files import LABEL
from folds.predictions.predictions import Predictions, read_predictions
from folds.predictions.reading import rows_by_id
from folds.training.column_targets import label_shares, predicted_columns
from folds.training.examples import outputs_of
from folds.training.sample_weights import number_column
from folds.utils.files import read_json, sha256_bytes

logger = logging.getLogger(__name__)
_BY_ID = "they are joined by id; out-of-fold predictions cover all images if all folds are trained"
TOLERANCE = 1e-3  # of sums of shares, which tables round


@dataclass(frozen=True)
class SoftLabels:
    """The soft labels of a table.

    Attributes
    ----------
    values : float32 (rows, outputs), in the order of the table; the block of each head sums to 1. Of several labels and
        numbers (rows, columns), nan where there is none.
    sha : hash of `values`.
    teacher : name of the blend or run that predicted them; "" if unknown.
    identity : identity of the blend; "" for anything else.
    annotated : whether they are columns of the table, e.g. of votes, and not predictions of models.
    """

    values: NDArray[np.float32]
    sha: str
    teacher: str = ""
    identity: str = ""
    annotated: bool = False

    def record(self) -> dict[str, str]:
        """Return what a run and its checkpoints record."""
        found = {"soft_sha": self.sha, "teacher": self.teacher, "teacher_identity": self.identity}
        return {key: value for key, value in found.items() if value}


def soft_labels_of(recipe: Recipe, table: SampleTable, target: Target) -> SoftLabels | None:
    """Return the soft labels of a recipe for a table; None without them.

    Raises
    ------
    EnsembleError : the file cannot be read, lacks an image of the table or a class, is of another task, or has a value
        that is no probability.
    """
    if recipe.soft_columns is not None and target.has_columns:
        shares = label_shares(recipe.soft_columns, table).astype(np.float32)
        return SoftLabels(shares, sha256_bytes(shares.tobytes()), annotated=True)
    if recipe.soft_columns is not None:
        return _of_columns(recipe.soft_columns, table, target)
    path = recipe.soft_labels
    if path is None:
        return None
    found = read_predictions(path)
    if found.metadata.unit is not None:
        raise EnsembleError(
            f"`soft_labels={path}` are predictions of people, not of the images that a student learns",
            hint="blend again without `pool`",
        )
    if target.has_columns or found.metadata.has_columns:
        source, images = f"`soft_labels={path}`", f"images of {table.source}"
        values = predicted_columns(found, table.ids, table, source, images, hint=_BY_ID).astype(np.float32)
    else:
        of_classes = _joined(found, path, table)[:, _columns(found, path, table, target)]
        values = _of_heads(of_classes, found, target)
    name, identity = _teacher(found, path)
    return SoftLabels(values, sha256_bytes(values.tobytes()), name, identity)


def soft_label_warnings(recipe: Recipe) -> list[str]:
    """Return warnings about the soft labels of a recipe: whether their models may have seen the people."""
    path = recipe.soft_labels
    if path is None or read_predictions(path).split == "oof":
        return []
    return [
        f"`soft_labels={path}` are not out-of-fold predictions: if their models were trained on these people, they "
        "repeat the labels, and the score of this training is optimistic"
    ]


def soft_columns_note(recipe: Recipe) -> str:
    """Return one line about soft labels of the table, whose origin is not known; "" without them."""
    if recipe.soft_columns is None:
        return ""
    return (
        f"`soft_columns={recipe.soft_columns}` are taken as given, like labels: if a model predicted them, "
        "`soft_labels=FILE` marks the score as optimistic"
    )


def _of_columns(prefix: str, table: SampleTable, target: Target) -> SoftLabels:
    """Return the shares in the columns ``PREFIX<class>`` of a table, which must sum to 1 in each row.

    Raises
    ------
    EnsembleError : a class has no column, a cell is missing or no share, or a row does not sum to 1.
    """
    columns = [number_column(table, f"{prefix}{name}", "soft_columns") for name in table.classes]
    values = np.stack(columns, axis=1)
    wrong = np.flatnonzero((values < 0).any(1) | (np.abs(values.sum(1) - 1) > TOLERANCE))
    if len(wrong):
        row = int(wrong[0])
        raise EnsembleError(
            f"`soft_columns={prefix}`: expected shares from 0 that sum to 1, found a sum of {values[row].sum():g} "
            f"(smallest {values[row].min():g}) in {table.locations[row]}",
            hint="divide the votes of each image by their number",
            details=[table.locations[row] for row in wrong[:10].tolist()],
        )
    shares = outputs_of(target, values / values.sum(1, keepdims=True))
    return SoftLabels(shares, sha256_bytes(shares.tobytes()), annotated=True)


def _joined(found: Predictions, path: Path, table: SampleTable) -> NDArray[np.float64]:
    """Return the probabilities of the rows of the table, by id."""
    values = rows_by_id(
        found,
        table.ids,
        f"`soft_labels={path}`",
        f"images of {table.source}",
        hint=_BY_ID,
    )
    return checked_probabilities(values, table.ids, f"`soft_labels={path}`")


def checked_probabilities(values: NDArray[np.float64], ids: NDArray[np.str_], source: str) -> NDArray[np.float64]:
    """Return probabilities (n, classes) so that each row sums to exactly 1, as far as float64 can.

    Parameters
    ----------
    ids : (n,) samples.
    source : what the values are, in the error.

    Raises
    ------
    EnsembleError : a row is not finite, has a value below 0, or does not sum to 1 within 0.001.
    """
    wrong = ~(np.isfinite(values).all(1) & (values >= -1e-6).all(1) & (np.abs(values.sum(1) - 1) < TOLERANCE))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise EnsembleError(
            f"{source}: expected probabilities that sum to 1, found "
            f"{', '.join(f'{value:g}' for value in values[row, :5])} for '{ids[row]}'",
            hint="a blend writes probabilities; logits need a sidecar with kind = logit",
        )
    values = np.clip(values, 0, None)
    return values / values.sum(1, keepdims=True)


def _columns(found: Predictions, path: Path, table: SampleTable, target: Target) -> list[int]:
    """Return the column of each class: of the label or, if the file predicts an attribute, of its values."""
    predicted = found.metadata.target
    expected: Sequence[str] = table.classes if predicted == LABEL else target.classes
    if predicted not in (LABEL, target.name):
        raise EnsembleError(
            f"`soft_labels={path}` predict {predicted}, expected {target.name}", hint=f"`target={predicted}`"
        )
    if set(found.classes) != set(expected):
        unshared = sorted(set(found.classes) ^ set(expected))
        raise EnsembleError(
            f"`soft_labels={path}` have other classes than {table.source}: '{unshared[0]}' is in only one of them",
            hint=f"expected {', '.join(expected[:10])}, found {', '.join(found.classes[:10])}",
        )
    return [found.classes.index(name) for name in expected]


def _of_heads(values: NDArray[np.float64], found: Predictions, target: Target) -> NDArray[np.float32]:
    """Return float32 (rows, outputs) for values of the classes: of each head, the sum over the classes of a value."""
    if found.metadata.target != LABEL:
        return np.ascontiguousarray(values, np.float32)
    return outputs_of(target, values)


def _teacher(found: Predictions, path: Path) -> tuple[str, str]:
    """Return the name of the blend or run that predicted, and the identity of a blend."""
    record = path.parent / BLEND_RECORD
    if path.name != "oof.npy" or not record.is_file():
        return found.run, ""
    blend = read_json(record)
    identity = blend.get("identity") if isinstance(blend, dict) else None
    return f"blends/{path.resolve().parent.name}", identity if isinstance(identity, str) else ""
