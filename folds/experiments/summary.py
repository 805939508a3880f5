"""What a run is worth: the pooled out-of-fold score with its interval over people, and the spread over folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.data.targets import LABEL
from folds.metrics.classification import accuracy, argmax_classes
from folds.metrics.custom import find_metric
from folds.metrics.grouping import average_by_person, person_codes
from folds.metrics.intervals import Interval, interval_over_people
from folds.predictions.files import Sidecar, fold_files, oof_file, read_array, read_sidecar


@dataclass(frozen=True)
class Score:
    """A score with its interval over people, and the accuracy beside it.

    `rows` are images, or people if scored per person; `mixed_people` carry several labels and are scored by their most frequent one.
    """

    metric: str
    headline: Interval
    accuracy: float
    rows: int
    mixed_people: int = 0

    def as_json(self) -> dict[str, Any]:
        """For --json and blend.json."""
        interval: dict[str, Any] = self.headline.as_json() | ({"warning": self.headline.warning} if self.headline.warning else {})
        return {self.metric: interval, "accuracy": self.accuracy, "rows": self.rows, "people": self.headline.people}


def score(
    labels: NDArray[np.int64], probabilities: NDArray[np.floating], persons: NDArray[Any], metric: str = "macro_f1", per_person: bool = False
) -> Score:
    """Score probabilities (n, classes) on class indices (n,); with `per_person` a person's images are averaged first."""
    mixed = 0
    if per_person:
        labels, probabilities, persons, mixed = average_by_person(labels, probabilities, persons, np.shape(probabilities)[1])
    predicted = argmax_classes(probabilities)
    headline = interval_over_people(find_metric(metric), labels, probabilities, persons, predicted=predicted)
    return Score(metric, headline, accuracy(labels, predicted), len(labels), mixed)


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


@dataclass(frozen=True)
class Pooled:
    """Runs that differ in repeat or seed alone: their own out-of-fold scores, and those of the mean of their probabilities.

    Attributes
    ----------
    name : what their names have in common.
    scores : macro F1 out of fold of each.
    folds : macro F1 of all their folds.
    oof, test : of the mean, on the samples that all of them have predicted: of another model than any one of them.
    """

    name: str
    runs: tuple[str, ...]
    scores: tuple[float, ...]
    folds: tuple[float, ...]
    oof: Score
    test: Score | None
    seconds: float

    def spread(self) -> tuple[float, float]:
        """Mean and standard deviation of the runs' scores."""
        return mean(self.scores), stdev(self.scores)


def pool(name: str, summaries: Sequence[RunSummary], runs: Path = Path("runs"), per_person: bool = False) -> Pooled | None:
    """What several runs are worth together; None for a single one, or where they have no sample in common yet."""
    if len(summaries) < 2:
        return None
    files = [oof_predictions(runs, summary.run) for summary in summaries]
    first = files[0][1]
    place = [{name: i for i, name in enumerate(sidecar.rows.ids.tolist())} for _, sidecar in files]
    common = [name for name in first.rows.ids.tolist() if all(name in known for known in place)]
    if not common:
        return None
    average = np.mean([np.asarray(values, np.float64)[[known[name] for name in common]] for (values, _), known in zip(files, place)], axis=0)
    shared = replace(first, rows=first.rows.take(np.array([place[0][name] for name in common])))
    tests = [test for summary in summaries if (test := mean_test_predictions(runs, summary.run)) is not None]
    return Pooled(
        name,
        tuple(summary.run for summary in summaries),
        tuple(summary.oof.headline.score for summary in summaries),
        tuple(float(done["macro_f1"]) for summary in summaries for done in summary.folds.values()),
        score_rows(average, shared, per_person=per_person),
        score_rows(np.mean([values for values, _ in tests], axis=0), tests[0][1], per_person=per_person) if len(tests) == len(summaries) else None,
        sum(summary.seconds for summary in summaries),
    )


def truth_of(sidecar: Sidecar) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(n,) class indices and (n,) a number for each person; of a prediction of an attribute, its values.

    Raises
    ------
    ValueError : the rows have no labels.
    """
    labels, persons = sidecar.rows.labels, sidecar.rows.persons
    if sidecar.target != LABEL:
        labels = sidecar.rows.attributes.get(sidecar.target)
    if labels is None:
        raise ValueError("no labels to score on")
    code = {name: i for i, name in enumerate(sidecar.classes)}
    return np.array([code[label] for label in labels.tolist()]), person_codes(sidecar.rows.ids if persons is None else persons)


def score_rows(probabilities: np.ndarray, sidecar: Sidecar, metric: str = "macro_f1", per_person: bool = False) -> Score:
    """Score predictions (n, classes) on the labels in their sidecar; those of an attribute on its values."""
    truth, persons = truth_of(sidecar)
    return score(truth, probabilities, persons, metric, per_person)


def summarise(run: str, folds: Mapping[int, Mapping[str, Any]], k: int, runs: Path = Path("runs"), per_person: bool = False) -> RunSummary:
    """Score a run from the files it has published.

    On test samples with labels, the fold models' probabilities are averaged: what `blend` does with one run.
    """
    oof, test = oof_predictions(runs, run), mean_test_predictions(runs, run)
    return RunSummary(
        run,
        folds,
        k,
        score_rows(oof[0], oof[1], per_person=per_person),
        None if test is None else score_rows(test[0], test[1], per_person=per_person),
        sum(float(done["seconds"]) for done in folds.values()),
    )


def oof_predictions(runs: Path, run: str) -> tuple[NDArray[np.floating], Sidecar]:
    """The out-of-fold predictions (n, classes) that a run has published, and what they are."""
    path = oof_file(runs, run)
    sidecar = read_sidecar(path)
    if sidecar is None:
        raise ValueError(f"{path} has no sidecar")
    return np.asarray(read_array(path)), sidecar


def mean_test_predictions(runs: Path, run: str) -> tuple[NDArray[np.floating], Sidecar] | None:
    """The mean of the fold models' probabilities on labelled test samples; None where there are none."""
    tests = [(p, s) for p in fold_files(runs, run).values() if (s := read_sidecar(p)) is not None]
    if not tests or tests[0][1].rows.labels is None:
        return None
    return np.mean([np.asarray(read_array(p), np.float64) for p, _ in tests], axis=0), tests[0][1]
