"""Scores of plain arrays: what the columns are, what is refused, and that numbers are those of the files' scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, log_loss

from folds.errors import EnsembleError, UsageError
from folds.metrics.arrays import compare, names_of, score
from folds.metrics.classification import METRICS
from folds.metrics.intervals import interval_over_people
from folds.metrics.report import score_predictions


def problem(seed: int = 0, n: int = 120) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    proba = rng.dirichlet(np.ones(3), n)
    proba[np.arange(n), y] += 0.4
    return y, proba / proba.sum(axis=1, keepdims=True), np.arange(n) // 4


def test_a_score_is_that_of_the_commands() -> None:
    y, proba, person = problem()
    for per_person in (False, True):
        expected = score_predictions(y, proba, person, "macro_f1", per_person).interval
        assert score(y, proba, groups=person, per_person=per_person) == expected
    assert score(y, proba, groups=person).value == pytest.approx(f1_score(y, proba.argmax(1), average="macro"))
    assert score(y, proba, groups=person, metric="log_loss").value == pytest.approx(log_loss(y, proba))


def test_people_are_told_apart_by_any_value() -> None:
    y, proba, person = problem()
    expected = score(y, proba, groups=person)
    assert score(y, proba, groups=[f"p{i:03d}" for i in person]) == expected
    assert score(y, proba, groups=pd.Series(person, dtype="category")) == expected
    assert score(y, proba, groups=person.astype(float)) == expected
    alone = score(y, proba)
    assert alone.people == len(y)
    assert alone.value == expected.value


def test_classes_are_sorted_as_scikit_learn_sorts_them() -> None:
    y, proba, person = problem()
    names = np.array(["ant", "bee", "cat"])
    expected = score(y, proba, groups=person)
    assert score(names[y], proba, groups=person) == expected
    assert score(y + 1, proba, groups=person) == expected
    for found in (
        score(names[y], proba[:, ::-1], groups=person, classes=names[::-1]),
        score(names[y], pd.DataFrame(proba, columns=names)[["cat", "ant", "bee"]], groups=person),
        score(np.array([2, 10, 9])[y], proba[:, [0, 2, 1]], groups=person),  # by number, not by text
    ):
        assert (found.value, found.low) == pytest.approx((expected.value, expected.low))


def test_an_absent_class_of_indices_counts() -> None:
    y, proba, person = problem()
    two = np.where(y == 2, 0, y)
    assert score(two, proba, groups=person).value == score(two, proba, groups=person, classes=[0, 1, 2]).value


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda y, p: {"y": y + 1, "proba": np.column_stack([p, 0 * p[:, 0]])}, "3 classes, the probabilities have 4"),
        (lambda y, p: {"y": np.array(["2", "10", "9"])[y], "proba": p}, "numbers as text"),
        (lambda y, p: {"y": y[:-1], "proba": p}, "has 120 rows"),
        (lambda y, p: {"y": y, "proba": p[:, 0]}, "proba is one column, and y has 3 classes"),
        (lambda y, p: {"y": y, "proba": np.log(p)}, "must hold probabilities"),
        (lambda y, p: {"y": y, "proba": np.where(p > 0.9, np.nan, p)}, "must be finite"),
        (lambda y, p: {"y": y, "proba": p.astype(str)}, "must hold numbers"),
        (lambda y, p: {"y": [None, *y[1:]], "proba": p}, "no value in 1 rows, first in row 0"),
        (lambda y, p: {"y": y, "proba": p, "groups": np.arange(5)}, "one value for each of 120 rows"),
        (lambda y, p: {"y": y, "proba": p, "classes": ["a", "b", "c"]}, "none of the 3 classes"),
        (lambda y, p: {"y": y, "proba": p, "classes": [0, 0, 1]}, "names a class twice"),
        (lambda y, p: {"y": y, "proba": p, "classes": [0, 1]}, "2 names for 3 columns"),
        (lambda y, p: {"y": y, "proba": p, "metric": "macro_f2"}, "did you mean macro_f1"),
        (lambda y, p: {"y": y, "proba": p, "metric": 3}, "a name or a function"),
        (lambda y, p: {"y": y, "proba": [[1, 2], [3]]}, "proba must have rows of one length, found lengths 1, 2"),
        (lambda y, p: {"y": y, "proba": np.ma.masked_array(p, p > 0.9)}, "proba must have no masked values"),
        (lambda y, p: {"y": np.ma.masked_array(y, y > 1), "proba": p}, "y must have no masked values"),
        (lambda y, p: {"y": y, "proba": p, "groups": np.ma.masked_array(y, y > 1)}, "groups must have no masked"),
        (lambda y, p: {"y": y, "proba": p, "classes": "abc"}, "classes must be a list with the class of each column"),
        (lambda y, p: {"y": y, "proba": p, "per_person": "no"}, "per_person must be True or False, found 'no'"),
        (lambda y, p: {"y": "a", "proba": p}, "y must be one value per row, found 'a'"),
        (lambda y, p: {"y": y, "proba": object()}, r"proba must be \(samples, classes\), found an object"),
        *(
            (lambda y, p, level=level: {"y": y, "proba": p, "level": level}, "level must be above 0 and below 1, found")
            for level in (95, 1.0, 0, -1, "x", None, float("nan"))
        ),
    ],
)
def test_what_cannot_be_scored_is_refused(change: Any, said: str) -> None:
    y, proba, _ = problem()
    with pytest.raises(UsageError, match=said) as raised:
        score(**change(y, proba))
    assert isinstance(raised.value, ValueError)


def test_a_function_can_be_the_metric() -> None:
    y, proba, person = problem()

    def cost(labels: Any, probabilities: Any) -> float:
        return float((labels != probabilities.argmax(1)).mean())

    cost.greater_is_better = False  # type: ignore[attr-defined]
    found = score(y, proba, groups=person, metric=cost)
    assert found.value == pytest.approx(1 - score(y, proba, groups=person, metric="accuracy").value)
    assert found.low < found.value < found.high
    with pytest.raises(EnsembleError, match="failed"):
        score(y, proba, groups=person, metric=lambda labels, probabilities: 1 / 0)


def test_a_comparison_is_paired_and_turns_around() -> None:
    y, proba, person = problem()
    other = np.random.default_rng(1).dirichlet(np.ones(3), len(y))
    found, back = compare(y, other, proba, groups=person), compare(y, proba, other, groups=person)
    assert found.difference.value == pytest.approx(found.second - found.first)
    assert found.second == score(y, proba, groups=person).value
    assert back.difference.value == pytest.approx(-found.difference.value)
    assert back.p_value == pytest.approx(found.p_value)
    assert compare(y, proba, proba, groups=person).p_value == 1
    person_wise = compare(y, other, proba, groups=person, per_person=True)
    assert person_wise.second == score(y, proba, groups=person, per_person=True).value


def test_arrays_that_do_not_belong_together_are_refused() -> None:
    y, proba, _ = problem()
    with pytest.raises(UsageError, match=r"`?first`? is 120 × 3, `?second`? is 120 × 2"):
        compare(y, proba, np.full((120, 2), 0.5))
    frame = pd.DataFrame(proba, columns=["0", "1", "2"])
    with pytest.raises(UsageError, match=r"columns of .* differ"):
        compare(y, frame, frame[["2", "1", "0"]])


@pytest.mark.parametrize("level", [95, 1.0, 0, "x"])
def test_a_level_of_a_comparison_is_between_0_and_1(level: Any) -> None:
    y, proba, _ = problem()
    with pytest.raises(UsageError, match="level must be above 0 and below 1"):
        compare(y, proba, proba, level=level)
    narrow, wide = (score(y, proba, level=inside) for inside in (0.5, 1 - 1e-16))
    assert wide.low <= narrow.low < narrow.high <= wide.high


def test_rows_with_different_indexes_are_refused() -> None:
    y, proba, person = problem()
    frame, labels, groups = pd.DataFrame(proba, columns=["0", "1", "2"]), pd.Series(y), pd.Series(person)
    expected = score(y, proba, groups=person)
    assert score(labels, frame, groups=groups) == expected
    assert score(labels.to_frame(), frame, groups=groups) == expected
    for change in ({"y": labels[::-1]}, {"proba": frame[::-1]}, {"groups": groups[::-1]}):
        with pytest.raises(UsageError, match="have different indexes, but rows are matched by position"):
            score(**({"y": labels, "proba": frame, "groups": groups} | change))
    with pytest.raises(UsageError, match="y and groups have different indexes"):
        score(labels, proba, groups=groups[::-1])
    for change in ({"first": frame[::-1]}, {"second": frame[::-1]}, {"y": labels[::-1]}):
        with pytest.raises(UsageError, match="different indexes"):
            compare(**({"y": labels, "first": frame, "second": frame} | change))
    assert score(labels[::-1], frame[::-1], groups=groups[::-1]).value == expected.value


def test_an_array_beside_a_frame_is_not_read_in_its_order() -> None:
    y, proba, person = problem()
    names = np.array(["ant", "bee", "cat"])
    expected = compare(names[y], proba, proba[::-1], groups=person)
    turned = pd.DataFrame(proba, columns=names)[["cat", "bee", "ant"]]
    for first, second in ((turned, proba[::-1]), (proba[::-1], turned)):
        with pytest.raises(UsageError, match=r"does not name the class of each column, .*\(cat, bee, ant\)"):
            compare(names[y], first, second, groups=person)
    assert compare(names[y], pd.DataFrame(proba, columns=names), proba[::-1], groups=person) == expected
    assert compare(names[y], turned[names], proba[::-1], groups=person, classes=names) == expected


def test_one_person_gets_a_warning_instead_of_bounds() -> None:
    y, proba, _ = problem()
    found = score(y, proba, groups=["me"] * len(y))
    assert str(found) == f"{found.value:.3f} [unknown] (only one person: no confidence interval can be computed)"
    assert "only one person" in found._repr_html_().partition(">")[2]
    assert found.to_dict()["low"] is None
    assert found.to_dict()["warning"] == found.warning
    change = compare(y, proba, proba[::-1], groups=["me"] * len(y))
    assert "[unknown], not significant (only one person" in str(change)
    by_function = score(
        y, proba, groups=["me"] * len(y), metric=lambda labels, p: float((labels == p.argmax(1)).mean())
    )
    assert by_function.to_dict()["high"] is None


def labels_and_numbers() -> tuple[Any, Any, Any]:
    """Three labels a row, one cell of which is not known, probabilities, and persons."""
    rng = np.random.default_rng(2)
    labels = (rng.random((60, 3)) < 0.4).astype(float)
    values = np.clip(0.4 * labels + 0.6 * rng.random((60, 3)), 0, 1)
    labels[7, 1] = np.nan
    return labels, values, np.arange(60) // 3


def test_columns_of_0_and_1_are_labels_and_others_numbers(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    labels, values, persons = labels_and_numbers()
    expected = interval_over_people(METRICS["roc_auc"], labels, values, persons)
    assert score(labels, values, groups=persons) == expected
    assert "has 3 columns of 0 and 1" in caplog.text
    frame = pd.DataFrame(labels, columns=["hat", "beard", "glasses"])
    proba = pd.DataFrame(values, columns=frame.columns)
    for y in (
        frame,
        frame[["glasses", "hat", "beard"]],
        frame.astype("Int64"),
        frame.astype(object).replace(np.nan, None),
    ):
        assert score(y, proba, groups=persons) == expected
    ages, guesses = 30 + 9.5 * values, 31 + 9 * values
    assert score(ages, guesses, groups=persons).value == pytest.approx(np.abs(ages - guesses).mean())
    assert "has 3 columns of numbers" in caplog.text
    one = score(ages[:, 0], guesses[:, 0], groups=persons, metric="within:error=1")
    assert one.value == pytest.approx(np.mean(np.abs(ages[:, 0] - guesses[:, 0]) <= 1))
    assert score(pd.DataFrame({"age": ages[:, 0]}), guesses[:, 0], task="regression", groups=persons).people == 20
    found = compare(labels, values, 1 - values, groups=persons, metric="log_loss", per_person=True)
    assert found.first < found.second
    assert "scored by those that any image has" in caplog.text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"proba": 3}, "must hold a probability of each label, but row"),
        ({"y": 2, "task": "multilabel"}, "y must hold 0, 1, or nan if a label is not known, found 2 in row"),
        ({"metric": "mae", "task": "multilabel"}, "metric=mae does not fit task=multilabel"),
        ({"metric": "quadratic_kappa"}, "does not fit task=multilabel: it scores classes, binary, ordinal"),
        ({"y": np.nan}, "has no known label"),
        ({"positive": "hat"}, "positive is one of two classes"),
        ({"task": "regresion"}, "did you mean regression"),
        ({"classes": ["a", "b"]}, "classes has 2 names for 3 columns"),
    ],
)
def test_what_is_no_matrix_of_labels_is_refused(change: dict[str, Any], said: str) -> None:
    labels, values, _ = labels_and_numbers()
    given = {"y": labels * change.pop("y", 1), "proba": values * change.pop("proba", 1)} | change
    with pytest.raises(UsageError, match=said):
        score(**given)


def test_columns_that_do_not_belong_together_are_refused() -> None:
    labels, values, _ = labels_and_numbers()
    with pytest.raises(UsageError, match="y has 3 columns, the predictions have 2"):
        score(labels, values[:, :2])
    with pytest.raises(UsageError, match="proba is 5 × 3, y is 60 × 3"):
        score(labels, values[:5])
    frame = pd.DataFrame(labels, columns=["a", "b", "c"])
    with pytest.raises(UsageError, match="the columns of proba and y differ"):
        score(frame, pd.DataFrame(values, columns=["a", "b", "d"]))
    with pytest.raises(UsageError, match="different indexes"):
        score(frame, pd.DataFrame(values, columns=frame.columns)[::-1])


def test_whole_numbers_are_classes_unless_it_is_said() -> None:
    y, guesses = np.arange(20) % 5, np.arange(20) % 5 + 0.3
    with pytest.raises(UsageError, match="one column, and y has 5 classes") as raised:
        score(y, guesses)
    assert "numbers are `task=regression`" in str(raised.value.hint)
    assert score(y, guesses, task="regression").value == pytest.approx(0.3)
    assert score(y, guesses, metric="rmse").value == pytest.approx(0.3)
    with pytest.raises(UsageError, match="does not fit task=classes"):
        score([0, 1, 0, 1], [0.1, 0.9, 0.2, 0.8], metric="mae", task="classes")


def test_a_list_of_texts_and_numbers_keeps_what_is_missing() -> None:
    assert names_of(["a", 1.0, np.float32(2)], "y").tolist() == ["a", "1", "2"]
    assert names_of([["a"], [3.0]], "y").tolist() == ["a", "3"]
    for missing in (["a", float("nan")], ["a", None], np.array(["a", ""])):
        with pytest.raises(UsageError, match=r"`?y`? has no value in 1 rows, first in row 1"):
            names_of(missing, "y")
