"""Compare predictions with those that the training wrote, or with the expected ones of an exported model.

What is compared was computed in the number format and the form of the predictions themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.model_files.expected import TOLERANCE as OF_FORMAT
from ensemble.model_files.reading import read_expected, read_record
from ensemble.prediction.arrays import (
    LoadedModels,
    check_expected,
    columns_difference,
    combined_columns,
    expected_columns,
)
from ensemble.prediction.prediction_formats import AGREEMENT, Choice, architecture_key
from ensemble.prediction.source import PredictionSource
from folds.errors import EnsembleError
from folds.models.accelerators import resolve_devices
from folds.predictions.files import fold_files, refit_file
from folds.predictions.links import largest_difference, same_answers
from folds.predictions.predictions import Predictions, mean_of_folds, read_predictions
from folds.predictions.submission import ID_FORMS

TOLERANCE = 1e-6  # largest difference of predictions that are the same
OF_FEATURES = 2e-3  # likewise, where the training predicted from frozen features, which it keeps in float16
TRAINING, MODEL = "the test predictions of the training", "the expected probabilities of the model"


@dataclass(frozen=True)
class Verification:
    """What a comparison of predictions found.

    Attributes
    ----------
    against : what they were compared with: `TRAINING` or `MODEL`.
    difference : largest difference of a probability.
    limit : largest difference that is expected of the number format.
    same_class : share of the compared images with the same predicted class.
    images : number of the compared images.
    number_format : the most reduced format of the models that is not that of the training: ``bf16``, ``fp16``; else
        ``fp32``.
    ways : how the models were computed, which is how the predictions were computed.
    """

    against: str
    difference: float
    limit: float
    same_class: float
    images: int
    number_format: str
    ways: tuple[str, ...]

    @property
    def is_reduced(self) -> bool:
        """Return whether the format is a reduced one."""
        return self.number_format != "fp32"

    @property
    def holds(self) -> bool:
        """Return whether the predictions are the same, as far as their format allows.

        Test images must also keep their predicted class, all but `1 - AGREEMENT` of them, in a reduced format. The
        expected probabilities of a model are of a few synthetic images, whose classes can be close to each other.
        """
        counts = self.is_reduced and self.against == TRAINING
        return self.difference <= self.limit and (not counts or self.same_class >= AGREEMENT)

    def text(self) -> str:
        """Return one sentence."""
        ways = f", computed like these predictions as {', '.join(self.ways)}" if self.ways else ""
        same = f"same class for {self.same_class:.1%} of {self.images:,} images"
        verdict = "equal" if self.holds else "NOT equal"
        start = f"largest difference from {self.against}: {self.difference:.1e}"
        if not self.is_reduced:
            return f"{start} ({verdict} within {self.limit:.0e}){ways if self.against == MODEL else ''}"
        needed = f" (at least {AGREEMENT:.1%})" if self.against == TRAINING else ""
        return (
            f"{start}{ways} ({verdict} within {self.limit:.0e}, the tolerance of {self.number_format}); {same}{needed}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "against": self.against,
            "difference": self.difference,
            "tolerance": self.limit,
            "same_class": self.same_class,
            "images": self.images,
            "format": self.number_format,
            "ways": list(self.ways),
            "holds": self.holds,
        }


def verify_model(source: PredictionSource, device: str, choices: Mapping[str, Choice] | None = None) -> Verification:
    """Return how an exported model computes its expected probabilities.

    Parameters
    ----------
    choices : how the predictions were computed (`ensemble.prediction.predict.Predicted`); None for the plain form,
        whose difference is an error.

    Raises
    ------
    EnsembleError : without `choices`, the probabilities are not the expected ones.
    """
    assert source.folder is not None  # noqa: S101 - exported models have one
    expected, tolerance = read_expected(source.folder), read_record(source.folder).expected["tolerance"]
    models = LoadedModels(source, device, choices)
    columns = expected_columns(models, expected)
    if choices is None:
        check_expected(models, expected, tolerance, columns)
    number_format, ways = _formats(source, device, choices or {})
    limit = float(tolerance[models.tolerance_name if number_format == "fp32" else number_format])
    return Verification(
        MODEL,
        columns_difference(source, columns, expected.members),
        limit,
        same_answers(source.task, combined_columns(source, columns), expected.probabilities, limit),
        len(expected),
        number_format,
        ways,
    )


def verify_predictions(
    source: PredictionSource, predictions: Predictions, root: Path, device: str, choices: Mapping[str, Choice]
) -> Verification:
    """Return how predictions compare with the test predictions that the training or the blend wrote, by id.

    Raises
    ------
    EnsembleError : there are none, or no image has one.
    """
    mine, stored = _compared(source, predictions, root)
    number_format, ways = _formats(source, device, choices)
    frozen = any(model.checkpoint.recipe.get("features") for model in source.models)
    limit = OF_FORMAT.get(number_format, OF_FEATURES if frozen else TOLERANCE)
    return Verification(
        TRAINING,
        largest_difference(source.task, mine, stored),
        limit,
        same_answers(source.task, mine, stored, limit),
        len(mine),
        number_format,
        ways,
    )


def computed_as_trained(source: PredictionSource, device: str, choices: Mapping[str, Choice]) -> bool:
    """Return whether all models were computed as the training computes them on the device."""
    return not _formats(source, device, choices)[1]


def _formats(source: PredictionSource, device: str, choices: Mapping[str, Choice]) -> tuple[str, tuple[str, ...]]:
    """Return the most reduced number format that is not that of the training, and all forms that are not."""
    place = resolve_devices(device)[0]
    others = []
    for model in source.models:
        choice = choices.get(architecture_key(model))
        if choice is not None and not (choice.is_exact and choice.amp == model.checkpoint.amp_on(place)):
            others.append(choice)
    formats = {choice.number_format for choice in others}
    reduced = next((name for name in ("bf16", "fp16") if name in formats), "fp32")
    return reduced, tuple(sorted({choice.way for choice in others}))


def _compared(
    source: PredictionSource, predictions: Predictions, root: Path
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the predictions of the images that have test predictions, and these, in the same rows and columns."""
    before = _stored_predictions(source, root)
    if before is None:
        raise EnsembleError(
            f"`verify` needs the test predictions of {source.name}, and there are none",
            hint="verify what was trained or blended with test images",
        )
    rows: list[tuple[int, int]] = []
    for key in ID_FORMS:
        ours, theirs = list(map(key, predictions.ids.tolist())), list(map(key, before.ids.tolist()))
        position = {name: row for row, name in enumerate(theirs)}
        unique = len(position) == len(theirs) and len(set(ours)) == len(ours)
        rows = [(row, position[name]) for row, name in enumerate(ours) if name in position] if unique else []
        if rows:
            break
    if not rows:
        raise EnsembleError(
            f"none of the images is a test image of {source.name}, e.g. '{predictions.ids[0]}' is not",
            hint="`verify` compares the test images of the training: predict the same table",
        )
    mine, stored = map(list, zip(*rows, strict=True))
    columns = [before.classes.index(name) for name in predictions.classes]
    return predictions.probabilities[mine], before.probabilities[stored][:, columns]


def _stored_predictions(source: PredictionSource, root: Path) -> Predictions | None:
    """Return the test predictions that the training or the blend wrote; None if there are none."""
    if source.folder is not None or source.refit:
        # A blend of models of all people has no test predictions of its own.
        path = refit_file(root / "runs", source.runs[0].name) if source.folder is None else source.folder / "test.npy"
        return read_predictions(path) if path.is_file() and not (source.refit and source.folder) else None
    files = fold_files(root / "runs", source.runs[0].name)
    return mean_of_folds([files[fold] for fold in source.runs[0].folds if fold in files])
