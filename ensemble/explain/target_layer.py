"""Find the target layer of a model, whose features a heat map is made of, by a pass through the model itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Literal

import torch
from torch import Tensor, nn

from folds.errors import EnsembleError
from folds.models.heads import JoinedBackbones
from folds.models.multi_head import MultiHeadModel

WORKS = (
    "heat maps work for CNNs (resnet, efficientnet, convnext, …), ViT and its kin, Swin and other hierarchical models"
)
_MIN_CELLS = 16  # a grid of fewer hardly says where; then an earlier stage of a CNN is taken
_TRIED = 40  # places of a model that are tried, the last ones first
_AROUND = 0.01  # share of the difference between two images that may reach the outputs around a place
_MAX_PREFIX = 8  # class, distillation and register tokens, where a model does not say how many it has
Layout = Literal["nchw", "nhwc", "tokens"]


@dataclass(frozen=True)
class TargetLayer:
    """A module whose output lies on a grid over the image.

    Attributes
    ----------
    name : of the module in the model, ``layer4``.
    layout : ``nchw``, ``nhwc``, or ``tokens``: (n, prefix + rows × columns, channels).
    rows, columns : cells of the grid.
    prefix : tokens before those of the grid.
    shift : pixels (down, right) by which the cells lie before the middles of equal shares of the image. A convolution
        with stride 2 and padding 1 keeps every second pixel from the first on, so the cells of a ResNet lie half a cell
        further to the top left than a map that is stretched over the image says; TensorFlow's padding does the reverse.
    """

    name: str
    layout: Layout
    rows: int
    columns: int
    prefix: int = 0
    shift: tuple[int, int] = (0, 0)

    def features(self, output: Tensor) -> Tensor:
        """Return a float32 copy (n, channels, rows, columns) of an output of the module, without the prefix tokens."""
        if self.layout == "tokens":
            output = output[:, self.prefix :].unflatten(1, (self.rows, self.columns))
        moved = output if self.layout == "nchw" else output.permute(0, 3, 1, 2)
        return moved.float().clone()  # a later layer may change the output in place


def inner_model(model: nn.Module) -> nn.Module:
    """Return the model itself without the wrapper that joins its heads."""
    return model.model if isinstance(model, MultiHeadModel) else model


def find_target_layer(model: nn.Module, images: Tensor, name: str) -> TargetLayer:
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
    sizes = _grids([(one.module, one.before, one.after) for one in seen], (images.shape[-2], images.shape[-1]))
    calls: dict[str, int] = {}
    for one in seen:
        calls[one.name] = calls.get(one.name, 0) + 1
    once = [one for one in seen if calls[one.name] == 1]
    places = _places(once, network, images, score, exact=True)
    final = places[-1] if places else None
    grids = [grid for grid, _ in groupby((one.rows, one.columns) for one in places if one.layout == "tokens")]
    # In turn, not one after the other: the map of one of them would hide what the others see.
    if final is not None and final.layout == "tokens" and len(grids) > len(set(grids)):
        listed = " and ".join(f"{rows} × {columns}" for rows, columns in dict.fromkeys(grids))
        raise EnsembleError(
            f"{name} reads its class from features on several grids at once ({listed}), which one map does not show",
            hint=WORKS,
        )
    small = final is None or final.rows * final.columns < _MIN_CELLS
    # Where the final features of a CNN are too coarse, those of an earlier stage are taken.
    if small and (final is None or final.layout == "nchw"):
        others = _places(once, network, images, score, exact=False)
        fine = [one for one in others if one.rows * one.columns >= _MIN_CELLS]
        final = _last_that_carries_all(model, network, fine, images) or final
        final = final or _last_that_carries_all(model, network, others, images)
    if final is None:
        raise EnsembleError(f"no module of {name} has features on a grid that the class depends on", hint=WORKS)
    return replace(final, shift=_shift(final, sizes, images))


@dataclass(frozen=True)
class _Seen:
    """An output of a module, and the heights and widths of its input and output."""

    name: str
    module: nn.Module
    output: Tensor
    before: tuple[int, ...]
    after: tuple[int, ...]


def _places(
    seen: Sequence[_Seen], network: nn.Module, images: Tensor, score: Tensor, *, exact: bool
) -> list[TargetLayer]:
    """Return the places on which the score depends, in the order in which they end."""
    found = []
    for one in seen:
        place = _place(one, network, images, exact)
        if place is not None:
            found.append((place, one.output))
    if not found:
        return []
    gradients = torch.autograd.grad(score, [output for _, output in found], retain_graph=True, allow_unused=True)
    return [
        place
        for (place, _), gradient in zip(found, gradients, strict=True)
        if gradient is not None and bool(place.features(gradient).any())
    ]


def _last_that_carries_all(
    model: nn.Module, network: nn.Module, places: Sequence[TargetLayer], images: Tensor
) -> TargetLayer | None:
    """Return the last place through which alone the outputs depend on the image; None if a branch leads around each.

    Another image is predicted with the features of the images, and must then have their outputs.
    """
    other = -images
    for place in places[: -_TRIED - 1 : -1]:
        kept: list[Tensor] = []

        def keep(module: nn.Module, inputs: object, output: Tensor, kept: list[Tensor] = kept) -> Tensor:
            kept.append(output.clone())  # a later layer may change the output in place
            return kept[0].clone()

        hook = network.get_submodule(place.name).register_forward_hook(keep)
        with torch.no_grad():
            own, mixed = model(images).float(), model(other).float()
            hook.remove()
            if bool((mixed - own).norm() <= _AROUND * (model(other).float() - own).norm()):
                return place
    return None


def _outputs(model: nn.Module, network: nn.Module, images: Tensor) -> tuple[list[_Seen], Tensor]:
    """Return the outputs of all modules but linear layers, in the order in which they end, and the predicted score.

    Linear layers are projections to queries, keys and values, not features of the image.
    """
    seen: list[_Seen] = []

    def keep(name: str, module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            before = tuple(inputs[0].shape[2:]) if inputs and isinstance(inputs[0], Tensor) else ()
            seen.append(_Seen(name, module, output, before, tuple(output.shape[2:])))

    modules = [(name, one) for name, one in network.named_modules() if name and not isinstance(one, nn.Linear)]
    hooks = [one.register_forward_hook(partial(keep, name)) for name, one in modules]
    try:
        with torch.enable_grad():
            logits = model(images.detach().clone().requires_grad_().mul(1.0))
            return seen, logits.float().max(dim=1).values.sum()
    finally:
        for hook in hooks:
            hook.remove()


Grid = tuple[int, ...]


def _grids(steps: Sequence[tuple[nn.Module, Grid, Grid]], size: Grid) -> dict[Grid, list[tuple[float, float]]]:
    """Return rows and columns of a grid → for both axes, the pixel of the first cell and the pixels between cells.

    Followed are convolutions and pools; a grid that comes about in another way is not listed.
    """
    known: dict[Grid, list[tuple[float, float]]] = {tuple(size): [(0.0, 1.0), (0.0, 1.0)]}
    for module, before, after in steps:
        if not isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d) or after in known or before not in known:
            continue
        axes = []
        for axis, (first, step) in enumerate(known[before]):
            kernel, stride, padding, dilation = (
                _of_axis(getattr(module, name, 1), axis) for name in ("kernel_size", "stride", "padding", "dilation")
            )
            needed = (after[axis] - 1) * stride + dilation * (kernel - 1) + 1 - before[axis]
            left = padding if needed <= 2 * padding else needed // 2  # TensorFlow's padding depends on the size
            axes.append((first + (dilation * (kernel - 1) / 2 - left) * step, step * stride))
        known[after] = axes
    return known


def _of_axis(value: int | str | Sequence[int], axis: int) -> int:
    if isinstance(value, str):
        return 0
    return int(value if isinstance(value, int) else value[axis])


def _shift(place: TargetLayer, sizes: Mapping[Grid, list[tuple[float, float]]], images: Tensor) -> tuple[int, int]:
    """Return the pixels between the cells and the middles of equal shares of the image; 0 if that is not known."""
    axes = sizes.get((place.rows, place.columns))
    if axes is None:
        return 0, 0
    shares = images.shape[-2] / place.rows, images.shape[-1] / place.columns
    down, right = ((share - 1) / 2 - first for share, (first, _) in zip(shares, axes, strict=True))
    return round(down), round(right)


def _place(one: _Seen, network: nn.Module, images: Tensor, exact: bool) -> TargetLayer | None:
    """Return where and how features lie in an output; None if it holds none.

    Parameters
    ----------
    exact : whether the channels must be those of the final features; otherwise any convolutional map is taken.
    """
    name, height, width = one.name, images.shape[-2], images.shape[-1]
    if isinstance(one.module, nn.Dropout | nn.Softmax):  # may be those of attention between tokens
        return None
    channels, shape = getattr(network, "num_features", None), tuple(one.output.shape)
    if len(shape) == 3 and exact and shape[2] == channels:
        if shape[0] != len(images):  # of windows, one after the other
            return None
        return _token_place(name, shape[1], network, height, width)
    if len(shape) != 4:
        return None
    is_last = shape[3] == channels and (shape[1] != channels or getattr(network, "output_fmt", "") == "NHWC")
    if exact and channels not in (shape[1], shape[3]):
        return None
    layout: Layout = "nhwc" if exact and is_last else "nchw"
    rows, columns = shape[1:3] if layout == "nhwc" else shape[2:4]
    on_grid = rows * columns > 1 and rows <= height and columns <= width
    # The shares of a side agree but for rounding.
    alike = abs(rows * width - columns * height) < max(height, width)
    return TargetLayer(name, layout, rows, columns) if on_grid and alike else None


def _token_place(name: str, tokens: int, network: nn.Module, height: int, width: int) -> TargetLayer | None:
    stated = getattr(network, "num_prefix_tokens", None)
    for prefix in (stated,) if isinstance(stated, int) else range(_MAX_PREFIX + 1):
        cells = tokens - prefix
        rows = round((cells * height / width) ** 0.5) if cells > 1 else 0
        if rows and cells % rows == 0 and abs(rows * width - (cells // rows) * height) < max(height, width):
            return TargetLayer(name, "tokens", rows, cells // rows, prefix)
    return None
