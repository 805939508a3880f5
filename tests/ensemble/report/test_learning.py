"""Learning curve: widths by the law and on subsets, people for a difference, measured curves, odd evidence."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble.report.evidence.evidence import Evidence, RunRecord
from ensemble.report.evidence.scoring import difference_of
from ensemble.report.page.blocks import Figure, Missing
from ensemble.report.training import learning
from ensemble.report.training.learning import (
    learning_section,
    people_for,
    relative_error,
    widths_by_law,
    widths_of_subsets,
)
from folds.metrics.classification import METRICS
from folds.metrics.intervals import Difference, Interval, interval_over_people
from tests.ensemble.report.evidence_worlds import draw_evidence
from tests.ensemble.report.section_parts import oof, table_of, text_of

ACCURACY = METRICS["accuracy"]


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "DRAWS", 6)


def rows_of(evidence: Evidence) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    part = oof(evidence)
    return part.labels, part.members[0].probabilities, np.unique(part.persons, return_inverse=True)[1]


def test_four_times_the_people_halve_the_width() -> None:
    interval = Interval(0.7, 0.6, 0.8, people=50, standard_error=0.05)
    found = {one.people: one for one in widths_by_law(interval, 0.1)}
    assert sorted(found) == [25, 50, 100, 200]
    assert found[50].width == pytest.approx(0.2)
    assert found[200].width == pytest.approx(0.1)
    assert found[100].low == pytest.approx(found[100].width * math.exp(-0.196))
    assert found[100].high == pytest.approx(found[100].width * math.exp(0.196))


def test_the_uncertainty_of_the_error_is_that_of_repeated_worlds() -> None:
    errors, claimed = [], []
    for seed in range(80):
        labels, values, persons = rows_of(draw_evidence(seed=seed, people=50, skills=(1.2,)))
        errors.append(interval_over_people(ACCURACY, labels, values, persons).standard_error)
        claimed.append(relative_error(ACCURACY, labels, values, persons))
    measured = np.std(errors) / np.mean(errors)
    assert np.mean(claimed) == pytest.approx(measured, rel=0.4)


def test_subsets_are_as_wide_as_the_law_says() -> None:
    labels, values, persons = rows_of(draw_evidence(people=200, skills=(1.2,)))
    now = interval_over_people(ACCURACY, labels, values, persons)
    for one in widths_of_subsets(ACCURACY, labels, values, persons, draws=20):
        expected = (now.high - now.low) * math.sqrt(200 / one.people)
        assert one.width == pytest.approx(expected, rel=0.15)
        assert one.low <= one.width <= one.high
    assert [one.people for one in widths_of_subsets(ACCURACY, labels, values, persons, draws=2)] == [50, 100, 150]


def test_subsets_are_the_same_each_time() -> None:
    labels, values, persons = rows_of(draw_evidence())
    assert widths_of_subsets(ACCURACY, labels, values, persons, draws=5) == widths_of_subsets(
        ACCURACY, labels, values, persons, draws=5
    )


def test_a_rare_class_is_in_every_subset() -> None:
    people = np.arange(40)
    labels = np.where(people < 4, 1, 0)
    values = np.random.default_rng(0).dirichlet([1, 1], 40)
    macro = METRICS["macro_f1"]
    seen = []
    original = interval_over_people

    def counting(metric: Any, own: np.ndarray, *rest: Any, **named: Any) -> Interval:
        seen.append(int((own == 1).sum()))
        return original(metric, own, *rest, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning, "interval_over_people", counting)
        widths_of_subsets(macro, labels, values, people, shares=(0.25, 0.5), draws=20)
    assert min(seen) >= 1
    assert set(seen[20:]) <= {1, 2, 3}


def test_the_people_for_a_difference_follow_its_error() -> None:
    change = Interval(0.02, -0.02, 0.06, people=100, standard_error=0.02)
    needed = people_for(Difference(0.7, 0.72, change, 0.3))
    assert needed == math.ceil(100 * (1.96 + 0.8416) ** 2)
    assert people_for(Difference(0.7, 0.7, replace(change, value=0.0), 1.0)) is None
    assert people_for(Difference(0.7, 0.7, replace(change, standard_error=None), 1.0)) is None


def test_the_section_tells_what_predictions_cannot_tell() -> None:
    section = learning_section(draw_evidence())
    text = text_of(section)
    assert "What kept predictions cannot tell" in text
    assert "with twice the people" in text
    assert any(isinstance(block, Missing) and "--learning-curve" in block.how for block in section.blocks)
    now = [row for row in table_of(section, "learning-widths").rows if row[:2] == ["standard error", 40]]
    part = oof(draw_evidence())
    interval = interval_over_people(METRICS["macro_f1"], part.labels, part.members[-1].probabilities, part.persons)
    assert now[0][2] == f"{interval.high - interval.low:.3f}"


def write_curve(folder: Path, text: str, details: Any = None) -> Evidence:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "learning_curve.csv").write_text(text, encoding="utf-8")
    if details is not None:
        (folder / "learning_curve.json").write_text(
            details if isinstance(details, str) else json.dumps(details), encoding="utf-8"
        )
    return draw_evidence(runs={"run0": RunRecord("run0", folder, 5, {}, {}, {})})


CURVE = "share,people,images,score,low,high\n1,160,800,0.70,0.64,0.75\n0.5,80,400,0.65,0.58,0.71\n"


def test_a_measured_curve_is_shown_by_people(tmp_path: Path) -> None:
    details = {"metric": "macro_f1", "doubled": [0.71, 0.74]}
    section = learning_section(write_curve(tmp_path, CURVE, details))
    found = table_of(section, "learning-score-1")
    assert found.rows == [["run0", "80", "0.650 [0.580, 0.710]"], ["run0", "160", "0.700 [0.640, 0.750]"]]
    assert "from 0.710 to 0.740 (extrapolated)" in text_of(section)
    assert not any(isinstance(block, Missing) for block in section.blocks)


def test_a_trained_curve_says_how_uncertain_its_extrapolation_is(tmp_path: Path) -> None:
    details = {"metric": "macro_f1", "doubled": [0.71, 0.74], "measured_with": "training"}
    section = learning_section(write_curve(tmp_path, CURVE, details | {"doubled_interval": [0.62, 0.8]}))
    assert "(extrapolated; with the 95% CI over the people who are scored, from 0.620 to 0.800)" in text_of(section)
    note = str(table_of(section, "learning-score-1").note)
    assert "run0: whole models" in note
    assert "frozen features" not in note


@pytest.mark.parametrize("details", [None, "{", [], {"metric": "x", "doubled": ["a", 1]}, {"doubled": None}])
def test_a_curve_without_its_details_is_still_shown(tmp_path: Path, details: Any) -> None:
    section = learning_section(write_curve(tmp_path, CURVE, details))
    assert len(table_of(section, "learning-score-1").rows) == 2


@pytest.mark.parametrize(
    "text", ["", "people,score\n1,2\n", CURVE.replace("0.65", "x"), CURVE.replace("0.65", "nan"), "\0\0"]
)
def test_a_damaged_curve_counts_as_missing(tmp_path: Path, text: str) -> None:
    section = learning_section(write_curve(tmp_path, text))
    assert any(isinstance(block, Missing) for block in section.blocks)


@pytest.mark.parametrize(
    "evidence",
    [
        draw_evidence(classes=("only",)),
        draw_evidence(people=3),
        draw_evidence(skills=(1.0,)),
        draw_evidence(recommended=None, simple=None),
        replace(draw_evidence(), oof=None),
        replace(draw_evidence(), test=None),
        replace(draw_evidence(), per_person=True),
        draw_evidence(metric="log_loss"),
        draw_evidence(metric="roc_auc"),
    ],
    ids="only-class three-people one-run no-choice no-oof no-test per-person log-loss roc-auc".split(),
)
def test_odd_evidence_has_widths(evidence: Evidence) -> None:
    section = learning_section(evidence)
    assert table_of(section, "learning-widths").rows
    assert all("nan" not in block.svg for block in section.blocks if isinstance(block, Figure))


def test_one_person_is_too_few() -> None:
    section = learning_section(draw_evidence(people=1, skills=(1.0,)))
    assert "only one person" in next(block.how for block in section.blocks if isinstance(block, Missing))


def test_people_with_equal_scores_are_said_to_be_too_few() -> None:
    section = learning_section(draw_evidence(people=2, per_person=1))
    assert "2 people have the same score" in next(block.how for block in section.blocks if isinstance(block, Missing))


def test_a_difference_that_is_no_gain_needs_no_study() -> None:
    gain, loss = draw_evidence(), draw_evidence(simple="blend soft", recommended="run0")
    part = oof(gain)
    found = difference_of(gain, part, part.member("run0"), part.member("blend soft"))
    assert found is not None
    assert (found.is_significant, found.difference.value > 0) == (False, True)
    assert "a study needs about" in text_of(learning_section(gain))
    assert "a study needs about" not in text_of(learning_section(loss))
