"""The folds.csv that lies in the folder: used where it fits, and said; else the reason is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import folds
from folds.config.command_settings import Settings
from folds.data.readers import read_data
from folds.data.table import DataSpec, SampleTable
from folds.runs.found_folds import named_columns, with_found_folds
from folds.splits.assignment import save_folds
from folds.splits.kfold import split_by_person

FILE = Path("folds.csv")


@pytest.fixture
def table(tmp_path, monkeypatch) -> SampleTable:
    monkeypatch.chdir(tmp_path)
    rows = (f"{i}.jpg,{i // 2 % 2},p{i // 2}\n" for i in range(24))
    Path("t.csv").write_text("path,label,person\n" + "".join(rows))
    read = read_data(DataSpec(Path("t.csv")), need_images=False).train
    save_folds(FILE, split_by_person(read, 3, seed=1))
    return read


def decided(caplog, *args, **kwargs) -> tuple[Path | None, str]:
    with caplog.at_level("INFO", logger="folds"):
        return with_found_folds(*args, **kwargs).folds, caplog.text


def test_folds_that_fit_are_used_and_said(table, caplog):
    file, said = decided(caplog, Settings(), FILE, False, table)
    assert file == FILE
    assert "folds: ./folds.csv" in said


@pytest.mark.parametrize(
    ("given", "k_given", "reason"),
    [
        ({"holdout": 0.2}, False, "`holdout` is given"),
        ({"stratify": ("sex",)}, False, "`stratify` is given"),
        ({"repeats": 2}, False, "`repeats` is given"),
        ({"fold_column": "f"}, False, "`fold_column` is given"),
        ({"k": 5}, True, "it has 3 folds, and `k` is 5"),
    ],
)
def test_folds_that_contradict_a_setting_are_not_used(table, caplog, given, k_given, reason):
    file, said = decided(caplog, replace(Settings(), **given), FILE, k_given, table)
    assert file is None
    assert f"folds.csv is not used: {reason}" in said


def test_the_number_of_folds_that_was_asked_for_may_be_theirs(table, caplog):
    assert decided(caplog, Settings(k=3), FILE, True, table)[0] == FILE


def test_folds_of_another_table_are_not_used(table, caplog):
    file, said = decided(caplog, Settings(), FILE, False, table.take([0, 1, 2, 3]))
    assert file is None
    assert "20 of 24 ids in folds.csv are not in" in said


def test_folds_in_which_people_are_torn_apart_are_not_used(table, caplog):
    lines = FILE.read_text().splitlines()
    lines[1] = lines[1][:-1] + str((int(lines[1][-1]) + 1) % 3)
    FILE.write_text("\n".join(lines) + "\n")
    file, said = decided(caplog, Settings(), FILE, False, table)
    assert file is None
    assert "more than one fold" in said


def test_a_run_that_began_without_the_file_goes_on_without_it(table, caplog):
    Path("config.toml").write_text("k = 5\n")
    assert decided(caplog, Settings(), FILE, False, table, [Path("config.toml")])[0] is None
    Path("config.toml").write_text('k = 3\nfolds = "folds.csv"\n')
    assert decided(caplog, Settings(), FILE, False, table, [Path("config.toml")])[0] == FILE


def test_a_file_that_was_named_or_is_not_there_is_left_alone(table, caplog):
    other = Settings(folds=Path("mine.csv"))
    assert with_found_folds(other, FILE, False, table) is other
    assert with_found_folds(Settings(), Path("no.csv"), False, table) == Settings()
    assert caplog.text == ""


def test_named_columns_are_those_that_differ_from_the_usual():
    assert named_columns(Settings(id="image_id", fold_column="kfold")) == {"id": "image_id", "fold": "kfold"}


def test_python_uses_the_file_of_the_folder_as_the_command_does(drawn: Path, tmp_path: Path, logged) -> None:
    small = {"arch": "test_resnet", "epochs": 1, "img_size": 32, "pretrained": False, "progress": False}
    data = folds.read_table(drawn)
    folds.split(data, k=2, seed=5).save(tmp_path / "folds.csv")
    runs = folds.kfold(data, root=tmp_path, fold=0, **small)
    assert runs["test_resnet"].config["k"] == 2
    assert f"folds: {tmp_path / 'folds.csv'} (found here, and it fits the table" in "\n".join(logged.notes)
    other = folds.kfold(data, root=tmp_path, fold=0, k=3, name="three", **small)
    assert other["three"].config["k"] == 3
    assert any("is not used: it has 2 folds, and `k` is 3" in line for line in logged.notes)
