"""Find how a model is built for images of a size, by trying it on torch's meta device: no weights, no memory."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from folds.errors import UsageError

if TYPE_CHECKING:
    import torch

    from folds.models.architecture import Architecture

Size = tuple[int, int]  # height and width in pixels

# Ways to build one model for several sizes without new weights, the simplest first. Embeddings of positions are
# interpolated in every pass (vision transformers); the masks of windows are made in every pass (Swin).
_FLEXIBLE: tuple[dict[str, Any], ...] = (
    {},
    {"dynamic_img_size": True},
    {"strict_img_size": False},
    {"dynamic_img_size": True, "dynamic_img_pad": True},
)
_STEPS = (8, 14, 16, 28, 32, 56, 64, 112, 128, 256)  # sides of models are multiples of one of these
_TRIED = 8  # sizes, for the message of an error
_NAMED = 2
_SIBLINGS = 3
_OUTPUTS = 2
_MOST_NUMBERS = 2**34  # of a model, none of which is stored


def built_for_size(architecture: Architecture, native: Size, *, fixed: bool) -> Architecture:
    """Return the architecture with the argument that its model needs for the size, or unchanged if it needs none.

    What was built so far is tried first, so that a model that can be built keeps its arguments: with `img_size` if the
    size is fixed by the model, without it otherwise.

    Parameters
    ----------
    native : (height, width) of the model itself, in pixels.
    fixed : whether timm says that the model is for one size.

    Raises
    ------
    UsageError : the model works at its own size and not at this one; sizes that work are named.
    """
    size = architecture.height, architecture.width
    own = {name: value for name, value in architecture.arguments.items() if name != "img_size"}
    ways = [{"img_size": size}, {}] if fixed else [{}, {"img_size": size}]
    for way in [*ways, *_FLEXIBLE[1:]]:
        candidate = replace(architecture, arguments=own | way)
        if _reason(candidate, (size,)) is None:
            return candidate
    at_home = replace(architecture, height=native[0], width=native[1], arguments=own)
    if _reason(at_home, (native,)) is not None:  # nothing is learned here: the model itself says why it is not built
        return architecture
    reason = _reason(replace(architecture, arguments=own | ways[0]), (size,)) or ""
    raise UsageError(
        f"architecture {architecture.name} does not accept {_shown(size)} px{_because(reason)}",
        hint=_hint(architecture, own, native, fixed=fixed),
    )


def flexible(architecture: Architecture, sizes: Sequence[Size]) -> Architecture:
    """Return the architecture as its model is built for a training at several sizes, with the same weights.

    Parameters
    ----------
    sizes : (height, width) of all stages, in pixels.

    Raises
    ------
    UsageError : the weights of the model are for one size.
    """
    arguments = dict(architecture.arguments)
    weights = _shapes(architecture)
    for way in _FLEXIBLE:
        candidate = replace(architecture, arguments=arguments | way)
        if _reason(candidate, tuple(sizes)) is None and _shapes(candidate) == weights:
            return candidate
    for size in sizes:
        reasons = [_reason(replace(architecture, arguments=arguments | way), (size,)) for way in _FLEXIBLE]
        if None not in reasons:
            break
    raise UsageError(
        f"`progressive_resizing`: {architecture.name}, built for {_shown((architecture.height, architecture.width))} "
        f"px, does not accept {_shown(size)} px with the same weights{_because(reasons[0] or '')}",
        hint="another size (a multiple of 32, often), or two runs: `init_run=RUN` takes the weights of a run at a "
        "smaller `img_size`",
    )


def accepts(architecture: Architecture, size: Size) -> bool:
    """Return whether a model with the arguments of `architecture` reads images of a size."""
    return _reason(architecture, (size,)) is None


def _reason(architecture: Architecture, sizes: tuple[Size, ...]) -> str | None:
    """Return why a model cannot be built, or cannot read images of one of the sizes; None if it can."""
    return _tried(_key(architecture), sizes)[0]


def _shapes(architecture: Architecture) -> Mapping[str, tuple[int, ...]]:
    """Return the shapes of the weights of a model; {} if it cannot be built."""
    return _tried(_key(architecture), ())[1]


def _key(architecture: Architecture) -> tuple[str, tuple[tuple[str, Any], ...]]:
    arguments = tuple((name, _hashable(value)) for name, value in architecture.arguments.items())
    return architecture.timm_name, arguments


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value


@lru_cache(maxsize=64)
def _tried(
    key: tuple[str, tuple[tuple[str, Any], ...]], sizes: tuple[Size, ...]
) -> tuple[str | None, Mapping[str, tuple[int, ...]]]:
    """Return why a model does not read images of these sizes (None: it does), and the shapes of its weights."""
    import timm
    import torch

    from folds.models.build_limit import BuildLimit

    timm_name, arguments = key
    try:
        with torch.device("meta"), torch.no_grad():
            with BuildLimit(_MOST_NUMBERS):
                # The name and the arguments were checked by `factory.resolve`, which is above this module.
                model = timm.create_model(timm_name, num_classes=_OUTPUTS, **dict(arguments)).eval()
            for height, width in sizes:
                _forward(model, height, width)
    except Exception as error:  # of any of timm's hundreds of models
        return " ".join(str(error).split()) or type(error).__name__, {}
    return None, {weight: tuple(value.shape) for weight, value in model.state_dict().items()}


def _forward(model: torch.nn.Module, height: int, width: int) -> None:
    import torch

    found = model(torch.zeros(2, 3, height, width, device="meta"))
    if getattr(found, "shape", None) != (2, _OUTPUTS):
        raise ValueError(f"expected {_OUTPUTS} numbers for each image")


def _hint(architecture: Architecture, own: Mapping[str, Any], native: Size, *, fixed: bool) -> str:
    """Return sizes that work: the model's own, near ones, and other models of the family at theirs."""
    named = [f"`img_size={_given(native)}` (its own)"]
    for size in _near((architecture.height, architecture.width)):
        arguments = {**own, "img_size": size} if fixed else dict(own)
        if size != native and accepts(replace(architecture, arguments=arguments), size):
            named.append(f"`img_size={_given(size)}`")
        if len(named) > _NAMED:
            break
    siblings = _siblings(architecture, native)
    return ", ".join(named) + (f"; other models of the family: {', '.join(siblings)}" if siblings else "")


