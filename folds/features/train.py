"""Train the head of one fold on frozen features: predictions, an ordinary checkpoint, done.json, as fine-tuning."""

from __future__ import annotations

import csv
import io
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from folds.config.frozen import LOGISTIC
from folds.config.recipe import Recipe
from folds.errors import EnsembleError
from folds.features.backbone import Backbone, architecture_of, backbone_of, channels_last_of, new_head
from folds.features.column_heads import in_unit_of_table
from folds.features.data import Standardization, plain_features, standardization, standardized
from folds.features.embed import is_frozen
from folds.features.gradient_head import train_by_gradient
from folds.features.logistic_head import train_logistic
from folds.features.persons import read_test_persons
from folds.features.store import open_features
from folds.metrics.task_names import REGRESSION
from folds.models.checkpoint import save_checkpoint
from folds.models.feature_heads import class_logits
from folds.models.heads import AttentionHead
from folds.models.inference import PixelSource
from folds.models.number_head import Units, units_of_numbers
from folds.models.precision import resolve_amp
from folds.predictions.file_names import FOLD_DONE, FOLD_HISTORY
from folds.predictions.links import predictions_of
from folds.splits.assignment import read_folds
from folds.training.context import FoldContext
from folds.training.examples import class_codes, examples_of
from folds.training.job import REFIT_TEST, Job
from folds.training.loop import Report
from folds.training.resolve import augmentations, epochs_of, target_of
from folds.training.scores import validation_scores
from folds.training.state import Progress
from folds.training.trainer import (
    Fold,
    checkpoint_of_fold,
    done_record,
    parts_of,
    save_array,
    train_fold,
)
from folds.utils.files import derive_seed, write_atomic, write_json
from folds.utils.numeric import factorize
from folds.utils.parallel import one_blas_thread

SELECTION = "selection.csv"  # beside done.json: the inner log loss of each strength of the penalty


def train_job(job: Job, report: Report = lambda event: None) -> dict[str, Any]:
    """Train one fold, by fine-tuning or a head on frozen features; return the content of its done.json.

    See `folds.training.trainer.train_fold`.
    """
    return train_fold(job, report, _train_head if is_frozen(job) else None)


def _train_head(job: Job, report: Report) -> dict[str, Any]:
    """Fit the head, predict, save; return the content of done.json.

    One thread does it, so that the bytes do not depend on the number of cores.
    """
    if job.features is None or job.features.get("train") is None:
        raise EnsembleError(
            f"{job.title}: the features of its images are not computed", hint="ensemble kfold computes them"
        )
    began = time.perf_counter()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(False)
    with one_blas_thread():
        backbone = backbone_of(job)
        if backbone.sha != job.features.get("weights"):
            raise EnsembleError(
                f"{job.title}: the weights of the frozen model changed while its features were in use",
                hint="run the command again: it computes the features of these weights",
            )
        context, units = _context(job, backbone)
        training = _Training(job, context, backbone, report, units)
        head, details = training.fit()
        logits = training.predict(head)
    fold = Fold(training.assignment, context, backbone.with_head(head), head)
    sha = save_checkpoint(Path(job.checkpoint), checkpoint_of_fold(fold))
    progress = Progress(epoch=details.pop("epochs"), seconds=time.perf_counter() - began)
    details |= {"images": len(context.epochs)} if context.recipe.head == LOGISTIC else {}  # it has no batches
    done = done_record(context, progress, logits, sha) | {"head": context.recipe.head} | details
    write_json(job.fold_dir / FOLD_DONE, done)
    return done


def _context(job: Job, backbone: Backbone) -> tuple[FoldContext, Units | None]:
    """Return the data and settings of the fold, and the units in which numbers are trained."""
    recipe = Recipe(**{**job.recipe, "init": None})
    assignment = read_folds(Path(job.folder) / "folds.csv")
    codes, labeled = class_codes(job, assignment)
    target = target_of(recipe, job.classes, job.class_attributes)
    training, validation = parts_of(job, assignment)
    examples = examples_of(job, recipe, target, assignment, training, labeled)
    labels, soft, units = target.encode_heads(labeled), examples.soft_labels, None
    if target.task == REGRESSION:
        units = units_of_numbers(labeled[training], target.classes)
        labels = units.standardize(labeled)
        soft = None if soft is None else units.standardize(soft.astype(np.float64))
    seed = (recipe.seed, job.run, job.fold)
    persons, attributes = assignment.persons, job.class_attributes
    context = FoldContext(
        job=job,
        recipe=recipe,
        architecture=architecture_of(job),
        pixels=PixelSource.of(Path(job.pixels), "cpu"),
        target=target,
        labels=target.encode_scored(codes),
        training_labels=labels,
        training=training,
        validation=validation,
        epochs=epochs_of(recipe, target, job.classes, attributes, training, labeled, persons, seed),
        augmentations=augmentations(replace(recipe, augment="none", augment_more={}, erase=None), job.classes, {})[0],
        augmentation_index=np.zeros(len(codes), np.int64),
        transform=None,
        amp=resolve_amp(job.amp, "cpu")[0],
        channels_last=channels_last_of(backbone.body, recipe.channels_last),
        soft_labels=soft,
    )
    return context, units


