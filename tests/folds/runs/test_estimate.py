from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from folds.runs import estimate
from tests.conftest import GRID, Called


def test_a_dry_run_estimates_the_time_of_all_folds(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[..., Called]
) -> None:
    monkeypatch.chdir(drawn.parent)
    monkeypatch.setattr(estimate, "_seconds_per_step", lambda run, batch, device, decided: 0.5)
    folder = str(drawn.relative_to(drawn.parent))
    words = ["kfold", "--data", folder, *GRID[3:], "--batch-size", "20", "--jobs", "1", "--dry-run"]
    called = call(*words)
    assert called.code == 0, called.err
    # Two models; full batches of 20 in folds of 84, 63 and 63 images: 6, 7 and 7 steps, 5, 4 and 4 of validation.
    assert "about 24 s in all" in called.err
    planned = json.loads(call(*words, "--json").out)["plan"]
    assert planned["seconds"] == pytest.approx(2 * 0.5 * (20 + 13 / 3), abs=0.1)