def _near(size: Size) -> Iterator[Size]:
    """Yield sizes that models often accept, the nearest ones first."""
    found = {
        ((size[0] + more) // step * step, (size[1] + more) // step * step) for step in _STEPS for more in (0, step - 1)
    }
    by_distance = sorted(found - {size}, key=lambda one: (abs(one[0] - size[0]) + abs(one[1] - size[1]), one))
    yield from [one for one in by_distance if min(one) > 0][:_TRIED]


def _siblings(architecture: Architecture, native: Size) -> list[str]:
    """Return models of the same file of timm whose own size is another one, the nearest ones first, in words."""
    import timm

    base = architecture.timm_name.partition(".")[0]
    module = timm.models._registry._model_to_module.get(base)
    if module is None:
        return []
    found: list[tuple[int, float, str, Size]] = []
    wished = architecture.height + architecture.width
    for name in timm.list_models(module=module):
        config = timm.get_pretrained_cfg(name)
        size = (config.input_size[1], config.input_size[2]) if config else native
        if size != native:
            unlike = 1 - difflib.SequenceMatcher(None, base, name).ratio()
            found.append((abs(sum(size) - wished), unlike, name, size))
    return [f"{name} ({_shown(size)})" for _, _, name, size in sorted(found)[:_SIBLINGS]]


def _because(reason: str) -> str:
    return f": {reason[:200]}" if reason else ""


def _shown(size: Size) -> str:
    """Return ``224×224``, width first, as in all messages."""
    return f"{size[1]}×{size[0]}"


def _given(size: Size) -> str:
    """Return a size as `img_size` takes it: ``224``, or HEIGHTxWIDTH."""
    return str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"
