"""The examples of examples/ run, the notebook reduced; what is committed of a notebook has no outputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from folds.data.sources import BUILT_IN
from folds.data.synthetic.people import generate_people
from tests.conftest import environment_of
from tests.processes import Forked
from tests.run_notebook import code_cells

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


def run(folder: Path, program: Path, *words: object) -> str:
    done = Forked(program, words, folder, environment_of()).wait()
    assert done.code == 0, done.err
    return done.out


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_a_script_runs(name: str, tmp_path: Path) -> None:
    assert "nested macro F1" in run(tmp_path, EXAMPLES / name)


def test_the_notebook_runs(tmp_path: Path) -> None:
    generate_people(tmp_path / "quickstart" / BUILT_IN, people=30, test_people=6)  # the notebook keeps their number
    few = {"ARCHS": "['test_resnet','test_vit']", "EPOCHS": "1", "K": "2"}
    values = [f"{name}={value}" for name, value in few.items()]
    shown = run(tmp_path, ROOT / "tests/run_notebook.py", EXAMPLES / "quickstart.ipynb", *values)
    assert "nested macro F1" in shown
    assert (tmp_path / "quickstart/runs/blends/quickstart/blend.json").exists()
    assert not (tmp_path / "runs").exists()


def test_the_notebook_is_committed_without_outputs() -> None:
    cells = code_cells(EXAMPLES / "quickstart.ipynb")
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)
    record = json.loads((EXAMPLES / "quickstart.ipynb").read_text(encoding="utf-8"))
    assert len({cell["id"] for cell in record["cells"]}) == len(record["cells"])
