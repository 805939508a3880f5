"""The files of views: what an earlier command has predicted is kept where it would come out again, folds are stitched, right files stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from folds.errors import EnsembleError
from folds.predictions.files import (
    PredictionMetadata,
    SampleRows,
    read_array,
    read_sidecar,
    sidecar_path,
    write_prediction,
)

# What two files must have in common to hold predictions of the same thing.
_ALIKE = ("kind", "split", "target", "classes", "run", "views", "folds_sha")


@dataclass(frozen=True)
class CachedView:
    """Which rows of what is wanted a file holds.

    Attributes
    ----------
    there : (n,) whether the file has the row.
    logits : (rows there, classes) float32, in the order wanted.
    """

    there: NDArray[np.bool_]
    logits: NDArray[np.float32]


def load_cached_logits(path: Path, wanted: PredictionMetadata) -> CachedView:
    """Return the logits of the rows of `wanted` that `path` holds; the others must be predicted.

    They are kept where they are of this very checkpoint, view, table (labels and persons, too) and images. A file that
    does not say so, or is damaged, keeps nothing.

    Parameters
    ----------
    wanted : of one fold, with `samples_sha` and `images_sha`.
    """
    nothing = CachedView(np.zeros(len(wanted.rows), bool), np.zeros((0, len(wanted.classes)), np.float32))
    found = _readable(path)
    if found is None:
        return nothing
    there, values = found
    fold = str(_one_fold(wanted))
    if any(getattr(there, name) != getattr(wanted, name) for name in (*_ALIKE, "samples_sha")):
        return nothing
    if any(
        _of_fold(getattr(there, name), fold) != _of_fold(getattr(wanted, name), fold)
        for name in ("checkpoint_sha", "images_sha")
    ):
        return nothing
    mine = np.flatnonzero(np.broadcast_to(np.equal(there.fold, int(fold)), len(there.rows)))  # type: ignore[arg-type]
    place = dict(zip(there.rows.ids[mine].tolist(), mine.tolist(), strict=True))
    at = np.array([place.get(name, -1) for name in wanted.rows.ids.tolist()])
    logits = np.array(values[at], np.float32)
    kept = (at >= 0) & np.isfinite(logits).all(axis=1)
    return CachedView(kept, logits[kept])


def stitch(path: Path, values: NDArray[np.floating], sidecar: PredictionMetadata, samples: SampleRows) -> None:
    """Put a fold's rows (n, classes) beside those of the other folds that `path` holds, in the order of `samples`, the rows of the table."""
    found, fold = _readable(path), _one_fold(sidecar)
    ids, folds = sidecar.rows.ids, np.full(len(sidecar.rows), fold)
    checkpoints, images = _by_fold(sidecar.checkpoint_sha), _by_fold(sidecar.images_sha)
    if found is not None and all(getattr(found[0], name) == getattr(sidecar, name) for name in _ALIKE):
        there, before = found
        theirs = np.broadcast_to(there.fold, len(there.rows))  # type: ignore[arg-type]
        others = (theirs != fold) & np.isfinite(before).all(axis=1)
        values = np.concatenate([np.asarray(before)[others], values])
        ids, folds = np.concatenate([there.rows.ids[others], ids]), np.concatenate([theirs[others], folds])
        checkpoints, images = _by_fold(there.checkpoint_sha) | checkpoints, _by_fold(there.images_sha) | images
    position = {name: i for i, name in enumerate(samples.ids.tolist())}
    rows = np.array([position[name] for name in ids.tolist()])
    order = np.argsort(rows, kind="stable")
    whole = replace(sidecar, rows=samples.take(rows[order]), fold=folds[order])
    whole = replace(
        whole, checkpoint_sha=dict(sorted(checkpoints.items())), images_sha=dict(sorted(images.items())) or None
    )
    write(path, values[order], whole, samples)


