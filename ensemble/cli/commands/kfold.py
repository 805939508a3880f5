"""`ensemble kfold`: train one model per fold and architecture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ensemble.cli.terminal import console
from ensemble.cli.terminal.options import (
    DataOption,
    IdOption,
    LabelOption,
    PathOption,
    PersonOption,
    PersonRegexOption,
    SplitOption,
    TestOption,
    WindowOption,
    fold_numbers,
    jobs_asked,
    resuming,
)

if TYPE_CHECKING:
    from folds.config.recipe import Recipe, Settings

# How a command is run, which changes nothing that comes out of it.
NOT_SETTINGS = {
    "fold",
    "per",
    "jobs",
    "devices",
    "backend",
    "ray_address",
    "save_every",
    "resume",
    "force",
    "strict",
    "preview",
    "dry_run",
    "config",
}
NOT_SETTINGS |= {"sweep", "baseline", "hypothesis", "track"}

PANELS = {
    "Data": ("data", "test", "path", "label", "person", "id", "split", "person_regex"),
    "Folds": ("k", "stratify", "repeats", "seeds", "folds", "holdout", "repair", "fold"),
    "Model": ("arch", "img_size", "fit", "window", "normalise", "pretrained", "init", "init_run", "target"),
    "Training": (
        *(
            "epochs",
            "batch_size",
            "lr",
            "opt",
            "schedule",
            "loss",
            "label_smoothing",
            "sampler",
            "augment",
            "mixup",
            "cutmix",
            "transform",
        ),
        *("ema", "amp", "compile", "keep", "seed"),
    ),
    "Experiments": ("hypothesis", "baseline", "sweep", "track"),
    "Where and how it runs": ("jobs", "devices", "backend", "ray_address", "save_every"),
    "What is done now": ("name", "config", "resume", "force", "strict", "preview", "dry_run", "per"),
}


def kfold(
    arch: Annotated[
        str | None, typer.Option(help="models, by short name or timm id: swin,resnet18 [swin]", metavar="A[,B]")
    ] = None,
    k: Annotated[int | None, typer.Option("--k", "-k", help="number of folds [5]")] = None,
    data: DataOption = None,
    test: TestOption = None,
    path: PathOption = None,
    label: LabelOption = None,
    person: PersonOption = None,
    id: IdOption = None,
    split: SplitOption = None,
    person_regex: PersonRegexOption = None,
    folds: Annotated[Path | None, typer.Option(help="use this split (ensemble folds -o FILE)", metavar="FILE")] = None,
    holdout: Annotated[
        float | None, typer.Option(help="one model: hold out this share by person instead of k folds", metavar="SHARE")
    ] = None,
    stratify: Annotated[
        str | None,
        typer.Option(
            help="spread these columns evenly too, e.g. gender,source; the label always counts", metavar="COL[,COL]"
        ),
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(help="independent splits into k folds, each a run: NAME, NAME-r1, … [1]", metavar="R")
    ] = None,
    repair: Annotated[
        bool | None,
        typer.Option(
            "--repair/--no-repair", help="move people where scikit-learn's split lacks a class or balance [yes]"
        ),
    ] = None,
    fold: Annotated[str | None, typer.Option(help="train only these folds now", metavar="I[,J]")] = None,
    name: Annotated[str | None, typer.Option(help="name of the run [the architecture]")] = None,
    epochs: Annotated[int | None, typer.Option(help="epochs [15]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="images a step [32; 8 for the small Swin]")] = None,
    lr: Annotated[
        float | None, typer.Option(help="peak learning rate [2e-4 from pretrained weights, 1e-3 from random ones]")
    ] = None,
    img_size: Annotated[
        str | None, typer.Option(help="input size: 224 or HEIGHTxWIDTH [the model's own]", metavar="PX")
    ] = None,
    fit: Annotated[
        str | None, typer.Option(help="squash, crop, crop:PIXELS or letterbox to that size [squash]")
    ] = None,
    window: WindowOption = None,
    augment: Annotated[str | None, typer.Option(help="none, light, standard or strong [standard]")] = None,
    mixup: Annotated[
        float | None, typer.Option(help="α of mixup: pairs of images blended, usually 0.2 [0: off]")
    ] = None,
    cutmix: Annotated[
        float | None, typer.Option(help="α of cutmix: a part of one image pasted into another, usually 1 [0: off]")
    ] = None,
    transform: Annotated[
        str | None, typer.Option(help="a transform of your own, on the decoded image", metavar="MODULE:OBJECT")
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(help="what an epoch shows: none (each image once), balanced, sqrt or power:A [none]")
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(help="ce, wce, focal, ldam, bce, f1 or a sum, e.g. focal:gamma=1+.5*f1 [ce]", metavar="L[+L]"),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="label; an attribute of it (age); or one head each: mask+gender+age [label]", metavar="A[+B]"
        ),
    ] = None,
    label_smoothing: Annotated[
        float | None, typer.Option(help="share of the target given to all classes [0.1]")
    ] = None,
    opt: Annotated[str | None, typer.Option(help="adamw, adam, sgd, lion, or another of timm's [adamw]")] = None,
    schedule: Annotated[
        str | None, typer.Option(help="of the rate: cosine, onecycle, cyclic, step, plateau or constant [cosine]")
    ] = None,
    normalise: Annotated[
        str | None, typer.Option(help="mean and deviation of the model, imagenet, or data (each training part) [model]")
    ] = None,
    ema: Annotated[float | None, typer.Option(help="decay of averaged weights, e.g. 0.999 [0: off]")] = None,
    amp: Annotated[str | None, typer.Option(help="auto, bf16, fp16 or off [auto]")] = None,
    compile: Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="train through torch.compile [no]")
    ] = None,
    keep: Annotated[
        str | None, typer.Option(help="last epoch, or best (optimistic: chosen on the fold that is scored) [last]")
    ] = None,
    pretrained: Annotated[
        bool | None, typer.Option("--pretrained/--no-pretrained", help="start from timm's weights [yes]")
    ] = None,
    init: Annotated[Path | None, typer.Option(help="start from the weights in this file", metavar="FILE")] = None,
    init_run: Annotated[
        str | None,
        typer.Option(help="start each fold from this run's: fine-tuning, e.g. at another size", metavar="RUN"),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="of the split and every random stream [0]")] = None,
    seeds: Annotated[
        int | None,
        typer.Option(help="seeds of training on the same folds, each a run: NAME, NAME-s1, … [1]", metavar="N"),
    ] = None,
    hypothesis: Annotated[
        str | None, typer.Option(help="what is expected, and why: kept with the run in the ledger", metavar="TEXT")
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(help="compare with this run: what differs, and whether other people would show it", metavar="RUN"),
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            help="train a run for each value, compared with the first; given again: each combination",
            metavar="KEY=V1,V2",
        ),
    ] = None,
    track: Annotated[
        str | None, typer.Option(help="write the numbers for tensorboard or mlflow as well", metavar="T")
    ] = None,
    per: Annotated[
        str | None, typer.Option(help="score per person: a person's images are averaged first", metavar="person")
    ] = None,
    jobs: Annotated[
        str, typer.Option(help="jobs at a time on a device; auto: one a CPU core, one a GPU", metavar="N")
    ] = "auto",
    devices: Annotated[str, typer.Option(help="auto, cpu, or GPU numbers 0,1")] = "auto",
    backend: Annotated[str, typer.Option(help="local, or ray: jobs as tasks of a Ray cluster", metavar="B")] = "local",
    ray_address: Annotated[
        str | None, typer.Option(help="of the cluster: auto or HOST:PORT [a local one]", metavar="A")
    ] = None,
    save_every: Annotated[
        float, typer.Option(help="seconds between saves inside long epochs; every epoch is saved", metavar="S")
    ] = 180.0,
    resume: Annotated[bool, typer.Option("--resume", help="go on with what is missing")] = False,
    force: Annotated[bool, typer.Option("--force", help="train existing runs again from nothing")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="warnings about the data and the folds are errors: nothing is trained")
    ] = False,
    preview: Annotated[
        Path | None,
        typer.Option(help="draw some images as training sees them into this PNG, train nothing", metavar="FILE.png"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show the plan, train nothing")] = False,
    config: Annotated[
        Path | None, typer.Option("-c", "--config", help="settings in TOML, e.g. a run's config.toml", metavar="FILE")
    ] = None,
) -> int:
    """Split by person, train one model per fold and architecture, write out-of-fold and test predictions.

    What decides the result can stand in ./ensemble.toml or in ENSEMBLE_<NAME> as well; a flag comes first, then the
    environment, -c FILE, ./ensemble.toml. What is done now cannot stand in a file: --fold, --per, --jobs, --devices,
    --backend, --ray-address, --save-every, --hypothesis, --baseline, --sweep, --track, --resume, --force, --strict,
    --preview, --dry-run and -c. Defaults are in brackets.
    """
    given = dict(locals())
    from folds.config.files import load_settings, read_run_tables
    from folds.config.sweep import RequestedRecipe, parse_sweep
    from folds.errors import UsageError
    from folds.execution.placement import Execution

    if per not in (None, "person"):
        raise UsageError(f"--per {per}: expected person")
    if resume and force:
        raise UsageError("--resume and --force contradict each other", hint="give one of them")
    if holdout is not None and k is not None:
        raise UsageError("--holdout and --k contradict each other", hint="--holdout makes one split: give one of them")
    variants = parse_sweep(sweep or [])
    flags = {key: value for key, value in given.items() if key not in NOT_SETTINGS}
    for key in variants[0].values if sweep else ():
        if flags.get(key) is not None:
            option = f"--{key.replace('_', '-')}"
            raise UsageError(f"{option} and --sweep {key} contradict each other", hint=f"leave {option} out")
    settings, recipe, _ = load_settings(flags, config)
    asked = (
        [
            RequestedRecipe(variant.suffix, load_settings(flags | dict(variant.values), config)[1])
            for variant in variants
        ]
        if sweep
        else []
    )
    for number, run in enumerate(read_run_tables(config), 1):
        if sweep:
            raise UsageError("--sweep and [[run]] tables contradict each other", hint="leave one of them out")
        own, of_run, _ = load_settings(flags, config, run)
        if len(own.arch) != 1:
            raise UsageError(
                f"[[run]] {number} has the architectures {', '.join(own.arch)}, expected one",
                hint="one [[run]] for each",
            )
        asked.append(RequestedRecipe(str(run.get("name", "")), of_run, own.arch[0]))
    return _run(
        settings,
        recipe,
        {
            "folds": fold_numbers(fold),
            "execution": Execution(devices, jobs_asked(jobs), backend, ray_address, save_every),
            "variants": asked,
            "baseline": baseline,
        },
        {
            "resume": resume,
            "force": force,
            "strict": strict,
            "hypothesis": hypothesis,
            "per_person": per == "person",
        },
        track=track,
        preview=preview,
        dry_run=dry_run,
    )


def _run(
    settings: Settings,
    recipe: Recipe,
    planning: dict[str, Any],
    training: dict[str, Any],
    *,
    track: str | None,
    preview: Path | None,
    dry_run: bool,
) -> int:
    """Plan, describe and train; `planning` is for `build_plan`, `training` for `train_runs`."""
    from ensemble.cli.reports.training import describe, raise_failed, show, show_plan, train_shown
    from ensemble.cli.terminal.progress import TerminalProgress
    from folds.auditing.run import check_strict
    from folds.experiments.loggers import open_tracker
    from folds.runs.plan import build_plan
    from folds.runs.preview import write_previews

    tracker, again, force = open_tracker(track), resuming(), training["force"]
    plan = build_plan(settings, recipe, force=force, **planning)
    plan.check_not_started(training["resume"] or dry_run or preview is not None, force)
    describe(plan)
    if preview is not None:
        for file in write_previews(plan, preview, force, TerminalProgress()):
            console.result(str(file), {"preview": str(file)})
        console.note("\nnothing was trained (--preview)")
        return 0
    if dry_run:
        if training["strict"]:
            check_strict(plan.warnings)
        show_plan(plan)
        console.note("\nnothing was trained (--dry-run)")
        return 0
    trained = train_shown(plan, again, tracker=tracker, **training)
    show(trained)
    raise_failed(trained, again)
    console.next_step(
        "ensemble runs" if planning["variants"] else f"ensemble blend {plan.runs[0].runs}/*.npy --method soft"
    )
    return 0
