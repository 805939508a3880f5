"""Expand and check the paths and patterns of the prediction files to blend."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from ensemble.members.hard_labels import is_sample_table
from ensemble.members.names import name_hint
from folds.errors import EnsembleError, UsageError, close_matches
from folds.utils.csv_table import read_header

logger = logging.getLogger(__name__)


def find_files(paths: Sequence[Path], allow_duplicates: bool = False) -> list[Path]:
    """Return the prediction files to blend; patterns that the shell did not expand are expanded.

    Parameters
    ----------
    paths : paths and patterns.
    allow_duplicates : return a file as often as it is given; by default it is returned once, with a warning.

    Raises
    ------
    UsageError : no file is given.
    EnsembleError : a file is missing, a pattern matches nothing, or a file does not hold predictions.
    """
    if not paths:
        raise UsageError("expected at least one prediction file, found none", hint="ensemble blend runs/*.npy")
    found: list[Path] = []
    for path in paths:
        if path.exists() or not any(mark in str(path) for mark in "*?["):
            found.append(path)
        else:
            found += _expand(path)
    kept: dict[Path, Path] = {}
    for path in found:
        _check_name(path)
        if path.resolve() in kept and not allow_duplicates:
            logger.warning("%s is given twice and is used once (`allow_duplicates`: it votes each time)", path)
        kept.setdefault(path.resolve(), path)
    return found if allow_duplicates else list(kept.values())


def _expand(pattern: Path) -> list[Path]:
    root = Path(pattern.anchor)
    matches = sorted(path for path in root.glob(str(pattern.relative_to(root))) if path.is_file())
    if matches:
        return matches
    available = [*sorted(Path().glob("*.npy")), *sorted(Path().glob("*/*.npy"))]
    if available:
        listed = ", ".join(map(str, available[:5])) + (f" and {len(available) - 5} more" if len(available) > 5 else "")
        raise EnsembleError(f"no file matches {pattern}", hint=f"prediction files found: {listed}")
    raise EnsembleError(
        f"no file matches {pattern}, and this folder and its subfolders have no prediction files",
        hint="ensemble kfold --k 5 --arch swin",
    )


def _check_name(path: Path) -> None:
    if path.is_dir():
        raise EnsembleError(f"{path} is a folder, expected prediction files", hint=f"ensemble blend {path}/*.npy")
    if not path.exists():
        beside = [str(other) for other in path.parent.glob("*.npy")] if path.parent.is_dir() else []
        close = close_matches(str(path), beside)
        raise EnsembleError(
            f"file not found: {path}" + (f"; did you mean {' or '.join(close)}?" if close else ""),
            hint=name_hint(str(path)) or f"{path.parent} has {', '.join(sorted(beside)[:5])}"
            if beside or name_hint(str(path))
            else "ensemble kfold --k 5 --arch swin writes predictions to runs/",
        )
    if path.suffix not in (".npy", ".csv"):
        note = " (sidecars are found automatically)" if path.suffix == ".json" else ""
        raise EnsembleError(
            f"{path}: expected a .npy array or a .csv of hard labels{note}", hint=f"ensemble blend {path.parent}/*.npy"
        )
    if path.suffix == ".csv" and (path.name.startswith("samples-") or is_sample_table(read_header(path))):
        raise EnsembleError(
            f"{path} lists samples with their true labels, expected predictions",
            hint=f"to score against these labels: ensemble blend runs/*.npy --labels {path}",
        )
