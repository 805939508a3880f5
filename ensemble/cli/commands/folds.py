"""`ensemble folds`: split a table by person; `ensemble folds check`: audit data, images and a split."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ensemble.cli.reports.folds import folds_text, sites_text
from ensemble.cli.terminal import console
from ensemble.cli.terminal.options import COLUMNS, FOLDS, READING, RUN, takes_settings
from folds.predictions.file_names import FOLDS_FILE, RUNS

if TYPE_CHECKING:
    from folds.config.command_settings import Settings
    from folds.data.table import DataSpec

logger = logging.getLogger(__name__)

CHECK = "Only with check"


@takes_settings(
    "data",
    *COLUMNS,
    *READING,
    "task",
    "fold_column",
    *("k", "seed", "stratify", "group_within", "leave_out", "repair", "repeats", "holdout", "window", "test"),
    help={
        "seed": "breaks ties, and makes the repeats differ [0]",
        "repeats": "independent splits: FILE, FILE with .repeat1, … [1]",
        "holdout": "hold out this share of the persons once instead of k folds, e.g. .1",
        "window": "check: intensity range LO,HI mapped to 0–255 for images with more than 8 bits [the file's range]",
        "test": "check: further images to predict, compared with those of training",
    },
    panels={"seed": FOLDS, "window": CHECK, "test": CHECK},
)
def folds(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[check [FILE]]", help="audit the data and a split, split nothing", show_default=False),
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="file to write the folds to", metavar="FILE", rich_help_panel=RUN)
    ] = FOLDS_FILE,
    force: Annotated[
        bool, typer.Option("--force", help="replace a file that holds other folds", rich_help_panel=RUN)
    ] = False,
    no_images: Annotated[
        bool, typer.Option("--no-images", help="check: look at the table alone", rich_help_panel=CHECK)
    ] = False,
    sheet: Annotated[
        Path | None,
        typer.Option(help="check: write the suspicious images side by side", metavar="FILE.png", rich_help_panel=CHECK),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="treat warnings as errors: write no folds", rich_help_panel=RUN)
    ] = False,
    **given: Any,
) -> None:
    """Split by person (group): no person is in two folds, classes are balanced over the folds. Needs no image files.

    The split is that of scikit-learn's StratifiedGroupKFold, repaired where a fold lacks a class that enough persons
    have, or where the balance can be improved; changes are reported. Settings can be given in ./ensemble.toml too, as
    for kfold.

    With check, nothing is split: the data, the images and a split made here or elsewhere (folds.csv by default; its
    columns are found by name, or named by --id, --label, --person and --fold-column) are audited. Errors: a person in
    two folds, an empty fold. Warnings: copies of images under different persons or labels or in training and test,
    classes that cannot be in every fold. The split is aligned with the data by id; without --data, only FILE is
    checked.
    """
    from folds.config.contradictions import check_contradictions
    from folds.config.files import load_settings
    from folds.data.sources import find_data, spec_of
    from folds.errors import UsageError

    settings, recipe, _ = load_settings(given, runs_code=False)
    test, window = given["test"], given["window"]
    file = _split_named(words) if words else None
    alone = len(words or ()) == 2 and settings.data is None
    if words and window is not None and (no_images or alone):
        raise UsageError(
            "`window` applies to images, which are not checked here",
            hint="remove `no_images`, and give the data with `data`",
        )
    check_options: dict[str, Any] = {
        "k": settings.k,
        "window": recipe.value_window(),
        "strict": strict,
        "sheet": sheet,
        "force": force,
        "named": len(words or ()) == 2,
        "columns": {key: given[key] for key in ("id", "label", "person")} | {"fold": settings.fold_column},
    }
    if alone:
        _check(file, None, images=False, **check_options)
        return
    spec = spec_of(settings, find_data(settings.data), recipe.task)
    if words:
        _check(file, spec, images=not no_images, **check_options)
        return
    if test or no_images or sheet or window:
        raise UsageError(
            "`window`, `test`, `no_images` and `sheet` apply only to ensemble folds check",
            hint="ensemble folds check --help",
        )
    check_contradictions({key: given[key] is not None for key in ("k", "holdout", "leave_out")})
    _split(spec, settings, recipe.seed, output, force, strict)
    again = console.again("data", *COLUMNS, *READING, "task")
    console.next_step("ensemble kfold", ["--folds", str(output), *again])


def _split(spec: DataSpec, settings: Settings, seed: int, output: Path, force: bool, strict: bool) -> None:
    """Split, save and print; show warnings about the folds after saving."""
    from folds.data.readers import read_data
    from folds.data.sources import log_notes
    from folds.errors import EnsembleError
    from folds.splits.checks import check_folds
    from folds.splits.columns import unused_fold_note
    from folds.splits.kfold import save_folds
    from folds.splits.repeated import make_splits
    from folds.splits.sites import site_column

    read = read_data(spec, need_images=False)
    log_notes(read)
    table = read.train
    if settings.fold_column is None:
        for line in unused_fold_note(table):
            logger.info(line)
    assignments = make_splits(table, settings, seed)
    warnings = [check_folds(each, table.classes, table.class_attributes) for each in assignments]
    if strict and (doubts := [*read.warnings, *(line for texts in warnings for line in texts)]):
        count = "1 warning, an error" if len(doubts) == 1 else f"{len(doubts)} warnings, errors"
        raise EnsembleError(
            f"{count} with `strict=True`: no folds were written",
            hint="to write them anyway, omit `strict`",
            details=doubts,
        )
    for each in assignments:
        save_folds(repeat_path(output, each.repeat), each, force)
    for i, texts in enumerate(warnings):
        for text in texts:
            console.warn(f"repeat {i}: {text}" if i else text)
    column = settings.leave_out or settings.group_within
    sites = None if column is None else (column, site_column(table, column))
    _print(output, assignments, table.classes, table.class_attributes, warnings[0], sites)
    if column is not None and RUNS.is_dir():
        from folds.experiments.sites import find_new_sites

        for line in [line for one in find_new_sites(RUNS) if one.column == column for line in one.lines()]:
            console.note(line)


def _split_named(words: Sequence[str]) -> Path | None:
    """Return the file of ``check [FILE]``; by default folds.csv, if it exists."""
    from folds.errors import UsageError

    if words[0] != "check" or len(words) > 2:
        raise UsageError(
            f"ensemble folds {shlex.join(words)}: expected no argument, or check [FILE]",
            hint="ensemble folds check folds.csv",
        )
    return Path(words[1]) if len(words) == 2 else FOLDS_FILE if FOLDS_FILE.is_file() else None


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
    named: bool,
    columns: Mapping[str, str | None],
) -> None:
    """Audit the data, their images and a split, and print the findings.

    Without `spec`, only the split is checked. `named` tells whether the user named its file; `columns` are those that
    the user named.
    """
    from ensemble.cli.reports.audit import show
    from ensemble.cli.terminal.progress import TerminalProgress
    from folds.auditing.run import audit, load_audited
    from folds.errors import combine_errors

    if sheet is not None:
        _check_sheet(sheet, images and spec is not None, force)
    if spec is not None and file == FOLDS_FILE and not named and columns["fold"] is not None:
        file = None  # the column of the table is meant, not the file that happens to be here
    data, assignment = load_audited(spec, file, columns, images)
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
        written = f"{sheet}: {shown} {'case' if shown == 1 else 'cases'}"
        console.note(f"\n{written}" if shown else f"\nno findings about images: {sheet} is not written")
    serious = report.serious(strict)
    if serious:
        what = "finding is an error" if len(serious) == 1 else "findings are errors"
        again = shlex.join(["ensemble", *console.words])
        raise combine_errors(
            [finding.message for finding in serious],
            what + (" under --strict" if strict else ""),
            hint=f"correct the table, then: {again}",
        )
    options = console.again(
        "data", "task", *COLUMNS, *(name for name in READING if name not in ("test_images", "test_labels"))
    )
    if file is None:
        console.next_step("ensemble folds", options)
    else:  # kfold also takes what describes the test images, and how images are read
        options = console.again("data", "test", "task", *COLUMNS, *READING, "window")
        console.next_step("ensemble kfold", ["--folds", str(file), *options])


def _check_sheet(sheet: Path, images: bool, force: bool) -> None:
    from folds.errors import UsageError
    from folds.utils.files import check_not_existing

    if not images:
        raise UsageError(
            "`sheet` shows images, which are not checked here",
            hint="remove `no_images`, and give the data with `data`",
        )
    if sheet.suffix.lower() != ".png":
        raise UsageError(f"`sheet={sheet}`: expected a PNG", hint=f"`sheet={sheet.with_suffix('.png')}`")
    check_not_existing(sheet, "the file", force)


def repeat_path(output: Path, repeat: int) -> Path:
    """Return ``folds.csv``, ``folds.repeat1.csv``, …"""
    return output if repeat == 0 else output.with_name(f"{output.stem}.repeat{repeat}{output.suffix}")


def _print(
    file: Path,
    assignments: Sequence[Any],
    classes: Sequence[str],
    meaning: Mapping[str, Mapping[str, str]],
    warnings: Sequence[str],
    sites: tuple[str, Any] | None = None,
) -> None:
    from folds.splits.sites import site_counts

    assignment = assignments[0]
    record = {"folds": str(file)} | assignment.to_dict(classes)
    record |= {
        "repeats": [str(repeat_path(file, each.repeat)) for each in assignments[1:]],
        "warnings": list(warnings),
    }
    files = ", ".join([str(file), *record["repeats"]])
    overlap = "no person is in both parts" if assignment.held_out else "no person is in two folds"
    overlap += "" if assignment.leave_out is None else f", and no {assignment.leave_out} either"
    text = folds_text(assignment, classes, meaning)
    if sites is not None:
        names, counts = site_counts(assignment, sites[1])
        record |= {"sites": dict(zip(names, counts.tolist(), strict=True))}
        text += f"\n\n{sites_text(assignment, sites[0], names, counts)}"
    console.result(f"{text}\n\n{files}: {overlap}", record)
