from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from folds.errors import EnsembleError
from folds.utils.tables import read_table_file, table_header, table_suffix

TEXT = "id,label\na,1\nb,0\n"
COLUMNS = {"id": ["a", "b"], "label": ["1", "0"]}


@pytest.mark.parametrize("name", ["t.csv", "T.CSV", "t.txt", "t", "t.csv.gz", "T.CSV.GZ"])
def test_text_tables_are_read_whatever_their_suffix(tmp_path: Path, name: str) -> None:
    content = TEXT.encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.lower().endswith(".gz") else content)
    assert read_table_file(tmp_path / name).columns == COLUMNS
    assert table_header(tmp_path / name) == ["id", "label"]


def test_tabs_and_a_gz_that_was_unpacked_are_read(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text(TEXT.replace(",", "\t"))
    (tmp_path / "t.csv.gz").write_text(TEXT)
    assert read_table_file(tmp_path / "t.tsv").columns == COLUMNS
    assert read_table_file(tmp_path / "t.csv.gz").columns == COLUMNS


@pytest.mark.parametrize("suffix", [".parquet", ".feather", ".PQ"])
def test_columnar_tables_are_read(tmp_path: Path, suffix: str) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pandas.DataFrame({"id": ["a", "b"], "label": [1, 0]})
    path = tmp_path / f"t{suffix}"
    frame.to_feather(path) if suffix == ".feather" else frame.to_parquet(path)
    assert read_table_file(path).columns == COLUMNS
    assert table_header(path) == ["id", "label"]


@pytest.mark.parametrize("suffix", [".csv.gz", ".parquet", ".feather"])
def test_a_damaged_file_is_one_clear_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t{suffix}"
    path.write_bytes((gzip.compress(TEXT.encode()) if suffix == ".csv.gz" else b"PAR1 no")[:-8])
    with pytest.raises(EnsembleError, match=r"is not a readable (gzip|Parquet|Feather) file|needs pyarrow"):
        read_table_file(path)
    assert table_header(path) == []


def test_a_small_file_cannot_expand_without_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("folds.utils.tables.MAX_BYTES", 1000)
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"id\n" + b"a\n" * 10_000))
    with pytest.raises(EnsembleError, match="more than 0 GB of text"):
        read_table_file(path)


def test_the_suffix_of_a_table() -> None:
    assert [table_suffix(name) for name in ("a.csv", "a.CSV.gz", "a.b.tsv", "a.parquet", "a.npy", "csv")] == [
        ".csv", ".csv.gz", ".tsv", ".parquet", "", "",
    ]  # fmt: skip
