from __future__ import annotations

import numpy as np
import pytest

import folds
from folds.errors import UsageError
from folds.metrics.positive import guess_positive, positive_of


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (("0", "1"), "1"),
        (("2", "10"), "10"),
        (("No", "Yes"), "Yes"),
        (("benign", "malignant"), "malignant"),
        (("cancer", "healthy"), "cancer"),
        (("NORMAL", "PNEUMONIA"), "PNEUMONIA"),
        (("mask", "no_mask"), "mask"),
        (("with glasses", "without glasses"), "with glasses"),
        (("cat", "dog"), None),
        (("no", "normal"), None),
        (("a", "b", "c"), None),
    ],
)
def test_names_tell_the_positive_class(classes: tuple[str, ...], expected: str | None) -> None:
    found = guess_positive(classes)
    assert (None if found is None else found.name) == expected


def test_without_telling_names_the_second_class_is_positive_and_not_known_to_be() -> None:
    found = positive_of(("cat", "dog"))
    assert (found.name, found.is_known) == ("dog", False)
    with pytest.raises(UsageError, match="positive class"):
        positive_of(("cat", "dog"), "dgo")


def test_one_known_word_is_a_guess_and_two_are_sure() -> None:
    pairs = [("negative", "neutral"), ("excellent", "good"), ("none", "moderate"), ("benign", "malignant"), ("0", "1")]
    found = [guess_positive(pair) for pair in pairs]
    assert [one is not None and one.is_sure for one in found] == [False, False, False, True, True]


def test_a_score_is_that_of_the_class_that_is_named_or_told_by_its_name() -> None:
    random = np.random.default_rng(0)
    y = random.choice(["cancer", "healthy"], 60, p=[0.3, 0.7])
    p = np.clip(random.normal(np.where(y == "cancer", 0.6, 0.4), 0.2), 0, 1)  # of cancer
    both = np.stack([p, 1 - p], axis=1)  # in sorted order
    of_cancer = folds.score(y, both, metric="average_precision").value
    assert of_cancer == folds.score(y == "cancer", np.stack([1 - p, p], axis=1), metric="average_precision").value
    assert (
        of_cancer
        == folds.score(y, p, metric="average_precision").value
        == folds.score(y, p[:, None], metric="average_precision", positive="cancer").value
    )
    of_healthy = folds.score(y, both, metric="average_precision", positive="healthy").value
    assert of_healthy != of_cancer
    assert folds.score(y, 1 - p, metric="average_precision", positive="healthy").value == pytest.approx(of_healthy)
    assert folds.score(y, both).value == folds.score(y, both, positive="healthy").value  # macro F1 treats both alike
    change = folds.compare(y, p, np.ones(60) / 2, metric="pauc")
    assert change.first == folds.score(y, both, metric="pauc").value


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"y": [0, 1, 2], "proba": [0.1, 0.2, 0.3]}, "one column, and .?y.? has 3 classes"),
        ({"y": [0, 1], "proba": [-2.5, 3.0]}, "must hold probabilities, but row 0 is -2.5"),
        ({"y": ["a", "a"], "proba": [0.1, 0.2]}, ".?y.? has 1 classes"),
        ({"y": ["a", "b"], "proba": [[0.5, 0.5]] * 2, "positive": "c"}, "positive class"),
        ({"y": [0, 1, 2], "proba": np.eye(3), "positive": 1}, "a positive class is one of two, found 3"),
    ],
)
def test_one_column_and_a_positive_class_are_checked(arguments: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        folds.score(**arguments)
