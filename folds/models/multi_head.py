"""Present a model with one head an attribute as a model of the label."""

from __future__ import annotations

import torch
from torch import Tensor

from folds.data.targets import Target


class MultiHeadModel(torch.nn.Module):
    """Wraps a model whose outputs are several heads; what comes out are log-probabilities of the label's classes.

    log P(class) = Σ over heads of log P(its value), which takes the attributes for independent given the image. Where
    some combination of values is no class, they sum to less than 1; softmax shares that out.

    Parameters
    ----------
    model : images (n, 3, height, width) → (n, outputs).
    target : of several heads.
    """

    def __init__(self, model: torch.nn.Module, target: Target) -> None:
        super().__init__()
        self.model = model
        self.sizes = [len(head.values) for head in target.heads]
        for i, head in enumerate(target.heads):
            self.register_buffer(f"of_label{i}", torch.tensor(head.of_label), persistent=False)
        self.train(model.training)

    def forward(self, images: Tensor) -> Tensor:
        """Return (n, 3, height, width) → float32 (n, classes)."""
        blocks = self.model(images).float().split(self.sizes, dim=1)
        parts = [block.log_softmax(1)[:, self.get_buffer(f"of_label{i}")] for i, block in enumerate(blocks)]
        return torch.stack(parts).sum(0)


def join_heads(model: torch.nn.Module, target: Target) -> torch.nn.Module:
    """Return the model itself where it has one head, otherwise its `Joined` form on the device it is on."""
    if not target.joined:
        return model
    return MultiHeadModel(model, target).to(next(model.parameters()).device)
