"""Tell which runs are over- or underconfident: an average of probabilities weighs what is confident, right or wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ensemble.alignment.split import AlignedSplit
from ensemble.alignment.truth import GroundTruth
from ensemble.blending.request import BlendConfig
from ensemble.voting.vote import vote_of_run

MIN_GAP = 0.05  # of mean confidence and accuracy; a smaller one hardly changes a mean
MAX_ROWS = 20_000  # evenly spaced: enough to see such a gap, and quick for any number of samples
_POOLS_ORDER = ("hard", "grades", "rank")  # of these, confidence decides nothing


def confidence_notes(
    splits: Mapping[str, AlignedSplit], truths: Mapping[str, GroundTruth], request: BlendConfig
) -> list[str]:
    """Return a note that names the runs whose mean confidence differs from their accuracy, with the way out."""
    if "oof" not in truths or request.calibrate is not None or request.name in _POOLS_ORDER:
        return []
    split, truth = splits["oof"], truths["oof"]
    if split.has_columns:
        return []
    known = np.flatnonzero(truth.labels >= 0)
    rows = known[:: max(1, math.ceil(len(known) / MAX_ROWS))]
    if len(split.runs) < 2 or not len(rows):
        return []
    found: dict[str, list[str]] = {"underconfident": [], "overconfident": []}
    sample = split.take(rows)
    for run in split.runs:
        alone = None if run.hard else sample.select_runs([run.name])
        if alone is None or len(alone) < len(rows):
            continue
        values = vote_of_run(alone).probabilities
        confidence = float(values.max(axis=1).mean())
        accuracy = float((values.argmax(axis=1) == truth.labels[rows]).mean())
        error = math.sqrt(max(accuracy * (1 - accuracy), 1 / len(rows)) / len(rows))
        if abs(confidence - accuracy) > max(MIN_GAP, 3 * error):
            word = "underconfident" if confidence < accuracy else "overconfident"
            found[word].append(f"{run.name} (mean confidence {confidence:.2f}, accuracy {accuracy:.2f})")
    texts = [f"{word}: {', '.join(runs)}" for word, runs in found.items() if runs]
    if not texts:
        return []
    return [f"{'; '.join(texts)}; this distorts the weights: calibrate the runs first, `calibrate=before:temperature`"]
