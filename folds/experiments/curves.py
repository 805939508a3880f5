"""Read the curves of folds: the validation score after each epoch, or the training loss where nothing is validated."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from folds.errors import EnsembleError
from folds.metrics.custom import find_metric
from folds.predictions.file_names import FOLD_HISTORY

LOSS = "loss"
MACRO_F1 = "macro_f1"


def read_history(folder: Path) -> list[dict[str, float]]:
    """Return the epochs in ``history.csv`` of a fold; [] if it does not exist yet or is damaged."""
    try:
        with open(folder / FOLD_HISTORY, encoding="utf-8", newline="") as file:
            return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    except (OSError, ValueError, TypeError, csv.Error):
        return []


def curve_key(record: Mapping[str, Any], metric: str) -> str:
    """Return the key of the score of an epoch: that of the metric, else macro F1, else the loss."""
    wanted = (f"validation_{metric}", f"validation_{MACRO_F1}")
    return next((key for key in wanted if key in record), LOSS)


def curve_title(key: str) -> str:
    """Return ``macro F1`` for ``validation_macro_f1``; ``loss`` for the loss."""
    name = key.removeprefix("validation_")
    if name == LOSS:
        return LOSS
    try:
        return find_metric(name).title
    except EnsembleError:  # a function of the user whose file has gone
        return name


def fold_curves(folder: Path, folds: Sequence[int], metric: str = MACRO_F1) -> tuple[str, dict[int, list[float]]]:
    """Return the key of the score, and fold → its value after each epoch, nan where it is unknown.

    Folds without a history are left out.

    Parameters
    ----------
    folder : ``runs/<run>``.
    metric : its name in the settings of the run.
    """
    histories = {fold: found for fold in folds if (found := read_history(folder / f"fold{fold}"))}
    key = next((curve_key(found[0], metric) for found in histories.values()), LOSS)
    return key, {fold: [record.get(key, math.nan) for record in found] for fold, found in histories.items()}


class EpochCurves:
    """Add to the events of epochs what `folds.utils.progress.JobProgress` shows: ``metric`` and ``curve``.

    The epochs before an interruption are read from ``history.csv``. The events of one job come one after the other.
    """

    def __init__(self) -> None:
        self._curves: dict[tuple[str, int], list[float]] = {}

    def added(self, job: Any, event: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the event, of an epoch with the title of its score and the values of all epochs so far."""
        if event["event"] != "epoch":
            return event
        recipe = job.recipe if isinstance(job.recipe, Mapping) else {}
        key, before = curve_key(event, str(recipe.get("metric", MACRO_F1))), int(event["epoch"]) - 1
        curve = self._curves.get((job.run, job.fold), [])
        if len(curve) < before:
            known = {int(one["epoch"]): one.get(key, math.nan) for one in read_history(job.fold_dir) if "epoch" in one}
            curve = [known.get(epoch, math.nan) for epoch in range(1, before + 1)]
        # An epoch that is repeated after a crash replaces the one before.
        curve = self._curves[job.run, job.fold] = [*curve[:before], float(event.get(key, math.nan))]
        return {**event, "metric": curve_title(key), "curve": tuple(curve)}
