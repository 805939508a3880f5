"""Show the data of several labels or numbers: how many images and people each has, and examples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ensemble.report.data.data import EXAMPLES, PER_CLASS, common_blocks, labels_text, part_lines
from ensemble.report.evidence.evidence import Evidence, TableRecord
from ensemble.report.page.blocks import Block, Cells, Figure, Gallery, Missing, Picture, Section, Table, Text
from folds.metrics.task_names import REGRESSION
from folds.predictions.label_columns import label_matrix
from folds.utils.charts.grids import histogram
from folds.utils.text import counted

MAX_COLUMNS = 200  # of the tables
MAX_DRAWN = 6  # numbers with a histogram
BARS = 24


def data_section(evidence: Evidence) -> Section:
    """Return what the images are of, and what is noticeable about them."""
    table, lead = evidence.table, "Whom the images show, how they look, and what is noticeable."
    if table is None or not len(table.ids):
        missing = Missing("the table of the images", "`ensemble report RUN --data TABLE` names it")
        return Section("data", "Data", lead, (missing,))
    values = label_matrix(table.labels, evidence.classes, evidence.task)
    numbers = evidence.task == REGRESSION
    first = _range_text(evidence, table, values) if numbers else _rarest_text(evidence, table, values)
    blocks: list[Block] = [Text((first, *part_lines(evidence, table)))]
    blocks += _numbers(evidence, table, values) if numbers else [_labels(evidence, table, values)]
    examples = _example_numbers(evidence, table, values) if numbers else _example_labels(evidence, table, values)
    blocks += common_blocks(evidence, table, examples)
    return Section("data", "Data", lead, tuple(blocks))


def _people(table: TableRecord, rows: NDArray[np.bool_]) -> int:
    return len(np.unique(table.persons[rows]))


# Several labels


def _rarest_text(evidence: Evidence, table: TableRecord, values: NDArray[np.float64]) -> str:
    train = ~table.test
    unit = table.persons_known
    counts = [
        _people(table, train & (column == 1)) if unit else int((train & (column == 1)).sum()) for column in values.T
    ]
    noun = ("person", "people") if unit else ("image", "images")
    rare, common = int(np.argmin(counts)), int(np.argmax(counts))
    known = train & np.isfinite(values).all(axis=1)
    each = np.nansum(values, axis=1)[known]
    text = (
        f"Each image can have several of {len(evidence.classes)} labels. The rarest is {evidence.classes[rare]} with "
        f"{counted(counts[rare], *noun)} for training; the most frequent, {evidence.classes[common]}, has "
        f"{counts[common]:,}."
    )
    if len(each):
        none = float((each == 0).mean())
        text += f" An image has {each.mean():.1f} labels on average; {none:.0%} of the images have none."
    return text


def _labels(evidence: Evidence, table: TableRecord, values: NDArray[np.float64]) -> Table:
    people, with_test = table.persons_known, bool(table.test.any())
    some_unknown = bool(np.isnan(values).any())
    header = ["label", "images", "share", *(["people"] if people else []), *(["unknown"] if some_unknown else [])]
    header += ["test images", *(["test people"] if people else [])] if with_test else []
    rows: list[Cells] = []
    for name, column in list(zip(evidence.classes, values.T, strict=True))[:MAX_COLUMNS]:
        has, known = column == 1, np.isfinite(column)
        inside = has & ~table.test
        total = int((known & ~table.test).sum())
        row: Cells = [name, int(inside.sum()), f"{inside.sum() / total:.1%}" if total else None]
        row += [_people(table, inside)] if people else []
        row += [int((~known & ~table.test).sum())] if some_unknown else []
        if with_test:
            outside = has & table.test
            row += [int(outside.sum()), *([_people(table, outside)] if people else [])]
        rows.append(row)
    note = "Share: of the training images for which it is known whether they have the label."
    note += " Unknown: training images for which it is not." if some_unknown else ""
    note += f" The first {MAX_COLUMNS} of {len(evidence.classes):,} labels." if len(values.T) > MAX_COLUMNS else ""
    return Table("data-classes", "Labels: images and people with each", header, rows, 1, note)


def _example_labels(evidence: Evidence, table: TableRecord, values: NDArray[np.float64]) -> Gallery | None:
    """Return images with each label, each of another person if there are enough, drawn with a fixed seed."""
    shown = np.array([sample in evidence.paths for sample in table.ids.tolist()]) & ~table.test
    random, pictures = np.random.default_rng(0), []
    each = max(1, min(PER_CLASS, EXAMPLES // max(1, len(evidence.classes))))
    for name, column in list(zip(evidence.classes, values.T, strict=True))[:EXAMPLES]:
        rows = np.flatnonzero(shown & (column == 1))
        rows = rows[random.permutation(len(rows))]
        first = np.sort(np.unique(table.persons[rows], return_index=True)[1])
        others = np.setdiff1d(np.arange(len(rows)), first)
        pictures += [
            _picture(evidence, table, row, labels_text(str(table.labels[row])), {"label": name})
            for row in rows[np.concatenate([first, others])[:each]].tolist()
        ]
    if not pictures:
        return None
    return Gallery(
        "data-examples",
        "Examples of each label",
        tuple(pictures),
        f"At most {each} for each label, of different people where there are enough.",
        f"Examples of each label: {counted(len(pictures), 'picture')}",
    )


def _picture(evidence: Evidence, table: TableRecord, row: int, text: str, tags: dict[str, str]) -> Picture:
    sample, person = str(table.ids[row]), str(table.persons[row])
    who = [f"person {person}"] if table.persons_known and person not in sample else []
    return Picture(evidence.thumbnail(sample), sample, (text, *who), tags)


# Numbers


def _range_text(evidence: Evidence, table: TableRecord, values: NDArray[np.float64]) -> str:
    lines = []
    for name, column in list(zip(evidence.classes, values.T, strict=True))[:MAX_DRAWN]:
        known = column[np.isfinite(column) & ~table.test]
        if not len(known):
            lines.append(f"{name} is not known for any training image.")
            continue
        low, middle, high = np.quantile(known, [0.05, 0.5, 0.95])
        lines.append(
            f"{name}: half of the training images are below {middle:,.4g}, nine of ten from {low:,.4g} to {high:,.4g}."
        )
    return " ".join(lines)


def _numbers(evidence: Evidence, table: TableRecord, values: NDArray[np.float64]) -> Iterator[Block]:
    rows: list[Cells] = []
    parts = [("training", ~table.test), *([("test", table.test)] if table.test.any() else [])]
    for name, column in list(zip(evidence.classes, values.T, strict=True))[:MAX_COLUMNS]:
        for part, inside in parts:
            known = inside & np.isfinite(column)
            cells: Cells = [name, part, int(known.sum()), *([_people(table, known)] if table.persons_known else [])]
            found = column[known]
            spread = [None] * 6 if not len(found) else _spread(found)
            rows.append([*cells, *spread, int((inside & ~known).sum())])
    header = ["number", "part", "images", *(["people"] if table.persons_known else [])]
    header += ["lowest", "5%", "median", "mean", "95%", "highest", "unknown"]
    yield Table(
        "data-classes", "The numbers that are predicted", header, rows, 2, "Unknown: images without the number."
    )
    for at, name in enumerate(evidence.classes[:MAX_DRAWN]):
        figure = _histogram(name, values[:, at], parts, f"data-numbers-{at + 1}")
        if figure is not None:
            yield figure


def _spread(found: NDArray[np.float64]) -> list[str]:
    low, first, middle, last, high = np.quantile(found, [0, 0.05, 0.5, 0.95, 1])
    return [f"{value:,.4g}" for value in (low, first, middle, found.mean(), last, high)]


def _histogram(name: str, column: NDArray[np.float64], parts: Sequence[tuple[str, NDArray]], key: str) -> Figure | None:
    known = column[np.isfinite(column)]
    if not len(known) or known.min() == known.max():
        return None
    edges = np.histogram_bin_edges(known, BARS)
    counts = [np.histogram(column[inside & np.isfinite(column)], edges)[0].tolist() for _, inside in parts]
    title = f"Images by {name}"
    middle = float(np.median(known))
    text = f"{counted(len(known), 'image')} from {known.min():,.4g} to {known.max():,.4g}; the median is {middle:,.4g}."
    return Figure(key, histogram(edges.tolist(), counts, [one for one, _ in parts], title, text, name), title, text)


def _example_numbers(evidence: Evidence, table: TableRecord, values: NDArray[np.float64]) -> Gallery | None:
    """Return images from the lowest to the highest number, at equal steps of their ranks, of different people."""
    shown = np.array([sample in evidence.paths for sample in table.ids.tolist()]) & ~table.test
    pictures = []
    each = max(4, min(24, EXAMPLES // max(1, len(evidence.classes))))
    for at, name in list(enumerate(evidence.classes))[: EXAMPLES // 4]:
        rows = np.flatnonzero(shown & np.isfinite(values[:, at]))
        rows = rows[np.unique(table.persons[rows], return_index=True)[1]]
        rows = rows[np.argsort(values[rows, at], kind="stable")]
        steps = (
            sorted(set(np.linspace(0, len(rows) - 1, min(each, len(rows))).round().astype(int).tolist()))
            if len(rows)
            else []
        )
        tags = {"number": name} if len(evidence.classes) > 1 else {}
        pictures += [
            _picture(evidence, table, int(rows[one]), f"{name} {values[rows[one], at]:,.4g}", tags) for one in steps
        ]
    if not pictures:
        return None
    return Gallery(
        "data-examples",
        "Examples from the lowest to the highest number",
        tuple(pictures),
        "One image of each person, at equal steps of their order.",
        f"Examples from the lowest to the highest number: {counted(len(pictures), 'picture')}",
    )
