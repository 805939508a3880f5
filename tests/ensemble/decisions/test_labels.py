"""Thresholds: how they are written, fitted and applied."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble.decisions.labels import (
    ABSTAINED,
    GUARANTEED,
    NO_PROMISE,
    OBSERVED,
    THRESHOLDS,
    UNREACHABLE,
    Aim,
    LabelRule,
    class_shares,
    fit_labels,
    missing_evidence,
    parse_aims,
    plain_rule,
)
from ensemble.learning.class_bias import expected_bias
from folds.errors import UsageError
from folds.metrics.classification import METRICS
from tests.ensemble.decisions.decision_worlds import CLASSES, world

NAN = float("nan")


@pytest.mark.parametrize(
    ("text", "aim"),
    [
        ("sick=.3", Aim("given", "sick", 0.3)),
        ("sick:sensitivity>=.95", Aim("sensitivity", "sick", 0.95)),
        ("sick:precision=0.9", Aim("precision", "sick", 0.9)),
        (" sick:specificity >= .9", Aim("specificity", "sick", 0.9)),
        ("a=b:c=.5", Aim("given", "a=b:c", 0.5)),
    ],
)
def test_an_aim_is_read(text: str, aim: Aim) -> None:
    assert parse_aims([text], ["well", "sick", "a", "a=b:c"]) == (aim,)


def test_aims_without_a_value_are_read_and_written() -> None:
    found = parse_aims(["sick:youden", "well=0.25"], CLASSES)
    assert list(map(str, found)) == ["sick:youden", "well=0.25"]
    assert str(parse_aims(["macro_f1"], CLASSES)[0]) == "macro_f1"
    assert str(parse_aims(["sick:sensitivity>=.95"], CLASSES)[0]) == "sick:sensitivity>=0.95"


@pytest.mark.parametrize(
    "texts",
    [
        ["ill=.3"],
        ["sick"],
        ["sick=1.5"],
        ["sick=nan"],
        ["sick:sensitivity"],
        ["sick:recall>=.9"],
        ["sick:youden=.3"],
        ["sick=.2", "sick:youden"],
        ["macro_f1", "sick=.2"],
    ],
)
def test_a_wrong_aim_is_an_error(texts: list[str]) -> None:
    with pytest.raises(UsageError, match="threshold"):
        parse_aims(texts, CLASSES)


def test_a_class_is_taken_from_its_threshold_on() -> None:
    rule = LabelRule("thresholds", ("a", "b", "c"), np.array([NAN, 0.2, NAN]))
    values = np.array([[0.7, 0.2, 0.1], [0.7, 0.19, 0.11], [0.3, 0.1, 0.6]])
    assert rule.decide(values).tolist() == [1, 0, 2]


def test_of_several_reached_thresholds_the_largest_ratio_wins() -> None:
    rule = LabelRule("thresholds", ("a", "b", "c"), np.array([NAN, 0.2, 0.1]))
    assert rule.decide(np.array([[0.5, 0.25, 0.25], [0.9, 0.05, 0.05]])).tolist() == [2, 0]


def test_with_a_threshold_for_every_class_none_of_which_is_reached_the_ratio_decides() -> None:
    rule = LabelRule("thresholds", CLASSES, np.array([0.9, 0.6]))
    assert rule.decide(np.array([[0.55, 0.45], [0.5, 0.5]])).tolist() == [1, 1]


def test_costs_decide_by_hand() -> None:
    # Missing a sick person costs 10, a false alarm 1: sick from a probability of 1/11 on.
    rule = LabelRule("costs", CLASSES, np.full(2, NAN), np.array([[0.0, 1.0], [10.0, 0.0]]))
    assert rule.decide(np.array([[0.92, 0.08], [0.9, 0.1]])).tolist() == [0, 1]
    with_abstention = LabelRule("costs", CLASSES, np.full(2, NAN), np.array([[0.0, 1.0, 0.3], [10.0, 0.0, 0.3]]))
    assert with_abstention.decide(np.array([[0.98, 0.02], [0.9, 0.1], [0.2, 0.8]])).tolist() == [0, ABSTAINED, 1]


def test_the_plain_rule_is_the_most_probable_class() -> None:
    values = world(20, classes=4).probabilities
    assert (plain_rule(("a", "b", "c", "d")).decide(values) == values.argmax(axis=1)).all()


@pytest.mark.parametrize("kind", ["sensitivity", "specificity"])
def test_a_fitted_threshold_reaches_its_aim_with_the_least_loss(kind: str) -> None:
    rows = world(200)
    (rule, statuses), column = fit_labels(rows, [Aim(kind, "sick", 0.95)], 0.0), 1
    assert statuses == (OBSERVED,)
    shares = {
        name: part[whole > 0].mean()
        for name, (part, whole) in class_shares(rows, rule.decide(rows.probabilities), column).items()
    }
    assert shares[kind] >= 0.95
    step = 0.02 if kind == "sensitivity" else -0.02
    stricter = LabelRule("thresholds", CLASSES, rule.thresholds + np.array([0, step]))
    part, whole = class_shares(rows, stricter.decide(rows.probabilities), column)[kind]
    assert part[whole > 0].mean() < 0.95


def test_a_guaranteed_threshold_is_more_careful_than_an_observed_one() -> None:
    rows = world(300)
    aims = [Aim("sensitivity", "sick", 0.9)]
    careful, statuses = fit_labels(rows, aims, 0.1)
    observed, _ = fit_labels(rows, aims, 0.0)
    assert statuses == (GUARANTEED,)
    assert careful.thresholds[1] < observed.thresholds[1]


def test_too_few_people_give_no_guarantee_and_it_is_said_why() -> None:
    rows = world(24)
    aim = Aim("sensitivity", "sick", 0.95)
    assert fit_labels(rows, [aim], 0.1)[1] == (OBSERVED,)
    people = len(np.unique(rows.persons[rows.labels == 1]))
    text = missing_evidence(rows, aim, 0.1)
    assert text.startswith(f"{people} people with 'sick' do not show sensitivity ≥ 0.95 with 90% confidence")
    assert text.endswith("even without any mistake, 45 people are needed")


def test_a_precision_that_no_threshold_reaches_is_said() -> None:
    rows = world(60, skill=0.0)
    wrong = np.where(rows.probabilities[:, 1] > 0.5, 0, rows.labels)  # high probabilities of sick are never right
    broken = type(rows)(rows.probabilities, wrong, rows.persons, rows.parts, rows.ids, rows.classes)
    assert fit_labels(broken, [Aim("precision", "sick", 0.99)], 0.1)[1] == (UNREACHABLE,)


def test_precision_takes_the_lowest_threshold() -> None:
    rows = world(200)
    rule, statuses = fit_labels(rows, [Aim("precision", "sick", 0.97)], 0.0)
    assert statuses == (OBSERVED,)
    part, whole = class_shares(rows, rule.decide(rows.probabilities), 1)["precision"]
    assert part[whole > 0].mean() >= 0.97
    lower = LabelRule("thresholds", CLASSES, rule.thresholds - np.array([0, 0.05]))
    part, whole = class_shares(rows, lower.decide(rows.probabilities), 1)["precision"]
    assert part[whole > 0].mean() < 0.97


def test_youden_is_the_largest_sum_over_all_thresholds() -> None:
    rows = world(80)
    rule, statuses = fit_labels(rows, [Aim("youden", "sick")], 0.1)
    assert statuses == (NO_PROMISE,)

    def index(threshold: float) -> float:
        decided = LabelRule("thresholds", CLASSES, np.array([NAN, threshold])).decide(rows.probabilities)
        shares = class_shares(rows, decided, 1)
        return sum(part[whole > 0].mean() for part, whole in (shares["sensitivity"], shares["specificity"]))

    best = max(index(value) for value in np.unique(rows.probabilities[:, 1]))
    assert index(float(rule.thresholds[1])) == pytest.approx(best)


def test_macro_f1_thresholds_are_those_of_the_class_bias() -> None:
    rows = world(150, classes=3, skill=1.5)
    rule, _ = fit_labels(rows, [Aim("macro_f1")], 0.1)
    bias = expected_bias(rows.probabilities, rows.labels, METRICS["macro_f1"])
    biased = (np.log(rows.probabilities) + bias).argmax(axis=1)
    assert (rule.decide(rows.probabilities) == biased).all()
    assert rule.thresholds.sum() == pytest.approx(1)


def test_class_shares_by_hand() -> None:
    rows = world(3, images=2)
    fixed = type(rows)(rows.probabilities, np.array([1, 1, 1, 1, 0, 0]), rows.persons, rows.parts, rows.ids, CLASSES)
    shares = class_shares(fixed, np.array([1, 0, 1, 1, 1, 0]), 1)
    assert shares["sensitivity"][0].tolist() == [0.5, 1, 0]
    assert shares["sensitivity"][1].tolist() == [1, 1, 0]
    assert shares["specificity"][0].tolist() == [0, 0, 0.5]
    assert shares["precision"][0].tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ([np.nan, np.nan, np.nan], [0, 1, 0]),
        ([np.nan, 0.3, np.nan], [1, 1, 0]),
        ([np.nan, 0.3, 0.05], [2, 1, 2]),  # of several, the one that exceeds its threshold by the largest factor
        ([0.9, np.nan, np.nan], [1, 1, 2]),
        ([0.9, 0.9, 0.9], [0, 1, 0]),
    ],
)
def test_thresholds_decide_between_classes(limits: list[float], expected: list[int]) -> None:
    values = np.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.5, 0.1, 0.4]])
    assert LabelRule(THRESHOLDS, ("a", "b", "c"), np.array(limits)).decide(values).tolist() == expected


def test_one_threshold_of_two_classes_decides_alone() -> None:
    rule = LabelRule(THRESHOLDS, ("no", "yes"), np.array([np.nan, 0.3]))
    assert rule.decide(np.array([[0.7, 0.3], [0.71, 0.29], [0.1, 0.9]])).tolist() == [1, 0, 1]
