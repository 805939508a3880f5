"""Summarize a run: the pooled out-of-fold score with its 95% CI over people, and the spread over folds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from folds.experiments.refit import RefitSummary, summarize_refit
from folds.metrics.classification import Metric
from folds.metrics.custom import find_metric
from folds.metrics.intervals import Interval
from folds.metrics.positive import in_order_of_metric
from folds.metrics.report import ScoreReport, score_predictions
from folds.metrics.scored_units import known_rows
from folds.metrics.task_names import CLASSES, COLUMN_TASKS
from folds.metrics.tasks import default_metric
from folds.predictions.files import PredictionMetadata
from folds.predictions.reading import (
    is_by_person,
    labels_and_groups,
    mean_test_predictions,
    oof_predictions,
    score_oof,
    score_rows,
    scored_index,
    units_of,
)


class RunLike(Protocol):
    """The part of the interface of `folds.runs.run.Run` that this package uses; it cannot import that module."""

    @property
    def name(self) -> str:
        """Return the name of the run."""

    @property
    def runs(self) -> Path:
        """Return the folder of all runs."""

    @property
    def folder(self) -> Path:
        """Return ``runs/<run>``."""

    @property
    def baseline(self) -> str | None:
        """Return the name of the run that it is compared with, or None."""

    @property
    def parameters(self) -> int:
        """Return the number of parameters of its model."""


def spread_of(scores: Sequence[float]) -> tuple[float, float]:
    """Return mean and standard deviation of scores; those that are undefined (nan) are left out.

    A fold without a positive person has no ROC-AUC. The standard deviation of one score is 0; without any, both are
    nan.
    """
    known = [score for score in scores if not math.isnan(score)]
    if not known:
        return math.nan, math.nan
    return statistics.mean(known), statistics.stdev(known) if len(known) > 1 else 0.0


def spread_text(scores: Sequence[float]) -> str:
    """Return mean and standard deviation of the scores of folds, and how many have one if some are undefined.

    Examples
    --------
    >>> spread_text([0.5, 0.75]), spread_text([0.5, float("nan")]), spread_text([float("nan")])
    ('0.625 ± 0.177', '0.500 ± 0.000 (1 of 2 folds)', 'undefined')
    """
    middle, deviation = spread_of(scores)
    if math.isnan(middle):
        return "undefined"
    known = sum(not math.isnan(score) for score in scores)
    return f"{middle:.3f} ± {deviation:.3f}" + (f" ({known} of {len(scores)} folds)" if known < len(scores) else "")


def _spread_record(scores: Sequence[float], what: str) -> dict[str, Any]:
    """Return the spread of the scores of folds or runs for JSON, which has no nan, and how many are undefined."""
    undefined = sum(map(math.isnan, scores))
    middle, deviation = (None if math.isnan(value) else value for value in spread_of(scores))
    record: dict[str, Any] = {f"mean_of_{what}": middle, f"sd_of_{what}": deviation}
    return record | ({f"undefined_{what}": undefined} if undefined else {})


@dataclass(frozen=True)
class RunSummary:
    """The scores of a run.

    Attributes
    ----------
    folds : fold → content of its done.json, with the score of the fold.
    oof : out-of-fold score; without the people of whom the run has changed training labels.
    test : test score; None without test predictions or labels.
    seconds : training time, summed over the folds.
    fold_scores : score of each fold by the metric and on the people of `oof`, if that is not macro F1 of all people.
    refit : the model of all people; None if there is none.
    columns : label or number → its out-of-fold score by the metric, if there are several labels or numbers; by the
        default metric of the task if that of the run is a function of the user.
    column_metric : the metric of `columns`; "" without them.
    """

    run: str
    folds: Mapping[int, Mapping[str, Any]]
    k: int
    oof: ScoreReport
    test: ScoreReport | None
    seconds: float
    fold_scores: tuple[float, ...] = ()
    refit: RefitSummary | None = None
    columns: Mapping[str, Interval] = field(default_factory=dict)
    column_metric: str = ""

    @property
    def is_of_columns(self) -> bool:
        """Return whether there are several labels or numbers, which have no accuracy."""
        return any("task" in done for done in self.folds.values())

    @property
    def scores(self) -> tuple[float, ...]:
        """Return the score of each fold."""
        return self.fold_scores or tuple(float(done["macro_f1"]) for done in self.folds.values())

    @property
    def selected_on_validation(self) -> bool:
        """Return whether the epoch was selected on the fold that is scored."""
        return any(done.get("optimistic") for done in self.folds.values())

    def spread(self) -> tuple[float, float]:
        """Return mean and standard deviation of the score over the folds (`spread_of`)."""
        return spread_of(self.scores)

    def spread_text(self) -> str:
        """Return ``0.676 ± 0.031``; of fewer folds than there are, their number follows."""
        return spread_text(self.scores)

    def refit_lines(self) -> list[str]:
        """Return what is known about the score of the model of all people; [] if there is none."""
        if self.refit is None:
            return []
        title = f"{find_metric(self.oof.metric).title}{' (optimistic)' if self.selected_on_validation else ''}"
        return self.refit.lines(self.oof.interval, title, len(self.folds))

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        record: dict[str, Any] = {
            "run": self.run,
            "k": self.k,
            "folds": {str(fold): dict(done) for fold, done in self.folds.items()},
        }
        record |= {
            "oof": self.oof.to_dict(),
            **_spread_record(self.scores, "folds"),
            "seconds": self.seconds,
            "optimistic": self.selected_on_validation,
        }
        record |= {"test": None if self.test is None else self.test.to_dict()}
        record |= {} if self.refit is None else {"refit": self.refit.to_dict()}
        columns = {name: one.to_dict() for name, one in self.columns.items()}
        return record | ({"columns": columns} if columns else {})


@dataclass(frozen=True)
class PooledRuns:
    """The scores of runs that differ only in repeat or seed, and of the mean of their predictions.

    Attributes
    ----------
    name : the common part of their names.
    scores : out-of-fold macro F1 of each run.
    folds : macro F1 of all folds of all runs.
    oof, test : scores of the mean, on the samples that all runs predict; the mean is an ensemble, not one of the runs.
    """

    name: str
    runs: tuple[str, ...]
    scores: tuple[float, ...]
    folds: tuple[float, ...]
    oof: ScoreReport
    test: ScoreReport | None
    seconds: float

    task: str = CLASSES

    @property
    def is_of_columns(self) -> bool:
        """Return whether every label or number has a column of its own."""
        return self.task in COLUMN_TASKS

    def spread(self) -> tuple[float, float]:
        """Return mean and standard deviation of the scores of the runs (`spread_of`)."""
        return spread_of(self.scores)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        record: dict[str, Any] = {"of": self.name, "runs": list(self.runs), **_spread_record(self.scores, "runs")}
        record |= _spread_record(self.folds, "folds") | {"oof": self.oof.to_dict()}
        return record | {"test": None if self.test is None else self.test.to_dict(), "seconds": self.seconds}


def pool_runs(
    name: str,
    summaries: Sequence[RunSummary],
    runs: Path = Path("runs"),
    per_person: bool = False,
    metric: str | None = None,
) -> PooledRuns | None:
    """Return the pooled scores of several runs; None for a single run, or if the runs have no common sample yet."""
    if len(summaries) < 2:
        return None
    files = [oof_predictions(runs, summary.run) for summary in summaries]
    first = files[0][1]
    metric = metric or default_metric(first.task)
    rows = [{name: i for i, name in enumerate(sidecar.rows.ids.tolist())} for _, sidecar in files]
    common = [name for name in first.rows.ids.tolist() if all(name in known for known in rows)]
    if not common:
        return None
    average = np.mean(
        [np.asarray(values, np.float64)[[known[name] for name in common]] for (values, _), known in zip(files, rows)],
        axis=0,
    )
    shared = replace(first, rows=first.rows.take(np.array([rows[0][name] for name in common])))
    tests = [test for summary in summaries if (test := mean_test_predictions(runs, summary.run)) is not None]
    return PooledRuns(
        name,
        tuple(summary.run for summary in summaries),
        tuple(summary.oof.interval.value for summary in summaries),
        tuple(score for summary in summaries for score in summary.scores),
        score_oof(runs, [summary.run for summary in summaries], average, shared, metric, per_person),
        score_rows(np.mean([values for values, _ in tests], axis=0), tests[0][1], metric, per_person)
        if len(tests) == len(summaries)
        else None,
        sum(summary.seconds for summary in summaries),
        first.task,
    )


def summarize_run(
    run: str,
    folds: Mapping[int, Mapping[str, Any]],
    k: int,
    runs: Path = Path("runs"),
    per_person: bool = False,
    metric: str | None = None,
) -> RunSummary:
    """Score a run from its prediction files.

    Test probabilities are averaged over the fold models, as `blend` does for one run.

    Parameters
    ----------
    metric : None for that of the task (`default_metric`).
    """
    oof, test = oof_predictions(runs, run), mean_test_predictions(runs, run)
    metric = metric or default_metric(oof[1].task)
    per_person = is_by_person(oof[1], per_person)  # one unit for all scores
    scored = score_oof(runs, [run], *oof, metric, per_person)
    several = oof[1].has_columns and len(oof[1].classes) > 1
    of_one = _metric_of_column(metric, oof[1].task) if several else ""
    return RunSummary(
        run,
        folds,
        k,
        scored,
        None if test is None else score_rows(test[0], test[1], metric, per_person),
        sum(float(done["seconds"]) for done in folds.values()),
        ()
        if metric == "macro_f1" and not scored.left_out and not oof[1].has_columns and not is_by_person(oof[1])
        else _fold_scores(runs, run, *oof, metric, per_person and (oof[1].has_columns or is_by_person(oof[1]))),
        summarize_refit(run, _checkpoints(folds), runs, per_person, metric),
        _column_scores(runs, run, *oof, of_one, per_person) if several else {},
        of_one,
    )


def _metric_of_column(metric: str, task: str) -> str:
    """Return the metric of one of several labels or numbers.

    A function of the user was written for all columns together, so the score of one is that of the task.
    """
    return metric if find_metric(metric).function is None else default_metric(task)


def _column_scores(
    runs: Path, run: str, values: NDArray[np.floating], sidecar: PredictionMetadata, metric: str, per_person: bool
) -> dict[str, Interval]:
    """Return label or number → its out-of-fold score, on the rows of the score of the run."""
    kept = scored_index(runs, [run], sidecar)[0]
    if kept is not None:
        values, sidecar = values[kept], replace(sidecar, rows=sidecar.rows.take(kept))
    labels, persons = labels_and_groups(sidecar)
    return {
        name: score_predictions(
            labels[:, [i]], values[:, [i]], persons, metric, is_by_person(sidecar, per_person), task=sidecar.task
        ).interval
        for i, name in enumerate(sidecar.classes)
    }


def _checkpoints(folds: Mapping[int, Mapping[str, Any]]) -> dict[str, str]:
    """Return fold → hash of its checkpoint, for the folds that recorded it."""
    return {str(fold): str(done["checkpoint_sha"]) for fold, done in folds.items() if "checkpoint_sha" in done}


def _fold_scores(
    runs: Path, run: str, values: NDArray[np.floating], sidecar: PredictionMetadata, metric: str, by_person: bool
) -> tuple[float, ...]:
    """Return the score of each fold of an out-of-fold file, per image or by person."""
    found = find_metric(metric)
    fold = np.broadcast_to(np.asarray(sidecar.fold), len(values))
    kept = scored_index(runs, [run], sidecar)[0]
    if by_person:
        rows = np.arange(len(values)) if kept is None else kept
        return tuple(
            _score_of_people(found, values[own], replace(sidecar, rows=sidecar.rows.take(own)))
            for one in np.unique(fold[rows])
            for own in [rows[fold[rows] == one]]
        )
    labels = labels_and_groups(sidecar)[0]
    labels, (values,) = in_order_of_metric(found, labels, [values], sidecar.classes, sidecar.scored)
    if kept is not None:
        labels, values, fold = labels[kept], values[kept], fold[kept]
    known = known_rows(labels)
    labels, values, fold = labels[known], values[known], fold[known]
    return tuple(float(found(labels[fold == one], values[fold == one])) for one in np.unique(fold))


def _score_of_people(metric: Metric, values: NDArray[np.floating], sidecar: PredictionMetadata) -> float:
    """Return the score of the people of some rows."""
    labels, values, _ = units_of(values, sidecar, True)
    labels, (values,) = in_order_of_metric(metric, labels, [values], sidecar.classes, sidecar.scored)
    return float(metric(labels, values))
