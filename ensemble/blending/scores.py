"""Score the runs and the blend on one split."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from ensemble.alignment.split import AlignedSplit
from ensemble.alignment.truth import GroundTruth
from ensemble.blending.request import BlendConfig
from ensemble.voting.base import Vote
from ensemble.voting.vote import vote, vote_of_run
from folds.metrics.classification import Metric
from folds.metrics.report import ScoreReport, score_predictions
from folds.metrics.scored_rows import ScoredRows
from folds.metrics.task_names import CLASSES
from folds.utils.parallel import cpu_count
from folds.utils.progress import SILENT, Progress

_LARGE = 1 << 25  # numbers of a split; runs with more are scored one by one


@dataclass(frozen=True)
class RunScore:
    """A run, or the blend, on one split: its folds, its number of rows, and its score if labels are known."""

    folds: tuple[int, ...]
    rows: int
    score: ScoreReport | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for ``--json`` and blend.json."""
        return {
            "folds": list(self.folds),
            "rows": self.rows,
            "score": None if self.score is None else self.score.to_dict(),
        }


def score_runs(
    names: Sequence[str],
    splits: Mapping[str, AlignedSplit],
    truths: Mapping[str, GroundTruth],
    request: BlendConfig,
    progress: Progress = SILENT,
) -> dict[str, dict[str, RunScore]]:
    """Return run → split → score of the run alone; several runs at a time, unless the user's own metric scores them."""
    rows = {name: _scored_rows(splits[name], truth) for name, truth in truths.items()}
    with progress.step("scoring the runs") as advance:
        pool = ThreadPoolExecutor(_at_once(splits, request))
        try:
            scored = pool.map(lambda name: score_run(name, splits, truths, request, rows), names)
            found = {}
            for done, (name, scores) in enumerate(zip(names, scored, strict=True), start=1):
                found[name] = scores
                advance(done, len(names))
            return found
        finally:
            pool.shutdown(cancel_futures=True)


def _at_once(splits: Mapping[str, AlignedSplit], request: BlendConfig) -> int:
    """Return the number of runs to score at a time: a function of the user may not allow threads, and memory ends."""
    largest = max((len(split) * len(split.classes) for split in splits.values()), default=1)
    if request.scored.function is not None or largest > _LARGE:
        return 1
    return min(cpu_count(), 4)


def score_run(
    name: str,
    splits: Mapping[str, AlignedSplit],
    truths: Mapping[str, GroundTruth],
    request: BlendConfig,
    rows: Mapping[str, ScoredRows],
) -> dict[str, RunScore]:
    """Return split → score of the run alone, on the rows it predicts; `rows` are the labeled rows of the splits."""
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
        own = request.scored.function is not None  # a function of the user may write into what it is given
        result = vote(alone, "hard" if run.hard else "soft") if own else vote_of_run(alone)
        shared = rows[split_name] if present is None else None
        entries[split_name] = entry_of(alone, result, truth, request, run.folds, shared)
    return entries


def entry_of(
    split: AlignedSplit,
    result: Vote,
    truth: GroundTruth | None,
    request: BlendConfig,
    folds: tuple[int, ...] | None = None,
    rows: ScoredRows | None = None,
) -> RunScore:
    """Return the score of a vote of all runs of a split; `rows` are its labeled rows, shared by several votes."""
    if folds is None:
        folds = tuple(sorted({fold for run in split.runs for fold in run.folds}))
    score = (
        None
        if truth is None
        else score_vote(result, truth, request.chosen_metric, request.per_person, rows, split.task)
    )
    return RunScore(folds, len(split), score)


def _scored_rows(split: AlignedSplit, truth: GroundTruth) -> ScoredRows:
    """Return the labeled rows of a split."""
    known = truth.known
    if known.all():
        return ScoredRows(truth.labels, truth.persons, len(split.classes))
    return ScoredRows(truth.labels[known], truth.persons[known], len(split.classes))


def ranking_of(runs: Mapping[str, Mapping[str, RunScore]], greater_is_better: bool) -> list[str]:
    """Return run names, best out-of-fold score first; runs without one come last, in their order."""

    def rank(name: str) -> tuple[bool, float]:
        entry = runs[name].get("oof")
        if entry is None or entry.score is None or math.isnan(entry.score.interval.value):
            return True, 0.0
        value = entry.score.interval.value
        return False, -value if greater_is_better else value

    return sorted(runs, key=rank)


def score_vote(
    vote: Vote,
    truth: GroundTruth,
    metric: str | Metric = "macro_f1",
    per_person: bool = False,
    rows: ScoredRows | None = None,
    task: str = CLASSES,
) -> ScoreReport | None:
    """Return the score of a vote; None without labeled rows. `rows` are its labeled rows, shared by several votes.

    Parameters
    ----------
    per_person : whether to average the probabilities of a person's images first.
    """
    if not truth.known.any():
        return None
    return score_predictions(truth.labels, vote.probabilities, truth.persons, metric, per_person, rows, task)
