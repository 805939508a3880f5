"""A samples file is read the same whichever way is taken, and copied where it is there already."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from folds.errors import EnsembleError
from folds.predictions.rows import SampleRows, _ascii_columns, _cells, _plain_cells, read_samples_file, write_samples

CELL = st.text(alphabet='ab é;\t,"\n\r', max_size=4)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet='ab,é \n\r"\t', max_size=40))
def test_what_is_split_at_commas_is_what_the_csv_module_reads(text: str) -> None:
    quick = _plain_cells(text)
    if quick is not None:
        header, columns = _cells(Path("x"), text)
        assert (header, [list(column) for column in columns]) == quick


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet='ab,é \n\r"\t', max_size=40), st.booleans())
def test_bytes_of_a_plain_file_are_what_the_csv_module_reads(text: str, plain: bool) -> None:
    text = "id,b\n" + "".join(f"{line},x\n" for line in text.split("\n")) if plain else "id\n" + text
    columns = _ascii_columns(text.encode())
    if columns is not None:
        header, cells = _cells(Path("x"), text)
        assert {name: values.tolist() for name, values in columns.items()} == dict(
            zip(header, map(list, cells), strict=True)
        )


def test_a_long_cell_or_another_letter_is_read_as_text() -> None:
    assert _ascii_columns(b"id,label\na,1\nbcd,\n") is not None
    assert _ascii_columns("id,label\nä,1\n".encode()) is None
    assert _ascii_columns(b"id,label\n" + b"a" * 300 + b",1\n") is None
    assert _ascii_columns(b"name,label\na,1\n") is None
    assert _ascii_columns(b"id,id\na,1\n") is None
    assert _ascii_columns(b"id,label\n") is None


@settings(max_examples=60, deadline=None)
@given(names=st.lists(CELL.filter(bool), min_size=1, max_size=5, unique=True), label=CELL)
def test_names_with_any_character_come_back(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], label: str
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    rows = SampleRows(np.array(names), np.array([label] * len(names)))
    name, sha = write_samples(folder, rows)
    back = read_samples_file(folder / name, sha)
    assert back.ids.tolist() == names
    assert back.labels is not None
    assert back.labels.tolist() == [label] * len(names)


def test_plain_files_take_the_quick_way_and_ragged_ones_do_not(tmp_path: Path) -> None:
    assert _plain_cells("id,label\na,1\nb,2\n") == (["id", "label"], [["a", "b"], ["1", "2"]])
    assert _plain_cells("id,label\na,1,2\nb\n") is None, "as many cells in all, and not in each row"
    (tmp_path / "s.csv").write_text("id,label\na,1,2\nb\n")
    with pytest.raises(EnsembleError, match="row 2 of the samples file"):
        read_samples_file(tmp_path / "s.csv")


def test_a_file_that_holds_the_rows_is_copied_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_bytes(b"id\r\na\r\nb\r\n")
    name, sha = write_samples(tmp_path / "other", read_samples_file(tmp_path / "mine.csv"), tmp_path / "mine.csv")
    assert (tmp_path / "other" / name).read_bytes() == b"id\r\na\r\nb\r\n"
    assert read_samples_file(tmp_path / "other" / name, sha).ids.tolist() == ["a", "b"]
