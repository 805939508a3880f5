"""A submission has the rows, order and columns that were asked for, or says which id is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from folds.errors import EnsembleError, UsageError
from folds.metrics.task_names import MULTILABEL
from folds.predictions.files import PredictionMetadata
from folds.predictions.predictions import Predictions
from folds.predictions.rows import SampleRows
from folds.predictions.submission import submission

VALUES = np.array([[0.75, 0.25, 0], [0.125, 0.375, 0.5], [0, 1, 0]], np.float32)
MADE = Predictions.from_array(VALUES, ids=["a/1.jpg", "a/2.jpg", "a/3.jpg"], classes=["x", "y", "z"], split="test")


def lines(content: bytes) -> list[str]:
    return content.decode().splitlines()


def test_labels_and_probabilities() -> None:
    assert lines(submission(MADE)) == ["id,label", "a/1.jpg,x", "a/2.jpg,z", "a/3.jpg,y"]
    assert lines(submission(MADE, columns=["ImageID", "ans"]))[0] == "ImageID,ans"
    assert lines(submission(MADE, "probabilities"))[:2] == ["id,prob_x,prob_y,prob_z", "a/1.jpg,0.75,0.25,0"]


@pytest.mark.parametrize("ids", [["a/3.jpg", "a/1.jpg", "a/2.jpg"], ["3.jpg", "1.jpg", "2.jpg"], ["3", "1", "2"]])
def test_a_sample_submission_gives_rows_order_and_names(tmp_path: Path, ids: list[str]) -> None:
    like = tmp_path / "sample_submission.csv"
    like.write_text("image,target\n" + "".join(f"{name},0\n" for name in ids))
    assert lines(submission(MADE, like=like)) == ["image,target", f"{ids[0]},y", f"{ids[1]},x", f"{ids[2]},z"]


@pytest.mark.parametrize("names", [["z", "x", "y"], ["p_z", "p_x", "p_y"]])
def test_columns_of_a_sample_are_found_by_class_name(tmp_path: Path, names: list[str]) -> None:
    like = tmp_path / "sample.csv"
    like.write_text(f"id,{','.join(names)}\n" + "".join(f"{i},0,0,0\n" for i in (2, 1, 3)))
    assert lines(submission(MADE, like=like))[:2] == [f"id,{','.join(names)}", "2,0.5,0.125,0.375"]


@pytest.mark.parametrize(
    ("cell", "form", "expected"),
    [("0.5", None, "0.75"), ("0,5", None, "0.75"), ("0", "probabilities", "0.75"), ("0", None, "1")],
)
def test_one_column_of_a_binary_sample(tmp_path: Path, cell: str, form: str | None, expected: str, logged) -> None:
    made = Predictions.from_array([[0.25, 0.75], [1, 0]], ids=["a.jpg", "b.jpg"], classes=["0", "1"], split="test")
    like = tmp_path / "sample.csv"
    like.write_text(f"image_name;target\nb;{cell}\na;{cell}\n")
    assert lines(submission(made, form, like=like))[0::2] == ["image_name,target", f"a,{expected}"]
    gets = "the predicted class (" if expected == "1" else "the probability of class 1 ("
    assert f"column 'target' gets {gets}" in logged.lines[-1]
    assert "column 'target' gets" in logged.lines[-1]


def test_columns_of_a_sample_may_differ_in_case(tmp_path: Path) -> None:
    like = tmp_path / "sample.csv"
    like.write_text("id,Z,X,Y\n" + "".join(f"{i},0,0,0\n" for i in (1, 2, 3)))
    assert lines(submission(MADE, like=like))[1] == "1,0,0.75,0.25"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("id,label\n1,0\n2,0\n4,0\n", "1 of 3 ids of .* were not predicted, e.g. '4'|3 of 3 ids"),
        ("id,label\n1,0\n1,0\n2,0\n", "repeats 1 ids, e.g. '1'"),
        ("id,a,b\n1,0,0\n", "expected a column for the label, or one per class"),
    ],
)
def test_other_ids_or_columns_are_refused(tmp_path: Path, content: str, expected: str) -> None:
    like = tmp_path / "sample.csv"
    like.write_text(content)
    with pytest.raises(EnsembleError, match=expected):
        submission(MADE, like=like)


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected 2 names for form=label, found 3"):
        submission(MADE, columns=["a", "b", "c"])
    with pytest.raises(UsageError, match="repeats a name"):
        submission(MADE, columns=["a", "a"])
    with pytest.raises(UsageError, match="labels"):
        submission(MADE, "labels")
    with pytest.raises(UsageError, match="both name the columns"):
        submission(MADE, columns=["a", "b"], like=tmp_path / "s.csv")


def test_predictions_of_other_ids_are_left_out_and_counted(tmp_path: Path, logged) -> None:
    like = tmp_path / "sample.csv"
    like.write_text("id,label\n3,0\n1,0\n")
    assert lines(submission(MADE, like=like)) == ["id,label", "3,y", "1,x"]
    assert "has 2 ids: the other 1 of 3 predicted samples are not in the CSV, e.g. 'a/2.jpg'" in logged.notes[-1]


def test_two_names_of_columns_ask_for_the_probability_of_the_positive_class() -> None:
    made = Predictions.from_array([[0.75, 0.25], [0.5, 0.5]], ids=["a", "b"], classes=["benign", "malignant"])
    assert lines(submission(made, "probabilities", ["id", "target"])) == ["id,target", "a,0.25", "b,0.5"]


def test_columns_named_as_classes_get_what_their_names_say() -> None:
    assert lines(submission(MADE, "probabilities", ["id", "P_z", "P_x", "P_y"]))[1] == "a/1.jpg,0,0.75,0.25"
    assert lines(submission(MADE, "probabilities", ["id", "1", "2", "3"]))[1] == "a/1.jpg,0.75,0.25,0"
    two = Predictions.from_array([[0.75, 0.25]], ids=["a"], classes=["benign", "malignant"])
    assert lines(submission(two, "probabilities", ["id", "benign"])) == ["id,benign", "a,0.75"]
    meaning = PredictionMetadata("probability", "test", ("hat", "beard"), SampleRows(np.array(["a"])), task=MULTILABEL)
    labels = Predictions(np.array([[0.75, 0.25]], np.float32), meaning)
    assert lines(submission(labels, "probabilities", ["id", "beard", "hat"])) == ["id,beard,hat", "a,0.25,0.75"]
    assert lines(submission(labels, "decisions", ["id", "Beard", "Hat"], labels=["beard"])) == ["id,Beard,Hat", "a,1,0"]
    assert lines(submission(labels, "decisions", ["id", "first", "second"]))[1] == "a,1,0"
    with pytest.raises(UsageError, match="column 'hat' would get the label 'beard'"):
        submission(labels, "decisions", ["id", "cap", "hat"])
