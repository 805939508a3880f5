"""Predict the views of a fold's validation rows and of the test rows, and cache their logits."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ensemble.tta.files import CachedView, load_cached_logits, stitch, write
from ensemble.tta.people import check_people, logits_of_people, person_numbers
from ensemble.tta.views import View
from folds.data.table import Dataset, SampleTable
from folds.errors import EnsembleError, combine_errors
from folds.images.cache import load_images
from folds.images.settings import CACHE
from folds.models.accelerators import resolve_devices
from folds.models.checkpoint import Checkpoint, hash_ids, hash_labels, load_checkpoint
from folds.models.inference import BATCH, GPU_BATCH, PixelSource, predict_logits
from folds.models.person_models import body_on, needs_people, person_head
from folds.predictions.files import PredictionMetadata
from folds.predictions.links import outputs_kind_of
from folds.predictions.rows import samples_sha
from folds.utils.csv_table import read_csv
from folds.utils.files import sha256_bytes, sha256_file
from folds.utils.progress import SILENT, Advance, Progress

logger = logging.getLogger(__name__)


class FoldPredictor:
    """A checkpoint and its view files under ``<folder>/views``.

    Parameters
    ----------
    open_data : returns the table a checkpoint was trained on.
    images : images of tables that were read before, shared by the folds of a run.
    image_cache : the folder of decoded images.
    device : as `resolve_devices`; the rows of a fold are divided among the devices.
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
        folds = folder.parent.parent / self.checkpoint.run / "folds.csv"
        self.index = _positions(self.data.train, self.checkpoint, folds)
        self.head = person_head(self.checkpoint, path) if needs_people(self.checkpoint) else None
        if self.head is not None:
            check_people(self.data.train, self.index, folds, str(path))
        self.devices = resolve_devices(device)
        self._models: dict[str, tuple[torch.nn.Module, bool]] = {}
        self.passes = 0  # images × views that were predicted
        self._made: set[Path] = set()

    @property
    def fold(self) -> int:
        """Return the fold of the checkpoint."""
        return self.checkpoint.fold

    def model(self, device: str) -> tuple[torch.nn.Module, bool]:
        """Return the model on a device, and whether it uses channels_last; built on first use.

        Of a model that predicts an image from all images of its person, it is the body, images → features.
        """
        if device not in self._models:
            build = self.checkpoint.build_on if self.head is None else partial(body_on, self.checkpoint)
            self._models[device] = build(device, self.path)
        return self._models[device]

    def release(self) -> None:
        """Release the models and their memory before the next fold."""
        self._models.clear()

    def out_of_fold(self, views: Sequence[View]) -> None:
        """Predict the validation rows of the fold."""
        table, checkpoint = self.data.train, self.checkpoint
        shared = PredictionMetadata(
            kind=outputs_kind_of(checkpoint.task),
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
            task=checkpoint.task,
            exclusive=checkpoint.exclusive,
            samples_sha=samples_sha(table.rows()),
            teacher=_teacher(checkpoint),
            label_of=checkpoint.label_of,
        )
        self._fill(table, self.index, shared, views, np.ones(len(self.index), bool))

    def test(self, views: Sequence[View], only: NDArray[np.bool_] | None = None) -> None:
        """Predict the test rows, if any; with `only` (n,), just the rows where it is true."""
        table, checkpoint = self.data.test, self.checkpoint
        if table is None:
            return
        shared = PredictionMetadata(
            kind=outputs_kind_of(checkpoint.task),
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
            task=checkpoint.task,
            exclusive=checkpoint.exclusive,
            samples_sha=samples_sha(table.rows()),
            teacher=_teacher(checkpoint),
            label_of=checkpoint.label_of,
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
            sources = [(device, PixelSource(loaded.pixels, device)) for device in self.devices]
            self.images[key] = loaded, sources
        images, sources = self.images[key]
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
            for view, logits in zip(some, self._logits(sources, table, index, missing, some), strict=True):
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

    def _logits(
        self,
        sources: Sequence[tuple[str, PixelSource]],
        table: SampleTable,
        index: NDArray[np.int64],
        missing: NDArray[np.bool_],
        views: Sequence[View],
    ) -> Iterator[NDArray[np.float32]]:
        """Yield the logits (rows missing, classes) of each view."""
        if self.head is None:
            yield from self._predicted(sources, index[missing], views)
            return
        people = person_numbers(table)[index]
        for view in views:  # one at a time: features are many more numbers than logits

            def features_of(rows: NDArray[np.bool_], view: View = view) -> NDArray[np.float32]:
                return self._predicted(sources, index[rows], [view])[0]

            yield logits_of_people(self.checkpoint, self.head, people, missing, features_of)

    def _predicted(
        self, sources: Sequence[tuple[str, PixelSource]], index: NDArray[np.int64], views: Sequence[View]
    ) -> NDArray[np.float32]:
        """Return the outputs (views, n, outputs) of the model; each device predicts a part of the rows in a thread.

        The parts are whole batches, so the outputs are those of one device.

        Parameters
        ----------
        sources : the devices with the images.
        """
        batch = BATCH if torch.device(sources[0][0]).type == "cpu" else GPU_BATCH
        parts = _whole_batches(index, batch, len(sources))
        used = list(zip(sources, parts, strict=False))
        networks = [self.model(device) for (device, _), _ in used]  # built here: building is not safe in threads
        amp = self.checkpoint.amp_on(sources[0][0])  # of all, so that the rows do not differ in it
        self.passes += len(index) * len(views)
        with self.progress.step(str(self.path)) as advance:
            shared = _SharedProgress(advance, len(index), len(parts))

            def predict(i: int) -> NDArray[np.float32]:
                (device, pixels), rows = used[i]
                return predict_logits(
                    networks[i][0],
                    pixels,
                    rows,
                    self.checkpoint.architecture.mean,
                    self.checkpoint.architecture.std,
                    device=device,
                    amp=amp,
                    channels_last=networks[i][1],
                    views=views,
                    batch=batch,
                    progress=lambda done, total: shared.report(i, done),
                )

            if len(used) == 1:
                return predict(0)
            with ThreadPoolExecutor(len(used), thread_name_prefix="views") as pool:
                return np.concatenate(list(pool.map(predict, range(len(used)))), axis=1)


def _whole_batches(index: NDArray[np.int64], batch: int, most: int) -> list[NDArray[np.int64]]:
    """Return at most `most` parts of `index`, in its order, that all but the last are multiples of `batch` rows."""
    batches = max(1, -(-len(index) // batch))
    each = -(-batches // most) * batch
    return [index[start : start + each] for start in range(0, max(len(index), 1), each)]


class _SharedProgress:
    """The progress of several threads as that of one task."""

    def __init__(self, advance: Advance, total: int, parts: int) -> None:
        self._advance, self._total = advance, total
        self._done = [0] * parts
        self._lock = threading.Lock()

    def report(self, part: int, done: int) -> None:
        """Tell that `done` rows of a part are predicted."""
        with self._lock:
            self._done[part] = done
            self._advance(sum(self._done), self._total)


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
