"""Show calibration: reliability with intervals over people, calibration errors, and the risk–coverage curve."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ensemble.analysis.units import Unit
from ensemble.decisions.abstention import area_interval, curve
from ensemble.learning.calibration import temperature
from ensemble.learning.combination import Calibration, Combination, combine
from ensemble.learning.nested import outer_fold_ids
from ensemble.learning.stack import Stack
from ensemble.report.calibration.share_bins import ShareBin, calibrated, share_bins
from ensemble.report.evidence.evidence import Evidence, Part, Predicted
from ensemble.report.evidence.scoring import ScoredPart, ci_note, main_scored, scored_part, size_of
from ensemble.report.page.blocks import Block, Figure, Missing, Section, Table, Text
from folds.errors import EnsembleError
from folds.metrics.calibration import BINS, calibration_error, reliability
from folds.metrics.classification import METRICS, Metric
from folds.metrics.confusion import argmax_classes
from folds.metrics.intervals import Interval, interval_over_people
from folds.predictions.file_names import BLEND_RECORD
from folds.utils.charts.curves import lines, reliability_diagram
from folds.utils.charts.series import Series

DRAWN_BINS = 10  # of the diagram, with equally many images in each
_SIMULATED = 200  # draws for the calibration error of a calibrated model
_AFTER, _BEFORE = "with a temperature", "before calibration"


def calibration_section(evidence: Evidence) -> Section:
    """Return how far confidences can be relied on, of the recommended member and of the simple choice."""
    blocks: list[Block] = []
    main = main_scored(evidence)
    if main is None:
        blocks.append(
            Missing(
                "how far confidences can be relied on",
                "labeled predictions are needed: `ensemble kfold --data DATA` trains runs and writes them to runs/",
            )
        )
    else:
        part, member, found = main
        curves = _curves(evidence, part, member, found)
        blocks += _reliability(evidence, part, found, curves)
        simple = part.member(evidence.simple or "")
        coverage = [_curve_of(evidence, part, member)]
        if simple is not None and simple.name != member.name:
            coverage.append(_curve_of(evidence, part, simple))
        blocks += _risk_coverage([one for one in coverage if one is not None], part, evidence.unit_of(part))
    return Section(
        "calibration",
        "Calibration",
        "Whether a prediction with a confidence of 80% is right in 80% of cases, and how many mistakes remain if "
        + ("uncertain images are left to a person." if evidence.pooled is None else "uncertain people are looked at."),
        tuple(blocks),
    )


@dataclass(frozen=True, eq=False)
class _Curve:
    """Probabilities (n, classes) whose calibration is shown."""

    name: str
    values: NDArray[np.floating]
    labels: NDArray[np.int64]
    persons: NDArray[np.int64]
    tone: int

    @property
    def confidence(self) -> NDArray[np.float64]:
        """Return (n,) the probability of the predicted class."""
        return np.asarray(self.values, np.float64).max(axis=1)

    @property
    def right(self) -> NDArray[np.bool_]:
        """Return (n,) whether the predicted class is right."""
        return argmax_classes(self.values) == self.labels


def _curve_of(evidence: Evidence, part: Part, member: Predicted) -> _Curve | None:
    found = scored_part(part, [member], evidence.per_person, evidence.task)
    return None if found is None else _Curve(member.name, found.values[0], found.labels, found.persons, 0)


def _curves(evidence: Evidence, part: Part, member: Predicted, found: ScoredPart) -> list[_Curve]:
    """Return the predictions as they are, and before or after calibration."""
    own = _Curve(member.name, found.values[0], found.labels, found.persons, 0)
    combination = _combination(evidence)
    recorded = member.in_sample is not None or member.name.startswith("blend ")  # not a vote made for the report
    if recorded and combination is not None and (combination.before is not None or combination.after is not None):
        before = _uncalibrated(evidence, part, member, combination)
        return [own] if before is None else [_Curve(_BEFORE, before[0], *before[1:], 1), own]
    values = _with_temperature(found)
    return [own] if values is None else [own, _Curve(_AFTER, values, found.labels, found.persons, 2)]


def _combination(evidence: Evidence) -> Combination | None:
    """Return how the blend was combined; None if that is unknown."""
    record = evidence.blend.get("combination") if isinstance(evidence.blend, Mapping) else None
    if not isinstance(record, Mapping):
        return None
    try:
        return Combination.from_record(record, len(evidence.classes), BLEND_RECORD)
    except (EnsembleError, TypeError, ValueError):
        return None  # damaged, or with its numbers in another file


def _uncalibrated(
    evidence: Evidence, part: Part, member: Predicted, combination: Combination
) -> tuple[NDArray[np.floating], NDArray[np.int64], NDArray[np.int64]] | None:
    """Return the predictions of the blend without its calibration, labels and persons; None without its runs."""
    runs = [part.member(name) for name in combination.runs]
    known = [one for one in runs if one is not None]
    of_people = evidence.per_person or evidence.pooled is not None  # who have another row in each run
    if len(known) < len(runs) or of_people or combination.extra is not None:
        return None
    present = np.stack([one.present for one in known])
    rows = np.flatnonzero((part.labels >= 0) & member.present & present.any(axis=0))
    if not len(rows):
        return None
    present = present[:, rows]
    values = np.stack([np.where(one.present[rows, None], one.probabilities[rows], 0) for one in known])
    persons = np.unique(part.persons[rows], return_inverse=True)[1]
    zeros = np.zeros(len(rows), np.int64)
    stack = Stack(combination.runs, values, None if present.all() else present, part.labels[rows], persons, zeros)
    return combine(stack, replace(combination, before=None, after=None)), part.labels[rows], persons


def _with_temperature(found: ScoredPart) -> NDArray[np.float64] | None:
    """Return the probabilities with a temperature that is fitted without the fold of each row; None with one fold."""
    parts = outer_fold_ids(found.persons, found.labels, found.fold)
    if len(np.unique(parts)) < 2:
        return None
    values = np.array(found.values[0], np.float64)
    for one in np.unique(parts):
        inside = parts == one
        fitted = temperature(found.values[0][~inside], found.labels[~inside])
        values[inside] = Calibration(np.array(fitted))(found.values[0][inside])
    return values


# Reliability


def _reliability(evidence: Evidence, part: Part, found: ScoredPart, curves: Sequence[_Curve]) -> list[Block]:
    drawn, unit = [(one, _bins(one)) for one in curves], evidence.unit_of(part)
    title = "Confidence and share of right predictions, with 95% CIs (over people)"
    description = f"{size_of(found, part, unit.is_person)}. " + " ".join(map(_overconfidence_text, curves))
    diagram = reliability_diagram(
        [calibrated(one.name, bins, unit, one.tone) for one, bins in drawn],
        title,
        description,
        "confidence: probability of the predicted class",
        "share of right predictions, 95% CI (over people)",
    )
    figure = Figure("calibration-reliability", diagram, title, description)
    sentences = Text(_sentences(evidence, curves, unit))
    return [sentences, figure, _summary(curves, part, unit), _bin_table(drawn, unit)]


def _bins(one: _Curve) -> list[ShareBin]:
    """Return bins with about equally many rows; rows of equal confidence stay together."""
    return share_bins(one.confidence, one.right, one.persons, min(DRAWN_BINS, max(1, len(one.confidence) // 10)))


def overconfidence(labels: NDArray[np.int64], values: NDArray[np.floating], persons: NDArray[np.int64]) -> Interval:
    """Return the mean confidence minus the accuracy, from −1 to 1, with its interval over people."""
    return interval_over_people(_OVERCONFIDENCE, labels, values, persons)


def _per_row(labels: NDArray[np.integer], values: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(values, np.float64).max(axis=1) - (argmax_classes(values) == labels)


_OVERCONFIDENCE = Metric(
    "overconfidence", "overconfidence", greater_is_better=False, per_row=_per_row, lower_bound=-1.0
)


def ece(labels: NDArray[np.int64], values: NDArray[np.floating]) -> float:
    """Return the expected calibration error of the predicted class, in 15 bins of equal width."""
    return calibration_error(reliability(labels, values, BINS))


def ece_by_chance(values: NDArray[np.floating]) -> float:
    """Return the mean calibration error of a calibrated model with these confidences: its images are right by chance.

    The images are drawn independently, so people with several images would raise it.
    """
    confidence = np.asarray(values, np.float64).max(axis=1)
    index = np.clip(np.searchsorted(np.linspace(0, 1, BINS + 1), confidence, side="left") - 1, 0, BINS - 1)
    random, errors = np.random.default_rng(0), []
    total = np.bincount(index, confidence, BINS)
    for _ in range(_SIMULATED):
        hits = np.bincount(index, random.random(len(confidence)) < confidence, BINS)
        errors.append(np.abs(hits - total).sum() / len(confidence))
    return float(np.mean(errors))


def _overconfidence_text(one: _Curve) -> str:
    found = overconfidence(one.labels, one.values, one.persons)
    text = f"{one.name}: {_verdict(found)}{_at_the_top(one)}."
    return text[0].upper() + text[1:] if one.name in (_AFTER, _BEFORE) else text


def _verdict(found: Interval) -> str:
    means = f"confidence minus accuracy {found.signed_text()}"
    if math.isnan(found.low) or found.low <= 0 <= found.high:
        return f"neither over- nor underconfident on average ({means})"
    return f"{'over' if found.value > 0 else 'under'}confident on average ({means})"


def _at_the_top(one: _Curve) -> str:
    """Return where the most confident predictions are overconfident, bin by bin of the diagram from the top; "" if the
    mean confidence of the top bin is within its interval.
    """
    found: ShareBin | None = None
    top = ""
    for each in reversed(_bins(one)):
        if not each.mean > each.share.high:
            break
        found = each
        top = top or f"confidence {each.mean:.3f}, right {each.share.text()}"
    return "" if found is None else f"; overconfident above {math.floor(found.low * 100) / 100:.2f} (top bin: {top})"


def _sentences(evidence: Evidence, curves: Sequence[_Curve], unit: Unit) -> tuple[str, ...]:
    own = next(one for one in curves if one.name not in (_AFTER, _BEFORE))
    accuracy, gap = float(own.right.mean()), overconfidence(own.labels, own.values, own.persons)
    lines = [
        f"`{own.name}` has a mean confidence of {own.confidence.mean():.3f} and an accuracy of {accuracy:.3f}: "
        f"{_verdict(gap)}{_at_the_top(own)}.",
        f"The expected calibration error (ECE) is {ece(own.labels, own.values):.3f}; a calibrated model with these "
        f"confidences would have {ece_by_chance(own.values):.3f} by chance.",
    ]
    other = next((one for one in curves if one is not own), None)
    combination = _combination(evidence)
    if other is not None and other.name == _BEFORE:
        lines.append(
            f"Without its calibration the blend would have an ECE of {ece(other.labels, other.values):.3f} (weights "
            "fitted on all people)."
        )
    elif other is not None:
        after, helps = ece(other.labels, other.values), not gap.contains(0)
        advice = "`ensemble blend RUNS… --calibrate after:temperature` does this" if helps else "it is not needed"
        left = _verdict(overconfidence(other.labels, other.values, other.persons)) + _at_the_top(other)
        lines.append(
            f"With a temperature fitted without the fold of each {unit.one}, the ECE would be {after:.3f}, and the "
            f"predictions would be {left}: {advice}."
        )
    if combination is not None and combination.bias is not None and evidence.recommended == own.name:
        lines.append("The blend moves its decisions toward the metric by a class bias: its confidences are shifted.")
    return tuple(lines)


def _summary(curves: Sequence[_Curve], part: Part, unit: Unit) -> Table:
    log_loss = METRICS["log_loss"]
    rows: list[list[str | int | float | None]] = []
    for one in curves:
        rows.append(
            [
                one.name,
                f"{one.confidence.mean():.3f}",
                f"{one.right.mean():.3f}",
                overconfidence(one.labels, one.values, one.persons).signed_text(),
                f"{ece(one.labels, one.values):.3f}",
                f"{ece_by_chance(one.values):.3f}",
                interval_over_people(log_loss, one.labels, one.values, one.persons).text(),
            ]
        )
    return Table(
        "calibration-summary",
        "Calibration errors" + (" out of fold." if part.name == "oof" else " on test people."),
        ["predictions", "mean confidence", "accuracy", "overconfidence", "ECE", "ECE by chance", "log loss"],
        rows,
        note=f"{ci_note(part)} Overconfidence: mean confidence minus accuracy; 0 is calibrated. ECE: mean distance of "
        f"confidence and accuracy in {BINS} bins of confidence (Guo et al., 2017). ECE by chance: that of a calibrated "
        f"model with these confidences and independent {unit.many}. Log loss: lower is better.",
    )


def _bin_table(drawn: Sequence[tuple[_Curve, Sequence[ShareBin]]], unit: Unit) -> Table:
    rows: list[list[str | int | float | None]] = [
        [one.name, f"{each.low:.3f} to {each.high:.3f}", each.count, f"{each.mean:.3f}", each.share.text()]
        for one, bins in drawn
        for each in bins
    ]
    return Table(
        "calibration-bins",
        "The bins of the diagram: confidence, and the share of right predictions with its 95% CI (over people).",
        ["predictions", "confidence", unit.many, "mean confidence", "right"],
        rows,
        left=2,
        note=f"Each bin has about equally many {unit.many}.",
    )


# Risk and coverage


def _risk_coverage(curves: Sequence[_Curve], part: Part, unit: Unit) -> list[Block]:
    if not curves:
        return []
    series, rows, areas = [], list[list[str | int | float | None]](), []
    for one in curves:
        points = curve(one.confidence, ~one.right, one.persons)
        area = area_interval(one.confidence, ~one.right, one.persons)
        areas.append(f"{one.name} {area.text()}")
        rows += [
            [one.name, f"{point.coverage:.2f}", f"{point.threshold:.3f}", point.images, point.risk.text()]
            for point in points
        ]
        ordered = sorted(points, key=lambda point: point.coverage)
        series.append(
            Series(
                one.name,
                [point.coverage for point in ordered],
                [point.risk.value for point in ordered],
                [point.risk.low for point in ordered],
                [point.risk.high for point in ordered],
                markers=True,
            )
        )
    first = curves[0]
    half = next((row for row in rows if row[0] == first.name and float(str(row[1])) <= 0.8), rows[0])
    answered = f"the most confident {float(str(half[1])):.0%} of the {unit.many} are answered by {first.name}"
    text = (
        f"Area under the risk–coverage curve (lower is better): {'; '.join(areas)}. If only {answered}, the share of "
        f"wrong answers is {half[4]}."
    )
    title = f"Share of wrong answers against the share of {unit.many} that are answered"
    drawn = lines(
        series,
        title,
        text,
        f"coverage: share of {unit.many} that are answered, the most confident first",
        "risk: share of wrong answers, 95% CI (over people)",
    )
    table = Table(
        "calibration-risk-coverage",
        f"Wrong answers if only {unit.many} with a confidence of at least the threshold are answered.",
        ["model", "coverage", "confidence from", unit.many, "risk"],
        rows,
        note=f"{ci_note(part)} People count equally. The area is the mean risk over all coverages (Geifman et al., "
        "2019). ensemble decide fits such a threshold with a guarantee.",
    )
    return [Figure("calibration-risk", drawn, title, text), table]
