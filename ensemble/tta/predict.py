"""Predict the views of a fold's validation rows and of the test rows, and cache their logits."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ensemble.tta.files import CachedView, load_cached_logits, stitch, write
from ensemble.tta.views import View
from folds.data.table import Dataset, SampleTable
from folds.errors import EnsembleError, combine_errors
from folds.images.cache import load_images
from folds.images.settings import CACHE
from folds.models.checkpoint import Checkpoint, hash_ids, hash_labels, load_checkpoint
from folds.models.inference import PixelSource, predict_logits
from folds.models.precision import resolve_devices
from folds.predictions.files import PredictionMetadata
from folds.predictions.rows import samples_sha
from folds.utils.csv_table import read_csv
from folds.utils.files import sha256_bytes, sha256_file
from folds.utils.progress import SILENT, Progress

logger = logging.getLogger(__name__)


class FoldPredictor:
    """A checkpoint and its view files under ``<folder>/views``.

    Parameters
    ----------
    open_data : returns the table a checkpoint was trained on.
    images : images of tables that were read before, shared by the folds of a run.
    image_cache : the folder of decoded images.
    again : whether to predict cached views again.
    progress : shows one step per prediction.

    Raises
    ------
    EnsembleError : the table lacks the fold's rows or has other labels.
    """

    def __init__(
        self,
        path: Path,
        open_data: Callable[[Checkpoint], Dataset],
        folder: Path,
        *,
        images: dict[str, Any],
        image_cache: Path = CACHE / "images",
        device: str = "auto",
        again: bool = False,
        progress: Progress = SILENT,
    ) -> None:
        self.path, self.folder, self.images, self.again, self.progress = path, folder, images, again, progress
        self.image_cache = image_cache
        self.checkpoint, self.sha = load_checkpoint(path), sha256_file(path)
        self.data = open_data(self.checkpoint)
        self.index = _positions(
            self.data.train, self.checkpoint, folder.parent.parent / self.checkpoint.run / "folds.csv"
        )
        self.device = resolve_devices(device)[0]
        self.passes = 0  # images × views that were predicted
        self._made: set[Path] = set()

    @property
    def fold(self) -> int:
        """Return the fold of the checkpoint."""
        return self.checkpoint.fold

    @cached_property
    def model(self) -> tuple[torch.nn.Module, bool]:
        """Return the model on its device, and whether it uses channels_last; built on first use."""
        return self.checkpoint.build_on(self.device, self.path)

    def release(self) -> None:
        """Release the model and its memory before the next fold."""
        self.__dict__.pop("model", None)

    def out_of_fold(self, views: Sequence[View]) -> None:
        """Predict the validation rows of the fold."""
        table, checkpoint = self.data.train, self.checkpoint
        shared = PredictionMetadata(
            kind="logit",
            split="oof",
            classes=checkpoint.classes,
            rows=table.rows().take(self.index),
            target=checkpoint.target,
            class_attributes=checkpoint.class_attributes or table.class_attributes,
            fold=np.full(len(self.index), checkpoint.fold),
            run=checkpoint.run,
            arch=checkpoint.architecture.timm_name,
            seed=checkpoint.recipe.get("seed"),
            folds_sha=checkpoint.folds_sha,
            checkpoint_sha={str(checkpoint.fold): self.sha},
            samples_sha=samples_sha(table.rows()),
            teacher=_teacher(checkpoint),
        )
        self._fill(table, self.index, shared, views, np.ones(len(self.index), bool))

    def test(self, views: Sequence[View], only: NDArray[np.bool_] | None = None) -> None:
        """Predict the test rows, if any; with `only` (n,), just the rows where it is true."""
        table, checkpoint = self.data.test, self.checkpoint
        if table is None:
            return
        shared = PredictionMetadata(
            kind="logit",
            split="test",
            classes=checkpoint.classes,
            rows=table.rows(),
            target=checkpoint.target,
            class_attributes=checkpoint.class_attributes or self.data.train.class_attributes,
            fold=checkpoint.fold,
            run=checkpoint.run,
            arch=checkpoint.architecture.timm_name,
            seed=checkpoint.recipe.get("seed"),
            folds_sha=checkpoint.folds_sha,
            checkpoint_sha=self.sha,
            samples_sha=samples_sha(table.rows()),
            teacher=_teacher(checkpoint),
        )
        self._fill(table, np.arange(len(table)), shared, views, np.ones(len(table), bool) if only is None else only)

    def _fill(
        self,
        table: SampleTable,
        index: NDArray[np.int64],
        shared: PredictionMetadata,
        views: Sequence[View],
        wanted: NDArray[np.bool_],
    ) -> None:
        """Predict the `wanted` rows (of `index`) that are missing in the files of `views`."""
        key = repr((table.source, len(table), self.checkpoint.images))
        if key not in self.images:
            settings = self.checkpoint.image_settings
            loaded = load_images(table.paths or (), settings, cache_dir=self.image_cache, locations=table.locations)
            self.images[key] = loaded, PixelSource(loaded.pixels, self.device)
        images, pixels = self.images[key]
        sha = sha256_bytes("".join(images.content[i] for i in index.tolist()).encode())
        shared = replace(shared, images_sha=sha if shared.split == "test" else {str(self.fold): sha})
        kept = {view.name: self._cached(view, replace(shared, views=(view.name,))) for view in views}
        # Views with the same missing rows share their batches.
        lacking: dict[bytes, list[View]] = {}
        for view in views:
            missing = wanted & ~kept[view.name].there
            if missing.any():
                lacking.setdefault(missing.tobytes(), []).append(view)
        for mask, some in lacking.items():
            missing = np.frombuffer(mask, bool)
            for view, logits in zip(some, self._predicted(pixels, index[missing], some), strict=True):
                before = kept[view.name]
                values = np.empty((len(index), logits.shape[1]), np.float32)
                values[before.there], values[missing] = before.logits, logits
                there = np.flatnonzero(before.there | missing)
                fold = shared.fold[there] if isinstance(shared.fold, np.ndarray) else shared.fold
                sidecar = replace(shared, views=(view.name,), rows=shared.rows.take(there), fold=fold)
                put, path = stitch if shared.split == "oof" else write, self.file(view, shared.split)
                put(path, values[there], sidecar, table.rows())
                self._made.add(path)

    def file(self, view: View, split: str) -> Path:
        """Return the path of the logits of a view."""
        return self.folder / "views" / f"{view.file_name}.{'oof' if split == 'oof' else f'fold{self.fold}.test'}.npy"

    def _cached(self, view: View, wanted: PredictionMetadata) -> CachedView:
        path = self.file(view, wanted.split)
        if self.again and path not in self._made:
            return CachedView(np.zeros(len(wanted.rows), bool), np.zeros((0, len(wanted.classes)), np.float32))
        return load_cached_logits(path, wanted)

    def _predicted(self, pixels: PixelSource, index: NDArray[np.int64], views: Sequence[View]) -> NDArray[np.float32]:
        """Return logits (views, n, classes)."""
        network, channels_last = self.model
        self.passes += len(index) * len(views)
        with self.progress.step(str(self.path)) as advance:
            return predict_logits(
                network,
                pixels,
                index,
                self.checkpoint.architecture.mean,
                self.checkpoint.architecture.std,
                device=self.device,
                amp=self.checkpoint.amp_on(self.device),
                channels_last=channels_last,
                views=views,
                progress=advance,
            )


def _teacher(checkpoint: Checkpoint) -> str | None:
    """Return whose predictions the model learned; None if it learned only labels."""
    teacher = checkpoint.recipe.get("teacher", "unknown" if "soft_sha" in checkpoint.recipe else None)
    return teacher if isinstance(teacher, str) else None


def _positions(table: SampleTable, checkpoint: Checkpoint, folds: Path) -> NDArray[np.int64]:
    position = {name: i for i, name in enumerate(hash_ids(table.ids.tolist()))}
    wanted = checkpoint.validation_hashes
    missing = sum(name not in position for name in wanted)
    if missing:
        raise EnsembleError(
            f"{table.source} lacks {missing:,} of the {len(wanted):,} validation samples of {checkpoint.run} fold "
            f"{checkpoint.fold}",
            hint="`data` must name the table the checkpoint was trained on",
        )
    rows = [position[name] for name in wanted]
    _check_labels(table, checkpoint, rows, folds)
    return np.array(sorted(rows))


def _check_labels(table: SampleTable, checkpoint: Checkpoint, rows: Sequence[int], folds: Path) -> None:
    """Raise EnsembleError if labels differ from those at training: scores against other labels are not comparable.

    Parameters
    ----------
    folds : ``runs/<run>/folds.csv``, which has the former labels; the checkpoint has only their hash.
    """
    if checkpoint.labels_sha is None or table.labels is None:  # made before they were recorded
        return
    labels = table.labels[list(rows)].tolist()
    if hash_labels(checkpoint.validation_hashes, labels) == checkpoint.labels_sha:
        return
    former: dict[str, str] = {}
    if folds.is_file():
        recorded = read_csv(folds)
        former = dict(zip(recorded.column("id"), recorded.column("label"), strict=True))
    names = table.ids[list(rows)].tolist()
    other = [
        f"{table.locations[row]}: '{name}' is '{label}', was '{former[name]}'"
        for row, name, label in zip(rows, names, labels, strict=True)
        if former.get(name, label) != label
    ]
    which = f"validation samples of {checkpoint.run} fold {checkpoint.fold}"
    hint = "`data` must name the table the checkpoint was trained on; train again if its labels were corrected"
    if other:
        raise combine_errors(other, f"of the {len(rows):,} {which} have another label in {table.source}", hint=hint)
    raise EnsembleError(f"some of the {len(rows):,} {which} have another label in {table.source}", hint=hint)
