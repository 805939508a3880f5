"""Build an optimizer by name, and freeze the body of a model for the first epochs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from folds.errors import UsageError, unknown_name
from folds.optim.weight_decay import default_weight_decay
from folds.utils.schema import BOOL, NUMBER, either, list_of, shown

# The names that messages list; any other optimizer of timm is accepted as well.
COMMON = ("adamw", "adam", "sgd", "lion")
# A fused optimizer reads the memory once instead of a dozen times, which saves a fifth of a step of ResNet18 on a CPU.
# On a GPU it does not wait for the overflow check of fp16.
_FUSED = {"adam", "adamw"}  # fused SGD fails if some weights are frozen at first
_OPTION = either(NUMBER, BOOL, list_of(NUMBER))
# Options that have a setting of their own, or that users may not set.
_NOT_OPTIONS = {"lr", "weight_decay", "params", "foreach", "fused", "capturable", "differentiable", "maximize"}


def optimizers() -> list[str]:
    """Return the names that `build_optimizer` accepts.

    They are those of timm, without optimizers that need other packages or a second backward pass.
    """
    from timm.optim import list_optimizers

    return [
        name for name in map(str, list_optimizers()) if not name.startswith(("bnb", "fused")) and name != "adahessian"
    ]


def build_optimizer(
    model: torch.nn.Module,
    name: str,
    weight_decay: float | None,
    layer_decay: float,
    options: Mapping[str, Any],
    head_lr: float = 1.0,
) -> torch.optim.Optimizer:
    """Return an optimizer with a learning rate of 1, which the schedule multiplies.

    Weight decay does not apply to biases and to the parameters of normalization layers.

    Parameters
    ----------
    weight_decay : None for the default of the optimizer.
    layer_decay : factor of the learning rate from each block to the block before it (Clark et al., 2020, ELECTRA); 1
        for equal rates.
    options : options of the optimizer, e.g. ``{"momentum": 0.9}``, ``{"betas": [0.9, 0.99]}``.
    head_lr : factor of the learning rate of the head.

    Raises
    ------
    UsageError : an unknown optimizer (the message suggests the closest names), or options that it does not have.
    """
    from timm.optim import create_optimizer_v2

    weight_decay = default_weight_decay(name) if weight_decay is None else weight_decay
    known = optimizers()
    if name not in known:
        raise unknown_name("`opt`", name, known, hint=f"{', '.join(COMMON)}, or another optimizer of timm")
    for key, value in options.items():
        if key in _NOT_OPTIONS or not _OPTION.holds(value):
            problem = (
                "has a setting of its own or cannot be set"
                if key in _NOT_OPTIONS
                else f"must be a number, true, false or a list of numbers, found {shown(value)}"
            )
            raise UsageError(f"opt_args: {key} {problem}", hint="opt_args = {momentum = 0.9}, or {betas = [0.9, 0.99]}")
    given: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    if name in _FUSED:
        given["fused"] = True
    if layer_decay != 1:
        given["layer_decay"] = layer_decay
    try:
        optimizer = create_optimizer_v2(model, opt=name, lr=1.0, weight_decay=weight_decay, **given)
        if head_lr != 1:
            _scale_head(optimizer, model, head_lr)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"`opt={name}` cannot be built with {dict(options)}: {reason}",
            hint="opt_args takes the arguments of the optimizer",
        ) from None
    ignored = [key for key in options if key not in optimizer.defaults]  # timm drops unknown options of some optimizers
    if ignored:
        raise unknown_name(
            f"opt_args of {name}", ignored[0], [key for key in optimizer.defaults if key not in _NOT_OPTIONS]
        )
    return optimizer


def _scale_head(optimizer: torch.optim.Optimizer, model: torch.nn.Module, factor: float) -> None:
    """Give the parameters of the head groups of their own, whose ``lr_scale`` is multiplied by `factor`."""
    in_head = {id(parameter) for head in heads_of(model) for parameter in head.parameters()}
    for group in list(optimizer.param_groups):
        inside = [id(parameter) in in_head for parameter in group["params"]]
        lists: list[str] = [key for key in ("params", "param_names") if key in group]
        head = {key: [one for one, own in zip(group[key], inside, strict=True) if own] for key in lists}
        rest = {key: [one for one, own in zip(group[key], inside, strict=True) if not own] for key in lists}
        group.update(rest)
        if head["params"]:
            scale = group.get("lr_scale", 1.0) * factor
            optimizer.add_param_group({**group, **head, "lr_scale": scale})
    optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]


def heads_of(model: torch.nn.Module) -> tuple[torch.nn.Module, ...]:
    """Return the classifiers of a timm model; usually one."""
    heads = model.get_classifier()  # type: ignore[operator]
    return tuple(heads) if isinstance(heads, tuple | list) else (heads,)


class Freezer:
    """The parameters and batch statistics of a model without its head, which can be frozen for the first epochs.

    Parameters
    ----------
    model : a timm model; its `get_classifier` returns the head.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        heads = heads_of(model)
        self.of_head = {id(module) for head in heads for module in head.modules()}
        in_head = {id(parameter) for head in heads for parameter in head.parameters()}
        self.model = model
        self.parameters = [
            parameter for parameter in model.parameters() if parameter.requires_grad and id(parameter) not in in_head
        ]

    def set(self, frozen: bool) -> None:
        """Freeze or unfreeze the body; called at the start of every epoch, after ``model.train()``."""
        for parameter in self.parameters:
            parameter.requires_grad_(not frozen)
        if frozen:  # batch statistics and dropout of frozen layers work as in prediction
            for module in self.model.modules():
                if id(module) not in self.of_head and module is not self.model:
                    module.training = False
