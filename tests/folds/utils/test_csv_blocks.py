"""A CSV read and written in blocks gives what the csv module gives in one go, whatever is in the cells."""

from __future__ import annotations

import csv
import io
import pickle
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from folds.errors import EnsembleError
from folds.utils import csv_table
from folds.utils.csv_table import RowLocations, csv_bytes, csv_text, read_csv

CELLS = [
    "a",
    "bc",
    " c ",
    "",
    '"x"',
    '"x,y"',
    '"x\ny"',
    '"a""b"',
    'q"q',
    "é",
    "고",
    "\x85",
    "\u2028",
    "7",
    "\r",
    '"',
    ";",
]


@pytest.fixture(params=[(1, 1, 0), (7, 2, 3), (40, 5, 10), (1 << 18, 1 << 13, 1 << 17)], ids="blocks of {0[0]}".format)
def blocks(request, monkeypatch):
    for name, size in zip(("_BLOCK", "_ROWS", "_REPEATS_BY"), request.param, strict=True):
        monkeypatch.setattr(csv_table, name, size)


def read_in_one_go(text: str) -> tuple[dict[str, list[str]], list[int]] | None:
    """The columns and row numbers by the csv module alone; None where there is something wrong with the text."""
    plain = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    lines = plain.split("\n")
    first = next((line for line in lines if line), "")
    delimiter = "," if "," in first else next((mark for mark in (";", "\t", "|") if mark in first), ",")
    try:
        rows = list(csv.reader(io.StringIO(plain, newline=""), delimiter=delimiter, strict=True))
    except csv.Error:
        return None
    start = next((i for i, row in enumerate(rows) if any(cell.strip() for cell in row)), None)
    if start is None:
        return None
    header = [name.strip() for name in rows[start]]
    body = [
        (number, row)
        for number, row in enumerate(rows[start + 1 :], start + 2)
        if row and (len(row) == 1 or any(map(str.strip, row)))  # a row of empty cells is an empty line
    ]
    named = [name for name in header if name]
    if len(set(named)) < len(named) or not body or any(len(row) != len(header) for _, row in body):
        return None
    columns = {name: [row[at].strip() for _, row in body] for at, name in enumerate(header) if name}
    return columns, [number for number, _ in body]


row = st.lists(st.sampled_from(CELLS), min_size=2, max_size=2).map(",".join)
odd = st.lists(st.sampled_from(CELLS), max_size=4).map(",".join)
text = st.builds(
    lambda bom, head, rows, end, last: bom + end.join([head, *rows]) + last,
    st.sampled_from(["", "\ufeff"]),
    st.sampled_from(["id,label", "\nid,label", ",label", '"i\nd",label', "id;label", "id,id"]),
    st.lists(st.one_of(row, row, row, st.just("a,b"), odd), max_size=12),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", "\n", "\n\n"]),
)
slow = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@slow
@given(text)
def test_blocks_read_what_the_csv_module_reads(tmp_path, blocks, text):
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode())
    expected = read_in_one_go(text)
    if expected is None:
        with pytest.raises(EnsembleError):
            read_csv(path)
    else:
        found = read_csv(path)
        assert (found.columns, list(found.numbers)) == expected


def test_the_rows_of_an_error_are_those_of_the_file(tmp_path, blocks):
    path = tmp_path / "t.csv"
    path.write_text('id,label\na,x\n"b\nc",x\n\nd\ne,x\n\nf,x,y\n\n')
    with pytest.raises(EnsembleError) as error:
        read_csv(path)
    assert error.value.details == ("row 5: 1 cells", "row 8: 3 cells")


def test_a_cell_over_many_blocks_is_one_cell(tmp_path, blocks):
    path = tmp_path / "t.csv"
    long = "\n".join(f"line {i}, with a comma" for i in range(300))
    path.write_text(f'id,label\na,x\nb,"{long}"\nc,y\n')
    table = read_csv(path)
    assert table.columns == {"id": ["a", "b", "c"], "label": ["x", long, "y"]}
    assert list(table.numbers) == [2, 3, 4]


def test_a_cell_too_long_for_the_csv_module_is_an_error(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(f"id,label\n{'a' * (csv.field_size_limit() + 1)},x\n")
    with pytest.raises(EnsembleError, match="field larger than field limit"):
        read_csv(path)


@slow
@given(
    st.integers(1, 3).flatmap(
        lambda width: st.lists(
            st.lists(st.text('a, "\n\r;é', max_size=3), min_size=width, max_size=width), min_size=1, max_size=9
        )
    )
)
def test_blocks_write_what_the_csv_module_writes(blocks, rows):
    columns = {name: list(cells) for name, cells in zip("abc", zip(*rows, strict=True))}
    returns = any("\r" in cell for row in rows for cell in row)
    expected = io.StringIO()
    writer = csv.writer(expected, lineterminator="\n", quoting=csv.QUOTE_ALL if returns else csv.QUOTE_MINIMAL)
    writer.writerow(columns)
    writer.writerows(rows)
    assert csv_text(columns) == expected.getvalue()
    assert csv_bytes(columns) == expected.getvalue().encode()


def test_columns_of_different_lengths_are_refused(blocks):
    with pytest.raises(ValueError, match="shorter"):
        csv_text({"a": ["1", "2"], "b": ["1"]})


def test_equal_cells_of_a_column_are_one_object(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("id,person\n" + "".join(f"{i},somebody{i % 2}\n" for i in range(50)))
    assert len({id(cell) for cell in read_csv(path).columns["person"]}) == 2


def test_locations_are_made_when_asked_for_and_equal_lists():
    places = RowLocations("t.csv row ", range(2, 6))
    assert places == ["t.csv row 2", "t.csv row 3", "t.csv row 4", "t.csv row 5"]
    assert places != ["t.csv row 2"]
    assert places != "t.csv row 2"
    assert places[-1] == "t.csv row 5"
    assert places[1:3] == ("t.csv row 3", "t.csv row 4")
    assert places.take([3, 0]) == ("t.csv row 5", "t.csv row 2")
    assert pickle.loads(pickle.dumps(places)) == places
    assert "t.csv row 2" in places
    assert repr(places) == "['t.csv row 2', 't.csv row 3', 't.csv row 4', …] (4)"
    with pytest.raises(IndexError):
        places[4]


def test_a_file_with_blank_lines_numbers_the_rows_that_are_there(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("\nid,label\n\na,x\n\nb,y\n\n\n")
    assert list(read_csv(Path(path)).numbers) == [4, 6]
