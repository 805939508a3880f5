"""`ensemble tune`: tune hyperparameters by short trainings on one or some folds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ensemble.cli.terminal import console
from ensemble.cli.terminal.options import (
    COLUMNS,
    EXECUTION,
    EXPERIMENT,
    READING,
    RUN,
    RayOption,
    check_resume_or_force,
    resuming,
    takes_settings,
)
from folds.utils.text import counted

if TYPE_CHECKING:
    from folds.tuning.importance import Importance
    from folds.tuning.report import StudyReport
    from folds.tuning.study import Study
    from folds.tuning.trials import Trial


@takes_settings(
    "data",
    *COLUMNS,
    *READING,
    "task",
    "fold_column",
    "arch",
    "name",
    help={
        "arch": "the model, by short name or timm id [swin]",
        "name": "name of the study: runs/tune/NAME [the file's]",
    },
)
def tune(
    config: Annotated[
        Path | None,
        typer.Option(
            "-c",
            "--config",
            help="settings, [space] and [tune] in TOML [./ensemble.toml]",
            metavar="FILE",
            rich_help_panel=RUN,
        ),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(help="number of trials [20]", metavar="N", rich_help_panel=EXPERIMENT)
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="metric by which trials are compared: any that blend knows, or your own function [that of the task: "
            "macro_f1, of several labels roc_auc, of numbers mae]",
            metavar="NAME|module:function",
            rich_help_panel=EXPERIMENT,
        ),
    ] = None,
    devices: Annotated[
        str, typer.Option(help="auto, or cpu; Ray assigns the GPUs", rich_help_panel=EXECUTION)
    ] = "auto",
    ray_address: RayOption = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="continue an interrupted study, also with more --trials", rich_help_panel=RUN),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="start an existing study again from scratch", rich_help_panel=RUN)
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="show the settings of each trial, train nothing", rich_help_panel=RUN)
    ] = False,
    **given: Any,
) -> int:
    """Tune hyperparameters: try settings of a space, stop unpromising trials early, write the best for ensemble kfold.

    FILE has the settings of ensemble kfold and a table [space]: lr = {low = 1e-4, high = 1e-2, log = true},
    batch_size = [16, 32], any setting of a recipe, and arch. [tune] has trials, folds, grace, reduction, seed, metric,
    cpus, gpus and parallel (docs/tuning.md). The score of the best trial is optimistic on the folds it was chosen on;
    ensemble kfold -c best.toml scores it on the other folds. Needs Ray Tune: pip install 'ray[tune]'.
    """
    from folds.utils.startup import lasting_imports

    with lasting_imports():
        from ensemble.cli.terminal.progress import TerminalProgress
        from folds.errors import FoldsFailed, Interrupted
        from folds.tuning.objective import with_objective
        from folds.tuning.report import run_study
        from folds.tuning.study import as_started, make_study

    check_resume_or_force(resume, force)
    study = make_study(given, config, trials, metric=metric)
    if dry_run:
        return _show_plan(study)
    study = with_objective(as_started(study), resume=True) if resume and not force else with_objective(study)
    _announce(study)
    try:
        report = run_study(
            study, resume=resume, force=force, devices=devices, address=ray_address, progress=TerminalProgress()
        )
    except KeyboardInterrupt:
        raise Interrupted(
            "finished trials are kept; the others continue from their last epoch", hint=resuming()
        ) from None
    if report.trials:
        _show(report)
    if report.lost:
        raise FoldsFailed(
            f"{len(report.lost)} of {len(study.candidates)} trials were lost; the others are saved",
            hint=resuming(),
            details=report.lost,
        )
    return 0


def _show_plan(study: Study) -> int:
    from folds.tuning.trials import cell

    keys = [axis.key for axis in study.space]
    rows = [[one.name, *(cell(one.values[key]) for key in keys)] for one in study.candidates]
    record = {
        "tuning": study.name,
        "trials": [{"trial": one.name, "settings": dict(one.values)} for one in study.candidates],
    }
    console.result(console.table(["trial", *keys], rows), record)
    console.note("\nnothing was trained (--dry-run)")
    return 0


def _announce(study: Study) -> None:
    options, few = study.options, len(study.candidates)
    if few < options.trials:
        console.note(f"the space has only {few} different settings, fewer than {options.trials} trials: all are tried")
    folds = _folds(options.folds)
    each = (
        f"ASHA from epoch {options.grace} of {study.max_epochs * len(options.folds)}, "
        f"one trial in {options.reduction:g} continues"
    )
    best = f"{'lowest' if options.lower_is_better else 'highest'} {study.objective}"
    console.note(f"{counted(few, 'trial')} on {folds}, {each}; best: {best}")


def _show(report: StudyReport) -> None:
    from folds.errors import EnsembleError

    if report.best is None:
        console.result(_table(report.study, report.trials), report.to_dict())
        raise EnsembleError(
            "no trial finished", hint="see the reasons above; change the space, or ensemble tune --resume"
        )
    texts = [_table(report.study, report.trials)]
    texts += [_importance_table(report.importance)] if report.importance is not None else []
    console.result("\n\n".join(texts), report.to_dict())
    _remark(report, report.best)
    console.next_step(
        f"ensemble kfold -c {report.best_file}"
        if report.checked is None
        else f"ensemble blend runs/{report.study.best_run}*.npy --method soft"
    )


def _folds(folds: Sequence[int]) -> str:
    return f"fold{'s' if len(folds) > 1 else ''} {', '.join(map(str, folds))}"


def _table(study: Study, trials: Sequence[Trial]) -> str:
    from folds.tuning.trials import cell, trial_name
    from folds.utils.text import duration

    keys = [axis.key for axis in study.space]
    rows = []
    for one in trials:
        score = "" if one.score is None else f"{one.score:.3f}"
        state = {"finished": "", "stopped": "stopped early", "failed": f"failed: {one.reason}"[:60]}[one.state]
        rows.append(
            [
                trial_name(one.number),
                *(cell(one.settings[key]) for key in keys),
                score,
                f"{one.epochs}/{one.of}",
                duration(one.seconds),
                state,
            ]
        )
    return console.table(
        ["trial", *keys, f"{study.objective}, {_folds(study.options.folds)}", "trained", "time", "early end"],
        rows,
    )


def _importance_table(importance: Importance) -> str:
    rows = [[key, f"{share:.0%}", f"± {importance.spread[key]:.0%}"] for key, share in importance.share.items()]
    return console.table(["setting", "explained variance", "± repeats"], rows)


def _remark(report: StudyReport, best: Trial) -> None:
    from folds.metrics.intervals import Interval
    from folds.tuning.importance import MIN_TRIALS

    options = report.study.options
    if report.importance is None:
        console.note(f"importance: needs {MIN_TRIALS} trials with different scores, found {report.scored} with a score")
    else:
        console.note(f"importance: {report.importance.verdict}")
    found = f"{report.study.objective} {best.score:.3f} on {_folds(options.folds)}"
    console.note(
        f"optimistic: {found} is the best of {report.scored} scores on the same "
        f"fold{'s' if len(options.folds) > 1 else ''}"
    )
    if report.checked is None:
        console.note("train it on all folds to get its score on the other folds; --resume then shows that score here")
    else:
        score = Interval.from_dict(report.checked)
        others = _folds(report.checked["folds"])
        # The run is scored by person whenever only persons are labeled, also in a study that compares by image.
        unit = " by person" if report.study.settings.label_of is not None else ""
        shown = f"{options.metric}{unit} {score.text()}"
        console.note(f"{report.study.best_run} on {others}, not used for the choice: {shown}")
