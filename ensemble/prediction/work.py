"""Keep the predictions of each model in a work folder, so that an interrupted command continues where it stopped."""

from __future__ import annotations

import errno
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ensemble.prediction.combine import member_key
from ensemble.prediction.source import FoldModel, PredictionSource, RunModels
from folds.data.table import SampleTable
from folds.errors import EnsembleError
from folds.images.stacks import stack_parts
from folds.models.person_models import FEATURES, body_key, count_features, needs_people
from folds.utils.files import cannot_write, sha256_bytes, write_json

CASCADE = "cascade"  # key of the array of a cascade
_FIELDS = ("done", "unreadable", "passes", "formats")


def work_key(source: PredictionSource, table: SampleTable, devices: Sequence[str], precision: str) -> str:
    """Return a name that changes with the models, the images (names, sizes, times), the devices and the precision."""
    files = []
    for path in itertools.chain.from_iterable(map(stack_parts, table.paths or ())):
        try:
            status = path.stat()
            files.append((str(path), status.st_size, status.st_mtime_ns))
        except OSError:
            files.append((str(path), -1, -1))
    kinds = sorted({device.split(":")[0] for device in devices})
    return sha256_bytes(repr((2, source.sha, kinds, precision, table.ids.tolist(), files)).encode())[:16]


class WorkState:
    """The work folder: one array (n, classes) per fold model, and how far they are filled.

    Attributes
    ----------
    arrays : `member_key` → float32 (n, classes) predictions.
    features : `member_key` → (n, views · features) of the fold models that predict an image from all images of its
        person; models of equal bodies and views share one array. Their predictions are made when all images are done.
    """

    def __init__(
        self,
        folder: Path,
        arrays: dict[str, np.memmap[Any, Any]],
        record: dict[str, Any],
        features: dict[str, np.memmap[Any, Any]] | None = None,
    ) -> None:
        self.folder, self.arrays, self.record, self.features = folder, arrays, record, features or {}

    @classmethod
    def open(cls, folder: Path, source: PredictionSource, n: int) -> WorkState:
        """Return the state in `folder`; a new one if it is empty or damaged.

        Raises
        ------
        EnsembleError : the disk has no room for the predictions; nothing was predicted yet.
        """
        record: dict[str, Any] = {"done": 0, "unreadable": [], "passes": 0, "formats": {}}
        try:
            stored = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            if set(stored) == set(_FIELDS) and 0 <= stored["done"] <= n:
                record = stored
        except (OSError, ValueError, TypeError):
            pass
        arrays: dict[str, np.memmap[Any, Any]] = {}
        if source.cascade is not None:  # models that are skipped have no predictions: only the result is kept
            path, shape = folder / "cascade.npy", (n, len(source.classes))
            return cls(folder, {CASCADE: _open_array(path, shape, new=record["done"] == 0)}, record)
        features: dict[str, np.memmap[Any, Any]] = {}
        bodies: dict[str, np.memmap[Any, Any]] = {}
        for run, model in models_of(source):
            path, key = folder / f"{len(arrays)}.npy", member_key(run, model)
            arrays[key] = _open_array(path, (n, len(run.classes)), new=record["done"] == 0)
            if needs_people(model.checkpoint):
                body, views = repr((body_key(model.checkpoint, model.path), run.merge.views)), len(run.merge.views)
                if body not in bodies:
                    path, shape = folder / f"features{len(bodies)}.npy", (n, views * count_features(model.checkpoint))
                    bodies[body] = _open_array(path, shape, record["done"] == 0, FEATURES)
                features[key] = bodies[body]
        return cls(folder, arrays, record, features)

    def computed(self, source: PredictionSource) -> list[tuple[RunModels, FoldModel]]:
        """Return the fold models that see the images; the others have the body of one of these."""
        seen: set[int] = set()
        found = []
        for run, model in models_of(source):
            features = self.features.get(member_key(run, model))
            if features is None or id(features) not in seen:
                seen.add(id(features))
                found.append((run, model))
        return found

    @property
    def done(self) -> int:
        """Return the number of rows that are complete."""
        return int(self.record["done"])

    @property
    def unreadable(self) -> list[tuple[int, str]]:
        """Return (row, problem) of the images that cannot be used."""
        return [(int(at), str(text)) for at, text in self.record["unreadable"]]

    @property
    def passes(self) -> int:
        """Return the forward passes so far."""
        return int(self.record["passes"])

    @property
    def formats(self) -> dict[str, Mapping[str, Any]]:
        """Return how each architecture is computed, as the first chunk chose it."""
        return dict(self.record["formats"])

    def finish(self, done: int, problems: Sequence[tuple[int, str]]) -> None:
        """Record that all rows before `done` are written."""
        for array in (*self.arrays.values(), *self.features.values()):
            array.flush()
        self.record["done"] = done
        self.record["unreadable"] += [[at, text] for at, text in problems]
        write_json(self.folder / "state.json", self.record)


def models_of(source: PredictionSource) -> Iterator[tuple[RunModels, FoldModel]]:
    """Yield every fold model with its run."""
    for run in source.runs:
        for model in run.models:
            yield run, model


def _open_array(path: Path, shape: tuple[int, int], new: bool, dtype: DTypeLike = np.float32) -> np.memmap[Any, Any]:
    """Return an array of a file whose room is reserved: a full disk would kill a process that writes to it later."""
    try:
        array: np.memmap[Any, Any] = np.lib.format.open_memmap(
            path, mode="w+" if new else "r+", dtype=dtype, shape=shape if new else None
        )
        if array.shape != shape or array.dtype != dtype:
            raise ValueError(f"expected {np.dtype(dtype)} {shape}, found {array.dtype} {array.shape}")
        if new and hasattr(os, "posix_fallocate"):
            with open(path, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        return array
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            path.unlink(missing_ok=True)
        raise cannot_write(path, error) from None
    except ValueError as error:
        raise EnsembleError(f"cannot open {path}: {error}", hint=f"remove {path.parent} to start again") from None
