"""Make the rows of a report people: which rule pools their images, the images of each, and the table of the people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.alignment.split import AlignedSplit
from ensemble.analysis.mistakes import quantile_groups
from ensemble.learning.further_columns import numbers_of, parse_columns
from ensemble.pooling.bags import bags_of
from ensemble.pooling.people import people_rows
from ensemble.pooling.spec import FIXED, MEAN, parse_pool
from ensemble.report.evidence.blend_files import read_record
from ensemble.report.evidence.evidence import Evidence, Part, Pooled, TableRecord
from ensemble.report.evidence.groups import Group
from ensemble.report.evidence.image_table import label_codes
from ensemble.report.evidence.inputs import ReportInputs
from ensemble.report.evidence.mistakes_data import MAX_VALUES
from ensemble.report.page.thumbnails import TOGETHER
from ensemble.voting.vote import vote
from folds.errors import UsageError
from folds.metrics.task_names import REGRESSION
from folds.predictions.rows import SampleRows
from folds.utils.text import counted

SIZES = "images of the person"  # a column of the table of people
MAX_LISTED = 12  # images whose predictions are written out
_BOUNDS = ((1, "1"), (2, "2"), (5, "3 to 5"), (10, "6 to 10"), (None, "11 or more"))


def rule_of(record: Mapping[str, Any]) -> str | None:
    """Return the rule of ``--pool`` that blend.json records; None for a blend of images."""
    rule = record.get("pool")
    return rule if isinstance(rule, str) and rule else None


def reading_rule(inputs: ReportInputs) -> str | None:
    """Return the rule by which the runs are pooled for the rows of the page; None if its rows are images.

    It is that of the blends if they have one rule that fits nothing, else the mean, as in the tables of `blend`.

    Raises
    ------
    UsageError : some of the blends are for people and others for images; a blend records no rule that is known.
    """
    rules = {folder.name: rule_of(read_record(folder)) for folder in inputs.blends}
    pooled = [name for name, rule in rules.items() if rule is not None]
    if not pooled:
        return None
    of_images = next((name for name, rule in rules.items() if rule is None), None)
    if of_images is not None:
        raise UsageError(
            f"{pooled[0]} is a blend for people and {of_images} is one for images, and a page has rows of one kind",
            hint="make a page of each",
        )
    found = {parse_pool(rule).text for rule in rules.values() if rule is not None}
    only = parse_pool(found.pop())
    return only.text if not found and only.name in FIXED else MEAN


def check_same_labels(groups: Sequence[Group]) -> None:
    """Raise UsageError if blends give the people of a split different labels, as rules with mixed images do."""
    for split in ("oof", "test"):
        known: dict[str, tuple[str, str]] = {}
        for group in groups:
            found = group.splits.get(split)
            rows = None if found is None or found.has_columns else found.rows
            if rows is None or rows.labels is None:
                continue
            for person, label in zip(rows.ids.tolist(), rows.labels.tolist(), strict=True):
                other, given = known.setdefault(person, (group.name or "the runs", label))
                if label and given and label != given:
                    raise UsageError(
                        f"{other} and {group.name} label people differently, e.g. {person}: {given} and {label}",
                        hint="their rules of `pool` ask different questions: make a page of each",
                    )


def image_parts(splits: Mapping[str, AlignedSplit]) -> dict[str, Part]:
    """Return split → its images with labels and people, without members."""
    found = {}
    for name, split in splits.items():
        labels = label_codes(split.rows.labels, len(split), split.classes, split.task)
        fold = split.fold.astype(np.int64) if split.fold is not None and name == "oof" else None
        persons = split.rows.ids if split.rows.persons is None else split.rows.persons
        fold = fold if fold is not None and (fold >= 0).all() else None
        found[name] = Part("oof" if name == "oof" else "test", split.rows.ids, labels, persons, fold, ())
    return found


def pooled_of(groups: Sequence[Group], chosen: Group | None) -> Pooled:
    """Return how images became the rows of a page.

    Parameters
    ----------
    chosen : the blend that the page is about; None if there is none.
    """
    record: Mapping[str, Any] = {} if chosen is None or chosen.record is None else chosen.record
    combination = record.get("combination")
    made = combination.get("pooling") if isinstance(combination, Mapping) else None
    given = parse_pool(rule_of(record) or MEAN)
    rule = str(made.get("rule")) if isinstance(made, Mapping) and given.is_fitted else given.text
    own = next((group.aligned for group in groups if group.aligned is not None and group.aligned.images), None)
    images: Mapping[str, AlignedSplit] = {} if own is None else own.images
    values = {name: vote(split).probabilities for name, split in images.items()}
    return Pooled(
        rule if given.damping is None else given.text,
        rule_of(record) == "auto",
        image_parts(images),
        values,
        None if chosen is None else chosen.aligned,
    )


def persons_of_images(pooled: Pooled) -> dict[str, str]:
    """Return id of an image → its person."""
    return {
        sample: person
        for part in pooled.images.values()
        for sample, person in zip(part.ids.tolist(), part.persons.tolist(), strict=True)
    }


def images_of_people(pooled: Pooled, table: TableRecord | None) -> dict[str, tuple[str, ...]]:
    """Return person → the ids of the images: those that were pooled, or those of the table if they are not known."""
    if pooled.images or table is None:
        return pooled.images_of
    found: dict[str, list[str]] = {}
    for person, sample in zip(table.persons.tolist(), table.ids.tolist(), strict=True):
        found.setdefault(person, []).append(sample)
    return {person: tuple(ids) for person, ids in found.items()}


def people_table(table: TableRecord, extra: Sequence[str] = ()) -> TableRecord:
    """Return the table with one row per person: means of numbers and of what was measured in the images, the most
    frequent text of other columns, and the number of images.

    Parameters
    ----------
    extra : columns that a blend uses beside the images, as in ``--with``.
    """
    rows = SampleRows(table.ids, table.labels, table.persons, dict(table.attributes))
    found = people_rows(rows, (), "table")
    names, bags = bags_of(table.persons)
    first = np.zeros(bags.people, np.int64)
    first[bags.codes[::-1]] = np.arange(len(table.ids))[::-1]

    def mean(values: NDArray[Any] | None) -> NDArray[np.float32] | None:
        if values is None:
            return None
        known = np.isfinite(values)
        total = bags.reduce(np.add, np.where(known, values, 0).astype(np.float64)[:, None])[:, 0]
        count = bags.reduce(np.add, known.astype(np.float64)[:, None])[:, 0]
        return np.divide(total, count, out=np.full(bags.people, np.nan), where=count > 0).astype(np.float32)

    attributes = dict(found.rows.attributes)
    sizes = np.array([next(text for most, text in _BOUNDS if most is None or n <= most) for n in bags.counts.tolist()])
    labels = np.full(bags.people, "") if found.rows.labels is None else found.rows.labels
    made = TableRecord(
        names, labels, names, table.test[first], attributes | {SIZES: sizes},
        brightness=mean(table.brightness), sharpness=mean(table.sharpness), of_predictions=table.of_predictions,
    )  # fmt: skip
    return in_ranges(made, extra)


def with_columns_of_blends(table: TableRecord, groups: Sequence[Group]) -> TableRecord:
    """Return the table of predictions with the columns that blends use beside the images, as the samples have them."""
    names = {name for group in groups for name, _ in parse_columns(extra_of(group.record))}
    own = [group.aligned for group in groups if group.aligned is not None]
    splits = [split for one in own for split in (one.images or one.splits).values()]
    found: dict[str, NDArray[np.str_]] = {}
    for name in sorted(names):
        cells: dict[str, str] = {}
        for split in splits:
            if name in split.rows.attributes:
                cells |= dict(zip(split.rows.ids.tolist(), split.rows.attributes[name].tolist(), strict=True))
        if cells:
            found[name] = np.array([cells.get(one, "") for one in table.ids.tolist()])
    return replace(table, attributes=dict(table.attributes) | found) if found else table


def in_ranges(table: TableRecord, names: Sequence[str]) -> TableRecord:
    """Return the table with these columns in quarters, if they are numbers with many values: ``31 to 44``."""
    attributes = dict(table.attributes)
    for name, kind in parse_columns(names):
        texts = attributes.get(name)
        values = None if texts is None or kind == "category" else numbers_of(texts)
        if values is None or texts is None or len(np.unique(values[np.isfinite(values)])) <= MAX_VALUES:
            continue
        groups, ends = quantile_groups(values)
        named = [f"{low:g} to {high:g}" for low, high in ends]
        attributes[name] = np.array([named[at] if at >= 0 else "" for at in groups.tolist()])
    return replace(table, attributes=attributes)


def extra_of(record: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return the columns that a blend uses beside the images, as in ``--with``; () if it records none."""
    options = None if record is None else record.get("options")
    extra = options.get("extra") if isinstance(options, Mapping) else None
    return tuple(one for one in extra if isinstance(one, str)) if isinstance(extra, list) else ()


def person_lines(evidence: Evidence, part: Part) -> Callable[[str, int], list[str]] | None:
    """Return (person, column) → what is known of the images: how many, and what the runs predict for each; None if the
    rows of the part are images.
    """
    pooled = evidence.pooled
    if pooled is None:
        return None
    rows, values = pooled.rows_of(part.name), pooled.values.get(part.name)

    def lines(person: str, column: int) -> list[str]:
        at = rows.get(person, [])
        if values is None or not at:
            return []
        form = "{:.2f}" if evidence.task != REGRESSION else "{:,.4g}"
        each = [form.format(float(values[row, column])) for row in at[:MAX_LISTED]]
        more = f" and {len(at) - MAX_LISTED} more" if len(at) > MAX_LISTED else ""
        shown = f", the first {TOGETHER} shown" if len(at) > TOGETHER else ""
        name = "" if evidence.task == REGRESSION and len(evidence.classes) == 1 else f" for {evidence.classes[column]}"
        return [f"{counted(len(at), 'image')}{shown}; mean of the runs{name}: {', '.join(each)}{more}"]

    return lines
