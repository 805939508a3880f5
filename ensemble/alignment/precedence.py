"""Select the files of a run to use: no duplicates, TTA before plain predictions, one training only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ensemble.alignment.split import AlignedFile
from ensemble.members.reading import Member
from folds.errors import EnsembleError

_cached: tuple[NDArray[np.integer], tuple[int, ...]] | None = None


def folds_of(fold: NDArray[np.integer] | int) -> tuple[int, ...]:
    """Return the folds of rows in ascending order, without negative (unknown) ones."""
    global _cached  # the folds of the last array that nothing can change: many runs share one
    if _cached is not None and _cached[0] is fold:
        return _cached[1]
    found = _distinct_folds(fold)
    if isinstance(fold, np.ndarray) and not fold.flags.writeable:
        _cached = fold, found
    return found


def _distinct_folds(fold: NDArray[np.integer] | int) -> tuple[int, ...]:
    values = np.atleast_1d(fold)
    values = values[values >= 0]
    if not len(values):
        return ()
    # Counting is about 100 times as fast as sorting, but a file may have any number, also a very large one.
    dense = values.max() < len(values) + 1024
    return tuple((np.flatnonzero(np.bincount(values)) if dense else np.unique(values)).tolist())


def model_of(member: Member) -> tuple[int, int, tuple[int, ...]]:
    """Return the repeat, seed and folds of the models whose predictions a file holds."""
    sidecar = member.sidecar
    if member.fold is None:
        return 0, 0, ()
    if sidecar is None:
        return 0, 0, folds_of(member.fold)
    return sidecar.repeat, sidecar.seed or 0, folds_of(member.fold)


def check_one_of_each(split: str, name: str, members: Sequence[Member]) -> None:
    """Raise EnsembleError if two files hold predictions of the same models over the same views."""
    seen: dict[object, Member] = {}
    for member in members:
        key = (model_of(member), () if member.sidecar is None else member.sidecar.views)
        other = seen.setdefault(key, member)
        if other is not member:
            raise EnsembleError(
                f"{other.path} and {member.path} are different {split} predictions of the same models of run '{name}'",
                hint="use only one of them, or change 'run' in the sidecar of one",
            )


def prefer_views(split: str, name: str, parts: list[AlignedFile], length: int) -> tuple[list[AlignedFile], list[str]]:
    """Return the files and a note; plain predictions are dropped for models that have predictions over views (TTA)."""
    with_views = [part for part in parts if part.member.views]
    if not with_views or len(with_views) == len(parts):
        return parts, []
    _check_same_models(name, parts)
    used = list(with_views)
    for part in parts:
        if part.member.views:
            continue
        replaced = np.zeros(length, bool)
        for other in with_views:
            same_model = model_of(part.member)[:2] == model_of(other.member)[:2]
            same_fold = (
                True if part.fold is None or other.fold is None else np.broadcast_to(part.fold == other.fold, length)
            )
            present = np.ones(length, bool) if other.rows is None else other.rows >= 0
            replaced |= same_model & same_fold & present
        rows = np.where(replaced, -1, np.arange(length) if part.rows is None else part.rows)
        if (rows >= 0).any():
            used.append(replace(part, rows=rows))
    views = ", ".join(dict.fromkeys(view for part in with_views for view in part.member.views))
    return used, [
        f"{name} ({split}): predictions over views ({views}) are used instead of plain predictions of the same models"
    ]


def _check_same_models(name: str, parts: Sequence[AlignedFile]) -> None:
    """Raise EnsembleError if predictions over views come from an earlier training of the run: they would outvote it."""
    first: dict[tuple[int, int, str], tuple[AlignedFile, str]] = {}
    for part in sorted(parts, key=lambda part: bool(part.member.views)):
        for fold, sha in _checkpoints(part.member).items():
            other, first_sha = first.setdefault((*model_of(part.member)[:2], fold), (part, sha))
            if first_sha != sha:
                raise EnsembleError(
                    f"{other.member.path} and {part.member.path} are from different trainings of run '{name}': "
                    f"they name different checkpoints of fold {fold} ({first_sha[:8]} and {sha[:8]})",
                    hint=f"ensemble tta {name} --force predicts over views with the current models; "
                    "or remove the older file",
                )


def _checkpoints(member: Member) -> dict[str, str]:
    """Return fold → SHA-256 of the checkpoint that made the predictions, if the sidecar gives it."""
    sidecar = member.sidecar
    if sidecar is None or sidecar.checkpoint_sha is None:
        return {}
    if not isinstance(sidecar.checkpoint_sha, str):
        return dict(sidecar.checkpoint_sha)
    folds = () if sidecar.fold is None else folds_of(sidecar.fold)
    return {str(fold): sidecar.checkpoint_sha for fold in folds} if len(folds) == 1 else {}
