"""Show how far predicted numbers are from the true ones: by range, by column of the table, and the largest errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ensemble.analysis.columns import Column, decimals_for, number_text, unit_of_columns
from ensemble.analysis.mistakes import quantile_groups
from ensemble.analysis.units import Unit
from ensemble.label_check.column_doubts import NumberError, usual_differences
from ensemble.report.evidence.column_scores import columns_of, groups_of
from ensemble.report.evidence.evidence import Evidence, Part, Predicted
from ensemble.report.evidence.people import person_lines
from ensemble.report.evidence.scoring import changed_note, ci_note, main_predictions
from ensemble.report.mistakes.column_pictures import error_pictures, judged_columns
from ensemble.report.page.blocks import Block, Cells, Figure, Gallery, Missing, Section, Table, Text
from folds.metrics.intervals import Interval
from folds.utils.charts.points import cloud
from folds.utils.charts.series import Series

RANGES = 5  # of the true numbers, with about equally many images
CURVE = 12  # points of the line in a drawing
MAX_DRAWN = 6  # numbers with drawings; the tables have all
MAX_PEOPLE, MAX_PICTURES = 15, 48
PER_PERSON = 2  # pictures of a person in a list of the largest errors
_INNER = (0.05, 0.95)  # quantiles of the band
_SPREAD = ("half within", "90% within", "largest", "95% of errors", "slope")


def mistakes_section(evidence: Evidence) -> Section:
    """Return the errors of the recommended member, out of fold if there are such predictions."""
    lead = "How far predictions are from the true numbers, where they are too high or too low, and for whom."
    found = main_predictions(evidence)
    if found is None:
        missing = Missing(
            "the errors: predicted against true numbers, and the largest errors as pictures",
            "`ensemble kfold` trains runs with out-of-fold predictions of images whose numbers are known",
        )
        return Section("mistakes", "Errors", lead, (missing,))
    part, member = found
    unit = evidence.unit_of(part)
    columns = [one for one in columns_of(evidence, part, member) if len(one.labels)]
    blocks: list[Block] = [Text(_facts(evidence, part, member, columns))]
    for number, one in enumerate(columns[:MAX_DRAWN], start=1):
        blocks += _drawings(one, number, part, len(columns) > 1)
    if len(columns) > MAX_DRAWN:
        blocks.append(Text((f"The first {MAX_DRAWN} of {len(columns)} numbers are drawn.",)))
    blocks.append(_spread(columns, part))
    blocks += _by_range(columns, part)
    blocks += _by_group(evidence, part, columns)
    if not evidence.averages(part):
        blocks += [] if unit.is_person else _people(columns, part)
        blocks += _pictures(evidence, part, member, columns)
    return Section("mistakes", "Errors", lead, tuple(blocks))


def _facts(evidence: Evidence, part: Part, member: Predicted, columns: Sequence[Column]) -> tuple[str, ...]:
    where = "out of fold" if part.name == "oof" else "on test people"
    note = f" They are {note}." if (note := changed_note(part, member)) else ""
    unit = "" if part.persons_known else " People are unknown, so each image counts as one: intervals are too narrow."
    lines = [f"Predictions of `{member.name}`, {where}.{note}{unit}"]
    for one in columns[:MAX_DRAWN]:
        size = np.abs(one.errors)
        half, most = (float(np.quantile(size, share)) for share in (0.5, 0.9))
        digits = decimals_for(most)
        bias = one.mean(one.errors)
        start = f"{one.name}: half" if len(columns) > 1 else "Half"
        lines.append(
            f"{start} of the {one.unit.many} are predicted within {half:,.{digits}f} of the true number, nine of ten "
            f"within {most:,.{digits}f}. {_bias_text(bias, digits)} {regression_text(one)}"
        )
    return tuple(lines)


def _bias_text(bias: Interval, digits: int) -> str:
    found = number_text(bias, digits, signed=True)
    if math.isnan(bias.low) or bias.low <= 0 <= bias.high:
        return f"On average they are neither too high nor too low (mean error {found})."
    return f"On average they are too {'high' if bias.value > 0 else 'low'} (mean error {found})."


def regression_text(column: Column) -> str:
    """Return in one sentence whether predictions are pulled to the middle."""
    slope = column.slope
    if math.isnan(slope.value):
        return "All true numbers are the same, so whether predictions follow them is not known."
    found = f"{slope.value:.2f} [{slope.low:.2f}, {slope.high:.2f}]"
    if slope.high < 1:
        if slope.value <= 0:
            return f"Predictions do not grow with the true number (by {found} for each 1)."
        return (
            f"Predictions are pulled to the middle: where the true number is 10 higher, they are "
            f"{10 * slope.value:.1f} higher (slope {found}), so low numbers are predicted too high, and high ones too "
            "low."
        )
    if slope.low > 1:
        return f"Predictions are stretched: where the true number is 1 higher, they are {found} higher."
    return f"Predictions grow with the true number as they should (by {found} for each 1)."


# Drawings


@dataclass(frozen=True)
class _Curve:
    """Rows in bins of the true number: its mean, and of some values the mean with its CI and the inner 90%."""

    x: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]
    inner: list[tuple[float, float]]


def _curve(column: Column, values: NDArray[np.float64]) -> _Curve:
    groups, ends = quantile_groups(column.labels, min(CURVE, max(2, len(values) // 15)))
    found = _Curve([], [], [], [], [])
    for number in range(len(ends)):
        rows = groups == number
        inside = column.take(rows)
        mean = inside.mean(values[rows])
        found.x.append(float(column.labels[rows].mean()))
        found.mean.append(mean.value)
        found.low.append(mean.low)
        found.high.append(mean.high)
        low, high = np.quantile(values[rows], _INNER)
        found.inner.append((float(low), float(high)))
    return found


def _drawings(column: Column, number: int, part: Part, named: bool) -> list[Block]:
    end = f"-{number}" if named else ""
    where = "out of fold" if part.name == "oof" else "on test people"
    unit, truth, error = column.unit, _curve(column, column.values), _curve(column, column.errors)
    title = f"Predicted against true {column.name}, {where}"
    slope = column.slope
    text = (
        f"{unit.counted(len(column.labels))}. On the dashed diagonal, predictions equal the true number. The line "
        f"is the mean prediction, and 90% of the predictions of {unit.many} with such a true number lie in the band. "
        f"{_ends(truth, unit)}"
    )
    drawn = cloud(
        column.labels.tolist(),
        column.values.tolist(),
        title,
        text,
        f"true {column.name}",
        f"predicted {column.name}",
        line=Series("mean, and the inner 90%", truth.x, truth.mean, *_sides(truth.inner), tone=1),
        diagonal=True,
        above="predicted too high",
        below="predicted too low",
        dots=unit.any,
    )
    second = f"Error of {column.name} against the true number, {where}"
    residual = (
        f"Error: predicted minus true; 0 is right. The line is the mean error of {unit.many} with such a true number, "
        f"with its 95% CI (over people). {_worst_end(error, slope)}"
    )
    other = cloud(
        column.labels.tolist(),
        column.errors.tolist(),
        second,
        residual,
        f"true {column.name}",
        "error: predicted minus true",
        line=Series("mean error, and its 95% CI", error.x, error.mean, error.low, error.high, tone=1),
        reference=0.0,
        above="too high",
        dots=unit.any,
    )
    return [
        Figure(f"mistakes-truth{end}", drawn, title, text),
        Figure(f"mistakes-residuals{end}", other, second, residual),
    ]


def _sides(inner: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [low for low, _ in inner], [high for _, high in inner]


def _ends(curve: _Curve, unit: Unit) -> str:
    if len(curve.x) < 2:
        return ""
    digits = decimals_for(abs(curve.x[-1] - curve.x[0]))
    first, last = ((curve.x[at], curve.mean[at]) for at in (0, -1))
    return (
        f"{unit.many.capitalize()} with a true number near {first[0]:,.{digits}f} get {first[1]:,.{digits}f} on "
        f"average, those near {last[0]:,.{digits}f} get {last[1]:,.{digits}f}."
    )


def _worst_end(curve: _Curve, slope: Interval) -> str:
    if not curve.x:
        return ""
    at = int(np.argmax(np.abs(curve.mean)))
    digits = decimals_for(abs(curve.mean[at]))
    more = " Errors fall with the true number: predictions are pulled to the middle." if slope.high < 1 else ""
    return (
        f"It is farthest from 0 near {curve.x[at]:,.{decimals_for(abs(curve.x[at]))}f}: "
        f"{curve.mean[at]:+,.{digits}f}.{more}"
    )


# Tables


def _spread(columns: Sequence[Column], part: Part) -> Table:
    rows: list[Cells] = []
    for one in columns:
        size = np.abs(one.errors)
        digits = decimals_for(float(size.mean()))
        quantiles = (float(np.quantile(size, share)) for share in (0.5, 0.9, 1.0))
        agreement = np.quantile(one.errors, (0.025, 0.975))
        slope = one.slope
        rows.append(
            [
                one.name,
                *one.unit.cells(len(one.labels), one.people if part.persons_known else None),
                number_text(one.size, digits),
                number_text(one.mean(one.errors), digits, signed=True),
                *(f"{value:,.{digits}f}" for value in quantiles),
                f"{agreement[0]:+,.{digits}f} to {agreement[1]:+,.{digits}f}",
                f"{slope.value:.2f} [{slope.low:.2f}, {slope.high:.2f}]" if math.isfinite(slope.value) else None,
            ]
        )
    return Table(
        "mistakes-errors",
        "The size of the errors.",
        ["number", *unit_of_columns(columns).columns(), "mean size", "mean error", *_SPREAD],
        rows,
        note=f"{ci_note(part)} Mean size: the mean absolute error (MAE). Mean error: predicted minus true; 0 if "
        "predictions are neither too high nor too low on average. 95% of errors: their 2.5% and 97.5% quantiles "
        "(limits of agreement). Slope: by how much the prediction grows where the true number is 1 higher; below 1, "
        "predictions are pulled to the middle.",
    )  # fmt: skip


def _by_range(columns: Sequence[Column], part: Part) -> list[Block]:
    rows: list[Cells] = []
    for one in columns:
        groups, ends = quantile_groups(one.labels, RANGES)
        digits, shown = decimals_for(float(np.abs(one.errors).mean())), decimals_for(float(np.ptp(one.labels)))
        for number, (low, high) in enumerate(ends):
            inside = one.take(groups == number)
            rows.append(
                [
                    one.name,
                    f"{low:,.{shown}f} to {high:,.{shown}f}",
                    *one.unit.cells(len(inside.labels), inside.people if part.persons_known else None),
                    number_text(inside.size, digits),
                    number_text(inside.mean(inside.errors), digits, signed=True),
                ]
            )
    if not rows:
        return []
    return [
        Table(
            "mistakes-ranges",
            "Errors by the range of the true number.",
            ["number", "true value", *unit_of_columns(columns).columns(), "mean size", "mean error"],
            rows,
            2,
            f"Ranges with about equally many {unit_of_columns(columns).many}. {ci_note(part)} A mean error above 0 "
            "is too high.",
        )
    ]


def _by_group(evidence: Evidence, part: Part, columns: Sequence[Column]) -> list[Block]:
    rows: list[Cells] = []
    unit = evidence.row_of(part)
    for name, (groups, values) in groups_of(evidence, part).items():
        for one in columns:
            digits = decimals_for(float(np.abs(one.errors).mean()))
            for code, value in enumerate(values):
                kept = groups[one.rows] == code
                if not kept.any():
                    continue
                inside = one.take(kept)
                size, bias = inside.size, inside.mean(inside.errors)
                cells: Cells = [name, value, *([one.name] if len(columns) > 1 else [])]
                cells += unit.cells(len(kept.nonzero()[0]), inside.people if part.persons_known else None)
                rows.append([*cells, number_text(size, digits), number_text(bias, digits, signed=True)])
    if not rows:
        return []
    more = ["number"] if len(columns) > 1 else []
    return [
        Table(
            "mistakes-columns",
            "Errors by the columns of the table.",
            ["column", "value", *more, *unit.columns(), "mean size", "mean error"],
            rows,
            2 + len(more),
            f"{ci_note(part)} Groups with other true numbers have other errors: compare them with the table by range.",
        )
    ]


def _people(columns: Sequence[Column], part: Part) -> list[Block]:
    if not part.persons_known:
        return [
            Missing(
                "errors by person",
                "a column `person` in the table or `--labels FILE.csv` with id, label, person, says who is in an image",
            )
        ]
    rows: list[Cells] = []
    for one in columns:
        names = part.persons[one.rows]
        count = np.bincount(one.persons)
        means = [np.bincount(one.persons, values) / count for values in (np.abs(one.errors), one.errors, one.labels)]
        digits = decimals_for(float(means[0].mean()))
        first = np.unique(one.persons, return_index=True)[1]
        for at in np.argsort(-means[0], kind="stable")[: max(3, MAX_PEOPLE // len(columns))].tolist():
            person = str(names[first[at]])
            values = (f"{means[2][at]:,.{digits}f}", f"{means[0][at]:,.{digits}f}", f"{means[1][at]:+,.{digits}f}")
            rows.append([person, *([one.name] if len(columns) > 1 else []), int(count[at]), *values])
    more = ["number"] if len(columns) > 1 else []
    return [
        Table(
            "mistakes-people",
            "People with the largest errors.",
            ["person", *more, "images", "mean true", "mean size", "mean error"],
            rows,
            1 + len(more),
            "Mean size: the mean absolute error over the person's images. Where it is the mean error as well, all "
            "images are wrong in one direction: a wrong number in the table, or an unusual person.",
        )
    ]


def _pictures(evidence: Evidence, part: Part, member: Predicted, columns: Sequence[Column]) -> list[Block]:
    """Return the largest errors as pictures, a few of each person; each number has its share of them."""
    chosen = list[NumberError]()
    for one in columns:
        low, high = usual_differences(one.errors)
        seen: dict[int, int] = {}
        room = max(6, MAX_PICTURES // len(columns))
        for row in np.argsort(-np.abs(one.errors), kind="stable").tolist():
            person = int(one.persons[row])
            seen[person] = seen.get(person, 0) + 1
            if seen[person] > PER_PERSON or not one.errors[row]:
                continue
            true, value = float(one.labels[row]), float(one.values[row])
            chosen.append(NumberError(int(one.rows[row]), one.name, true, value, low, high))
            room -= 1
            if not room:
                break
    if not chosen:
        return []
    rows = judged_columns(evidence, part, member)
    each = "" if evidence.pooled is not None else f"At most {PER_PERSON} images of a person. "
    return [
        Gallery(
            "mistakes-worst",
            "The largest errors.",
            error_pictures(chosen, rows, columns, evidence.picture, part.persons_known, person_lines(evidence, part)),
            f"{each}A very large error may be a wrong number in the table: look whether all models say the same.",
            wide=evidence.pooled is not None,
        )
    ]
