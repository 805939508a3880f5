"""Show, of several labels, how far the probability of each can be relied on."""

from __future__ import annotations

from collections.abc import Sequence

from ensemble.analysis.columns import MIN_PEOPLE, Column, unit_of_columns
from ensemble.report.calibration.share_bins import calibrated, share_bins
from ensemble.report.evidence.column_scores import columns_of
from ensemble.report.evidence.evidence import Evidence, Part
from ensemble.report.evidence.scoring import ci_note, main_predictions
from ensemble.report.page.blocks import Block, Cells, Figure, Missing, Section, Table, Text
from folds.utils.charts.curves import reliability_panels
from folds.utils.charts.series import Calibrated

PANELS = 12  # labels of the drawing; the table has all
PANEL_BINS = 6
GAP = 0.02  # mean probability minus share that is not reported


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
    blocks: list[Block] = [Text(_sentences(columns, member.name)), *_panels(columns, part), _table(columns, part)]
    return Section("calibration", "Calibration", lead, tuple(blocks))


def off_labels(columns: Sequence[Column]) -> tuple[list[Column], list[Column]]:
    """Return the labels whose probabilities are too high, and too low, on average: beyond `GAP` with the whole CI."""
    known = [one for one in columns if one.fewest >= MIN_PEOPLE]
    return [one for one in known if one.gap.low > GAP], [one for one in known if one.gap.high < -GAP]


def _sentences(columns: Sequence[Column], name: str) -> tuple[str, ...]:
    high, low = off_labels(columns)
    lines = [
        f"Probabilities of `{name}`, compared with the share of {unit_of_columns(columns).many} that have the label."
    ]
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
    curves, unit = [_curve(one) for one in chosen], unit_of_columns(chosen)
    title = f"Probability and share of {unit.many} with each label, with 95% CIs (over people)"
    text = (
        f"Each point is about equally many {unit.many}. Points below the dashed diagonal: the label is there less "
        "often than its probability says."
    )
    text += f" The {PANELS} labels of most people." if len(columns) > len(chosen) == PANELS else ""
    svg = reliability_panels(
        curves,
        title,
        text,
        "probability of the label",
        f"share of {unit.many} that have the label, 95% CI (over people)",
    )
    return [Figure("calibration-labels", svg, title, text)]


def _curve(column: Column) -> Calibrated:
    """Return the bins of a label with about equally many images; equal probabilities stay together."""
    bins = share_bins(column.values, column.labels, column.persons, min(PANEL_BINS, max(1, len(column.values) // 20)))
    return calibrated(column.name, bins, column.unit)


def _table(columns: Sequence[Column], part: Part) -> Table:
    unit = unit_of_columns(columns)
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
        ["label", f"share of {unit.many}", "mean probability", "probability − share", "calibration error"],
        rows,
        note=f"{ci_note(part)} Probability − share: above 0 if probabilities are too high on average. Calibration "
        "error: the mean distance of both in ten bins of the probability; chance alone makes it larger than 0, more so "
        f"with fewer {unit.many}.",
    )
