"""Calibration: bins and errors by hand, intervals over people, before and after, risk and coverage."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import log_loss

from ensemble.decisions.abstention import area, risk_coverage
from ensemble.learning.combination import Calibration, Combination
from ensemble.report.calibration.calibration import (
    _Curve,
    _overconfidence_text,
    calibration_section,
    ece,
    ece_by_chance,
    overconfidence,
)
from ensemble.report.evidence.evidence import Evidence
from ensemble.report.page.blocks import Figure, Missing, Section
from folds.metrics.calibration import calibration_error, reliability
from tests.ensemble.report.evidence_worlds import draw_evidence
from tests.ensemble.report.section_parts import oof, table_of, text_of


def rows_of(section: Section, name: str) -> dict[Any, Any]:
    return {row[0]: row for row in table_of(section, name).rows}


def test_the_summary_has_the_known_errors() -> None:
    evidence = draw_evidence()
    part, main = oof(evidence), evidence.main
    assert main is not None
    values = main.probabilities
    row = rows_of(calibration_section(evidence), "calibration-summary")["blend soft"]
    confidence, right = values.astype(float).max(axis=1), values.argmax(axis=1) == part.labels
    assert row[1] == f"{confidence.mean():.3f}"
    assert row[2] == f"{right.mean():.3f}"
    assert row[3].startswith(f"{confidence.mean() - right.mean():+.3f} [")
    assert row[4] == f"{calibration_error(reliability(part.labels, values)):.3f}"
    exact = values.astype(float) / values.astype(float).sum(axis=1, keepdims=True)
    assert row[6].startswith(f"{log_loss(part.labels, exact):.3f} [")


def test_overconfidence_is_a_mean_over_people_with_its_interval() -> None:
    random = np.random.default_rng(1)
    people = np.arange(60)
    values = np.full((60, 2), 0.5)
    values[:, 0] = random.uniform(0.5, 1, 60)
    values[:, 1] = 1 - values[:, 0]
    labels = (random.random(60) > 0.6).astype(np.int64)
    found = overconfidence(labels, values, people)
    gaps = values[:, 0] - (labels == 0)
    assert found.value == pytest.approx(gaps.mean())
    assert found.standard_error == pytest.approx(gaps.std(ddof=1) / np.sqrt(60))
    assert found.low < found.value < found.high


def test_bins_hold_every_image_and_their_share_of_right_ones() -> None:
    evidence = draw_evidence()
    part, main = oof(evidence), evidence.main
    assert main is not None
    rows = [row for row in table_of(calibration_section(evidence), "calibration-bins").rows if row[0] == "blend soft"]
    assert sum(int(str(row[2])) for row in rows) == len(part)
    assert all(10 <= int(str(row[2])) <= 30 for row in rows)
    order = np.argsort(main.probabilities.max(axis=1), kind="stable")[: int(str(rows[0][2]))]
    share = (main.probabilities.argmax(axis=1) == part.labels)[order].mean()
    assert str(rows[0][4]).startswith(f"{share:.3f} [")


def test_many_images_of_a_person_do_not_narrow_an_interval() -> None:
    def width(evidence: Evidence) -> float:
        text = str(rows_of(calibration_section(evidence), "calibration-summary")["run0"][3])
        low, high = text.split("[")[1].rstrip("]").split(", ")
        return float(high) - float(low)

    one = draw_evidence(per_person=1, people=60, recommended="run0")
    part = oof(one)
    again = np.repeat(np.arange(len(part)), 4)
    members = tuple(replace(each, probabilities=each.probabilities[again]) for each in part.members)
    ids = np.array([f"{i}" for i in range(len(again))])
    fold = None if part.fold is None else part.fold[again]
    repeated = replace(
        part, ids=ids, labels=part.labels[again], persons=part.persons[again], fold=fold, members=members
    )
    assert width(replace(one, oof=repeated)) == pytest.approx(width(one), abs=2e-3)


def test_a_temperature_is_fitted_without_the_people_it_predicts() -> None:
    evidence = draw_evidence(recommended="run0")
    part, run = oof(evidence), oof(evidence).members[0]
    hot = run.probabilities**4
    hot /= hot.sum(axis=1, keepdims=True)
    evidence = replace(evidence, oof=replace(part, members=(replace(run, probabilities=hot), *part.members[1:])))
    found = rows_of(calibration_section(evidence), "calibration-summary")
    assert float(found["with a temperature"][4]) < float(found["run0"][4])
    assert found["with a temperature"][2] == found["run0"][2]  # the decisions stay
    assert "overconfident" in text_of(calibration_section(evidence))
    # Wrong labels in one fold change the temperature of the others only.
    assert part.fold is not None
    inside = part.fold == 0
    labels = np.where(inside, (part.labels + 1) % 3, part.labels)
    changed = replace(evidence, oof=replace(oof(evidence), labels=labels))
    values = [_cross_fitted(one) for one in (evidence, changed)]
    np.testing.assert_allclose(values[0][inside], values[1][inside])
    assert not np.allclose(values[0][~inside], values[1][~inside])


def _cross_fitted(evidence: Evidence) -> np.ndarray:
    from ensemble.report.calibration.calibration import _with_temperature
    from ensemble.report.evidence.scoring import scored_part

    found = scored_part(oof(evidence), [oof(evidence).members[0]])
    assert found is not None
    values = _with_temperature(found)
    assert values is not None
    return values


def test_a_calibrated_blend_is_shown_before_its_calibration() -> None:
    evidence = draw_evidence()
    part = oof(evidence)
    combination = Combination(("run0", "run1", "run2"), after=Calibration(np.array(0.5)))
    soft = np.mean([one.probabilities for one in part.members[:3]], axis=0)
    after = combination.after
    assert after is not None
    calibrated = replace(part.members[3], probabilities=after(soft).astype(np.float32))
    changed = replace(part, members=(*part.members[:3], calibrated))
    section = calibration_section(replace(evidence, oof=changed, blend={"combination": combination.as_record()}))
    found = rows_of(section, "calibration-summary")
    assert list(found) == ["before calibration", "blend soft"]
    assert found["before calibration"][4] == f"{ece(part.labels, soft):.3f}"
    assert "Without its calibration" in text_of(section)


@pytest.mark.parametrize("record", [{"combination": {"runs": "x"}}, {"combination": 3}, {"combination": {}}, {}])
def test_a_damaged_record_of_a_blend_is_ignored(record: dict[str, Any]) -> None:
    found = rows_of(calibration_section(draw_evidence(blend=record)), "calibration-summary")
    assert list(found) == ["blend soft", "with a temperature"]


def test_the_area_is_that_of_the_risk_coverage_curve() -> None:
    evidence = draw_evidence()
    part, main = oof(evidence), evidence.main
    assert main is not None
    values = main.probabilities.astype(np.float64)
    people = np.unique(part.persons, return_inverse=True)[1]
    expected = area(*risk_coverage(values.max(axis=1), values.argmax(axis=1) != part.labels, people)[1:])
    assert f"blend soft {expected:.3f} [" in text_of(calibration_section(evidence))
    first = table_of(calibration_section(evidence), "calibration-risk-coverage").rows[0]
    assert first[1] == "1.00"
    assert str(first[4]).startswith(f"{1 - (values.argmax(axis=1) == part.labels).mean():.3f} [")


def test_the_error_by_chance_is_that_of_simulated_labels() -> None:
    random = np.random.default_rng(5)
    top = random.uniform(0.5, 1, 400)
    values = np.stack([top, 1 - top], axis=1)
    errors = [ece((random.random(400) > top).astype(np.int64), values) for _ in range(200)]
    assert ece_by_chance(values) == pytest.approx(np.mean(errors), rel=0.1)


def test_missing_rows_are_left_out() -> None:
    evidence = draw_evidence()
    part, main = oof(evidence), evidence.main
    assert main is not None
    values = main.probabilities.copy()
    values[::3] = np.nan
    members = (*part.members[:3], replace(main, probabilities=values))
    section = calibration_section(replace(evidence, oof=replace(part, members=members)))
    kept = ~np.isnan(values[:, 0])
    row = rows_of(section, "calibration-summary")["blend soft"]
    assert row[2] == f"{(values[kept].argmax(axis=1) == part.labels[kept]).mean():.3f}"


@pytest.mark.parametrize(
    "evidence",
    [
        draw_evidence(classes=("only",)),
        draw_evidence(people=2, per_person=1),
        draw_evidence(skills=(1.0,)),
        draw_evidence(recommended=None, simple=None),
        replace(draw_evidence(), oof=None),
        replace(draw_evidence(), test=None),
        replace(draw_evidence(), oof=replace(oof(draw_evidence()), fold=None)),
        replace(draw_evidence(), per_person=True),
    ],
    ids=["one class", "two people", "one run", "no choice", "no oof", "no test", "no fold", "per person"],
)
def test_odd_evidence_has_a_diagram(evidence: Evidence) -> None:
    section = calibration_section(evidence)
    figures = [block for block in section.blocks if isinstance(block, Figure)]
    assert [one.name for one in figures] == ["calibration-reliability", "calibration-risk"]
    assert all("nan" not in one.svg for one in figures)


def test_without_labels_the_section_says_what_is_needed() -> None:
    part = oof(draw_evidence())
    unlabeled = replace(part, labels=np.full(len(part), -1))
    section = calibration_section(replace(draw_evidence(), oof=unlabeled, test=None))
    assert [type(block) for block in section.blocks] == [Missing]


def test_a_calibrated_mean_does_not_hide_an_overconfident_top() -> None:
    n = 400
    confidence = np.where(np.arange(n) < n // 2, 0.6, 0.95)
    # Right in 0.8 of the unsure half and in 0.75 of the sure one: the mean of both is calibrated.
    right = np.where(np.arange(n) < n // 2, np.arange(n) % 10 < 8, np.arange(n) % 4 < 3)
    values = np.stack([confidence, 1 - confidence], axis=1)
    one = _Curve("x", values, np.where(right, 0, 1), np.arange(n), 0)
    text = _overconfidence_text(one)
    assert "neither over- nor underconfident on average" in text
    assert "overconfident above 0.95 (top bin: confidence 0.950, right 0.750 [" in text
    calm = _Curve("x", np.where(values > 0.9, 0.75, np.where(values < 0.1, 0.25, values)), one.labels, one.persons, 0)
    assert "overconfident above" not in _overconfidence_text(calm)
