"""Labels that stay open between two cuts: for a stated error, for costs, and in what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ensemble as en
from ensemble.decisions.abstention import NEVER
from ensemble.decisions.label_bands import Band, LabelCosts, band_of_costs, fit_band, read_label_costs
from ensemble.decisions.label_decision import LabelDecision, read_decision
from ensemble.decisions.label_report import LabelThresholds
from ensemble.decisions.rows import LabeledRows
from folds.errors import EnsembleError, UsageError

LABELS = ("hat", "beard")
PEOPLE = 300
# A third of the people are sure not to have it, a third to have it, and the others are half and half.
P = np.repeat([0.05, 0.5, 0.95], PEOPLE // 3)
HAS = np.concatenate([np.zeros(100), np.arange(100) % 2, np.ones(100)])


def rows_of(p: np.ndarray, has: np.ndarray) -> LabeledRows:
    number = np.arange(len(p))
    ids = number.astype(str)
    return LabeledRows(np.stack([1 - p, p], axis=1), has.astype(np.int64), number, number % 5, ids, ("not hat", "hat"))


def test_cuts_leave_open_what_neither_answer_is_right_for() -> None:
    rows = rows_of(P, HAS)
    for error in (0.1, 0.0):
        band = fit_band(rows, 0.1, error)
        assert 0.05 < band.low <= 0.5 < band.high <= 0.95
        assert band.decide(np.array([0.05, 0.5, 0.95])).tolist() == [0, -1, 1]
    # 20 people cannot show an error of 10% with 90% confidence.
    few = np.arange(0, PEOPLE, 15)
    assert fit_band(rows.take(few), 0.1, 0.1) == Band(0.0, NEVER)


def test_a_rare_label_is_not_denied_to_every_image() -> None:
    p, has = np.concatenate([np.full(291, 0.1), np.full(9, 0.9)]), np.concatenate([np.zeros(291), np.ones(9)])
    band = fit_band(rows_of(p, has), 0.1, 0.1)
    assert band.high == NEVER
    assert band.decide(np.array([0.1, 0.9])).tolist() == [0, -1]


def test_the_cuts_of_costs_have_the_smallest_expected_cost() -> None:
    once, twice = band_of_costs(LabelCosts(5, 1)), band_of_costs(LabelCosts(5, 1, 0.5))
    assert (once.low, once.high) == pytest.approx((1 / 6, 1 / 6))
    assert (twice.low, twice.high) == pytest.approx((0.1, 0.5))
    assert band_of_costs(LabelCosts(5, 1, 0.9)) == band_of_costs(LabelCosts(5, 1))  # asking is never cheaper
    assert band_of_costs(LabelCosts(0, 1)).high == NEVER
    p = np.linspace(0.003, 0.997, 200)
    for costs in (LabelCosts(5, 1, 0.5), LabelCosts(1, 3, 0.2), LabelCosts(2, 2), LabelCosts(3, 0)):
        expected = np.stack([p * costs.false_no, (1 - p) * costs.false_yes, np.full(200, costs.ask)])
        chosen = np.choose(np.where(np.isnan(expected), np.inf, expected).argmin(axis=0), [0, 1, -1])
        assert band_of_costs(costs).decide(p).tolist() == chosen.tolist()


def test_what_was_tested_is_what_is_denied() -> None:
    p, has = np.repeat([0.25, 0.5, 0.75], 100), np.concatenate([np.zeros(200), np.arange(100) % 2])
    band = fit_band(rows_of(p, has), 0.1, 0.1)  # votes of four models, on a cut that is tested
    assert band.decide(np.array([0.5, 0.51, 0.75])).tolist() == [0, -1, -1]


@pytest.mark.parametrize("costs", ["hat:fn=0,fp=1", "hat:fn=1,fp=0", "hat:fn=7,fp=3", "hat:fn=7,fp=3,ask=2.0999999999"])
def test_cuts_at_the_ends_are_written_and_leave_open_only_what_may_be(costs: str) -> None:
    found = decided(cost_matrix=costs)
    again = read_decision(json.loads(json.dumps(found.decision.to_dict())), LABELS)
    assert again.to_dict() == found.decision.to_dict()
    assert isinstance(again, LabelDecision)
    assert not np.isnan(again.apply([[0.0, 0.0], [1.0, 1.0], [0.4, 0.4]]).answers()).any()
    assert np.isfinite(found.scores["mean cost of hat"].interval.value)


def test_the_cuts_of_observed_values_are_written_and_read() -> None:
    # 1 − (1 − 0.3) is above 0.3: the lower cut stays below the higher one.
    p, has = np.repeat([0.1, 0.2, 0.4], 100), np.repeat([0.0, 0.0, 1.0], 100)
    for limit in (0.1, 0.3):
        band = fit_band(rows_of(p, has), limit, 0.0)
        assert band.low <= band.high


def test_costs_are_read_from_a_text_a_table_and_a_mapping(tmp_path: Path) -> None:
    expected = {"hat": LabelCosts(5, 1, 0.5), "beard": LabelCosts(2, 3, 1)}
    (tmp_path / "costs.csv").write_text("label,fn,fp,ask\nhat,5,1,0.5\nbeard,2,3,1\n")
    mapping = {"hat": {"fn": 5, "fp": 1, "ask": 0.5}, "beard": {"fn": 2, "fp": 3, "ask": 1}}
    for given in ("hat:fn=5,fp=1,ask=0.5;beard:fn=2,fp=3,ask=1", tmp_path / "costs.csv", mapping):
        assert read_label_costs(given, LABELS) == expected  # type: ignore[arg-type]
    for text, message in (
        ("hat:fn=5", "of 'hat', missing: fp"),
        ("hut:fn=5,fp=1", "'hut' is not a label"),
        ("hat:fn=5,fp=x", "found 'fp=x'"),
        ("hat:fn=5,fp=1;hat:fn=1,fp=1", "each label once"),
        ("hat:fn=0,fp=0", "every decision of 'hat' costs 0"),
        ("hat:fn=-1,fp=0", "fn of 'hat' is -1, expected 0"),
        ("hat:fn=1,fp=1,no=3", "unknown: no"),
    ):
        with pytest.raises(UsageError, match=message):
            read_label_costs(text, LABELS)
    with pytest.raises(EnsembleError, match=r"none\.csv cannot be read"):
        read_label_costs("none.csv", LABELS)


def decided(**options: Any) -> LabelThresholds:
    values, y = np.stack([P, 1 - P], axis=1), np.stack([HAS, 1 - HAS], axis=1)
    found = en.decide(values, y=y, groups=np.arange(PEOPLE), classes=LABELS, **options)
    assert isinstance(found, LabelThresholds)
    return found


def test_the_error_of_what_is_decided_is_scored_nested() -> None:
    found = decided(abstain=0.1)
    assert found.scores["error of yes of hat"].interval.value == 0
    assert found.scores["error of yes of hat"].target == 0.1
    assert found.scores["decided of hat"].interval.value == pytest.approx(2 / 3)
    assert found.scores["error without abstention of hat"].interval.value == pytest.approx(1 / 6)
    assert found.totals["decided"].value == pytest.approx(2 / 3)
    assert found.totals["error of decided"].value == 0
    assert any("at most 0.1 of the yes and at most 0.1 of the no" in line for line in found.lines())
    assert any(line.startswith("below that it is unsure down to: hat") for line in found.lines())
    assert any("for random new people" in line for line in decided(abstain=0.1, per_person=True).lines())
    applied = found.decision.apply([[0.95, 0.5], [0.05, 0.95], [0.5, 0.5]])
    assert applied.labels.tolist() == ["hat;?beard", "beard", ""]  # as where no label of a table is known
    assert applied.frame()["hat"].isna().tolist() == [False, False, True]
    assert applied.given.tolist() == [[True, False], [False, True], [False, False]]


def test_costs_are_scored_nested_and_written_as_plain_values() -> None:
    found = decided(cost_matrix={"hat": {"fn": 5, "fp": 1, "ask": 0.2}})
    # At 0.05 and 0.5 asking is cheapest, 0.2 each; with a threshold of 0.5 half of the middle third are false noes.
    assert found.scores["mean cost of hat"].interval.value == pytest.approx(0.2 * 2 / 3)
    assert found.scores["mean cost at 0.5 of hat"].interval.value == pytest.approx(5 / 6)
    assert found.thresholds == {"hat": pytest.approx(0.8), "beard": 0.5}
    record = json.loads(json.dumps(found.decision.to_dict()))
    assert record["unsure"] == {"hat": pytest.approx(0.04), "beard": 0.5}
    again = read_decision(record, LABELS)
    assert isinstance(again, LabelDecision)
    assert again.to_dict() == record
    assert again.apply([[0.5, 0.6]]).answers()[0, 1] == 1
    assert "unsure" not in decided(threshold="macro_f1").decision.to_dict()
    with pytest.raises(UsageError, match="abstain and cost_matrix both set the cuts of labels"):
        decided(abstain=0.1, cost_matrix="hat:fn=1,fp=1")
