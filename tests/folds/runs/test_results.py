"""Trained runs in the Python interface, without training."""

from __future__ import annotations

from pathlib import Path

import pytest

from folds.errors import UsageError
from folds.runs.results import list_runs, load_run


def test_an_empty_folder_lists_the_columns_of_a_full_one(tmp_path: Path) -> None:
    listed = list_runs(root=tmp_path)
    assert len(listed) == 0
    assert {"run", "arch", "k", "macro_f1", "macro_f1_low", "test_accuracy", "p_value", "seconds"} <= set(
        listed.columns
    )


def test_a_run_needs_a_name() -> None:
    with pytest.raises(UsageError, match="name must be text, found None"):
        load_run(None)  # type: ignore[arg-type]
