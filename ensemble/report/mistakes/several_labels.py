"""Show how well each of several labels is recognized, which labels occur together, and which are not known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ensemble.analysis.columns import MIN_PEOPLE, Column, unit_of_columns
from ensemble.analysis.units import IMAGE, PERSON, Unit
from ensemble.label_check.column_doubts import wrong_answers
from ensemble.report.evidence.column_scores import columns_of, groups_of
from ensemble.report.evidence.evidence import Evidence, Part, Predicted
from ensemble.report.evidence.people import person_lines
from ensemble.report.evidence.scoring import (
    ScoredPart,
    changed_note,
    ci_note,
    direction,
    main_predictions,
    scored_part,
)
from ensemble.report.mistakes.column_pictures import PER_PERSON, answer_pictures, few_of_each, judged_columns
from ensemble.report.page.blocks import Block, Cells, Figure, Gallery, Missing, Section, Table, Text
from folds.metrics.custom import metric_of
from folds.metrics.intervals import Interval, interval_over_people
from folds.metrics.label_scores import THRESHOLD, is_predicted
from folds.utils.charts.drawing import MARK_TONE
from folds.utils.charts.grids import heat
from folds.utils.charts.rows import forest
from folds.utils.charts.series import Row
from folds.utils.numeric import factorize
from folds.utils.text import counted

MAX_DRAWN = 40  # labels of a drawing; the tables have all
MAX_TOGETHER = 20  # labels of the grid of those that occur together
MAX_PAIRS = 20
MAX_PICTURES = 40


def mistakes_section(evidence: Evidence) -> Section:
    """Return the scores of each label of the recommended member, out of fold if there are such predictions."""
    lead = "How well each label is recognized, which labels occur together, and which are not known."
    found = main_predictions(evidence)
    if found is None:
        missing = Missing(
            "the scores of each label, and the labels that occur together",
            "`ensemble kfold` trains runs with out-of-fold predictions of images whose labels are known",
        )
        return Section("mistakes", "Each label", lead, (missing,))
    part, member = found
    unit = evidence.unit_of(part)
    columns = columns_of(evidence, part, member)
    where = "out of fold" if part.name == "oof" else "on test people"
    start = f"Scores of `{member.name}`, {where}. Each label is a decision of its own: {unit.any} has it or not."
    if note := changed_note(part, member):
        start += f" They are {note}."
    blocks: list[Block] = [Text((start, *answer(columns))), *_drawings(columns, where), _table(columns, part)]
    blocks += _together(columns, evidence, part)
    blocks += _by_group(evidence, part)
    blocks += _unknown(columns, evidence)
    if not evidence.averages(part):
        blocks += _worst(evidence, part, member, columns)
    return Section("mistakes", "Each label", lead, tuple(blocks))


# Which labels can be judged


def judged(columns: Sequence[Column]) -> list[Column]:
    """Return the labels with enough people with them and without them, the one with the lowest ROC-AUC first."""
    known = [(score.value, one) for one in columns if one.fewest >= MIN_PEOPLE and (score := one.score("roc_auc"))]
    return [one for _, one in sorted(known, key=lambda entry: (entry[0], entry[1].name))]


def answer(columns: Sequence[Column]) -> tuple[str, ...]:
    """Return the weakest and the strongest label in a sentence, and one for each kind that cannot be judged."""
    lines, ordered = [], judged(columns)
    if ordered:
        weakest, score = ordered[0], ordered[0].score("roc_auc")
        text = "" if score is None else f"The weakest label is {weakest.name}: ROC-AUC {score.text()}"
        text += f", {counted(weakest.people_with(1), 'person', 'people')} with it"
        if len(ordered) > 1 and (best := ordered[-1].score("roc_auc")) is not None:
            text += f"; the strongest is {ordered[-1].name}: {best.text()}"
        lines.append(f"{text}. 0.5 is chance.")
    lines += rare_lines(columns)
    return tuple(lines)


def rare_lines(columns: Sequence[Column]) -> list[str]:
    """Return which labels cannot be judged: those of few people, those on no or every image, and those never known."""
    lines = []
    rare = [one for one in columns if 0 < one.fewest < MIN_PEOPLE]
    if rare:
        each = (
            f"{one.name} ({counted(one.fewest, 'person', 'people')} "
            f"{'with' if one.people_with(1) <= one.people_with(0) else 'without'} it)"
            for one in sorted(rare, key=lambda one: (one.fewest, one.name))
        )
        lines.append(f"Too rare to judge, with fewer than {MIN_PEOPLE} people: {_some(list(each))}.")
    unit = unit_of_columns(columns)
    for value, word in ((1, f"on no {unit.one}"), (0, f"on every {unit.one}")):
        named = [one.name for one in columns if len(one.labels) and not one.people_with(value)]
        if named:
            lines.append(f"Known, but {word}, so that nothing can be learned: {_some(named)}.")
    never = [one.name for one in columns if not len(one.labels)]
    if never:
        lines.append(f"Never known here, so not scored: {_some(never)}.")
    return lines


def _some(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


# Scores


def _drawings(columns: Sequence[Column], where: str) -> list[Block]:
    ordered = judged(columns)[::-1]
    if not ordered:
        return [
            Missing("a drawing of the scores", f"no label has {MIN_PEOPLE} people with it and {MIN_PEOPLE} without")
        ]
    return [
        _ranked(ordered, "roc_auc", "ROC-AUC", where, "mistakes-auc", reference=0.5),
        _ranked(ordered, "average_precision", "average precision", where, "mistakes-precision"),
    ]


def _ranked(
    ordered: Sequence[Column], metric: str, word: str, where: str, name: str, reference: float | None = None
) -> Figure:
    chance, rows = reference is None, []
    scored = [(one, score) for one in ordered if (score := one.score(metric)) is not None]
    scored.sort(key=lambda entry: -entry[1].value)
    for one, score in scored[:MAX_DRAWN]:
        share = float(one.labels.mean()) if chance else None
        rows.append(Row(one.name, score.value, score.low, score.high, score.text(), mark=share))
    title = f"{word[0].upper()}{word[1:]} of each label, {where}, with its 95% CI (over people)"
    best, worst = scored[0], scored[-1]
    text = f"Best first, from {best[0].name} ({best[1].text()}) to {worst[0].name} ({worst[1].text()})."
    text += "" if chance else " The dashed line, 0.5, is chance."
    text += f" The best {MAX_DRAWN} of {len(scored)} labels are drawn." if len(scored) > MAX_DRAWN else ""
    by_chance = f"by chance: share of {unit_of_columns(ordered).many} with the label"
    legend = [(word, 0), (by_chance, MARK_TONE)] if chance else ()
    svg = forest(rows, title, text, word, reference=reference, signed=False, legend=legend)
    return Figure(name, svg, title, text)


def _table(columns: Sequence[Column], part: Part) -> Table:
    with_people, some_unknown = part.persons_known, any(len(one.labels) < one.total for one in columns)
    unit = unit_of_columns(columns)
    header = ["label", *(f"{noun} with it" for noun in unit.columns(with_people)), "share"]
    header += [
        *([f"known {unit.many}"] if some_unknown else []),
        "ROC-AUC",
        "average precision",
        "F1",
        "calibration error",
    ]
    rows: list[Cells] = []
    for one in columns:
        row: Cells = [one.name, *unit.cells(int(one.labels.sum()), one.people_with(1), with_people)]
        row += [f"{one.labels.mean():.1%}" if len(one.labels) else None]
        row += [len(one.labels)] if some_unknown else []
        row += [_text(one.score(name)) for name in ("roc_auc", "average_precision", "f_beta")]
        row.append(one.calibration_error.text() if len(one.labels) else None)
        rows.append(row)
    return Table(
        "mistakes-labels",
        "Scores of each label.",
        header,
        rows,
        note=f"{ci_note(part)} ROC-AUC: 0.5 is chance, 1 is best. Average precision: by chance the share of "
        f"{unit.many} with the label. F1: of the decision that {unit.any} has the label if its probability is above "
        f"{THRESHOLD:g}; 0 if no {unit.one} with it is found. Calibration error: the mean distance between the "
        f"probability and the share of {unit.many} that have the label, in ten bins of the probability; 0 is best. – "
        "where only one answer occurs.",
    )


def _text(score: Interval | None) -> str | None:
    return None if score is None else score.text()


# Labels that occur together


def _together(columns: Sequence[Column], evidence: Evidence, part: Part) -> list[Block]:
    """Return which labels occur together in truth, and which are predicted together."""
    common = [one for one in columns if one.labels.any()]
    if len(common) < 2:
        return [Text(("No two labels occur, so none occur together.",))]
    rows = _matrices(common, len(part))
    true, predicted, known = rows
    shown = sorted(range(len(common)), key=lambda at: -common[at].labels.sum())[:MAX_TOGETHER]
    names, unit = [common[at].name for at in shown], unit_of_columns(common)
    blocks: list[Block] = []
    for kind, cells in (("true", true), ("predicted", predicted)):
        grid = [[_share(cells, known, i, j) for j in shown] for i in shown]
        title = f"Labels that occur together: {kind}"
        text = f"Of the {unit.many} with the label of the row, the share that has the label of the column as well"
        text += ", in truth." if kind == "true" else f", where a label is predicted above {THRESHOLD:g}."
        text += _most_frequent(names, grid, unit)
        empty = [name for name, row in zip(names, grid, strict=True) if not np.isfinite(row).any()]
        text += f" An empty row: {_some(empty)} is predicted on no {unit.one}." if empty and kind == "predicted" else ""
        text += f" The {MAX_TOGETHER} most frequent labels are shown." if len(common) > MAX_TOGETHER else ""
        svg = heat(names, grid, title, text, text=lambda value: f"{value:.0%}")
        blocks.append(Figure(f"mistakes-together-{kind}", svg, title, text))
    return [*blocks, *_pairs(common, true, predicted, known)]


def _matrices(columns: Sequence[Column], rows: int) -> tuple[NDArray, NDArray, NDArray]:
    """Return (rows, labels) whether each label is there, is predicted, and is known."""
    true, predicted, known = (np.zeros((rows, len(columns)), bool) for _ in range(3))
    for at, one in enumerate(columns):
        true[one.rows, at], known[one.rows, at] = one.labels > 0, True
        predicted[one.rows, at] = is_predicted(one.values)
    return true, predicted, known


def _share(cells: NDArray[np.bool_], known: NDArray[np.bool_], i: int, j: int) -> float:
    both = known[:, i] & known[:, j] & cells[:, i]
    return math.nan if i == j or not both.any() else float(cells[both, j].mean())


def _most_frequent(names: Sequence[str], grid: Sequence[Sequence[float]], unit: Unit) -> str:
    found = [(value, i, j) for i, row in enumerate(grid) for j, value in enumerate(row) if math.isfinite(value)]
    if not found:
        return ""
    value, i, j = max(found, key=lambda entry: (entry[0], -entry[1], -entry[2]))
    return f" Highest: {value:.0%} of the {unit.many} with {names[i]} have {names[j]}."


def _pairs(columns: Sequence[Column], true: NDArray, predicted: NDArray, known: NDArray) -> list[Block]:
    found = []
    for i in range(len(columns)):
        for j in range(i + 1, len(columns)):
            both = known[:, i] & known[:, j]
            count = int(both.sum())
            if not count:
                continue
            t, p = true[both][:, [i, j]].all(axis=1), predicted[both][:, [i, j]].all(axis=1)
            by_chance = float(true[both, i].mean() * true[both, j].mean())
            found.append((int(t.sum()), int(p.sum()), int((t & p).sum()), by_chance * count, count, i, j))
    found = [one for one in found if one[0] or one[1]]
    found.sort(key=lambda one: (-max(one[0], one[1]), one[5], one[6]))
    unit = unit_of_columns(columns)
    if not found:
        return [Text((f"No two labels occur on one {unit.one}, neither in truth nor predicted.",))]
    rows: list[Cells] = [
        [columns[i].name, columns[j].name, t, p, right, f"{chance:.0f}", f"{(p - t) / count:+.1%}"]
        for t, p, right, chance, count, i, j in found[:MAX_PAIRS]
    ]
    more = f" {len(found) - MAX_PAIRS:,} more pairs are rarer." if len(found) > MAX_PAIRS else ""
    return [
        Table(
            "mistakes-pairs",
            f"Pairs of labels on one {unit.one}.",
            ["label", "and label", f"true {unit.many}", "predicted", "both", "true by chance", "predicted − true"],
            rows,
            2,
            f"Of the {unit.many} where both are known. Both: {unit.many} on which the pair is there and predicted. "
            f"True by chance: {unit.many} that would have both if labels were independent. Predicted − true: in % of "
            f"{unit.many}.{more}",
        )
    ]  # fmt: skip


# The worst mistakes


def _worst(evidence: Evidence, part: Part, member: Predicted, columns: Sequence[Column]) -> list[Block]:
    """Return the labels with the least probable answer as pictures, a few of each person and label."""
    found = few_of_each(wrong_answers(columns), part.persons)[:MAX_PICTURES]
    if not found:
        return []
    rows = judged_columns(evidence, part, member)
    pictures = answer_pictures(found, rows, evidence.picture, part.persons_known, person_lines(evidence, part))
    few = "" if evidence.pooled is not None else f", at most {PER_PERSON} images of a person and label"
    title = f"The worst mistakes, at a probability of {THRESHOLD:g}."
    note = f"The least probable answers first{few}."
    return [Gallery("mistakes-worst", title, pictures, note, wide=evidence.pooled is not None)]


# Groups and unknown labels


def _by_group(evidence: Evidence, part: Part) -> list[Block]:
    """Return the metric of the report by the values of the columns of the table."""
    member = (main_predictions(evidence) or (part, part.members[0]))[1]
    found = scored_part(part, [member])
    if found is None:
        return []
    metric, rows, unit = metric_of(evidence.metric), list[Cells](), evidence.row_of(part)
    for name, (groups, values) in groups_of(evidence, part).items():
        for code, value in enumerate(values):
            kept = groups[found.rows] == code
            if kept.any():
                rows.append([name, value, *_group_cells(found, kept, part.persons_known, evidence.metric, unit)])
    if not rows:
        return []
    return [
        Table(
            "mistakes-columns",
            f"{metric.title}{direction(metric)} by the columns of the table.",
            ["column", "value", *unit.columns(part.persons_known), metric.title],
            rows,
            2,
            f"{ci_note(part)} The mean over the labels that occur in the group: groups with other labels differ.",
        )
    ]


def _group_cells(found: ScoredPart, kept: NDArray[np.bool_], known: bool, name: str, unit: Unit) -> Cells:
    metric, persons = metric_of(name), factorize(found.persons[kept])[1]
    score = interval_over_people(metric, found.labels[kept], found.values[0][kept], persons)
    text = score.text() if math.isfinite(score.value) else None
    return [*unit.cells(int(kept.sum()), int(persons.max()) + 1, known), text]


def _unknown(columns: Sequence[Column], evidence: Evidence) -> list[Block]:
    """Return how many rows have no known answer for each label, if there are any."""
    parts = [part for part in (evidence.oof, evidence.test) if part is not None and part.has_label.any()]
    unit = IMAGE if evidence.pooled is None else PERSON
    missing = [np.isnan(part.labels).sum(axis=0) for part in parts]
    if not sum(int(one.sum()) for one in missing):
        return [Text((f"Every label of every {unit.one} is known.",))]
    header, rows = ["label"], list[Cells]()
    for part in parts:
        named = "training" if part.name == "oof" else "test"
        header += [
            f"{named} unknown",
            f"{named} share",
            *([f"{named} people"] if part.persons_known and not unit.is_person else []),
        ]
    for at, name in enumerate(evidence.classes):
        row: Cells = [name]
        for part in parts:
            unknown = np.isnan(part.labels[:, at])
            row += [int(unknown.sum()), f"{unknown.mean():.1%}"]
            row += [len(np.unique(part.persons[unknown]))] if part.persons_known and not unit.is_person else []
        rows.append(row)
    return [
        Table(
            "mistakes-unknown",
            "Labels that are not known.",
            header,
            rows,
            note=f"Unknown: {unit.many} for which the table does not say whether they have the label; they count "
            f"neither in training nor in the score of the label. Share: of all {unit.many}. "
            f"{'' if unit.is_person else 'People: with such an image. '}If it depends on the {unit.one} whether a "
            f"label is known, scores hold only for {unit.many} like those where it is.",
        )
    ]
