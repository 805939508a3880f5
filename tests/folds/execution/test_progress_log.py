"""Events of a job on another machine: each once, in order, whatever happens to the file in between."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from folds.execution import progress_log as journal_module
from folds.execution.progress_log import ProgressReader, ProgressWriter

STEP = {"event": "step", "done": 1, "total": 9}


def note(text: str) -> dict[str, str]:
    return {"event": "note", "text": text}


def test_simultaneous_notes_and_epochs_are_read_once_in_order(tmp_path: Path) -> None:
    journal, listener = (
        ProgressWriter(tmp_path / "fold0" / "progress.jsonl", {"node": "a"}),
        ProgressReader(tmp_path / "fold0" / "progress.jsonl"),
    )
    assert listener.events() == []
    said: list[dict[str, Any]] = [
        note("out of memory"),
        {"event": "epoch", "epoch": 1, "loss": float("inf")},
        note("Grüße"),
    ]
    for event in said:
        journal.add(event)
    assert listener.events() == [{**event, "node": "a"} for event in [{"event": "started"}, *said]]
    journal.add(note("last"))
    assert listener.events() == [{"event": "note", "text": "last", "node": "a"}]
    assert listener.events() == []


def test_steps_are_left_out_when_they_come_too_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(journal_module.time, "monotonic", lambda: now[0])
    journal, listener = ProgressWriter(tmp_path / "file", {}), ProgressReader(tmp_path / "file")
    for done in range(1, 31):
        journal.add({**STEP, "done": done})
        now[0] += journal_module.STEP_SECONDS / 8
    assert [event["done"] for event in listener.events() if event["event"] == "step"] == [1, 9, 17, 25]


def test_a_part_of_a_line_is_heard_when_the_rest_has_come(tmp_path: Path) -> None:
    path = tmp_path / "file"
    ProgressWriter(path, {}).add(note("whole"))
    text = path.read_bytes()
    listener = ProgressReader(path)
    heard = []
    for size in range(len(text) + 1):
        path.write_bytes(text[:size])
        heard += listener.events()
    assert heard == [{"event": "started"}, note("whole")]


def test_incomplete_line_of_a_killed_process_loses_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "file"
    listener = ProgressReader(path)
    ProgressWriter(path, {"node": "a"}).add(note("first"))
    with open(path, "ab") as file:
        file.write(b'{"event": "epo\x00\x00')
    ProgressWriter(path, {"node": "b"}).add(note("second"))
    assert [(event["event"], event["node"]) for event in listener.events()] == [
        ("started", "a"),
        ("note", "a"),
        ("started", "b"),
        ("note", "b"),
    ]


@pytest.mark.parametrize("line", ["[]", "7", "null", '{"node": "a"}', "[" * 100_000, "{"])
def test_lines_that_are_no_events_are_passed_over(tmp_path: Path, line: str) -> None:
    path = tmp_path / "file"
    path.write_text(f"{line}\n{json.dumps(STEP)}\n")
    assert ProgressReader(path).events() == [STEP]


def test_unwritten_events_are_written_with_the_next_event(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    (tmp_path / "folder").write_text("in the way")
    journal = ProgressWriter(path, {})
    for event in (note("one"), STEP, note("two")):
        journal.add(event)  # nothing is raised: the training goes on
    (tmp_path / "folder").unlink()
    journal.add(note("three"))
    assert ProgressReader(path).events() == [{"event": "started"}, note("one"), note("two"), note("three")]


def test_reader_forget_removes_the_file_and_restarts(tmp_path: Path) -> None:
    path = tmp_path / "file"
    listener = ProgressReader(path)
    listener.forget()  # none is there
    ProgressWriter(path, {}).add(note("of an earlier command"))
    listener.events()
    listener.forget()
    assert not path.exists()
    ProgressWriter(path, {}).add(note("new"))
    assert listener.events() == [{"event": "started"}, note("new")]
