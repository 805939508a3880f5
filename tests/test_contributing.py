"""What CONTRIBUTING.md says to add is added to a copy of the program, as it says, and tried."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT, Called, environment_of
from tests.processes import Forked

BLOCK = re.compile(r"^```(python|console)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECTIONS = ("architecture", "loss", "vote", "view")


@dataclass(frozen=True)
class Example:
    """A section: code by the file it goes to the end of, and commands."""

    code: dict[str, str]
    commands: list[str]


def example(section: str) -> Example:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (body,) = re.findall(rf"^## Add an? {section}\n(.*?)(?=^## )", text, re.MULTILINE | re.DOTALL)
    code: dict[str, str] = {}
    commands: list[str] = []
    for language, file, content in BLOCK.findall(body):
        if language == "python":
            code[file] = code.get(file, "") + content
        else:
            commands += [line.removeprefix("$ ") for line in content.splitlines() if line.startswith("$ ")]
    return Example(code, commands)


@pytest.fixture(scope="module")
def run_in_copy(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Path], Called]:
    """Run a command line of the text with a copy of the program to which all four examples were added."""
    tree = tmp_path_factory.mktemp("program")
    for package in ("ensemble", "folds"):
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("*.pyc.*"))
    for section in SECTIONS:
        for file, code in example(section).code.items():
            with (tree / file).open("a", encoding="utf-8") as source:
                source.write(f"\n\n{code}")

    def run(line: str, folder: Path) -> Called:
        program, *words = shlex.split(line)
        assert program == "ensemble"
        # The shell's part: a pattern stands for the files there are.
        words = [name for word in words for name in ([*map(str, Path().glob(word))] if "*.npy" in word else [word])]
        return Forked("ensemble", words, folder, environment_of(PYTHONPATH=str(tree))).wait()

    return run


@pytest.mark.parametrize("section", SECTIONS)
def test_example_works_as_written(section: str, run_in_copy: Callable[[str, Path], Called], grid: Path) -> None:
    written = example(section)
    assert written.code
    assert written.commands
    for line in written.commands:
        if "--epochs" in line:
            shutil.rmtree(grid / "runs")
            shutil.rmtree(grid / "checkpoints")
        called = run_in_copy(line, grid)
        assert called.code == 0, f"{line}\n{called.err}"


@pytest.mark.parametrize("section", SECTIONS)
def test_example_is_unknown_before_it_is_added(call: Callable[..., Called], section: str, grid: Path) -> None:
    # Otherwise the test above would pass whatever the text says.
    (line,) = example(section).commands
    _, *words = shlex.split(line)
    words = [name for word in words for name in ([*map(str, Path().glob(word))] if "*.npy" in word else [word])]
    called = call(*words)
    assert (called.code, "unknown" in called.err) == (2, True), called.err


def test_files_and_targets_that_are_named_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\b((?:tests|docs|folds|ensemble)/[\w./]*\w)", text))
    assert len(named) > 10
    assert not [name for name in named if not (ROOT / name).exists()]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^make (\w+)", text, re.MULTILINE))
    assert not [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)]
