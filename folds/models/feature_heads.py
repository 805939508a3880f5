"""Predict with a head on features."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from folds.data.targets import Target
from folds.models.heads import AttentionHead
from folds.models.multi_head import join_heads

_CHUNK = 4096  # images at a time


@torch.inference_mode()
def class_logits(
    head: nn.Module, target: Target, features: NDArray[np.floating], people: NDArray[np.int64] | None = None
) -> NDArray[np.float32]:
    """Return float32 (n, classes) the logits of features (n, d).

    Parameters
    ----------
    features : float32, or float16, of which a part at a time becomes float32.
    people : (n,) person of each image, for a head that predicts it from all images of its person; None: each image is
        a person of its own.
    """
    was_training = head.training
    head.eval()
    if isinstance(head, AttentionHead):
        own = np.arange(len(features)) if people is None else people
        outputs = _outputs_of_people(head, features, own)
    else:
        parts = [head(_floats(features[at : at + _CHUNK])) for at in range(0, len(features), _CHUNK)]
        outputs = torch.cat(parts)
    head.train(was_training)
    if not target.joined:
        return outputs.float().numpy()
    logits: NDArray[np.float32] = joined_outputs(target)(outputs).numpy()
    return logits


def joined_outputs(target: Target) -> nn.Module:
    """Return what turns the outputs (n, outputs) of a head into the logits (n, classes) of the label."""
    return join_heads(_Given(), target)


class _Given(nn.Module):
    """A model whose outputs are given, with a parameter that says where it is."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(1), requires_grad=False)

    def forward(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs


def _floats(features: NDArray[np.floating]) -> torch.Tensor:
    return torch.from_numpy(np.asarray(features, np.float32))


def _outputs_of_people(head: AttentionHead, features: NDArray[np.floating], people: NDArray[np.int64]) -> torch.Tensor:
    """Return the outputs of each image, from all images of its person; people are taken together up to a chunk."""
    order = np.argsort(people, kind="stable")
    starts = np.flatnonzero(np.diff(people[order], prepend=-1))
    ends = np.append(starts[1:], len(order))
    out, first = torch.empty(len(features), head.output.out_features), 0
    while first < len(starts):
        last = first
        while last + 1 < len(starts) and ends[last + 1] - starts[first] <= 256:
            last += 1
        rows = order[starts[first] : ends[last]]
        out[torch.from_numpy(rows)] = head(_floats(features[rows]), torch.from_numpy(people[rows]))
        first = last + 1
    return out
