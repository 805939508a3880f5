"""The order of grades: found in their names, given, or asked for; and given to a table."""

from __future__ import annotations

import pandas as pd
import pytest

import folds
from folds.config.lookup import all_settings
from folds.config.recipe import Recipe
from folds.data.grades import grade_order, grades_of_attribute, in_order
from folds.data.targets import resolve_target
from folds.errors import UsageError
from folds.metrics.task_names import ALL_TASKS
from folds.training.resolve import task_hint


@pytest.mark.parametrize(
    "order",
    [
        ("2", "9", "10"),
        ("-1", "0", "1.5"),
        ("grade 1", "grade 2", "grade 10"),
        ("<30", "30-59", ">=60"),
        ("18-29", "30-64", "65+"),
        ("No", "Mild", "Moderate", "Severe", "Proliferative"),
        ("low", "medium", "high"),
        ("I", "II", "III", "IV"),
    ],
)
def test_names_that_say_their_order(order: tuple[str, ...]) -> None:
    assert grade_order(sorted(order)) == order


@pytest.mark.parametrize(
    "names", [("cat", "dog"), ("mild", "severe", "other"), ("a1", "b2"), ("none", "normal"), ("<30", "<60", "90")]
)
def test_names_that_do_not(names: tuple[str, ...]) -> None:
    assert grade_order(names) is None


def table(labels: list[str]) -> folds.Dataset:
    ids = [f"{i}.jpg" for i in range(len(labels))]
    return folds.read_table(pd.DataFrame({"path": ids, "label": labels, "person": ids}), need_images=False)


def test_a_table_gets_the_order_of_its_grades() -> None:
    data = table(["mild", "none", "severe", "none"])
    assert data.train.classes == ("mild", "none", "severe")
    ordered = in_order(data, ()).train
    assert ordered.classes == ("none", "mild", "severe")
    assert ordered.label_codes().tolist() == [1, 0, 2, 0]
    given = in_order(data, ("severe", "mild", "none", "dead")).train
    assert given.classes == ("severe", "mild", "none", "dead")
    numbers = table(["0", "1", "10", "2"])
    assert in_order(numbers, ()) is numbers


def test_an_order_that_is_missing_or_wrong_is_said() -> None:
    data = table(["cat", "dog", "eel"])
    with pytest.raises(UsageError, match="do not say their order: cat, dog, eel"):
        in_order(data, ())
    with pytest.raises(UsageError, match="class_order=cat,dog lacks 'eel'"):
        in_order(data, ("cat", "dog"))
    with pytest.raises(UsageError, match="names a class twice"):
        in_order(data, ("cat", "dog", "eel", "cat"))
    with pytest.raises(UsageError, match="the attribute size has no value 'huge'"):
        grades_of_attribute(("small", "large"), ("small", "large", "huge"), "size")


def test_an_attribute_has_its_values_in_the_order_that_is_given() -> None:
    attributes = {"a": {"age": "old"}, "b": {"age": "young"}, "c": {"age": "old"}}
    target = resolve_target("age", ("a", "b", "c"), attributes, ("young", "old"))
    assert target.classes == ("young", "old")
    assert target.heads[0].of_label == (1, 0, 1)
    assert resolve_target("age", ("a", "b", "c"), attributes).classes == ("old", "young")


def test_the_setting_has_the_tasks_of_a_table() -> None:
    assert all_settings()["task"].choices == ALL_TASKS


def test_the_task_is_suggested_by_a_metric_of_grades_and_never_taken() -> None:
    assert "task=ordinal" in task_hint(Recipe(metric="quadratic_kappa"))
    assert task_hint(Recipe(metric="quadratic_kappa", task="classes")) == task_hint(Recipe()) == ""
    assert Recipe(metric="grade_mae").task is None
