"""Tables of several labels or numbers a sample: what is decided, what is read, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from folds.config.command_settings import Settings
from folds.config.recipe import Recipe
from folds.data.column_labels import are_many_fractions, class_notes
from folds.data.face import data_settings, read_table
from folds.data.images_to_predict import read_test
from folds.data.readers import read_data
from folds.data.sources import load_checkpoint_data, open_data
from folds.data.table import Dataset, DataSpec
from folds.data.tasks import recorded_task, resolve_task, task_of, with_task
from folds.errors import EnsembleError, UsageError
from folds.splits.assignment import FoldAssignment, load_folds
from folds.splits.split import split

ROWS = [  # hat, glasses, beard: they co-occur, none has all three, one cell is empty
    ("1", "0", "0"), ("1", "1", "0"), ("0", "0", "0"), ("0", "1", ""), ("1", "0", "1"), ("0", "0", "1"),
    ("1", "1", "0"), ("0", "0", "0"),
]  # fmt: skip
NAMES = ("hat", "glasses", "beard")


def write(path: Path, header: str, rows: Sequence[Sequence[object]]) -> Path:
    lines = [f"i{i}.jpg,p{i // 2},{','.join(map(str, row))}" for i, row in enumerate(rows)]
    path.write_text("\n".join([f"path,person,{header}", *lines]) + "\n", encoding="utf-8")
    return path


def read(tmp_path: Path, header: str, rows: Sequence[Sequence[object]], **more: object) -> Dataset:
    spec = replace(DataSpec(write(tmp_path / "t.csv", header, rows), label=header), **more)  # type: ignore[arg-type]
    return read_data(spec, need_images=False)


def refused(tmp_path: Path, header: str, rows: Sequence[Sequence[object]], **more: object) -> EnsembleError:
    with pytest.raises(EnsembleError) as found:
        read(tmp_path, header, rows, **more)
    return found.value


@pytest.mark.parametrize("word", [("0", "1"), ("0.0", "1.0"), ("false", "True"), ("no", "Yes")])
def test_columns_that_co_occur_are_several_labels_and_the_reason_is_said(tmp_path: Path, word: tuple[str, str]) -> None:
    rows = [[word[int(cell)] if cell else "nan" for cell in row] for row in ROWS]
    data = read(tmp_path, "hat,glasses,beard", rows)
    table = data.train
    assert (table.task, table.classes, table.has_columns) == ("multilabel", NAMES, True)
    assert table.labels is not None
    assert table.labels.tolist()[:4] == ["hat", "hat;glasses", "-", "glasses;?beard"]
    expected = np.array([[float(cell) if cell else np.nan for cell in row] for row in ROWS])
    assert np.array_equal(table.label_values(), expected, equal_nan=True)
    assert any("because 3 of 8 rows have two or more of them, 2 of 8 rows have none" in line for line in data.notes)
    assert any("1 of 24 labels are not known" in line for line in data.notes)
    assert table.class_attributes == {}


def test_exclusive_columns_stay_classes_unless_asked(tmp_path: Path) -> None:
    rows = [(int(i % 3 == 0), int(i % 3 == 1), int(i % 3 == 2)) for i in range(9)]
    assert read(tmp_path, "hat,glasses,beard", rows).train.task == "classes"
    asked = read(tmp_path, "hat,glasses,beard", rows, task="multilabel").train
    assert asked.label_values().tolist() == [list(map(float, row)) for row in rows]
    # A few wrong rows are mistakes in a table of classes, and are shown as before.
    error = refused(tmp_path, "hat,glasses,beard", [*rows * 3, (1, 1, 0)])
    assert error.details == ("t.csv row 29: 2 of 3 columns are 1",)
    assert "task=multilabel" in (error.hint or "")
    assert "exactly one 1" in refused(tmp_path, "hat,glasses,beard", ROWS[:3], task="classes").message


def test_names_in_one_column_need_the_task_and_the_separator_is_said(tmp_path: Path) -> None:
    cells = ["hat|eye glasses", "No Finding", "hat", "eye glasses", "beard|hat", "none"]
    rows = [[cell] for cell in cells]
    data = read(tmp_path, "tags", rows)
    assert data.train.task == "classes"
    assert any("`task=multilabel` reads several labels, separated by '|'" in line for line in data.notes)
    data = read(tmp_path, "tags", rows, task="multilabel")
    assert data.train.classes == ("beard", "eye glasses", "hat")
    assert data.train.label_values().sum(axis=1).tolist() == [2, 0, 1, 1, 2, 0]
    assert any("separated by '|'; 'No Finding', 'none' (2 rows) is none of them" in line for line in data.notes)
    error = refused(tmp_path, "tags", [*rows, [""]], task="multilabel")
    assert "1 of 7 rows" in error.message
    assert "an empty cell means that a label is not known" in (error.hint or "")


@pytest.mark.parametrize(("mark", "said"), [(";", "';'"), (" ", "a blank")])
def test_other_separators(tmp_path: Path, mark: str, said: str) -> None:
    rows = [[f"a{mark}b"], ["b"], ["-"], ["a"]]
    data = read(tmp_path, "tags", rows, task="multilabel")
    assert data.train.label_values().tolist() == [[1, 1], [0, 1], [0, 0], [1, 0]]
    assert any(f"separated by {said}" in line for line in data.notes)


def test_uncertain_labels_are_refused_with_the_way_out(tmp_path: Path) -> None:
    error = refused(tmp_path, "hat,glasses,beard", [("-1", "0", "1"), *ROWS])
    assert "1 cells of the labels hat, glasses, beard" in error.message
    assert "uncertain=absent" in (error.hint or "")
    assert refused(tmp_path, "hat", [["-1.0"], ["0"], ["1"]], task="multilabel").hint == error.hint


@pytest.mark.parametrize(("uncertain", "value"), [("unknown", np.nan), ("absent", 0.0), ("present", 1.0)])
def test_uncertain_labels_are_read_as_asked_and_counted(tmp_path: Path, uncertain: str, value: float) -> None:
    rows = [("-1", "0", "1"), ("1", "-1.0", "0"), ("-1", "1", "0"), ("0", "0", "1")]
    test = write(tmp_path / "test.csv", "hat,beard", [("0", "-1"), ("1", "0")])
    data = read(tmp_path, "hat,glasses,beard", rows, uncertain=uncertain, test=test)
    expected = [[value, 0, 1], [1, value, 0], [value, 1, 0], [0, 0, 1]]
    np.testing.assert_array_equal(data.train.label_values(), expected)
    assert data.test is not None
    np.testing.assert_array_equal(data.test.label_values(), [[0, np.nan, value], [1, np.nan, 0]])
    assert any(
        "several labels of an image" in line and "because some of them are uncertain" in line for line in data.notes
    )
    counted = [line for line in data.notes if "uncertain labels (-1) are read as" in line]
    assert [line.rpartition(": ")[2] for line in counted] == ["hat 2, glasses 1"]
    assert any("1 uncertain label (-1) is read as" in line and line.endswith("beard 1") for line in data.notes)
    assert data.spec is not None
    for i in range(4):
        (tmp_path / f"i{i}.jpg").touch()
    again = load_checkpoint_data(
        vars(data.spec) | {"data": str(data.spec.data), "test": str(test), "task": "multilabel"}
    )
    assert again.train.sha == data.train.sha


def test_uncertain_is_refused_where_nothing_can_be_uncertain(tmp_path: Path) -> None:
    for header, rows, found, more in [
        ("age", [[20.5 + i] for i in range(32)], "numbers", {}),
        ("kind", [["cat"], ["dog"]], "classes", {}),
        ("tags", [["a|b"], ["a"]], "names in one column", {"task": "multilabel"}),
    ]:
        error = refused(tmp_path, header, rows, uncertain="absent", **more)
        assert f"found {found} in " in error.message
    for wrong in ({"uncertain": "maybe"}, {"uncertain": 1}, {"task": "multilable"}, {"label_of": 2}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            read_table(tmp_path / "t.csv", need_images=False, **wrong)  # type: ignore[arg-type]
    # A cell that is no label is the error, and not -1, which has been read; the columns are not numbers for its sake.
    for task, cell in [(None, "2"), ("multilabel", "2"), (None, "-1.00"), (None, "maybe")]:
        error = refused(tmp_path, "hat,beard", [(1, -1), (0, cell), (1, 1)], uncertain="absent", task=task)
        assert "cells of column 'beard'" in error.message
        assert error.details == (f"t.csv row 3: '{cell}'",)


def test_folds_of_another_reading_are_refused_with_the_way_out(tmp_path: Path) -> None:
    rows = [(i % 2, -1 if i == 3 else i // 5) for i in range(10)]
    one, other = (read(tmp_path, "hat,beard", rows, uncertain=name).train for name in ("absent", "present"))
    made = split(one, k=2, repair=False)
    assert isinstance(made, FoldAssignment)
    path = made.save(tmp_path / "folds.csv")
    with pytest.raises(EnsembleError, match="another label") as error:
        load_folds(path, other)
    assert "`uncertain`" in (error.value.hint or "")
    assert "without its column 'label'" in (error.value.hint or "")
    frame = pd.read_csv(path, dtype=str)
    frame.drop(columns="label").to_csv(path, index=False)
    found = load_folds(path, other)
    assert found.fold.tolist() == made.fold.tolist()
    assert found.labels.tolist() == ([] if other.labels is None else other.labels.tolist())


def test_one_label_with_a_blank_in_its_name_stays_one_label(tmp_path: Path) -> None:
    frame = pd.DataFrame({"path": ["a", "b", "c"], "person": [1, 2, 3], "No Hat": [1, 0, 1]})
    data = read_table(frame, label="No Hat", task="multilabel", need_images=False)
    spec = DataSpec(**data_settings(data, tmp_path))
    again = read_data(spec, need_images=False).train
    assert again.classes == data.train.classes == ("No Hat",)
    assert (again.labels.tolist() if again.labels is not None else []) == ["No Hat", "-", "No Hat"]


def test_numbers_are_read_asked_for_or_guessed_by_their_fractions(tmp_path: Path) -> None:
    ages = [[20.5 + i] for i in range(32)]
    data = read(tmp_path, "age", ages)
    assert (data.train.task, data.train.classes) == ("regression", ("age",))
    assert data.train.label_values().tolist() == ages
    assert any("because it holds 32 different numbers with fractions" in line for line in data.notes)
    assert read(tmp_path, "age", ages, task="classes").train.task == "classes"
    whole = [[20 + i] for i in range(12)]
    assert read(tmp_path, "age", whole).train.task == "classes"
    assert read(tmp_path, "age", whole, task="regression").train.label_values().tolist() == whole
    assert "found none in age" in refused(tmp_path, "age", [[3], [3]], task="regression").message
    assert refused(tmp_path, "age", [["3"], ["4,5".replace(",", ".5.")]], task="regression").details
    assert are_many_fractions(np.array([f"{i}.5" for i in range(31)]))
    assert not are_many_fractions(np.array([f"{i}.5" for i in range(30)]))
    assert class_notes([str(i) for i in range(40)], "age", "t.csv")
    assert not class_notes(["a", "b", "a|b"][:2], "x", "t.csv")


@pytest.mark.parametrize(("codes", "rows"), [(12, 24), (30, 60), (32, 200)])
def test_codes_that_are_numbers_stay_classes_and_it_is_said(tmp_path: Path, codes: int, rows: int) -> None:
    data = read(tmp_path, "code", [[250.01 + i % codes] for i in range(rows)])  # 2 rows a person, so 100 people of 32
    assert (data.train.task, len(data.train.classes)) == ("classes", codes)
    assert any(f"the {codes} different numbers in 'code' are read as classes" in line for line in data.notes)
    assert any("`task=regression` predicts the number" in line for line in data.notes)


@pytest.mark.parametrize("number", ["1e39", "-2e38", "1e400"])
def test_numbers_that_no_model_can_predict_are_refused_with_the_cell(tmp_path: Path, number: str) -> None:
    error = refused(tmp_path, "v", [["1.5"], [number], ["3"]], task="regression")
    assert error.details == (f"t.csv row 3: '{number}'",)
    assert "up to 1e+38" in (error.hint or "")
    assert read(tmp_path, "v", [["1.5"], ["1e38"]], task="regression").train.label_values().max() == 1e38


def test_several_numbers_and_unknown_ones(tmp_path: Path) -> None:
    rows = [(30 + i, 60.5 - i if i else "") for i in range(6)]
    data = read(tmp_path, "age,weight", rows)
    assert data.train.task == "regression"
    assert np.isnan(data.train.label_values()[0, 1])
    assert data.train.labels is not None
    assert data.train.labels[0] == "age=30"
    summary = data.train.to_dict()["columns"]
    assert summary["weight"] == {
        "known": 5, "unknown": 1, "people": 3, "mean": 57.5, "sd": pytest.approx(np.sqrt(2)), "min": 55.5, "max": 59.5,
    }  # fmt: skip


def test_the_summary_and_the_frame_have_each_label(tmp_path: Path) -> None:
    table = read(tmp_path, "hat,glasses,beard", ROWS).train
    assert table.to_dict()["columns"]["beard"] == {"with": 2, "without": 5, "unknown": 1, "people": 1}
    shown = table.display_table()
    assert shown.title.endswith("8 samples of 4 people, 3 labels")
    assert list(shown.rows[0]) == ["hat", "4", "4", "0", "3"]
    frame = table.frame()
    assert frame["glasses"].tolist() == [0, 1, 0, 1, 0, 0, 1, 0]
    assert table.take(np.array([1])).label_values().tolist() == [[1, 1, 0]]
    with pytest.raises(UsageError, match=r"of .*t.csv does not support the task multilabel"):
        table.label_codes()


def test_test_tables_have_the_labels_of_the_training(tmp_path: Path) -> None:
    test = write(tmp_path / "test.csv", "beard,glasses,hat", [("1", "0", "0"), ("0", "1", "")])
    data = read(tmp_path, "hat,glasses,beard", ROWS, test=test)
    assert data.test is not None
    assert (data.test.task, data.test.classes) == ("multilabel", NAMES)
    assert np.array_equal(data.test.label_values(), [[0, 0, 1], [np.nan, 1, 0]], equal_nan=True)
    template = write(tmp_path / "sub.csv", "hat,glasses,beard", [(0.5, 0.5, 0.5)] * 3)
    data = read(tmp_path, "hat,glasses,beard", ROWS, test=template)
    assert data.test is not None
    assert (data.test.labels, data.test.task) == (None, "multilabel")
    ages = write(tmp_path / "ages.csv", "age", [[0]] * 3)
    numbers = read(tmp_path, "age", [[20.5 + i] for i in range(12)], test=ages)
    assert numbers.test is not None
    assert numbers.test.labels is None, "the template of a submission"
    with pytest.raises(EnsembleError, match="not 0 or 1"):
        read(
            tmp_path, "hat,glasses,beard", ROWS, test=write(tmp_path / "u.csv", ",".join(NAMES), [(2, 0, 1), (0, 1, 1)])
        )
    tags = write(tmp_path / "tags.csv", "tags", [["hat"], ["-"]])
    found, _ = read_test(tags, DataSpec(tags, label="tags", task="multilabel"), classes=NAMES, need_images=False)
    assert found.label_values().tolist() == [[1, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("label", "task"), [(["hat", "glasses", "beard"], None), ("tags", "multilabel"), (["age", "hat"], "regression")]
)
def test_a_data_frame_is_read_and_written_for_training_as_it_is(
    tmp_path: Path, label: str | list[str], task: str | None
) -> None:
    import pandas as pd

    frame = pd.DataFrame(ROWS, columns=list(NAMES)).apply(pd.to_numeric)
    frame["path"], frame["person"] = [f"i{i}.jpg" for i in range(8)], [f"p{i // 2}" for i in range(8)]
    frame["tags"], frame["age"] = ["a;b", "-", "hat", "a", "b", "a", "b;hat", "none"], np.arange(8) + 0.25
    data = read_table(frame, label=label, task=task, need_images=False)
    spec = DataSpec(**data_settings(data, tmp_path))
    again = read_data(spec, need_images=False).train
    assert again.task == data.train.task == (task or "multilabel")
    assert again.sha == data.train.sha
    with pytest.raises(UsageError, match="have no comma"):
        read_table(frame, label=["a,b", "c"], need_images=False)


def test_the_settings_of_a_command_decide_how_its_table_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "tags", [["a|b"], ["b"], ["-"], ["a"]])
    (tmp_path / "i0.jpg").touch()
    for i in range(4):
        (tmp_path / f"i{i}.jpg").touch()
    opened = open_data(Settings(data=path, label="tags"), tmp_path, "multilabel")
    assert (opened.spec.task, opened.data.train.task) == ("multilabel", "multilabel")
    assert open_data(Settings(data=path, label="tags"), tmp_path).spec.task is None
    folder = tmp_path / "folders"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        (folder / name / "1.jpg").touch()
    with pytest.raises(UsageError, match="reads the labels of a table, found a folder of class folders"):
        read_data(DataSpec(folder, person_regex="(.+)", task="multilabel"))


def test_the_task_of_the_recipe_agrees_with_the_table(tmp_path: Path) -> None:
    data = read(tmp_path, "hat,glasses,beard", ROWS)
    assert with_task(data, [Recipe(), Recipe(task="multilabel")]) is data
    with pytest.raises(UsageError, match=r"the table was read with .?task=multilabel"):
        with_task(data, [Recipe(task="regression")])
    for recipe, name in [
        (Recipe(positive="hat"), "positive=hat"), (Recipe(target="age"), "target=age"),
        (Recipe(class_order=("a", "b")), "class_order=a,b"), (Recipe(rebin={"age": {}}), "rebin=age"),
    ]:  # fmt: skip
        with pytest.raises(UsageError, match=f"{name}.? is about exclusive classes"):
            with_task(data, [recipe])
    assert resolve_task("regression", None, ("age",)).name == "regression"
    with pytest.raises(UsageError, match="is for two classes"):
        resolve_task("multilabel", "hat", NAMES)
    assert recorded_task("multilabel", None, "label", ("no", "yes")) == "multilabel"
    assert task_of([Recipe(), Recipe(task="binary")]) == "binary"
    with pytest.raises(UsageError, match="must have one task, found none and multilabel"):
        task_of([Recipe(), Recipe(task="multilabel")])


def test_spellings_of_one_name_are_merged_when_asked_and_warned_of_otherwise(tmp_path: Path) -> None:
    rows = [("Hat|Scarf",), ("hat",), ("Hat",), ("scarf",), ("Scarf",), ("-",)]
    plain = read(tmp_path, "label", rows, task="multilabel")
    assert len(plain.train.classes) == 4
    assert any("2 labels are written in more than one way" in line for line in plain.warnings)
    merged = read(tmp_path, "label", rows, task="multilabel", merge_spellings=True)
    assert merged.train.labels is not None
    assert merged.train.labels.tolist() == ["Hat;Scarf", "Hat", "Hat", "Scarf", "Scarf", "-"]
    assert any("spellings of 2 labels were merged" in line for line in merged.notes)
    assert not any("more than one way" in line for line in merged.warnings)
    declared = read(tmp_path, "label", rows, task="multilabel", merge_spellings=True, classes=("hat", "SCARF"))
    assert declared.train.labels is not None
    assert declared.train.labels.tolist()[0] == "hat;SCARF"


@pytest.mark.parametrize("cell", ["No Finding|Mass", "Mass|-", "nan|Mass"])
def test_none_beside_another_label_is_an_error_that_names_the_row(tmp_path: Path, cell: str) -> None:
    error = refused(tmp_path, "label", [("Mass|Nodule",), (cell,), ("No Finding",)], task="multilabel")
    assert "also say that there are none" in error.message
    assert cell in str(error.details)


@pytest.mark.parametrize("cell", ["Mass|?Mass", "?mass|Nodule|Mass"])
def test_a_label_known_and_unknown_in_one_cell_is_an_error_that_names_the_row(tmp_path: Path, cell: str) -> None:
    rows = [("Mass|Nodule",), (cell,), ("No Finding",)]
    error = refused(tmp_path, "label", rows, task="multilabel", merge_spellings=True)
    assert "name a label, and also say that it is not known" in error.message
    assert error.details == (f"t.csv row 3: '{cell}'",)


@pytest.mark.parametrize("task", [None, "multilabel"])
def test_blanks_do_not_stand_for_zero(tmp_path: Path, task: str | None) -> None:
    error = refused(tmp_path, "hat,beard", [("1", ""), ("", "1"), ("1", "1"), ("", "1")], task=task)
    assert "no cell of hat, beard is 0, and 3 of 8 cells are empty" in error.message
    assert "write 0" in str(error.hint)


def test_a_test_table_with_some_of_the_labels_keeps_them(tmp_path: Path) -> None:
    test = write(tmp_path / "test.csv", "beard", [("1",), ("0",), ("",)][:2])
    data = read(tmp_path, "hat,glasses,beard", ROWS, test=test)
    assert data.test is not None
    nan = np.nan
    np.testing.assert_array_equal(data.test.label_values(), [[nan, nan, 1], [nan, nan, 0]])
    assert any("has no columns hat, glasses: not known" in line for line in data.notes)
    one = read_data(
        replace(
            DataSpec(write(tmp_path / "n.csv", "age,weight", [(1.5, 60), (20, 70), (30, 80)]), label="age,weight"),
            test=write(tmp_path / "age.csv", "age", [(5.5,), (6,)]),
        ),
        need_images=False,
    )
    assert one.test is not None
    assert one.test.labels is not None
    assert one.test.labels.tolist() == ["age=5.5", "age=6"]


def test_a_template_of_a_test_table_is_said(tmp_path: Path) -> None:
    test = write(tmp_path / "test.csv", "hat,glasses,beard", [(0.5, 0.5, 0.5)] * 3)
    data = read(tmp_path, "hat,glasses,beard", ROWS, test=test)
    assert data.test is not None
    assert data.test.labels is None
    assert any("are '0.5', as in a sample submission: read without labels" in line for line in data.warnings)
