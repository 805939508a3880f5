"""What a run, or the blend, is on one split: its folds, its rows, its score."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ensemble.alignment.split import AlignedSplit
from ensemble.alignment.truth import Truth
from ensemble.blending.request import BlendConfig
from ensemble.voting.base import Vote
from ensemble.voting.vote import vote
from folds.metrics.report import ScoreReport, score_predictions


@dataclass(frozen=True)
class RunScore:
    """A run, or the blend, on one split: the folds there are, its rows, its score where labels are known."""

    folds: tuple[int, ...]
    rows: int
    score: ScoreReport | None

    def to_dict(self) -> dict[str, Any]:
        """For --json and blend.json."""
        return {
            "folds": list(self.folds),
            "rows": self.rows,
            "score": None if self.score is None else self.score.to_dict(),
        }


def score_run(
    name: str, splits: Mapping[str, AlignedSplit], truths: Mapping[str, Truth], request: BlendConfig
) -> dict[str, RunScore]:
    """split → `Entry` of the run alone, on the rows that it has."""
    entries = {}
    for split_name, split in splits.items():
        run = next((run for run in split.runs if run.name == name), None)
        alone = None if run is None else split.select_runs([name])
        if run is None or alone is None:
            continue
        if split_name not in truths:
            entries[split_name] = RunScore(run.folds, len(alone), None)
            continue
        present = None if len(alone) == len(split) else np.flatnonzero(run.models(0, len(split)) > 0)
        truth = truths[split_name] if present is None else truths[split_name].take(present)
        entries[split_name] = entry_of(alone, vote(alone, "hard" if run.hard else "soft"), truth, request, run.folds)
    return entries


def entry_of(
    split: AlignedSplit, result: Vote, truth: Truth | None, request: BlendConfig, folds: tuple[int, ...] | None = None
) -> RunScore:
    """Return the `Entry` of a vote of all runs of a split."""
    if folds is None:
        folds = tuple(sorted({fold for run in split.runs for fold in run.folds}))
    return RunScore(
        folds, len(split), None if truth is None else score_vote(result, truth, request.metric, request.per_person)
    )


def ranking_of(runs: Mapping[str, Mapping[str, RunScore]], greater_is_better: bool) -> list[str]:
    """Run names, best out-of-fold score first; those without one keep their order, behind."""

    def rank(name: str) -> tuple[bool, float]:
        entry = runs[name].get("oof")
        if entry is None or entry.score is None or math.isnan(entry.score.interval.value):
            return True, 0.0
        value = entry.score.interval.value
        return False, -value if greater_is_better else value

    return sorted(runs, key=rank)


def score_vote(vote: Vote, truth: Truth, metric: str = "macro_f1", per_person: bool = False) -> ScoreReport | None:
    """Score a vote; with `per_person` the probabilities of a person's images are averaged first. None without labelled rows."""
    known = truth.labels >= 0
    labels, persons, probabilities = truth.labels, truth.persons, vote.probabilities
    if not known.all():
        labels, persons, probabilities = labels[known], persons[known], probabilities[known]
    if not len(labels):
        return None
    return score_predictions(labels, probabilities, persons, metric, per_person)
