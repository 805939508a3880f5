"""Draw how a blend differs from each of its runs, paired over people, for a notebook."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ensemble.alignment.split import AlignedSplit
from ensemble.alignment.truth import labels_and_groups
from ensemble.blending.best_single import against_run
from ensemble.blending.request import BlendConfig
from ensemble.blending.scores import RunScore, ranking_of
from ensemble.voting.base import Vote
from folds.metrics.classification import Metric
from folds.metrics.intervals import Difference
from folds.utils.charts.rows import forest
from folds.utils.charts.series import Row
from folds.utils.html import figure
from folds.utils.text import counted

MOST_RUNS = 12  # that are drawn, the best ones
# Tones of the charts: significantly better, not significant, significantly worse.
BETTER, EQUAL, WORSE = 2, 6, 1


def blend_forest(
    method: str,
    splits: Mapping[str, AlignedSplit],
    votes: Mapping[str, Vote],
    runs: Mapping[str, Mapping[str, RunScore]],
    request: BlendConfig,
) -> str:
    """Return a forest plot of blend − run with 95% CIs over people, out of fold or else on test; "" without labels.

    Parameters
    ----------
    runs : run → split → score.
    """
    metric = request.scored
    if request.by != "class" or metric.function is not None:  # a function of the user can take minutes
        return ""
    for name in ("oof", "test"):
        truth = None if name not in splits else labels_and_groups(splits[name], request.per_person)
        if truth is None or len(splits[name].runs) < 2:
            continue
        voting = {run.name for run in splits[name].runs}
        shown = [run for run in ranking_of(runs, metric.greater_is_better) if run in voting][:MOST_RUNS]
        found = {run: against_run(splits[name], votes[name], truth, run, request) for run in shown}
        known = {run: one for run, one in found.items() if one is not None and math.isfinite(one.difference.value)}
        return _drawn(method, known, len(voting), metric, name) if known else ""
    return ""


def _drawn(method: str, found: Mapping[str, Difference], runs: int, metric: Metric, split: str) -> str:
    among = len(found)
    rows = [
        Row(run, *_ends(one), text=one.difference.signed_text(), tone=difference_tone(one, among, metric))
        for run, one in found.items()
    ]
    where = "out of fold" if split == "oof" else "on test people"
    title = f"{method} minus each run: paired difference in {metric.title} {where}, 95% CI over people"
    significant = sum(one.is_significant_among(among) for one in found.values())
    corrected = f" (Bonferroni correction for {among} comparisons)" if among > 1 else ""
    text = f"{significant} of {counted(among, 'difference')} significant{corrected}."
    text += f" The best {among} of {runs} runs are drawn." if among < runs else ""
    return figure(difference_forest(rows, title, text, metric, "the run is better", "the blend is better"), title, text)


def _ends(one: Difference) -> tuple[float, float, float]:
    return one.difference.value, one.difference.low, one.difference.high


def difference_tone(one: Difference, among: int, metric: Metric) -> int:
    """Return the tone of a difference: significantly better, worse, or neither."""
    if not one.is_significant_among(among):
        return EQUAL
    return BETTER if (one.difference.value > 0) == metric.greater_is_better else WORSE


def difference_forest(rows: list[Row], title: str, text: str, metric: Metric, worse: str, better: str) -> str:
    """Return differences as SVG; `worse` and `better` say what lies on either side of 0."""
    names = ((BETTER, "significantly better"), (EQUAL, "not significant"), (WORSE, "significantly worse"))
    tones = {row.tone for row in rows}
    left, right = (worse, better) if metric.greater_is_better else (better, worse)
    label = f"difference in {metric.title}" + ("" if metric.greater_is_better else " (lower is better)")
    return forest(
        rows, title, text, label, left=left, right=right, legend=[(name, tone) for tone, name in names if tone in tones]
    )
