"""Find the place in a model whose features a heat map is made of, by a pass through the model itself."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from folds.errors import EnsembleError
from folds.models.heads import JoinedBackbones
from folds.models.multi_head import MultiHeadModel

WORKS = (
    "heat maps work for CNNs (resnet, efficientnet, convnext, …), ViT and its kin, Swin and other hierarchical models"
)
_MAX_PREFIX = 8  # class, distillation and register tokens, where a model does not say how many it has
Layout = Literal["nchw", "nhwc", "tokens"]


@dataclass(frozen=True)
class Place:
    """A module whose output lies on a grid over the image.

    Attributes
    ----------
    name : of the module in the model, ``layer4``.
    layout : ``nchw``, ``nhwc``, or ``tokens``: (n, prefix + rows × columns, channels).
    rows, columns : cells of the grid.
    prefix : tokens before those of the grid.
    """

    name: str
    layout: Layout
    rows: int
    columns: int
    prefix: int = 0

    def features(self, output: Tensor) -> Tensor:
        """Return a float32 copy (n, channels, rows, columns) of an output of the module, without the prefix tokens."""
        if self.layout == "tokens":
            output = output[:, self.prefix :].unflatten(1, (self.rows, self.columns))
        moved = output if self.layout == "nchw" else output.permute(0, 3, 1, 2)
        return moved.float().clone()  # a later layer may change the output in place


def inner_model(model: nn.Module) -> nn.Module:
    """Return the model itself without the wrapper that joins its heads."""
    return model.model if isinstance(model, MultiHeadModel) else model


def find_place(model: nn.Module, images: Tensor, name: str) -> Place:
    """Return the last module with spatial features that the class depends on.

    All modules are watched while the model predicts. Candidates are outputs on a grid with the channels that timm
    states for the final features. Of these the last one counts through which the score of the predicted class depends
    on the grid: behind the last attention, the image tokens of a model with a class token change nothing.

    Parameters
    ----------
    model : in evaluation mode, on the device of `images`.
    images : float32 (n, 3, height, width), normalized; one is enough.
    name : of the architecture, for errors.

    Raises
    ------
    EnsembleError : there is no such module.
    """
    network = inner_model(model)
    if isinstance(network, JoinedBackbones):
        raise EnsembleError(f"{name} joins several backbones, which have no common features on a grid", hint=WORKS)
    seen, score = _outputs(model, network, images)
    calls: dict[str, int] = {}
    for module, _ in seen:
        calls[module] = calls.get(module, 0) + 1
    once = [(module, output) for module, output in seen if calls[module] == 1]
    for exact in (True, False):  # where the final features have one cell, those of an earlier stage are taken
        found = [
            (place, output) for module, output in once if (place := _place(module, output, network, images, exact))
        ]
        if not found:
            continue
        gradients = torch.autograd.grad(score, [output for _, output in found], retain_graph=True, allow_unused=True)
        for (place, _), gradient in reversed(list(zip(found, gradients, strict=True))):
            if gradient is not None and bool(place.features(gradient).any()):
                return place
    raise EnsembleError(f"no module of {name} has features on a grid that the class depends on", hint=WORKS)


def _outputs(model: nn.Module, network: nn.Module, images: Tensor) -> tuple[list[tuple[str, Tensor]], Tensor]:
    """Return the outputs of all modules but linear layers, in the order in which they end, and the predicted score.

    Linear layers are projections to queries, keys and values, not features of the image.
    """
    seen: list[tuple[str, Tensor]] = []

    def keep(name: str, module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            seen.append((name, output))

    modules = [(name, one) for name, one in network.named_modules() if name and not isinstance(one, nn.Linear)]
    hooks = [one.register_forward_hook(partial(keep, name)) for name, one in modules]
    try:
        with torch.enable_grad():
            logits = model(images.detach().clone().requires_grad_().mul(1.0))
            return seen, logits.float().max(dim=1).values.sum()
    finally:
        for hook in hooks:
            hook.remove()


def _place(name: str, output: Tensor, network: nn.Module, images: Tensor, exact: bool) -> Place | None:
    """Return where and how features lie in an output; None if it holds none.

    Parameters
    ----------
    exact : whether the channels must be those of the final features; otherwise any convolutional map is taken.
    """
    height, width = images.shape[-2:]
    channels, shape = getattr(network, "num_features", None), tuple(output.shape)
    if len(shape) == 3 and exact and shape[2] == channels:
        return _token_place(name, shape[1], network, height, width)
    if len(shape) != 4:
        return None
    is_last = shape[3] == channels and (shape[1] != channels or getattr(network, "output_fmt", "") == "NHWC")
    if exact and channels not in (shape[1], shape[3]):
        return None
    layout: Layout = "nhwc" if exact and is_last else "nchw"
    rows, columns = shape[1:3] if layout == "nhwc" else shape[2:4]
    on_grid = 1 < rows * columns and rows <= height and columns <= width
    # The shares of a side agree but for rounding; the attention of heads between tokens does not come as such a map.
    alike = abs(rows * width - columns * height) < max(height, width)
    return Place(name, layout, rows, columns) if on_grid and alike else None


def _token_place(name: str, tokens: int, network: nn.Module, height: int, width: int) -> Place | None:
    stated = getattr(network, "num_prefix_tokens", None)
    for prefix in (stated,) if isinstance(stated, int) else range(_MAX_PREFIX + 1):
        cells = tokens - prefix
        rows = round((cells * height / width) ** 0.5) if cells > 1 else 0
        if rows and cells % rows == 0 and abs(rows * width - (cells // rows) * height) < max(height, width):
            return Place(name, "tokens", rows, cells // rows, prefix)
    return None
