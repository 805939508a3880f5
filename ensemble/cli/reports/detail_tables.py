"""A score taken apart, as tables; rendering only."""

from __future__ import annotations

from collections.abc import Sequence

from ensemble.blending.details import Details
from ensemble.cli.terminal import console
from ensemble.cli.terminal.spans import span
from folds.metrics.calibration import Bin
from folds.metrics.per_class import ClassScore

_WIDTH = 30  # of the bar that stands for all rows of a bin being right


def detail_tables(one: Details) -> str:
    """Classes, attributes, confidence against accuracy, and the two intervals."""
    split = "out of fold" if one.split == "oof" else one.split
    parts = [f"{split}, class by class\n{_classes(one.classes)}"]
    for attribute in one.attributes:
        scores = f"macro F1 {attribute.macro_f1.score:.3f} ({span(attribute.macro_f1)}), accuracy {attribute.accuracy.score:.3f}"
        parts.append(f"{attribute.name}: {scores}; of the class that is decided for, {attribute.of_class.score:.3f}\n{_classes(attribute.values)}")
    errors = f"calibration error {one.calibration_error:.3f}, over all classes {one.classwise_error:.3f}, Brier score {one.brier:.3f}"
    parts.append(f"{split}, how sure it was and how often it was right ({errors})\n{_bins(one.bins)}")
    parts.append(
        f"{one.metric.title} {one.people.score:.3f}: 95 % over people {span(one.people)}; over images it would be {span(one.images)}, "
        "as if the images of a person were right and wrong independently"
    )
    return "\n\n".join(parts)


def _classes(scores: Sequence[ClassScore]) -> str:
    header = ["class", "rows", "people", "precision", "recall", "F1", "95 % over people", "ROC-AUC"]
    rows = []
    for one in scores:
        shown = [f"{value:.3f}" for value in (one.precision, one.recall, one.f1.score)]
        rows.append([one.name, f"{one.rows:,}", f"{one.people:,}", *shown, span(one.f1), "–" if one.roc_auc is None else f"{one.roc_auc:.3f}"])
    return console.table(header, rows)


def _bins(bins: Sequence[Bin]) -> str:
    header = ["confidence", "rows", "mean", "right", "too low by", ""]
    rows = []
    for one in bins:
        if not one.count:
            continue
        gap = one.accuracy - one.confidence
        bar = "█" * round(_WIDTH * one.accuracy)
        rows.append(
            [f"{one.low:.2f}–{one.high:.2f}", f"{one.count:,}", f"{one.confidence:.3f}", f"{one.accuracy:.3f}", f"{gap:+.3f}", bar.ljust(_WIDTH)]
        )
    return console.table(header, rows)
