"""The command line works with any encoding, and with streams that are closed or full."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ensemble.cli.terminal import streams

ROOT = Path(__file__).parents[3]
FULL = Path("/dev/full")


@pytest.fixture
def answers(tmp_path):
    for name, label in (("a", "ä"), ("b", "z")):
        text = "id,ans\n" + "".join(f"{i},{label if i % 2 else 'z'}\n" for i in range(6))
        (tmp_path / f"{name}.csv").write_text(text, encoding="utf-8")
    return tmp_path


def blend(folder, *more, **named):
    command = [sys.executable, "-m", "ensemble", "blend", "a.csv", "b.csv", "--method", "hard", "-o", "x", *more]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **named.pop("env", {})}
    return subprocess.run(command, cwd=folder, env=variables, check=False, **named)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_an_encoding_without_a_dash_prints_a_hyphen(answers, encoding):
    env = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = blend(answers, env=env, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert " -  " in done.stdout.decode(encoding)
    assert "ä" in (answers / "runs/blends/x/test.json").read_text(encoding="utf-8")


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")
def test_full_streams_are_told_where_possible_and_lose_no_file(answers):
    with FULL.open("w") as full:
        done = blend(answers, stdout=full, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 1
        assert "error: the result could not be printed on standard output: no space left on device" in done.stderr
        assert "internal" not in done.stderr
        assert (answers / "runs/blends/x/test.npy").is_file()
        assert blend(answers, "--force", stderr=full, stdout=subprocess.DEVNULL).returncode == 0


def test_a_daemon_without_streams_blends(answers):
    command = f"{sys.executable} -m ensemble blend a.csv b.csv --method hard -o x <&- >&- 2>&-"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run(["sh", "-c", command], cwd=answers, env=env, check=False).returncode == 0
    assert (answers / "runs/blends/x/test.npy").is_file()


def test_a_removed_working_folder_is_one_line(call, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    called = call("blend", "a.npy")
    assert called.code == 1
    assert called.err.startswith("error: the working folder does not exist any more")


def test_other_letters_are_escaped_not_replaced(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    streams.prepare_streams()
    print("0.5 – 0.6 × Bär", flush=True)
    assert raw.getvalue() == b"0.5 - 0.6 x B\\xe4r\n"


def test_what_surroundings_cause_is_no_internal_error():
    from ensemble.cli.app import _of_surroundings

    for error in (
        ImportError("libtorch_cpu.so: failed to map segment from shared object", name="torch"),
        MemoryError(),
        OSError(36, "File name too long", "x" * 500),
        RuntimeError("can't start new thread"),
    ):
        found = _of_surroundings(error)
        assert found is not None
        assert len(found.message) < 250
    assert _of_surroundings(KeyError("a")) is None
