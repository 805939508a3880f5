"""Which files a blend is given: paths and patterns, each of which can be a member, or an error that says why not."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from ensemble.members.hard_labels import lists_samples
from folds.errors import EnsembleError, UsageError, close_matches
from folds.utils.csv_table import read_header

logger = logging.getLogger(__name__)


def find_files(given: Sequence[Path], allow_duplicates: bool = False) -> list[Path]:
    """Return the files that were named, each once (with a warning) unless `allow_duplicates`; patterns that the shell left alone are expanded.

    Raises
    ------
    UsageError : there are none.
    EnsembleError : a file is missing, a pattern matches nothing, or it is no file of predictions.
    """
    if not given:
        raise UsageError("no files of predictions are named", hint="ensemble blend runs/*.npy")
    found: list[Path] = []
    for path in given:
        if path.exists() or not any(mark in str(path) for mark in "*?["):
            found.append(path)
        else:
            found += _expand(path)
    kept: dict[Path, Path] = {}
    for path in found:
        _check_name(path)
        if path.resolve() in kept and not allow_duplicates:
            logger.warning("%s is given twice; it counts once (`allow_duplicates`: as often as it is given)", path)
        kept.setdefault(path.resolve(), path)
    return found if allow_duplicates else list(kept.values())


def _expand(pattern: Path) -> list[Path]:
    root = Path(pattern.anchor)
    matches = sorted(path for path in root.glob(str(pattern.relative_to(root))) if path.is_file())
    if matches:
        return matches
    others = [*sorted(Path().glob("*.npy")), *sorted(Path().glob("*/*.npy"))]
    if others:
        listed = ", ".join(map(str, others[:5])) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
        raise EnsembleError(f"no file matches {pattern}", hint=f"there are: {listed}")
    raise EnsembleError(
        f"no file matches {pattern}, and there are no predictions below this folder",
        hint="ensemble kfold --k 5 --arch swin",
    )


def _check_name(path: Path) -> None:
    if path.is_dir():
        raise EnsembleError(f"{path} is a folder, expected files of predictions", hint=f"ensemble blend {path}/*.npy")
    if not path.exists():
        beside = [str(other) for other in path.parent.glob("*.npy")] if path.parent.is_dir() else []
        close = close_matches(str(path), beside)
        raise EnsembleError(
            f"there is no file {path}" + (f"; did you mean {' or '.join(close)}?" if close else ""),
            hint=f"{path.parent} has {', '.join(sorted(beside)[:5])}"
            if beside
            else "ensemble kfold --k 5 --arch swin writes predictions to runs/",
        )
    if path.suffix not in (".npy", ".csv"):
        which = " (a sidecar is found by itself)" if path.suffix == ".json" else ""
        raise EnsembleError(
            f"{path}: expected a .npy array or a .csv of hard labels{which}", hint=f"ensemble blend {path.parent}/*.npy"
        )
    if path.suffix == ".csv" and (path.name.startswith("samples-") or lists_samples(read_header(path))):
        raise EnsembleError(
            f"{path} lists samples with their true labels, it is no prediction",
            hint=f"to score against it: ensemble blend runs/*.npy --labels {path}",
        )