class _Training:
    """The features of a fold, and the training and the predictions of its head."""

    def __init__(self, job: Job, context: FoldContext, backbone: Backbone, report: Report, units: Units | None) -> None:
        assert job.features is not None  # noqa: S101 - checked by the caller
        self.job, self.context, self.backbone, self.report, self.units = job, context, backbone, report, units
        self.assignment = read_folds(Path(job.folder) / "folds.csv")
        self.path = Path(str(job.features["train"]))
        self.values = open_features(self.path)
        if self.values.shape[0] != len(self.assignment) or self.values.shape[2] != backbone.size:
            raise EnsembleError(
                f"{self.path} has {self.values.shape} features, expected those of {len(self.assignment):,} images",
                hint=f"rm {self.path}, then run the command again",
            )
        self.people = factorize(self.assignment.persons)[1]
        self.by: Standardization = standardization(self.values, context.training)

    def fit(self) -> tuple[nn.Module, dict[str, Any]]:
        """Train the head; return it, as a head of plain features, and what is recorded about its training."""
        context, recipe = self.context, self.context.recipe
        seed = derive_seed(recipe.seed, self.job.run, self.job.fold, "head")
        head = new_head(context.architecture, self.backbone.size, context.target.outputs, seed)
        features = standardized(self.values, context.training, self.by)
        views, persons = self.values.shape[1], self.assignment.persons
        began = time.perf_counter()
        if recipe.head == LOGISTIC:
            chosen, losses = train_logistic(context, features, views, persons, head, self.report)
            self._as_plain(head)
            loss = float(np.mean([one["loss"] for one in chosen.values()]))
            history = [{"epoch": 1, "loss": loss, "lr": 0.0, "seconds": time.perf_counter() - began}]
            history[0] |= self._validate(head) if len(context.validation) else {}
            if losses:
                _write_table(self.job.fold_dir / SELECTION, losses)
            details: dict[str, Any] = {"epochs": 1, "choice": chosen}
        else:
            held = standardized(self.values, context.validation, self.by, 1) if len(context.validation) else features
            people = self.people[context.validation]

            def validate(one: nn.Module) -> dict[str, float]:
                outputs = class_logits(one, context.target, held, people)
                return validation_scores(context, outputs if self.units is None else self.units.restore(outputs))

            history = train_by_gradient(context, features, views, persons, head, validate)
            self._as_plain(head)
            details = {"epochs": len(history)}
        _write_table(self.job.fold_dir / FOLD_HISTORY, history)
        # One event for all epochs, which last milliseconds; loggers read the earlier ones from the file.
        self.report({"event": "epoch", "done": len(history), "total": len(history), **history[-1]})
        return head.eval(), details

    def _as_plain(self, head: nn.Module) -> None:
        """Change a trained head to one of plain features, whose numbers are in the unit of the table."""
        self.by.fold_into(head)
        if self.units is not None:
            in_unit_of_table(head, self.units)

    def _validate(self, head: nn.Module) -> dict[str, float]:
        return validation_scores(self.context, self._logits(head, self.path, self.context.validation, self.people))

    def _logits(
        self, head: nn.Module, path: Path, rows: NDArray[np.int64] | None, people: NDArray[np.int64] | None
    ) -> NDArray[np.float32]:
        """Return (n, classes) the logits of some images by a head of plain features."""
        own = (
            None if people is None or not isinstance(head, AttentionHead) else people if rows is None else people[rows]
        )
        logits = class_logits(head, self.context.target, plain_features(path, rows), own)
        if not np.isfinite(logits).all():
            raise self.context.diverged("predictions are not finite numbers")
        return logits

    def predict(self, head: nn.Module) -> NDArray[np.float32]:
        """Write oof.npy and, if there are test images, test.npy; return the logits of the validation part."""
        job, context = self.job, self.context
        assert job.features is not None  # noqa: S101 - checked by the caller
        logits = np.zeros((0, len(context.target.classes)), np.float32)
        if job.refit is None:
            logits = self._logits(head, self.path, context.validation, self.people)
            save_array(job.fold_dir / "oof.npy", predictions_of(context.target.task, logits))
        test = job.features.get("test")
        if test is not None:
            people = read_test_persons(job) if isinstance(head, AttentionHead) else None
            name = "test.npy" if job.refit is None else REFIT_TEST
            outputs = self._logits(head, Path(test), None, people)
            save_array(job.fold_dir / name, predictions_of(context.target.task, outputs))
        return logits


def _write_table(path: Path, rows: list[dict[str, float]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, text.getvalue())
