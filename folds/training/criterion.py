"""Build the training loss: the sum of the losses of the heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from folds.data.targets import Target
from folds.errors import unknown_name
from folds.optim.losses import Loss, build_loss

Counts = Sequence[Tensor]  # for each head (values,) the training images per epoch


def check_head_losses(target: Target, head_loss: Mapping[str, str]) -> None:
    """Raise UsageError if `head_loss` names an unknown head."""
    for name in head_loss:
        if name not in [head.name for head in target.heads]:
            raise unknown_name("head_loss", name, [head.name for head in target.heads])


def build_criterion(
    target: Target,
    loss: str,
    head_loss: Mapping[str, str],
    label_smoothing: float,
    counts: Counts,
    epoch_fraction: float,
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss of a batch: (outputs (n, outputs), labels) → scalar.

    The labels are (n, heads) class indices or, for mixed images, (n, outputs) float shares.

    Parameters
    ----------
    loss : loss of the heads that `head_loss` does not name.
    counts : images of each class, from the training part of the fold only.
    epoch_fraction : share of the epochs that are finished, for losses that change during the training.
    """
    losses: list[Loss] = [
        build_loss(head_loss.get(head.name, loss), label_smoothing, own, epoch_fraction)
        for head, own in zip(target.heads, counts, strict=True)
    ]
    sizes = [len(head.values) for head in target.heads]

    def criterion(outputs: Tensor, labels: Tensor) -> Tensor:
        blocks = outputs.split(sizes, dim=1)
        parts = labels.split(sizes, dim=1) if labels.is_floating_point() else labels.unbind(1)
        return torch.stack([one(block, part) for one, block, part in zip(losses, blocks, parts, strict=True)]).sum()

    return criterion


def one_hot(target: Target, codes: Tensor) -> Tensor:
    """Return float32 (n, outputs) the one-hot encoding of (n, heads) class indices, head by head."""
    blocks = [
        torch.nn.functional.one_hot(own, len(head.values))
        for head, own in zip(target.heads, codes.unbind(1), strict=True)
    ]
    return torch.cat(blocks, dim=1).float()
