"""The live view of a training: a line with a sparkline per running fold in a terminal, a line per epoch elsewhere."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ensemble.cli.reports.training import curves_table
from ensemble.cli.terminal.progress import TerminalProgress, _scores
from folds.utils.sparkline import BLOCKS


class Terminal(io.StringIO):
    def __init__(self, encoding: str = "utf-8") -> None:
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def isatty(self) -> bool:
        return True


def job(fold: int) -> Any:
    return SimpleNamespace(run="swin", fold=fold, title=f"swin fold {fold}", recipe={"epochs": 9})


def epoch(*curve: float) -> dict[str, Any]:
    scores = {"loss": 0.5, "validation_macro_f1": curve[-1], "metric": "macro F1", "curve": curve}
    return {"event": "epoch", "epoch": len(curve), "done": len(curve), "total": 9, **scores}


def shown(stream: Any, monkeypatch: pytest.MonkeyPatch, width: str = "120") -> str:
    monkeypatch.setenv("COLUMNS", width)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", stream)
    with TerminalProgress().jobs([job(0), job(1)], 2) as view:
        view.event(job(0), epoch(0.2, 0.4))
        view.event(job(1), epoch(0.2, 0.6, 1.0))
        view.event(job(0), {"event": "step", "done": 3, "total": 9})
    return stream.getvalue()


def test_a_terminal_shows_the_curves_of_a_run_on_one_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(Terminal(), monkeypatch)
    assert "epoch 2, loss 0.500, macro F1 0.400 ▁▃ (0.20 to 1.00)" in text, "fold 0, drawn again with the scale of both"
    assert "epoch 3, loss 0.500, macro F1 1.000 ▁▅█ (0.20 to 1.00)" in text


def test_a_narrow_terminal_keeps_the_score(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "macro F1 1.000 ▁▅█ (0.20 to 1.00)" in shown(Terminal(), monkeypatch, "80")


def test_a_terminal_without_blocks_gets_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(Terminal("ascii"), monkeypatch)
    assert "macro F1 1.000 .+@ (0.20 to 1.00)" in text
    assert not set(text) & set(BLOCKS)


def test_a_file_gets_a_line_per_epoch_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(io.StringIO(), monkeypatch).splitlines()
    assert [line.split(";")[0] for line in lines] == [
        "swin fold 0: epoch 2 of 9, loss 0.500, macro F1 0.400",
        "swin fold 1: epoch 3 of 9, loss 0.500, macro F1 1.000",
    ]


def trained(folder: Path, *histories: list[float], metric: str = "macro_f1") -> Any:
    for fold, curve in enumerate(histories):
        (folder / f"fold{fold}").mkdir(parents=True)
        rows = [f"{at},1.0,{value}" for at, value in enumerate(curve, 1)]
        (folder / f"fold{fold}" / "history.csv").write_text("\n".join(["epoch,loss,validation_macro_f1", *rows]))
    run = SimpleNamespace(name="swin", folder=folder, recipe=SimpleNamespace(metric=metric))
    summary = SimpleNamespace(run="swin", folds=dict.fromkeys(range(len(histories))))
    return SimpleNamespace(summaries=[summary], runs={"swin": run})


def test_the_final_table_has_a_curve_per_fold_with_metric_and_scale(tmp_path: Path) -> None:
    table = curves_table(trained(tmp_path, [0.1, 0.5], [0.1, 0.9])).splitlines()
    assert table[0].split() == "run by epoch scale a curve per fold".split()
    assert table[2] == "swin  macro F1  0.100 to 0.900  ▁▅ ▁█"


def test_one_epoch_is_no_curve_and_many_folds_fit(tmp_path: Path) -> None:
    assert curves_table(trained(tmp_path / "a", [0.5], [0.4])) == ""
    wide = curves_table(trained(tmp_path / "b", *([[0.1 * at for at in range(30)]] * 10)))
    assert max(map(len, wide.splitlines())) <= 100


@pytest.mark.parametrize(
    ("task", "scores", "shown"),
    [
        (None, {"validation_macro_f1": 0.6, "validation_accuracy": 0.7}, "loss 0.500, macro F1 0.600"),
        ("multilabel", {"validation_roc_auc": 0.6, "validation_macro_f1": 0.7}, "loss 0.500, ROC-AUC 0.600"),
        (
            "multilabel",
            {"validation_roc_auc": 0.6, "validation_macro_f1": 0.7, "validation_accuracy": 0.8},
            "loss 0.500, ROC-AUC 0.600",
        ),
        ("regression", {"validation_mae": 6.1, "validation_rmse": 8.0}, "loss 0.500, mean absolute error 6.100"),
        (None, {}, "loss 0.500"),
    ],
)
def test_an_epoch_shows_the_score_of_its_task(task: str | None, scores: dict[str, float], shown: str) -> None:
    assert _scores({"loss": 0.5, **scores}, task) == shown
