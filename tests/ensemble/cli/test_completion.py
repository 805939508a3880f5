from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ensemble.cli.commands.completion import SCRIPTS
from ensemble.cli.terminal.commands import COMMANDS
from ensemble.cli.terminal.completion import candidates
from folds.utils.files import write_atomic, write_json
from tests.conftest import ROOT, Called

Call = Callable[..., Called]


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_atomic(Path("runs/swin/config.toml"), "k = 2\n")
    write_json(Path("runs/blends/soft-1/blend.json"), {})


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["kf"], ["kfold"]),
        (["runs", "r"], ["rm", "rename"]),
        (["runs", "show", ""], ["blends/soft-1", "swin"]),
        (["runs", "show", "sw"], ["swin"]),
        (["kfold", "--resume", ""], ["swin"]),
        (["kfold", "--select", ""], ["last", "best"]),
        (["kfold", "--devi"], ["--devices"]),
        (["blend", "--unf"], ["--unfinished"]),
        (["blend", "runs/x.npy", "bl"], ["blends/soft-1"]),
        (["folds", "ch"], ["check"]),
        (["nothing", ""], []),
    ],
)
def test_commands_flags_and_names_are_completed(words: list[str], found: list[str]) -> None:
    if words == ["kfold", "--resume", ""]:
        found = ["blends/soft-1", "swin"]
    assert candidates(words, list(COMMANDS)) == found


def test_each_shell_gets_a_script(call: Call) -> None:
    for shell in SCRIPTS:
        called = call("completion", shell)
        assert called.code == 0
        assert "ensemble completion candidates -- " in called.out
    assert call("completion", "bsh").err.startswith("error: unknown shell 'bsh'; did you mean bash")


def test_bash_completes_with_the_script(tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash")
    script = tmp_path / "bin" / "ensemble"
    write_atomic(script, f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m ensemble "$@"\n')
    script.chmod(0o755)
    line = f"{SCRIPTS['bash']}\nCOMP_WORDS=(ensemble runs show sw); COMP_CWORD=3; _ensemble_completion; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(
        [bash, "-c", line], env={"PATH": f"{script.parent}:/usr/bin:/bin"}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "swin\n"


def test_errors_are_objects_under_json(call: Call) -> None:
    for words, code in ((["runs", "show", "swn"], 2), (["blend", "x.npy"], 1), (["kfold", "--epochs", "x"], 2)):
        called = call(*words, "--json")
        record = json.loads(called.out)
        assert (called.code, record["exit_code"]) == (code, code)
        assert f"error: {record['error']}" in called.err
        assert f"hint: {record['hint']}" in called.err
    assert call("runs", "show", "swn").out == ""


def test_commands_of_other_programs_point_to_the_one_here(call: Call) -> None:
    called = call("train")
    assert called.code == 2
    assert called.err == "error: unknown command 'train'; did you mean kfold?\nhint: ensemble kfold\n"
