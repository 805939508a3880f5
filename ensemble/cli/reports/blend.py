"""Render a blend as text: tables of runs, methods, contributions and subsets, and notes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ensemble.analysis.column_importance import ColumnImportance
from ensemble.analysis.contributions import Contributions
from ensemble.analysis.pareto import Pareto
from ensemble.blending.blend import Blend
from ensemble.blending.column_details import ColumnDetails
from ensemble.blending.details import Details
from ensemble.blending.fit import FittedBlend
from ensemble.blending.scores import RunScore
from ensemble.cli.terminal import console
from folds.metrics.calibration import Bin
from folds.metrics.per_class import ClassScore
from folds.metrics.task_names import REGRESSION


def blend_report(made: Blend) -> str:
    """Return the whole report of a blend, what the scores say first."""
    verdict = made.verdict
    parts = ["\n".join(map(console.spelled, verdict))] if verdict else []
    parts.append(blend_table(made))
    if made.fitted is not None:
        parts.append(methods_table(made.fitted))
    if made.contribution_report is not None:
        found = made.contribution_report
        parts += [contributions_table(found.contributions), "\n".join(contribution_notes(found.contributions))]
        parts += [] if found.pareto is None else [pareto_table(found.pareto)]
        parts += [] if found.columns is None else [columns_table(found.columns)]
        parts.append("\n".join(found.summary_lines))
    parts += [detail_tables(one) for one in made.details.values()]
    notes = [note for note in made.notes if note not in verdict]
    if notes:
        parts.append("\n".join(map(console.spelled, notes)))
    return "\n\n".join(parts)


def blend_table(made: Blend) -> str:
    """Return one row per run and one for the blend: weight, folds, rows and scores per split (nested if fitted)."""
    names = list(made.splits)
    scored = {
        name: any(entries[name].score is not None for entries in [*made.runs.values(), made.total] if name in entries)
        for name in names
    }
    weighted = len(set(made.weights.values())) > 1
    metric = made.request.scored
    with_accuracy = metric.name != "accuracy" and next(iter(made.splits.values())).task != REGRESSION
    unit = "people" if made.request.per_person else "rows"
    header = ["run", *(["weight"] if weighted else [])]
    for name in names:
        shown = "OOF" if name == "oof" else name
        header += [f"{shown} folds", f"{shown} {unit if scored[name] else 'rows'}"]
        header += [
            f"{shown} {metric.title}",
            "95% CI (over people)" if made.splits[name].rows.persons is not None else "95% CI (over images)",
        ] * scored[name]
        header += [f"{shown} accuracy"] * (scored[name] and with_accuracy)
    rows = []
    total = f"{made.method} vote" if made.fitted is None else f"{made.method}, nested"
    entries: Any
    for run, entries in [*made.runs.items(), (total, made.total)]:
        row = [run, *([f"{made.weights[run]:.3g}" if run in made.weights else ""] if weighted else [])]
        for name in names:
            row += _cells(entries.get(name), scored[name], with_accuracy)
        rows.append(row)
    # What a narrow table leaves out: the folds and the accuracy of every split, then the number of rows.
    parts = ("folds", "accuracy", "rows", "people")
    optional = [i for part in parts for i, name in enumerate(header) if name.endswith(f" {part}")]
    return console.table(header, rows, optional=optional)


def _cells(entry: RunScore | None, scored: bool, with_accuracy: bool) -> list[str]:
    width = 2 + (2 + with_accuracy) * scored
    if entry is None:
        return ["–"] * width
    cells = [
        str(len(entry.folds)) if entry.folds else "–",
        f"{entry.rows if entry.score is None else entry.score.rows:,}",
    ]
    if not scored:
        return cells
    if entry.score is None:
        return cells + ["–"] * (width - 2)
    cells += [f"{entry.score.interval.value:.3f}", entry.score.interval.ci_text()]
    return cells + [f"{entry.score.accuracy:.3f}"] * with_accuracy


def methods_table(fitted: FittedBlend) -> str:
    """Return one row per method, best nested score first; the chosen method is last."""
    title = fitted.metric.title + ("" if fitted.metric.greater_is_better else " (lower is better)")
    header = [
        "method",
        f"nested {title}",
        "95% CI",
        "in-sample",
        "optimism",
        "vs soft voting",
        "95% CI",
    ]
    lines = sorted(
        fitted.lines.values(),
        key=lambda line: -line.score.value if fitted.metric.greater_is_better else line.score.value,
    )
    rows = []
    for line in [*(line for line in lines if line.method != fitted.method), fitted.lines[fitted.method]]:
        over = ["–", "–"]
        if line.over_soft is not None:
            over = [f"{line.over_soft.difference.value:+.3f}", line.over_soft.difference.ci_text(signed=True)]
        rows.append(
            [
                line.method,
                f"{line.score.value:.3f}",
                line.score.ci_text(),
                f"{line.in_sample:.3f}",
                f"{line.optimism:+.3f}",
                *over,
            ]
        )
    return console.table(header, rows)


_NAMED = 5


def contributions_table(contributions: Contributions) -> str:
    """Return one row per run, largest contribution first: score, weight, leave-one-out, Shapley value, similar run."""
    title = contributions.metric.title + ("" if contributions.metric.greater_is_better else " (lower is better)")
    header = [
        "run",
        title,
        "weight",
        "leave-one-out" if not contributions.refitted else "leave-one-out, refitted",
        "95% CI",
    ]
    if contributions.shares is not None:
        header += ["Shapley value", "95% CI"]
    rows = []
    order = sorted(
        contributions.members,
        key=lambda one: (-(one.leave_one_out.difference if one.share is None else one.share).value, one.name),
    )
    for member in order:
        gained = member.leave_one_out.difference
        row = [
            member.name,
            f"{member.score.value:.3f}",
            f"{member.weight:.3f}",
            f"{gained.value:+.3f}",
            gained.ci_text(signed=True),
        ]
        if contributions.shares is not None:
            row += (
                ["–", "–"]
                if member.share is None
                else [f"{member.share.value:+.3f}", member.share.ci_text(signed=True)]
            )
        rows.append(
            [*row, "–" if member.most_similar is None else f"{member.most_similar[0]} ({member.most_similar[1]:.2f})"]
        )
    cis = [i for i, name in enumerate(header) if name == "95% CI"]
    return console.table([*header, "most similar run"], rows, optional=[cis[-1], "weight", "most similar run"])


def columns_table(found: ColumnImportance) -> str:
    """Return one row for the runs together and one per column of the samples, largest gain first."""
    head = "Shapley value" if found.exact else "loss by permutation"
    ordered = sorted(found.groups, key=lambda one: (-one.gain.value, one.name))
    rows = [[one.name, f"{one.gain.value:+.3f}", one.gain.ci_text(signed=True)] for one in ordered]
    return console.table(["runs and columns" if found.exact else "column", head, "95% CI"], rows)


def contribution_notes(contributions: Contributions) -> list[str]:
    """Return notes on how to read the table of contributions."""
    metric = contributions.metric
    notes: list[str] = []
    if not metric.greater_is_better:
        notes.append(f"differences and Shapley values: positive is better, although a lower {metric.title} is better")
    shares = contributions.shares
    if shares is not None:
        drawn = (
            "" if shares.exact else f"; sampled orders, standard error {shares.standard_error:.4f}, included in the CIs"
        )
        notes.append(f"Shapley values sum to the gain over guessing: {shares.empty:.3f} → {shares.full:.3f}{drawn}")
    alike, apart = contributions.diversity.mean("correlation"), contributions.diversity.mean("disagreement")
    if alike is not None and apart is not None:
        notes.append(
            f"mean over pairs of runs: error correlation {alike:.2f}, disagreement on {100 * apart:.0f}% of rows"
        )
    elif alike is not None:
        notes.append(f"mean over pairs of runs: error correlation {alike:.2f}")
    return notes


def pareto_table(pareto: Pareto) -> str:
    """Return one row per Pareto-optimal subset, cheapest first; all runs are last if they are not one of them."""
    title, unit = pareto.metric.title, pareto.costs.unit
    title += "" if pareto.metric.greater_is_better else " (lower is better)"
    header = ["runs", unit, f"nested {title}", "95% CI", "vs all runs", "95% CI", "members"]
    rows = []
    for row in [*pareto.rows, *([] if pareto.everyone in pareto.rows else [pareto.everyone])]:
        gained = None if row.difference is None else row.difference.difference
        listed = "all" if row is pareto.everyone else _members(row.members)
        cells = [
            str(len(row.members)),
            f"{row.cost:g}",
            f"{row.score.value:.3f}",
            row.score.ci_text(),
        ]
        rows.append(
            [
                *cells,
                "–" if gained is None else f"{gained.value:+.3f}",
                "–" if gained is None else gained.ci_text(signed=True),
                listed,
            ]
        )
    return console.table(header, rows, left=0, optional=[5, 3, 1])


def _members(names: tuple[str, ...]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


_WIDTH = 30  # characters of a bar for an accuracy of 1


def column_table(one: ColumnDetails) -> str:
    """Return one row per label or number: known rows, people, means, and scores."""
    labels = one.task != REGRESSION
    title = one.metric.title + ("" if one.metric.greater_is_better else " (lower is better)")
    header = ["label" if labels else "number", "known rows", "people", *(["people with it", "share"] if labels else [])]
    header += [*([] if labels else ["true mean"]), "mean p" if labels else "mean", title, "95% CI (over people)"]
    header += list(one.columns[0].others)
    rows: list[list[str]] = []
    for column in one.columns:
        row = [column.name, f"{column.rows:,}", f"{column.people:,}"]
        if labels:
            row += [f"{column.people_with:,}", "–" if column.share is None else f"{column.share:.3f}"]
        else:
            row.append(f"{column.true_mean:.4g}")
        row += [f"{column.mean:.3f}" if labels else f"{column.mean:.4g}"]
        row += [f"{column.score.value:.3f}", column.score.ci_text()]
        rows.append([*row, *(f"{value:.3f}" for value in column.others.values())])
    return console.table(header, rows)


def detail_tables(one: Details | ColumnDetails) -> str:
    """Return the breakdown of a score: classes, attributes, calibration, and the CIs over people and over images."""
    split = "out of fold" if one.split == "oof" else one.split
    if isinstance(one, ColumnDetails):
        return f"{split}, by {'number' if one.task == REGRESSION else 'label'}\n{column_table(one)}"
    parts = [f"{split}, by class\n{_classes(one.classes)}"]
    for attribute in one.attributes:
        scores = f"macro F1 {attribute.macro_f1.text()}, accuracy {attribute.accuracy.value:.3f}"
        parts.append(
            f"{attribute.name}: {scores}; accuracy from the predicted class "
            f"{attribute.of_class.value:.3f}\n{_classes(attribute.values)}"
        )
    errors = (
        f"calibration error {one.calibration_error:.3f}, classwise {one.classwise_error:.3f}, "
        f"Brier score {one.brier:.3f}"
    )
    parts.append(f"{split}, calibration ({errors})\n{_bins(one.bins)}")
    parts.append(
        f"{one.metric.title} {one.people.text()}, 95% CI over people; over images it would be {one.images.ci_text()}, "
        "which ignores that images of one person are correlated"
    )
    return "\n\n".join(parts)


def _classes(scores: Sequence[ClassScore]) -> str:
    header = ["class", "rows", "people", "precision", "recall", "F1", "95% CI", "ROC-AUC"]
    rows = []
    for one in scores:
        shown = [f"{value:.3f}" for value in (one.precision, one.recall, one.f1.value)]
        rows.append(
            [
                one.name,
                f"{one.rows:,}",
                f"{one.people:,}",
                *shown,
                one.f1.ci_text(),
                "–" if one.roc_auc is None else f"{one.roc_auc:.3f}",
            ]
        )
    return console.table(header, rows)


def _bins(bins: Sequence[Bin]) -> str:
    header = ["confidence", "rows", "mean confidence", "accuracy", "gap", ""]
    rows = []
    for one in bins:
        if not one.count:
            continue
        gap = one.accuracy - one.confidence
        bar = "█" * round(_WIDTH * one.accuracy)
        rows.append(
            [
                f"{one.low:.2f}–{one.high:.2f}",
                f"{one.count:,}",
                f"{one.confidence:.3f}",
                f"{one.accuracy:.3f}",
                f"{gap:+.3f}",
                bar.ljust(_WIDTH),
            ]
        )
    return console.table(header, rows)
