"""Align members into splits and runs: rows and class columns are matched by name, never by position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ensemble.alignment.attributes import JointRun, join_attributes, label_classes
from ensemble.alignment.classes import class_order, grades_of
from ensemble.alignment.completeness import absent_folds_notes, absent_rows_notes
from ensemble.alignment.coverage import Table, tables_of
from ensemble.alignment.label_columns import check_same_columns, name_label_columns
from ensemble.alignment.naming import name_columns
from ensemble.alignment.placement import RowOrder, order_notes, place_members
from ensemble.alignment.positive import positive_class, task_of
from ensemble.alignment.precedence import check_one_of_each, folds_of, model_of, prefer_views
from ensemble.alignment.split import AlignedFile, AlignedSplit, RunPredictions
from ensemble.members.reading import Member
from ensemble.members.true_labels import TrueLabels
from folds.errors import EnsembleError, printable
from folds.metrics.classification import Metric
from folds.metrics.task_names import ORDINAL
from folds.predictions.files import LABEL, SampleRows


@dataclass(frozen=True)
class Alignment:
    """Aligned members.

    Attributes
    ----------
    splits : split name → `AlignedSplit`, ``oof`` first.
    notes : remarks for the reader: what was not checked, what is absent.
    members : the members with the classes of their columns, as they were aligned.
    order : source of an array without ids → the file whose row order it was given, "" for numbered rows.
    placed : source of a member → split.
    assumed : sources of arrays whose order of columns was assumed.
    """

    splits: Mapping[str, AlignedSplit]
    notes: Sequence[str] = ()
    members: Sequence[Member] = ()
    order: Mapping[str, str] = field(default_factory=dict)
    placed: Mapping[str, str] = field(default_factory=dict)
    assumed: frozenset[str] = frozenset()


def align(
    members: Sequence[Member],
    labels: TrueLabels | None = None,
    classes: Sequence[str] | None = None,
    orders: Sequence[RowOrder] = (),
    positive: str | None = None,
    metric: Metric | None = None,
    order: Sequence[str] | None = None,
    task: str | None = None,
) -> Alignment:
    """Return the members aligned by id and by class; all splits have the same order of columns.

    Parameters
    ----------
    members : checked members (`ensemble.members.reading.read_members`).
    labels : true labels by id; they take precedence over the labels in the members' files.
    classes : classes of the columns of arrays that do not name them, in order.
    orders : ids in files that the user named for the row order of arrays without ids.
    positive : the positive one of two classes, which is the last column; by default the one that the members state.
    metric : the metric of the scores; if it is of a positive class, that class is guessed where nothing states it.
    order : the classes in the order that the columns of the splits get, of results that are there already; it counts if
        the members have these classes.
    task : the task of these results; by default the one that the members state.

    Raises
    ------
    EnsembleError : different samples, different classes, unknown labels, or two files for the same predictions.
    """
    has_columns = any(member.has_columns for member in members)
    named = (name_label_columns if has_columns else name_columns)(members, labels, classes)
    members, labels = named.members, named.labels
    tables = tables_of(members)
    id_tables = dict(tables)
    placed = place_members(members, tables, labels, orders)
    notes = [*order_notes(members, placed, named.assumed), *named.notes]
    if labels is not None and id_tables:
        _check_labels_fit(labels, id_tables)
    of_positive = metric is not None and metric.of_positive
    chosen = None if has_columns else positive_class(members, positive, of_positive, classes)
    if chosen is not None and metric is not None and metric.of_positive:
        notes.append(f"{metric.title} is that of class {chosen.name}: {chosen.reason}")
    last = None if chosen is None else chosen.name
    known = order or _shared_order(list(placed.members.values()), has_columns)
    task = ORDINAL if task is None and order is None and known and not has_columns else task
    splits = {}
    for split, split_members in placed.members.items():
        splits[split], more_notes = _align_split(
            split, tables[split], split_members, labels, classes, last, known, task
        )
        notes += more_notes
    notes += [*absent_rows_notes(splits), *absent_folds_notes(splits)]
    return Alignment(splits, tuple(notes), members, placed.order, placed.splits, named.assumed)


def _shared_order(splits: Sequence[Sequence[Member]], has_columns: bool) -> tuple[str, ...] | None:
    """Return the order of the columns of all splits, where the names of the classes do not tell it.

    It is that of the first member with a column for each label or number, or the one of grades. What is fitted to the
    columns of one split is applied to those of another, whatever the order in their files.

    Raises
    ------
    EnsembleError : members have other labels, numbers or orders of grades.
    """
    everyone = [one for members in splits for one in members]
    if has_columns:
        return check_same_columns(everyone)
    return grades_of([one for one in everyone if one.target == LABEL])


def _check_labels_fit(labels: TrueLabels, tables: Mapping[str, Table]) -> None:
    ids = set(labels.ids.tolist())
    missing = {split: [name for name in table.ids.tolist() if name not in ids] for split, table in tables.items()}
    if all(missing.values()):
        lines = [
            f"{split}: {len(names):,} of {len(tables[split]):,} ids are missing, e.g. '{names[0]}'"
            for split, names in missing.items()
        ]
        raise EnsembleError(
            f"{labels.path}: expected a label for each sample of a split, but every split has ids without one",
            hint="write one row (id, label) for each sample",
            details=lines,
        )


def _align_split(
    split: str,
    table: Table,
    members: Sequence[Member],
    labels: TrueLabels | None,
    stated: Sequence[str] | None = None,
    positive: str | None = None,
    order: Sequence[str] | None = None,
    task: str | None = None,
) -> tuple[AlignedSplit, list[str]]:
    """Return the split, and notes on it; see `align`."""
    targets = list(dict.fromkeys(member.target for member in members))
    target = targets[0] if len(targets) == 1 else "label"
    if target != LABEL:  # the known order is that of the classes of the label
        order = task = None
    class_attributes = _class_attributes_of(members)
    groups = {name: [member for member in members if member.target == name] for name in targets}
    own_members = groups.pop(target, [])
    if own_members and own_members[0].has_columns:
        classes = check_same_columns(own_members, order)
    else:
        classes = (
            class_order(own_members, labels, stated, positive, order)
            if own_members
            else label_classes(targets, class_attributes)
        )
    runs, notes = _runs(split, own_members, table, classes)
    if groups:
        joined, more_notes = _joined_runs(split, groups, table, classes, class_attributes)
        runs, notes = [*runs, *joined], notes + more_notes
    rows, more_notes = _rows_of(table, members, labels, target, classes)
    notes += more_notes
    shas = {member.sidecar.folds_sha for member in members if member.sidecar is not None} - {None}
    if len(shas) > 1:
        notes.append(f"the {split} members come from {len(shas)} different fold assignments")
    one_assignment = len(shas) == 1 and all(m.sidecar is not None and m.sidecar.folds_sha for m in members)
    present = [run.present(0, len(table)) for run in runs]
    counts = [len(table) if has is None else int(has.sum()) for has in present]
    full = AlignedSplit(
        name=split,
        rows=rows,
        classes=classes,
        runs=tuple(replace(run, rows=count) for run, count in zip(runs, counts, strict=True)),
        target=target,
        class_attributes={name: class_attributes[name] for name in classes if name in class_attributes}
        if target == "label"
        else {},
        fold=_agreed_fold(runs),
        folds_sha=shas.pop() if one_assignment else None,
        table_rows=len(table),
        numbered=table.numbered,
        task=task or task_of([member for member in members if member.target == target]),
    )
    covered = np.zeros(len(table), bool)
    for has in present:
        covered |= True if has is None else has
    return full if covered.all() else full.take(np.flatnonzero(covered)), notes


def _joined_runs(
    split: str,
    groups: Mapping[str, Sequence[Member]],
    table: Table,
    classes: tuple[str, ...],
    class_attributes: Mapping[str, Mapping[str, str]],
) -> tuple[list[JointRun], list[str]]:
    """Return the attribute runs joined to the classes of the label, and notes."""
    factors, notes = {}, []
    for attribute, split_members in groups.items():
        values = class_order(split_members, None)
        runs, more_notes = _runs(split, split_members, table, values)
        factors[attribute] = (values, runs)
        notes += more_notes
    joined = join_attributes(factors, classes, class_attributes)
    for run in joined:
        notes.append(
            f"{run.name} ({split}): {', '.join(run.factor_names)} joined by {', '.join(factors)} "
            f"to the {len(classes)} classes"
        )
    return joined, notes


def _class_attributes_of(members: Sequence[Member]) -> dict[str, Mapping[str, str]]:
    class_attributes: dict[str, Mapping[str, str]] = {}
    for member in members:
        if member.sidecar is not None:
            for name, values in member.sidecar.class_attributes.items():
                class_attributes.setdefault(name, values)
    return class_attributes


def _runs(
    split: str, members: Sequence[Member], table: Table, classes: tuple[str, ...]
) -> tuple[list[RunPredictions], list[str]]:
    """Return the runs of the members, and notes."""
    by_run: dict[str, list[Member]] = {}
    for member in members:
        by_run.setdefault(member.run, []).append(member)
    runs, notes = [], []
    for name, files in by_run.items():
        check_one_of_each(split, name, files)
        parts, more_notes = prefer_views(
            split, name, [_part(split, member, table, classes) for member in files], len(table)
        )
        # Sorted by fold, independent of the order of the files, so that sums are bit-identical.
        parts.sort(key=lambda part: (model_of(part.member), part.member.sha))
        folds = {fold for part in parts if part.fold is not None for fold in folds_of(part.fold)}
        runs.append(RunPredictions(name, tuple(parts), len(classes), tuple(sorted(folds))))
        notes += more_notes
    return runs, notes


def _part(split: str, member: Member, table: Table, classes: tuple[str, ...]) -> AlignedFile:
    rows = None
    located = None if member.rows is None else table.locate(member.rows.ids)
    if located is not None:
        rows = np.full(len(table), -1, np.int64)
        rows[located] = np.arange(len(located))
    answers = columns = None
    if member.answers is not None:
        code = {name: i for i, name in enumerate(classes)}
        answers = np.array([code[name] for name in member.answers.tolist()], dtype=np.int64)
    elif member.classes != classes:
        columns = np.array([member.classes.index(name) for name in classes], dtype=np.int64)
    fold = member.fold
    if fold is None or (split == "test" and not isinstance(fold, np.ndarray)):
        known = fold.astype(np.int64) if isinstance(fold, np.ndarray) else fold
        return AlignedFile(member, rows, columns, answers, known)
    # Out-of-fold files may have one fold each. An array stays the same object: many runs share one.
    whole = fold if isinstance(fold, np.ndarray) else np.broadcast_to(fold, len(member))
    folds_of_rows = whole.astype(np.int64, copy=False)
    aligned = folds_of_rows if rows is None else np.where(rows >= 0, folds_of_rows[rows], -1)
    return AlignedFile(member, rows, columns, answers, aligned)


def _agreed_fold(runs: Sequence[RunPredictions]) -> NDArray[np.int64] | None:
    """Return (n,) the fold of each sample, −1 if unknown; None if members disagree or no member has folds."""
    agreed: NDArray[np.int64] | None = None
    distinct = {id(part.fold): part for run in runs for part in run.parts}
    for part in distinct.values():
        if not isinstance(part.fold, np.ndarray):
            continue
        if agreed is None:
            agreed = part.fold.copy()
            continue
        known_in_both = (agreed >= 0) & (part.fold >= 0)
        if (agreed[known_in_both] != part.fold[known_in_both]).any():
            return None
        agreed = np.where(agreed >= 0, agreed, part.fold)
    return agreed


def _rows_of(
    table: Table, members: Sequence[Member], labels: TrueLabels | None, target: str, classes: Sequence[str]
) -> tuple[SampleRows, list[str]]:
    """Return the rows of a table with labels, persons and attributes, and notes; `labels` takes precedence."""
    distinct: dict[int, Member] = {}
    for member in members:
        # If a member of the label and one of an attribute share rows, the former is used.
        if member.rows is not None and (id(member.rows) not in distinct or member.target == target):
            distinct[id(member.rows)] = member
    sources = [(member, member.rows) for member in distinct.values() if member.rows is not None]
    truth, conflict = _merged(table, [(member, rows, _labels_of(member, target, classes)) for member, rows in sources])
    if conflict is not None and labels is None:
        hint = "pass the right labels with `labels=FILE.csv`, or select the runs of one table with `runs`"
        raise EnsembleError(f"different labels: {conflict}", hint=hint)
    persons, conflict = _merged(table, [(member, rows, rows.persons) for member, rows in sources])
    notes = [] if conflict is None else [f"different persons: {conflict}; the persons of the first file are used"]
    names = dict.fromkeys(name for _, rows in sources for name in rows.attributes)
    merged = {
        name: _merged(table, [(one, rows, rows.attributes.get(name)) for one, rows in sources])[0] for name in names
    }
    attributes = {name: values for name, values in merged.items() if values is not None}
    # Numbered rows have no ids: they match labels only if these gave them their ids.
    index = None if labels is None or table.numbered else _position_of_labels(table, labels)
    if labels is not None and index is not None:
        new_labels = labels.labels[index]
        changed = 0 if truth is None else int((truth != new_labels).sum())
        if changed:
            notes.append(
                f"{changed:,} labels in {labels.path} differ from the labels of the members; {labels.path} is used"
            )
        truth, persons = new_labels, persons if labels.persons is None else labels.persons[index]
    return SampleRows(table.ids, truth, persons, attributes), notes


def _position_of_labels(table: Table, labels: TrueLabels) -> NDArray[np.int64] | None:
    """Return (n,) the row in `labels` of each sample; None if a sample has no row."""
    index = Table(labels.ids).locate(table.ids)
    index = np.arange(len(table)) if index is None else index
    return index if (index >= 0).all() else None


def _labels_of(member: Member, target: str, classes: Sequence[str]) -> NDArray[np.str_] | None:
    assert member.rows is not None  # noqa: S101
    if target == "label" and member.target == "label":
        return member.rows.labels
    # In the file of an attribute's predictions, labels may be values of the attribute or classes of the label.
    values = member.rows.attributes.get(target, member.rows.labels)
    return values if values is not None and set(values.tolist()) <= {*classes, ""} else None


def _merged(
    table: Table, columns: Sequence[tuple[Member, SampleRows, NDArray[np.str_] | None]]
) -> tuple[NDArray[np.str_] | None, str | None]:
    """Return a column in the table's order ("" if unknown), and a text on the first contradiction between two files."""
    merged: NDArray[np.str_] | None = None
    first: Member | None = None
    conflict = None
    for member, rows, values in columns:
        if values is None:
            continue
        index = table.locate(rows.ids)
        aligned = values
        if index is not None:
            aligned = np.full(len(table), "", dtype=values.dtype)
            aligned[index] = values
        if merged is None or first is None:
            merged, first = aligned, member
            continue
        differing = np.flatnonzero((merged != "") & (aligned != "") & (merged != aligned))
        if len(differing) and conflict is None:
            row = differing[0]
            example = printable(f"'{table.ids[row]}': {merged[row]} and {aligned[row]}")
            conflict = f"{first.path} and {member.path} differ for {len(differing):,} ids, e.g. {example}"
        merged = np.where(merged != "", merged, aligned)
    return merged, conflict
