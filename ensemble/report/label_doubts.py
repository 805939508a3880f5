"""Show, of several labels, how far probabilities can be relied on, and the labels that predictions contradict most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ensemble.decisions.rows import share_interval
from ensemble.report.blocks import Block, Figure, Gallery, Missing, Picture, Section, Table, Text
from ensemble.report.column_scores import MIN_PEOPLE, Column, columns_of
from ensemble.report.evidence import Evidence, Part, Predicted
from ensemble.report.scoring import ci_note, labeled, main_predictions, unit_note
from folds.utils.charts import Calibrated, reliability_panels
from folds.utils.text import counted

PANELS = 12  # labels of the drawing; the table has all
PANEL_BINS = 6
MAX_CELLS, MAX_PICTURES, PER_PERSON = 60, 40, 2
GAP = 0.02  # mean probability minus share that is not reported
CHANCE = 0.5  # ROC-AUC

Cells = list[str | int | float | None]


def calibration_section(evidence: Evidence) -> Section:
    """Return how far the probabilities of each label can be relied on, of the recommended member."""
    lead = "Whether a label with a probability of 80% is there in 80% of cases."
    found = main_predictions(evidence)
    columns = [] if found is None else [one for one in columns_of(evidence, *found) if len(one.labels)]
    if found is None or not columns:
        missing = Missing(
            "how far the probabilities of each label can be relied on",
            "labeled predictions are needed: `ensemble kfold --data DATA` trains runs and writes them to runs/",
        )
        return Section("calibration", "Calibration", lead, (missing,))
    part, member = found
    lead += unit_note(evidence, part)
    blocks: list[Block] = [Text(_sentences(columns, member.name)), *_panels(columns, part), _table(columns, part)]
    return Section("calibration", "Calibration", lead, tuple(blocks))


def off_labels(columns: Sequence[Column]) -> tuple[list[Column], list[Column]]:
    """Return the labels whose probabilities are too high, and too low, on average: beyond `GAP` with the whole CI."""
    known = [one for one in columns if one.fewest >= MIN_PEOPLE]
    return [one for one in known if one.gap.low > GAP], [one for one in known if one.gap.high < -GAP]


def _sentences(columns: Sequence[Column], name: str) -> tuple[str, ...]:
    high, low = off_labels(columns)
    lines = [f"Probabilities of `{name}`, compared with the share of images that have the label."]
    for found, word in ((high, "too high"), (low, "too low")):
        if found:
            each = ", ".join(f"{one.name} ({one.gap.signed_text()})" for one in found[:6])
            more = f" and {len(found) - 6} more" if len(found) > 6 else ""
            lines.append(f"On average {word}: {each}{more} (mean probability minus share, 95% CI over people).")
    if not high and not low:
        lines.append(f"No label is predicted too high or too low by more than {GAP:g} on average, beyond chance.")
    return tuple(lines)


def _panels(columns: Sequence[Column], part: Part) -> list[Block]:
    chosen = sorted((one for one in columns if one.fewest >= MIN_PEOPLE), key=lambda one: -one.people_with(1))[:PANELS]
    if not chosen:
        return []
    curves = [_curve(one) for one in chosen]
    title = "Probability and share of images with each label, with 95% CIs (over people)"
    text = (
        "Each point is about equally many images. Points below the dashed diagonal: the label is there less often than "
        "its probability says."
    )
    text += f" The {PANELS} labels of most people." if len(columns) > len(chosen) == PANELS else ""
    svg = reliability_panels(
        curves, title, text, "probability of the label", "share of images that have the label, 95% CI (over people)"
    )
    return [Figure("calibration-labels", svg, title, text)]


def _curve(column: Column) -> Calibrated:
    """Return the bins of a label with about equally many images; equal probabilities stay together."""
    bins = min(PANEL_BINS, max(1, len(column.values) // 20))
    edges = np.unique(np.quantile(column.values, np.linspace(0, 1, bins + 1)))
    index = np.clip(np.searchsorted(edges, column.values, side="left") - 1, 0, max(len(edges) - 2, 0))
    people, points, shares, counts = int(column.persons.max()) + 1, [], [], []
    for number in np.unique(index).tolist():
        rows = index == number
        whole = np.bincount(column.persons[rows], minlength=people).astype(np.float64)
        hits = np.bincount(column.persons[rows], column.labels[rows], people).astype(np.float64)
        shares.append(share_interval(hits, whole))
        points.append(float(column.values[rows].mean()))
        counts.append(int(rows.sum()))
    values = [[getattr(one, name) for one in shares] for name in ("value", "low", "high")]
    return Calibrated(column.name, points, values[0], values[1], values[2], counts)


def _table(columns: Sequence[Column], part: Part) -> Table:
    rows: list[Cells] = [
        [
            one.name,
            f"{one.labels.mean():.3f}",
            f"{one.values.mean():.3f}",
            one.gap.signed_text(),
            one.calibration_error.text(),
        ]
        for one in columns
    ]
    return Table(
        "calibration-summary",
        f"Calibration of each label, {'out of fold' if part.name == 'oof' else 'on test people'}.",
        ["label", "share of images", "mean probability", "probability − share", "calibration error"],
        rows,
        note=f"{ci_note(part)} Probability − share: above 0 if probabilities are too high on average. Calibration "
        "error: the mean distance of both in ten bins of the probability; chance alone makes it larger than 0, more so "
        "with fewer images.",
    )


# Labels in doubt


@dataclass(frozen=True)
class Doubt:
    """A label of an image that its prediction contradicts.

    Attributes
    ----------
    row : of the part.
    given : the label, 0 or 1.
    probability : that the image has the label.
    """

    row: int
    label: str
    given: int
    probability: float

    @property
    def of_given(self) -> float:
        """Return the probability of the given answer."""
        return self.probability if self.given else 1 - self.probability


def find_doubts(columns: Sequence[Column]) -> list[Doubt]:
    """Return the labels in doubt, the least probable first.

    An answer is in doubt if the other one is at least as probable as it is, on average, where it is the given one
    (confident learning; Northcutt et al., 2021). So rare labels, whose probabilities are low, are judged by their own
    measure. Labels that are not recognized are left out: their predictions say nothing about them.
    """
    found = []
    for one in columns:
        has = one.labels > 0
        if not is_recognized(one):
            continue
        with_it, without_it = one.values[has].mean(), (1 - one.values[~has]).mean()
        doubtful = np.where(has, 1 - one.values >= without_it, one.values >= with_it)
        found += [
            Doubt(int(one.rows[at]), one.name, int(has[at]), float(one.values[at])) for at in np.flatnonzero(doubtful)
        ]
    return sorted(found, key=lambda one: (one.of_given, one.row, one.label))


def is_recognized(column: Column) -> bool:
    """Return whether a label has enough people, and a ROC-AUC above chance with its whole CI."""
    score = column.score("roc_auc") if column.fewest >= MIN_PEOPLE else None
    return score is not None and score.low > CHANCE


def labels_section(evidence: Evidence) -> Section:
    """Return the labels that the out-of-fold predictions of the recommended member contradict most."""
    title, lead = "Labels in doubt", "Which labels the out-of-fold predictions contradict most."
    part = labeled(evidence.oof)
    if part is None:
        missing = Missing(
            "labels that out-of-fold predictions contradict",
            "`ensemble kfold …` trains runs with out-of-fold predictions; test labels are never doubted",
        )
        return Section("labels", title, lead, (missing,))
    if evidence.per_person and part.persons_known:
        text = "Not shown for scores by person: the label of each image is judged by its own prediction."
        return Section("labels", title, lead, (Text((text,)),))
    member = evidence.main or part.members[0]
    columns = columns_of(evidence, part, member)
    found, cells = find_doubts(columns), sum(len(one.labels) for one in columns if is_recognized(one))
    unlisted = sum(one.given == 0 for one in found)
    lines = [
        f"{counted(len(found), 'label')} of {cells:,} that are judged {'is' if len(found) == 1 else 'are'} in doubt "
        f"by `{member.name}`: {unlisted:,} that may be missing (not given, predicted), {len(found) - unlisted:,} "
        "that may be wrong (given, not predicted). A doubt is a reason to look, not proof: where a label is weak, most "
        "doubts are mistakes of the model.",
    ]
    left = [one.name for one in columns if len(one.labels) and not is_recognized(one)]
    if left:
        lines.append(f"Not judged, because too rare or not recognized better than by chance: {', '.join(left[:12])}.")
    if not found:
        return Section("labels", title, lead, (Text(("No label is contradicted.", *lines[1:])),))
    shown = _few_of_each(found, part)
    return Section(
        "labels", title, lead, (Text(tuple(lines)), _pictures(evidence, part, member, shown), _list(part, shown))
    )


def _few_of_each(found: Sequence[Doubt], part: Part) -> list[Doubt]:
    """Return the first doubts, with a few images of a person and label, which often show the same."""
    seen: dict[tuple[str, str], int] = {}
    kept = []
    for one in found:
        key = str(part.persons[one.row]), one.label
        seen[key] = seen.get(key, 0) + 1
        if seen[key] <= PER_PERSON:
            kept.append(one)
    return kept


def _answer(given: int, label: str) -> str:
    return f"has {label}" if given else f"no {label}"


def _pictures(evidence: Evidence, part: Part, member: Predicted, found: Sequence[Doubt]) -> Gallery:
    voters = [one for one in part.members if one.kind != "blend" and one is not member]
    column = {name: at for at, name in enumerate(evidence.classes)}
    pictures = []
    for one in found[:MAX_PICTURES]:
        sample, person = str(part.ids[one.row]), str(part.persons[one.row])
        lines = [
            f"table: {_answer(one.given, one.label)}",
            f"predicted: {one.label} with probability {one.probability:.3f}",
            *([] if person in sample or not part.persons_known else [f"person {person}"]),
        ]
        if len(voters) > 1:
            values = [(each.name, float(each.probabilities[one.row, column[one.label]])) for each in voters[:5]]
            lines += [f"{name}: {'no prediction' if np.isnan(value) else f'{value:.3f}'}" for name, value in values]
        tags = {"label": one.label, "doubt": "may be wrong" if one.given else "may be missing"}
        tags |= {"person": person} if part.persons_known else {}
        pictures.append(Picture(evidence.thumbnail(sample), sample, tuple(lines), tags))
    note = f"The least probable answers first, at most {PER_PERSON} images of a person and label."
    return Gallery("labels-doubts", "Labels that predictions contradict most.", tuple(pictures), note)


def _list(part: Part, found: Sequence[Doubt]) -> Table:
    rows: list[Cells] = [
        [
            str(part.ids[one.row]),
            *([str(part.persons[one.row])] if part.persons_known else []),
            one.label,
            "yes" if one.given else "no",
            f"{one.probability:.3f}",
            f"{one.of_given:.3f}",
        ]
        for one in found[:MAX_CELLS]
    ]
    more = f" The first {MAX_CELLS} of {len(found):,}." if len(found) > MAX_CELLS else ""
    header = [
        "image",
        *(["person"] if part.persons_known else []),
        "label",
        "in the table",
        "probability",
        "of the answer",
    ]
    return Table(
        "labels-list",
        "Labels in doubt, the least probable answer first.",
        header,
        rows,
        len(header) - 2,
        "Probability: that the image has the label, by a model that has not seen the person. Of the answer: the "
        "probability of what the table says. An answer is in doubt if the other one is as probable as it is, on "
        f"average, where it is given.{more}",
    )
