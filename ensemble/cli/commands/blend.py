"""`ensemble blend`: combine prediction files by voting, or by what is learnt out of fold."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from ensemble.blending.blend import Blend, make_blend
from ensemble.blending.output import answers_of, blend_folder, check_answers_file, write_blend
from ensemble.blending.request import ALL_METHODS, BlendConfig
from ensemble.cli.reports.blend import blend_report
from ensemble.cli.terminal import console
from ensemble.cli.terminal.progress import TerminalProgress
from folds.errors import UsageError
from folds.metrics.classification import METRICS
from folds.utils.files import write_atomic

PANELS = {
    "How it is combined": ("method", "weights", "power", "trim", "by", "calibrate", "max_members", "budget", "cost"),
    "What is combined": ("run", "labels", "from_", "allow_duplicates"),
    "What is said": ("metric", "per", "worth", "detail"),
    "What is written": ("output", "csv", "force"),
}


def blend(
    files: Annotated[
        list[Path],
        typer.Argument(help="prediction files (.npy), CSVs of hard labels (ImageID,ans)", metavar="FILES..."),
    ],
    method: Annotated[
        str | None, typer.Option(help=f"{', '.join(ALL_METHODS)} [soft; weighted with --weights]")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="of the runs: swin=.7,resnet18=.3, or .7,.3 in the order they first appear", metavar="W"),
    ] = None,
    power: Annotated[
        float | None,
        typer.Option(
            help="exponent of --method power: 1 mean, 0 geometric, -1 harmonic, large: the largest [2]", metavar="P"
        ),
    ] = None,
    trim: Annotated[
        float | None,
        typer.Option(help="share of the runs that --method trimmed leaves out at either end [.2]", metavar="SHARE"),
    ] = None,
    by: Annotated[
        str, typer.Option(help="class, or attribute: mask, gender, age are voted on apart, then joined", metavar="WHAT")
    ] = "class",
    calibrate: Annotated[
        str | None,
        typer.Option(help="temperature or vector, before or after pooling: after:temperature", metavar="WHERE:HOW"),
    ] = None,
    max_members: Annotated[int | None, typer.Option(help="use the best so many runs at most", metavar="N")] = None,
    budget: Annotated[
        float | None,
        typer.Option(help="use runs that cost so much an image at most: forward passes, or --cost", metavar="COST"),
    ] = None,
    cost: Annotated[
        str | None, typer.Option(help="what a pass of each run costs: swin=3,resnet18=1", metavar="C")
    ] = None,
    run: Annotated[str | None, typer.Option(help="blend only these runs", metavar="A[,B]")] = None,
    metric: Annotated[
        str,
        typer.Option(
            help=f"score, and what is learnt for: {', '.join(METRICS)}, or a function of yours",
            metavar="NAME|module:function",
        ),
    ] = "macro_f1",
    per: Annotated[
        str | None, typer.Option(help="score per person: a person's images are averaged first", metavar="person")
    ] = None,
    worth: Annotated[
        bool | None,
        typer.Option("--worth/--no-worth", help="say what each run is worth, and what can be left out [with auto]"),
    ] = None,
    detail: Annotated[
        bool, typer.Option("--detail", help="scores by class and attribute, confidence against accuracy")
    ] = False,
    labels: Annotated[
        Path | None, typer.Option(help="true labels by id: a CSV with id,label and, better, person", metavar="FILE.csv")
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            envvar="ENSEMBLE_FROM",
            help="what arrays without a sidecar hold: probability or logit [probability]",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", help="name: writes runs/blends/NAME [method and hash]", metavar="NAME"),
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(help="write the decisions too: ImageID,ans of the test samples", metavar="FILE")
    ] = None,
    allow_duplicates: Annotated[
        bool,
        typer.Option("--allow-duplicates", help="files of equal content vote as often as they are given, not once"),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="replace an existing blend or CSV")] = False,
) -> int:
    """Combine predictions, lined up by id and class name, and say what the combination is worth.

    Folds of a run are averaged first, then runs vote. What is learnt (weights, a method) is learnt out of fold, and its score is
    nested: each person is scored by what was learnt without them. The same blend again prints the same result.
    """
    # What the library calls otherwise than this command does.
    console.flags = {
        **console.flags,
        "runs": "--run",
        "logits": "--from logit",
        "per_person": "--per person",
        "name": "-o",
    }
    if per not in (None, "person"):
        raise UsageError(f"--per {per}: expected person", hint="leave it out to score images")
    if from_ not in (None, "probability", "logit"):
        raise UsageError(
            f"--from {from_}: expected probability or logit", hint="--from logit if the arrays hold logits"
        )
    runs = None if run is None else tuple(filter(None, (name.strip() for name in run.split(","))))
    if runs == ():
        raise UsageError("--run names no run", hint="--run A,B blends these; leave it out to blend all")
    request = BlendConfig(
        method=method,
        weights=weights,
        runs=runs,
        metric=metric,
        per_person=per == "person",
        labels=labels,
        logits=from_ == "logit",
        power=power,
        trim=trim,
        by=by,
        allow_duplicates=allow_duplicates,
        calibrate=calibrate,
        max_members=max_members,
        budget=budget,
        cost=cost,
        worth=worth,
        detail=detail,
    )
    made = make_blend(files, request, TerminalProgress())
    folder = blend_folder(made, output)
    answers = None if csv is None else answers_of(made)
    # All that can be refused is, before anything is written.
    if csv is not None and answers is not None:
        check_answers_file(answers, csv, force)
    written = write_blend(made, folder, force)
    if csv is not None and answers is not None:
        write_atomic(csv, answers.content)
    record: dict[str, Any] = {"name": folder.name, "folder": str(folder)} | made.record()
    console.result(blend_report(made), record | {"csv": None if csv is None else str(csv)})
    console.note(f"\n{folder} {'is written' if written else 'holds this blend already'}")
    if answers is not None:
        console.note(f"{csv} has the decisions for the {answers.rows:,} {answers.split} samples")
    console.next_step(_next(made, files, csv))
    return 0


def _next(made: Blend, files: list[Path], csv: Path | None) -> str:
    plain = [
        run.name
        for split in made.splits.values()
        for run in split.runs
        if not run.views and Path("checkpoints", run.name).is_dir()
    ]
    if plain:
        return f"ensemble tta {plain[0]} --views hflip"
    if csv is not None:
        return "ensemble kfold --k 5 --arch swin,resnet18"
    named = shlex.join(map(str, files))
    parents = {path.parent for path in files}
    if len(parents) == 1 and set(parents.pop().glob("*.npy")) == set(files):
        named = f"{files[0].parent}/*.npy"
    options = [word for word in console.words[1:] if Path(word) not in files]
    return f"ensemble blend {named if len(named) < 200 else '…'} {shlex.join([*options, '--csv', 'answers.csv'])}"