def write(path: Path, values: NDArray[np.floating], sidecar: PredictionMetadata, samples: SampleRows) -> None:
    """Write a prediction file, unless it says and holds exactly this already: a file that is right keeps its date."""
    found = _readable(path)
    if found is not None:
        there, before = found
        names = (*_ALIKE, "checkpoint_sha", "images_sha", "merge")
        same = all(getattr(there, name) == getattr(sidecar, name) for name in names)
        rows = np.array_equal(there.rows.ids, sidecar.rows.ids) and np.array_equal(
            np.asarray(there.fold), np.asarray(sidecar.fold)
        )
        if (
            same
            and rows
            and there.samples_sha == sidecar.samples_sha
            and np.array_equal(before, np.asarray(values, np.float32))
        ):
            return
    write_prediction(path, values, sidecar, samples=samples)


def load_common_rows(
    paths: Sequence[Path], current: Mapping[int, str]
) -> tuple[NDArray[np.float32], PredictionMetadata] | None:
    """Return the logits (views, n, classes) of the rows that all of the files hold, by the same checkpoints, in the order of the first.

    Parameters
    ----------
    current : the checkpoint of each fold that is known to be the right one; what another has predicted does not count.

    Returns
    -------
    None where they have no row in common. The sidecar is that of the first file, without the rows that others lack.
    """
    found = [_readable(path) for path in paths]
    if not found or found[0] is None:
        return None
    base = found[0][0]
    folds = np.broadcast_to(base.fold, len(base.rows))  # type: ignore[arg-type]
    shas = {fold: _of_fold(base.checkpoint_sha, str(fold)) for fold in np.unique(folds).tolist()}
    right = {fold for fold, sha in shas.items() if current.get(fold, sha) == sha}
    places = []
    for one in found:
        if one is None or any(getattr(one[0], name) != getattr(base, name) for name in _ALIKE if name != "views"):
            return None
        right -= {fold for fold, sha in shas.items() if _of_fold(one[0].checkpoint_sha, str(fold)) != sha}
        place = {name: i for i, name in enumerate(one[0].rows.ids.tolist())}
        places.append(np.array([place.get(name, -1) for name in base.rows.ids.tolist()]))
    common = np.flatnonzero(np.isin(folds, sorted(right)) & (np.stack(places) >= 0).all(axis=0))
    if not len(common):
        return None
    logits = np.stack(
        [
            np.array(one[1][place[common]], np.float32)
            for one, place in zip(found, places, strict=True)
            if one is not None
        ]
    )
    fold = base.fold[common] if isinstance(base.fold, np.ndarray) else base.fold
    return logits, _only_folds(replace(base, rows=base.rows.take(common), fold=fold), right)


def _only_folds(sidecar: PredictionMetadata, folds: set[int]) -> PredictionMetadata:
    def of(shas: str | Mapping[str, str] | None) -> str | Mapping[str, str] | None:
        return {fold: sha for fold, sha in shas.items() if int(fold) in folds} if isinstance(shas, Mapping) else shas

    return replace(sidecar, checkpoint_sha=of(sidecar.checkpoint_sha), images_sha=of(sidecar.images_sha))


def _readable(path: Path) -> tuple[PredictionMetadata, NDArray[np.floating]] | None:
    """Return a prediction file that is whole; None where there is none, or it is damaged and will be made again."""
    if not (path.exists() and sidecar_path(path).exists()):
        return None
    try:
        there, values = read_sidecar(path), read_array(path)
    except EnsembleError:
        return None
    whole = there is not None and there.fold is not None and values.shape == (len(there.rows), len(there.classes))
    return (there, values) if there is not None and whole else None


def _one_fold(sidecar: PredictionMetadata) -> int:
    return int(sidecar.fold[0] if isinstance(sidecar.fold, np.ndarray) else sidecar.fold or 0)


def _by_fold(sha: str | Mapping[str, str] | None) -> dict[str, str]:
    return dict(sha) if isinstance(sha, Mapping) else {}


def _of_fold(sha: str | Mapping[str, str] | None, fold: str) -> str:
    """Return the hash that a file names for a fold; '' is that of none."""
    return sha if isinstance(sha, str) else _by_fold(sha).get(fold, "")
