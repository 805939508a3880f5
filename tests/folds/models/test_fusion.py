"""A model that is rebuilt for inference computes the same."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from folds.models.fusion import fused

MODELS = ("test_resnet", "test_vit", "test_efficientnet", "test_convnext", "regnetx_002", "mobilenetv3_small_050")


def with_statistics(model: nn.Module) -> nn.Module:
    """Give batch norms statistics and weights as a training leaves them: far from 0 and 1."""
    generator = torch.Generator().manual_seed(0)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            for value, low, high in ((part.running_mean, -0.2, 0.2), (part.running_var, 0.5, 2.0)):
                value.uniform_(low, high, generator=generator)
            part.weight.data.uniform_(0.5, 1.5, generator=generator)
            part.bias.data.uniform_(-0.2, 0.2, generator=generator)
    return model.eval()


@pytest.mark.parametrize("name", MODELS)
def test_the_rebuilt_model_computes_the_same(name: str) -> None:
    torch.manual_seed(0)
    size = 160 if name == "test_vit" else 64
    model = with_statistics(timm.create_model(name, num_classes=4))
    images = torch.randn(3, 3, size, size)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    rebuilt, steps = fused(model, sample=images[:1])
    with torch.inference_mode():
        expected = model(images)
        for some in (images, images[:1]):
            torch.testing.assert_close(rebuilt(some), expected[: len(some)], rtol=1e-4, atol=1e-5)
    assert steps != "nothing to fuse"
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_all_batch_norms_of_a_resnet_are_folded() -> None:
    model = with_statistics(timm.create_model("test_resnet", num_classes=4))
    norms = sum(isinstance(part, nn.BatchNorm2d) for part in model.modules())
    rebuilt, steps = fused(model)
    assert f"{norms} of {norms} batch norms folded" in steps
    assert not any(isinstance(part, nn.BatchNorm2d) for part in rebuilt.modules())


def test_bf16_is_near_and_its_output_is_float32() -> None:
    torch.manual_seed(0)
    model = with_statistics(timm.create_model("test_resnet", num_classes=4))
    images = torch.randn(2, 3, 64, 64)
    rebuilt, _ = fused(model, torch.bfloat16)
    with torch.inference_mode():
        found, expected = rebuilt(images), model(images)
    assert found.dtype is torch.float32
    difference = (found - expected).abs().max()
    assert 0 < difference < 0.1


class _Shared(nn.Module):
    """A convolution whose output is used by two modules, a batch norm used twice, and control flow if asked."""

    def __init__(self, branches: bool) -> None:
        super().__init__()
        self.convolution, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)
        self.branches = branches

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raw = self.convolution(images)
        if self.branches and images.sum() > 0:  # it cannot be traced
            raw = raw * 2
        return self.head((torch.relu(self.norm(raw)) + raw + self.norm(raw)).mean((2, 3)))


@pytest.mark.parametrize("branches", [False, True])
def test_what_cannot_be_folded_is_left_as_it_is(branches: bool) -> None:
    torch.manual_seed(0)
    model = with_statistics(_Shared(branches))
    rebuilt, steps = fused(model)
    images = torch.randn(2, 3, 8, 8)
    with torch.inference_mode():
        torch.testing.assert_close(rebuilt(images), model(images), rtol=1e-4, atol=1e-5)
    assert "batch norms" not in steps


class _Reads(nn.Module):
    """A module that reads the weights of a linear layer, as the attention of BEiT does."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(192, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(images.flatten(1), self.inner.weight, self.inner.bias)


def test_layers_whose_weights_others_read_are_not_packed() -> None:
    torch.manual_seed(0)
    model, images = _Reads().eval(), torch.randn(2, 3, 8, 8)
    rebuilt, _ = fused(model, sample=images)
    with torch.inference_mode():
        torch.testing.assert_close(rebuilt(images), model(images), rtol=1e-4, atol=1e-5)
