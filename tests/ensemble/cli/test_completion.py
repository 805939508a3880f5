from __future__ import annotations

import json
import re
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


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program `ensemble` of this source, for a shell."""
    script = tmp_path / "bin" / "ensemble"
    write_atomic(script, f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m ensemble "$@"\n')
    script.chmod(0o755)
    return script


def shell(program: Path, *words: str) -> str:
    path = f"{program.parent}:/usr/local/bin:/usr/bin:/bin"
    environment = {"PATH": path, "HOME": str(program.parent), "LANG": "C.UTF-8"}
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout


def test_zsh_completes_with_the_script(program: Path) -> None:
    zsh = shutil.which("zsh")
    if zsh is None:
        pytest.skip("no zsh")
    # compadd only works inside a widget; the function is called with the words that the widget would set.
    line = (
        f"compdef() {{ :; }}; compadd() {{ shift; print -l -- $@; }}; _files() {{ print files; }}\n{SCRIPTS['zsh']}\n"
    )
    line += "words=(ensemble runs show sw); CURRENT=4; _ensemble; words=(ensemble runs show zz); _ensemble"
    assert shell(program, zsh, "-f", "-c", line) == "swin\nfiles\n"


def test_fish_completes_with_the_script(program: Path) -> None:
    fish = shutil.which("fish")
    if fish is None:
        pytest.skip("no fish")
    line = f"{SCRIPTS['fish']}\ncomplete -C 'ensemble runs show sw'"
    assert shell(program, fish, "--no-config", "-c", line).split() == ["swin"]


def _without_strings(script: str) -> str:
    """Return a script with the content of its quotes removed, where a bracket is no syntax."""
    return re.sub(r"'[^']*'|\"[^\"]*\"", "''", script)


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_scripts_are_balanced_where_the_shell_is_not_installed(name: str) -> None:
    script = SCRIPTS[name]
    assert script.count('"') % 2 == script.count("'") % 2 == 0
    assert all(script.count(one) == script.count(other) for one, other in ("()", "[]", "{}"))
    words = re.findall(r"\b(?:function|if|while|for|begin|switch|end|then|fi)\b", _without_strings(script))
    if name == "fish":
        assert words.count("end") == sum(word not in ("end", "then", "fi") for word in words) > 0
    else:
        assert words.count("then") == words.count("if") == words.count("fi")


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
