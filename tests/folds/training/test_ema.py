from __future__ import annotations

import timm
import torch
from timm.utils import ModelEmaV3

from folds.training.ema import MovingAverage


def trained_step(model: torch.nn.Module, step: int) -> None:
    torch.manual_seed(step)
    model.train()(torch.randn(4, 3, 32, 32))  # changes the batch statistics and their counter
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn_like(value), alpha=0.1)


def test_the_average_has_the_bytes_of_timms() -> None:
    model = timm.create_model("test_resnet", num_classes=3)
    ours, theirs = MovingAverage(model, 0.6), ModelEmaV3(model, decay=0.6, use_warmup=True)
    for step in range(6):
        trained_step(model, step)
        ours.update(step)
        theirs.update(model, step=step)
        expected = theirs.module.state_dict()
        assert ours.module.state_dict().keys() == expected.keys()
        assert all(torch.equal(value, expected[name]) for name, value in ours.module.state_dict().items())
        assert ours.decay(step) == theirs.get_decay(step)
    assert not torch.equal(next(ours.module.parameters()), next(model.parameters()))
    assert not ours.module.training


def test_a_buffer_that_a_model_replaces_is_followed() -> None:
    class Counting(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))
            self.register_buffer("scratch", torch.zeros(2), persistent=False)

        def forward(self) -> None:
            self.calls = self.calls + 1

    model = Counting()
    average = MovingAverage(model, 0.5)
    model()
    average.update(0)
    assert average.module.calls == 1
    assert list(average.module.state_dict()) == ["calls"]
