"""Run a training from start to end: lock the runs, decode and audit the images, train, record, score, compare."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from folds.auditing.checks import Finding
from folds.auditing.run import audit_decoded, check_strict, log_findings
from folds.errors import EnsembleError
from folds.experiments.comparison import BaselineComparison, compare_with_baselines
from folds.experiments.curves import EpochCurves, curve_title
from folds.experiments.loggers.base import Tracker
from folds.experiments.record import baseline_records, git_state, record_run, save_hypothesis
from folds.experiments.sites import NewSites, find_new_sites
from folds.experiments.summary import PooledRuns, RunSummary, pool_runs, summarize_run
from folds.runs.execute import lock_runs, train, with_features
from folds.runs.open import Images, Prepared, prepare
from folds.runs.plan import Plan
from folds.runs.refit import refit_jobs
from folds.runs.run import Run
from folds.training.job import Job, Outcome
from folds.utils.progress import SILENT, Progress
from folds.utils.text import duration, score_text

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training.

    Attributes
    ----------
    summaries : scores of the runs with a trained fold, in the order of the plan.
    pooled : pooled scores of the repeats and seeds of each architecture; [] without repeats and seeds.
    comparisons : comparisons of runs with their baselines; [] without baselines.
    failed : the failed jobs; their saved states are kept.
    new_sites : what the runs that left sites out say, beside their runs by person; [] without such runs.
    """

    plan: Plan
    summaries: list[RunSummary]
    pooled: list[PooledRuns]
    comparisons: list[BaselineComparison]
    failed: list[Outcome]
    new_sites: list[NewSites] = field(default_factory=list)

    @property
    def runs(self) -> dict[str, Run]:
        """Return the runs of the plan by name, trained or not."""
        return {run.name: run for run in self.plan.runs}

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        return {
            "runs": [summary.to_dict() for summary in self.summaries],
            "pooled": [pooled.to_dict() for pooled in self.pooled],
            "comparisons": baseline_records(self.comparisons),
            **({"new_sites": [one.to_dict() for one in self.new_sites]} if self.new_sites else {}),
        }


def train_runs(
    plan: Plan,
    *,
    resume: bool = False,
    force: bool = False,
    strict: bool = False,
    hypothesis: str | None = None,
    tracker: Tracker | None = None,
    per_person: bool = False,
    progress: Progress = SILENT,
) -> TrainingResult:
    """Train the remaining folds of a plan, enter its runs in the ledger, and score and compare them.

    After an interruption (KeyboardInterrupt passes through), finished folds are published, and the others can be
    resumed from their last saved state. A failed fold does not raise an error.

    Parameters
    ----------
    resume : continue existing runs.
    force : retrain existing runs from scratch. Without `resume` and `force`, an existing run is an error.
    strict : treat warnings about the data and the folds as errors, raised before anything is written.
    hypothesis : expected result, saved with the runs in the ledger.
    tracker : logger of the scores (`folds.experiments.loggers.open.open_tracker`).
    per_person : average the probabilities of each person's images before scoring.

    Raises
    ------
    EnsembleError : see `folds.runs.open.prepare_jobs`; or another process holds the lock of a run.
    """
    tracker = tracker or Tracker()
    git = git_state(plan.root)  # before the training, because the code may be edited meanwhile
    with lock_runs(plan):
        prepared = _open(plan, resume, force, strict, progress)
        plan = replace(plan, placement=prepared.placement)
        for run in plan.runs:
            save_hypothesis(run, hypothesis)
        if not prepared.jobs:
            logger.info("all folds are trained already")
        tracker.set_groups({run.name: run.base for run in plan.runs})
        with tracker:
            failed = _train(plan, prepared.jobs, tracker, progress)
            if plan.refit:
                jobs = refit_jobs(plan, prepared.templates, [one.job.run for one in failed])
                failed += _train(plan, jobs, tracker, progress) if jobs else []
            for entry in _enter_in_ledger(plan, git):
                tracker.entry(entry)
    return score_runs(plan, failed, per_person or plan.spec.label_of is not None)


