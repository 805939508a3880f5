"""Render comparisons of runs: against a baseline after `kfold`, and between two runs in `runs diff`."""

from __future__ import annotations

from collections.abc import Sequence

from ensemble.cli.terminal import console
from folds.config.lookup import spelling_of
from folds.experiments.compared_settings import changes_text
from folds.experiments.comparison import BaselineComparison, Comparison
from folds.metrics.classification import recorded_metric
from folds.metrics.custom import find_metric
from folds.utils.text import value_text


def _among(compared: Sequence[BaselineComparison]) -> int:
    return sum(one.comparison is not None for one in compared)


def compared_table(compared: Sequence[BaselineComparison]) -> str:
    """Return one row per run: score, changed settings, and the paired difference from its baseline."""
    baselines = {one.baseline for one in compared if one.baseline is not None}
    named = len(baselines) > 1 or not baselines <= {one.run for one in compared}
    metric = next((one.comparison.metric for one in compared if one.comparison is not None), "macro_f1")
    header = [
        "run",
        "changed",
        f"OOF {find_metric(metric).title}",
        "95% CI (over people)",
        *(["baseline"] if named else []),
    ]
    header += ["difference", "95% CI", "significant"]
    rows = []
    for one in compared:
        row = [one.run, "", f"{one.score.value:.3f}", one.score.ci_text(), *([one.baseline or ""] if named else [])]
        if one.comparison is None:
            row += ["", "", "not comparable" if one.problem else "the baseline"]
        else:
            row[1] = changes_text(one.comparison.changed, 60 if console.wide else 24)
            found = one.comparison.differences[one.comparison.metric].difference
            row += [f"{found.value:+.3f}", found.ci_text(signed=True), one.comparison.verdict(among=_among(compared))]
        rows.append(row)
    return console.table(header, rows, left=2, optional=["95% CI (over people)", 2, "baseline"])


def compared_remarks(compared: Sequence[BaselineComparison]) -> None:
    """Print notes on how to read the table."""
    for one in compared:
        for text in [one.problem] if one.problem else one.comparison.notes if one.comparison is not None else ():
            console.note(f"{one.run} vs {one.baseline}: {text}")
    if _among(compared):
        console.note("the CIs cover the variation between people, not between training seeds")


def diff_tables(comparison: Comparison, unit: str = "images") -> str:
    """Return the changed settings, and the scores of both runs with the paired difference."""
    settings = [
        [spelling_of(name), value_text(before), value_text(after)]
        for name, (before, after) in comparison.changed.items()
    ]
    first = (
        console.table(["setting", comparison.first, comparison.second], settings, left=3)
        if settings
        else "no settings differ"
    )
    rows = []
    for name, found in comparison.differences.items():
        metric = recorded_metric(name)  # a user's function is named by its title
        lower = "" if metric is None or metric.greater_is_better else " (lower is better)"
        row = [
            f"OOF {name if metric is None else metric.title}{lower}",
            f"{found.first:.3f}",
            f"{found.second:.3f}",
            f"{found.difference.value:+.3f}",
        ]
        rows.append([*row, found.difference.ci_text(signed=True), comparison.verdict(name)])
    header = [
        f"on {comparison.rows:,} {unit}",
        comparison.first,
        comparison.second,
        "difference",
        "95% CI",
        "significant",
    ]
    table = console.table(header, rows)
    return f"{first}\n\n{table}" if comparison.changed or comparison.unchanged else table
