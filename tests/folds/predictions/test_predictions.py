"""Predictions as an object: to a file, to a DataFrame, and back to the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from folds.errors import EnsembleError, UsageError
from folds.metrics.arrays import score
from folds.predictions.files import PredictionMetadata, SampleRows, write_prediction
from folds.predictions.predictions import Predictions, read_predictions


def some(n: int = 12, run: str = "swin") -> Predictions:
    rng = np.random.default_rng(0)
    labels = rng.choice(["ant", "bee", "cat"], n)
    return Predictions.from_array(
        rng.dirichlet(np.ones(3), n),
        ids=[f"{i}.jpg" for i in range(n)],
        classes=["ant", "bee", "cat"],
        labels=labels,
        persons=[f"p{i // 2}" for i in range(n)],
        fold=np.arange(n) // 2 % 3,
        run=run,
    )


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    made = some()
    path = made.save(tmp_path / "swin.oof.npy")
    back = read_predictions(path)
    assert back.probabilities.dtype == np.float32
    assert (back.probabilities == made.probabilities).all()
    for name in ("ids", "labels", "persons", "fold"):
        assert getattr(back, name).tolist() == getattr(made, name).tolist()
    assert (back.classes, back.run, back.split) == (made.classes, "swin", "oof")


def test_saving_again_is_fine_and_other_predictions_are_not_lost(tmp_path: Path) -> None:
    made = some()
    path = made.save(tmp_path / "swin.oof.npy")
    assert made.save(path) == path
    with pytest.raises(EnsembleError, match="holds other predictions"):
        made.take(np.arange(len(made))[::-1]).save(path)
    assert len(read_predictions(made.take([1, 2]).save(path, force=True))) == 2
    with pytest.raises(UsageError, match=r"ends in \.npy"):
        made.save(tmp_path / "swin.csv")


def test_a_frame_gives_back_what_it_was_made_of() -> None:
    made = some()
    frame = made.frame()
    assert list(frame.columns) == ["id", "label", "person", "fold", "ant", "bee", "cat"]
    back = Predictions.from_frame(frame, run="swin")
    assert (back.probabilities == made.probabilities).all()
    assert back.fold is not None
    assert back.fold.tolist() == frame["fold"].tolist()
    turned = Predictions.from_frame(frame.rename(columns={"id": "image"}), id="image", classes=["cat", "bee", "ant"])
    assert (turned.probabilities[:, ::-1] == made.probabilities).all()
    with pytest.raises(UsageError, match="unknown column 'name'"):
        Predictions.from_frame(frame, id="name")


def test_a_class_called_as_a_column_needs_a_prefix() -> None:
    made = Predictions.from_array([[0.5, 0.5]], ids=["a"], classes=["id", "cat"])
    with pytest.raises(UsageError, match="has the name of another column"):
        made.frame()
    assert list(made.frame(prefix="p_").columns) == ["id", "p_id", "p_cat"]


def test_the_score_is_that_of_the_arrays() -> None:
    made = some(60)
    expected = score(made.labels, made.probabilities, groups=made.persons, classes=made.classes)
    assert made.score() == expected
    unknown = Predictions.from_array(made.probabilities, ids=made.ids, classes=made.classes)
    with pytest.raises(EnsembleError, match="have no labels"):
        unknown.score()


def test_rows_without_a_label_are_not_scored() -> None:
    made = some(30)
    assert made.labels is not None
    labels = made.labels.copy()
    labels[10:] = ""
    rows = SampleRows(made.ids, labels, made.persons)
    partly = Predictions(made.probabilities, PredictionMetadata("probability", "oof", made.classes, rows))
    assert partly.score("accuracy") == made.take(np.arange(10)).score("accuracy")


def test_logits_become_probabilities(tmp_path: Path) -> None:
    rows = SampleRows(np.array(["a", "b"]))
    logits = np.array([[0.0, 0.0], [np.log(3), 0.0]], np.float32)
    write_prediction(tmp_path / "m.test.npy", logits, PredictionMetadata("logit", "test", ("x", "y"), rows, fold=1))
    found = read_predictions(tmp_path / "m.test.npy")
    assert found.probabilities == pytest.approx(np.array([[0.5, 0.5], [0.75, 0.25]]))
    assert found.fold is not None
    assert found.fold.tolist() == [1, 1]
    again = read_predictions(found.save(tmp_path / "p.test.npy"))
    assert (again.probabilities == found.probabilities).all()


def test_a_bare_array_is_not_taken_on_trust(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", np.full((2, 2), 0.5, np.float32))
    with pytest.raises(EnsembleError, match=r"has no sidecar m\.json"):
        read_predictions(tmp_path / "m.npy")
    with pytest.raises(EnsembleError, match="there is no prediction file"):
        read_predictions(tmp_path / "n.npy")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ids": ["a", "a"]}, "found 'a' 2 times"),
        ({"ids": ["a"]}, "one value for each of 2 rows"),
        ({"classes": None}, "must name the class"),
        ({"classes": ["x"]}, "1 names for 2 columns"),
        ({"labels": ["x", "z"]}, "'z', expected one of the classes"),
        ({"fold": [0, -1]}, "whole numbers from 0"),
        ({"split": "valid"}, "unknown split 'valid'"),
        ({"probabilities": [[1.0, 1.0], [0, 1]]}, "must hold probabilities"),
    ],
)
def test_what_cannot_be_predictions_is_refused(change: dict, said: str) -> None:
    given = {"probabilities": [[0.2, 0.8], [0.5, 0.5]], "ids": ["a", "b"], "classes": ["x", "y"]} | change
    with pytest.raises(UsageError, match=said):
        Predictions.from_array(**given)


def test_names_cannot_run_in_a_notebook_and_the_text_is_short() -> None:
    evil = "<script>alert(1)</script>\x1b[2J"
    made = Predictions.from_array(
        np.full((50, 2), 0.5), ids=[f"{evil}{i}" for i in range(50)], classes=[evil, "b"], labels=["b"] * 50, run=evil
    )
    assert "<script>" not in made._repr_html_()
    assert "&lt;script&gt;" in made._repr_html_()
    assert "\x1b" not in made._repr_html_() + repr(made)
    assert 'class="matrix"' in made._repr_html_()
    assert len(repr(made).splitlines()) <= 20
    json.dumps(made.to_dict())
    assert isinstance(made.frame(), pd.DataFrame)


def test_rows_are_taken_by_position_or_by_a_mask() -> None:
    made = some()
    mask = np.arange(len(made)) % 3 == 0
    for index in (mask, mask.tolist(), pd.Series(mask), np.flatnonzero(mask)):
        assert made.take(index).ids.tolist() == ["0.jpg", "3.jpg", "6.jpg", "9.jpg"]
    assert made.take([-1]).ids.tolist() == ["11.jpg"]
    assert len(made.take([])) == 0
    for index, said in (
        ([500], "index must be positions of rows, 0 to 11, found 500"),
        ([-13], "found -13"),
        ([True], "index must have one value for each of 12 rows, found 1 values"),
        ([0.5], r"index must be a list of positions of rows, found \[0.5\]"),
        ("a", "index must be a list of positions of rows, found 'a'"),
    ):
        with pytest.raises(UsageError, match=said):
            made.take(index)


def test_whole_floats_are_folds() -> None:
    about = {"probabilities": [[0.2, 0.8], [0.5, 0.5]], "ids": ["a", "b"], "classes": ["x", "y"]}
    for fold in ([0.0, 1.0], pd.Series([0.0, 1.0]), np.array([[0], [1]])):
        found = Predictions.from_array(**about, fold=fold).fold
        assert found is not None
        assert found.tolist() == [0, 1]
        assert found.dtype == np.int64
    for wrong in ([0.5, 1.0], [0.0, np.nan], "a", [0, 1, 2], ["0", "1"]):
        with pytest.raises(UsageError, match="fold must be whole numbers from 0"):
            Predictions.from_array(**about, fold=wrong)


def test_predictions_and_ids_with_other_indexes_are_refused() -> None:
    frame = pd.DataFrame([[0.2, 0.8], [0.5, 0.5]], columns=["x", "y"])
    assert Predictions.from_array(frame, ids=pd.Series(["a", "b"])).classes == ("x", "y")
    with pytest.raises(UsageError, match="probabilities and ids have different indexes"):
        Predictions.from_array(frame, ids=pd.Series(["a", "b"])[::-1])


def test_assumed_class_columns_are_said(caplog: pytest.LogCaptureFixture) -> None:
    frame = some().frame()
    with caplog.at_level("INFO", logger="folds"):
        assert Predictions.from_frame(frame).classes == ("ant", "bee", "cat")
    assert "classes: ant, bee, cat (all other columns of the DataFrame)" in caplog.text
    with pytest.raises(UsageError, match="all other columns are taken as classes: ant, bee, cat, age") as raised:
        Predictions.from_frame(frame.assign(age=40))
    assert raised.value.hint == "name the columns of the classes in `classes`"
    for wrong in (np.eye(3), {"id": ["a"]}, None):
        with pytest.raises(UsageError, match="frame must be a DataFrame, found"):
            Predictions.from_frame(wrong)  # type: ignore[arg-type]


def test_predictions_refuse_arguments_of_a_wrong_type(tmp_path: Path) -> None:
    made = some()
    for call, said in (
        (lambda: read_predictions(None), "path must be a path, found None"),  # type: ignore[arg-type]
        (lambda: read_predictions(["a"]), r"path must be a path, found \['a'\]"),  # type: ignore[arg-type]
        (lambda: made.save(3), "path must be a path, found 3"),  # type: ignore[arg-type]
        (lambda: made.save(tmp_path / "a.npy", force="no"), "force must be True or False"),  # type: ignore[arg-type]
        (lambda: made.score(per_person="no"), "per_person must be True or False"),  # type: ignore[arg-type]
    ):
        with pytest.raises(UsageError, match=said):
            call()


def test_a_single_person_is_warned_of_where_the_score_is_shown() -> None:
    made = some()
    alone = Predictions.from_array(
        made.probabilities, ids=made.ids, classes=made.classes, labels=made.labels, persons=["me"] * len(made)
    )
    for text in (repr(alone), alone._repr_html_()):
        assert "[unknown] (95% CI over people)" in text
        assert "warning: only one person: no confidence interval can be computed" in text


def of_columns(task: str) -> Predictions:
    rng = np.random.default_rng(3)
    labels = (rng.random((24, 3)) < 0.4).astype(float)
    values = np.clip(0.4 * labels + 0.6 * rng.random((24, 3)), 0, 1)
    labels[rng.random((24, 3)) < 0.2] = np.nan
    labels[5] = np.nan
    scale = 1 if task == "multilabel" else 50.5
    return Predictions.from_array(
        values * scale,
        ids=[f"{i}.jpg" for i in range(24)],
        classes=["hat", "beard", "age"],
        labels=labels * scale,
        persons=[f"p{i // 2}" for i in range(24)],
        task=task,
    )


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_several_labels_and_numbers_come_back(task: str, tmp_path: Path) -> None:
    made = of_columns(task)
    assert made.label_columns is not None
    assert made.labels is not None
    assert made.labels[5] == ""
    back = read_predictions(made.save(tmp_path / "some.oof.npy"))
    assert (back.task, back.classes) == (task, made.classes)
    assert back.score() == made.score()
    np.testing.assert_array_equal(back.label_columns, made.label_columns)
    frame = made.frame()
    again = Predictions.from_frame(frame, task=task)
    assert again.score() == made.score()
    wide = frame.drop(columns="label").assign(**{f"true_{i}": made.label_columns[:, i] for i in range(3)})
    listed = Predictions.from_frame(wide, label=["true_0", "true_1", "true_2"])
    assert (listed.task, listed.score()) == (task, made.score())
    expected = score(made.label_columns, made.probabilities, groups=made.persons, task=task, per_person=True)
    assert made.score(per_person=True).value == pytest.approx(expected.value)
    assert made.take([1, 2, 5]).label_columns is not None
    assert json.loads(json.dumps(made.to_dict()))["task"] == task
    assert ("ROC-AUC" if task == "multilabel" else "mean absolute error") in repr(made)
    assert 'class="matrix"' not in made._repr_html_()
    with pytest.raises(UsageError, match="does not fit"):
        made.score("quadratic_kappa")


def test_logits_of_labels_become_a_probability_each(tmp_path: Path) -> None:
    rows = SampleRows(np.array(["a"]), np.array(["x;?y"]))
    metadata = PredictionMetadata("logit", "test", ("x", "y"), rows, task="multilabel")
    write_prediction(tmp_path / "m.test.npy", np.array([[0.0, np.log(3)]]), metadata)
    found = read_predictions(tmp_path / "m.test.npy")
    assert found.probabilities == pytest.approx(np.array([[0.5, 0.75]]))
    assert found.score("accuracy").value == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": ["hat", "cat"]}, "labels: the label 'cat' names 'cat', expected one of hat, beard"),
        ({"labels": [[1, 0]]}, "one row for each of 2 rows, found 1"),
        ({"classes": ["hat", "a;b"]}, "cannot be the name of a label"),
        ({"probabilities": [[1.2, 0], [0, 1]]}, "must hold a probability of each label"),
        ({"task": "binary"}, "expected task classes, multilabel or regression, found task=binary"),
    ],
)
def test_what_cannot_be_labels_is_refused(change: dict, said: str) -> None:
    given = {"probabilities": [[0.2, 0.9], [0.5, 0.7]], "ids": ["a", "b"], "classes": ["hat", "beard"]}
    with pytest.raises(UsageError, match=said):
        Predictions.from_array(**given | {"task": "multilabel"} | change)
