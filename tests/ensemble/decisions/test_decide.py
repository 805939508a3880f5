"""`ensemble.decide`: nested scores on unseen people, sources, warnings and wrong arguments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import ensemble as en
from ensemble.decisions.fit import RuleRequest, apply_rules, fit_rules, nested_decisions
from ensemble.decisions.labels import Aim
from ensemble.decisions.rows import LabeledRows, mean_interval, share_interval
from folds.errors import EnsembleError, UsageError
from tests.ensemble.decisions.decision_worlds import CLASSES, world


def arrays(rows: LabeledRows) -> dict[str, Any]:
    return {"y": np.array(CLASSES)[rows.labels], "groups": rows.persons, "classes": CLASSES}


def as_predictions(rows: LabeledRows, run: str = "net") -> en.Predictions:
    return en.Predictions.from_array(
        rows.probabilities,
        ids=rows.ids,
        classes=CLASSES,
        labels=np.array(CLASSES)[rows.labels],
        persons=rows.persons.astype(str),
        fold=rows.parts,
        run=run,
    )


def test_no_person_is_decided_by_rules_that_were_fitted_to_that_person() -> None:
    rows = world(60)
    request = RuleRequest((Aim("youden", "sick"),), None, 0.2, 0.8, confidence=0.0)
    unseen, fitted = nested_decisions(rows, request)
    assert len(fitted) == 5
    for part in range(5):
        inside = np.flatnonzero(rows.parts == part)
        rules = fit_rules(rows.take(np.flatnonzero(rows.parts != part)), request)
        alone = apply_rules(rules, rows.take(inside))
        assert (unseen.decided[inside] == alone.decided).all()
        assert (unseen.answered[inside] == alone.answered).all()
        assert alone.sets is not None
        assert unseen.sets is not None
        assert (unseen.sets[inside] == alone.sets).all()


def test_changing_the_labels_of_a_part_does_not_change_its_decisions() -> None:
    rows = world(60)
    labels = np.where(rows.parts == 0, 1 - rows.labels, rows.labels)
    changed = LabeledRows(rows.probabilities, labels, rows.persons, rows.parts, rows.ids, CLASSES)
    request = RuleRequest((Aim("sensitivity", "sick", 0.9),), None, 0.2, 0.8, confidence=0.0)
    inside = rows.parts == 0
    before, after = nested_decisions(rows, request)[0], nested_decisions(changed, request)[0]
    assert (before.decided[inside] == after.decided[inside]).all()
    assert (before.answered[inside] == after.answered[inside]).all()


def test_nested_scores_agree_with_thousands_of_new_people() -> None:
    """Averaged over worlds, the nested sensitivity is that on new people; the in-sample one of a fit to noise is not."""
    test = world(2000, seed=10**6, skill=1.5)
    nested, new = [], []
    for seed in range(12):
        rows = world(60, seed, skill=1.5)
        report = en.decide(rows.probabilities, **arrays(rows), threshold="sick:sensitivity>=.9", confidence=0.0)
        nested.append(report.scores["sensitivity of sick"].interval.value)
        hit = report.decision.apply(test.probabilities).codes == 1
        new.append(hit[test.labels == 1].mean())
    assert abs(np.mean(nested) - np.mean(new)) < 0.03


def test_the_report_has_what_was_asked_for() -> None:
    rows = world(200)
    report = en.decide(rows.probabilities, **arrays(rows), threshold="sick:sensitivity>=.9", abstain=0.1, sets=0.9)
    assert set(report.thresholds) == {"sick"}
    assert {"sensitivity of sick", "error of answers", "AURC", "coverage of an image"} <= set(report.scores)
    assert report.scores["sensitivity of sick"].target == 0.9
    assert report.scores["coverage of an image"].interval.people == 200
    frame = report.curve()
    assert list(frame.columns) == ["coverage", "threshold", "risk", "low", "high", "images"]
    assert frame.coverage.is_monotonic_decreasing
    assert frame.risk.iloc[0] == pytest.approx(report.scores["error without abstention"].interval.value)
    assert max(map(len, repr(report).splitlines()[:12])) <= 100
    assert len(repr(report).splitlines()) <= 20
    assert "<table>" in report._repr_html_()
    assert json.loads(json.dumps(report.to_dict()))["decision"]["unit"] == "image"


def test_nested_fits_that_answer_nothing_are_said() -> None:
    """Fits with four fifths of the people can lack the evidence that all of them have."""
    found = []
    for people in (40, 44, 48, 52):
        rows = world(people, skill=8.0, effect=0.1)
        found += en.decide(rows.probabilities, **arrays(rows), abstain=0.1).warnings
    assert any("nested fits, each with fewer people" in text for text in found)


def test_twelve_people_cannot_show_a_sensitivity_of_95_percent() -> None:
    rows = world(24)
    report = en.decide(rows.probabilities, **arrays(rows), threshold="sick:sensitivity>=.95")
    assert report.scores["sensitivity of sick"].verdict == "not shown"
    assert "45 people are needed" in report.warnings[0]
    assert report.decision.records["labels"].status == ("observed",)


def test_predictions_and_their_arrays_give_the_same_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, monkey = world(60), monkeypatch
    monkey.chdir(tmp_path)
    found = as_predictions(rows)
    Path("runs").mkdir()
    found.save("runs/net.oof.npy")
    options = {"threshold": "sick:youden", "sets": 0.8}
    by_object = en.decide(found, **options)
    by_array = en.decide(found.probabilities, **arrays(rows), ids=rows.ids, fold=rows.parts, **options)
    by_name = en.decide("net", **options)
    by_file = en.decide("runs/net.oof.npy", **options)
    tables = [one.decision.to_dict() for one in (by_object, by_array, by_name, by_file)]
    assert [one["source"].pop("kind") for one in tables] == ["predictions", "arrays", "run", "file"]
    tables[1]["source"]["name"] = "net"
    assert tables[0] == tables[1] == tables[2] == tables[3]
    assert tables[0]["source"]["basis"] == "cross-fitted"


def test_rules_for_people_are_fitted_to_means() -> None:
    rows = world(80)
    report = en.decide(rows.probabilities, **arrays(rows), sets=0.8, abstain=0.3, per_person=True, confidence=0.0)
    assert report.decision.unit == "person"
    means = np.stack([rows.probabilities[rows.persons == one].mean(axis=0) for one in range(80)])
    labels = np.array([rows.labels[rows.persons == one][0] for one in range(80)])
    by_hand = en.decide(means, y=np.array(CLASSES)[labels], groups=np.arange(80), classes=CLASSES, sets=0.8)
    assert report.decision.sets is not None
    assert by_hand.decision.sets is not None
    assert report.decision.sets.limits == pytest.approx(by_hand.decision.sets.limits)


def test_rows_without_a_label_are_left_out() -> None:
    rows = world(40)
    found = as_predictions(rows)
    labels = found.labels
    assert labels is not None
    labels[::4] = ""
    assert en.decide(found, sets=0.8).decision.source.images == 90


def test_dataframes_name_their_classes() -> None:
    rows = world(40)
    frame = pd.DataFrame(rows.probabilities[:, ::-1], columns=CLASSES[::-1])
    report = en.decide(frame, y=np.array(CLASSES)[rows.labels], groups=rows.persons, threshold="sick=.4")
    assert report.decision.classes == CLASSES[::-1]
    assert report.thresholds == {"sick": 0.4}


def test_given_thresholds_are_scored_and_not_fitted() -> None:
    rows = world(40)
    report = en.decide(rows.probabilities, **arrays(rows), threshold="sick=.4")
    hit = rows.probabilities[:, 1] >= 0.4
    assert report.scores["sensitivity of sick"].interval.value == pytest.approx(hit[rows.labels == 1].mean())


def test_costs_lower_the_mean_cost_and_uncalibrated_probabilities_are_said() -> None:
    rows = world(150, skill=1.5)
    cost = {"well": {"sick": 1.0}, "sick": {"well": 8.0}}
    report = en.decide(rows.probabilities, **arrays(rows), cost_matrix=cost)
    assert report.scores["mean cost"].interval.value < report.scores["mean cost of argmax"].interval.value
    sharp = rows.probabilities**4
    sharp /= sharp.sum(axis=1, keepdims=True)
    assert "overconfident" in en.decide(sharp, **arrays(rows), cost_matrix=cost).warnings[0]


def test_without_persons_it_is_said() -> None:
    rows = world(40)
    report = en.decide(rows.probabilities, y=np.array(CLASSES)[rows.labels], classes=CLASSES, sets=0.8)
    assert "every image counts as its own person" in report.warnings[0]
    assert not report.decision.source.persons_known


def test_aims_of_thresholds_that_compete_are_measured_and_not_guaranteed() -> None:
    rows = world(300)
    aims = ["sick:sensitivity>=.9", "well:sensitivity>=.9"]
    both = en.decide(rows.probabilities, **arrays(rows), threshold=aims).decision.records["labels"]
    assert both.status == ("none", "none")
    assert "several thresholds compete" in both.guarantee
    one = en.decide(rows.probabilities, **arrays(rows), threshold=aims[0]).decision.records["labels"]
    assert one.status == ("guaranteed",)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "expected a rule"),
        ({"abstain": 1.5}, "abstain must be above 0"),
        ({"sets": 0}, "sets must be above 0"),
        ({"sets": 0.9, "sets_for": "people"}, "unknown sets_for"),
        ({"sets": 0.9, "set_score": "ap"}, "unknown set_score"),
        ({"sets_for": "class", "abstain": 0.1}, "describe prediction sets"),
        ({"abstain": 0.1, "confidence": 1}, "confidence must be from 0"),
        ({"threshold": "sick=.3", "cost_matrix": {"well": {"sick": 1}, "sick": {"well": 1}}}, "both decide"),
        (
            {"abstain": 0.1, "cost_matrix": {"well": {"sick": 1, "abstain": 1}, "sick": {"well": 1, "abstain": 1}}},
            "both leave",
        ),
        ({"abstain": 0.1, "abstain_label": "well"}, "not a class"),
        ({"threshold": 3}, "threshold must be"),
        ({"cost_matrix": 3}, "cost_matrix must be"),
    ],
)
def test_wrong_arguments_are_errors(options: dict[str, Any], reason: str) -> None:
    rows = world(20)
    with pytest.raises(UsageError, match=reason):
        en.decide(rows.probabilities, **arrays(rows), **options)


def test_sources_without_labels_or_people_are_errors(tmp_path: Path) -> None:
    rows = world(20)
    with pytest.raises(UsageError, match="true classes"):
        en.decide(rows.probabilities, sets=0.9)
    with pytest.raises(UsageError, match="y is for arrays"):
        en.decide(as_predictions(rows), y=rows.labels, sets=0.9)
    with pytest.raises(EnsembleError, match="two people or more"):
        en.decide(rows.probabilities, y=rows.labels, groups=np.zeros(60), classes=["0", "1"], sets=0.9)
    with pytest.raises(UsageError, match="the person of each image"):
        en.decide(rows.probabilities, y=rows.labels, classes=["0", "1"], sets=0.9, per_person=True)
    with pytest.raises(EnsembleError, match="expected a run or a blend"):
        en.decide("net", sets=0.9, root=tmp_path)
    unlabeled = en.Predictions.from_array(rows.probabilities, ids=rows.ids, classes=CLASSES)
    with pytest.raises(EnsembleError, match="no labels"):
        en.decide(unlabeled, sets=0.9)


def test_share_intervals_are_those_of_the_scores() -> None:
    """With one image a person, the interval of a share is that of the accuracy."""
    right = np.arange(50) % 7 > 0
    proba = np.where(right[:, None] == [[True, False]], 0.9, 0.1)
    expected = en.score(
        ["a"] * 49 + ["b"],
        np.vstack([proba[:49], proba[49:, ::-1]]),
        metric="accuracy",
        groups=np.arange(50),
        classes=["a", "b"],
    )
    found = share_interval(right.astype(float), np.ones(50))
    assert (found.value, found.low, found.high) == pytest.approx((expected.value, expected.low, expected.high))


def test_intervals_of_nobody_and_of_one_person() -> None:
    assert np.isnan(share_interval(np.zeros(3), np.zeros(3)).value)
    assert share_interval(np.array([0.5]), np.ones(1)).warning.startswith("only one person")
    assert np.isnan(mean_interval(np.array([2.0])).low)
    assert share_interval(np.ones(20), np.ones(20)).low == pytest.approx(0.025 ** (1 / 20))
