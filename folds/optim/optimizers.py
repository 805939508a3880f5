"""Build the optimizer by name, decide which parameters it moves, and when frozen ones thaw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from folds.errors import UsageError, unknown_name
from folds.utils.schema import BOOL, NUMBER, either, list_of

# The names people say first; any other of timm's is taken as well.
COMMON = ("adamw", "adam", "sgd", "lion")
# One pass over the memory instead of a dozen: a fifth of a step of ResNet18 on a CPU; on a GPU no wait for fp16's
# check.
_FUSED = {"adam", "adamw"}  # of SGD it fails where some weights begin to learn later than others
_OPTION = either(NUMBER, BOOL, list_of(NUMBER))
# What is set by keys of its own, or is not for the user to set.
_NOT_OPTIONS = {"lr", "weight_decay", "params", "foreach", "fused", "capturable", "differentiable", "maximize"}


def optimizers() -> list[str]:
    """Return the names that `build_optimizer` takes: timm's, without those that need other packages or a second
    backward pass.
    """
    from timm.optim import list_optimizers

    return [
        name for name in map(str, list_optimizers()) if not name.startswith(("bnb", "fused")) and name != "adahessian"
    ]


def build_optimizer(
    model: torch.nn.Module, name: str, weight_decay: float, layer_decay: float, options: Mapping[str, Any]
) -> torch.optim.Optimizer:
    """Return an optimizer with a learning rate of 1, which the schedule multiplies; biases and norms do not decay.

    Parameters
    ----------
    layer_decay : factor of the learning rate from each block to the one before it (Clark et al., 2020, ELECTRA); 1:
        none.
    options : of the optimizer, e.g. ``{"momentum": 0.9}``, ``{"betas": [0.9, 0.99]}``.

    Raises
    ------
    UsageError : an unknown optimizer (the nearest are offered), or options it does not have.
    """
    from timm.optim import create_optimizer_v2

    known = optimizers()
    if name not in known:
        raise unknown_name("--opt", name, known, hint=f"{', '.join(COMMON)}, or another of timm's")
    for key, value in options.items():
        if key in _NOT_OPTIONS or not _OPTION.holds(value):
            own = (
                "has a key of its own, or is not to be set"
                if key in _NOT_OPTIONS
                else f"is {value!r}, expected a number, true, false or numbers"
            )
            raise UsageError(f"opt_args: {key} {own}", hint="opt_args = {momentum = 0.9}, or {betas = [0.9, 0.99]}")
    given: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    if name in _FUSED:
        given["fused"] = True
    if layer_decay != 1:
        given["layer_decay"] = layer_decay
    try:
        optimizer = create_optimizer_v2(model, opt=name, lr=1.0, weight_decay=weight_decay, **given)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"--opt {name} cannot be made with {dict(options)}: {reason}",
            hint="opt_args takes what the optimizer itself takes",
        ) from None
    ignored = [key for key in options if key not in optimizer.defaults]  # timm drops what some optimizers do not know
    if ignored:
        raise unknown_name(
            f"opt_args of {name}", ignored[0], [key for key in optimizer.defaults if key not in _NOT_OPTIONS]
        )
    return optimizer


class Freezer:
    """The parameters and statistics of a model without its head, held still for the first epochs.

    Parameters
    ----------
    model : of timm, whose `get_classifier` names the head.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        heads = model.get_classifier()  # type: ignore[operator]
        heads = heads if isinstance(heads, tuple | list) else (heads,)
        self.of_head = {id(module) for head in heads for module in head.modules()}
        mine = {id(parameter) for head in heads for parameter in head.parameters()}
        self.model = model
        self.parameters = [
            parameter for parameter in model.parameters() if parameter.requires_grad and id(parameter) not in mine
        ]

    def set(self, frozen: bool) -> None:
        """Hold still or let go; called at the start of every epoch, after ``model.train()``."""
        for parameter in self.parameters:
            parameter.requires_grad_(not frozen)
        if frozen:  # batch statistics and dropout of what does not learn: as when predicting
            for module in self.model.modules():
                if id(module) not in self.of_head and module is not self.model:
                    module.training = False
