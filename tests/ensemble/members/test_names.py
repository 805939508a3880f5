from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ensemble.members.names import expand_names, leave_out_unfinished, name_hint
from folds.errors import EnsembleError
from folds.utils.files import write_atomic, write_json
from tests.conftest import Logged


def make_run(name: str, finished: int, k: int = 2) -> list[Path]:
    """A run with an out-of-fold file, and a test file per finished fold."""
    runs = Path("runs")
    write_atomic(runs / name / "config.toml", f'arch = ["swin"]\nk = {k}\n')
    paths = []
    for fold in range(finished):
        write_json(runs / name / f"fold{fold}/done.json", {})
        paths.append(runs / f"{name}.fold{fold}.test.npy")
    paths = [runs / f"{name}.oof.npy", *paths] if finished else []
    for path in paths:
        np.save(path, np.full((2, 2), 0.5))
    return paths


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_names_of_runs_and_blends_become_their_files(logged: Logged) -> None:
    swin = make_run("swin", 2)
    blend = Path("runs/blends/soft-1")
    write_json(blend / "blend.json", {})
    np.save(blend / "oof.npy", np.eye(2))
    assert expand_names([Path("swin")]) == swin
    for name in ("soft-1", "blends/soft-1"):
        assert expand_names([Path(name)]) == [blend / "oof.npy"]
    other = Path("other.npy")
    assert expand_names([other, Path("runs/*.npy")]) == [other, Path("runs/*.npy")]
    np.save("swin", np.eye(2))
    Path("swin.npy").rename("swin")
    assert expand_names([Path("swin")]) == [Path("swin")]  # a file of this name comes first
    assert logged.lines == []


def test_a_run_without_predictions_is_refused_by_name() -> None:
    make_run("swin", 0)
    with pytest.raises(EnsembleError, match="the run swin has no predictions") as error:
        expand_names([Path("swin")])
    assert error.value.hint == "ensemble kfold --resume swin trains them"
    make_run("resnet18", 2)
    assert name_hint("resnet") == "did you mean the run resnet18?"


def test_unfinished_runs_are_left_out_with_a_warning(logged: Logged) -> None:
    whole, half = make_run("whole", 2), make_run("half", 1)
    assert leave_out_unfinished([*whole, *half]) == whole
    assert logged.warnings == ["half (1 of 2 folds) is unfinished and left out; `unfinished=True` blends all"]


def test_unfinished_runs_stay_if_asked_for_or_alone(logged: Logged) -> None:
    whole, half = make_run("whole", 2), make_run("half", 1)
    assert leave_out_unfinished([*whole, *half], keep=True) == [*whole, *half]
    assert leave_out_unfinished([*whole, *half], named=["half"]) == [*whole, *half]
    assert leave_out_unfinished(half) == half
    assert logged.warnings == [
        "half (1 of 2 folds) is unfinished",
        "half (1 of 2 folds) is unfinished, as all runs here are",
    ]


def test_files_of_others_are_never_unfinished(logged: Logged) -> None:
    make_run("half", 1)
    files = [Path("half.oof.npy"), Path("runs/theirs.oof.npy"), Path("elsewhere/half.npy")]
    assert leave_out_unfinished(files) == files
    assert logged.lines == []
