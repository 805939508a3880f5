"""Build what a step minimizes: the loss of each head, added up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from folds.data.targets import Target
from folds.errors import unknown_name
from folds.optim.losses import Loss, build_loss

Counts = Sequence[Tensor]  # for each head (values,) images of the training part that an epoch shows


def check_head_losses(target: Target, head_loss: Mapping[str, str]) -> None:
    """Refuse losses for heads that there are not."""
    for name in head_loss:
        if name not in [head.name for head in target.heads]:
            raise unknown_name("head_loss", name, [head.name for head in target.heads])


def build_criterion(
    target: Target, loss: str, head_loss: Mapping[str, str], label_smoothing: float, counts: Counts, done: float
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss of a whole batch: (outputs (n, outputs), truth) → scalar.

    Parameters
    ----------
    loss : of every head that `head_loss` has none for.
    counts : what weighs classes, from the training part of the fold alone.
    done : share of the epochs that are done, for losses that change on the way.

    Returns
    -------
    A function whose `truth` is (n, heads) class indices or, where images are mixed, (n, outputs) float shares.
    """
    losses: list[Loss] = [
        build_loss(head_loss.get(head.name, loss), label_smoothing, own, done)
        for head, own in zip(target.heads, counts, strict=True)
    ]
    sizes = [len(head.values) for head in target.heads]

    def criterion(outputs: Tensor, truth: Tensor) -> Tensor:
        blocks = outputs.split(sizes, dim=1)
        parts = truth.split(sizes, dim=1) if truth.is_floating_point() else truth.unbind(1)
        return torch.stack([one(block, part) for one, block, part in zip(losses, blocks, parts, strict=True)]).sum()

    return criterion


def one_hot(target: Target, codes: Tensor) -> Tensor:
    """Return (n, heads) class indices → float32 (n, outputs), for each head 1 at its class."""
    blocks = [
        torch.nn.functional.one_hot(own, len(head.values))
        for head, own in zip(target.heads, codes.unbind(1), strict=True)
    ]
    return torch.cat(blocks, dim=1).float()
