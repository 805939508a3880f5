"""The audit as `folds check` and `kfold` show it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ensemble.cli.terminal import console
from ensemble.cli.terminal.progress import StepsView
from folds.auditing.checks import (
    ERROR,
    MOST_COMPARED,
    NOTE,
    WARNING,
    AuditImages,
    Finding,
    Occurrence,
    SampleRef,
    audit_images,
    audit_table,
    pictures,
)
from folds.auditing.duplicates import SIDE
from folds.data.table import Dataset, DataSpec, SampleTable
from folds.errors import EnsembleError, UsageError, combine_errors
from folds.images.cache import DecodedImages, ImageSettings, load_images, unusable_images
from folds.splits.assignment import FoldAssignment, load_folds
from folds.utils.files import check_not_existing

if TYPE_CHECKING:
    from folds.runs.plan import Plan

CACHE = Path(".ensemble/images")  # as in folds/runs/plan.py, which imports torch
FOLDS = Path("folds.csv")


class Audit:
    """The audit before a training: warnings are collected, shown, and errors under --strict."""

    def __init__(self, strict: bool = False) -> None:
        self.strict = strict
        self.said: list[str] = []
        self.findings: list[Finding] = []

    def warn(self, line: str) -> None:
        """A warning about the table or the folds."""
        console.warn(line)
        self.said.append(line)

    def look(self, plan: Plan, train: DecodedImages, test: DecodedImages | None) -> None:
        """Look at the decoded images; under --strict any warning ends the command."""
        data = plan.data
        sides = (
            pictures(plan.table, train, plan.assignment.fold),
            None if test is None or data.test is None else pictures(data.test, test, part="test"),
        )
        near = len(train.content) + (len(test.content) if test else 0) <= MOST_COMPARED
        self.findings = [
            finding for finding in audit_images(*sides, near=near) if finding.severity == WARNING or not near
        ]
        self.raise_if_strict()

    def raise_if_strict(self) -> None:
        """Under --strict, raise where there was a warning."""
        lines = [
            *self.said,
            *(line for finding in self.findings if finding.severity == WARNING for line in finding.lines(shown=2)),
        ]
        if self.strict and lines:
            hint = "ensemble folds check, with the same --data, shows all of it; without --strict it is trained all the same"
            count = len(self.said) + sum(finding.severity == WARNING for finding in self.findings)
            what = (
                "warning about the data or the folds, an error"
                if count == 1
                else "warnings about the data and the folds, errors"
            )
            raise EnsembleError(f"{count} {what} under --strict: nothing was trained", hint=hint, details=lines)

    def show(self) -> None:
        """Print what `look` found."""
        for finding in self.findings:
            message, *cases = finding.lines()
            if finding.severity == WARNING:
                console.warn(message)
                for line in cases:
                    print(line, file=sys.stderr)
            else:
                console.note(f"{message}; ensemble folds check does")


def file_named(words: Sequence[str]) -> Path | None:
    """The file of `check [FILE]`; folds.csv, where there is one, unless named."""
    if words[0] != "check" or len(words) > 2:
        raise UsageError(
            f"ensemble folds {shlex.join(words)}: expected nothing, or check [FILE]",
            hint="ensemble folds check folds.csv",
        )
    return Path(words[1]) if len(words) == 2 else FOLDS if FOLDS.is_file() else None


def check(
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
    """Audit the data, their images and a split, and print what was found.

    Parameters
    ----------
    spec : the data; None for a split taken as it stands.
    window : the values that become black and white in images of more than 8 bits; None for their full range.
    options : those that name the data, for the next command.
    """
    if sheet is not None:
        if not images or spec is None:
            raise UsageError(
                "--sheet shows images, which are not looked at here",
                hint="leave --no-images out, and name the data with --data",
            )
        if sheet.suffix.lower() != ".png":
            raise UsageError(
                f"--sheet writes a PNG, {sheet} is not named like one", hint=f"--sheet {sheet.with_suffix('.png')}"
            )
        check_not_existing(sheet, "the file", force)
    data, assignment = _read(file, spec)
    findings = audit_table(data, assignment, k)
    if images and spec is not None:
        # The audit compares thumbnails: decoded at their size, a JPEG takes a fraction of the time.
        findings += _look_at_images(data, assignment, ImageSettings(SIDE, SIDE, window=window))
    findings.sort(key=lambda finding: (ERROR, WARNING, NOTE).index(finding.severity))
    _print(data, assignment, file, findings)
    if sheet is not None:
        _write_sheet(sheet, findings, data, window)
    serious = [finding for finding in findings if finding.severity == ERROR or (strict and finding.severity == WARNING)]
    if serious:
        what = ("finding is an error" if len(serious) == 1 else "findings are errors") + (
            " under --strict" if strict else ""
        )
        again = shlex.join(["ensemble", *console.words])
        raise combine_errors([finding.message for finding in serious], what, hint=f"mend the table, then: {again}")
    console.next_step(
        shlex.join(["ensemble", *(["kfold", "--folds", str(file)] if file is not None else ["folds"]), *options])
    )


def _read(file: Path | None, spec: DataSpec | None) -> tuple[Dataset, FoldAssignment | None]:
    from folds.data.readers import read_data

    if spec is not None:
        data = read_data(spec, need_images=False)
        for text in data.notes:
            console.note(text)
        return data, load_folds(file, data.train) if file is not None else None
    if file is None:
        raise UsageError("there is nothing to check", hint="name a split, or the data with --data")
    assignment = load_folds(file)
    console.note("the split alone is looked at; with --data, its table and images too")
    return Dataset(_table_of(assignment, file)), assignment


def _table_of(assignment: FoldAssignment, file: Path) -> SampleTable:
    """A split made elsewhere, as a table without images."""
    from folds.utils.text import sort_classes

    where = tuple(f"{file.name}: id {name}" for name in assignment.ids.tolist())
    classes = sort_classes(assignment.labels.tolist())
    return SampleTable(str(file), assignment.ids, None, assignment.labels, assignment.persons, classes, {}, {}, where)


def _look_at_images(data: Dataset, assignment: FoldAssignment | None, settings: ImageSettings) -> list[Finding]:
    findings: list[Finding] = []
    train = _decoded(data.train, "train", findings, assignment, settings)
    test = _decoded(data.test, "test", findings, None, settings) if data.test is not None else None
    return findings if train is None else findings + audit_images(train, test)


def _decoded(
    table: SampleTable, part: str, findings: list[Finding], assignment: FoldAssignment | None, settings: ImageSettings
) -> AuditImages | None:
    """The images of a table that can be used; those that cannot are a finding. None where there are none at all."""
    paths = table.paths
    if paths is None or not any(path.exists() for path in paths):
        console.note(f"the images of {table.source} are not there: its table alone is looked at")
        return None
    fold = None if assignment is None else assignment.fold
    with StepsView("decoding images") as progress:
        try:
            cache = load_images(
                paths, settings, cache_dir=CACHE, where=table.locations, note=console.note, progress=progress
            )
        except EnsembleError:
            bad = dict(unusable_images(paths, table.locations, settings=settings))
            if not bad:
                raise
            message = (
                f"{len(bad):,} of {len(table):,} images of {table.source} cannot be used: training will refuse them"
            )
            findings.append(
                Finding(
                    "unusable images",
                    ERROR,
                    len(bad),
                    "image",
                    message,
                    tuple(Occurrence(detail=line) for line in bad.values()),
                )
            )
            good = np.array([at for at in range(len(table)) if at not in bad], np.int64)
            if not len(good):
                return None
            table = table.take(good)
            fold = None if fold is None else fold[good]
            cache = load_images(table.paths or (), settings, cache_dir=CACHE, where=table.locations)
    return pictures(table, cache, fold, part)


def _print(data: Dataset, assignment: FoldAssignment | None, file: Path | None, findings: Sequence[Finding]) -> None:
    train = data.train
    people = 0 if train.persons is None else len(set(train.persons.tolist()))
    looked = f"{len(train):,} images of {people:,} people" + (
        f", {len(data.test):,} test images" if data.test is not None else ""
    )
    looked += f"\n{file}: nobody stands in two folds" if assignment is not None else ""
    blocks = [looked]
    if findings:
        rows = [[finding.kind, finding.severity, finding.amount] for finding in findings]
        blocks.append(console.table(["finding", "", "how many"], rows, 2))
        blocks += [
            "\n".join([f"{finding.severity}: {finding.lines()[0]}", *finding.lines()[1:]]) for finding in findings
        ]
    else:
        blocks.append("nothing was found")
    counts = {
        severity: sum(finding.severity == severity for finding in findings) for severity in (ERROR, WARNING, NOTE)
    }
    record: dict[str, object] = {
        "data": train.source,
        "folds": str(file) if file else None,
        "samples": len(train),
        "people": people,
        "counts": counts,
    }
    console.result("\n\n".join(blocks), record | {"findings": [finding.to_dict() for finding in findings]})


def _write_sheet(sheet: Path, findings: Sequence[Finding], data: Dataset, window: tuple[float, float] | None) -> None:
    from folds.auditing.contact_sheet import write_sheet

    def file_of(row: SampleRef) -> Path | None:
        # By id: rows with unusable images were taken out before positions were counted.
        table, place = places[row.part]
        return None if table.paths is None else table.paths[place[row.id]]

    tables = {"train": data.train, "test": data.test}
    places = {
        part: (table, {name: at for at, name in enumerate(table.ids.tolist())})
        for part, table in tables.items()
        if table is not None
    }
    shown = write_sheet(sheet, findings, file_of, window)
    console.note(
        f"\n{sheet}: {shown} {'case' if shown == 1 else 'cases'}"
        if shown
        else f"\nno images to compare: {sheet} is not written"
    )
