"""Runs of several labels whose folds would be found otherwise now: they go on with the folds that they recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from folds.config.command_settings import Settings
from folds.data.table import SampleTable
from folds.runs.recorded_folds import with_recorded_folds
from folds.splits.assignment import FoldAssignment, save_folds
from folds.splits.repeated import make_splits
from tests.folds.splits.test_column_tasks import table_of_columns

SETTINGS = Settings(k=3, repeats=2)


@pytest.fixture(scope="module")
def table() -> SampleTable:
    values = np.random.default_rng(0).integers(0, 2, (36, 2)).astype(float)
    return table_of_columns(values, ("hat", "scarf"), "multilabel", np.repeat(np.arange(18), 2))


@pytest.fixture(scope="module")
def made(table: SampleTable) -> list[FoldAssignment]:
    return make_splits(table, SETTINGS, 0)


def former(one: FoldAssignment, **changes: Any) -> FoldAssignment:
    """Return a split by the same settings with which people are in other folds."""
    return replace(one, fold=(one.fold + 1) % 3, **changes)


def record(root: Path, name: str, split: FoldAssignment, sha: str | None = None) -> Path:
    folder = root / name
    save_folds(folder / "folds.csv", split)
    (folder / "config.toml").write_text(f'k = 3\n[resolved]\nfolds_sha = "{sha or split.sha}"\n')
    return folder


def test_a_run_goes_on_with_its_folds_and_a_new_one_beside_it_has_them(
    table: SampleTable, made: list[FoldAssignment], tmp_path: Path
) -> None:
    kept = [former(one) for one in made]
    record(tmp_path, "old", kept[0])
    record(tmp_path, "old-r1", kept[1])
    found = with_recorded_folds(made, SETTINGS, table, tmp_path, ["new", "old"])
    assert [one.sha for one in found] == [one.sha for one in kept] != [one.sha for one in made]
    assert [(one.seed, one.repeat, one.table_sha) for one in found] == [(0, 0, table.sha), (0, 1, table.sha)]
    assert [one.check() for one in found] == [[], []]


@pytest.mark.parametrize(
    ("changes", "sha", "settings"),
    [
        ({"seed": 1}, None, SETTINGS),  # another seed was asked for
        ({"stratify": ("site",)}, None, SETTINGS),
        ({}, "0" * 64, SETTINGS),  # the file is not that which the run was started with
        ({}, None, replace(SETTINGS, fold_column="f")),
        ({}, None, replace(SETTINGS, folds=Path("folds.csv"))),
    ],
)
def test_folds_made_from_other_settings_are_not_taken(
    table: SampleTable,
    made: list[FoldAssignment],
    tmp_path: Path,
    changes: Mapping[str, Any],
    sha: str | None,
    settings: Settings,
) -> None:
    record(tmp_path, "old", former(made[0], **changes), sha)
    found = with_recorded_folds(made[:1], settings, table, tmp_path, ["old"])
    assert found[0] is made[0]


def test_folds_of_other_samples_are_not_taken(table: SampleTable, made: list[FoldAssignment], tmp_path: Path) -> None:
    folder = record(tmp_path, "old", former(made[0]))
    lines = (folder / "folds.csv").read_text().splitlines(keepends=True)
    (folder / "folds.csv").write_text("".join(lines[:-1]))
    assert with_recorded_folds(made[:1], SETTINGS, table, tmp_path, ["old"])[0] is made[0]
