"""`ensemble blend`: combine prediction files by voting."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from ensemble.blend_files import answers_of, blend_folder, refuse_answers, write_blend
from ensemble.blends import Blend, Entry, Request, make_blend
from ensemble.cli import console
from folds.errors import UsageError
from folds.files import write_atomic
from folds.scores import METRICS
from folds.user_metric import find_metric


def blend(
    files: Annotated[list[Path], typer.Argument(help="prediction files (.npy), CSVs of hard labels (ImageID,ans)", metavar="FILES...")],
    method: Annotated[str | None, typer.Option(help="soft, hard, weighted or geometric [soft; weighted with --weights]")] = None,
    weights: Annotated[
        str | None, typer.Option(help="of the runs: swin=.7,resnet18=.3, or .7,.3 in the order they first appear", metavar="W")
    ] = None,
    run: Annotated[str | None, typer.Option(help="blend only these runs", metavar="A[,B]")] = None,
    metric: Annotated[str, typer.Option(help=f"score: {', '.join(METRICS)}, or module:function of yours")] = "macro_f1",
    per: Annotated[str | None, typer.Option(help="score per person: a person's images are averaged first", metavar="person")] = None,
    labels: Annotated[Path | None, typer.Option(help="true labels by id: a CSV with id,label and, better, person", metavar="FILE.csv")] = None,
    from_: Annotated[
        str | None, typer.Option("--from", envvar="ENSEMBLE_FROM", help="what arrays without a sidecar hold: probability or logit [probability]")
    ] = None,
    output: Annotated[str | None, typer.Option("-o", "--output", help="name: writes runs/blends/NAME [method and hash]", metavar="NAME")] = None,
    csv: Annotated[Path | None, typer.Option(help="write the decisions too: ImageID,ans of the test samples", metavar="FILE")] = None,
    force: Annotated[bool, typer.Option("--force", help="replace an existing blend or CSV")] = False,
) -> int:
    """Combine predictions by voting, lined up by id and class name, and say what the combination is worth.

    Folds of a run are averaged first, then runs vote. The same blend again prints the same result.
    """
    if per not in (None, "person"):
        raise UsageError(f"--per {per}: expected person", hint="leave it out to score images")
    if from_ not in (None, "probability", "logit"):
        raise UsageError(f"--from {from_}: expected probability or logit", hint="--from logit if the arrays hold logits")
    runs = None if run is None else tuple(filter(None, (name.strip() for name in run.split(","))))
    if runs == ():
        raise UsageError("--run names no run", hint="--run A,B blends these; leave it out to blend all")
    made = make_blend(
        files,
        Request(method, weights, runs, metric, per == "person", labels, from_ == "logit"),
        warn=console.warn,
    )
    folder = blend_folder(made, output)
    answers = answers_of(made)
    # All that can be refused is, before anything is written.
    if csv is not None:
        refuse_answers(answers, csv, force)
    written = write_blend(made, folder, force)
    if csv is not None:
        write_atomic(csv, answers.content)
    record: dict[str, Any] = {"name": folder.name, "folder": str(folder)} | made.record()
    lines = [blend_table(made), "", *made.notes] if made.notes else [blend_table(made)]
    console.result("\n".join(lines), record | {"csv": None if csv is None else str(csv)})
    console.note(f"\n{folder} {'is written' if written else 'holds this blend already'}")
    if csv is not None:
        console.note(f"{csv} has the decisions for the {answers.rows:,} {answers.split} samples")
    console.next_step(_next(made, files, csv))
    return 0


def blend_table(made: Blend) -> str:
    """A line a run and one for the blend: folds, rows and score on each split."""
    names = list(made.splits)
    scored = {name: any(entries[name].score is not None for entries in [*made.runs.values(), made.total] if name in entries) for name in names}
    weighted = len(set(made.weights.values())) > 1
    title, unit = find_metric(made.request.metric).title, "people" if made.request.per_person else "rows"
    header = ["run", *(["weight"] if weighted else [])]
    for name in names:
        shown = "OOF" if name == "oof" else name
        header += [f"{shown} folds", f"{shown} {unit if scored[name] else 'rows'}"]
        header += [f"{shown} {title}", "95 % over people" if made.splits[name].rows.persons is not None else "95 % over images"] * scored[name]
        header += [f"{shown} accuracy"] * (scored[name] and made.request.metric != "accuracy")
    rows = []
    entries: Any
    for run, entries in [*made.runs.items(), (f"{made.method} vote", made.total)]:
        row = [run, *([f"{made.weights[run]:.3g}" if run in made.weights else ""] if weighted else [])]
        for name in names:
            row += _cells(entries.get(name), scored[name], made.request.metric != "accuracy")
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
    headline = entry.score.headline
    cells += [f"{headline.score:.3f}", f"{headline.low:.3f}–{headline.high:.3f}"]
    return cells + [f"{entry.score.accuracy:.3f}"] * with_accuracy


def _next(made: Blend, files: list[Path], csv: Path | None) -> str:
    plain = [run.name for split in made.splits.values() for run in split.runs if not run.views and Path("checkpoints", run.name).is_dir()]
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
