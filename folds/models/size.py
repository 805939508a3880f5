"""Count the parameters of a model without its weights."""

from __future__ import annotations

from folds.models.factory import Architecture, create_model


def count_parameters(architecture: Architecture, outputs: int = 2) -> int:
    """Return the number of parameters of a model with a head of `outputs` classes.

    Nothing is downloaded and no memory is used for the weights: the model is built on torch's meta device.

    Raises
    ------
    UsageError : the model cannot be built.
    """
    import torch

    with torch.device("meta"):
        model = create_model(architecture, outputs)
    return sum(parameter.numel() for parameter in model.parameters())
