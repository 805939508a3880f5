from __future__ import annotations

import numpy as np
import pytest

from folds.config.recipe import Recipe
from folds.data.raw_columns import RawColumns, build_table
from folds.data.table import Dataset
from folds.data.tasks import recorded_task, resolve_task, with_task
from folds.errors import UsageError


def data_of(*labels: str) -> Dataset:
    ids = [f"i{i}" for i in range(len(labels))]
    rows = [f"t.csv row {i}" for i in range(len(labels))]
    return Dataset(build_table(RawColumns("t.csv", ids, rows, None, list(labels), ids), training=True))


def test_telling_names_are_a_binary_decision_with_a_reason() -> None:
    found = resolve_task(None, None, ("benign", "malignant"))
    assert (found.name, found.positive) == ("binary", "malignant")
    assert "by its name, against benign" in found.reason
    assert resolve_task(None, None, ("cat", "dog")).name == "classes"
    assert resolve_task("classes", None, ("benign", "malignant")).name == "classes"


def test_a_guess_never_changes_the_columns_unless_the_metric_is_of_the_positive_class() -> None:
    found = resolve_task(None, None, ("cancer", "healthy"))
    assert found.name == "classes"
    assert "`task=binary` would make cancer" in found.reason
    assert resolve_task(None, None, ("cancer", "healthy"), wants_positive=True).positive == "cancer"


def test_the_positive_class_is_the_last_column_and_folds_see_the_same_table() -> None:
    data = data_of("cancer", "healthy", "healthy", "cancer")
    ordered = with_task(data, [Recipe(task="binary")])
    assert ordered.train.classes == ("healthy", "cancer")
    assert ordered.train.label_codes().tolist() == [1, 0, 0, 1]
    assert with_task(data, [Recipe()]) is data
    assert with_task(data, [Recipe(positive="healthy")]).train.classes == ("cancer", "healthy")
    assert np.array_equal(ordered.train.ids, data.train.ids)


@pytest.mark.parametrize(
    ("recipe", "labels", "message"),
    [
        (Recipe(task="binary"), ("cat", "dog"), "do not say which of cat and dog is the positive class"),
        (Recipe(task="binary"), ("a", "b", "c"), "is for two classes, found 3"),
        (Recipe(positive="mouse"), ("cat", "dog"), "positive class"),
        (Recipe(task="classes", positive="dog"), ("cat", "dog"), "needs .?task=binary"),
        (Recipe(task="binary", target="age"), ("no", "yes"), "is for the label, found .?target=age"),
    ],
)
def test_a_task_that_does_not_fit_is_told(recipe: Recipe, labels: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        with_task(data_of(*labels), [recipe])


def test_recipes_of_one_command_have_one_task() -> None:
    with pytest.raises(UsageError, match="one task"):
        with_task(data_of("no", "yes"), [Recipe(), Recipe(positive="no")])


def test_the_recorded_task_follows_from_the_settings_and_the_order_of_the_classes() -> None:
    assert recorded_task(None, None, "label", ("no", "yes")) == "binary"
    assert recorded_task("binary", "a", "label", ("b", "a")) == "binary"
    assert recorded_task(None, None, "label", ("cancer", "healthy")) == "classes"
    assert recorded_task("classes", None, "label", ("no", "yes")) == "classes"
    assert recorded_task(None, None, "label", ("none", "moderate")) == "classes"
    assert resolve_task(None, None, ("none", "moderate")).name == "classes"
    assert recorded_task(None, None, "age", ("0", "1")) == "classes"
