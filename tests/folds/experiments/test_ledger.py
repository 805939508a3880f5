from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from folds.errors import EnsembleError
from folds.experiments.ledger import SCHEMA, append, ledger_file, now, read_ledger
from tests.conftest import ROOT
from tests.folds.ledger_lines import against, line


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "ledger.jsonl"


def written(count: int) -> list[bytes]:
    return [json.dumps({"schema": 1, "kind": "run", **line(f"run{i}")}).encode() for i in range(count)]


def runs_of(path: Path) -> list[str]:
    return [entry["run"] for entry in read_ledger(path).entries]


def test_appended_lines_are_read_and_the_last_of_a_run_counts(path: Path) -> None:
    assert read_ledger(path).entries == ()
    assert path == ledger_file(path.parent)
    append(path, "run", line("a"))
    append(path, "run", line("b", baseline=against("a", loss=["ce", "focal"])))
    append(path, "run", line("a", hypothesis='한국어, "quoted"\nand two lines'))
    append(path, "note", {"run": "a", "time": now(), "text": "learnt"})
    ledger = read_ledger(path)
    assert [entry["run"] for entry in ledger.entries] == ["a", "b", "a"]
    assert list(ledger.latest()) == ["b", "a"]
    assert ledger.latest()["a"]["hypothesis"] == '한국어, "quoted"\nand two lines'
    assert (ledger.notes_of("a"), ledger.notes_of("b")) == (["learnt"], [])
    assert len(path.read_bytes().splitlines()) == 4
    assert "한국어" in path.read_text(encoding="utf-8")
    assert ledger.skipped_lines() == []


def test_writers_that_come_at_once_lose_no_line(path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom folds.experiments.ledger import append\nfrom tests.folds.ledger_lines import line\n"
        "for i in range(25): append(Path(sys.argv[1]), 'run', line(f'{sys.argv[2]}-{i}', hypothesis='x' * 20_000))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    processes = [subprocess.Popen([sys.executable, "-c", code, str(path), f"w{i}"], env=environment) for i in range(5)]
    assert [process.wait(60) for process in processes] == [0] * 5
    ledger = read_ledger(path)
    assert (ledger.damaged, len(ledger.entries)) == ((), 125)
    for i in range(5):  # each in its own order
        assert [name for name in runs_of(path) if name.startswith(f"w{i}-")] == [f"w{i}-{n}" for n in range(25)]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_file_cut_anywhere_keeps_its_complete_lines(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    lines = written(4)
    content = b"".join(one + b"\n" for one in lines)
    cut = data.draw(st.integers(0, len(content)))
    path = tmp_path_factory.mktemp("cut") / "ledger.jsonl"
    path.write_bytes(content[:cut])
    whole = [f"run{i}" for i, one in enumerate(lines) if sum(len(before) + 1 for before in lines[:i]) + len(one) <= cut]
    assert runs_of(path) == whole
    append(path, "run", line("next"))
    ledger = read_ledger(path)
    assert [entry["run"] for entry in ledger.entries] == [*whole, "next"]
    assert len(ledger.damaged) <= 1


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_reading_loses_no_more_than_the_damaged_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    lines = written(4)
    hit = data.draw(st.integers(0, 3))
    start = data.draw(st.integers(0, len(lines[hit])))
    end = data.draw(st.integers(start, len(lines[hit])))
    rubbish = data.draw(
        st.one_of(
            st.binary(max_size=30), st.sampled_from([b"\0" * 50, b"[" * 5000, b'{"schema": 1}\n', b"9" * 5000, b"NaN"])
        )
    )
    lines[hit] = lines[hit][:start] + rubbish + lines[hit][end:]
    path = tmp_path_factory.mktemp("hit") / "ledger.jsonl"
    path.write_bytes(b"".join(one + b"\n" for one in lines))
    found = read_ledger(path)
    # What is left of the damaged line may still be one.
    for i, one in enumerate(written(4)):
        assert i == hit or json.loads(one) in found.entries
    assert len(found.entries) <= 4


@pytest.mark.parametrize(
    "damaged",
    [
        b"not JSON",
        b"[1, 2]",
        b"\xff\xfe",
        b"\0\0\0\0",
        b'{"schema": 1, "kind": "run", "run": "x"}',
        b'{"kind": "note", "run": "x", "time": "t", "text": "t"}',
        b'{"schema": 1, "kind": "other", "run": "x", "time": "t", "text": "t"}',
        b'{"schema": 1, "kind": "note", "run": "../x", "time": "t", "text": "t"}',
        b'{"schema": 1, "kind": ["run"]}',
        b'{"schema": "1", "kind": "run"}',
        json.dumps({"schema": 1, "kind": "run", **line("x", oof={"rows": 1})}).encode(),
        json.dumps({"schema": 1, "kind": "run", **line("x", folds={"zero": "sha"})}).encode(),
        json.dumps({"schema": 1, "kind": "run", **line("x", git={"commit": 3, "dirty": False})}).encode(),
        json.dumps({"schema": 1, "kind": "run", **line("x", baseline={"run": "y"})}).encode(),
        json.dumps({"schema": 1, "kind": "run", **line("x", k=float("nan"))}).encode(),
    ],
)
def test_a_line_that_is_none_is_passed_over_and_named(path: Path, damaged: bytes) -> None:
    append(path, "run", line("a"))
    path.write_bytes(damaged + b"\n" + path.read_bytes() + damaged)
    append(path, "run", line("b"))
    ledger = read_ledger(path)
    assert ([entry["run"] for entry in ledger.entries], ledger.damaged) == (["a", "b"], (1, 3))
    assert ledger.skipped_lines() == [f"{path}: 2 lines are damaged and skipped (1, 3)"]


def test_a_line_of_a_later_version_is_told_from_a_damaged_one(path: Path) -> None:
    append(path, "run", line("a"))
    with open(path, "a") as file:
        file.write(f'{{"schema": {SCHEMA + 1}, "kind": "run", "run": {{"name": "b"}}}}\n')
    ledger = read_ledger(path)
    assert ([entry["run"] for entry in ledger.entries], ledger.newer) == (["a"], (2,))
    assert ledger.skipped_lines() == [f"{path}: line 2 is written by a later version and skipped"]


def test_fields_of_a_later_version_do_no_harm(path: Path) -> None:
    append(path, "run", line("a", weather="fine"))
    assert runs_of(path) == ["a"]


def test_a_line_that_fills_the_disk_is_removed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append(path, "run", line("a"))
    before = path.read_bytes()
    write = os.write
    calls = []

    def full(file: int, data: Any) -> int:
        calls.append(len(data))
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "full")
        return write(file, bytes(data)[:100])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(EnsembleError, match="no space left on device") as raised:
        append(path, "run", line("b"))
    assert "`resume=True`" in str(raised.value.hint)
    monkeypatch.undo()
    assert path.read_bytes() == before
    append(path, "run", line("c"))
    assert runs_of(path) == ["a", "c"]


def test_a_line_that_is_written_in_pieces_is_one_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, bytes(data)[:37]))
    append(path, "run", line("a"))
    assert runs_of(path) == ["a"]


