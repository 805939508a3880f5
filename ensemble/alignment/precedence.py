"""Which of a run's files count: no two of the same models, views before the plain predictions, no other training's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ensemble.alignment.split import AlignedFile
from ensemble.members.reading import Member
from folds.errors import EnsembleError


def folds_of(fold: NDArray[np.integer] | int) -> tuple[int, ...]:
    """The folds, from 0 up, that rows are of."""
    values = np.atleast_1d(fold)
    values = values[values >= 0]
    if not len(values):
        return ()
    # Counting is a hundred times as fast as sorting; but a file may say any number.
    few = values.max() < len(values) + 1024
    return tuple((np.flatnonzero(np.bincount(values)) if few else np.unique(values)).tolist())


def model_of(member: Member) -> tuple[int, int, tuple[int, ...]]:
    """Which models' predictions a file holds."""
    sidecar = member.sidecar
    if sidecar is None or sidecar.fold is None:
        return 0, 0, ()
    return sidecar.repeat, sidecar.seed or 0, folds_of(sidecar.fold)


def check_one_of_each(split: str, name: str, members: Sequence[Member]) -> None:
    """Two files may not both be the same models' predictions over the same views."""
    seen: dict[object, Member] = {}
    for member in members:
        key = (model_of(member), () if member.sidecar is None else member.sidecar.views)
        other = seen.setdefault(key, member)
        if other is not member:
            raise EnsembleError(
                f"{other.path} and {member.path} both say they are the {split} predictions of run '{name}', and differ",
                hint="give one of them, or another 'run' in one's sidecar",
            )


def prefer_views(split: str, name: str, parts: list[AlignedFile], length: int) -> tuple[list[AlignedFile], list[str]]:
    """Return the files without the plain predictions of models whose predictions over views are there as well, and a note on it."""
    with_views = [part for part in parts if part.member.views]
    if not with_views or len(with_views) == len(parts):
        return parts, []
    _check_same_models(name, parts)
    kept = list(with_views)
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
            kept.append(replace(part, rows=rows))
    views = ", ".join(dict.fromkeys(view for part in with_views for view in part.member.views))
    return kept, [
        f"{name} ({split}): its predictions over views ({views}) are used, not the plain ones of the same models"
    ]


def _check_same_models(name: str, parts: Sequence[AlignedFile]) -> None:
    """A run trained again has other models than its older predictions over views: these would silently vote it down."""
    first: dict[tuple[int, int, str], tuple[AlignedFile, str]] = {}
    for part in sorted(parts, key=lambda part: bool(part.member.views)):
        for fold, sha in _checkpoints(part.member).items():
            other, theirs = first.setdefault((*model_of(part.member)[:2], fold), (part, sha))
            if theirs != sha:
                raise EnsembleError(
                    f"{other.member.path} and {part.member.path} are of different trainings of run '{name}': "
                    f"in fold {fold} they name other checkpoints ({theirs[:8]} and {sha[:8]})",
                    hint=f"ensemble tta {name} --force makes the views of the models there are now; or leave the older file out",
                )


def _checkpoints(member: Member) -> dict[str, str]:
    """fold → SHA-256 of the checkpoint that predicted it, as far as the sidecar says."""
    sidecar = member.sidecar
    if sidecar is None or sidecar.checkpoint_sha is None:
        return {}
    if not isinstance(sidecar.checkpoint_sha, str):
        return dict(sidecar.checkpoint_sha)
    folds = () if sidecar.fold is None else folds_of(sidecar.fold)
    return {str(fold): sidecar.checkpoint_sha for fold in folds} if len(folds) == 1 else {}
