"""Several labels or numbers of a sample as one text: the matrix comes back, also with other columns order."""

from __future__ import annotations

import numpy as np
import pytest

from folds.errors import EnsembleError, UsageError
from folds.metrics.task_names import MULTILABEL, REGRESSION
from folds.predictions.label_columns import encode_labels, label_matrix, label_texts
from folds.predictions.links import kind_of, predictions_of


@pytest.mark.parametrize("task", [MULTILABEL, REGRESSION])
@pytest.mark.parametrize("columns", [1, 3])
def test_the_matrix_comes_back(task: str, columns: int) -> None:
    random = np.random.default_rng(0)
    values = random.normal(50, 20, (40, columns)) if task == REGRESSION else random.integers(0, 2, (40, columns)) * 1.0
    values[random.random(values.shape) < 0.3] = np.nan
    names = [f"name {i}" for i in range(columns)]
    texts = label_texts(values, names, task)
    np.testing.assert_array_equal(label_matrix(texts, names, task), values)
    np.testing.assert_array_equal(label_matrix(texts, names[::-1], task), values[:, ::-1])
    assert ((texts == "") == np.isnan(values).all(1)).all()


def test_no_label_is_not_an_unknown_label() -> None:
    texts = label_texts(np.array([[0.0, 0], [np.nan, np.nan], [np.nan, 0]]), ["a", "b"], MULTILABEL)
    assert texts.tolist() == ["-", "", "?a"]
    np.testing.assert_array_equal(label_matrix(texts, ["a", "b"], MULTILABEL), [[0, 0], [np.nan] * 2, [np.nan, 0]])


@pytest.mark.parametrize("number", [0.1, 1 / 3, -1e-17, 2.0**60, 34.5])
def test_numbers_are_exact(number: float) -> None:
    assert float(label_texts(np.array([[number]]), ["x"], REGRESSION)[0]) == number


@pytest.mark.parametrize(
    ("text", "task", "message"),
    [
        ("hat;scarf", MULTILABEL, "names 'scarf', expected one of hat, beard"),
        ("age=3", REGRESSION, "names 'age', expected one of hat, beard"),
        ("hat=three", REGRESSION, "not a finite number"),
        ("hat=inf", REGRESSION, "not a finite number"),
    ],
)
def test_a_wrong_text_is_named(text: str, task: str, message: str) -> None:
    with pytest.raises(EnsembleError, match=message):
        label_matrix(np.array([text]), ["hat", "beard"], task)


@pytest.mark.parametrize("name", ["", "-", "a;b", "?a"])
def test_a_name_that_is_a_mark_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name"):
        label_texts(np.zeros((1, 2)), ["x", name], MULTILABEL)


def test_labels_of_classes_are_positions() -> None:
    assert encode_labels(np.array(["b", "a", "b"]), ("a", "b"), "classes").tolist() == [1, 0, 1]
    with pytest.raises(EnsembleError, match="the label 'c' is none of the 2 classes a, b"):
        encode_labels(np.array(["c"]), ("a", "b"), "classes")


def test_each_task_has_its_link() -> None:
    outputs = np.array([[0.0, 800.0], [-800.0, 3.0]])
    np.testing.assert_allclose(predictions_of("classes", outputs).sum(1), 1)
    np.testing.assert_allclose(predictions_of(MULTILABEL, outputs), [[0.5, 1], [0, 1 / (1 + np.exp(-3))]])
    np.testing.assert_array_equal(predictions_of(REGRESSION, outputs), outputs)
    assert (kind_of(REGRESSION), kind_of(MULTILABEL)) == ("number", "probability")
