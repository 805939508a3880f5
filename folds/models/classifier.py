"""Replace the linear classifier of a timm model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from folds.errors import UsageError


def replace_classifier(
    model: torch.nn.Module, make: Callable[[int, int], torch.nn.Module], asked: str, timm_name: str, hint: str
) -> torch.nn.Module:
    """Replace the linear classifier of a timm model by another layer; return the model.

    Parameters
    ----------
    make : (features, classes) → the layer.
    asked : the setting that needs it, for the message.

    Raises
    ------
    UsageError : the classifier of this model is not one linear layer.
    """
    found: Any = model.get_classifier()  # type: ignore[operator]
    name = next((name for name, module in model.named_modules() if module is found), "")
    if not name or type(found) is not torch.nn.Linear:
        raise UsageError(
            f"`{asked}` needs a model whose classifier is one linear layer, and that of {timm_name} is "
            f"{type(found).__name__}",
            hint=hint,
        )
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, make(found.in_features, found.out_features))
    return model
