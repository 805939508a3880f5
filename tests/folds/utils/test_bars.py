"""Progress where Python code runs: a line in a notebook or a terminal, silence elsewhere; notes in a notebook."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from folds.utils import bars
from folds.utils.progress import SILENT


class ZMQInteractiveShell:
    """What IPython's kernel is called."""


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=ZMQInteractiveShell))
    loggers = [logging.getLogger(name) for name in ("folds", "ensemble")]
    before = [(logger, list(logger.handlers), logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, handlers, level, propagate in before:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def test_a_script_without_a_terminal_is_silent() -> None:
    assert not bars.in_notebook()
    assert bars.progress_of(True) is SILENT
    assert bars.progress_of(False) is SILENT
    own = bars.LineProgress()
    assert bars.progress_of(own) is own


@pytest.mark.usefixtures("notebook")
def test_a_notebook_sees_steps_and_notes(capsys: pytest.CaptureFixture[str]) -> None:
    progress = bars.progress_of(True)
    assert progress is not SILENT
    assert bars.progress_of(False) is SILENT
    with progress.step("decoding images") as advance:
        advance(1, 2)
        advance(2, 2)
    assert "decoding images: 2 of 2" in capsys.readouterr().err
    bars.log_in_notebook()
    bars.log_in_notebook()
    logging.getLogger("folds.data").info("a note about `k`")
    logging.getLogger("ensemble.tta").warning("a \x1b[2J warning")
    assert capsys.readouterr().err == "a note about k\nwarning: a \\x1b[2J warning\n"


@pytest.mark.usefixtures("notebook")
def test_a_notebook_sees_folds_being_trained(capsys: pytest.CaptureFixture[str]) -> None:
    job: Any = SimpleNamespace(run="swin", fold=0)
    with bars.LineProgress().jobs([job, SimpleNamespace(run="swin", fold=1)], 1) as view:
        view.event(job, {"event": "step", "done": 1, "total": 4})
        view.event(job, {"event": "epoch", "done": 2, "total": 4, "epoch": 1, "validation_macro_f1": 0.5})
        view.outcome(SimpleNamespace(job=job))
    assert "training 2 folds: 25%" in (shown := capsys.readouterr().err)
    assert "swin fold 0, epoch 1: macro F1 0.500" in shown
    assert shown.endswith("\r")


@pytest.mark.usefixtures("notebook")
def test_a_users_own_handlers_are_left_alone() -> None:
    logger, own = logging.getLogger("folds"), logging.NullHandler()
    logger.addHandler(own)
    bars.log_in_notebook()
    assert own in logger.handlers
    assert not any(isinstance(one, bars._NotebookHandler) for one in logger.handlers)


@pytest.mark.usefixtures("notebook")
def test_a_notebook_sees_the_curve_of_a_fold(capsys: pytest.CaptureFixture[str]) -> None:
    job: Any = SimpleNamespace(run="swin", fold=0)
    with bars.LineProgress().jobs([job], 1) as view:
        event = {"event": "epoch", "done": 2, "total": 4, "epoch": 2, "validation_macro_f1": 0.5}
        view.event(job, {**event, "metric": "log loss", "curve": (1.5, 0.75)})
    assert "swin fold 0, epoch 2: log loss 0.750 █▁ (0.75 to 1.50)" in capsys.readouterr().err
