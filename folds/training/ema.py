"""Keep an exponential moving average of the weights of a model (EMA)."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from folds.optim.ema import DEFAULT_POWER, ema_decay


class MovingAverage:
    """A copy of a model whose weights and buffers follow those of the model.

    The bytes are those of timm's ModelEmaV3 with `use_warmup`. The tensors are found once instead of by two walks over
    all modules at every step, and tensors of one kind are updated together, which saves the host some milliseconds a
    step.

    Parameters
    ----------
    model : the model, on its device; its parameters must stay the same tensors.
    decay : share of the average that a step keeps, after the warm-up.
    power : of the warm-up: step `n` keeps at most 1 − n^(−power); 0: no warm-up.
    """

    def __init__(self, model: torch.nn.Module, decay: float, power: float = DEFAULT_POWER) -> None:
        self.module = deepcopy(model).eval()
        self.max_decay, self.power = decay, power
        self._followed, self._average = _slots(model), _slots(self.module)
        kinds = [value.dtype for value in _tensors(self._average)]
        self._floating = [i for i, kind in enumerate(kinds) if kind.is_floating_point]
        # Counters are copied; one kernel copies tensors of one dtype only.
        self._copied = [
            [i for i, kind in enumerate(kinds) if kind == one]
            for one in sorted({kind for kind in kinds if not kind.is_floating_point}, key=str)
        ]

    def decay(self, step: int) -> float:
        """Return the share that a step (from 0) keeps; at first 0, so that the initial weights are forgotten."""
        return ema_decay(step, self.max_decay, self.power)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Follow the model after step `step`, counted from 0 over all epochs."""
        average, followed = _tensors(self._average), _tensors(self._followed)
        torch._foreach_lerp_(
            [average[i] for i in self._floating], [followed[i] for i in self._floating], 1.0 - self.decay(step)
        )
        for group in self._copied:
            torch._foreach_copy_([average[i] for i in group], [followed[i] for i in group])


_Slot = tuple[dict[str, Any], str]


def _slots(model: torch.nn.Module) -> list[_Slot]:
    """Return where the tensors of the state dict are, in its order.

    A module may replace a buffer by another tensor, so the places are kept, not the tensors.
    """
    slots: list[_Slot] = []
    # A module that stands in two places counts twice, as it does in a state dict.
    for _, module in model.named_modules(remove_duplicate=False):
        slots += [(module._parameters, name) for name, value in module._parameters.items() if value is not None]
        slots += [
            (module._buffers, name)
            for name, value in module._buffers.items()
            if value is not None and name not in module._non_persistent_buffers_set
        ]
    return slots


def _tensors(slots: list[_Slot]) -> list[Tensor]:
    return [values[name] for values, name in slots]
