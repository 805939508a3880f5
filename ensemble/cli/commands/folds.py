"""`ensemble folds`: split a table by person; `ensemble folds check`: audit data, images and a split."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ensemble.cli.reports.folds import folds_text
from ensemble.cli.terminal import console
from ensemble.cli.terminal.options import (
    DataOption,
    IdOption,
    LabelOption,
    PathOption,
    PersonOption,
    PersonRegexOption,
    SplitOption,
)

if TYPE_CHECKING:
    from folds.config.recipe import Settings
    from folds.data.table import DataSpec

FOLDS = Path("folds.csv")


def folds(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[check [FILE]]", help="audit the data and a split, split nothing", show_default=False),
    ] = None,
    data: DataOption = None,
    path: PathOption = None,
    label: LabelOption = None,
    person: PersonOption = None,
    id: IdOption = None,
    split: SplitOption = None,
    person_regex: PersonRegexOption = None,
    k: Annotated[int | None, typer.Option("--k", "-k", help="number of folds [5]")] = None,
    seed: Annotated[int | None, typer.Option(help="decides ties, and the repeats [0]")] = None,
    stratify: Annotated[
        str | None,
        typer.Option(
            help="spread these columns evenly too, e.g. gender,source; the label always counts", metavar="COL[,COL]"
        ),
    ] = None,
    repair: Annotated[
        bool | None,
        typer.Option(
            "--repair/--no-repair", help="move and swap people where a fold lacks a class or is off balance [yes]"
        ),
    ] = None,
    repeats: Annotated[int | None, typer.Option(help="independent splits: FILE, FILE with .repeat1, … [1]")] = None,
    holdout: Annotated[
        float | None, typer.Option(help="hold out this share once instead of making folds, e.g. .1", metavar="SHARE")
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="where the folds are written", metavar="FILE")] = Path(
        "folds.csv"
    ),
    force: Annotated[bool, typer.Option("--force", help="replace a file that holds other folds")] = False,
    window: Annotated[
        str | None,
        typer.Option(
            help="check: values that become black and white in 16-bit images, as for kfold [the file's range]",
            metavar="LO,HI",
        ),
    ] = None,
    test: Annotated[
        Path | None, typer.Option(help="check: further images to predict, looked for among those of training")
    ] = None,
    no_images: Annotated[bool, typer.Option("--no-images", help="check: look at the table alone")] = False,
    sheet: Annotated[
        Path | None, typer.Option(help="check: write the suspicious images side by side", metavar="FILE.png")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="check: warnings are errors")] = False,
) -> None:
    """Split by person: no person stands in two folds, the classes are spread evenly. Image files are not needed.

    The split is that of scikit-learn's StratifiedGroupKFold, repaired where a fold lacks a class that people enough have, or
    where the balance can be improved; what was changed is said. What decides the split can stand in ./ensemble.toml, as for kfold.

    With check, nothing is split: the data, their images and a split made here or elsewhere (columns id, label, person, fold; folds.csv
    unless named) are audited. An error if a person stands in two folds or a fold is empty; warnings for copies of images under
    different people, labels, or in training and test, and for classes that cannot be in every fold. The split is lined up with
    the data by id; FILE without --data is looked at by itself.
    """
    from folds.config.files import load_settings
    from folds.data.sources import find_data, spec_of
    from folds.errors import UsageError

    columns = {"path": path, "label": label, "person": person, "id": id, "split": split, "person_regex": person_regex}
    how = {"k": k, "seed": seed, "stratify": stratify, "repair": repair, "repeats": repeats, "holdout": holdout}
    settings, recipe, _ = load_settings({"data": data, "test": test, "window": window, **how, **columns})
    named = {"data": data, **columns}
    options = [
        word
        for name, value in named.items()
        if value is not None
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    file = _split_named(words) if words else None
    if file is not None and window is not None:  # what comes next is kfold
        options += ["--window", window]
    alone = len(words or ()) == 2 and settings.data is None
    if words and window is not None and (no_images or alone):
        raise UsageError(
            "--window is for images, which are not looked at here",
            hint="leave --no-images out, and name the data with --data",
        )
    how_checked: dict[str, Any] = {
        "k": settings.k,
        "window": recipe.value_window(),
        "strict": strict,
        "sheet": sheet,
        "force": force,
    }
    if alone:
        _check(file, None, images=False, options=options, **how_checked)
        return
    spec = spec_of(settings, find_data(settings.data))
    if words:
        _check(file, spec, images=not no_images, options=options, **how_checked)
        return
    if test or no_images or sheet or strict or window:
        raise UsageError(
            "--window, --test, --no-images, --sheet and --strict belong to: ensemble folds check",
            hint="ensemble folds check --help",
        )
    if holdout is not None and k is not None:
        raise UsageError("--holdout and --k contradict each other", hint="--holdout makes one split: give one of them")
    _split(spec, settings, recipe.seed, output, force)
    console.next_step(shlex.join(["ensemble", "kfold", "--folds", str(output), *options]))


def _split(spec: DataSpec, settings: Settings, seed: int, output: Path, force: bool) -> None:
    """Split, save and print; warnings about the folds come when they are saved."""
    from folds.data.readers import read_data
    from folds.data.sources import log_notes
    from folds.splits.checks import check_folds
    from folds.splits.kfold import save_folds
    from folds.splits.repeated import make_splits

    read = read_data(spec, need_images=False)
    log_notes(read)
    table = read.train
    assignments = make_splits(table, settings, seed)
    warnings = [check_folds(each, table.classes, table.class_attributes) for each in assignments]
    for each in assignments:
        save_folds(repeat_path(output, each.repeat), each, force)
    for i, texts in enumerate(warnings):
        for text in texts:
            console.warn(f"repeat {i}: {text}" if i else text)
    _print(output, assignments, table.classes, table.class_attributes, warnings[0])


def _split_named(words: Sequence[str]) -> Path | None:
    """The file of `check [FILE]`; folds.csv, where there is one, unless named."""
    from folds.errors import UsageError

    if words[0] != "check" or len(words) > 2:
        raise UsageError(
            f"ensemble folds {shlex.join(words)}: expected nothing, or check [FILE]",
            hint="ensemble folds check folds.csv",
        )
    return Path(words[1]) if len(words) == 2 else FOLDS if FOLDS.is_file() else None


def _check(
    file: Path | None,
    spec: DataSpec | None,
    *,
    k: int,
    images: bool,
    window: tuple[float, float] | None,
    strict: bool,
    sheet: Path | None,
    force: bool,
    options: Sequence[str],
) -> None:
    """Audit the data, their images and a split (`spec` None: the split as it stands), and print what was found.

    `options` are those that name the data, for the next command.
    """
    from ensemble.cli.reports.audit import show
    from ensemble.cli.terminal.progress import TerminalProgress
    from folds.auditing.run import audit, load_audited
    from folds.errors import combine_errors

    if sheet is not None:
        _check_sheet(sheet, images and spec is not None, force)
    data, assignment = load_audited(spec, file)
    report = audit(
        data,
        assignment,
        k=k,
        images=images and spec is not None,
        window=window,
        folds=file,
        progress=TerminalProgress(),
    )
    show(report)
    if sheet is not None:
        shown = report.write_sheet(sheet)
        told = f"{sheet}: {shown} {'case' if shown == 1 else 'cases'}"
        console.note(f"\n{told}" if shown else f"\nno images to compare: {sheet} is not written")
    serious = report.serious(strict)
    if serious:
        what = "finding is an error" if len(serious) == 1 else "findings are errors"
        again = shlex.join(["ensemble", *console.words])
        raise combine_errors(
            [finding.message for finding in serious],
            what + (" under --strict" if strict else ""),
            hint=f"mend the table, then: {again}",
        )
    following = ["kfold", "--folds", str(file)] if file is not None else ["folds"]
    console.next_step(shlex.join(["ensemble", *following, *options]))


def _check_sheet(sheet: Path, looked_at: bool, force: bool) -> None:
    from folds.errors import UsageError
    from folds.utils.files import check_not_existing

    if not looked_at:
        raise UsageError(
            "--sheet shows images, which are not looked at here",
            hint="leave --no-images out, and name the data with --data",
        )
    if sheet.suffix.lower() != ".png":
        raise UsageError(
            f"--sheet writes a PNG, {sheet} is not named like one", hint=f"--sheet {sheet.with_suffix('.png')}"
        )
    check_not_existing(sheet, "the file", force)


def repeat_path(output: Path, repeat: int) -> Path:
    """``folds.csv``, ``folds.repeat1.csv``, …"""
    return output if repeat == 0 else output.with_name(f"{output.stem}.repeat{repeat}{output.suffix}")


def _print(
    file: Path,
    assignments: Sequence[Any],
    classes: Sequence[str],
    meaning: Mapping[str, Mapping[str, str]],
    warnings: Sequence[str],
) -> None:

    from folds.splits.checks import fold_counts, people_per_class

    assignment = assignments[0]
    images, people = fold_counts(assignment, classes)
    record = {
        "folds": str(file),
        "k": assignment.k,
        "seed": assignment.seed,
        "sha": assignment.sha,
        "table_sha": assignment.table_sha,
        "classes": list(classes),
        "images": images.tolist(),
        "people": people.tolist(),
        "people_per_class": people_per_class(assignment, classes),
        "repair": None if assignment.repair is None else assignment.repair.to_dict(),
        "repeats": [str(repeat_path(file, each.repeat)) for each in assignments[1:]],
        "warnings": list(warnings),
    }
    files = ", ".join([str(file), *record["repeats"]])
    said = "nobody stands on both sides" if assignment.held_out else "nobody stands in two folds"
    console.result(f"{folds_text(assignment, classes, meaning)}\n\n{files}: {said}", record)
