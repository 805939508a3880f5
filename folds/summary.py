"""What a run is worth: the pooled out-of-fold score with its interval over people, and the spread over folds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from folds.predictions import Sidecar, read_array, read_sidecar
from folds.scores import METRICS, Interval, average_by_person, interval_over_people


@dataclass(frozen=True)
class Score:
    """Scores of one prediction on rows with known labels."""

    headline: Interval
    accuracy: Interval
    rows: int
    metric: str = "macro_f1"
    mixed_people: int = 0  # people with several labels, where scored per person

    def as_json(self) -> dict[str, Any]:
        """For --json."""

        def of(value: Interval) -> dict[str, float]:
            return {"score": value.score, "low": value.low, "high": value.high}

        return {self.metric: of(self.headline), "accuracy": of(self.accuracy), "rows": self.rows, "people": self.headline.people}


@dataclass(frozen=True)
class RunSummary:
    """A run's out-of-fold score, its folds' own scores (by done.json), its test score where labels are known."""

    run: str
    folds: Mapping[int, Mapping[str, Any]]
    k: int
    oof: Score
    test: Score | None
    seconds: float

    @property
    def optimistic(self) -> bool:
        """Whether the epoch was chosen on the fold that is scored."""
        return any(done.get("optimistic") for done in self.folds.values())

    def spread(self) -> tuple[float, float]:
        """Mean and standard deviation of the folds' macro F1 (deviation 0 for one fold)."""
        values = [float(done["macro_f1"]) for done in self.folds.values()]
        return mean(values), stdev(values) if len(values) > 1 else 0.0


def score_rows(probabilities: np.ndarray, sidecar: Sidecar, metric: str = "macro_f1", per_person: bool = False) -> Score:
    """Score predictions (n, classes) on the labels in their sidecar, with 95 % intervals over people."""
    labels, persons = sidecar.rows.labels, sidecar.rows.persons
    if labels is None:
        raise ValueError("no labels to score on")
    code = {name: i for i, name in enumerate(sidecar.classes)}
    truth = np.array([code[label] for label in labels.tolist()])
    people = sidecar.rows.ids if persons is None else persons
    mixed = 0
    if per_person:
        truth, probabilities, people, mixed = average_by_person(truth, probabilities, people, len(sidecar.classes))
    headline = interval_over_people(METRICS[metric], truth, probabilities, people)
    return Score(headline, interval_over_people(METRICS["accuracy"], truth, probabilities, people), len(truth), metric, mixed)


def summarise(run: str, folds: Mapping[int, Mapping[str, Any]], k: int, runs: Path = Path("runs"), per_person: bool = False) -> RunSummary:
    """Score a run from the files it has published.

    On test samples with labels, the fold models' probabilities are averaged: what `blend` does with one run.
    """
    path = runs / f"{run}.oof.npy"
    sidecar = read_sidecar(path)
    if sidecar is None:
        raise ValueError(f"{path} has no sidecar")
    oof = score_rows(np.asarray(read_array(path)), sidecar, per_person=per_person)
    tests = [(p, s) for p in sorted(runs.glob(f"{run}.fold*.test.npy")) if (s := read_sidecar(p)) is not None]
    test = None
    if tests and tests[0][1].rows.labels is not None:
        average = np.mean([np.asarray(read_array(p), np.float64) for p, _ in tests], axis=0)
        test = score_rows(average, tests[0][1], per_person=per_person)
    return RunSummary(run, folds, k, oof, test, sum(float(done["seconds"]) for done in folds.values()))
