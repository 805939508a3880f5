"""`ensemble tune`: choose settings by the score of short trainings on chosen folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ensemble.cli.terminal import console

if TYPE_CHECKING:
    from folds.tuning.importance import Importance
    from folds.tuning.study import Study
    from folds.tuning.trials import Trial

# What `ensemble kfold` takes as settings, too.
SETTINGS = ("data", "arch", "name")
PANELS = {
    "Settings": ("config", *SETTINGS, "trials"),
    "Where and how it runs": ("devices", "ray_address"),
    "What is done now": ("resume", "force", "dry_run"),
}


def tune(
    config: Annotated[
        Path | None,
        typer.Option("-c", "--config", help="settings, [space], [tune] in TOML [./ensemble.toml]", metavar="FILE"),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="a CSV, class folders, or the mask-competition layout [./data, else the built-in people]"),
    ] = None,
    arch: Annotated[str | None, typer.Option(help="the model, by short name or timm id [swin]", metavar="A")] = None,
    name: Annotated[str | None, typer.Option(help="name of the tuning: runs/tune/NAME [the file's]")] = None,
    trials: Annotated[int | None, typer.Option(help="how many settings are tried [20]", metavar="N")] = None,
    devices: Annotated[str, typer.Option(help="auto, or cpu; Ray chooses among the GPUs")] = "auto",
    ray_address: Annotated[
        str | None, typer.Option(help="of a Ray cluster: auto or HOST:PORT [a local one]", metavar="A")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on with what is missing, also with more --trials")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="begin an existing tuning again from nothing")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="show the settings that would be tried, train nothing")
    ] = False,
) -> int:
    """Try settings drawn from a space, stop the hopeless ones early, and write the best as a file for ensemble kfold -c.

    FILE has the settings of ensemble kfold and a table [space]: lr = {low = 1e-4, high = 1e-2, log = true}, batch_size = [16, 32],
    any setting of a recipe, and arch. [tune] has trials, folds, grace, reduction, seed, metric, cpus, gpus and parallel (docs/tuning.md). The
    score of the best is optimistic on the folds that it was chosen on; the other folds of ensemble kfold -c best.toml say what it is worth.
    Needs Ray Tune: pip install 'ray[tune]'.
    """
    from ensemble.cli.terminal.options import resuming
    from folds.errors import FoldsFailed, Interrupted, UsageError
    from folds.tuning.study import make_tuning, open_study

    if resume and force:
        raise UsageError("--resume and --force contradict each other", hint="give one of them")
    tuning = make_tuning({"data": data, "arch": arch, "name": name}, config, trials)
    if dry_run:
        return _show_plan(tuning)
    _announce(tuning)
    try:
        with open_study(tuning, resume, force):
            lost = _train(tuning, devices, ray_address)
    except KeyboardInterrupt:
        raise Interrupted(
            "trials that have ended are kept, the others go on from their last epoch", hint=resuming()
        ) from None
    failure = FoldsFailed(
        f"{len(lost)} of {len(tuning.candidates)} trials were lost; the rest is saved", hint=resuming(), details=lost
    )
    if len(lost) == len(tuning.candidates):
        raise failure
    _show(tuning)
    if lost:
        raise failure
    return 0


def _show_plan(tuning: Study) -> int:
    from folds.tuning.trials import cell

    keys = [axis.key for axis in tuning.space]
    rows = [[one.name, *(cell(one.values[key]) for key in keys)] for one in tuning.candidates]
    record = {
        "tuning": tuning.name,
        "trials": [{"trial": one.name, "settings": dict(one.values)} for one in tuning.candidates],
    }
    console.result(console.table(["trial", *keys], rows), record)
    console.note("\nnothing was trained (--dry-run)")
    return 0


def _announce(tuning: Study) -> None:
    options, few = tuning.options, len(tuning.candidates)
    if few < options.trials:
        console.note(
            f"the space has {few} different settings, fewer than the {options.trials} trials that were asked for: all are tried"
        )
    folds = _folds(options.folds)
    each = f"compared from epoch {options.grace} of {tuning.max_epochs * len(options.folds)} on, one in {options.reduction:g} goes on"
    console.note(
        f"{few} trials on {folds}, {each}; best: {'lowest' if options.lower_is_better else 'highest'} {options.metric}"
    )


def _train(tuning: Study, devices: str, address: str | None) -> list[str]:
    from ensemble.cli.reports.audit import Audit
    from ensemble.cli.terminal.progress import StepsView
    from folds.images.cache import DecodedImages
    from folds.runs.plan import Plan
    from folds.tuning.search import StudyCallbacks, train_trials

    audit = Audit()

    def planned(plan: Plan) -> None:
        people = 0 if plan.table.persons is None else len(set(plan.table.persons.tolist()))
        console.note(
            f"{len(plan.table):,} images of {people:,} people, {len(plan.table.classes)} classes, {plan.assignment.k} folds by person"
        )
        unused = plan.assignment.k - len(tuning.options.folds)
        if unused < 1:
            console.warn("the choice is made on all folds: no fold is left to say what the best is worth")
        console.note(plan.placement.reason)

    def decoded(plan: Plan, train: DecodedImages, test: DecodedImages | None) -> None:
        audit.look(plan, train, test)
        audit.show()

    before = len(tuning.ended())
    if before:
        console.note(f"{before} of {len(tuning.candidates)} trials have ended before")
    with StepsView("decoding images") as decoding, StepsView("epochs") as bar:
        view = _View(tuning, bar)
        heard = StudyCallbacks(
            note=console.note,
            warn=audit.warn,
            epoch=view.epoch,
            ended=view.ended,
            decoding=decoding,
            planned=planned,
            decoded=decoded,
        )
        return train_trials(tuning, devices, address, heard)


class _View:
    """A line for each trial that has ended, and on a terminal a bar of the epochs of all."""

    def __init__(self, tuning: Study, bar: Any) -> None:
        self.tuning = tuning
        self.bar = bar
        of = {one.number: one.recipe.epochs * len(tuning.options.folds) for one in tuning.candidates}
        ended = tuning.ended()
        self.left = {number: epochs for number, epochs in of.items() if number not in ended}
        self.total = sum(self.left.values())
        self.done: dict[int, int] = {}

    def epoch(self, number: int, done: int, total: int, score: float) -> None:
        """A trial has trained so many of its epochs."""
        self.done[number] = done
        self.bar(sum(self.done.values()), self.total)

    def ended(self, trial: Trial) -> None:
        """A trial has ended; what it was not trained for counts as done."""
        from folds.tuning.trials import cell, trial_name

        self.epoch(trial.number, self.left.get(trial.number, 0), 0, 0.0)
        settings = ", ".join(f"{key} {cell(value)}" for key, value in trial.settings.items())
        score = f"failed: {trial.reason}" if trial.score is None else f"{self.tuning.options.metric} {trial.score:.3f}"
        early = f", stopped early after {trial.epochs} of {trial.of} epochs" if trial.state == "stopped" else ""
        console.note(f"{trial_name(trial.number)}: {settings}: {score}{early}")


def _show(tuning: Study) -> None:
    from folds.errors import EnsembleError
    from folds.tuning.importance import measure
    from folds.tuning.importance_plot import draw_importance
    from folds.tuning.study import score_on_other_folds
    from folds.tuning.trials import best_of, ordered, trial_records, write_best, write_table

    options = tuning.options
    trials = ordered(list(tuning.ended().values()), options)
    scored = [one for one in trials if one.score is not None]
    importance = (
        measure([one.settings for one in scored], [float(one.score or 0) for one in scored], options.seed)
        if scored
        else None
    )
    files = [write_table(tuning.folder, trials, options)]
    plot = draw_importance(tuning.folder / "importance.png", tuning.space, trials, importance, options)
    best = best_of(trials, options)
    record: dict[str, Any] = {
        "tuning": tuning.name,
        "metric": options.metric,
        "folds": list(options.folds),
        "trials": trial_records(trials),
    }
    record |= {
        "importance": None if importance is None else importance.to_dict(),
        "best": None,
        "files": [str(path) for path in files],
    }
    if best is None:
        console.result(_table(tuning, trials), record)
        raise EnsembleError(
            "no trial finished", hint="look at the reasons above; a space without what fails, or ensemble tune --resume"
        )
    chosen = tuning.candidates[best.number]
    written = write_best(tuning.folder, tuning.best_run, best, chosen.settings, chosen.recipe, options, len(scored))
    checked = score_on_other_folds(tuning)
    files += [path for path in (plot, written) if path is not None]
    record |= {
        "best": trial_records([best])[0] | {"optimistic": True, "checked": checked},
        "files": [str(path) for path in files],
    }
    texts = [_table(tuning, trials), *([_importance_table(importance)] if importance is not None else [])]
    console.result("\n\n".join(texts), record)
    _remark(tuning, trials, importance, checked)
    console.next_step(
        f"ensemble kfold -c {written}"
        if checked is None
        else f"ensemble blend runs/{tuning.best_run}*.npy --method soft"
    )


def _folds(folds: Sequence[int]) -> str:
    return f"fold{'s' if len(folds) > 1 else ''} {', '.join(map(str, folds))}"


def _table(tuning: Study, trials: Sequence[Trial]) -> str:
    from folds.tuning.trials import cell, trial_name
    from folds.utils.text import duration

    keys = [axis.key for axis in tuning.space]
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
        ["trial", *keys, f"{tuning.options.metric}, {_folds(tuning.options.folds)}", "trained", "time", "early end"],
        rows,
    )


def _importance_table(importance: Importance) -> str:
    rows = [[key, f"{share:.0%}", f"± {importance.spread[key]:.0%}"] for key, share in importance.share.items()]
    return console.table(["setting", "explains of the variance", "between repeats"], rows)


def _remark(
    tuning: Study, trials: Sequence[Trial], importance: Importance | None, checked: Mapping[str, Any] | None
) -> None:
    from folds.tuning.importance import FEWEST
    from folds.tuning.trials import best_of

    options, best = tuning.options, best_of(trials, tuning.options)
    assert best is not None  # noqa: S101 - _show has seen to it
    scored = sum(one.score is not None for one in trials)
    if importance is None:
        console.note(
            f"importance: {scored} trials with a score are too few, or all the same; it takes {FEWEST} that differ"
        )
    else:
        console.note(f"importance: {importance.verdict}")
    folds = _folds(options.folds)
    console.note(
        f"optimistic: {options.metric} {best.score:.3f} on {folds} is the best of {scored} scores there, and was chosen for it"
    )
    if checked is not None:
        score, span = checked["score"], f"{checked['low']:.3f}–{checked['high']:.3f}"
        others = _folds(checked["folds"])
        console.note(f"{tuning.best_run}, on {others} that nothing was chosen on: {score:.3f} ({span})")
    else:
        console.note("trained on all folds, its score on the others says what it is worth; then --resume shows it here")
