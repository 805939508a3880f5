"""The changed labels that a run or a blend has learned from, however far back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from folds.errors import EnsembleError
from folds.predictions.changed_labels import changed_ids, write_changed_labels


def run(runs: Path, name: str, *changed: str, config: str = "") -> None:
    (runs / name).mkdir(parents=True)
    (runs / name / "config.toml").write_text(config)
    if changed:
        rows = {"id": changed, "label": ["a"] * len(changed), "change": ["drop"] * len(changed)}
        write_changed_labels(runs / name, rows | {"new_label": [""] * len(changed)})


def blend(runs: Path, name: str, *members: dict[str, object]) -> None:
    (runs / "blends" / name).mkdir(parents=True)
    (runs / "blends" / name / "blend.json").write_text(json.dumps({"inputs": members}))


def test_blends_of_blends_are_followed(tmp_path: Path) -> None:
    run(tmp_path, "clean", "1.png")
    run(tmp_path, "other", "2.png", "3.png")
    run(tmp_path, "twice")  # a run and a blend have this name
    run(tmp_path, "apart", "9.png")
    blend(tmp_path, "inner", {"run": "clean", "path": "runs/clean.oof.npy"})
    blend(tmp_path, "twice", {"run": "other", "path": "runs/other.oof.npy"}, {"run": "blends/outer"})
    blend(tmp_path, "outer", {"run": "inner"}, {"run": "twice", "path": "runs/blends/twice/oof.npy"}, {"run": "outer"})
    assert changed_ids("blends/outer", tmp_path) == changed_ids("outer", tmp_path) == {"1.png", "2.png", "3.png"}
    assert changed_ids("twice", tmp_path) == frozenset()
    assert changed_ids("blends/inner", tmp_path) == {"1.png"}


@pytest.mark.parametrize(
    "config",
    [
        'init_run = "middle"',
        '[resolved]\nteacher = "middle"',
        '[resolved]\nteacher = "blends/soft"',
        '[resolved]\npseudo_teacher = "gone,middle"',
    ],
)
def test_a_run_has_learned_what_its_origins_have(tmp_path: Path, config: str) -> None:
    run(tmp_path, "clean", "1.png")
    run(tmp_path, "middle", config='init_run = "clean"')
    blend(tmp_path, "soft", {"run": "middle"})
    run(tmp_path, "last", "2.png", config=config)
    assert changed_ids("last", tmp_path) == {"1.png", "2.png"}
    assert changed_ids("clean", tmp_path) == {"1.png"}


def test_names_that_lead_elsewhere_or_nowhere_are_left(tmp_path: Path) -> None:
    run(tmp_path, "outside", "1.png")
    config = 'init_run = "../outside"\n[resolved]\nteacher = "blends/gone"\npseudo_teacher = "..,gone"'
    run(tmp_path / "runs", "own", "2.png", config=config)
    assert changed_ids("own", tmp_path / "runs") == {"2.png"}
    (tmp_path / "runs/own/config.toml").write_text("= 1")
    with pytest.raises(EnsembleError, match="cannot be read"):
        changed_ids("own", tmp_path / "runs")
