"""Count the kernels that a GPU would start for some operations, without a GPU; used by a test and a benchmark."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

_FREE = frozenset(
    (
        *("view", "_unsafe_view", "expand", "permute", "slice", "select", "unbind", "empty", "empty_strided"),
        *("detach", "transpose", "alias", "split", "split_with_sizes", "unsqueeze", "device"),
    )
)


class Kernels(TorchDispatchMode):
    """Counts the operations that start a kernel on a GPU: name → how often, in `found`."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        if name not in _FREE:
            self.found[name] += 1
        return function(*args, **(kwargs or {}))


def on_gpu(values: Any, mode: FakeTensorMode) -> Any:
    """The same structure on a GPU, without values."""
    if isinstance(values, torch.Tensor):
        return mode.from_tensor(values).to("cuda")
    return type(values)(*(on_gpu(value, mode) for value in values)) if isinstance(values, tuple) else values
