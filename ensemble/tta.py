"""Test-time augmentation of trained folds: every view's logits kept, softmax before merging, scored against none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ensemble.view_files import kept_logits, rows_of, stitch, write
from ensemble.views import NONE, View
from folds.architectures import is_convolutional
from folds.checkpoint import Checkpoint, available_checkpoints, load_checkpoint
from folds.devices import place
from folds.errors import EnsembleError, collected, unknown
from folds.files import exclusive_lock, sha256_bytes, sha256_file
from folds.images import load_images
from folds.inference import Pixels, predict_logits, softmax
from folds.plan import CACHE
from folds.predictions import Sidecar, read_array, read_sidecar
from folds.samples import Data, SampleTable
from folds.samples_file import samples_sha
from folds.summary import Score, score_rows

MERGES = ("mean", "geometric")
Note = Callable[[str], None]


@dataclass(frozen=True)
class ViewScores:
    """What the views of a run are worth on one split: by view name, and merged; None where labels are unknown."""

    split: str
    folds: tuple[int, ...]
    views: Mapping[str, Score]
    merged: Score | None
    path: Path


def merge_views(logits: NDArray[np.floating], how: str = "mean") -> NDArray[np.float64]:
    """Logits of all views (views, n, classes) → probabilities (n, classes).

    ``mean`` is the arithmetic mean of the views' probabilities; ``geometric`` their geometric mean, taken in log space
    and renormalised (it has the argmax of the mean logits; the arithmetic mean may not).
    """
    if how == "mean":
        return softmax(logits).mean(axis=0)
    if how == "geometric":
        shifted = np.asarray(logits, np.float64)
        shifted = shifted - shifted.max(axis=-1, keepdims=True)
        # The normaliser of each view is the same for all classes, so the mean of the logits is enough.
        return softmax(shifted.mean(axis=0))
    raise unknown("--merge", how, MERGES)


def find_checkpoints(target: str, checkpoints: Path = Path("checkpoints")) -> list[Path]:
    """A checkpoint file, or all checkpoints of a run of that name.

    Raises
    ------
    EnsembleError : there is neither; the checkpoints there are get listed.
    """
    path = Path(target)
    if path.is_file():
        return [path]
    run = path if path.is_dir() else checkpoints / target
    found = sorted(run.glob("fold*.pt"), key=lambda p: (len(p.name), p.name)) if run.is_dir() else []
    if not found:
        raise EnsembleError(f"there is no checkpoint or run {target}", hint=available_checkpoints(checkpoints))
    return found


def augment_checkpoint(
    path: Path,
    views: Sequence[View],
    open_data: Callable[[Checkpoint], Data],
    *,
    merge: str = "mean",
    runs: Path = Path("runs"),
    device: str = "auto",
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
    note: Note = lambda text: None,
) -> str:
    """Predict a fold's out-of-fold and test rows in every view; write each view's logits and the merged probabilities.

    A view that an earlier command has predicted, with this checkpoint, of this table and these images, is kept.

    Files, under ``runs/tta``: ``<run>/views/<view>.oof.npy`` and ``<view>.fold<i>.test.npy`` (logits), ``<run>.oof.npy``
    (stitched over the folds done so far) and ``<run>.fold<i>.test.npy`` (probabilities).

    Parameters
    ----------
    views : the plain image first.
    open_data : gives the table a checkpoint was trained on.
    force : predict all views again, and replace a merge of other views or another checkpoint.

    Returns
    -------
    The name of the run.

    Raises
    ------
    EnsembleError : the table lacks the fold's rows or has other labels; a merge of other views or another checkpoint is there already.
    """
    if merge not in MERGES:
        raise unknown("--merge", merge, MERGES)
    checkpoint, sha = load_checkpoint(path), sha256_file(path)
    data = open_data(checkpoint)
    folder = runs / "tta" / checkpoint.run
    with exclusive_lock(runs / "tta" / f".{checkpoint.run}.lock", f"the TTA of {checkpoint.run}"):
        _refuse_other(folder, checkpoint, sha, views, merge, force)
        if not _predict(path, checkpoint, sha, views, data, merge, folder, device, force, progress, note):
            note(f"{checkpoint.run} fold {checkpoint.fold}: all views are there already; --force predicts them again")
    return checkpoint.run


def _predict(
    path: Path,
    checkpoint: Checkpoint,
    sha: str,
    views: Sequence[View],
    data: Data,
    merge: str,
    folder: Path,
    device: str,
    again: bool,
    progress: Callable[[int, int], None] | None,
    note: Note,
) -> bool:
    """Write what `augment_checkpoint` promises; whether anything had to be predicted for it."""
    where = place(1, device).devices[0]
    asked = checkpoint.recipe.get("channels_last")
    # A checkpoint trained in half precision on a GPU is used in full precision on a CPU.
    amp = checkpoint.amp if where != "cpu" else "off"

    @cache
    def model() -> tuple[torch.nn.Module, bool]:  # built where there is something to predict
        built = checkpoint.build(path)
        return built.to(where), is_convolutional(built) if asked is None else bool(asked)

    def logits_of(table: SampleTable, index: NDArray[np.int64], shared: Sidecar, file_of: Callable[[str], Path]) -> NDArray[np.float32]:
        """(views, n, classes): those that an earlier command has left, the others predicted and written."""
        images = load_images(table.paths or (), checkpoint.image_settings, cache_dir=CACHE / "images", where=table.where, note=note)
        seen = sha256_bytes("".join(images.content[i] for i in index.tolist()).encode())
        shared = replace(shared, images_sha=seen if shared.split == "test" else {str(checkpoint.fold): seen})
        sidecars = {view.name: replace(shared, views=(view.name,)) for view in views}
        kept = {view.name: None if again else kept_logits(file_of(view.file_name), sidecars[view.name]) for view in views}
        missing = [view for view in views if kept[view.name] is None]
        if not missing:
            return np.stack([found for found in kept.values() if found is not None])
        network, channels_last = model()
        predicted = predict_logits(
            network,
            Pixels(images.pixels, where),
            index,
            checkpoint.architecture.mean,
            checkpoint.architecture.std,
            device=where,
            amp=amp,
            channels_last=channels_last,
            views=missing,
            progress=progress,
        )
        for view, logits in zip(missing, predicted, strict=True):
            put = stitch if shared.split == "oof" else write
            put(file_of(view.file_name), logits, sidecars[view.name], table.rows())
            kept[view.name] = logits
        return np.stack([found for found in kept.values() if found is not None])

    index = _positions(data.train, checkpoint)
    shared = Sidecar(
        kind="logit",
        split="oof",
        classes=checkpoint.classes,
        rows=data.train.rows().take(index),
        target=checkpoint.target,
        class_attributes=checkpoint.class_attributes or data.train.class_attributes,
        fold=np.full(len(index), checkpoint.fold),
        run=checkpoint.run,
        arch=checkpoint.architecture.timm_name,
        seed=checkpoint.recipe.get("seed"),
        folds_sha=checkpoint.folds_sha,
        checkpoint_sha={str(checkpoint.fold): sha},
        samples_sha=samples_sha(data.train.rows()),
    )
    oof = logits_of(data.train, index, shared, lambda name: folder / "views" / f"{name}.oof.npy")
    names = tuple(view.name for view in views)
    # The merge last: where it is, the views it was made of are there too.
    merged = replace(shared, kind="probability", views=_labelled(names, merge))
    stitch(folder.parent / f"{checkpoint.run}.oof.npy", merge_views(oof, merge), merged, data.train.rows())
    if data.test is None:
        return bool(model.cache_info().currsize)
    of_fold = replace(
        shared, split="test", rows=data.test.rows(), fold=checkpoint.fold, checkpoint_sha=sha, samples_sha=samples_sha(data.test.rows())
    )
    test = logits_of(data.test, np.arange(len(data.test)), of_fold, lambda name: folder / "views" / f"{name}.fold{checkpoint.fold}.test.npy")
    merged = replace(of_fold, kind="probability", views=_labelled(names, merge))
    write(folder.parent / f"{checkpoint.run}.fold{checkpoint.fold}.test.npy", merge_views(test, merge), merged, data.test.rows())
    return bool(model.cache_info().currsize)


def _labelled(names: tuple[str, ...], merge: str) -> tuple[str, ...]:
    """The views of a merged file; a merge other than the mean is part of what the file is."""
    return names if merge == "mean" else (*names, f"merge={merge}")


def _positions(table: SampleTable, checkpoint: Checkpoint) -> NDArray[np.int64]:
    position = {name: i for i, name in enumerate(table.ids.tolist())}
    missing = [name for name in checkpoint.validation_ids if name not in position]
    if missing:
        raise EnsembleError(
            f"{table.source} lacks {len(missing):,} of the {len(checkpoint.validation_ids):,} validation samples of {checkpoint.run} "
            f"fold {checkpoint.fold}, e.g. '{missing[0]}'",
            hint="--data must name the table the checkpoint was trained on",
        )
    rows = [position[name] for name in checkpoint.validation_ids]
    _check_labels(table, checkpoint, rows)
    return np.array(sorted(rows))


def _check_labels(table: SampleTable, checkpoint: Checkpoint, rows: Sequence[int]) -> None:
    """The labels must be those it was validated on: scored against others, the numbers would be of no model."""
    if checkpoint.validation_labels is None or table.labels is None:  # made before they were recorded
        return
    labels = table.labels.tolist()
    pairs = zip(checkpoint.validation_ids, checkpoint.validation_labels, rows, strict=True)
    other = [f"{table.where[row]}: '{name}' is '{labels[row]}', was '{label}'" for name, label, row in pairs if labels[row] != label]
    if other:
        raise collected(
            other,
            f"of the {len(rows):,} validation samples of {checkpoint.run} fold {checkpoint.fold} have another label in {table.source}",
            hint="--data must name the table the checkpoint was trained on; train again if its labels were corrected",
        )


def _refuse_other(folder: Path, checkpoint: Checkpoint, sha: str, views: Sequence[View], merge: str, force: bool) -> None:
    path = folder.parent / f"{checkpoint.run}.oof.npy"
    there = read_sidecar(path) if path.exists() else None
    if there is None:
        return
    wanted = _labelled(tuple(view.name for view in views), merge)
    before = there.checkpoint_sha if isinstance(there.checkpoint_sha, dict) else {}
    retrained = before.get(str(checkpoint.fold), sha) != sha or there.folds_sha != checkpoint.folds_sha
    if there.views == wanted and not retrained:
        return
    if force:
        for stale in (*folder.glob("views/*"), *folder.parent.glob(f"{checkpoint.run}.oof.*"), *folder.parent.glob(f"{checkpoint.run}.fold*.test.*")):
            stale.unlink()
        return
    what = "another training of this fold" if retrained else f"other views ({', '.join(there.views)})"
    raise EnsembleError(f"{path} was made with {what}", hint="--force replaces it")


def score_views(run: str, views: Sequence[View], runs: Path = Path("runs"), per_person: bool = False) -> list[ViewScores]:
    """Scores of each view and of the merge, out of fold and, where labels are known, on test, from the written files."""
    folder, results = runs / "tta", []
    oof = read_sidecar(folder / f"{run}.oof.npy")
    if oof is None:
        raise EnsembleError(f"{folder / f'{run}.oof.npy'} has no sidecar")
    done = tuple(sorted(set(oof.fold.tolist()))) if isinstance(oof.fold, np.ndarray) else ()
    for split, files in (("oof", ["oof"]), ("test", [f"fold{fold}.test" for fold in done])):
        paths = [folder / f"{run}.{name}.npy" for name in files]
        sidecar = read_sidecar(paths[0]) if all(path.exists() for path in paths) else None
        if sidecar is None or sidecar.rows.labels is None:
            continue
        scores = {}
        for view in views:
            values = [softmax(rows_of(folder / run / "views" / f"{view.file_name}.{name}.npy", sidecar)) for name in files]
            scores[view.name] = score_rows(np.mean(values, axis=0), sidecar, per_person=per_person)
        merged = np.mean([np.asarray(read_array(path), np.float64) for path in paths], axis=0)
        results.append(ViewScores(split, done, scores, score_rows(merged, sidecar, per_person=per_person), paths[0]))
    return results


__all__ = ["MERGES", "NONE", "augment_checkpoint", "find_checkpoints", "merge_views", "score_views"]
