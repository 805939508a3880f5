"""The features of one fold: standardized with its training part, with weights of rows by sampler and loss."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from folds.features.logistic import Floats
from folds.features.store import open_features
from folds.models.heads import input_layer
from folds.training.sampler import EpochSampler

_CHUNK = 4096  # rows that are converted at a time


@dataclass(frozen=True)
class Standardization:
    """Mean and standard deviation (d,) of the features of the training part, over all views."""

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]

    def fold_into(self, head: nn.Module) -> nn.Module:
        """Change a head of standardized features to one of plain features: (x − m)/s · W = x · W/s − m · W/s."""
        layer = input_layer(head)
        with torch.no_grad():
            weight = layer.weight.double() / torch.from_numpy(self.deviation)
            bias = layer.bias.double() - weight @ torch.from_numpy(self.mean)
            layer.weight.copy_(weight.float())
            layer.bias.copy_(bias.float())
        return head


def standardization(values: NDArray[np.float16], rows: NDArray[np.int64]) -> Standardization:
    """Return mean and deviation of the features of some rows, read in parts; a constant feature has deviation 1."""
    total, squares, count = np.zeros(values.shape[2]), np.zeros(values.shape[2]), 0
    # Shifted by the first image: a mean that is large beside the deviation would cost digits.
    shift = values[rows[0]].astype(np.float64).mean(0)
    for at in range(0, len(rows), _CHUNK):
        part = values[rows[at : at + _CHUNK]].astype(np.float64).reshape(-1, values.shape[2]) - shift
        total, squares, count = total + part.sum(0), squares + (part * part).sum(0), count + len(part)
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean * mean, 0))
    size = np.maximum(np.abs(mean + shift), deviation)
    return Standardization(mean + shift, np.where(deviation > 1e-6 * np.maximum(size, 1e-30), deviation, 1.0))


def standardized(
    values: NDArray[np.float16], rows: NDArray[np.int64], by: Standardization, views: int | None = None
) -> Floats:
    """Return float32 (views × n, d) the standardized features: all rows of the first view, then those of the next."""
    views = values.shape[1] if views is None else views
    out = np.empty((views, len(rows), values.shape[2]), np.float32)
    for at in range(0, len(rows), _CHUNK):
        part = values[rows[at : at + _CHUNK], :views].astype(np.float64)
        out[:, at : at + _CHUNK] = ((part - by.mean) / by.deviation).transpose(1, 0, 2)
    return out.reshape(-1, values.shape[2])


def plain_features(path: Path, rows: NDArray[np.int64] | None = None) -> Floats:
    """Return float32 (n, d) the features of the images themselves, as the backbone computes them."""
    values = open_features(path)
    return values[:, 0].astype(np.float32) if rows is None else values[rows, 0].astype(np.float32)


def sampling_weights(epochs: EpochSampler) -> NDArray[np.float64]:
    """Return (n,) how often the sampler shows each row of the training part in an epoch, on average."""
    weight = np.ones(len(epochs.training))
    if epochs.fixed:
        weight[epochs.capped] = epochs.position < epochs.quota
    else:
        weight[epochs.capped] = epochs.quota / epochs.size
    labels = epochs.labels
    return weight * (epochs.images / np.maximum(epochs.pool, 1))[labels]
