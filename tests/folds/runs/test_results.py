"""Trained runs in the Python interface, without training."""

from __future__ import annotations

from pathlib import Path

import pytest

from folds.errors import UsageError
from folds.runs.results import TrainedRun, list_runs, load_run


def test_an_empty_folder_lists_the_columns_of_a_full_one(tmp_path: Path) -> None:
    listed = list_runs(root=tmp_path)
    assert len(listed) == 0
    assert {"run", "arch", "k", "macro_f1", "macro_f1_low", "test_accuracy", "p_value", "seconds"} <= set(
        listed.columns
    )


def test_a_run_needs_a_name() -> None:
    with pytest.raises(UsageError, match="name must be text, found None"):
        load_run(None)  # type: ignore[arg-type]


def test_a_run_shows_the_curve_of_each_fold(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "swin"
    for fold, scores in enumerate([(0.1, 0.4), (0.2, 0.6), (0.3,)]):
        (folder / f"fold{fold}").mkdir(parents=True)
        rows = [f"{at},1.0,{score},{1 - score:.1f}" for at, score in enumerate(scores, 1)]
        header = "epoch,loss,validation_macro_f1,validation_log_loss"
        (folder / f"fold{fold}" / "history.csv").write_text("\n".join([header, *rows]))
    (drawn,) = TrainedRun("swin", tmp_path).display_parts()
    assert "Validation macro F1 of swin by epoch" in drawn
    assert "3 folds. At the end from 0.300 (fold 2) to 0.600 (fold 1)." in drawn
    assert drawn.count('class="line ') == 6, "a line per fold, also in the legend"
    (folder / "config.toml").write_text('metric = "log_loss"\n')
    assert "Validation log loss of swin by epoch" in TrainedRun("swin", tmp_path).display_parts()[0]
    assert TrainedRun("vit", tmp_path).display_parts() == ()
