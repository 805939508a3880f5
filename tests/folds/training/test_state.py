from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from folds.errors import EnsembleError
from folds.training import state as module
from folds.training.state import Progress, StateWriter, TrainingState


def record(epoch: int) -> dict[str, float]:
    return {"epoch": epoch, "loss": 1 / epoch}


def epochs(folder: Path) -> list[str]:
    path = folder / "history.csv"
    return [line.split(",")[0] for line in path.read_text().splitlines()[1:]] if path.exists() else []


def training(best: dict[str, torch.Tensor] | None = None) -> TrainingState:
    model = torch.nn.Linear(2, 2)
    scaler = torch.amp.GradScaler("cuda", enabled=False)
    return TrainingState(model, torch.optim.SGD(model.parameters(), 0.1), None, scaler, Progress(best=best))


def test_histories_that_come_while_one_is_written_are_one_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, writing, free, writes = StateWriter(tmp_path), threading.Event(), threading.Event(), []
    write = module.write_atomic

    def slow(path: Path, content: Any) -> Path:
        writes.append(path.name)
        writing.set()
        assert free.wait(30)
        return write(path, content)

    monkeypatch.setattr(module, "write_atomic", slow)
    history = [record(1)]
    writer.record(history)
    assert writing.wait(30)
    for epoch in range(2, 6):  # does not wait for the disk
        history.append(record(epoch))
        writer.record(history)
    free.set()
    writer.wait()
    writer.close()
    assert epochs(tmp_path) == ["1", "2", "3", "4", "5"]
    assert writes == ["history.csv"] * 2


def test_a_score_of_another_metric_joins_the_history(tmp_path: Path) -> None:
    writer = StateWriter(tmp_path)
    writer.record([record(1), record(2) | {"validation_mcc": 0.5}])
    writer.wait()
    writer.close()
    lines = (tmp_path / "history.csv").read_text().splitlines()
    assert lines[0].split(",")[-1] == "validation_mcc"
    assert [line.split(",")[-1] for line in lines[1:]] == ["", "0.5"]


def test_a_history_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "history.csv").mkdir()
    writer = StateWriter(tmp_path)
    writer.record([record(1)])
    with pytest.raises(EnsembleError, match=r"history\.csv"):
        writer.wait()
    writer.close()


def test_a_state_holds_the_best_weights_which_are_copied_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    best = {"weight": torch.ones(2, 2)}
    state, writer, copies, copy = training(best), StateWriter(tmp_path), [], module._copied

    def counted(value: Any) -> Any:
        copies.extend(["best"] if value is best["weight"] else [])
        return copy(value)

    monkeypatch.setattr(module, "_copied", counted)
    for _ in range(3):
        writer.save(state)
    writer.wait()
    assert copies == ["best"]
    loaded = training()
    assert StateWriter(tmp_path).restore(loaded)
    assert loaded.progress.best is not None
    assert torch.equal(loaded.progress.best["weight"], best["weight"])
    state.progress.best = {"weight": torch.zeros(2, 2)}
    writer.save(state)
    writer.wait()
    writer.close()
    assert StateWriter(tmp_path).restore(loaded)
    assert torch.equal(loaded.progress.best["weight"], torch.zeros(2, 2))
