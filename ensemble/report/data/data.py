"""Show the data: classes by people and images, attributes, sizes, light, examples, copies, and what a split by image
would claim.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.report.evidence.evidence import Evidence, TableRecord
from ensemble.report.evidence.findings import COMPARED
from ensemble.report.evidence.image_table import people_per_class
from ensemble.report.evidence.scoring import score_of
from ensemble.report.page.blocks import Block, Gallery, Missing, Picture, Section, Table, Text
from folds.metrics.custom import metric_of
from folds.metrics.task_names import REGRESSION
from folds.predictions.label_columns import NOTHING, SEPARATOR, UNKNOWN
from folds.utils.numeric import factorize
from folds.utils.text import counted, natural_order, sort_classes

EXAMPLES = 96  # pictures of all classes
PER_CLASS = 6
EXTREMES = 6  # pictures of each kind
MAX_VALUES = 12  # values of an attribute that are counted; more are numbers, or names of images
MAX_SETS = 12  # copies that are shown
MAX_CLASSES = 200


def data_section(evidence: Evidence) -> Section:
    """Return what the images are of, and what is noticeable about them."""
    table = evidence.table
    lead = "Whom the images show, how they look, and what is noticeable."
    if table is None or not len(table.ids):
        missing = Missing("the table of the images", "`ensemble report RUN --data TABLE` names it")
        return Section("data", "Data", lead, (missing,))
    blocks: list[Block] = [Text((answer(evidence, table), *part_lines(evidence, table))), _classes(evidence, table)]
    blocks += common_blocks(evidence, table, _examples(evidence, table))
    return Section("data", "Data", lead, tuple(blocks))


def common_blocks(evidence: Evidence, table: TableRecord, examples: Gallery | None) -> list[Block]:
    """Return what is shown for every task after the counts of its classes, labels or numbers."""
    blocks: list[Block] = [*_attributes(evidence, table), *_images(table)]
    blocks += [one for one in (examples, _extremes(evidence, table), _copies(evidence, table)) if one]
    return [*blocks, *_by_image(evidence)]


def answer(evidence: Evidence, table: TableRecord) -> str:
    """Return in a sentence or two which class is rarest, and whether the test images look like those of training."""
    train = ~table.test
    counts = {name: one for name, one in people_per_class(table.labels[train], table.persons[train]).items() if name}
    lines = []
    if len(counts) > 1:
        unit = 1 if table.persons_known else 0
        names = sorted(natural_order(counts), key=lambda name: (counts[name][unit], counts[name][0]))
        noun = ("person", "people") if unit else ("image", "images")
        rare, common = names[0], names[-1]
        few, many = counts[rare][unit], counts[common][unit]
        lines.append(
            f"All classes have {counted(few, *noun)} for training."
            if few == many
            else f"The rarest class is {evidence.class_title(rare)} with {counted(few, *noun)} for training; the most "
            f"frequent, {evidence.class_title(common)}, has {many:,}."
        )
    if table.brightness is not None and table.test.any():
        means = [values[np.isfinite(values)] for values in (table.brightness[train], table.brightness[table.test])]
        if all(map(len, means)):
            first, second = (float(np.median(one)) for one in means)
            lines.append(
                f"The median brightness is {first:.0f} of 255 in training and {second:.0f} in the test images."
            )
    return " ".join(lines) or f"The table has {counted(len(table.ids), 'image')}."


def part_lines(evidence: Evidence, table: TableRecord) -> tuple[str, ...]:
    """Return how many images and people each part has, and what of them is missing."""
    train = ~table.test
    lines = [_part_text("Training", table, train)]
    if table.test.any():
        lines.append(_part_text("Test", table, table.test))
    unlabeled = int((table.labels[train] == "").sum())
    if unlabeled:
        what = "number" if evidence.task == REGRESSION else "label"
        lines.append(f"{counted(unlabeled, 'training image')} without a {what}.")
    shown = len(set(table.ids.tolist()) & set(evidence.paths))
    if evidence.paths and shown < len(table.ids):
        lines.append(f"{len(table.ids) - shown:,} image files are not where the table says, and are not shown.")
    return tuple(lines)


def _part_text(name: str, table: TableRecord, rows: NDArray[np.bool_]) -> str:
    images = int(rows.sum())
    if not table.persons_known or not images:
        return f"{name}: {counted(images, 'image')}; the people are not known."
    each = np.bincount(factorize(table.persons[rows])[1])
    spread = (
        f"{each.min()}"
        if each.min() == each.max()
        else f"{each.min()} to {each.max()}, half of them {np.median(each):g} or fewer"
    )
    return (
        f"{name}: {counted(images, 'image')} of {counted(len(each), 'person', 'people')} ({spread} images per person)."
    )


def _classes(evidence: Evidence, table: TableRecord) -> Table:
    train, test = (people_per_class(table.labels[rows], table.persons[rows]) for rows in (~table.test, table.test))
    names = [*evidence.classes, *(one for one in sort_classes([*train, *test]) if one and one not in evidence.classes)]
    meaning = evidence.class_attributes
    total = max(1, sum(images for name, (images, _) in train.items() if name))
    with_meaning, with_test = any(meaning.get(name) for name in names), any(name for name in test)
    header = [
        "class",
        *(["meaning"] if with_meaning else []),
        "images",
        "share",
        *(["people"] if table.persons_known else []),
    ]
    header += ["test images", *(["test people"] if table.persons_known else [])] if with_test else []
    rows: list[list[str | int | float | None]] = []
    for name in names[:MAX_CLASSES]:
        images, people = train.get(name, (0, 0))
        row: list[str | int | float | None] = [name]
        row += [" ".join(meaning.get(name, {}).values())] if with_meaning else []
        row += [images, f"{images / total:.1%}", *([people] if table.persons_known else [])]
        if with_test:
            row += [*test.get(name, (0, 0))][: 2 if table.persons_known else 1]
        rows.append(row)
    note = "Macro F1 counts every class alike, so a class of few people moves it most."
    note += f" The first {MAX_CLASSES} of {len(names):,} classes." if len(names) > MAX_CLASSES else ""
    return Table("data-classes", "Classes: images and people", header, rows, 2 if with_meaning else 1, note)


def _attributes(evidence: Evidence, table: TableRecord) -> Iterator[Block]:
    rows: list[list[str | int | float | None]] = []
    numbers: list[list[str | int | float | None]] = []
    train = ~table.test
    for name, values in table.attributes.items():
        if evidence.has_columns and name in evidence.classes:  # counted as what is predicted
            continue
        inside = values[train]
        known = inside[inside != ""]
        distinct = np.unique(known)
        if not len(distinct) or len(set(inside.tolist())) == 1:  # one value says nothing
            continue
        if len(distinct) <= MAX_VALUES:
            counts = people_per_class(known, table.persons[train][inside != ""])
            for value in natural_order(counts):
                images, people = counts[value]
                rows.append(
                    [name, value, images, f"{images / len(inside):.1%}", people if table.persons_known else None]
                )
            continue
        numbers += _number_rows(table, name, values)
    if rows:
        yield Table(
            "data-attributes",
            "Attributes of the training images",
            ["attribute", "value", "images", "share", "people"],
            rows,
            2,
        )
    if numbers:
        yield Table(
            "data-numbers",
            "Attributes that are numbers",
            ["attribute", "part", "lowest", "median", "highest", "distinct values", "images without"],
            numbers,
            2,
        )


def _number_rows(table: TableRecord, name: str, values: NDArray[np.str_]) -> list[list[str | int | float | None]]:
    """Return a row for each part of an attribute whose values are numbers."""
    rows: list[list[str | int | float | None]] = []
    for part, inside in (("training", values[~table.test]), ("test", values[table.test])):
        known = inside[inside != ""]
        found = _as_numbers(known)
        if found is None:
            return []
        if len(known):
            low, middle, high = np.quantile(found, [0, 0.5, 1])
            cells: list[str | int | float | None] = [f"{low:g}", f"{middle:g}", f"{high:g}", len(np.unique(known))]
        else:
            cells = [None, None, None, 0]
        if len(inside):
            rows.append([name, part, *cells, len(inside) - len(known)])
    return rows


def _as_numbers(values: NDArray[np.str_]) -> NDArray[np.float64] | None:
    try:
        found = values.astype(np.float64)
    except ValueError:
        return None
    return found if np.isfinite(found).all() else None


def _images(table: TableRecord) -> Iterator[Block]:
    if table.width is None or table.height is None:
        yield Missing(
            "sizes, brightness and examples of the images, whose files are not where the table says",
            "`ensemble report RUN --data TABLE`",
        )
        return
    rows: list[list[str | int | float | None]] = []
    for part, inside in (("training", ~table.test), ("test", table.test)):
        for name, values, form in (
            ("width, pixels", table.width, "{:.0f}"),
            ("height, pixels", table.height, "{:.0f}"),
            ("brightness, 0–255", table.brightness, "{:.1f}"),
            ("sharpness", table.sharpness, "{:.1f}"),
        ):
            if values is None:
                continue
            known = values[inside].astype(np.float64)
            known = known[np.isfinite(known) & (known > 0)]
            if len(known):
                low, first, middle, third, high = np.quantile(known, [0, 0.05, 0.5, 0.95, 1])
                rows.append([name, part, *(form.format(one) for one in (low, first, middle, third, high)), len(known)])
    if not rows:
        return
    note = (
        "Brightness is the mean of the gray values; sharpness is the mean of the absolute Laplacian, so it depends on "
        "the size at which images were decoded."
    )
    yield Table(
        "data-images",
        "The image files",
        ["property", "part", "lowest", "5%", "median", "95%", "highest", "images"],
        rows,
        2,
        note,
    )
    if table.brightness is None:
        yield Missing(
            "brightness and sharpness of this number of images",
            "they are measured on the decoded images of a training: `ensemble kfold` keeps them in `.ensemble/images`",
        )


def _examples(evidence: Evidence, table: TableRecord) -> Gallery | None:
    """Return images of every class, each of another person if there are enough, drawn with a fixed seed."""
    shown = np.array([sample in evidence.paths for sample in table.ids.tolist()]) & ~table.test
    if not shown.any():
        return None
    random, found = np.random.default_rng(0), []
    classes = [name for name in evidence.classes if (table.labels[shown] == name).any()]
    each = max(1, min(PER_CLASS, EXAMPLES // max(1, len(classes))))
    for name in classes[:EXAMPLES]:
        rows = np.flatnonzero(shown & (table.labels == name))
        rows = rows[random.permutation(len(rows))]
        first = np.sort(np.unique(table.persons[rows], return_index=True)[1])
        others = np.setdiff1d(np.arange(len(rows)), first)
        found += rows[np.concatenate([first, others])[:each]].tolist()
    pictures = tuple(
        _picture(evidence, table, row, {"class": evidence.class_title(str(table.labels[row]))}) for row in found
    )
    return Gallery(
        "data-examples",
        "Examples of each class",
        pictures,
        f"At most {each} per class, of different people where there are enough.",
        f"Examples of each class: {counted(len(pictures), 'picture')}",
    )


def _picture(
    evidence: Evidence, table: TableRecord, row: int, tags: Mapping[str, str], more: Sequence[str] = ()
) -> Picture:
    sample = str(table.ids[row])
    label = str(table.labels[row]) or "no label"
    label = labels_text(str(table.labels[row])) if evidence.has_columns else label
    meaning = " ".join(evidence.class_attributes.get(label, {}).values())
    lines = [
        f"{label} ({meaning})" if meaning else label,
        *([f"person {table.persons[row]}"] if table.persons_known and str(table.persons[row]) not in sample else []),
        *more,
    ]
    return Picture(evidence.thumbnail(sample), sample, tuple(lines), tags)


def labels_text(text: str) -> str:
    """Return the text of several labels or numbers for a reader: ``hat, glasses not known``; ``not known`` for ""."""
    if text == NOTHING:
        return "none of the labels"
    parts = [f"{one[1:]} not known" if one.startswith(UNKNOWN) else one for one in text.split(SEPARATOR)]
    return ", ".join(parts) if text else "not known"


def _extremes(evidence: Evidence, table: TableRecord) -> Gallery | None:
    """Return the darkest, brightest, most blurred and smallest images."""
    shown = np.array([sample in evidence.paths for sample in table.ids.tolist()])
    if not shown.any() or table.width is None or table.height is None:
        return None
    pictures: list[Picture] = []
    area = (table.width * table.height).astype(np.float64)
    kinds: list[tuple[str, Any, int, str]] = [
        ("darkest", table.brightness, 1, "brightness {:.0f} of 255"),
        ("brightest", table.brightness, -1, "brightness {:.0f} of 255"),
        ("least sharp", table.sharpness, 1, "sharpness {:.1f}"),
    ]
    if len(np.unique(area[area > 0])) > 1:
        kinds.append(("smallest", np.where(area > 0, area, np.nan), 1, "{:,.0f} pixels"))
    for name, values, sign, form in kinds:
        if values is None:
            continue
        known = np.flatnonzero(shown & np.isfinite(values))
        for row in known[np.argsort(sign * values[known], kind="stable")][:EXTREMES].tolist():
            tags = {"kind": name, "part": "test" if table.test[row] else "training"}
            pictures.append(_picture(evidence, table, row, tags, [f"{name}: {form.format(float(values[row]))}"]))
    if not pictures:
        return None
    named = list(dict.fromkeys(one.tags["kind"] for one in pictures))
    title = f"The {', '.join(named[:-1])} and {named[-1]} images" if len(named) > 1 else f"The {named[0]} images"
    return Gallery("data-extremes", title, tuple(pictures))


def _copies(evidence: Evidence, table: TableRecord) -> Block | None:
    """Return copies side by side, as the audit found them."""
    pictures, total, number = [], 0, 0
    place = {sample: at for at, sample in enumerate(table.ids.tolist())}
    for finding in evidence.findings:
        kind = str(finding.get("kind"))
        if not kind.startswith(("identical images", "altered copies")):
            continue
        for case in finding.get("cases") or ():
            rows = [place[one["id"]] for one in case["rows"] if one["id"] in place]
            total += len(rows) > 1
            if len(rows) < 2 or number >= MAX_SETS:
                continue
            number += 1
            alike = case.get("similarity")
            more = [f"{kind}, set {number}", *([f"similarity {alike:.2f}"] if alike is not None else [])]
            pictures += [
                _picture(evidence, table, row, {"set": str(number), "finding": kind}, more) for row in rows[:4]
            ]
    if pictures:
        rest = f" The first {number} of {total:,} sets." if total > number else ""
        return Gallery(
            "data-copies", "Copies, side by side", tuple(pictures), f"Pictures of one set have its number.{rest}"
        )
    if any(one.get("kind") == COMPARED and one.get("count") for one in evidence.findings):
        return None
    return Missing("copies of images, side by side", "`ensemble folds check --data TABLE --sheet copies.png`")


def _by_image(evidence: Evidence) -> Iterator[Block]:
    if not evidence.by_image:
        return
    metric = metric_of(evidence.metric)
    fair = score_of(evidence, evidence.oof, evidence.main)
    rows: list[list[str | int | float | None]] = [
        [name, "by image", f"{one.value:.3f}", one.ci_text()] for name, one in evidence.by_image.items()
    ]
    if fair is not None and evidence.recommended not in evidence.by_image:
        rows.append([str(evidence.recommended), "by person", f"{fair.value:.3f}", fair.ci_text()])
    yield Table(
        "data-by-image",
        "What a split by image claims",
        ["run", "split", f"OOF {metric.title}", "95% CI"],
        rows,
        2,
        "Models of a split by image have seen the people that they are scored on: they recognize the person, and the "
        "score says nothing about new people.",
    )