def test_without_locks_it_still_appends(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def none(file: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", none)
    append(path, "run", line("a"))
    append(path, "run", line("b"))
    assert runs_of(path) == ["a", "b"]


def test_a_writer_waits_for_the_one_before_it(path: Path) -> None:
    import fcntl
    import threading

    append(path, "run", line("a"))
    with open(path, "a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        writer = threading.Thread(target=append, args=(path, "run", line("b")))
        writer.start()
        writer.join(0.3)
        waited = writer.is_alive()
        other.write('{"half a li')
        other.flush()
    writer.join(10)
    assert waited
    assert runs_of(path) == ["a", "b"]


def test_a_name_that_is_no_text_can_be_written_and_read(path: Path) -> None:
    odd = os.fsdecode(b"people\xff.csv")
    append(path, "run", line("a", data=odd))
    assert read_ledger(path).entries[0]["data"] == odd


@pytest.mark.parametrize(
    ("kind", "record"), [("run", {"run": "a"}), ("run", line("../a")), ("note", {"run": "a", "time": "now", "text": 3})]
)
def test_what_could_not_be_read_again_is_not_written(path: Path, kind: str, record: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not a line of the ledger"):
        append(path, kind, record)
    assert not path.exists()


def test_a_folder_in_the_place_of_the_ledger_is_one_clear_error(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(EnsembleError, match=r"cannot read .*ledger\.jsonl: is a directory"):
        read_ledger(path)
    with pytest.raises(EnsembleError, match=r"cannot write .*ledger\.jsonl: is a directory"):
        append(path, "run", line("a"))


@pytest.mark.parametrize("task", ["foo", ["x"], 3, {}])
def test_a_line_with_an_unknown_task_is_damaged(path: Path, task: object) -> None:
    append(path, "run", line("a"))
    wrong = line("b")
    wrong["oof"] = wrong["oof"] | {"task": task}
    with path.open("ab") as file:
        file.write(json.dumps({"schema": 1, "kind": "run", **wrong}).encode() + b"\n")
    ledger = read_ledger(path)
    assert (runs_of(path), ledger.damaged) == (["a"], (2,))
    assert "damaged and skipped" in ledger.skipped_lines()[0]
