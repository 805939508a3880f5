"""Training as the commands `kfold` and `demo` show it: plan, live view, table of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from ensemble.cli.reports.audit import Audit
from ensemble.cli.reports.compare import compare_with_baselines, compared_records, compared_remarks, compared_table
from ensemble.cli.reports.folds import folds_text
from ensemble.cli.terminal import console
from ensemble.cli.terminal.progress import StepsView, TrainingView
from ensemble.cli.terminal.spans import span
from folds.config.recipe import Recipe, Settings
from folds.config.sweep import RequestedRecipe
from folds.errors import EnsembleError, FoldsFailed, Interrupted
from folds.execution.placement import Execution
from folds.experiments.loggers import Tracker, open_tracker
from folds.experiments.record import git_state, record_run, save_hypothesis
from folds.experiments.summary import PooledRuns, RunSummary, pool_runs, summarize_run
from folds.models.precision import resolve_amp
from folds.runs.execute import lock_runs, train
from folds.runs.plan import Plan, build_plan, prepare_jobs
from folds.runs.preview import write_previews
from folds.runs.run import Run
from folds.training.job import Job, Outcome
from folds.utils.text import duration

FEW_PEOPLE = 10


def run_training(
    settings: Settings,
    recipe: Recipe,
    *,
    folds: Sequence[int] | None = None,
    execution: Execution | None = None,
    resume: bool = False,
    force: bool = False,
    strict: bool = False,
    dry_run: bool = False,
    preview: Path | None = None,
    per_person: bool = False,
    again: str = "ensemble kfold --resume",
    variants: Sequence[RequestedRecipe] = (),
    baseline: str | None = None,
    hypothesis: str | None = None,
    track: str | None = None,
) -> int:
    """Do it and print it; returns the exit code (0, or 3 where some folds failed)."""
    audit = Audit(strict)
    tracker = open_tracker(track, warn=console.warn)
    plan = build_plan(
        settings,
        recipe,
        folds=folds,
        execution=execution,
        force=force,
        variants=variants,
        baseline=baseline,
        note=console.note,
        warn=audit.warn,
    )
    for run in plan.runs:
        run.check_not_started(plan.folds, resume or dry_run or preview is not None, force)
    describe(plan)
    if preview is not None:
        with StepsView("decoding images") as decoding:
            for file in write_previews(plan, preview, force, console.note, decoding):
                console.result(str(file), {"preview": str(file)})
        console.note("\nnothing was trained (--preview)")
        return 0
    if dry_run:
        audit.raise_if_strict()
        console.result(
            "\n".join(f"{run.name}: fold {fold}" for run in plan.runs for fold in plan.folds),
            {"plan": _plan_record(plan)},
        )
        console.note("\nnothing was trained (--dry-run)")
        return 0
    failed = train_plan(plan, resume, force, again, audit, hypothesis, tracker)
    summaries = summaries_of(plan, per_person)
    if summaries:
        pooled, compared = (
            pooled_of(plan, summaries, per_person),
            compare_with_baselines(plan.runs, summaries, per_person),
        )
        text = "\n\n".join([results_table(summaries, pooled), *([compared_table(compared)] if compared else [])])
        records: dict[str, object] = {
            "runs": [summary_record(s) for s in summaries],
            "pooled": [pooled_record(p) for p in pooled],
        }
        console.result(text, records | {"comparisons": compared_records(compared)})
        remarks(summaries, pooled)
        compared_remarks(compared)
    raise_failed(plan, failed, again)
    console.next_step("ensemble runs" if variants else f"ensemble blend {plan.runs[0].runs}/*.npy --method soft")
    return 0


def describe(plan: Plan) -> None:
    """Say what is going to be trained, on what, and where."""
    table = plan.table
    test = "" if plan.data.test is None else f"; test: {len(plan.data.test):,} images"
    people = 0 if table.persons is None else len(set(table.persons.tolist()))
    repeats = f", {len(plan.assignments)} times" if len(plan.assignments) > 1 else ""
    split = (
        "one part held out by person" if plan.assignment.held_out else f"{plan.assignment.k} folds by person{repeats}"
    )
    console.note(f"{len(table):,} images of {people:,} people, {len(table.classes)} classes, {split}{test}\n")
    console.note(folds_text(plan.assignment, table.classes, table.class_attributes))
    console.note("the first of the repeats\n" if repeats else "")
    alike: dict[str, list[Run]] = {}
    for run in plan.runs:
        alike.setdefault(run.base, []).append(run)
    for run, *others in alike.values():
        init = run.recipe.init_run or run.recipe.init
        weights = f"weights of {init}" if init else "pretrained" if run.recipe.pretrained else "random weights"
        size = f"{run.parameters / 1e6:.1f} M parameters, {weights}"
        console.note(f"{run.name}: {run.architecture.describe()}; {size}")
        recipe = run.recipe
        steps = f"{recipe.epochs} epochs in batches of {recipe.batch_size}, lr {recipe.lr:g} ({run.rate_reason}), {recipe.augment} augmentation"
        console.note(f"{' ' * len(run.name)}  {steps}")
        if others:
            console.note(
                f"{' ' * len(run.name)}  the same with other folds or seeds: {', '.join(other.name for other in others)}"
            )
    console.note(plan.placement.reason)
    amp, why = resolve_amp(plan.runs[0].recipe.amp, plan.placement.devices[0])
    console.note(f"mixed precision {amp}: {why}")


def train_plan(
    plan: Plan,
    resume: bool,
    force: bool,
    again: str,
    audit: Audit | None = None,
    hypothesis: str | None = None,
    tracker: Tracker | None = None,
) -> list[Outcome]:
    """Audit the images, train what is to be trained, shown live, and enter it in the ledger; returns the jobs that failed.

    On Ctrl-C, `again` is the command that goes on.
    """
    failed: list[Outcome] = []
    audit, tracker = audit or Audit(), tracker or Tracker()
    git = git_state()  # of when it was begun: code may be edited while it trains
    try:
        with lock_runs(plan):
            with StepsView("decoding images") as decoding:
                jobs = prepare_jobs(
                    plan,
                    resume=resume,
                    force=force,
                    note=console.note,
                    warn=console.warn,
                    progress=decoding,
                    decoded=audit.look,
                )
            audit.show()
            for run in plan.runs:
                save_hypothesis(run, hypothesis)
            if not jobs:
                console.note("nothing left to train")
            with tracker, TrainingView(jobs, len(plan.placement.devices)) as view:

                def report(job: Job, event: dict[str, Any]) -> None:
                    if event["event"] == "note":
                        console.note(event["text"])
                        return
                    view.event(job, event)
                    tracker.event(job, event)

                for outcome in train(plan, jobs, report):
                    view.outcome(outcome)
                    _tell(outcome)
                    if outcome.error is not None:
                        failed.append(outcome)
                for entry in _enter(plan, git):
                    tracker.entry(entry)
    except KeyboardInterrupt:
        raise Interrupted("finished folds are published, the others go on from their last epoch", hint=again) from None
    return failed


def _tell(outcome: Outcome) -> None:
    if outcome.error is not None:
        console.fail("\n".join(outcome.error.lines()).removeprefix("error: "))
    elif outcome.result is not None:
        done = outcome.result
        console.note(
            f"{outcome.job.title}: macro F1 {done['macro_f1']:.3f}, accuracy {done['accuracy']:.3f}, "
            f"{duration(done['seconds'])} ({done['seconds'] / max(done['epochs'], 1):.1f} s an epoch)"
        )


def _enter(plan: Plan, git: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Enter the runs in the ledger; hours of training do not fail for a line in it."""
    entries = []
    for run in plan.runs:
        try:
            entry = record_run(run, jobs=len(plan.placement.devices), git=git)
        except EnsembleError as error:
            console.warn(f"{run.name} is not in the ledger: {error.message}")
        else:
            entries += [entry] if entry is not None else []
    return entries


