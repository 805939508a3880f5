"""Break down the score of a blend by class, attribute and confidence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.alignment.split import AlignedSplit
from ensemble.alignment.truth import GroundTruth
from ensemble.voting.base import Vote
from folds.metrics.calibration import Bin, calibration_error, classwise_calibration_error, reliability
from folds.metrics.classification import METRICS, Metric
from folds.metrics.intervals import Interval, interval_over_images, interval_over_people
from folds.metrics.per_class import AttributeScore, ClassScore, attribute_scores, class_scores


@dataclass(frozen=True)
class Details:
    """Scores of the votes on the labeled samples of one split, per image.

    Attributes
    ----------
    people, images : interval of the metric from resampled people, and from resampled images (too narrow if people have
        several images).
    bins : accuracy per confidence bin of equal width.
    equal_mass : the same with bins of equal numbers of images.
    calibration_error, classwise_error, brier : distances between probabilities and frequencies (0 is best).
    """

    split: str
    metric: Metric
    people: Interval
    images: Interval
    classes: tuple[ClassScore, ...]
    attributes: tuple[AttributeScore, ...]
    bins: Sequence[Bin]
    equal_mass: Sequence[Bin]
    calibration_error: float
    classwise_error: float
    brier: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for ``--json`` and blend.json."""
        return {
            "metric": self.metric.name,
            "over_people": self.people.to_dict(),
            "over_images": self.images.to_dict(),
            "classes": [_class(one) for one in self.classes],
            "attributes": [
                {"attribute": one.name, "values": [_class(value) for value in one.values]}
                | {name: getattr(one, name).to_dict() for name in ("macro_f1", "accuracy", "of_class")}
                for one in self.attributes
            ],
            "calibration_error": self.calibration_error,
            "calibration_error_equal_mass": calibration_error(self.equal_mass),
            "classwise_calibration_error": self.classwise_error,
            "brier": self.brier,
            "reliability": [_known(asdict(one)) for one in self.bins],
        }


def details_of(
    splits: Mapping[str, AlignedSplit], votes: Mapping[str, Vote], truths: Mapping[str, GroundTruth], metric: Metric
) -> dict[str, Details]:
    """Return split → details, for splits with known labels."""
    found = {}
    for name, truth in truths.items():
        known = truth.known
        if known.any():
            found[name] = _details(
                splits[name], votes[name].probabilities[known], truth.labels[known], truth.persons[known], metric
            )
    return found


def _details(
    split: AlignedSplit,
    values: NDArray[np.float32],
    labels: NDArray[np.int64],
    persons: NDArray[np.int64],
    metric: Metric,
) -> Details:
    people = interval_over_people(metric, labels, values, persons)
    bins = reliability(labels, values)
    return Details(
        split.name,
        metric,
        people,
        # A user's function can be slow.
        people if metric.function is not None else interval_over_images(metric, labels, values),
        class_scores(labels, values, persons, split.classes),
        attribute_scores(labels, values, persons, split.classes, split.class_attributes)
        if split.class_attributes
        else (),
        bins,
        reliability(labels, values, equal_mass=True),
        calibration_error(bins),
        classwise_calibration_error(labels, values),
        METRICS["brier"](labels, values),
    )


def _class(one: ClassScore) -> dict[str, Any]:
    record = {
        "class": one.name,
        "rows": one.rows,
        "people": one.people,
        "precision": one.precision,
        "recall": one.recall,
    }
    return record | {"f1": one.f1.to_dict(), "roc_auc": one.roc_auc}


def _known(record: dict[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in record.items()}
