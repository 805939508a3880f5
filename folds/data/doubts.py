"""Find what is doubtful about persons and labels: spellings of one name, missing values, one giant person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from folds.data.raw_columns import MISSING, RawColumns
from folds.data.table import SampleTable
from folds.errors import combine_errors
from folds.utils.numeric import factorize
from folds.utils.spelling import (
    is_placeholder,
    merged_note,
    merged_spellings,
    some_texts,
    spelling_key,
    spelling_text,
    spelling_warning,
)

# Texts that programs write for a missing label. Others, such as "unknown" or "-1", are names of classes, too.
_NO_LABEL = frozenset({"#n/a", "#na", "<na>", "nat"})
# A person with more than this share of the images, and this many times the mean of all people, is reported.
_LARGE_SHARE, _LARGE_RATIO = 0.2, 4


def prepare_persons(columns: RawColumns, missing_persons: str | None, merge: bool) -> None:
    """Resolve missing persons and, with `merge`, spellings of one person, in place; what is done is added to the notes.

    Raises
    ------
    EnsembleError : persons are missing.
    """
    _fill_persons(columns, missing_persons)
    if merge:
        _merge_persons(columns)


def prepare_names(
    columns: RawColumns, missing_persons: str | None, merge: bool, classes: Sequence[str] | None = None
) -> None:
    """Resolve missing persons and, with `merge`, spellings of one name, in place; what is done is added to the notes.

    Parameters
    ----------
    missing_persons : as in `DataSpec`.
    classes : classes of the training, to whose spelling labels are merged.

    Raises
    ------
    EnsembleError : persons or labels are missing.
    """
    if columns.labels is not None and not columns.names:
        _check_labels(columns.labels, columns)
    _fill_persons(columns, missing_persons)
    if not merge:
        return
    if columns.labels is not None and not columns.names:
        columns.labels = _merge(columns.labels, "class", "classes", columns, classes)
    _merge_persons(columns)


def _check_labels(labels: list[str], columns: RawColumns) -> None:
    found = {name for name in set(labels) if is_no_label(name)}
    if found:
        rows = [i for i, name in enumerate(labels) if name in found]
        counts = ", ".join(f"'{name}' ({labels.count(name):,})" for name in sorted(found))
        raise combine_errors(
            [f"{columns.locations[i]}: '{labels[i]}' (id {columns.ids[i]})" for i in rows],
            f"of {len(labels):,} rows of {columns.source} have no label: {counts} mark a missing value",
            "fill in the label or remove the rows; a class of this name needs another name",
        )


def is_no_label(name: str) -> bool:
    """Return whether a program wrote this text for a missing label."""
    key = spelling_key(name)
    return key in _NO_LABEL or (key in MISSING and not name.isascii())  # "nan" with an invisible character


def _fill_persons(columns: RawColumns, missing_persons: str | None) -> None:
    """Give each image without a person one of its own, if that is asked for; a note says of how many."""
    persons = columns.persons
    if persons is None:
        return
    found = {
        name
        for name in set(persons)
        if is_placeholder(name) or (not name.isascii() and is_placeholder(spelling_key(name)))
    }
    if missing_persons == "keep":
        found &= MISSING
    if not found:
        return
    rows = [i for i, name in enumerate(persons) if name in found]
    counts = ", ".join(f"'{name}' ({count:,})" for name, count in Counter(persons).most_common() if name in found)
    if missing_persons != "own":
        plain = found <= MISSING
        raise combine_errors(
            [f"{columns.locations[i]}: '{persons[i]}' (id {columns.ids[i]})" for i in rows],
            f"of {len(persons):,} rows of {columns.source} have no person"
            + ("" if plain else f": {counts} stand for a missing value"),
            "name the person (group) of every image; `missing_persons=own` makes each image whose person is unknown "
            "its own person" + ("" if plain else ", `missing_persons=keep` keeps these names as persons"),
        )
    known, filled = set(persons) - found, list(persons)
    for i in rows:
        name = columns.ids[i]
        filled[i] = name if name not in known else f"{name} (its own person)"
    columns.notes.append(
        f"{len(rows):,} of {len(persons):,} images of {columns.source} have no person ({counts}): each is its own "
        "person"
    )
    columns.persons = filled


def _merge_persons(columns: RawColumns) -> None:
    if columns.persons is not None:
        columns.persons = _merge(columns.persons, "person", "people", columns)


def _merge(
    names: list[str], one: str, many: str, columns: RawColumns, declared: Sequence[str] | None = None
) -> list[str]:
    """Return the names with each spelling replaced by the most frequent one (or by the one that is declared)."""
    target = merged_spellings(Counter(names), declared)
    if not target:
        return names
    columns.notes.append(merged_note(target, columns.source, one, many))
    return [target.get(name, name) for name in names]


def name_warnings(table: SampleTable) -> list[str]:
    """Return warnings about the persons and labels of a table: names in several spellings, one giant person."""
    found = []
    if table.persons is not None:
        names, codes = table.factorized_persons
        counts = dict(zip(names, np.bincount(codes, minlength=len(names)).tolist(), strict=True))
        found += spelling_warning(
            counts,
            table.source,
            "person is",
            "people are",
            "each spelling is a person of its own, and can be in another fold",
        )
        found += _large_person(counts, table.source)
    if table.labels is not None and not table.has_columns:
        labels, of_row = factorize(table.labels)
        found += spelling_warning(
            dict(zip(labels, np.bincount(of_row, minlength=len(labels)).tolist(), strict=True)),
            table.source,
            "class is",
            "classes are",
            "each spelling is a class of its own",
        )
    return found


def _large_person(counts: Mapping[str, int], source: str) -> list[str]:
    total, (name, most) = sum(counts.values()), max(counts.items(), key=lambda pair: pair[1])
    if most <= _LARGE_SHARE * total or most * len(counts) <= _LARGE_RATIO * total:
        return []
    return [
        f"person '{name}' has {most:,} of the {total:,} images of {source} ({most / total:.0%}), and all of them are "
        "in one fold: does this name stand for images whose person is unknown?"
    ]


def spelled_leaks(train: Sequence[str], test: Sequence[str]) -> list[str]:
    """Return a warning if people of training and test have the same name in different spellings."""
    known = {spelling_key(name): name for name in train}
    pairs = [
        (known[spelling_key(name)], name)
        for name in test
        if spelling_key(name) in known and known[spelling_key(name)] != name
    ]
    if not pairs:
        return []
    return [
        f"{len(pairs):,} people may appear in both training and test, in different spellings: "
        f"{some_texts(map(spelling_text, pairs))}: test scores would be optimistic"
    ]
