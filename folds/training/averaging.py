"""Average the weights at the ends of the last epochs (stochastic weight averaging, Izmailov et al., 2018)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from folds.models.soup import refresh_statistics
from folds.training.context import FoldContext


def added(total: Mapping[str, Tensor] | None, model: torch.nn.Module) -> dict[str, Tensor]:
    """Return the sum of the weights of a model and of `total`, in float32; counters are those of the model.

    Parameters
    ----------
    total : a sum that this function returned; None to begin.
    """
    found = {}
    for name, value in model.state_dict().items():
        now = value.detach().float() if value.is_floating_point() else value.detach()
        before = None if total is None or not value.is_floating_point() else total[name].to(value.device)
        found[name] = now.clone() if before is None else before + now
    return found


def load_average(context: FoldContext, model: torch.nn.Module, total: Mapping[str, Tensor]) -> None:
    """Load the mean of the weights of the last epochs into a model, with batch statistics of its own.

    The statistics are those of the images of an epoch, without augmentation, as in prediction: the activations of the
    averaged model are not the average of activations.

    Parameters
    ----------
    total : sum of the weights of `average_last` epochs.
    """
    epochs = context.recipe.average_last
    state = model.state_dict()
    mean = {name: total[name].to(value.device) for name, value in state.items()}
    model.load_state_dict(
        {
            name: (mean[name] / epochs).to(value.dtype) if value.is_floating_point() else mean[name]
            for name, value in state.items()
        }
    )
    architecture = context.architecture
    refresh_statistics(
        model,
        context.pixels,
        context.epochs.rows(0),
        architecture.mean,
        architecture.std,
        device=context.device,
        amp=context.amp,
        channels_last=context.channels_last,
        size=context.size,
    )
    if context.group is not None:  # processes may choose other kernels, and predict with one model
        context.group.of_first([value.detach() for value in model.state_dict().values()])
