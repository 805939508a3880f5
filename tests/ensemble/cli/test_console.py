"""What the library logs, as the command line prints it; and what is left when a command has ended."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ensemble.cli.terminal import console
from ensemble.cli.terminal.progress import TerminalProgress
from folds.utils.progress import Progress
from folds.utils.tables import read_table_file

ROOT = Path(__file__).parents[3]
LIBRARY = [logging.getLogger("folds.runs.session"), logging.getLogger("ensemble.blending.blend")]


@pytest.fixture(autouse=True)
def _usual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "quiet", False)
    monkeypatch.setattr(console, "as_json", False)


@pytest.mark.parametrize("logger", LIBRARY, ids=lambda logger: logger.name)
def test_notes_warnings_and_errors_are_printed_in_order(
    capsys: pytest.CaptureFixture[str], logger: logging.Logger
) -> None:
    with console.printing_logs():
        logger.info("a note, 100 %")
        logger.warning("be careful\n  a second line")
        logger.debug("not said")
        console.note("of the command")
        logger.error("it failed")
    assert capsys.readouterr().err == (
        "a note, 100 %\nwarning: be careful\n  a second line\nof the command\nerror: it failed\n"
    )


def test_quiet_leaves_out_notes_and_keeps_warnings(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "quiet", True)
    with console.printing_logs():
        LIBRARY[0].info("a note")
        LIBRARY[0].warning("be careful")
    assert capsys.readouterr().err == "warning: be careful\n"


def test_control_characters_of_a_name_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    with console.printing_logs():
        LIBRARY[0].warning("a\x1b[2Jb")
    assert capsys.readouterr().err == "warning: a\\x1b[2Jb\n"


def test_nothing_is_left_of_the_printing_after_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("folds")
    before = logger.level, logger.propagate, list(logger.handlers)
    with pytest.raises(RuntimeError), console.printing_logs():
        raise RuntimeError
    assert (logger.level, logger.propagate, list(logger.handlers)) == before


def test_a_root_handler_does_not_print_a_second_time(capsys: pytest.CaptureFixture[str]) -> None:
    extra = logging.StreamHandler(sys.stderr)
    logging.getLogger().addHandler(extra)
    try:
        with console.printing_logs():
            LIBRARY[0].warning("once")
    finally:
        logging.getLogger().removeHandler(extra)
    assert capsys.readouterr().err == "warning: once\n"


def test_without_a_handler_a_library_user_sees_warnings_alone() -> None:
    code = "import logging\nlog = logging.getLogger('folds.x')\nlog.info('a note')\nlog.warning('be careful')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stderr == "be careful\n"


def test_the_terminal_is_a_progress_that_draws_nothing_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    progress: Progress = TerminalProgress()
    with progress.step("decoding images") as advance:
        advance(1, 2)
    with progress.jobs([], 2):
        pass
    assert capsys.readouterr().err == ""


def test_a_long_step_says_once_in_a_file_how_long_it_takes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with TerminalProgress().step("fitting") as advance:
        for done in range(4):
            advance(done, 4)
            now[0] += 10.0
    assert capsys.readouterr().err == "fitting: 1 of 4, about 30 s left\n"


def test_a_wide_table_leaves_out_optional_columns_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    header, row = ["name", "a" * 40, "b" * 40, "c" * 20], ["x", "1", "2", "3"]
    console.left_out.clear()
    text = console.table(header, [row], optional=[2, "a" * 40])
    assert [line.split() for line in text.splitlines()[::2]] == [["name", "a" * 40, "c" * 20], ["x", "1", "3"]]
    console.result(text, {})
    assert capsys.readouterr().err == f"--wide also shows: {'b' * 40}\n"
    console.result("next", {})
    assert capsys.readouterr().err == ""


def test_a_table_that_fits_or_is_asked_for_keeps_all_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "kept" in console.table(["name", "kept"], [["x", "1"]], optional=["kept"])
    monkeypatch.setattr(console, "wide", True)
    assert len(console.table(["name", "kept"], [["x", "1" * 120]], optional=["kept"]).splitlines()[0]) > 100


def test_each_epoch_is_a_line_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    job = SimpleNamespace(run="swin", fold=1, recipe={"epochs": 5})
    with TerminalProgress().jobs([job], 1) as view:  # type: ignore[list-item]
        for epoch in (1, 2):
            event = {
                "event": "epoch",
                "epoch": epoch,
                "done": epoch,
                "total": 5,
                "loss": 0.5,
                "validation_macro_f1": 0.25,
            }
            view.event(job, event)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "swin fold 1: epoch 1 of 5, loss 0.500, macro F1 0.250"
    assert lines[1].startswith("swin fold 1: epoch 2 of 5, loss 0.500, macro F1 0.250; about ")
    assert len(lines) == 2


def test_a_table_read_twice_is_described_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    for name in ("a", "b"):
        pandas.DataFrame({"age": [1.0, None]}).to_parquet(tmp_path / f"{name}.parquet")
    with console.printing_logs():
        for name in ("a", "a", "b"):
            assert read_table_file(tmp_path / f"{name}.parquet").columns == {"age": ["1", ""]}
        LIBRARY[0].info("a note")
        LIBRARY[0].info("a note")
    lines = capsys.readouterr().err.splitlines()
    said = "whole numbers stored as decimals are read as 1, not 1.0: age"
    assert lines == [f"{tmp_path}/{name}.parquet: {said}" for name in ("a", "b")] + ["a note", "a note"]
