"""The columns of arrays without names get their classes from labels, other members or the user; doubts are asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ensemble.alignment.naming import name_columns, positive_last
from ensemble.members.reading import Member
from ensemble.members.true_labels import TrueLabels
from folds.errors import EnsembleError
from folds.predictions.rows import SampleRows


def bare(columns: int, name: str = "a.npy", **more: object) -> Member:
    values = np.full((4, columns), 1 / columns)
    return Member(Path(name), name, values, None, False, None, None, None, name, **more)  # type: ignore[arg-type]


def labels(*names: str) -> TrueLabels:
    return TrueLabels(Path("y.csv"), np.arange(len(names)).astype(str), np.array(names))


def answers(*names: str) -> Member:
    rows = SampleRows(np.arange(len(names)).astype(str))
    return Member(Path("h.csv"), "h", None, np.array(names), False, None, rows, rows, "h")


def classes_of(member: Member, truth: TrueLabels | None = None, classes: tuple[str, ...] | None = None) -> list[str]:
    return list(name_columns([member], truth, classes).members[0].classes)


def test_columns_follow_the_labels_numbers_as_numbers() -> None:
    assert classes_of(bare(3)) == ["0", "1", "2"]
    assert classes_of(bare(3), labels("dog", "cat", "eel")) == ["cat", "dog", "eel"]
    floats = [f"{i}.0" for i in range(12)]
    assert classes_of(bare(12), labels(*reversed(floats))) == floats
    assert classes_of(bare(3), labels("0.0", "2.0")) == ["0.0", "1.0", "2.0"]
    assert classes_of(bare(3), labels("1", "2", "3")) == ["1", "2", "3"]
    assert classes_of(bare(2), labels("-1", "1")) == ["-1", "1"]


@pytest.mark.parametrize("names", [("1", "2", "3"), ("1.0", "2.0"), ("2", "3"), ("1", "2", "4")])
def test_classes_that_may_be_counted_from_1_are_asked(names: tuple[str, ...]) -> None:
    with pytest.raises(EnsembleError, match="0 never occurs") as caught:
        classes_of(bare(4), labels(*names))
    ending = ".0" if "." in names[0] else ""
    assert f"`classes={','.join(f'{i}{ending}' for i in (1, 2, 3, 4))}` if classes are counted from 1" in str(
        caught.value.hint
    )


def test_given_classes_name_the_columns_in_order() -> None:
    assert classes_of(bare(3), labels("2", "3"), ("1", "2", "3")) == ["1", "2", "3"]
    assert classes_of(bare(2), labels("ill", "well"), ("well", "ill")) == ["well", "ill"]
    table = bare(2, classes=("1", "0"), prefix="prob_")
    assert classes_of(table, None, ("cat", "dog")) == ["dog", "cat"]
    with pytest.raises(EnsembleError, match="has 3 columns, expected one for each of the 2 classes"):
        classes_of(bare(3), None, ("a", "b"))


def test_different_orders_of_columns_leave_an_array_open() -> None:
    one, other = bare(2, "b.csv", classes=("cat", "dog")), bare(2, "c.csv", classes=("dog", "cat"))
    assert list(name_columns([one, bare(2)]).members[1].classes) == ["cat", "dog"]
    with pytest.raises(EnsembleError, match="different orders: cat, dog; dog, cat"):
        name_columns([one, other, bare(2)])


def test_one_column_is_the_positive_of_two_classes() -> None:
    column = bare(2, one_column=True)
    assert classes_of(column, labels("0", "1")) == ["0", "1"]
    assert classes_of(column, labels("1.0", "0.0")) == ["0.0", "1.0"]
    assert classes_of(column, labels("1", "1")) == ["0", "1"]
    assert classes_of(column, labels("True", "False")) == ["False", "True"]
    assert classes_of(column, labels("ill", "well"), ("well", "ill")) == ["well", "ill"]
    assert list(name_columns([column, answers("no", "yes", "no")]).members[0].classes) == ["no", "yes"]
    assert list(name_columns([bare(2, one_column=True, positive="ill")], labels("well", "ill")).members[0].classes) == [
        "well",
        "ill",
    ]


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        (None, "found one column, and nothing says that there are two classes"),
        (labels("ill", "well"), "unknown which of ill and well"),
        (labels("0", "1", "2"), "but y.csv has 3 classes"),
    ],
)
def test_one_column_without_two_clear_classes_is_refused(truth: TrueLabels | None, message: str) -> None:
    with pytest.raises(EnsembleError, match=message) as caught:
        classes_of(bare(2, one_column=True), truth)
    assert "classes" in str(caught.value.hint)


def test_a_submission_of_one_column_is_class_1_against_0() -> None:
    named = name_columns([bare(2, "sub.csv", one_column=True, positive="target")])
    assert named.members[0].classes == ("0", "1")
    assert named.notes == ["sub.csv: one column read as the probability of class 1 against 0"]


def test_a_prefix_belongs_to_the_classes_if_the_labels_have_it() -> None:
    table = bare(2, classes=("0", "1"), prefix="class_")
    assert classes_of(table, labels("0", "1")) == ["0", "1"]
    assert classes_of(table, labels("class_0", "class_1")) == ["class_0", "class_1"]


def test_numbers_are_spelled_as_the_classes_are() -> None:
    named = name_columns([bare(2, classes=("0", "1")), answers("1.0", "0.0")], labels("0.0", "1.0"))
    assert named.labels is not None
    assert named.members[1].answers is not None
    assert named.labels.labels.tolist() == ["0", "1"]
    assert named.members[1].answers.tolist() == ["1", "0"]
    assert "y.csv: labels 0.0 read as 0, 1.0 read as 1" in named.notes


def test_the_larger_number_and_yes_are_positive() -> None:
    assert positive_last("a", ["10", "9"]) == ("9", "10")
    assert positive_last("a", ["Yes", "No"]) == ("No", "Yes")
