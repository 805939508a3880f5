"""Wrap a model with one head per attribute as a model of the label."""

from __future__ import annotations

import torch
from torch import Tensor

from folds.data.targets import Target


class MultiHeadModel(torch.nn.Module):
    """A model with several heads whose outputs are the log-probabilities of the classes of the label.

    log P(class) = Σ over heads of log P(value of the class), which assumes that the attributes are independent given
    the image. If a combination of values is not a class, the probabilities sum to less than 1; softmax normalizes them.

    Parameters
    ----------
    model : images (n, 3, height, width) → (n, outputs).
    target : a target with several heads.
    """

    def __init__(self, model: torch.nn.Module, target: Target) -> None:
        super().__init__()
        self.model = model
        self.sizes = [len(head.values) for head in target.heads]
        for i, head in enumerate(target.heads):
            self.register_buffer(f"of_label{i}", torch.tensor(head.of_label), persistent=False)
        self.train(model.training)

    def forward(self, images: Tensor) -> Tensor:
        """Return float32 (n, classes) the log-probabilities of images (n, 3, height, width)."""
        blocks = self.model(images).float().split(self.sizes, dim=1)
        parts = [block.log_softmax(1)[:, self.get_buffer(f"of_label{i}")] for i, block in enumerate(blocks)]
        return torch.stack(parts).sum(0)


def join_heads(model: torch.nn.Module, target: Target) -> torch.nn.Module:
    """Return the model itself if it has one head, otherwise a `MultiHeadModel` on the device of the model."""
    if not target.joined:
        return model
    return MultiHeadModel(model, target).to(next(model.parameters()).device)
