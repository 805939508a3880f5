"""Load the models of several runs fold by fold, average them, and predict out of fold."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from folds.data.sources import load_checkpoint_data
from folds.data.table import SampleTable
from folds.errors import EnsembleError
from folds.images.cache import load_images
from folds.images.settings import CACHE
from folds.metrics.classification import Metric
from folds.metrics.positive import in_order_of_metric, scored_class
from folds.metrics.scored_units import scored_units
from folds.metrics.task_names import COLUMN_TASKS
from folds.metrics.tasks import metric_for_task
from folds.models.accelerators import resolve_devices
from folds.models.checkpoint import Checkpoint, hash_ids, load_checkpoint
from folds.models.head_spec import require_image_head
from folds.models.inference import PixelSource, predict_logits
from folds.models.soup import average_weights, has_batch_norm, with_statistics
from folds.predictions.files import LABEL
from folds.predictions.links import predictions_of
from folds.predictions.reading import is_by_person
from folds.utils.numeric import factorize
from folds.utils.progress import Advance

_SAME = ("k", "classes", "target", "heads", "folds_sha", "labels_sha", "images", "validation_hashes")


class SoupModels:
    """The models of the runs, and the out-of-fold predictions of their averages."""

    def __init__(
        self, runs: Sequence[str], root: Path, metric: str | None, batch_norm: str, data: Path | None, device: str
    ) -> None:
        self.runs, self.root = tuple(runs), root
        self.device = resolve_devices(device)[0]
        self.paths = {run: checkpoints_of(root, run) for run in runs}
        self.first = load_checkpoint(self.paths[runs[0]][0])
        require_image_head(self.first.architecture.head, "a soup", runs[0])
        self.metric: Metric = metric_for_task(metric, self.first.task)
        self.folds = sorted(self.paths[runs[0]])
        self._check()
        recompute = batch_norm == "recompute"
        self.batch_norm = batch_norm if has_batch_norm(self.first) else "none"
        self.recompute = recompute and self.batch_norm != "none"
        first = self.first
        self.data = load_checkpoint_data(
            first.data,
            data,
            classes=first.classes if first.target == LABEL else None,
            root=root,
            run=first.run,
            folds_sha=first.folds_sha,
        )
        self.sources = {"train": self.pixels(self.data.train)}
        table = self.data.train
        labels = self._encoded(table)
        persons = factorize(table.ids if table.persons is None else table.persons)[1]
        self.place = {name: i for i, name in enumerate(hash_ids(table.ids.tolist()))}
        self.rows = {fold: self._rows(self.load(runs[0], fold).validation_hashes) for fold in self.folds}
        self.labels, self.persons = labels, persons
        self.known: dict[tuple[int, tuple[str, ...]], NDArray[np.float32]] = {}

    def _encoded(self, table: SampleTable) -> NDArray:
        """Return (n,) the class of each row; (n, columns) of several labels or numbers."""
        if self.first.task in COLUMN_TASKS:
            return table.label_values()
        return np.array([self.first.classes.index(name) for name in self._labels(table)])

    def _labels(self, table: SampleTable) -> list[str]:
        """Return the value that the models predict, for each row."""
        assert table.labels is not None  # noqa: S101 - tables of training have labels
        if self.first.target == LABEL:
            return [str(name) for name in table.labels.tolist()]
        meaning = table.class_attributes
        return [str(meaning[name][self.first.target]) for name in table.labels.tolist()]

    def _check(self) -> None:
        """Raise EnsembleError unless all runs have models of one architecture for the same folds."""
        for run in self.runs[1:]:
            if sorted(self.paths[run]) != self.folds:
                raise EnsembleError(
                    f"{self.runs[0]} has the folds {self.folds}, {run} has {sorted(self.paths[run])}",
                    hint="train the missing folds: ensemble kfold --resume",
                )
            for fold in self.folds:
                one, other = self.load(self.runs[0], fold), self.load(run, fold)
                if one.architecture.to_dict() != other.architecture.to_dict():
                    raise EnsembleError(
                        f"{run} and {self.runs[0]} are of different architectures or input sizes",
                        hint="weights can only be averaged over one architecture; ensemble blend combines others",
                    )
                differ = [field for field in _SAME if getattr(one, field) != getattr(other, field)]
                if differ:
                    raise EnsembleError(
                        f"{run} and {self.runs[0]} differ in {', '.join(differ)}: their fold {fold} is not the same",
                        hint="a soup needs the same folds, so that none of its models has seen the fold's people; "
                        "train with `seeds`, not `repeats`",
                    )
                if set(one.validation_hashes) & set(other.training_hashes):
                    raise EnsembleError(f"{run} was trained on people of fold {fold}", hint="train it again")

    def load(self, run: str, fold: int) -> Checkpoint:
        return load_checkpoint(self.paths[run][fold])

    def pixels(self, table: SampleTable) -> PixelSource:
        loaded = load_images(
            table.paths or (),
            self.first.image_settings,
            cache_dir=self.root / CACHE / "images",
            locations=table.locations,
        )
        return PixelSource(loaded.pixels, self.device)

    def _rows(self, hashes: Sequence[str]) -> NDArray[np.int64]:
        missing = sum(one not in self.place for one in hashes)
        if missing:
            raise EnsembleError(
                f"{self.data.train.source} lacks {missing:,} of {len(hashes):,} images of the runs",
                hint="`data` must name the table they were trained on",
            )
        return np.array(sorted(self.place[one] for one in hashes), np.int64)

    def model(self, fold: int, some: Sequence[str]) -> Checkpoint:
        """Return the average of the models of some runs for a fold."""
        parts = [self.load(run, fold) for run in some]
        first = parts[0]
        if len(parts) == 1:
            return first
        made = replace(
            first,
            weights=average_weights([part.weights for part in parts]),
            selected_on_validation=any(part.selected_on_validation for part in parts),
        )
        if not self.recompute:
            return made
        rows = self._rows(first.training_hashes)
        return replace(made, weights=with_statistics(made, self.sources["train"], rows, self.device))

    def predict(self, checkpoint: Checkpoint, pixels: PixelSource, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return (n, classes) probabilities, or (n, columns)."""
        network, channels_last = checkpoint.build_on(self.device)
        logits = predict_logits(
            network,
            pixels,
            rows,
            checkpoint.architecture.mean,
            checkpoint.architecture.std,
            device=self.device,
            amp=checkpoint.amp_on(self.device),
            channels_last=channels_last,
            size=(checkpoint.architecture.height, checkpoint.architecture.width),
        )
        return predictions_of(self.first.task, logits[0]).astype(np.float32)

    def out_of_fold(self, fold: int, some: tuple[str, ...]) -> NDArray[np.float32]:
        """Return the predictions of the validation rows of a fold by the average of some runs."""
        key = (fold, tuple(sorted(some)))
        if key not in self.known:
            self.known[key] = self.predict(self.model(fold, key[1]), self.sources["train"], self.rows[fold])
        return self.known[key]

    def score(self, some: tuple[str, ...], folds: Sequence[int]) -> float:
        """Return the out-of-fold score of an average on some folds; greater is better."""
        found = np.concatenate([self.out_of_fold(fold, some) for fold in folds])
        labels = np.concatenate([self.labels[self.rows[fold]] for fold in folds])
        persons = np.concatenate([self.persons[self.rows[fold]] for fold in folds])
        labels, (found,), _ = self.units(labels, [found], persons)
        labels, (values,) = self.in_order(labels, found)
        return self.metric(labels, values) * (1 if self.metric.greater_is_better else -1)

    def units(
        self, labels: NDArray, values: Sequence[NDArray], persons: NDArray
    ) -> tuple[NDArray, list[NDArray], NDArray[np.int64]]:
        """Return labels, predictions and persons of what is scored: of people if only persons are labeled."""
        units = scored_units(labels, values, persons, is_by_person(self.first), self.first.task)
        return units.labels, list(units.predictions), factorize(units.persons)[1]

    def in_order(self, labels: NDArray, *values: NDArray) -> tuple[NDArray, list[NDArray]]:
        """Return labels and probabilities with the class last whose score the metric is, as scores of the runs have
        it.
        """
        first = self.first
        scored = scored_class(first.classes, first.task, first.exclusive, first.target != LABEL)
        return in_order_of_metric(self.metric, labels, values, first.classes, scored)

    def choose(self, advance: Advance) -> tuple[dict[int, tuple[str, ...]], dict[int, str]]:
        """Return fold → the runs to average, and fold → the best single run, by the scores of the other folds."""
        chosen: dict[int, tuple[str, ...]] = {}
        best: dict[int, str] = {}
        for done, fold in enumerate(self.folds, start=1):
            others = [one for one in self.folds if one != fold] or self.folds
            singles = {run: self.score((run,), others) for run in self.runs}
            order = sorted(self.runs, key=lambda run: (-singles[run], self.runs.index(run)))
            some: tuple[str, ...] = (order[0],)
            score = singles[order[0]]
            for run in order[1:]:
                more = self.score((*some, run), others)
                if more >= score:
                    some, score = (*some, run), more
            chosen[fold], best[fold] = some, order[0]
            advance(done, len(self.folds))
        return chosen, best

    def together(self, chosen: Mapping[int, tuple[str, ...]]) -> NDArray[np.float32]:
        return np.concatenate([self.out_of_fold(fold, chosen[fold]) for fold in self.folds])


def checkpoints_of(root: Path, run: str) -> dict[int, Path]:
    """Return fold → checkpoint of a run."""
    folder = root / "checkpoints" / run
    found = {
        int(match[1]): path
        for path in folder.glob("fold*.pt")
        if (match := re.fullmatch(r"fold(\d{1,4})\.pt", path.name)) is not None
    }
    if not found:
        raise EnsembleError(f"run '{run}' has no checkpoints in {folder}", hint="ensemble runs lists the runs")
    return dict(sorted(found.items()))
