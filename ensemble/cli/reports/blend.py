"""The tables of a blend: a line a run, a line a method; rendering only."""

from __future__ import annotations

from typing import Any

from ensemble.blending.blend import Blend
from ensemble.blending.fit import Fitted
from ensemble.blending.scores import Entry
from ensemble.cli.terminal import console
from ensemble.cli.terminal.spans import signed_span, span


def blend_table(made: Blend) -> str:
    """A line a run and one for the blend: weight, folds, rows and score on each split; of what was learnt, the nested score."""
    names = list(made.splits)
    scored = {name: any(entries[name].score is not None for entries in [*made.runs.values(), made.total] if name in entries) for name in names}
    weighted = len(set(made.weights.values())) > 1
    metric = made.request.scored
    with_accuracy = metric.name != "accuracy"
    unit = "people" if made.request.per_person else "rows"
    header = ["run", *(["weight"] if weighted else [])]
    for name in names:
        shown = "OOF" if name == "oof" else name
        header += [f"{shown} folds", f"{shown} {unit if scored[name] else 'rows'}"]
        header += [f"{shown} {metric.title}", "95 % over people" if made.splits[name].rows.persons is not None else "95 % over images"] * scored[name]
        header += [f"{shown} accuracy"] * (scored[name] and with_accuracy)
    rows = []
    total = f"{made.method} vote" if made.fitted is None else f"{made.method}, nested"
    entries: Any
    for run, entries in [*made.runs.items(), (total, made.total)]:
        row = [run, *([f"{made.weights[run]:.3g}" if run in made.weights else ""] if weighted else [])]
        for name in names:
            row += _cells(entries.get(name), scored[name], with_accuracy)
        rows.append(row)
    return console.table(header, rows)


def _cells(entry: Entry | None, scored: bool, with_accuracy: bool) -> list[str]:
    width = 2 + (2 + with_accuracy) * scored
    if entry is None:
        return ["–"] * width
    cells = [str(len(entry.folds)) if entry.folds else "–", f"{entry.rows if entry.score is None else entry.score.rows:,}"]
    if not scored:
        return cells
    if entry.score is None:
        return cells + ["–"] * (width - 2)
    cells += [f"{entry.score.headline.score:.3f}", span(entry.score.headline)]
    return cells + [f"{entry.score.accuracy:.3f}"] * with_accuracy


def methods_table(fitted: Fitted) -> str:
    """A line a method, best nested score first, and what was chosen last."""
    title = fitted.metric.title + ("" if fitted.metric.greater_is_better else " (less is better)")
    header = ["method", f"nested {title}", "95 % over people", "on what it learnt from", "too good by", "against soft voting", "95 %"]
    lines = sorted(fitted.lines.values(), key=lambda line: -line.score.score if fitted.metric.greater_is_better else line.score.score)
    rows = []
    for line in [*(line for line in lines if line.method != fitted.method), fitted.lines[fitted.method]]:
        over = ["–", "–"]
        if line.over_soft is not None:
            over = [f"{line.over_soft.difference.score:+.3f}", signed_span(line.over_soft.difference)]
        rows.append([line.method, f"{line.score.score:.3f}", span(line.score), f"{line.claimed:.3f}", f"{line.optimism:+.3f}", *over])
    return console.table(header, rows)
