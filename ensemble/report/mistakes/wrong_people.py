"""Show who is predicted wrong, and under which conditions: people, columns of the table, light and size of images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ensemble.analysis.mistakes import (
    GroupAccuracy,
    LabeledRows,
    group_accuracies,
    people_mistakes,
    quantile_groups,
)
from ensemble.analysis.units import Unit
from ensemble.report.evidence.evidence import Evidence, TableRecord
from ensemble.report.evidence.mistakes_data import column_values, image_properties
from ensemble.report.mistakes.confusion import PEOPLE_CI
from ensemble.report.page.blocks import Block, Missing, Table, Text
from folds.utils.text import counted

MAX_PEOPLE = 25
# Property → the words for its lowest and its highest quarter, and the form of its values.
_WORDS = {"brightness": ("dark", "bright", "{:.0f}"), "sharpness": ("blurred", "sharp", "{:.1f}")}
_WORDS["size"] = ("small", "large", "{:.2f} MP")


def people_blocks(rows: LabeledRows, known: bool, most: int = MAX_PEOPLE) -> list[Block]:
    """Return the people with the most wrong images, and whether there are more than chance explains."""
    if not known:
        return [
            Missing(
                "mistakes by person",
                "a column `person` in the table or `--labels FILE.csv` with id, label, person, says who is in an image",
            )
        ]
    found = people_mistakes(rows, most)
    if not found.worst:
        return []
    clustered = [one.person for one in found.worst if one.clustered]
    by_chance = found.always_by_chance
    expected = "fewer than one" if by_chance < 1 else f"at most {by_chance:.0f}"
    lines = [
        f"{counted(found.always, 'person', 'people')} of {found.people:,} with two images or more "
        f"{'is' if found.always == 1 else 'are'} wrong in every image; {expected} would be expected if mistakes were "
        "independent of the person."
    ]
    lines.append(
        "More mistakes than chance explains, corrected for the number of people: "
        + (
            ", ".join(clustered[:10]) + (f" and {len(clustered) - 10} more" if len(clustered) > 10 else "") + "."
            if clustered
            else "none of those with the most mistakes."
        )
    )
    cells: list[list[str | int | float | None]] = [
        [
            one.person,
            one.wrong,
            one.images,
            f"{one.wrong / one.images:.3f} [{one.low:.3f}, {one.high:.3f}]",
            f"{one.expected:.1f}",
            _p_text(one.p_value),
            "yes" if one.clustered else "no",
        ]
        for one in found.worst
    ]
    return [
        Text(tuple(lines)),
        Table(
            "mistakes-people",
            "People with the most wrong images.",
            ("person", "wrong", "images", "wrong share", "by chance", "p-value", "above chance"),
            cells,
            1,
            "Wrong share with its exact 95% CI over the person's images (Clopper–Pearson). By "
            "chance: wrong images that "
            "other people's rate in the same classes would give. The p-value is that of this number or more "
            f"(binomial); above chance is corrected for {found.people:,} people (Bonferroni): the p-value must be at "
            f"most {0.05 / max(found.people, 1):.1g}.",
        ),
    ]


def _p_text(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "<0.001"


def column_blocks(rows: LabeledRows, evidence: Evidence, at: NDArray[np.int64] | None, unit: Unit) -> list[Block]:
    """Return the accuracy by the values of the columns of the table.

    Parameters
    ----------
    at : (n,) rows of the table of the rows, −1 for none.
    """
    if evidence.row_table is None or at is None:
        return []
    columns = column_values(evidence.row_table, at, evidence.class_attributes)
    found = [(name, group_accuracies(rows, groups, values)) for name, (groups, values) in columns.items()]
    found = [(name, scores) for name, scores in found if len(scores) > 1]
    if not found:
        return []
    among = _comparisons(scores for _, scores in found)
    return [
        Table(
            "mistakes-columns",
            "Accuracy by the columns of the table.",
            ("column", "value", *unit.columns(), "accuracy", "against others"),
            [[name, *line] for name, scores in found for line in _group_cells(scores, among, unit)],
            2,
            _group_note(among, unit),
        )
    ]


def _comparisons(groups: Iterable[Sequence[GroupAccuracy]]) -> int:
    """Return the number of comparisons; that of two groups is one."""
    return sum(1 if len(scores) == 2 else len(scores) for scores in groups)


def _group_cells(scores: Sequence[GroupAccuracy], among: int, unit: Unit) -> list[list[str | int | None]]:
    return [
        [
            one.name,
            *unit.cells(one.images, one.people),
            one.accuracy.text(),
            None
            if one.against_others is None
            else one.against_others.text(among).replace(f" among {among} comparisons", ""),
        ]
        for one in scores
    ]


def _group_note(among: int, unit: Unit) -> str:
    return (
        f"Accuracy with its {PEOPLE_CI} Against others: the difference to the accuracy of all other "
        f"{unit.many}, its 95% CI, "
        f"and whether it is significant among {among} comparisons (Bonferroni)."
    )


def property_blocks(
    rows: LabeledRows, table: TableRecord | None, at: NDArray[np.int64] | None, unit: Unit
) -> list[Block]:
    """Return the accuracy by brightness, sharpness and size of the images; of people by the means of their images."""
    how = "the images of the table must be readable where the table says; `--data PATH` names another place"
    missing = Missing("mistakes by image property: dark, blurred and small images", how)
    if table is None or at is None:
        return [missing]
    properties = image_properties(table, at)
    if not properties:
        return [missing]
    cells, texts, found = [], [], []
    for name, values in properties.items():
        low, high, form = _WORDS[name]
        groups, ends = quantile_groups(values)
        if len(ends) < 2:
            texts.append(f"All {unit.many} have the same {name}.")
            continue
        names = [f"{form.format(a)} to {form.format(b)}" for a, b in ends]
        names[0], names[-1] = f"{low}: {names[0]}", f"{high}: {names[-1]}"
        found.append((name, group_accuracies(rows, groups, names)))
    among = _comparisons(scores for _, scores in found)
    for name, scores in found:
        cells += [[name, *line] for line in _group_cells(scores, among, unit)]
        named = [
            f"{one.name} {one.against_others.difference.signed_text()}"
            for one in scores
            if one.against_others is not None and one.against_others.is_significant_among(among)
        ]
        texts.append(
            f"Accuracy differs with {name}: {'; '.join(named)} against all other {unit.many}."
            if named
            else f"By {name}, no quarter of the {unit.many} differs significantly from the others."
        )
    blocks: list[Block] = [Text(tuple(texts))]
    means = "Of a person it is the mean over the images. " if unit.is_person else ""
    if cells:
        blocks.append(
            Table(
                "mistakes-properties",
                f"Accuracy by image property, in quarters of the {unit.many}.",
                ("property", f"{unit.many} with", *unit.columns(), "accuracy", "against others"),
                cells,
                2,
                f"{_group_note(among, unit)} {means}Brightness: mean of the decoded image, 0 to 255. Sharpness: "
                "mean absolute value of "
                "its Laplacian. Size: megapixels of the file.",
            )
        )
    return blocks
