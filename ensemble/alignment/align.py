"""Members to splits and runs: rows and class columns put in order by name, never by position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ensemble.alignment.attributes import JointRun, join_attributes, label_classes
from ensemble.alignment.classes import class_order
from ensemble.alignment.coverage import Table, place_members, tables_of
from ensemble.alignment.precedence import check_one_of_each, folds_of, model_of, prefer_views
from ensemble.alignment.split import AlignedFile, AlignedSplit, RunPredictions
from ensemble.members.hard_labels import HardLabels
from ensemble.members.reading import Member
from folds.errors import EnsembleError, printable
from folds.predictions.files import SampleRows


@dataclass(frozen=True)
class Alignment:
    """Members lined up.

    Attributes
    ----------
    splits : split name → `AlignedSplit`, ``oof`` first.
    notes : what a reader should know: what was taken on trust, what is absent.
    """

    splits: Mapping[str, AlignedSplit]
    notes: Sequence[str] = ()


def align(members: Sequence[Member], labels: HardLabels | None = None) -> Alignment:
    """Line members up by id and by class.

    Parameters
    ----------
    members : checked (`ensemble.members.reading.read_members`).
    labels : true labels by id, which come before those beside the predictions.

    Raises
    ------
    EnsembleError : different samples, different classes, labels that are no class, two files for the same predictions.
    """
    tables = tables_of(members)
    known = dict(tables)
    placed, notes = place_members(members, tables, labels)
    if labels is not None and known:
        _check_labels_fit(labels, known)
    splits = {}
    for split, inside in placed.items():
        splits[split], said = _align_split(split, tables[split], inside, labels)
        notes += said
    return Alignment(splits, (*notes, *_absent_rows(splits), *_absent_folds(splits)))


def _check_labels_fit(labels: HardLabels, tables: Mapping[str, Table]) -> None:
    ids = set(labels.ids.tolist())
    missing = {split: [name for name in table.ids.tolist() if name not in ids] for split, table in tables.items()}
    if all(missing.values()):
        lines = [
            f"{split}: {len(names):,} of {len(tables[split]):,} ids are missing, e.g. '{names[0]}'"
            for split, names in missing.items()
        ]
        raise EnsembleError(
            f"{labels.path} has the labels of no split",
            hint="it needs one row, id and label, for each sample",
            details=lines,
        )


def _align_split(
    split: str, table: Table, members: Sequence[Member], labels: HardLabels | None
) -> tuple[AlignedSplit, list[str]]:
    """Return the split, and notes on it."""
    targets = list(dict.fromkeys(member.target for member in members))
    target = targets[0] if len(targets) == 1 else "label"
    meaning = _meanings(members)
    groups = {name: [member for member in members if member.target == name] for name in targets}
    own = groups.pop(target, [])
    classes, order = class_order(own, labels) if own else (label_classes(targets, meaning), ())
    runs, notes = _runs(split, own, table, classes, order)
    if groups:
        joined, said = _joined_runs(split, groups, table, classes, meaning)
        runs, notes = [*runs, *joined], notes + said
    rows, said = _rows_of(table, members, labels, target, classes)
    notes += said
    shas = {member.sidecar.folds_sha for member in members if member.sidecar is not None} - {None}
    if len(shas) > 1:
        notes.append(f"the {split} members come from {len(shas)} different fold assignments")
    one_assignment = len(shas) == 1 and all(m.sidecar is not None and m.sidecar.folds_sha for m in members)
    counts = [run.models(0, len(table)) for run in runs]
    full = AlignedSplit(
        name=split,
        rows=rows,
        classes=classes,
        runs=tuple(replace(run, rows=int((count > 0).sum())) for run, count in zip(runs, counts, strict=True)),
        target=target,
        class_attributes={name: meaning[name] for name in classes if name in meaning} if target == "label" else {},
        fold=_agreed_fold(runs),
        folds_sha=shas.pop() if one_assignment else None,
        table_rows=len(table),
    )
    covered = sum(counts, np.zeros(len(table), np.int64)) > 0
    return full if covered.all() else full.take(np.flatnonzero(covered)), notes


def _joined_runs(
    split: str,
    groups: Mapping[str, Sequence[Member]],
    table: Table,
    classes: tuple[str, ...],
    meaning: Mapping[str, Mapping[str, str]],
) -> tuple[list[JointRun], list[str]]:
    """Return the runs of attributes, joined to the classes of the label, and notes on them."""
    factors, notes = {}, []
    for attribute, inside in groups.items():
        values, given = class_order(inside, None)
        runs, said = _runs(split, inside, table, values, given)
        factors[attribute] = (values, runs)
        notes += said
    joined = join_attributes(factors, classes, meaning)
    for run in joined:
        notes.append(
            f"{run.name} ({split}): {', '.join(run.factor_names)}, joined by {', '.join(factors)} to the {len(classes)} classes"
        )
    return joined, notes


def _meanings(members: Sequence[Member]) -> dict[str, Mapping[str, str]]:
    meaning: dict[str, Mapping[str, str]] = {}
    for member in members:
        if member.sidecar is not None:
            for name, values in member.sidecar.class_attributes.items():
                meaning.setdefault(name, values)
    return meaning


def _runs(
    split: str, members: Sequence[Member], table: Table, classes: tuple[str, ...], order: tuple[str, ...]
) -> tuple[list[RunPredictions], list[str]]:
    """Return the members put together by run, and notes on them."""
    by_run: dict[str, list[Member]] = {}
    for member in members:
        by_run.setdefault(member.run, []).append(member)
    runs, notes = [], []
    for name, files in by_run.items():
        check_one_of_each(split, name, files)
        parts, said = prefer_views(
            split, name, [_part(split, member, table, classes, order) for member in files], len(table)
        )
        # In the order of the folds, whatever the order of the files: sums are then the same to the bit.
        parts.sort(key=lambda part: (model_of(part.member), part.member.sha))
        folds = {fold for part in parts if part.fold is not None for fold in folds_of(part.fold)}
        runs.append(RunPredictions(name, tuple(parts), len(classes), tuple(sorted(folds))))
        notes += said
    return runs, notes


def _part(split: str, member: Member, table: Table, classes: tuple[str, ...], order: tuple[str, ...]) -> AlignedFile:
    rows = None
    located = None if member.rows is None else table.locate(member.rows.ids)
    if located is not None:
        rows = np.full(len(table), -1, np.int64)
        rows[located] = np.arange(len(located))
    if member.answers is not None:
        code = {name: i for i, name in enumerate(classes)}
        return AlignedFile(
            member, rows, answers=np.array([code[name] for name in member.answers.tolist()], dtype=np.int64)
        )
    theirs = order if member.sidecar is None else member.sidecar.classes
    columns = None if theirs == classes else np.array([theirs.index(name) for name in classes], dtype=np.int64)
    stated = None if member.sidecar is None else member.sidecar.fold
    if stated is None or (split == "test" and not isinstance(stated, np.ndarray)):
        return AlignedFile(member, rows, columns, fold=stated)
    each = np.broadcast_to(stated, len(member)).astype(np.int64)  # out of fold there may be one file a fold
    return AlignedFile(member, rows, columns, fold=each if rows is None else np.where(rows >= 0, each[rows], -1))


def _agreed_fold(runs: Sequence[RunPredictions]) -> NDArray[np.int64] | None:
    """(n,) the fold of each sample, −1 where unknown; None where members disagree or none says."""
    agreed: NDArray[np.int64] | None = None
    for part in (part for run in runs for part in run.parts):
        if not isinstance(part.fold, np.ndarray):
            continue
        if agreed is None:
            agreed = part.fold.copy()
            continue
        both = (agreed >= 0) & (part.fold >= 0)
        if (agreed[both] != part.fold[both]).any():
            return None
        agreed = np.where(agreed >= 0, agreed, part.fold)
    return agreed


def _rows_of(
    table: Table, members: Sequence[Member], labels: HardLabels | None, target: str, classes: Sequence[str]
) -> tuple[SampleRows, list[str]]:
    """Return what is known of the samples of a table, labels and persons from the members or from `labels`, which comes first; and notes."""
    distinct: dict[int, Member] = {}
    for member in members:
        # A member of the label comes before one of an attribute that has the same rows.
        if member.sidecar is not None and (id(member.rows) not in distinct or member.target == target):
            distinct[id(member.rows)] = member
    sources = [(member, member.rows) for member in distinct.values() if member.rows is not None]
    truth, conflict = _merged(table, [(member, rows, _labels_of(member, target, classes)) for member, rows in sources])
    if conflict is not None and labels is None:
        hint = "give the right ones with `labels=FILE.csv`, or blend the runs of one table with `runs`"
        raise EnsembleError(f"different labels: {conflict}", hint=hint)
    persons, conflict = _merged(table, [(member, rows, rows.persons) for member, rows in sources])
    notes = [] if conflict is None else [f"different persons: {conflict}; the first file's are used"]
    names = dict.fromkeys(name for _, rows in sources for name in rows.attributes)
    merged = {
        name: _merged(table, [(one, rows, rows.attributes.get(name)) for one, rows in sources])[0] for name in names
    }
    attributes = {name: values for name, values in merged.items() if values is not None}
    index = None if labels is None else _position_of_labels(table, labels)
    if labels is not None and index is not None:
        given = labels.labels[index]
        changed = 0 if truth is None else int((truth != given).sum())
        if changed:
            notes.append(
                f"{changed:,} labels in {labels.path} differ from those beside the predictions; {labels.path} is used"
            )
        truth, persons = given, persons if labels.persons is None else labels.persons[index]
    return SampleRows(table.ids, truth, persons, attributes), notes


def _position_of_labels(table: Table, labels: HardLabels) -> NDArray[np.int64] | None:
    """Return (n,) the row of `labels` of each sample; None where it lacks one."""
    index = Table(labels.ids).locate(table.ids)
    index = np.arange(len(table)) if index is None else index
    return index if (index >= 0).all() else None


def _labels_of(member: Member, target: str, classes: Sequence[str]) -> NDArray[np.str_] | None:
    assert member.rows is not None  # noqa: S101
    if target == "label" and member.target == "label":
        return member.rows.labels
    # Beside the prediction of an attribute, the label may be that of the attribute or of the whole.
    values = member.rows.attributes.get(target, member.rows.labels)
    return values if values is not None and set(values.tolist()) <= {*classes, ""} else None


def _merged(
    table: Table, columns: Sequence[tuple[Member, SampleRows, NDArray[np.str_] | None]]
) -> tuple[NDArray[np.str_] | None, str | None]:
    """One column in the table's order ("" where nobody knows), and where two files contradict each other."""
    merged: NDArray[np.str_] | None = None
    first: Member | None = None
    conflict = None
    for member, rows, values in columns:
        if values is None:
            continue
        index = table.locate(rows.ids)
        spread = values
        if index is not None:
            spread = np.full(len(table), "", dtype=values.dtype)
            spread[index] = values
        if merged is None or first is None:
            merged, first = spread, member
            continue
        differing = np.flatnonzero((merged != "") & (spread != "") & (merged != spread))
        if len(differing) and conflict is None:
            row = differing[0]
            example = printable(f"'{table.ids[row]}': {merged[row]} and {spread[row]}")
            conflict = f"{first.path} and {member.path} differ for {len(differing):,} ids, e.g. {example}"
        merged = np.where(merged != "", merged, spread)
    return merged, conflict


