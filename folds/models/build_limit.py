"""Limit what the construction of a model may allocate, because its arguments may come from a stranger."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only


class TooLargeError(ValueError):
    """The construction of a model needs more than its limit."""


class BuildLimit(TorchDispatchMode):
    """A limit on what the construction of a model may allocate, as a context: ``with BuildLimit(elements):``.

    A width, a depth or a window that is too large would need all memory, or all time. Every operation of torch is first
    asked for the size of its result.

    Parameters
    ----------
    elements : most numbers in all tensors that are created.
    calls : most operations.
    """

    def __init__(self, elements: int, calls: int = 50_000) -> None:
        super().__init__()
        self.elements, self.calls = elements, calls

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count an operation of torch, and run it if it stays within the limit."""
        kwargs = kwargs or {}
        self.calls -= _parts(func, args)
        if self.calls < 0:
            raise TooLargeError("it has too many parts")
        if not func._schema.is_mutable:
            self.elements -= _result_size(func, args, kwargs)
            if self.elements < 0:
                raise TooLargeError("it is too large")
        return func(*args, **kwargs)


# What was built in this process → the numbers and operations that it needed.
_needed: dict[Hashable, tuple[int, int]] = {}


@contextmanager
def limited(limit: BuildLimit, what: Hashable) -> Iterator[None]:
    """Limit the construction of `what`, as a context; what was built before needs as much again, so nothing is watched.

    Watching every operation costs half as much time again as the construction, and the models of all folds of a run
    are built alike.

    Parameters
    ----------
    what : name and arguments of the model, all that its size depends on.

    Raises
    ------
    TooLargeError : it needs more than the limit.
    """
    elements, calls = _needed.get(what, (limit.elements + 1, limit.calls + 1))
    if elements <= limit.elements and calls <= limit.calls:
        limit.elements, limit.calls = limit.elements - elements, limit.calls - calls
        yield
        return
    before = limit.elements, limit.calls
    with limit:
        yield
    _needed[what] = (before[0] - limit.elements, before[1] - limit.calls)


def _parts(func: Any, args: Any) -> int:
    """Return how many tensors an operation makes: iterating over a tensor makes one of each number."""
    if getattr(func, "_overloadpacket", None) is torch.ops.aten.unbind and args[0].dim():
        return int(args[0].shape[args[1] if len(args) > 1 else 0])
    return 1


def _result_size(func: Any, args: Any, kwargs: Any) -> int:
    """Return the numbers in the result of an operation, computed without the result; 0 if that is not possible."""
    if args and isinstance(args[0], list | tuple) and all(isinstance(size, int) for size in args[0]):
        return math.prod(args[0])  # empty, zeros, randn, full: a list of sizes
    if any(isinstance(one, torch.Tensor) and one.is_meta for one in args):
        return 0
    try:
        plain_args, plain_kwargs = tree_map_only(torch.Tensor, _shape_only, (args, dict(kwargs)))
        if not _tensors(args):
            plain_kwargs["device"] = "meta"
        made = func(*plain_args, **plain_kwargs)
    except Exception:  # its shape depends on values: the operation itself tells
        return 0
    return sum(one.numel() for one in _tensors(made))


def _shape_only(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [one for part in value for one in _tensors(part)] if isinstance(value, list | tuple) else []