def score_runs(plan: Plan, failed: Sequence[Outcome] = (), per_person: bool = False) -> TrainingResult:
    """Score and compare the trained folds of the runs of a plan."""
    summaries = summarize_runs(plan, per_person)
    pooled = pool_variants(plan, summaries, per_person)
    compared = compare_with_baselines(plan.runs, summaries, per_person, _metric(plan))
    names = [summary.run for summary in summaries]
    sites = find_new_sites(plan.runs[0].runs, names, _metric(plan), per_person)
    return TrainingResult(plan, summaries, pooled, compared, list(failed), sites)


def _open(plan: Plan, resume: bool, force: bool, strict: bool, progress: Progress) -> Prepared:
    """Prepare the jobs, with the audit of the images before anything is written."""
    findings: list[Finding] = []

    def audit(images: Images) -> None:
        findings.extend(audit_decoded(plan.data, *images, plan.assignment.fold))
        if strict:
            check_strict(plan.warnings, findings)

    prepared = prepare(plan, resume=resume, force=force, progress=progress, decoded=audit)
    log_findings(findings)
    return prepared


def _train(plan: Plan, jobs: Sequence[Job], tracker: Tracker, progress: Progress) -> list[Outcome]:
    """Train the jobs with a progress display, and return the failed ones."""
    failed: list[Outcome] = []
    jobs, curves = with_features(plan, jobs, progress), EpochCurves()
    with progress.jobs(jobs, len(plan.placement.devices)) as view:

        def report(job: Job, event: dict[str, Any]) -> None:
            view.event(job, curves.added(job, event))
            tracker.event(job, event)

        for outcome in train(plan, jobs, report):
            view.outcome(outcome)
            _log_outcome(outcome)
            if outcome.error is not None:
                failed.append(outcome)
    return failed


def _log_outcome(outcome: Outcome) -> None:
    if outcome.error is not None:
        logger.error(outcome.error.full_text())
    elif outcome.result is not None:
        done = outcome.result
        if "task" in done:
            scores = "".join(f"{curve_title(name)} {score_text(one)}, " for name, one in done["scores"].items())
        else:
            of_fold = "fold" in done  # a model of all people has no score
            others = "".join(f"{name} {score_text(score)}, " for name, score in (done.get("scores") or {}).items())
            own = f"macro F1 {done['macro_f1']:.3f}, accuracy {done['accuracy']:.3f}, " if of_fold else ""
            scores = f"{others}{own}" if of_fold else ""
        logger.info(
            f"{outcome.job.title}: {scores}{duration(done['seconds'])} "
            f"({done['seconds'] / max(done['epochs'], 1):.1f} s per epoch)"
        )


def _enter_in_ledger(plan: Plan, git: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Enter the runs in the ledger and return the entries; an error is only logged, because the training is done."""
    entries = []
    for run in plan.runs:
        try:
            entry = record_run(run, jobs=len(plan.placement.devices), git=git)
        except EnsembleError as error:
            logger.warning(f"{run.name} is not in the ledger: {error.message}")
        else:
            entries += [entry] if entry is not None else []
    return entries


def _metric(plan: Plan) -> str:
    """Return the metric of all scores of a plan."""
    return plan.runs[0].recipe.metric


def summarize_runs(plan: Plan, per_person: bool = False) -> list[RunSummary]:
    """Return the scores of the runs with a trained fold."""
    summaries = []
    for run in plan.runs:
        done = {fold: record for fold in range(run.assignment.k) if (record := run.done(fold)) is not None}
        if done:
            summaries.append(summarize_run(run.name, done, run.assignment.k, run.runs, per_person, _metric(plan)))
    return summaries


def pool_variants(plan: Plan, summaries: Sequence[RunSummary], per_person: bool = False) -> list[PooledRuns]:
    """Return the pooled scores of the repeats and seeds of each architecture; [] without repeats and seeds."""
    base = {run.name: run.base for run in plan.runs}
    pooled = []
    for name in dict.fromkeys(base.values()):
        members = [summary for summary in summaries if base[summary.run] == name]
        found = pool_runs(name, members, plan.runs[0].runs, per_person, _metric(plan))
        pooled += [found] if found is not None else []
    return pooled
