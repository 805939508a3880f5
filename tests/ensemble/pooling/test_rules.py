"""Pooling rules equal their definitions, person by person."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from ensemble.pooling.bags import Bags
from ensemble.pooling.evidence import damped_log_odds, learned_pool, statistics
from ensemble.pooling.people import PeopleRows, people_rows
from ensemble.pooling.pooling import Pooling
from ensemble.pooling.rules import pool_images
from ensemble.pooling.spec import FIXED, parse_pool
from folds.errors import EnsembleError, UsageError
from folds.predictions.rows import SampleRows

CODES = np.array([2, 0, 2, 1, 2, 0, 2, 4], np.int64)  # person 3 has no image


def drawn(classes: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).dirichlet(np.ones(classes), len(CODES))


ONE_COLUMN: dict[str, Callable[[NDArray[np.float64]], float]] = {
    "mean": lambda p: float(p.mean()),
    "median": lambda p: float(np.median(p)),
    "max": lambda p: float(p.max()),
    "top-k": lambda p: float(np.sort(p)[::-1][:3].mean()),
    "noisy-or": lambda p: float(1 - np.prod(1 - p)),
}


@pytest.mark.parametrize("rule", FIXED)
@pytest.mark.parametrize(("classes", "ordered"), [(2, False), (4, False), (4, True)])
def test_a_rule_equals_its_definition(rule: str, classes: int, ordered: bool) -> None:
    values = drawn(classes)
    pooled = pool_images(values, Bags(CODES, 5), rule, 3, ordered)
    assert not pooled[3].any()
    for person in (0, 1, 2, 4):
        own = values[person == CODES]
        if rule == "mean":
            expected = own.mean(axis=0)
        elif ordered or classes == 2:
            least = [ONE_COLUMN[rule](own[:, grade:].sum(axis=1)) for grade in range(1, classes)]
            expected = -np.diff([1.0, *least, 0.0])
        else:
            each = np.array([ONE_COLUMN[rule](own[:, column]) for column in range(classes)])
            expected = each / each.sum()
        assert pooled[person] == pytest.approx(expected, abs=1e-6)
        assert pooled[person].sum() == pytest.approx(1)
        assert pooled[person].min() >= -1e-12


@pytest.mark.parametrize("rule", FIXED)
def test_one_image_is_its_person(rule: str) -> None:
    values = drawn(3)[3:4]
    assert pool_images(values, Bags(np.zeros(1, np.int64), 1), rule, 3, True)[0] == pytest.approx(values[0], abs=1e-6)


def test_the_order_of_the_images_does_not_matter() -> None:
    values, order = drawn(3), np.random.default_rng(1).permutation(len(CODES))
    for rule in FIXED:
        first = pool_images(values, Bags(CODES, 5), rule, 3, False)
        assert pool_images(values[order], Bags(CODES[order], 5), rule, 3, False) == pytest.approx(first)


def test_certain_images_do_not_hide_others() -> None:
    values = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    pooled = pool_images(values, Bags(np.array([0, 0, 1]), 2), "noisy-or", 3, False)
    assert np.isfinite(pooled).all()
    assert pooled[:, 1] == pytest.approx([1, 1], abs=1e-6)


def test_log_odds_add_up_without_damping() -> None:
    values, prior = drawn(3), np.array([0.5, 0.3, 0.2])
    pooled = damped_log_odds(values, Bags(CODES, 5), 0.0, prior)
    own = values[CODES == 2]
    expected = prior * np.prod(own / prior, axis=0)
    assert pooled[2] == pytest.approx(expected / expected.sum())
    mean = damped_log_odds(values, Bags(CODES, 5), 1.0, prior)[2]
    expected = np.exp(np.log(own).mean(axis=0))
    assert mean == pytest.approx(expected / expected.sum())


def test_statistics_equal_numpy() -> None:
    values = drawn(3)
    found = statistics(values, Bags(CODES, 5))[:, 2]
    logs = np.log(values[CODES == 2])
    logs -= logs.mean(axis=1, keepdims=True)
    each = [logs.mean(0), logs.max(0), logs.std(0), *np.quantile(logs, [0.25, 0.75], axis=0), np.full(3, np.log(4))]
    assert found == pytest.approx(np.array(each))
    only_mean = np.eye(1, 7)[0][None].repeat(3, axis=0)
    assert learned_pool(values, Bags(CODES, 5), only_mean) == pytest.approx(
        damped_log_odds(values, Bags(CODES, 5), 1.0, np.ones(3) / 3)
    )


@pytest.mark.parametrize(
    "text", ["mx", "max:k=2", "top-k:k=0", "top-k:k=1.5", "top-k:k=2:k=3", "log-odds:damping=2", "log-odds:d=1"]
)
def test_a_wrong_rule_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_pool(text)
    assert "\n" not in error.value.message
    assert "pool" in error.value.message


def test_a_record_gives_the_same_pooling() -> None:
    random = np.random.default_rng(0)
    given = [
        Pooling("top-k", True, 2),
        Pooling("max", majority=True),
        Pooling("log-odds", runs=("a",), damping=np.array([0.5]), prior=np.array([[0.2, 0.8]])),
        Pooling("learned", runs=("a", "b"), coefficients=random.normal(size=(2, 2, 7)).round(6)),
    ]
    values = drawn(2)
    for one in given:
        read = Pooling.from_record(one.as_record(), 2, "blend.toml")
        assert read.as_record() == one.as_record()
        assert (read.apply("a", values, Bags(CODES, 5)) == one.apply("a", values, Bags(CODES, 5))).all()
    record = given[3].as_record()
    for wrong in ({"runs": ["a"]}, {"coefficients": [[[1e9] * 7] * 2] * 2}, {"rule": "best"}, {"runs": []}):
        with pytest.raises(EnsembleError, match=r"blend\.toml: pooling"):
            Pooling.from_record(record | wrong, 2, "blend.toml")
    record = given[2].as_record()
    for wrong in ({"damping": [-1e6]}, {"damping": [1.5]}, {"prior": [[-0.2, 1.2]]}, {"prior": [[0.5, 0.2]]}):
        with pytest.raises(EnsembleError, match=r"blend\.toml: pooling: '(damping|prior)' must be"):
            Pooling.from_record(record | wrong, 2, "blend.toml")


PERSONS = np.array(["a", "a", "a", "b", "b", "c"])


def people_of(labels: list[str], classes: tuple[str, ...], pooling: Pooling | None = None) -> PeopleRows:
    attributes = {
        "age": np.array(["NA", "na", "34", " 30 ", "null", "n/a"]),
        "time": np.array(["1700000000", "1700000000.5", "1700000001", "NaN", "1700000003", "1700000004"]),
        "site": np.array(["NA", "NA", "x", "y", "y", "null"]),
    }
    rows = SampleRows(np.arange(6).astype(str), np.array(labels), PERSONS, attributes)
    return people_rows(rows, classes, "oof", pooling)


def test_missing_marks_are_no_values_of_a_person() -> None:
    found = people_of(["no"] * 6, ("no", "yes")).rows.attributes
    assert found["age"].tolist() == ["34", "30", ""]
    assert found["site"].tolist() == ["x", "y", ""]
    assert found["time"].tolist() == ["1700000000.5", "1700000003", "1700000004"]  # no digit is lost


@pytest.mark.parametrize("rule", ["max", "top-k", "noisy-or"])
def test_a_person_is_positive_if_an_image_is_for_rules_of_any_image(rule: str) -> None:
    two, grades = ["no", "no", "yes", "no", "no", ""], ["0", "0", "2", "1", "0", "0"]
    made = people_of(two, ("no", "yes"), Pooling(rule))
    assert made.mixed == 1
    assert made.rows.labels is not None
    assert made.rows.labels.tolist() == ["yes", "no", ""]
    for pooling, expected in (
        (Pooling(rule, ordered=True), ["2", "1", "0"]),
        (Pooling(rule), ["0", "0", "0"]),  # no order: the most frequent label
        (Pooling("mean", ordered=True), ["0", "0", "0"]),
        (Pooling(rule, ordered=True, majority=True), ["0", "0", "0"]),
        (None, ["0", "0", "0"]),
    ):
        labels = people_of(grades, ("0", "1", "2"), pooling).rows.labels
        assert labels is not None
        assert labels.tolist() == expected
