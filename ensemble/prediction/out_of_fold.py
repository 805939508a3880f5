"""Check a number format on validation images of the training: the out-of-fold score must stay the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ensemble.prediction.source import FoldModel
from folds.data.sources import load_checkpoint_data
from folds.errors import EnsembleError
from folds.images.content_index import UnreadableImageError, read_content
from folds.images.decode import decode_image
from folds.metrics.confusion import macro_f1
from folds.models.checkpoint import hash_ids
from folds.models.inference import PixelSource
from folds.predictions.files import LABEL

SCORE_CHANGE = 1e-3  # largest difference of macro F1 on the validation images
_IMAGES = 200

Predict = Callable[[PixelSource, NDArray[np.int64]], NDArray[np.floating]]


def score_change(model: FoldModel, root: Path, reference: Predict, reduced: Predict) -> tuple[float | None, str]:
    """Return the difference of macro F1 on validation images of a fold, and one phrase that describes it.

    The difference is None if the images of the training cannot be reached; the phrase has the reason.

    Parameters
    ----------
    root : the folder that holds ``runs/``.
    reference, reduced : (pixels, rows) → probabilities (n, classes) in the two formats.
    """
    try:
        pixels, labels = _validation_images(model, root)
    except (EnsembleError, UnreadableImageError) as error:
        return None, f"out-of-fold score not checked: {getattr(error, 'message', error)}"
    rows, classes = np.arange(len(labels)), len(model.checkpoint.classes)
    before, after = (macro_f1(labels, predict(pixels, rows).argmax(1), classes) for predict in (reference, reduced))
    change = abs(after - before)
    return change, f"macro F1 of {len(labels)} out-of-fold images changes by {change:.4f}"


def _validation_images(model: FoldModel, root: Path) -> tuple[PixelSource, NDArray[np.int64]]:
    """Return images of the validation part of a fold, evenly spaced, and the class index of each.

    Raises
    ------
    EnsembleError, UnreadableImageError : the table, its images or its labels cannot be reached.
    """
    checkpoint = model.checkpoint
    if checkpoint.target != LABEL:
        raise EnsembleError(f"the model predicts {checkpoint.target}, not the label")
    data = load_checkpoint_data(
        checkpoint.data,
        classes=checkpoint.classes,
        root=root,
        run=checkpoint.run,
        folds_sha=checkpoint.folds_sha,
    )
    table = data.train
    position = {name: row for row, name in enumerate(hash_ids(table.ids.tolist()))}
    rows = [position[name] for name in checkpoint.validation_hashes if name in position]
    if not rows or table.labels is None or table.paths is None:
        raise EnsembleError(f"{table.source} has no validation images of {checkpoint.run} fold {checkpoint.fold}")
    rows = [rows[at] for at in np.unique(np.linspace(0, len(rows) - 1, min(_IMAGES, len(rows))).astype(int))]
    code = {name: i for i, name in enumerate(checkpoint.classes)}
    settings = checkpoint.image_settings
    pixels = [decode_image(read_content(table.paths[row]).data, settings).pixels for row in rows]
    return PixelSource(np.stack(pixels), "cpu"), np.array([code[str(table.labels[row])] for row in rows])
