"""Log to TensorBoard: event files beside the files of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from folds.experiments.loggers.base import Tracker, scores_of, texts_of
from folds.training.job import Job


class TensorBoard(Tracker):
    """Event files in ``runs/<run>/fold<i>/``, and the scores and settings of a run in ``runs/<run>/``.

    To view them: ``tensorboard --logdir runs``.
    """

    def __init__(self, runs: Path = Path("runs")) -> None:
        super().__init__()
        import torch.utils.tensorboard  # noqa: F401 - raises ImportError if tensorboard is not installed

        self._runs = runs
        self._open: dict[tuple[str, int], Any] = {}

    def _begin(self, job: Job) -> int:
        self._open[job.run, job.fold] = self._writer(job.fold_dir)
        return 0

    def _writer(self, folder: Path) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        # purge_step hides the values of earlier event files in the folder, so that no value is shown twice.
        return SummaryWriter(str(folder), purge_step=0)

    def _write(self, job: Job, epoch: int, values: Mapping[str, float]) -> None:
        writer = self._open[job.run, job.fold]
        for name, value in values.items():
            writer.add_scalar(name, value, epoch)
        writer.flush()

    def _entry(self, entry: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard.summary import hparams

        writer = self._writer(self._runs / entry["run"])
        scores = scores_of(entry)
        settings = {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in entry["settings"].items()
        }
        for summary in hparams(settings, dict(scores)):
            writer.file_writer.add_summary(summary)
        for name, value in scores.items():
            writer.add_scalar(name, value, len(entry["folds"]))
        for name, text in texts_of(entry).items():
            writer.add_text(name, text, len(entry["folds"]))
        writer.close()

    def _close(self) -> None:
        for writer in self._open.values():
            writer.close()
        self._open.clear()
