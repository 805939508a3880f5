"""The decay of the moving average is what timm computes, and it is said when it stays below the one asked for."""

from __future__ import annotations

import pytest
import torch
from timm.utils import ModelEmaV3

from folds.optim.ema import ema_decay, ema_note


@pytest.mark.parametrize(("decay", "power"), [(0.9, None), (0.9999, None), (0.9999, 1.0), (0.99, 0.0)])
def test_the_decay_is_that_of_timm(decay: float, power: float | None) -> None:
    of_timm = ModelEmaV3(
        torch.nn.Linear(1, 1),
        decay=decay,
        use_warmup=power != 0,
        warmup_power=2 / 3 if power is None else power or 1.0,
    )
    for step in (0, 1, 2, 3, 100, 7500):
        assert ema_decay(step, decay, power) == pytest.approx(of_timm.get_decay(step), abs=1e-12)


def test_a_decay_that_is_not_reached_is_said_with_the_one_that_is() -> None:
    assert "the decay is 0.9974 after the 7,500 steps" in ema_note(7500, 0.9999)
    assert ema_note(7500, 0.997) == ""
    assert ema_note(7500, 0.9999, 0.0) == ""
    assert ema_note(200, 0.0) == ""
