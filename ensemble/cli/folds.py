"""`ensemble folds`: split a table by person, or check a split."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ensemble.cli import console


def folds(
    data: Annotated[Path | None, typer.Option(help="a CSV, class folders, or the mask-competition layout [./data, else the built-in people]")] = None,
    path: Annotated[str, typer.Option(help="CSV column of the image path", metavar="COL")] = "path",
    label: Annotated[str, typer.Option(help="CSV column of the class", metavar="COL")] = "label",
    person: Annotated[str, typer.Option(help="CSV column of the group that must not be split", metavar="COL")] = "person",
    split: Annotated[str | None, typer.Option(help="CSV column whose value 'test' keeps a row out of the folds", metavar="COL")] = None,
    person_regex: Annotated[str | None, typer.Option(help="takes the person from the image path", metavar="REGEX")] = None,
    k: Annotated[int | None, typer.Option("--k", "-k", help="number of folds [5]")] = None,
    seed: Annotated[int, typer.Option(help="decides ties, and the repeats")] = 0,
    stratify: Annotated[
        str | None, typer.Option(help="spread these columns evenly too, e.g. gender,source; the label always counts", metavar="COL[,COL]")
    ] = None,
    repair: Annotated[bool, typer.Option("--repair/--no-repair", help="move and swap people where a fold lacks a class or is off balance")] = True,
    repeats: Annotated[int, typer.Option(help="independent splits: FILE, FILE with .repeat1, …")] = 1,
    holdout: Annotated[float | None, typer.Option(help="hold out this share once instead of making folds, e.g. .1", metavar="SHARE")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="where the folds are written", metavar="FILE")] = Path("folds.csv"),
    force: Annotated[bool, typer.Option("--force", help="replace a file that holds other folds")] = False,
    check: Annotated[Path | None, typer.Option(help="check this split instead of making one", metavar="FILE")] = None,
) -> None:
    """Split by person: no person stands in two folds, the classes are spread evenly. Image files are not needed.

    The split is that of scikit-learn's StratifiedGroupKFold, repaired where a fold lacks a class that people enough have, or
    where the balance can be improved; what was changed is said.

    With --check, a split made here or elsewhere (columns id, label, person, fold) is looked at instead: an error if a person
    stands in two folds or a fold is empty. With --data too, it is lined up with that table by id.
    """
    from folds.readers import read_data
    from folds.samples import DataSpec, SampleTable
    from folds.sources import find_data
    from folds.split import check_folds, load_folds

    _check_usage(k, repeats, holdout)
    table: SampleTable | None = None
    if data is not None or check is None:
        found, line = find_data(data)
        console.note(line)
        spec = DataSpec(found, path=path, label=label, person=person, split=split, person_regex=person_regex)
        read = read_data(spec, need_images=False)
        for text in read.notes:
            console.note(text)
        for text in read.warnings:
            console.warn(text)
        table = read.train
    if check is not None:
        assignments = [load_folds(check, table)]
    else:
        assert table is not None  # noqa: S101 - without --check it was read
        columns = _columns(table, stratify) if stratify is not None else None
        assignments = _make(table, 5 if k is None else k, seed, columns, repair, repeats, holdout)
    assignment = assignments[0]
    classes, meaning = (table.classes, table.class_attributes) if table is not None else (_classes_of(assignment.labels), {})
    warnings = [(check_folds(each, classes, meaning)) for each in assignments]
    if check is None:
        _save(output, assignments, force)
    for i, texts in enumerate(warnings):
        for text in texts:
            console.warn(f"repeat {i}: {text}" if i else text)
    _print(check or output, assignments, classes, meaning, warnings[0])
    named = {"--data": data, "--path": path, "--label": label, "--person": person, "--split": split, "--person-regex": person_regex}
    defaults = ("path", "label", "person", None)
    words = [word for option, value in named.items() if value not in defaults for word in (option, str(value))]
    console.next_step(shlex.join(["ensemble", "kfold", "--folds", str(check or output), *words]))


def _classes_of(labels: Any) -> tuple[str, ...]:
    from folds.predictions import sort_classes

    return sort_classes(labels.tolist())


def _check_usage(k: int | None, repeats: int, holdout: float | None) -> None:
    from folds.errors import UsageError

    for option, given in (("--k", k is not None), ("--repeats", repeats != 1)):
        if holdout is not None and given:
            raise UsageError(f"--holdout and {option} contradict each other", hint="--holdout makes one split: give one of them")


def _columns(table: Any, names: str) -> list[Any]:
    """The label, and the columns named: arrays (n,) of str."""
    from folds.errors import unknown

    known = {"label": table.labels, **table.attributes}
    wanted = list(dict.fromkeys(["label", *(name.strip() for name in names.split(","))]))
    for name in wanted:
        if name not in known:
            raise unknown("column", name, list(known), hint=f"--stratify takes: {', '.join(known)}")
    return [known[name] for name in wanted]


def _make(table: Any, k: int, seed: int, columns: list[Any] | None, repair: bool, repeats: int, holdout: float | None) -> list[Any]:
    """The assignments that were asked for; what repair changed, and how much repeats differ, is said."""
    from folds.repeats import likeness, repeated_splits
    from folds.split import hold_out

    if holdout is not None:
        return [hold_out(table, holdout, seed, columns, repair)]
    assignments = repeated_splits(table, k, repeats, seed, columns, repair)
    if assignments[0].repair is not None:
        console.note(f"repair: {assignments[0].repair}")
    if repeats > 1:
        index = likeness(assignments)
        console.note(
            f"repeats: of the pairs of people that random splits would have together in one and apart in another, these have at least "
            f"{1 - index:.0%} (adjusted Rand index at most {index:.2f}; 0: independent, 1: the same)"
        )
        if index > 0.99:
            console.warn("two of the repeats are the same split, or nearly" + ("" if repair else "; without --no-repair they are independent"))
    return assignments


def repeat_path(output: Path, repeat: int) -> Path:
    """``folds.csv``, ``folds.repeat1.csv``, …"""
    return output if repeat == 0 else output.with_name(f"{output.stem}.repeat{repeat}{output.suffix}")


def _save(output: Path, assignments: Sequence[Any], force: bool) -> None:
    from folds.split import save_folds

    for each in assignments:
        save_folds(repeat_path(output, each.repeat), each, force)


def folds_text(assignment: Any, classes: Sequence[str], meaning: Mapping[str, Mapping[str, str]]) -> str:
    """Classes × folds (or the held-out part and the rest), in images, with the people of each class and of each fold."""
    from folds.split import fold_table, people_per_class

    images, people = fold_table(assignment, classes)
    having = people_per_class(assignment, classes)
    rows: list[list[object]] = []
    for i, name in enumerate(classes):
        rows.append([name, " ".join(meaning.get(name, {}).values()), *_counts(images[i]), f"{having[i]:,}"])
    rows.append(["images", "", *_counts(images.sum(axis=0)), ""])
    rows.append(["people", "", *_counts(people), f"{people.sum():,}"])
    parts = ["held out", "training"] if assignment.held_out else [f"fold {i}" for i in range(assignment.k)]
    header = ["class", "", *parts, "all", "people"]
    if not any(meaning.values()):
        header, rows = [header[0], *header[2:]], [[row[0], *row[2:]] for row in rows]
        left = 1
    else:
        left = 2
    return console.table(header, rows, left)


def _print(file: Path, assignments: Sequence[Any], classes: Sequence[str], meaning: Mapping[str, Mapping[str, str]], warnings: Sequence[str]) -> None:
    from dataclasses import asdict

    from folds.split import fold_table, people_per_class

    assignment = assignments[0]
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
        "repair": None if assignment.repair is None else asdict(assignment.repair),
        "repeats": [str(repeat_path(file, each.repeat)) for each in assignments[1:]],
        "warnings": list(warnings),
    }
    files = ", ".join([str(file), *record["repeats"]])
    said = "nobody stands on both sides" if assignment.held_out else "nobody stands in two folds"
    console.result(f"{folds_text(assignment, classes, meaning)}\n\n{files}: {said}", record)


def _counts(numbers: Any) -> list[str]:
    return [f"{int(n):,}" for n in [*numbers, numbers.sum()]]