def _absent_rows(splits: Mapping[str, AlignedSplit]) -> list[str]:
    notes = []
    for split in splits.values():
        if len(split) < split.table_rows:
            notes.append(
                f"{split.table_rows - len(split):,} of {split.table_rows:,} {split.name} samples have no prediction yet and are absent"
            )
        partial = [f"{run.name} has {run.rows:,}" for run in split.runs if run.rows < len(split)]
        if partial:
            notes.append(
                f"not every run has all {len(split):,} {split.name} samples ({', '.join(partial)}): the others share its vote where it is absent"
            )
    return notes


def _absent_folds(splits: Mapping[str, AlignedSplit]) -> list[str]:
    everywhere: dict[str, set[int]] = {}
    for split in splits.values():
        for run in split.runs:
            everywhere.setdefault(_assignment(run), set()).update(run.folds)
    notes = []
    for split in splits.values():
        lacking: dict[tuple[int, ...], list[RunPredictions]] = {}
        for run in split.runs:
            missing = sorted(everywhere[_assignment(run)] - set(run.folds)) if run.folds else []
            if missing:
                lacking.setdefault(tuple(missing), []).append(run)
        for folds, runs in lacking.items():
            there = f": averaged over the {len(runs[0].folds)} there are" if split.name == "test" else ""
            names = ", ".join(run.name for run in runs)
            lack = "lacks" if len(runs) == 1 else "lack"
            notes.append(
                f"{names} ({split.name}) {lack} fold{'s' if len(folds) > 1 else ''} {', '.join(map(str, folds))}{there}"
            )
    return notes


def _assignment(run: RunPredictions) -> str:
    """What tells which folds a run could have: its fold assignment, otherwise its own name."""
    sidecar = run.parts[0].member.sidecar
    return (sidecar.folds_sha if sidecar is not None else None) or run.name
