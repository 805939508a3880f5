"""Folds in training, for tests of what is logged of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from folds.training.job import Job


def record(epoch: int) -> dict[str, float]:
    """A row of history.csv."""
    scores = {"validation_macro_f1": epoch / 10, "validation_accuracy": epoch / 20, "validation_log_loss": 2.0 / epoch}
    return {"epoch": epoch, "loss": 3.0 / epoch, "lr": 0.001, "seconds": 1.5, **scores}


def event(epoch: int, total: int = 9) -> dict[str, Any]:
    """What a fold reports after an epoch."""
    return {"event": "epoch", "done": epoch, "total": total, **record(epoch)}


def made_job(run: str = "swin", fold: int = 1, epochs: int = 2, runs: Path = Path("runs"), k: int = 2) -> Job:
    """A fold of a run, in whose history.csv some epochs stand."""
    made = Job(run, fold, k, str(runs / run), "", "", None, {}, {}, {}, {}, (), {}, "")
    made.fold_dir.mkdir(parents=True, exist_ok=True)
    if epochs:
        rows = [record(epoch) for epoch in range(1, epochs + 1)]
        lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
        (made.fold_dir / "history.csv").write_text("\n".join(lines) + "\n")
    return made
