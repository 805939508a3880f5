"""Tables in which only persons are labeled: completed, or refused with the rows; scores are by person."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import folds
from ensemble.decisions.oof import rows_of_predictions
from folds.data.face import data_settings
from folds.data.readers import read_data
from folds.data.table import DataSpec
from folds.errors import EnsembleError, UsageError
from folds.metrics.classification import METRICS
from folds.predictions.files import PredictionMetadata, read_sidecar, write_prediction
from folds.predictions.reading import score_rows
from folds.predictions.rows import SampleRows


def table(**columns: list[Any]) -> pd.DataFrame:
    plain = {"path": [f"{i}.jpg" for i in range(6)], "person": list("aabbbc"), "label": ["x", "", "", "y", "", "x"]}
    return pd.DataFrame({**plain, **columns})


def read(frame: pd.DataFrame, **options: Any) -> folds.Dataset:
    return folds.read_table(frame, need_images=False, label_of="person", **options)


def test_every_image_takes_the_label_of_its_person() -> None:
    found = read(table())
    assert found.train.labels is not None
    assert found.train.labels.tolist() == list("xxyyyx")
    assert any(
        "labels are those of 3 people, not of images; 3 images without a label of their own" in line
        and "scores are by person" in line
        for line in found.notes
    )
    with pytest.raises(EnsembleError):
        folds.read_table(table(), need_images=False)


def test_a_data_frame_is_trained_on_as_labels_of_persons(tmp_path: Path) -> None:
    settings = data_settings(read(table()), tmp_path)
    assert settings["label_of"] == "person"
    again = read_data(DataSpec(**settings), need_images=False).train
    assert again.labels is not None
    assert again.labels.tolist() == list("xxyyyx")


def test_rows_of_a_person_that_disagree_are_named() -> None:
    with pytest.raises(EnsembleError, match="another label than other rows of the same person") as error:
        read(table(label=["x", "", "", "y", "x", "x"]))
    assert "'x', and 'y' in another row of person 'b'" in str(error.value.details)
    cased = table(label=["x", "", "", "Y", "y", "x"])
    with pytest.raises(EnsembleError, match="another label"):
        read(cased)
    assert read(cased, merge_spellings=True).train.classes == ("Y", "x")


@pytest.mark.parametrize(
    ("columns", "options", "expected"),
    [
        ({"label": ["x", "", "", "y", "", ""]}, {}, "1 person has no label in any row, e.g. 'c'"),
        ({"person": ["a", "a", "unknown", "b", "b", "c"]}, {"missing_persons": "own"}, "1 person has no label"),
    ],
)
def test_people_without_a_label_are_refused(columns: dict[str, Any], options: dict[str, Any], expected: str) -> None:
    with pytest.raises(EnsembleError) as error:
        read(table(**columns), **options)
    assert expected in error.value.message


def test_another_value_is_refused() -> None:
    with pytest.raises(UsageError, match="label_of"):
        folds.read_table(table(), need_images=False, label_of="site")


def test_predictions_for_labels_of_persons_are_scored_by_person(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    labels = (np.arange(30) // 3 % 2).astype(int)
    rows = SampleRows(np.arange(30).astype(str), np.array(["no", "yes"])[labels], (np.arange(30) // 3).astype(str))
    values = random.dirichlet([1, 1], 30).astype(np.float32)
    plain = PredictionMetadata("probability", "oof", ("no", "yes"), rows, run="r")
    weak = PredictionMetadata("probability", "oof", ("no", "yes"), rows, run="r", label_of="person")
    path = write_prediction(tmp_path / "r.oof.npy", values, weak)
    read_again = read_sidecar(path)
    assert read_again is not None
    assert read_again.label_of == "person"
    found = score_rows(values, read_again, "log_loss")
    assert found.rows == 10
    by_person = values.reshape(10, 3, 2).mean(axis=1)
    assert found.interval.value == pytest.approx(METRICS["log_loss"](labels[::3], by_person))
    assert score_rows(values, plain, "log_loss").rows == 30
    assert folds.Predictions(values, weak).score("log_loss").value == pytest.approx(found.interval.value)
    with pytest.raises(UsageError, match="decision rules are for people"):
        rows_of_predictions(folds.Predictions(values, weak), "r", "run", False)
    import ensemble as en

    assert en.blend([str(path)], metric="log_loss", progress=False).nested == pytest.approx(found.interval)


def test_persons_are_merged_before_their_labels_are_compared() -> None:
    people = {"person": ["12", "12.0", "13", "13.0", "14", "14"]}
    with pytest.raises(EnsembleError, match="another label than other rows"):
        read(table(**people, label=["x", "y", "y", "", "x", ""]), merge_spellings=True)
    found = read(table(**people, label=["x", "", "", "y", "x", ""]), merge_spellings=True)
    assert found.train.labels is not None
    assert found.train.labels.tolist() == list("xxyyxx")
    assert found.train.persons is not None
    assert len(set(found.train.persons.tolist())) == 3


def test_texts_that_mark_a_missing_label_are_filled_in() -> None:
    found = read(table(label=["<NA>", "x", "", "y", "#N/A", "x"]))
    assert found.train.labels is not None
    assert found.train.labels.tolist() == list("xxyyyx")


def cells(*rows: tuple[Any, Any]) -> pd.DataFrame:
    frame = table().drop(columns="label")
    return frame.assign(hat=[row[0] for row in rows], glasses=[row[1] for row in rows])


def test_several_labels_and_numbers_are_filled_in_cell_by_cell() -> None:
    rows = ((1, None), (None, 0), (None, 1), (0, None), (0, 1), (None, 0))
    found = read(cells(*rows), label=["hat", "glasses"], task="multilabel")
    nan = np.nan
    expected = [[1, 0], [1, 0], [0, 1], [0, 1], [0, 1], [nan, 0]]
    np.testing.assert_array_equal(found.train.label_values(), expected)
    assert any("1 of 12 labels are not known" in line for line in found.notes)
    assert not any("5 of 12" in line for line in found.notes)
    numbers = ((34.5, None), (None, 170), (20.5, 171), (20.5, None), (None, None), (7.25, 120))
    found = read(cells(*numbers), label=["hat", "glasses"])
    np.testing.assert_array_equal(found.train.label_values()[[0, 1, 4]], [[34.5, 170], [34.5, 170], [20.5, 171]])


def test_known_cells_that_differ_are_named() -> None:
    rows = ((1, 0), (0, None), (1, 1), (1, 1), (1, 1), (0, 0))
    with pytest.raises(EnsembleError, match="another label than other rows") as error:
        read(cells(*rows), label=["hat", "glasses"], task="multilabel")
    assert "hat is 0, and 1 in another row of person 'a'" in str(error.value.details)