def raise_failed(plan: Plan, failed: Sequence[Outcome], again: str) -> None:
    """Exit 3 where some folds failed."""
    if failed:
        names = ", ".join(f"{outcome.job.run} fold {outcome.job.fold}" for outcome in failed)
        raise FoldsFailed(
            f"{len(failed)} of {len(plan.runs) * len(plan.folds)} folds failed: {names}; the rest is saved", hint=again
        )


def summaries_of(plan: Plan, per_person: bool = False) -> list[RunSummary]:
    """What each run of the plan is worth, as far as it is trained."""
    summaries = []
    for run in plan.runs:
        done = {fold: record for fold in range(run.assignment.k) if (record := run.done(fold)) is not None}
        if done:
            summaries.append(summarize_run(run.name, done, run.assignment.k, run.runs, per_person))
    return summaries


def pooled_of(plan: Plan, summaries: Sequence[RunSummary], per_person: bool = False) -> list[PooledRuns]:
    """What the repeats and seeds of one architecture are worth together; [] where there are none."""
    base = {run.name: run.base for run in plan.runs}
    together = {
        name: [summary for summary in summaries if base[summary.run] == name] for name in dict.fromkeys(base.values())
    }
    return [
        pooled
        for name, some in together.items()
        if (pooled := pool_runs(name, some, plan.runs[0].runs, per_person)) is not None
    ]


