"""Average the weights of models of one architecture (Wortsman et al., arXiv 2203.05482)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from folds.errors import UsageError
from folds.models.inference import BATCH, PixelSource, predict_logits

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from folds.models.checkpoint import Checkpoint

_STATISTICS = ("running_mean", "running_var")


def average_weights(weights: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean of each tensor, computed in float64; whole numbers (counters) are those of the first model.

    Raises
    ------
    UsageError : the models have tensors of other names or shapes.
    """
    first, *others = weights
    for other in others:
        if first.keys() != other.keys() or any(first[name].shape != other[name].shape for name in first):
            raise UsageError("weights can only be averaged over models of one architecture")
    found = {}
    for name, value in first.items():
        if value.is_floating_point():
            total = value.double()
            for other in others:
                total = total + other[name].double()
            found[name] = (total / len(weights)).to(value.dtype)
        else:
            found[name] = value.clone()
    return found


def has_batch_norm(checkpoint: Checkpoint) -> bool:
    """Return whether the model keeps batch statistics, which averaging does not get right."""
    return any(name.endswith(_STATISTICS) for name in checkpoint.weights)


def with_statistics(checkpoint: Checkpoint, pixels: PixelSource, rows: np.ndarray, device: str) -> dict[str, Tensor]:
    """Return the weights of a checkpoint with batch statistics of these images, without augmentation.

    The statistics of averaged weights are not the average of statistics: the activations of the averaged model differ.

    Parameters
    ----------
    rows : (n,) rows of `pixels`; training images of the fold.
    """
    model, channels_last = checkpoint.build_on(device)
    architecture = checkpoint.architecture
    refresh_statistics(
        model,
        pixels,
        rows,
        architecture.mean,
        architecture.std,
        device=device,
        channels_last=channels_last,
        size=(architecture.height, architecture.width),
    )
    return _with_buffers(checkpoint, model)


def refresh_statistics(
    model: torch.nn.Module,
    pixels: PixelSource,
    rows: np.ndarray,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    device: str,
    amp: str = "off",
    channels_last: bool = False,
    size: tuple[int, int] | None = None,
) -> None:
    """Give a model the batch statistics of these images, without augmentation; everything else works as in prediction.

    Parameters
    ----------
    rows : (n,) rows of `pixels`.
    size : (height, width) of the center of the images that the model gets; None for the whole images.
    """
    import torch

    kinds = torch.nn.modules.batchnorm._BatchNorm
    layers = [module for module in model.modules() if isinstance(module, kinds) and module.track_running_stats]
    if not layers:
        return
    model.eval()
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the mean of all batches
        layer.train()
    if len(rows) > 1 and len(rows) % BATCH == 1:  # one image has no variance
        rows = rows[:-1]
    predict_logits(model, pixels, rows, mean, std, device=device, amp=amp, channels_last=channels_last, size=size)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()


def _with_buffers(checkpoint: Checkpoint, model: torch.nn.Module) -> dict[str, Tensor]:
    """Return the weights of the checkpoint with the batch statistics of the model."""
    state = model.state_dict()
    found = {}
    for name, value in checkpoint.weights.items():
        # A model with several heads is wrapped, so its names have a prefix.
        new = state.get(name, state.get(f"model.{name}"))
        assert new is not None  # noqa: S101 - the model was built from these weights
        found[name] = new.detach().to("cpu").contiguous() if name.endswith(_STATISTICS) else value
    return found
