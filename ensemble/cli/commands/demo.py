"""`ensemble demo`: run the full pipeline on synthetic data."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer

from ensemble.cli.terminal import console
from folds.errors import UsageError
from folds.predictions.file_names import RUN_CONFIG
from folds.utils.files import make_folder
from folds.utils.text import duration

ARCHS = ("swin", "resnet18")
FOLDS, EPOCHS = 5, 10
# A head for each attribute learns from all images of, say, all masks; one head over the 18 classes has a few of each.
TARGET = "mask+gender+age"
# Enough to see that everything works, too little for a good model.
QUICK_FOLDS, QUICK_EPOCHS, QUICK_PEOPLE, QUICK_TEST_PEOPLE = 2, 1, 36, 12
VIEWS = "hflip,scale:1.1"
WEIGHTS = "resnet18=2,swin=1"  # chosen beforehand, not from scores: convolutions learn faster from few images


class Scored(Protocol):
    """A score with an interval."""

    @property
    def interval(self) -> Any: ...


@dataclass(frozen=True)
class ResultLine:
    """One row of the table: a name, its out-of-fold score and its test score."""

    name: str
    oof: Scored
    test: Scored


def demo(
    folder: Annotated[
        Path | None,
        typer.Option(help="folder that everything is written to", show_default="demo, or demo-quick with --quick"),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(help="epochs of each model", min=1, show_default=f"{EPOCHS}, or {QUICK_EPOCHS} with --quick"),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help=f"try the installation: {QUICK_PEOPLE} people, {QUICK_FOLDS} folds, low scores, half a minute",
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="retrain from scratch")] = False,
    people: Annotated[
        Path | None,
        typer.Option(
            "--people",
            help="only draw people with several labels, a grade, an age and a site into this folder",
            metavar="FOLDER",
        ),
    ] = None,
    missing: Annotated[
        float, typer.Option("--missing", help="with --people: share of the labels that are not known", metavar="SHARE")
    ] = 0.0,
) -> int:
    """Run the full pipeline on synthetic data: train Swin and ResNet18 on five folds, blend, add TTA, compare OOF with
    test.

    A few minutes on two CPU cores. The second time it only prints the table; interrupted, it continues where it was.
    """
    if people is not None:
        return _draw_labeled(people, missing, quick)
    if missing:
        raise UsageError("`missing` is for `people`, which is not given", hint="`people=FOLDER`")
    started = time.monotonic()
    folder = folder or Path("demo-quick" if quick else "demo")
    k, epochs = (QUICK_FOLDS, epochs or QUICK_EPOCHS) if quick else (FOLDS, epochs or EPOCHS)
    make_folder(folder)
    console.note(
        f"in {folder}/: synthetic faces, seven images per person; the identity of a person does not help with new "
        "people\n"
    )
    again = shlex.join(["ensemble", *(word for word in console.words if word != "--force")])
    if quick:
        _draw_few(folder)
    lines = [*_runs(folder, k, epochs, force, again), *_blends(folder, ["runs/*.npy"], "")]
    lines += [*_views(folder, force), *_blends(folder, ["runs/*.npy", "runs/tta/*.npy"], " + TTA")]
    line, summary, chosen = _auto(folder, ["runs/*.npy", "runs/tta/*.npy"])
    lines += line
    exported = _export(folder, chosen) if chosen else ""
    page = _report(folder)
    seconds = time.monotonic() - started
    record = {"lines": [_record(line) for line in lines], "seconds": seconds, "folder": str(folder)}
    console.result("\n\n".join([_table(lines), _verdict(lines), summary, exported]), record)
    console.note(f"\n{page} shows what these numbers mean, and the images behind them: open it in a browser")
    console.note(f"\n{duration(seconds)}")
    console.next_step("ensemble kfold --data YOUR.csv --k 5 --arch swin   (columns path, label, person)")
    return 0


def _draw_labeled(folder: Path, missing: float, quick: bool) -> int:
    """Draw people with several labels, numbers and sites, and say how they are read."""
    from folds.data.readers import read_data
    from folds.data.synthetic.labeled_people import ACCESSORIES, make_people
    from folds.data.table import DataSpec

    counts: dict[str, Any] = {"people": QUICK_PEOPLE, "test_people": QUICK_TEST_PEOPLE} if quick else {}
    made = make_people(folder, missing=missing, **counts)
    label = ",".join(ACCESSORIES)
    spec = DataSpec(made / "train.csv", label=label, task="multilabel", test=made / "test.csv")
    read = read_data(spec, need_images=False)
    shown = read.display_table()
    text = f"{shown.text()}\nalso: the grade severity (0 to 4), the age in years, the site"
    console.result(text, {"folder": str(made)} | read.to_dict())
    words = ["--data", str(made / "train.csv"), "--test", str(made / "test.csv"), "--label", label]
    console.next_step("ensemble kfold", [*words, "--group-within", "site"])
    return 0


def _draw_few(root: Path) -> None:
    from folds.data.sources import BUILT_IN
    from folds.data.synthetic.people import generate_people

    generate_people(root / BUILT_IN, people=QUICK_PEOPLE, test_people=QUICK_TEST_PEOPLE)


def _runs(root: Path, k: int, epochs: int, force: bool, again: str) -> list[ResultLine]:
    from folds.execution.local import prepare_workers

    prepare_workers("auto", "local")  # before the imports below, which take as long as those of the workers
    from folds.utils.startup import lasting_imports

    with lasting_imports():
        from ensemble.cli.reports.training import describe, raise_failed, train_shown
        from folds.config.command_settings import Settings
        from folds.config.recipe import Recipe
        from folds.config.sweep import RequestedRecipe
        from folds.runs.plan import build_plan

    target = _target(root, force)
    for arch in ARCHS:
        _step(f"ensemble kfold --k {k} --arch {arch} --name {arch} --target {target} --epochs {epochs}")
    recipe = Recipe(epochs=epochs, target=target)
    variants = [RequestedRecipe(arch, recipe, arch) for arch in ARCHS]  # both in one plan, so that no core waits
    plan = build_plan(Settings(arch=ARCHS, k=k), recipe, variants=variants, force=force, root=root)
    describe(plan)
    trained = train_shown(plan, again, resume=True, force=force)
    raise_failed(trained, again)
    return [ResultLine(one.run, one.oof, one.test) for one in trained.summaries if one.test is not None]


def _target(root: Path, force: bool) -> str:
    """Return what the models predict; that of the runs that are there, which an earlier version may have started."""
    from folds.config.files import read_record

    records = [path for arch in ARCHS if (path := root / "runs" / arch / RUN_CONFIG).is_file()]
    found = TARGET if force or not records else str(read_record(records[0]).get("target", "label"))
    if found != TARGET:
        console.note(f"{records[0].parent} was started with `target={found}` and keeps it; --force starts anew")
    return found


def _blends(root: Path, files: Sequence[str], added: str) -> list[ResultLine]:
    from ensemble.blending.blend import make_blend
    from ensemble.blending.output import blend_folder, write_blend
    from ensemble.blending.request import BlendConfig

    lines: list[ResultLine] = []
    shown = " ".join(files)
    for request in (BlendConfig("soft"), BlendConfig("hard"), BlendConfig("weighted", weights=WEIGHTS)):
        _step(
            f"ensemble blend {shown} --method {request.method}"
            + (f" --weights {request.weights}" if request.weights else "")
        )
        made = make_blend(_found(root, files), request)
        write_blend(made, root / blend_folder(made, None), False)
        oof, test = made.total["oof"].score, made.total["test"].score
        if oof is not None and test is not None:
            lines.append(ResultLine(f"{request.method} vote{' 2:1' if request.weights else ''}{added}", oof, test))
    return lines


def _auto(root: Path, files: Sequence[str]) -> tuple[list[ResultLine], str, str]:
    """Return the row of ``--method auto``, its summary, and the name of the blend."""
    from ensemble.blending.blend import make_blend
    from ensemble.blending.output import blend_folder, write_blend
    from ensemble.blending.request import BlendConfig
    from ensemble.cli.reports.blend import methods_table

    _step(f"ensemble blend {' '.join(files)} --method auto")
    made = make_blend(_found(root, files), BlendConfig("auto", contributions=False))
    saved = blend_folder(made, None)
    write_blend(made, root / saved, False)
    oof, test = made.total["oof"].score, made.total["test"].score
    if made.fitted is None or oof is None or test is None:
        return [], "", ""
    console.note(methods_table(made.fitted))
    summary = "--method auto\n" + "\n".join(f"  {line}" for line in made.fitted.summary_lines())
    return [ResultLine("auto + TTA, nested", oof, test)], summary, saved.name


def _export(root: Path, blend: str) -> str:
    """Export the blend, predict the test people with the exported model alone, and return the result in words."""
    from ensemble.cli.terminal.progress import TerminalProgress
    from ensemble.export.face import export
    from ensemble.prediction.face import predict
    from folds.data.sources import BUILT_IN

    _step(f"ensemble export {blend} -o model")
    made = export(blend, root / "model", force=True, root=root)
    _step(f"ensemble predict model {BUILT_IN / 'eval'}")
    found = predict(root / "model", root / BUILT_IN / "eval", root=root, progress=TerminalProgress())
    if found.score is None:
        return ""
    interval = found.score.interval
    return (
        f"{root / 'model'} ({made.bytes / 1e6:.1f} MB) alone predicts the {interval.people} test people "
        f"with macro F1 {interval.value:.3f}"
    )


def _report(root: Path) -> Path:
    """Write the report of everything in the folder; return its path."""
    from ensemble.cli.terminal.progress import TerminalProgress
    from ensemble.report.face import report

    _step("ensemble report")
    return report(output=root / "report.html", force=True, root=root, progress=TerminalProgress())


def _views(root: Path, force: bool) -> list[ResultLine]:
    from ensemble.cli.terminal.progress import TerminalProgress
    from ensemble.tta.run import augment_folds
    from ensemble.tta.views import parse_views

    lines: list[ResultLine] = []
    for arch in ARCHS:
        _step(f"ensemble tta {arch} --views {VIEWS}")
        made, scored = augment_folds(arch, parse_views(VIEWS), force=force, root=root, progress=TerminalProgress())
        merged = {one.split: one.merged for one in scored}
        if merged.get("oof") is not None and merged.get("test") is not None:
            lines.append(ResultLine(f"{made.run} + TTA", merged["oof"], merged["test"]))  # type: ignore[arg-type]
    return lines


def _found(root: Path, files: Sequence[str]) -> list[Path]:
    return [path for pattern in files for path in sorted(root.glob(pattern))]


def _step(command: str) -> None:
    console.note(f"\n$ {command}")


def _table(lines: Sequence[ResultLine]) -> str:
    header = ["", "OOF macro F1", "95% CI", "test macro F1", "95% CI", "test − OOF"]
    rows = []
    for line in lines:
        oof, test = line.oof.interval, line.test.interval
        row = [
            line.name,
            f"{oof.value:.3f}",
            oof.ci_text(),
            f"{test.value:.3f}",
            test.ci_text(),
        ]
        rows.append([*row, f"{test.value - oof.value:+.3f}"])
    return console.table(header, rows)


def _verdict(lines: Sequence[ResultLine]) -> str:
    inside = [line for line in lines if line.oof.interval.contains(line.test.interval.value)]
    best = max(lines, key=lambda line: line.oof.interval.value)
    oof, test = best.oof.interval, best.test.interval
    return (
        f"best out of fold: {best.name}, macro F1 {oof.value:.3f}; on the {test.people} test people (in no fold) "
        f"{test.value:.3f}\n"
        f"the test score is within the 95% CI of the OOF score in {len(inside)} of {len(lines)} rows"
    )


def _record(line: ResultLine) -> dict[str, Any]:
    def of(value: Any) -> dict[str, Any]:
        return {name: value.to_dict()[name] for name in ("score", "low", "high")}

    return {"name": line.name, "oof": of(line.oof.interval), "test": of(line.test.interval)}