def results_table(summaries: Sequence[RunSummary], pooled: Sequence[PooledRuns] = ()) -> str:
    """One line a run: pooled out-of-fold score with its interval, spread over folds, test score where known; one for the mean of several."""
    with_test = any(summary.test is not None for summary in summaries)
    header = [
        "run",
        "folds",
        "OOF macro F1",
        "95 % over people",
        "accuracy",
        "mean of folds",
        "time",
        *(["test macro F1", "95 %"] if with_test else []),
    ]
    rows: list[list[object]] = []
    for s in summaries:
        middle, deviation = s.spread()
        name = f"{s.run} (optimistic)" if s.selected_on_validation else s.run
        row: list[object] = [
            name,
            f"{len(s.folds)}/{s.k}",
            f"{s.oof.interval.value:.3f}",
            span(s.oof.interval),
            f"{s.oof.accuracy:.3f}",
        ]
        row += [f"{middle:.3f} ± {deviation:.3f}", duration(s.seconds)]
        if with_test:
            row += ["", ""] if s.test is None else [f"{s.test.interval.value:.3f}", span(s.test.interval)]
        rows.append(row)
    for p in pooled:
        row = [
            f"{p.name}, mean of {len(p.runs)}",
            f"{len(p.folds)}",
            f"{p.oof.interval.value:.3f}",
            span(p.oof.interval),
            f"{p.oof.accuracy:.3f}",
        ]
        row += [f"{mean(p.folds):.3f} ± {stdev(p.folds):.3f}", duration(p.seconds)]
        if with_test:
            row += ["", ""] if p.test is None else [f"{p.test.interval.value:.3f}", span(p.test.interval)]
        rows.append(row)
    return console.table(header, rows)


def remarks(summaries: Sequence[RunSummary], pooled: Sequence[PooledRuns] = ()) -> None:
    """What a reader of the table must know."""
    first = summaries[0]
    for p in pooled:
        middle, deviation = p.spread()
        each = f"{len(p.runs)} runs score {middle:.3f} ± {deviation:.3f} out of fold ({min(p.scores):.3f} to {max(p.scores):.3f})"
        console.note(f"{p.name}: {each}; their mean of probabilities is another model, which needs all of them")
    if any(s.selected_on_validation for s in summaries):
        console.note(
            "optimistic: the epoch was chosen on the fold that is scored (--keep best, patience, or weights that began so)"
        )
    if any(len(s.folds) < s.k for s in summaries):
        console.note("folds that are not trained yet are absent from the out-of-fold score")
    if first.oof.interval.people < FEW_PEOPLE:
        console.warn(f"{first.oof.interval.people} people say little: with so few, the interval may be too narrow")
    if first.oof.interval.warning:
        console.note(f"the interval of {first.run}: {first.oof.interval.warning}")
    if first.oof.people_with_several_labels:
        console.note(
            f"{first.oof.people_with_several_labels:,} people carry several labels and are scored by their most frequent one"
        )


def summary_record(s: RunSummary) -> dict[str, object]:
    """For --json."""
    middle, deviation = s.spread()
    record: dict[str, object] = {
        "run": s.run,
        "k": s.k,
        "folds": {str(fold): dict(done) for fold, done in s.folds.items()},
    }
    record |= {
        "oof": s.oof.to_dict(),
        "mean_of_folds": middle,
        "sd_of_folds": deviation,
        "seconds": s.seconds,
        "optimistic": s.selected_on_validation,
    }
    return record | {"test": None if s.test is None else s.test.to_dict()}


def pooled_record(p: PooledRuns) -> dict[str, object]:
    """For --json."""
    middle, deviation = p.spread()
    record: dict[str, object] = {"of": p.name, "runs": list(p.runs), "mean_of_runs": middle, "sd_of_runs": deviation}
    record |= {"mean_of_folds": mean(p.folds), "sd_of_folds": stdev(p.folds), "oof": p.oof.to_dict()}
    return record | {"test": None if p.test is None else p.test.to_dict(), "seconds": p.seconds}


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
    return {"images": len(plan.table), "k": plan.assignment.k, "folds": list(plan.folds), "runs": runs}
