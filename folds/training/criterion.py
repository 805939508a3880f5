"""Build the training loss: the sum of the losses of the heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from folds.data.targets import Target
from folds.errors import unknown_name
from folds.optim.column_losses import CellCounts, build_column_loss
from folds.optim.losses import Loss, LossForm, build_loss


@dataclass(frozen=True)
class SoftTargets:
    """How soft labels enter the loss.

    Attributes
    ----------
    weight : their share; the labels of the table have the rest.
    temperature : T of the outputs z / T that are compared with them.
    """

    weight: float
    temperature: float


# For each head (values,) the training images per epoch; or the cells of several labels or numbers.
Counts = Sequence[Tensor] | CellCounts


def check_head_losses(target: Target, head_loss: Mapping[str, str]) -> None:
    """Raise UsageError if `head_loss` names an unknown head."""
    for name in head_loss:
        if name not in [head.name for head in target.heads]:
            raise unknown_name("head_loss", name, [head.name for head in target.heads])


def build_criterion(
    target: Target,
    loss: str,
    head_loss: Mapping[str, str],
    label_smoothing: float | None,
    counts: Counts,
    epoch_fraction: float,
    soft: SoftTargets | None = None,
    form: LossForm | None = None,
) -> Loss:
    """Return the loss of a batch or a part of it: (outputs (n, outputs), labels, labels of the whole batch) → scalar.

    The labels are (n, heads) class indices or, for mixed images, (n, outputs) float shares, which may be multiplied by
    sample weights. With soft labels they are
    (n, 2·outputs): the shares of the labels of the table, then the soft labels at the temperature T. Both parts have
    the same loss (so class weights hold for both), (1 − w)·ℓ(z, hard) + w·T²·ℓ(z / T, soft), where only the first is
    smoothed. For cross-entropy the second has the gradient of the KL divergence of Hinton et al., 2015.

    With several labels or numbers the labels are those of `folds.optim.column_losses`, and with soft labels these are
    further columns after them. A cell that has only one of the two learns this one; with w = 1, soft labels only.

    Parameters
    ----------
    loss : loss of the heads that `head_loss` does not name.
    counts : images of each class, from the training part of the fold only.
    epoch_fraction : share of the epochs that are finished, for losses that change during the training.
    soft : how soft labels enter the loss; None without them.
    form : how all losses are computed; None for the usual form.
    """
    if isinstance(counts, CellCounts):
        return _of_columns(target.task, loss, label_smoothing, counts, epoch_fraction, soft, form)
    of_heads = counts

    def losses(smooth: bool) -> list[Loss]:
        return [
            build_loss(head_loss.get(head.name, loss), label_smoothing, own, epoch_fraction, smooth, form)
            for head, own in zip(target.heads, of_heads, strict=True)
        ]

    hard = _sum_over_heads(target, losses(smooth=True))
    if soft is None:
        return hard
    learned, (weight, t) = _sum_over_heads(target, losses(smooth=False)), (soft.weight, soft.temperature)

    def criterion(outputs: Tensor, labels: Tensor, whole: Tensor | None = None) -> Tensor:
        of_table, of_teacher = labels.split(outputs.shape[1], dim=1)
        all_of_table, all_of_teacher = (None, None) if whole is None else whole.split(outputs.shape[1], dim=1)
        distilled = t**2 * learned(outputs.float() / t, of_teacher, all_of_teacher)
        if weight == 1:
            return distilled
        return (1 - weight) * hard(outputs, of_table, all_of_table) + weight * distilled

    return criterion


def _of_columns(
    task: str,
    loss: str,
    label_smoothing: float | None,
    counts: CellCounts,
    epoch_fraction: float,
    soft: SoftTargets | None,
    form: LossForm | None,
) -> Loss:
    """Return the loss of several labels or numbers; both parts have the class weights of the labels of the table."""
    if soft is None:
        return build_column_loss(task, loss, label_smoothing, counts, epoch_fraction, form)
    learned = build_column_loss(task, loss, label_smoothing, counts, epoch_fraction, form, soft=True)
    weight, t, columns = soft.weight, soft.temperature, len(counts.known)
    hard = None if weight == 1 else build_column_loss(task, loss, label_smoothing, counts, epoch_fraction, form)

    def criterion(outputs: Tensor, labels: Tensor, whole: Tensor | None = None) -> Tensor:
        of_table, of_teacher = labels[:, :-columns], labels[:, -columns:]
        # The weight of an image is a column after its labels (`folds.optim.column_losses`), for both parts.
        distilled = t**2 * learned(outputs.float() / t, torch.cat([of_teacher, of_table[:, columns:]], 1))
        return distilled if hard is None else (1 - weight) * hard(outputs, of_table) + weight * distilled

    return criterion


def at_temperature(target: Target, values: Tensor, temperature: float) -> Tensor:
    """Return soft labels (n, outputs) at a temperature: of each head p^(1/T), scaled to sum to 1.

    Of several labels each is a decision of its own between p and 1 − p; nan stays. Numbers have no temperature.
    """
    if target.has_columns:
        if temperature == 1:
            return values
        return torch.sigmoid(torch.logit(values) / temperature)
    blocks = [part ** (1 / temperature) for part in values.split([len(head.values) for head in target.heads], dim=1)]
    return torch.cat([block / block.sum(1, keepdim=True) for block in blocks], dim=1)


def _sum_over_heads(target: Target, losses: Sequence[Loss]) -> Loss:
    """Return the sum of the losses of the heads as a function of all outputs and their labels."""
    sizes = [len(head.values) for head in target.heads]

    def of_heads(labels: Tensor) -> Sequence[Tensor]:
        return labels.split(sizes, dim=1) if labels.is_floating_point() else labels.unbind(1)

    def criterion(outputs: Tensor, labels: Tensor, whole: Tensor | None = None) -> Tensor:
        blocks, parts = outputs.split(sizes, dim=1), of_heads(labels)
        wholes = [None] * len(sizes) if whole is None else of_heads(whole)
        each = zip(losses, blocks, parts, wholes, strict=True)
        return torch.stack([one(block, part, of_batch) for one, block, part, of_batch in each]).sum()

    return criterion


def one_hot(target: Target, codes: Tensor) -> Tensor:
    """Return float32 (n, outputs) the one-hot encoding of (n, heads) class indices, head by head."""
    blocks = [
        torch.nn.functional.one_hot(own, len(head.values))
        for head, own in zip(target.heads, codes.unbind(1), strict=True)
    ]
    return torch.cat(blocks, dim=1).float()
