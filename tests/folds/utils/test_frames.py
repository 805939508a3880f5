"""DataFrames and Parquet files give the samples that their CSV would give."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from folds.data.images_to_predict import read_test
from folds.data.readers import read_data, read_frame, table_from_frame
from folds.data.table import DataSpec, SampleTable
from folds.errors import EnsembleError, UsageError
from folds.metrics.arrays import class_codes
from folds.predictions.predictions import Predictions

GOOD = {"path": ["a.jpg", "b.jpg", "c.jpg"], "label": ["cat", "dog", "cat"], "person": ["p", "q", "p"]}


def same(one: SampleTable, other: SampleTable) -> bool:
    return (
        one.sha == other.sha
        and list(one.paths or ()) == list(other.paths or ())
        and {name: values.tolist() for name, values in one.attributes.items()}
        == {name: values.tolist() for name, values in other.attributes.items()}
        and one.class_attributes == other.class_attributes
    )


def refused(frame: pandas.DataFrame, kind: type[EnsembleError] = EnsembleError, /, **options) -> EnsembleError:
    with pytest.raises(kind) as error:
        table_from_frame(frame, **{"need_images": False, **options})
    return error.value


def by_csv(folder: Path, frame: pandas.DataFrame, **spec) -> SampleTable:
    """The table of the CSV of a frame, whose whole numbers are written without a decimal point."""
    for name in frame.select_dtypes("float"):
        present = frame[name].dropna()
        if len(present) and all(value.is_integer() and abs(value) < 2**53 for value in present):
            frame = frame.assign(**{name: ["" if pandas.isna(value) else str(int(value)) for value in frame[name]]})
    frame.to_csv(folder / "t.csv")
    return read_data(DataSpec(folder / "t.csv", **spec), need_images=False).train


def test_a_frame_gives_ids_paths_labels_and_persons(tmp_path):
    table = table_from_frame(pandas.DataFrame(GOOD), folder=tmp_path, need_images=False)
    assert table.ids.tolist() == GOOD["path"]
    assert table.paths == tuple(tmp_path / name for name in GOOD["path"])
    assert table.labels.tolist() == GOOD["label"]
    assert table.persons.tolist() == GOOD["person"]
    assert table.source == "the DataFrame"
    assert table.locations == ("row 0 of the DataFrame", "row 1 of the DataFrame", "row 2 of the DataFrame")


cell = {
    "text": st.text('a ,"\né1', max_size=3) | st.none(),
    "number": st.integers(-3, 10**17) | st.none(),
    "float": st.floats() | st.none(),
    "truth": st.booleans(),
    "day": st.dates().map(lambda day: pandas.Timestamp("2020-01-01") + pandas.Timedelta(days=day.day)),
    "mixed": st.integers(0, 3) | st.text("ab ", max_size=2) | st.floats(0, 1) | st.none(),
}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.integers(2, 6))
def test_a_frame_of_any_types_is_its_csv(tmp_path, data, rows):
    columns = {
        name: data.draw(st.lists(values, min_size=rows, max_size=rows), label=name) for name, values in cell.items()
    }
    fixed = {"path": [f"{i}.jpg" for i in range(rows)], "label": [i % 2 for i in range(rows)]}
    frame = pandas.DataFrame({**fixed, "person": [float(i) for i in range(rows)], **columns})
    frame["kind"] = pandas.Categorical(columns["text"])
    frame["hour"] = pandas.to_datetime(frame["day"]) + pandas.Timedelta(hours=1)
    assert same(table_from_frame(frame, folder=tmp_path, need_images=False), by_csv(tmp_path, frame))


@pytest.mark.parametrize("kind", ["object", "string", "category"])
def test_every_kind_of_text_column_is_text(tmp_path, kind):
    frame = pandas.DataFrame({**GOOD, "label": ["007", "NA", "007"], "note": [" x ", None, "a\r\nb"]}).astype(kind)
    table = table_from_frame(frame, need_images=False)
    assert table.labels.tolist() == ["007", "NA", "007"]
    assert table.attributes["note"].tolist() == ["x", "", "a\nb"]


def test_whole_numbers_stored_as_decimals_are_whole_numbers(tmp_path, caplog):
    frame = pandas.DataFrame({**GOOD, "label": [1.0, 0.0, 1.0], "age": [30, None, 31], "weight": [1.5, 2.0, None]})
    with caplog.at_level("INFO", logger="folds"):
        table = table_from_frame(frame, folder=tmp_path, need_images=False)
    assert table.classes == ("0", "1")
    assert table.attributes["age"].tolist() == ["30", "", "31"]
    assert table.attributes["weight"].tolist() == ["1.5", "2.0", ""]
    assert "whole numbers stored as decimals are read as 1, not 1.0: label, age" in caplog.text
    assert same(table, by_csv(tmp_path, frame))
    again = table_from_frame(frame.astype({"label": "category", "age": object}), folder=tmp_path, need_images=False)
    assert same(table, again)
    # The classes of arrays are spelled in the same way.
    names = Predictions.from_array([[0.5, 0.5]] * 3, ids=[1, 2, 3], classes=[0.0, 1.0]).classes
    assert table.classes == names == class_codes(frame["label"], 2, None)[1]


def test_a_column_of_paths_is_not_suggested_as_another(tmp_path):
    error = refused(pandas.DataFrame({"path": ["a"], "label": ["x"], "pat": ["y"]}), person="patient")
    assert error.message == "the DataFrame has no column 'patient'; did you mean 'pat'?"
    error = refused(
        pandas.DataFrame({"path": ["a"], "label": ["x"], "patients": ["y"]}), person="patient", id="patients"
    )
    assert error.message == "the DataFrame has no column 'patient'"


def test_a_missing_image_of_a_frame_names_the_folder(tmp_path):
    error = refused(pandas.DataFrame(GOOD), folder=tmp_path, need_images=True)
    assert error.hint == f"relative paths start from {tmp_path}; is `path` the right column?"


def test_rows_that_contradict_are_counted_once():
    frame = pandas.DataFrame({"id": list("abc"), "path": ["x.jpg"] * 3, "label": list("uvw"), "person": list("pqp")})
    error = refused(frame)
    assert error.message == "2 rows of the DataFrame contradict an earlier row about the same image"
    assert error.details[0] == (
        "row 1 of the DataFrame: x.jpg has label 'v', in row 0 of the DataFrame 'u', and person 'q', "
        "in row 0 of the DataFrame 'p'"
    )


def test_a_named_index_is_a_column_and_a_nameless_one_is_not(tmp_path):
    frame = pandas.DataFrame({**GOOD, "id": ["k1", "k2", "k3"]}).set_index("id")
    assert table_from_frame(frame, need_images=False).ids.tolist() == ["k1", "k2", "k3"]
    assert same(table_from_frame(frame, folder=tmp_path, need_images=False), by_csv(tmp_path, frame))
    shuffled = pandas.DataFrame(GOOD).iloc[[2, 0, 1]]
    table = table_from_frame(shuffled, folder=tmp_path, need_images=False)
    assert not table.attributes
    assert same(table, by_csv(tmp_path, shuffled))


def test_rows_of_a_frame_are_counted_as_by_iloc():
    frame = pandas.DataFrame(GOOD).iloc[[2, 0, 1]]
    error = refused(frame.assign(person=["p", None, "q"]))
    assert error.message == "1 of 3 rows of the DataFrame have no person"
    assert error.details == ("row 1 of the DataFrame: '' (id a.jpg)",)
    error = refused(frame.assign(path=["a.jpg", "b.jpg", "a.jpg"], label=["x", "y", "x"]), person="label")
    assert error.details == ("row 2 of the DataFrame: 'a.jpg' is also in row 0 of the DataFrame",)
    assert (
        refused(frame.assign(path=["a", "", "b"])).message
        == "row 1 of the DataFrame has no image path in column 'path'"
    )


def test_a_missing_column_of_a_frame_offers_the_nearest():
    error = refused(pandas.DataFrame(GOOD).rename(columns={"label": "labels"}))
    assert error.message == "the DataFrame has no column 'label'; did you mean 'labels'?"


def test_what_is_no_table_of_samples_is_refused():
    frame = pandas.DataFrame(GOOD)
    assert "found dict" in refused(GOOD, UsageError).message
    assert "has no rows" in refused(frame.iloc[:0]).message
    assert "more than one column 'label'" in refused(frame.set_axis(["path", "label", "label"], axis=1)).message
    assert "columns with 2 levels" in refused(pandas.concat({"x": frame}, axis=1), UsageError).message
    assert "NUL" in refused(frame.assign(label=["a\0", "b", "c"])).message


def test_the_images_of_a_frame_must_exist_where_needed(tmp_path):
    for name in ("a.jpg", "b.png"):
        (tmp_path / name).write_bytes(b"x")
    error = refused(pandas.DataFrame(GOOD), folder=tmp_path, need_images=True)
    assert error.details[0] == f"row 1 of the DataFrame: {tmp_path / 'b.jpg'} (there is b.png)"


def test_a_split_column_of_a_frame_keeps_test_rows_apart(tmp_path):
    frame = pandas.DataFrame({**GOOD, "part": ["train", "train", "test"]})
    data = read_frame(frame, DataSpec(tmp_path, split="part"), need_images=False)
    assert data.train.ids.tolist() == ["a.jpg", "b.jpg"]
    assert data.test is not None
    assert data.test.locations == ("row 2 of the DataFrame",)
    assert any("1 people appear in both training and test" in line for line in data.warnings)
    with pytest.raises(UsageError):
        read_frame(frame, DataSpec(tmp_path, split="part", test=tmp_path), need_images=False)


def test_test_images_of_a_frame_may_come_from_elsewhere(tmp_path):
    (tmp_path / "z.jpg").write_bytes(b"x")
    data = read_frame(pandas.DataFrame(GOOD), DataSpec(tmp_path, test=tmp_path / "z.jpg"), need_images=False)
    assert data.test is not None
    assert data.test.ids.tolist() == ["z.jpg"]


def test_a_table_as_a_frame_gives_the_table_again(tmp_path):
    frame = pandas.DataFrame({**GOOD, "site": ["x", "y", "x"]})
    table = table_from_frame(frame, folder=tmp_path, need_images=False)
    shown = table.frame()
    assert shown.columns.tolist() == ["id", "path", "label", "person", "site"]
    assert shown["path"].tolist() == [str(tmp_path / name) for name in GOOD["path"]]
    assert same(table_from_frame(shown, need_images=False), table)
    unlabelled = table_from_frame(frame[["path"]], training=False, need_images=False)
    assert unlabelled.frame().columns.tolist() == ["id", "path"]


def test_a_parquet_file_is_read_like_its_csv(tmp_path):
    pytest.importorskip("pyarrow")
    frame = pandas.DataFrame({**GOOD, "age": [30, 31, 30]})
    frame.to_parquet(tmp_path / "photos.parquet")
    table = read_data(DataSpec(tmp_path / "photos.parquet"), need_images=False).train
    assert same(table, by_csv(tmp_path, frame))
    assert table.locations[1] == "row 1 of photos.parquet"
    assert table.source == str(tmp_path / "photos.parquet")
    test, _ = read_test(tmp_path / "photos.parquet", classes=("cat", "dog"), need_images=False)
    assert test.ids.tolist() == GOOD["path"]


def test_a_damaged_parquet_file_is_an_error(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(EnsembleError, match="is not a readable Parquet file"):
        read_data(DataSpec(tmp_path / "t.parquet"), need_images=False)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "t.parquet").write_bytes(b"PAR1")

    def absent(*args, **kwargs):
        raise ImportError("Unable to find a usable engine")

    monkeypatch.setattr(pandas, "read_parquet", absent)
    with pytest.raises(EnsembleError, match="needs pyarrow") as error:
        read_data(DataSpec(tmp_path / "t.parquet"), need_images=False)
    assert error.value.hint is not None
    assert "pip install pyarrow" in error.value.hint


def test_a_csv_needs_no_pandas(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    (tmp_path / "t.csv").write_text("path,label,person\na,x,p\nb,y,q\n")
    assert len(read_data(DataSpec(tmp_path / "t.csv"), need_images=False).train) == 2


def test_the_arrays_of_a_table_of_a_frame_are_text():
    table = table_from_frame(pandas.DataFrame({**GOOD, "person": [1, 2, 1]}), need_images=False)
    assert all(column.dtype.kind == "U" for column in (table.ids, table.labels, table.persons))
    assert np.array_equal(table.factorized_persons[1], [0, 1, 0])
