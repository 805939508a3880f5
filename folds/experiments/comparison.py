"""Compare two runs: the settings that differ, and the paired difference of their out-of-fold scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from folds.errors import EnsembleError
from folds.experiments.compared_settings import settings_between
from folds.experiments.paired_rows import PublishedRun, pair_rows
from folds.experiments.summary import RunLike, RunSummary
from folds.metrics.classification import Metric
from folds.metrics.custom import find_metric
from folds.metrics.intervals import LEVEL, Difference, Interval, difference_over_people
from folds.metrics.positive import in_order_of_metric
from folds.metrics.scored_units import scored_units
from folds.metrics.tasks import metric_for_task
from folds.predictions.named import is_blend
from folds.predictions.reading import is_by_person
from folds.predictions.task_scores import recorded_metrics


@dataclass(frozen=True)
class Comparison:
    """The differences between two runs, `second` minus `first`.

    Attributes
    ----------
    changed : setting that differs → its values in the first and the second run; None if not set.
    unchanged : the settings that are the same.
    differences : metric → difference of the scores, on the samples that both runs predict; the main metric is first.
    rows, people : numbers of rows and people among these samples; a row is a person if each person's images are
        averaged.
    notes : limitations of the comparison.
    by_person : whether a row is a person.
    """

    first: str
    second: str
    changed: Mapping[str, tuple[Any, Any]]
    unchanged: tuple[str, ...]
    differences: Mapping[str, Difference]
    rows: int
    people: int
    notes: tuple[str, ...] = ()
    by_person: bool = False

    @property
    def metric(self) -> str:
        """Return the name of the main metric."""
        return next(iter(self.differences))

    def verdict(self, metric: str | None = None, among: int = 1) -> str:
        """Return whether the difference is significant: ``yes``, or ``no`` with the reason.

        Parameters
        ----------
        metric : one of `differences`; None for the main one.
        among : number of comparisons that are made together, for the Bonferroni correction.
        """
        return self.differences[metric or self.metric].verdict(among)


def compare_runs(
    first: str,
    second: str,
    runs: Path = Path("runs"),
    per_person: bool = False,
    metric: str | Metric | None = None,
) -> Comparison:
    """Compare the out-of-fold predictions of two runs or blends, aligned by id and class name.

    Parameters
    ----------
    metric : a further metric, which is then the main one; by default macro F1 is, or that of the task.

    Raises
    ------
    UsageError : a run does not exist, or the metric is unknown.
    EnsembleError : different targets or classes, no common samples, or different labels of a sample.
    """
    notes: list[str] = []
    paired = pair_rows(first, second, runs, notes)
    a, b = paired.first, paired.second
    per_person = is_by_person(a.sidecar, per_person) or is_by_person(b.sidecar)
    units = scored_units(paired.labels, paired.values, paired.people, per_person, a.sidecar.task)
    labels, people, values = units.labels, units.persons, list(units.predictions)
    _note_splits(a, b, notes)
    changed, unchanged = settings_between(a.settings, b.settings)
    blends = [one.run for one in (a, b) if is_blend(one.run, runs)]
    missing = [one.run for one in (a, b) if not one.settings and one.run not in blends]
    if blends:
        notes.append(f"{' and '.join(blends)}: made from other runs, so no settings are compared")
        changed, unchanged = {}, ()
    if missing:
        notes.append(f"{' and '.join(missing)}: no config.toml, so the settings are unknown")
        changed, unchanged = {}, ()
    compared = {name: find_metric(name) for name in recorded_metrics(a.sidecar.task)}
    if metric is not None:
        main = find_metric(metric) if isinstance(metric, str) else metric
        if isinstance(metric, str):
            main = metric_for_task(metric, a.sidecar.task)
        compared = {main.name: main} | {name: one for name, one in compared.items() if name != main.name}
    positive = a.sidecar.scored or b.sidecar.scored
    differences = {}
    for name, one in compared.items():
        codes, (first_values, second_values) = in_order_of_metric(one, labels, values, a.sidecar.classes, positive)
        differences[name] = difference_over_people(one, codes, first_values, second_values, people, level=LEVEL)
    return Comparison(
        first,
        second,
        changed,
        unchanged,
        differences,
        len(labels),
        next(iter(differences.values())).difference.people,
        tuple(notes),
        per_person,
    )


def _note_splits(a: PublishedRun, b: PublishedRun, notes: list[str]) -> None:
    if a.sidecar.folds_sha != b.sidecar.folds_sha:
        notes.append("the folds differ: random variation of the split is part of the difference")
    notes += [
        f"{one.run} is optimistic: "
        + (
            "its teachers have seen the scored people"
            if one.sidecar.teacher
            else "its epoch was selected on the scored folds"
        )
        for one in (a, b)
        if one.selected_on_validation
    ]


@dataclass(frozen=True)
class BaselineComparison:
    """A run and the comparison with its baseline.

    Attributes
    ----------
    baseline : name of its baseline; None for a run that is itself a baseline.
    score : out-of-fold macro F1.
    comparison : None for a baseline, or if the comparison failed.
    problem : why the comparison failed; "" otherwise.
    """

    run: str
    baseline: str | None
    score: Interval
    comparison: Comparison | None = None
    problem: str = ""


def compare_with_baselines(
    runs: Sequence[RunLike],
    summaries: Sequence[RunSummary],
    per_person: bool = False,
    metric: str | None = None,
) -> list[BaselineComparison]:
    """Return the comparison of each run with its baseline, and the baselines; [] if no run has a baseline."""
    scores = {summary.run: summary.oof.interval for summary in summaries}
    baselines = {run.baseline for run in runs if run.baseline is not None}
    compared: list[BaselineComparison] = []
    for run in runs:
        if run.name not in scores or (run.baseline is None and run.name not in baselines):
            continue
        comparison, problem = None, ""
        if run.baseline is not None:
            try:
                comparison = compare_runs(run.baseline, run.name, run.runs, per_person, metric)
            except EnsembleError as error:
                problem = error.message
        compared.append(BaselineComparison(run.name, run.baseline, scores[run.name], comparison, problem))
    return compared if any(one.baseline for one in compared) else []
