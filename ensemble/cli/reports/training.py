"""Render a training as text: the plan, the table of results, and notes on how to read it."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

from ensemble.cli.reports.compare import compared_remarks, compared_table
from ensemble.cli.reports.folds import folds_text
from ensemble.cli.terminal import console
from ensemble.cli.terminal.progress import TerminalProgress
from folds.config.stages import parse_stages
from folds.errors import FoldsFailed, Interrupted
from folds.experiments.curves import curve_title, fold_curves
from folds.experiments.sites import NewSites
from folds.experiments.summary import PooledRuns, RunSummary, spread_text
from folds.features.learning_curve import NUMBER_HEADS, TRAINING, LearningCurve
from folds.metrics.custom import find_metric
from folds.metrics.report import ScoreReport
from folds.metrics.task_names import MULTILABEL, REGRESSION
from folds.models.accelerators import measures_formats
from folds.models.precision import resolve_amp
from folds.runs.plan import Plan
from folds.runs.run import Run
from folds.runs.run_formats import formats_line, recorded_amps
from folds.runs.session import TrainingResult, train_runs
from folds.utils.sparkline import blocks_for, scale_of, sparkline
from folds.utils.text import counted, duration, score_text

FEW_PEOPLE = 10
_COLUMNS = 40  # labels or numbers in a table
_CURVES = 60  # characters of the curves of a run


def describe(plan: Plan) -> None:
    """Print what will be trained, on which data and device."""
    table = plan.table
    test = "" if plan.data.test is None else f"; test: {counted(len(plan.data.test), 'image')}"
    people = 0 if table.persons is None else len(set(table.persons.tolist()))
    repeats = f", {len(plan.assignments)} repeats" if len(plan.assignments) > 1 else ""
    split = (
        "one part held out by person"
        if plan.assignment.held_out
        else f"{plan.assignment.k} folds by {plan.assignment.leave_out or 'person'}{repeats}"
    )
    images, persons = counted(len(table), "image"), counted(people, "person", "people")
    classes = counted(len(table.classes), "class", "classes")
    if table.has_columns:
        classes = counted(len(table.classes), "label" if table.task == MULTILABEL else "number")
    console.note(f"{images} of {persons}, {classes}, {split}{test}\n")
    console.note(folds_text(plan.assignment, table.classes, table.class_attributes))
    console.note("folds of the first repeat\n" if repeats else "")
    same_recipe: dict[str, list[Run]] = {}
    for run in plan.runs:
        same_recipe.setdefault(run.base, []).append(run)
    for run, *others in same_recipe.values():
        init = run.recipe.init_run or run.recipe.init
        weights = f"weights of {init}" if init else "pretrained" if run.recipe.pretrained else "random weights"
        size = f"{run.parameters / 1e6:.1f} M parameters, {weights}"
        console.note(f"{run.name}: {run.architecture.describe()}; {size}")
        recipe = run.recipe
        steps = features_text(run) or (
            f"{counted(recipe.epochs, 'epoch')}{stages_text(run)}, batch size {recipe.batch_size}, "
            f"learning rate {recipe.lr:g} ({run.rate_reason}), {recipe.augment} augmentation"
        )
        console.note(f"{' ' * len(run.name)}  {steps}")
        if others:
            console.note(
                f"{' ' * len(run.name)}  same recipe, other folds or seeds: {', '.join(other.name for other in others)}"
            )
    console.note(plan.placement.reason)
    if not measures_formats(plan.placement.devices[0]):  # where it is measured, it is said when images are decoded
        amp, why = resolve_amp(plan.runs[0].recipe.amp, plan.placement.devices[0])
        console.note(f"mixed precision {amp}: {why}")


def stages_text(run: Run) -> str:
    """Return in brackets which epochs have smaller images; "" if none has."""
    stages = parse_stages(run.recipe.progressive)
    each = ", ".join(f"{stage.epochs} at {stage.width}×{stage.height} px" for stage in stages)
    return f" ({each} first)" if stages else ""


def features_text(run: Run) -> str:
    """Return one phrase about the head of a run on frozen features; "" if the whole model is trained."""
    recipe = run.recipe
    if not recipe.features:
        return ""
    head = f"frozen, features of the views {', '.join(recipe.views)}; {recipe.head} head"
    if recipe.head == "logistic":
        strength = f"{recipe.l2:g}" if recipe.l2 else f"chosen by {recipe.inner_folds} inner folds over people"
        return f"{head}, L2 strength {strength}"
    return f"{head}, {counted(recipe.epochs, 'epoch')}, batch size {recipe.batch_size}, learning rate {recipe.lr:g}"


def train_shown(plan: Plan, again: str, **options: Any) -> TrainingResult:
    """Train a plan with a live view; after Ctrl-C, `again` is the command to continue."""
    try:
        return train_runs(plan, progress=TerminalProgress(), **options)
    except KeyboardInterrupt:
        raise Interrupted("finished folds are saved; the others continue from their last epoch", hint=again) from None


def show(trained: TrainingResult, curves: Sequence[LearningCurve] = ()) -> None:
    """Print the results of a training, with learning curves; nothing if no fold is finished."""
    if not trained.summaries:
        return
    tables = [results_table(trained.summaries, trained.pooled)]
    tables += list(filter(None, [columns_table(trained.summaries)]))
    tables += [compared_table(trained.comparisons)] if trained.comparisons else []
    tables += [curve_table(curve) for curve in curves]
    drawn = "" if console.quiet else curves_table(trained)
    tables += [drawn] if drawn else []
    record = trained.to_dict() | ({"learning_curves": [curve.to_dict() for curve in curves]} if curves else {})
    console.result("\n\n".join(tables), record)
    for curve in curves:
        curve_remarks(curve)
    remarks(trained.summaries, trained.pooled)
    compared_remarks(trained.comparisons)
    sites_remarks(trained.new_sites)
    line = formats_line(recorded_amps(trained.plan.runs))
    if line:
        console.note(line)


def curves_table(trained: TrainingResult) -> str:
    """Return one row per run with a sparkline per fold: the validation score after each epoch; "" without epochs."""
    blocks, rows = blocks_for(sys.stdout), list[list[object]]()
    for summary in trained.summaries:
        run = trained.runs[summary.run]
        key, found = fold_curves(run.folder, sorted(summary.folds), run.recipe.metric)
        scale = scale_of(found.values())
        if scale is None or max(map(len, found.values())) < 2:
            continue
        width = min(12, max(3, _CURVES // len(found) - 1))
        drawn = " ".join(sparkline(curve, scale, width, blocks) for curve in found.values())
        rows.append([run.name, curve_title(key), f"{scale[0]:.3f} to {scale[1]:.3f}", drawn])
    if not rows:
        return ""
    return console.table(["run", "by epoch", "scale", "a curve per fold"], rows, 4)


def sites_remarks(found: Sequence[NewSites]) -> None:
    """Print what the runs that left sites out say of new sites."""
    for one in found:
        for line in one.lines():
            console.note(line)


def curve_table(curve: LearningCurve) -> str:
    """Return one row per share of the people."""
    metric = find_metric(curve.metric)
    header = [curve.run, "people", "images", f"OOF {metric.title}", "95% CI"]
    rows: list[list[object]] = [
        [f"{at.share:.3g}", f"{at.people:.0f}", f"{at.images:.0f}", f"{at.score:.3f}", f"[{at.low:.3f}, {at.high:.3f}]"]
        for at in curve.points
    ]
    return console.table(header, rows)


def curve_remarks(curve: LearningCurve) -> None:
    """Print what twice the people would give."""
    title, last = find_metric(curve.metric).title, curve.points[-1]
    if curve.doubled is None:
        console.note(f"{curve.run}: the curve does not get better with more people; nothing is extrapolated from it")
        return
    low, high = curve.doubled
    of = {TRAINING: "", NUMBER_HEADS: " of a ridge regression"}.get(curve.measured_with, " of a logistic head")
    text = (
        f"{curve.run}: with twice the people ({2 * last.people:.0f}) {title} would be about {low:.3f} to {high:.3f}, "
        f"if the curve continues as it does (an extrapolation{of}, not a measurement)"
    )
    if curve.doubled_interval is not None:
        low, high = curve.doubled_interval
        text += f"; with the 95% CI over the people who are scored, {low:.3f} to {high:.3f}"
    console.note(text)


def show_plan(plan: Plan) -> None:
    """Print what would be trained."""
    from folds.runs.estimate import estimate_seconds

    lines = [f"{run.name}: fold {fold}" for run in plan.runs for fold in plan.folds]
    lines += [f"{run.name}: all people, with as many epochs as the folds say" for run in plan.runs if plan.refit]
    seconds = estimate_seconds(plan)
    record = _plan_record(plan) | {"seconds": None if seconds is None else round(seconds, 1)}
    console.result("\n".join(lines), {"plan": record})
    if seconds is not None:
        console.note(f"about {duration(seconds)} in all, from some timed steps; without decoding and augmentation")


def raise_failed(trained: TrainingResult, again: str) -> None:
    """Raise FoldsFailed (exit 3) if some folds failed."""
    plan, failed = trained.plan, trained.failed
    if failed:
        names = ", ".join(outcome.job.title for outcome in failed)
        of = counted(plan.trainings, "training" if plan.refit else "fold")
        raise FoldsFailed(
            f"{len(failed)} of {of} failed: {names}; the others are saved",
            hint=again,
        )


def results_table(summaries: Sequence[RunSummary], pooled: Sequence[PooledRuns] = ()) -> str:
    """Return one row per run (pooled OOF score, spread over folds, test score) and one per mean of several runs."""
    with_test = any(summary.test is not None for summary in summaries)
    metric = find_metric((summaries[0] if summaries else pooled[0]).oof.metric)
    title = f"{metric.title}{'' if metric.greater_is_better else ' (lower is better)'}"
    of_columns = (summaries[0] if summaries else pooled[0]).is_of_columns
    header = [
        "run",
        "folds",
        f"OOF {title}",
        "95% CI (over people)",
        *([] if of_columns else ["accuracy"]),
        "mean of folds",
        "time",
        *([f"test {metric.title}", "95% CI"] if with_test else []),
    ]
    rows: list[list[object]] = []
    for s in summaries:
        name = f"{s.run} (optimistic)" if s.selected_on_validation else s.run
        row: list[object] = [
            name,
            f"{len(s.folds)}/{s.k}",
            score_text(s.oof.interval.value),
            s.oof.interval.ci_text(),
            *([] if of_columns else [f"{s.oof.accuracy:.3f}"]),
        ]
        row += [s.spread_text(), duration(s.seconds)]
        if with_test:
            row += ["", ""] if s.test is None else [score_text(s.test.interval.value), s.test.interval.ci_text()]
        rows.append(row)
    for p in pooled:
        row = [
            f"{p.name}, mean of {len(p.runs)}",
            f"{len(p.folds)}",
            score_text(p.oof.interval.value),
            p.oof.interval.ci_text(),
            *([] if of_columns else [f"{p.oof.accuracy:.3f}"]),
        ]
        row += [spread_text(p.folds), duration(p.seconds)]
        if with_test:
            row += ["", ""] if p.test is None else [f"{p.test.interval.value:.3f}", p.test.interval.ci_text()]
        rows.append(row)
    return console.table(header, rows, optional=["mean of folds", "accuracy", "time", len(header) - 1])


def columns_table(summaries: Sequence[RunSummary]) -> str:
    """Return one row per label or number with its out-of-fold score in each run; "" without several of them."""
    named = [summary for summary in summaries if summary.columns]
    if not named:
        return ""
    title = find_metric(named[0].column_metric).title
    header = [f"OOF {title} of", *(f"{one.run}, 95% CI" for one in named)]
    names = list(named[0].columns)
    rows: list[list[object]] = [
        [name, *(one.columns[name].text() if name in one.columns else "" for one in named)] for name in names[:_COLUMNS]
    ]
    rows += [[f"… {len(names) - _COLUMNS} more", *([""] * len(named))]] if len(names) > _COLUMNS else []
    return console.table(header, rows)


def remarks(summaries: Sequence[RunSummary], pooled: Sequence[PooledRuns] = ()) -> None:
    """Print notes on how to read the table of results."""
    first = summaries[0]
    for s in summaries:
        for line in s.refit_lines():
            console.note(line)
    changed: Sequence[tuple[str, ScoreReport]] = [(s.run, s.oof) for s in summaries]
    changed = [*changed, *((f"{p.name}, mean of {len(p.runs)}", p.oof) for p in pooled)]
    for name, report in changed:
        if line := report.changed_line():
            console.note(f"{name}: {line}")
    if any(report.changed_people for _, report in changed):
        console.note("scores of different people are not comparable: ensemble runs diff A B compares two runs")
    for p in pooled:
        middle, deviation = p.spread()
        scores = [score for score in p.scores if not math.isnan(score)]
        each = f"{len(p.runs)} runs, OOF {find_metric(p.oof.metric).title} " + (
            f"{middle:.3f} ± {deviation:.3f} ({min(scores):.3f} to {max(scores):.3f})" if scores else "undefined"
        )
        what = "predictions" if p.task == REGRESSION else "probabilities"
        console.note(f"{p.name}: {each}; the mean of their {what} is an ensemble of all of them")
    if any(s.selected_on_validation for s in summaries):
        console.note(
            "optimistic: the epoch was selected on the scored fold (--select best, --patience, or initial weights "
            "selected so), or soft labels are of models that have seen the scored people (docs/distill.md)"
        )
    if any(len(s.folds) < s.k for s in summaries):
        console.note("the out-of-fold score does not include folds that are not trained yet")
    if first.oof.interval.people < FEW_PEOPLE:
        console.warn(f"only {counted(first.oof.interval.people, 'person', 'people')}: the interval is unreliable")
    if first.oof.interval.warning:
        console.note(f"the interval of {first.run}: {first.oof.interval.warning}")
    if first.oof.people_with_several_labels:
        console.note(
            f"{first.oof.people_with_several_labels:,} people have several labels and are scored by their most "
            "frequent one"
        )


def _plan_record(plan: Plan) -> dict[str, object]:
    runs = [
        {
            "run": run.name,
            "architecture": run.architecture.describe(),
            "parameters": run.parameters,
            "seed": run.recipe.seed,
            "repeat": run.assignment.repeat,
        }
        for run in plan.runs
    ]
    record = {"images": len(plan.table), "k": plan.assignment.k, "folds": list(plan.folds), "runs": runs}
    return record | ({"refit": True} if plan.refit else {})
