"""Read and write the files of views: reuse earlier predictions, join folds, keep unchanged files."""

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

# Fields that must be equal in two files for their predictions to be compatible.
_SAME_FIELDS = ("kind", "split", "target", "classes", "run", "views", "folds_sha")


@dataclass(frozen=True)
class CachedView:
    """The requested rows that a file holds.

    Attributes
    ----------
    there : (n,) whether the file has each row.
    logits : (rows there, classes) float32, in the requested order.
    """

    there: NDArray[np.bool_]
    logits: NDArray[np.float32]


def load_cached_logits(path: Path, wanted: PredictionMetadata) -> CachedView:
    """Return the logits of the rows of `wanted` that `path` holds; the other rows must be predicted.

    They are reused if checkpoint, view, table (with labels and persons) and images are the same. Nothing is reused from
    a file that is damaged or does not record all of these.

    Parameters
    ----------
    wanted : metadata of one fold, with `samples_sha` and `images_sha`.
    """
    nothing = CachedView(np.zeros(len(wanted.rows), bool), np.zeros((0, len(wanted.classes)), np.float32))
    found = _readable(path)
    if found is None:
        return nothing
    stored, values = found
    fold = str(_one_fold(wanted))
    if any(getattr(stored, name) != getattr(wanted, name) for name in (*_SAME_FIELDS, "samples_sha")):
        return nothing
    if any(
        _sha_of_fold(getattr(stored, name), fold) != _sha_of_fold(getattr(wanted, name), fold)
        for name in ("checkpoint_sha", "images_sha")
    ):
        return nothing
    own = np.flatnonzero(np.broadcast_to(np.equal(stored.fold, int(fold)), len(stored.rows)))  # type: ignore[arg-type]
    place = dict(zip(stored.rows.ids[own].tolist(), own.tolist(), strict=True))
    at = np.array([place.get(name, -1) for name in wanted.rows.ids.tolist()])
    logits = np.array(values[at], np.float32)
    kept = (at >= 0) & np.isfinite(logits).all(axis=1)
    return CachedView(kept, logits[kept])


def stitch(path: Path, values: NDArray[np.floating], sidecar: PredictionMetadata, samples: SampleRows) -> None:
    """Write a fold's rows (n, classes) together with those of the other folds in `path`, in the order of `samples`."""
    found, fold = _readable(path), _one_fold(sidecar)
    ids, folds = sidecar.rows.ids, np.full(len(sidecar.rows), fold)
    checkpoints, images = _by_fold(sidecar.checkpoint_sha), _by_fold(sidecar.images_sha)
    if found is not None and all(getattr(found[0], name) == getattr(sidecar, name) for name in _SAME_FIELDS):
        stored, before = found
        stored_folds = np.broadcast_to(stored.fold, len(stored.rows))  # type: ignore[arg-type]
        others = (stored_folds != fold) & np.isfinite(before).all(axis=1)
        values = np.concatenate([np.asarray(before)[others], values])
        ids, folds = np.concatenate([stored.rows.ids[others], ids]), np.concatenate([stored_folds[others], folds])
        checkpoints, images = _by_fold(stored.checkpoint_sha) | checkpoints, _by_fold(stored.images_sha) | images
    position = {name: i for i, name in enumerate(samples.ids.tolist())}
    rows = np.array([position[name] for name in ids.tolist()])
    order = np.argsort(rows, kind="stable")
    stitched = replace(
        sidecar,
        rows=samples.take(rows[order]),
        fold=folds[order],
        checkpoint_sha=dict(sorted(checkpoints.items())),
        images_sha=dict(sorted(images.items())) or None,
    )
    write(path, values[order], stitched, samples)


def write(path: Path, values: NDArray[np.floating], sidecar: PredictionMetadata, samples: SampleRows) -> None:
    """Write a prediction file unless it has exactly this content already, so that unchanged files keep their date."""
    found = _readable(path)
    if found is not None:
        stored, before = found
        names = (*_SAME_FIELDS, "checkpoint_sha", "images_sha", "merge", "exclusive")
        same = all(getattr(stored, name) == getattr(sidecar, name) for name in names)
        rows = np.array_equal(stored.rows.ids, sidecar.rows.ids) and np.array_equal(
            np.asarray(stored.fold), np.asarray(sidecar.fold)
        )
        if (
            same
            and rows
            and stored.samples_sha == sidecar.samples_sha
            and np.array_equal(before, np.asarray(values, np.float32))
        ):
            return
    write_prediction(path, values, sidecar, samples=samples)


def load_common_rows(
    paths: Sequence[Path], current: Mapping[int, str]
) -> tuple[NDArray[np.float32], PredictionMetadata] | None:
    """Return the logits (views, n, classes) and metadata of the rows that all files hold, from the same checkpoints.

    Parameters
    ----------
    current : fold → hash of its current checkpoint; predictions of other checkpoints are ignored.

    Returns
    -------
    None if the files have no row in common. Rows are in the order of the first file, and the metadata is that of the
    first file without the rows that others lack.
    """
    found = [_readable(path) for path in paths]
    if not found or found[0] is None:
        return None
    base = found[0][0]
    folds = np.broadcast_to(base.fold, len(base.rows))  # type: ignore[arg-type]
    shas = {fold: _sha_of_fold(base.checkpoint_sha, str(fold)) for fold in np.unique(folds).tolist()}
    right = {fold for fold, sha in shas.items() if current.get(fold, sha) == sha}
    places = []
    for one in found:
        if one is None or any(getattr(one[0], name) != getattr(base, name) for name in _SAME_FIELDS if name != "views"):
            return None
        right -= {fold for fold, sha in shas.items() if _sha_of_fold(one[0].checkpoint_sha, str(fold)) != sha}
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
    """Return the metadata and values of a complete prediction file; None if it is missing or damaged."""
    if not (path.exists() and sidecar_path(path).exists()):
        return None
    try:
        sidecar, values = read_sidecar(path), read_array(path)
    except EnsembleError:
        return None
    if sidecar is None or sidecar.fold is None or values.shape != (len(sidecar.rows), len(sidecar.classes)):
        return None
    return sidecar, values


def _one_fold(sidecar: PredictionMetadata) -> int:
    return int(sidecar.fold[0] if isinstance(sidecar.fold, np.ndarray) else sidecar.fold or 0)


def _by_fold(sha: str | Mapping[str, str] | None) -> dict[str, str]:
    return dict(sha) if isinstance(sha, Mapping) else {}


def _sha_of_fold(sha: str | Mapping[str, str] | None, fold: str) -> str:
    """Return the hash of a fold; '' if there is none."""
    return sha if isinstance(sha, str) else _by_fold(sha).get(fold, "")
