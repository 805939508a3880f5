"""Blend by name: the files of runs and blends, without the runs that are still unfinished."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from folds.errors import EnsembleError, close_matches
from folds.predictions.file_names import RUN_CONFIG
from folds.predictions.named import Progress, files_of, prediction_names, progress_of, unfinished_runs

logger = logging.getLogger(__name__)

_FILE = re.compile(r"(.+)\.(?:oof|fold\d+\.test)\.npy")


def expand_names(paths: Sequence[Path], runs: Path = Path("runs")) -> list[Path]:
    """Return the paths with each name of a run or a blend replaced by its files; an existing file comes first.

    Raises
    ------
    EnsembleError : a run of this name has no predictions yet.
    """
    found: list[Path] = []
    for path in paths:
        files = [] if path.is_file() or any(mark in str(path) for mark in "*?[") else files_of(str(path), runs)
        if not files and not path.exists():
            _check_started(str(path), runs)
        progress = progress_of(str(path), runs) if files else None
        if progress is not None and progress.finished < progress.k:
            logger.warning("%s is unfinished: %s", path, progress.text())
        found += files or [path]
    return found


def _check_started(name: str, runs: Path) -> None:
    if (runs / name / RUN_CONFIG).is_file():
        raise EnsembleError(
            f"the run {name} has no predictions: no fold is trained yet",
            hint=f"ensemble kfold --resume {name} trains them",
        )


def name_hint(name: str, runs: Path = Path("runs")) -> str | None:
    """Return which run or blend a name that finds nothing may stand for; None if none is close."""
    close = close_matches(name, prediction_names(runs))
    return f"did you mean the run {' or '.join(close)}?" if close else None


def leave_out_unfinished(files: Sequence[Path], named: Collection[str] = (), keep: bool = False) -> list[Path]:
    """Return the files without those of runs that are not trained on all their folds, with a warning for each run.

    If every run is unfinished, all are kept: they may have been trained on one fold on purpose.

    Parameters
    ----------
    named : runs that were asked for by name, which are kept.
    keep : keep the unfinished runs among others too; they are still named.
    """
    unfinished: dict[Path, dict[str, Progress]] = {}
    runs_of = {path: _run_of(path) for path in files}
    partial: dict[Path, str] = {}
    for path, (folder, run) in runs_of.items():
        if folder not in unfinished:
            unfinished[folder] = unfinished_runs(folder)
        if run in unfinished[folder]:
            partial[path] = run
    found = {run: unfinished[runs_of[path][0]][run].text() for path, run in partial.items()}
    if not found:
        return list(files)
    listed = ", ".join(f"{run} ({text})" for run, text in found.items())
    are = "is" if len(found) == 1 else "are"
    kept = [path for path in files if path not in partial or partial[path] in named]
    if keep or not kept:
        logger.warning("%s %s unfinished%s", listed, are, "" if kept else ", as all runs here are")
        return list(files)
    if len(kept) < len(files):
        logger.warning("%s %s unfinished and left out; `unfinished=True` blends all", listed, are)
    return kept


def _run_of(path: Path) -> tuple[Path, str]:
    """Return the folder of runs that a prediction file belongs to, and the name of its run; "" for another file."""
    match = _FILE.fullmatch(path.name)
    folder = path.parent.parent if path.parent.name == "tta" else path.parent
    return folder, "" if match is None else match[1]
