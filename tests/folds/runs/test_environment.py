"""What versions a run was begun with, and what is said where they are others now."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from folds.runs.environment import environment, version_warnings

NOW = {"python": "3.12.1", "torch": "2.12", "numpy": "2.4", "scikit-learn": "1.9", "cuda device": "B"}


def begun(folder: Path, name: str, content: object) -> Path:
    path = folder / name
    path.mkdir()
    (path / "environment.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_the_environment_names_what_decides_the_last_bits() -> None:
    found = environment()
    assert {
        "ensemble",
        "python",
        "machine",
        "cpu",
        "torch",
        "torchvision",
        "timm",
        "numpy",
        "pillow",
        "scikit-learn",
    } <= found.keys()
    assert all(isinstance(value, str) and value for value in found.values())
    assert version_warnings([], found, on_gpu=False) == []


def test_the_same_versions_are_not_worth_a_word(tmp_path: Path) -> None:
    assert version_warnings([begun(tmp_path, "swin", NOW)], NOW, on_gpu=True) == []


def test_runs_with_the_same_differences_share_one_warning(tmp_path: Path) -> None:
    old = NOW | {"torch": "2.11", "numpy": "2.3"}
    folders = [begun(tmp_path, name, old) for name in ("swin", "vit")] + [
        begun(tmp_path, "resnet", NOW | {"python": "3.11.2"})
    ]
    assert version_warnings(folders, NOW, on_gpu=False) == [
        "swin, vit: started with torch 2.11 (now 2.12), numpy 2.3 (now 2.4); results may differ in the last bits",
        "resnet: started with python 3.11.2 (now 3.12.1); results may differ in the last bits",
    ]


def test_gpu_kind_counts_on_a_gpu_and_scikit_learn_never(
    tmp_path: Path,
) -> None:
    folder = begun(tmp_path, "swin", NOW | {"cuda device": "A", "scikit-learn": "1.8"})
    assert version_warnings([folder], NOW, on_gpu=False) == []
    assert version_warnings([folder], NOW, on_gpu=True) == [
        "swin: started with cuda device A (now B); results may differ in the last bits"
    ]


def test_versions_missing_in_an_older_record_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    assert version_warnings([begun(tmp_path, "swin", {"python": "3.12.1"}), tmp_path / "none"], NOW, on_gpu=True) == []


@pytest.mark.parametrize("content", ["{", "[1]", '"text"'])
def test_a_damaged_record_is_said_and_stops_nothing(tmp_path: Path, content: str) -> None:
    [line] = version_warnings([begun(tmp_path, "swin", content)], NOW, on_gpu=True)
    assert line.startswith("swin: environment.json is damaged")
