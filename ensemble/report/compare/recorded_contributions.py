"""Show what blend.json records of the contributions of runs, and of the best runs for each cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ensemble.report.compare.scored_members import MOST_ROWS, score_text
from ensemble.report.evidence.scoring import finite
from ensemble.report.page.blocks import Block, Cells, Figure, Missing, Table, Text
from folds.metrics.classification import recorded_metric
from folds.metrics.intervals import Interval
from folds.utils.charts.rows import forest
from folds.utils.charts.series import Row


def contribution_blocks(blend: Mapping[str, Any] | None) -> list[Block]:
    """Return what each run contributes to a blend, as its blend.json records it."""
    if blend is None:
        return []
    worth = blend.get("worth")
    rows = [] if not isinstance(worth, Mapping) else [_contribution(one) for one in _list(worth.get("members"))]
    known = [one for one in rows if one is not None]
    if not isinstance(worth, Mapping) or not known:
        return [Missing("what each run contributes to the blend", "`ensemble blend RUNS… --contributions`")]
    # The name of a function is not resolved: nothing that is read from a file may run code.
    metric = recorded_metric(worth.get("metric"))
    title = "score" if metric is None else metric.title
    known.sort(key=lambda one: -one.gain.value)
    drawn_rows = [
        Row(
            one.name, one.gain.value, one.gain.low, one.gain.high, one.gain.signed_text(), 0 if one.gain.low <= 0 else 2
        )
        for one in known[:MOST_ROWS]
    ]
    best = known[0]
    figure_title = f"Score of the blend with and without each run: difference in {title}"
    text = f"{best.name} contributes most: without it, {title} changes by {-best.gain.value:+.3f}."
    table = Table(
        "compare-contributions",
        f"What each run contributes to the blend, in {title}, with 95% CIs (over people).",
        ["run", "weight", "alone", "gain by run", "Shapley value", "most similar"],
        [
            [one.name, one.weight, score_text(one.alone), one.gain.signed_text(), one.shapley, one.similar]
            for one in known
        ],
        note="Gain by run: the score with the run minus the score without it; positive if the run helps, for every "
        "metric. Shapley value: the mean gain over all orders in which the runs can be added to an unweighted vote.",
    )
    drawn = forest(drawn_rows, figure_title, text, f"gain in {title}", left="better without it", right="it helps")
    blocks: list[Block] = [Figure("compare-contributions-figure", drawn, figure_title, text), table]
    sentences = tuple(line for line in _list(worth.get("sentences")) if isinstance(line, str))
    subsets = _subsets(worth.get("pareto"), title)
    blocks += [] if subsets is None else [subsets]
    return [*([Text(sentences)] if sentences else []), *blocks, *_columns(worth.get("columns"), title)]


def _columns(record: Any, title: str) -> list[Block]:
    """Return what the columns of the samples add, as the blend recorded it; [] without columns."""
    groups = _list(record.get("groups")) if isinstance(record, Mapping) else []
    found = [
        (str(one.get("name")), gain)
        for one in groups
        if isinstance(one, Mapping) and (gain := _interval(one.get("gain"))) is not None
    ]
    if not found:
        return []
    exact = record.get("method") == "shapley"
    found.sort(key=lambda one: -one[1].value)
    caption = f"What each column of the samples adds to the blend, in nested {title}, with 95% CIs (over people)"
    note = (
        "Shapley values, exact: the method is fitted again with every subset of the columns and the runs (all runs are "
        "one group), and scored nested. They sum to the gain over class frequencies."
        if exact
        else "By permutation: the score that is lost if the values of the column are exchanged between the held-out "
        "people of each outer fold, mean of several times. Columns that say the same share their gain unseen."
    )
    text = f"Most is added by {found[0][0]}: {found[0][1].signed_text()} {title}."
    drawn = [
        Row(name, one.value, one.low, one.high, one.signed_text(), 0 if one.low <= 0 else 2) for name, one in found
    ]
    svg = forest(drawn, caption, text, f"gain in {title}", left="better without it", right="it helps")
    head = "Shapley value" if exact else "loss by permutation"
    rows: list[Cells] = [[name, one.signed_text()] for name, one in found]
    table = Table("compare-columns", f"{caption}.", ["runs and columns" if exact else "column", head], rows, note=note)
    return [Figure("compare-columns-figure", svg, caption, text), table]


def _subsets(record: Any, title: str) -> Table | None:
    """Return the best subsets of the runs for each cost, as the blend recorded them."""
    if not isinstance(record, Mapping):
        return None
    rows: list[list[str | int | float | None]] = []
    for one in _list(record.get("rows")):
        if not isinstance(one, Mapping):
            continue
        score, cost, members = _interval(one.get("score")), finite(one.get("cost")), _list(one.get("members"))
        if score is None or cost is None or not members:
            continue
        change, saved = _interval(one.get("difference")), finite(one.get("fewer"))
        listed = ", ".join(map(str, members))
        share = None if saved is None else f"{100 * saved:.0f}"
        rows.append([listed, f"{cost:g}", share, score.text(), None if change is None else change.signed_text()])
    if not rows:
        return None
    unit = "cost" if isinstance(costs := record.get("costs"), Mapping) and costs.get("unit") == "cost" else "passes"
    return Table(
        "compare-subsets",
        f"The best runs for each cost: nested {title} with 95% CIs (over people).",
        ["runs", f"{unit} per image", "saved (%)", f"nested {title}", "against all runs"],
        rows,
        note="Nested: the runs are chosen and the blend is fitted without the people who are scored. Against all runs: "
        "the paired difference; positive if the fewer runs are better, for every metric.",
    )


@dataclass(frozen=True)
class _Contribution:
    name: str
    weight: str
    alone: Interval | None
    gain: Interval
    shapley: str | None
    similar: str | None


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _contribution(record: Any) -> _Contribution | None:
    """Return what blend.json records of a run; None if it is damaged."""
    if not isinstance(record, Mapping):
        return None
    gain, weight = _interval(record.get("without")), finite(record.get("weight"))
    if not isinstance(record.get("run"), str) or gain is None:
        return None
    shapley, closest = _interval(record.get("shapley")), record.get("closest")
    similar = None
    if isinstance(closest, Mapping) and isinstance(closest.get("run"), str):
        correlation = finite(closest.get("correlation"))
        similar = closest["run"] + ("" if correlation is None else f" ({correlation:.2f})")
    return _Contribution(
        record["run"],
        "" if weight is None else f"{weight:.3f}",
        _interval(record.get("score")),
        gain,
        None if shapley is None else shapley.signed_text(),
        similar,
    )


def _interval(record: Any) -> Interval | None:
    if not isinstance(record, Mapping):
        return None
    value, low, high = (finite(record.get(key)) for key in ("score", "low", "high"))
    if value is None:
        return None
    return Interval(value, math.nan if low is None else low, math.nan if high is None else high)
