"""`ensemble folds`: split a table by person. `ensemble folds check` is in auditing.py."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ensemble.cli import console


def folds(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[check [FILE]]", help="audit the data and a split, split nothing", show_default=False)
    ] = None,
    data: Annotated[Path | None, typer.Option(help="a CSV, class folders, or the mask-competition layout [./data, else the built-in people]")] = None,
    path: Annotated[str, typer.Option(help="CSV column of the image path", metavar="COL")] = "path",
    label: Annotated[str, typer.Option(help="CSV column of the class", metavar="COL")] = "label",
    person: Annotated[str, typer.Option(help="CSV column of the group that must not be split", metavar="COL")] = "person",
    split: Annotated[str | None, typer.Option(help="CSV column whose value 'test' keeps a row out of the folds", metavar="COL")] = None,
    person_regex: Annotated[str | None, typer.Option(help="takes the person from the image path", metavar="REGEX")] = None,
    k: Annotated[int, typer.Option("--k", "-k", help="number of folds")] = 5,
    seed: Annotated[int, typer.Option(help="another seed, another split")] = 0,
    stratify: Annotated[str | None, typer.Option(help="spread these columns evenly instead of the label alone", metavar="COL[,COL]")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="where the folds are written", metavar="FILE")] = Path("folds.csv"),
    force: Annotated[bool, typer.Option("--force", help="replace a file that holds other folds")] = False,
    test: Annotated[Path | None, typer.Option(help="check: further images to predict, looked for among those of training")] = None,
    no_images: Annotated[bool, typer.Option("--no-images", help="check: look at the table alone")] = False,
    sheet: Annotated[Path | None, typer.Option(help="check: write the suspicious images side by side", metavar="FILE.png")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="check: warnings are errors")] = False,
) -> None:
    """Split by person: no person stands in two folds, the classes are spread evenly. Image files are not needed.

    With check, nothing is split: the data, their images and a split made here or elsewhere (columns id, label, person, fold; folds.csv
    unless named) are audited. An error if a person stands in two folds or a fold is empty; warnings for copies of images under
    different people, labels, or in training and test, and for classes that cannot be in every fold. The split is lined up with
    the data by id; FILE without --data is looked at by itself.
    """
    from ensemble.cli import auditing
    from folds.errors import UsageError
    from folds.readers import read_data
    from folds.samples import DataSpec
    from folds.sources import find_data
    from folds.split import check_folds, save_folds, split_by_person

    named = {"--data": data, "--path": path, "--label": label, "--person": person, "--split": split, "--person-regex": person_regex}
    defaults = ("path", "label", "person", None)
    options = [word for option, value in named.items() if value not in defaults for word in (option, str(value))]
    file = auditing.file_named(words) if words else None
    if words and len(words) == 2 and data is None:
        auditing.check(file, None, k=k, images=False, strict=strict, sheet=sheet, force=force, options=options)
        return
    found, line = find_data(data)
    console.note(line)
    spec = DataSpec(found, path=path, label=label, person=person, split=split, person_regex=person_regex, test=test)
    if words:
        auditing.check(file, spec, k=k, images=not no_images, strict=strict, sheet=sheet, force=force, options=options)
        return
    if test or no_images or sheet or strict:
        raise UsageError("--test, --no-images, --sheet and --strict belong to: ensemble folds check", hint="ensemble folds check --help")
    read = read_data(spec, need_images=False)
    for text in read.notes:
        console.note(text)
    for text in read.warnings:
        console.warn(text)
    table = read.train
    assignment = split_by_person(table, k, seed, _strata(table, stratify) if stratify is not None else None)
    warnings = check_folds(assignment, table.classes, table.class_attributes)
    save_folds(output, assignment, force)
    for text in warnings:
        console.warn(text)
    _print(output, assignment, table.classes, table.class_attributes, warnings)
    console.next_step(shlex.join(["ensemble", "kfold", "--folds", str(output), *options]))


def _strata(table: Any, names: str) -> Any:
    """(n,) str: the values of the columns named, joined."""
    import numpy as np

    from folds.errors import unknown

    known = {"label": table.labels, **table.attributes}
    columns = []
    for name in names.split(","):
        if name.strip() not in known:
            raise unknown("column", name.strip(), list(known), hint=f"--stratify takes: {', '.join(known)}")
        columns.append(known[name.strip()].tolist())
    return np.array(["\x1f".join(values) for values in zip(*columns)])


def folds_text(assignment: Any, classes: Sequence[str], meaning: Mapping[str, Mapping[str, str]]) -> str:
    """Classes × folds, counted in images, with the people of each class and of each fold."""
    from folds.split import fold_table, people_per_class

    images, people = fold_table(assignment, classes)
    having = people_per_class(assignment, classes)
    rows: list[list[object]] = []
    for i, name in enumerate(classes):
        rows.append([name, " ".join(meaning.get(name, {}).values()), *_counts(images[i]), f"{having[i]:,}"])
    rows.append(["images", "", *_counts(images.sum(axis=0)), ""])
    rows.append(["people", "", *_counts(people), f"{people.sum():,}"])
    header = ["class", "", *(f"fold {i}" for i in range(assignment.k)), "all", "people"]
    if not any(meaning.values()):
        header, rows = [header[0], *header[2:]], [[row[0], *row[2:]] for row in rows]
        left = 1
    else:
        left = 2
    return console.table(header, rows, left)


def _print(file: Path, assignment: Any, classes: Sequence[str], meaning: Mapping[str, Mapping[str, str]], warnings: Sequence[str]) -> None:
    from folds.split import fold_table, people_per_class

    images, people = fold_table(assignment, classes)
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
        "warnings": list(warnings),
    }
    console.result(f"{folds_text(assignment, classes, meaning)}\n\n{file}: nobody stands in two folds", record)


def _counts(numbers: Any) -> list[str]:
    return [f"{int(n):,}" for n in [*numbers, numbers.sum()]]
