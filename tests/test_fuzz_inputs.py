"""`benchmarks/fuzz_inputs.py` runs every fuzz of inputs and fails where one of them finds something wrong."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from types import ModuleType

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def inputs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_inputs", ROOT / "benchmarks" / "fuzz_inputs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


def test_all_parts_are_drawn_and_counted(inputs: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    beside = {path.stem.removeprefix("fuzz_") for path in (ROOT / "benchmarks").glob("fuzz_*.py")}
    assert {*inputs.PARTS, "inputs", "files"} == beside, "files of this program are fuzzed by fuzz_files.py"
    assert inputs.main(["--draws", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == list(inputs.PARTS)
    assert all("3 draws from seed 0" in line for line in lines)


def test_something_wrong_in_one_part_fails(inputs: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setitem(inputs.PARTS, "tables", lambda draws, seed: (Counter(wrong=1), ["seed 7: read otherwise"]))
    assert inputs.main(["--draws", "1"]) == 1
    assert "seed 7: read otherwise" in capsys.readouterr().out
    assert inputs.main(["--draws", "1", "--part", "members"]) == 0
