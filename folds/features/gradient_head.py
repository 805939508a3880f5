"""Train a linear, MLP or attention head on frozen features by gradient descent, with the losses of fine-tuning."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from folds.config.frozen import ATTENTION_PERSON
from folds.errors import UsageError
from folds.features.logistic import Floats
from folds.metrics.grouping import columns_by_person
from folds.metrics.task_names import COLUMN_TASKS
from folds.models.heads import AttentionHead, GatedAttentionHead
from folds.optim.column_losses import CellCounts
from folds.optim.optimizers import build_optimizer
from folds.training.context import FoldContext
from folds.training.criterion import Counts, at_temperature, one_hot
from folds.utils.files import derive_seed
from folds.utils.numeric import factorize

Validate = Callable[[nn.Module], dict[str, float]]  # head of standardized features → scores of the validation part


def train_by_gradient(
    context: FoldContext,
    features: Floats,
    views: int,
    persons: NDArray[Any],
    head: nn.Module,
    validate: Validate,
) -> list[dict[str, float]]:
    """Train the head on standardized features (views × n, d); return the history of its epochs.

    In each epoch, one view of each image is drawn.

    Parameters
    ----------
    persons : of all rows of the table.
    validate : called after each epoch.

    Raises
    ------
    TrainingDivergedError : the loss is not finite.
    """
    trainer = _Trainer(context, features, views, persons, head)
    history: list[dict[str, float]] = []
    for epoch in range(context.recipe.epochs):
        began = time.perf_counter()
        loss, rate = trainer.epoch(epoch, [record["loss"] for record in history])
        if not math.isfinite(loss):
            raise context.diverged(f"the loss is {loss} in epoch {epoch + 1}")
        scores = validate(head) if len(context.validation) else {}
        history.append({"epoch": epoch + 1, "loss": loss, "lr": rate, "seconds": time.perf_counter() - began} | scores)
    return history


class _Trainer:
    """The head, its optimizer, and the features and labels of the training part."""

    def __init__(
        self, context: FoldContext, features: Floats, views: int, persons: NDArray[Any], head: nn.Module
    ) -> None:
        recipe = context.recipe
        self.context, self.head, self.views, self.n = context, head, views, len(context.training)
        self.features = torch.from_numpy(features)
        self.position = np.full(int(context.training.max()) + 1, -1)  # row of the table → row of the features
        self.position[context.training] = np.arange(self.n)
        labels = context.training_labels[context.training]
        self.persons = factorize(persons[context.training])[1]
        if isinstance(head, GatedAttentionHead):
            labels = labels_of_people(labels, self.persons, context.target.task)
        self.labels = torch.from_numpy(labels)
        self.soft: Tensor | None = None
        soft = context.soft_targets
        if soft is not None and context.soft_labels is not None:
            values = context.soft_labels[context.training]
            if isinstance(head, GatedAttentionHead) and context.target.has_columns:
                values = labels_of_people(values, self.persons, context.target.task)
            self.soft = at_temperature(context.target, torch.from_numpy(values), soft.temperature)
        self.counts, self.schedule = self._counts(), context.schedule
        self.optimizer = build_optimizer(head, recipe.opt, recipe.weight_decay, 1.0, recipe.opt_args)

    def _counts(self) -> Counts:
        """Return what is known in an epoch, of several labels or numbers by a head of persons once for each person:
        the loss is divided by that, and a person knows what any of its images does.
        """
        context = self.context
        if not isinstance(self.head, GatedAttentionHead) or not context.target.has_columns:
            return context.counts()
        shown = self.position[context.epochs.rows(0)]
        rows = shown[np.unique(self.persons[shown], return_index=True)[1]]
        return CellCounts.of(self.labels[rows], None if self.soft is None else self.soft[rows])

    def epoch(self, epoch: int, losses: list[float]) -> tuple[float, float]:
        """Run an epoch; return its mean loss and the last learning rate."""
        context, recipe = self.context, self.context.recipe
        seed = derive_seed(*context.seed, epoch, "head")
        torch.manual_seed(seed)  # dropout
        view = np.random.default_rng(seed).integers(self.views, size=self.n)
        criterion = context.criterion(epoch, self.counts)
        self.head.train()
        total, images, rate, steps = torch.zeros(()), 0, 0.0, self._batches(epoch, view)
        for step, (rows, loss_of) in enumerate(steps):
            # Batches of whole people are not as many as the steps of the schedule.
            at = epoch * context.steps + step * context.steps // len(steps)
            rate = (recipe.lr or 0.0) * self.schedule.share(at, losses)
            for group in self.optimizer.param_groups:
                group["lr"] = rate * group.get("lr_scale", 1.0)
            self.optimizer.zero_grad()
            loss = loss_of(criterion)
            loss.backward()
            if recipe.clip:
                nn.utils.clip_grad_norm_(self.head.parameters(), recipe.clip)
            self.optimizer.step()
            total, images = total + loss.detach() * rows, images + rows
        self.head.eval()
        return float(total) / images, rate

    def _batches(self, epoch: int, view: NDArray[np.int64]) -> list[tuple[int, Callable[[Any], Tensor]]]:
        """Return for each step its number of images, and its loss as a function of the criterion."""
        if isinstance(self.head, AttentionHead):
            return self._batches_of_people(epoch, view)
        batches = []
        for rows in self.context.batches(epoch):
            at = self.position[rows]
            batches.append((len(at), self._loss(at, torch.from_numpy(view[at] * self.n + at))))
        return batches

    def _loss(self, at: NDArray[np.int64], index: Tensor) -> Callable[[Any], Tensor]:
        def loss_of(criterion: Any) -> Tensor:
            outputs = self.head(self.features[index])
            result: Tensor = criterion(outputs, self._targets(torch.from_numpy(at)))
            return result

        return loss_of

    def _targets(self, at: Tensor) -> Tensor:
        labels, target = self.labels[at], self.context.target
        if self.soft is None:
            return labels
        return torch.cat([labels if target.has_columns else one_hot(target, labels), self.soft[at]], 1)

    def _batches_of_people(self, epoch: int, view: NDArray[np.int64]) -> list[tuple[int, Callable[[Any], Tensor]]]:
        """Return batches of whole people: all images of a person are context, those of the epoch have a loss."""
        shown = self.position[self.context.epochs.rows(epoch)]
        people = list(dict.fromkeys(self.persons[shown].tolist()))  # in the random order of the epoch
        count_people = int(self.persons.max()) + 1
        images = _rows_by_group(self.persons, count_people)
        shown_of = _rows_by_group(self.persons[shown], count_people)
        batches: list[tuple[int, Callable[[Any], Tensor]]] = []
        some: list[int] = []
        count = 0
        for person in people:
            some.append(person)
            count += len(shown_of[person])
            if count >= (self.context.recipe.batch_size or 64):
                batches.append((count, self._loss_of_people(some, images, shown, shown_of, view)))
                some, count = [], 0
        if some:
            batches.append((count, self._loss_of_people(some, images, shown, shown_of, view)))
        return batches

    def _loss_of_people(
        self,
        people: list[int],
        images: list[NDArray[np.int64]],
        shown: NDArray[np.int64],
        shown_of: list[NDArray[np.int64]],
        view: NDArray[np.int64],
    ) -> Callable[[Any], Tensor]:
        context = np.concatenate([images[person] for person in people])
        # A head of persons has one prediction for all images of a person, which counts once.
        most = 1 if isinstance(self.head, GatedAttentionHead) else None
        scored = np.concatenate([shown[shown_of[person]][:most] for person in people])
        place = np.full(self.n, -1)
        place[context] = np.arange(len(context))
        index = torch.from_numpy(view[context] * self.n + context)
        persons, at = torch.from_numpy(self.persons[context]), torch.from_numpy(place[scored])
        targets = self._targets(torch.from_numpy(scored))

        def loss_of(criterion: Any) -> Tensor:
            result: Tensor = criterion(self.head(self.features[index], persons)[at], targets)
            return result

        return loss_of


def labels_of_people(labels: NDArray[Any], persons: NDArray[np.int64], task: str) -> NDArray[Any]:
    """Return the labels (n, columns), or soft labels, that images have as those of their persons (n,), from 0.

    Of several labels a person has those that any image has, and lacks those that all images with a known value lack; of
    soft labels that is the largest known one. Of numbers a person has the mean of the known ones. That is what scores
    by person compare with.

    Raises
    ------
    UsageError : the images of a person have several classes.
    """
    if task not in COLUMN_TASKS:
        check_labels_of_people(labels, persons)
        return labels
    people, _ = columns_by_person(labels.astype(np.float64), persons, int(persons.max()) + 1, task)
    return people[persons].astype(labels.dtype)


def check_labels_of_people(labels: NDArray[np.int64], persons: NDArray[np.int64]) -> None:
    """Raise UsageError if the images of a person have several labels: (n,) or (n, heads), persons (n,) from 0."""
    first = np.zeros(int(persons.max()) + 1, np.int64)
    first[persons[::-1]] = np.arange(len(persons))[::-1]
    differs = (labels != labels[first[persons]]).reshape(len(labels), -1).any(axis=1)
    if differs.any():
        raise UsageError(
            f"`head={ATTENTION_PERSON}` predicts persons, and the images of a person have several labels "
            f"({len(np.unique(persons[differs])):,} people)",
            hint="`head=attention` predicts each image from all images of its person",
        )


def _rows_by_group(groups: NDArray[np.int64], count: int) -> list[NDArray[np.int64]]:
    """Return for each of `count` groups the rows that are in it."""
    order = np.argsort(groups, kind="stable")
    return np.split(order, np.cumsum(np.bincount(groups, minlength=count))[:-1])
