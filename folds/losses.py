"""What training minimises."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from folds.errors import unknown

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(label_smoothing: float) -> Loss:
    """Mean cross-entropy of (n, classes) logits and (n,) class indices, in float32 whatever the logits' format.

    `label_smoothing` moves that share of the target evenly to all classes (Szegedy et al., 2016, section 7).
    """
    return partial(_cross_entropy, label_smoothing=label_smoothing)


def _cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
    return torch.nn.functional.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)


LOSSES: dict[str, Callable[[float], Loss]] = {"ce": cross_entropy}


def build_loss(name: str, label_smoothing: float, counts: Tensor | None = None, done: float = 0.0) -> Loss:
    """The loss of that name: (logits (n, classes), labels (n,)) → scalar."""
    if name not in LOSSES:
        raise unknown("--loss", name, list(LOSSES))
    return LOSSES[name](label_smoothing)
