"""Heads of ordered classes: probabilities by their definitions, and the same model wherever it is built."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor

from folds.errors import UsageError
from folds.models.factory import Architecture, create_model
from folds.models.fusion import fused
from folds.models.head_spec import check_head, head_of
from folds.models.model_names import resolve
from folds.models.ordinal_head import (
    LINKS,
    OrdinalHead,
    corn_log_probabilities,
    cumulative_log_probabilities,
    with_ordinal_head,
)

BOTH = ["corn", "cumulative"]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def corn_by_hand(outputs: list[float]) -> list[float]:
    """P(grade > j) = Π of the conditional probabilities; a grade is a difference of two of them."""
    above = [1.0]
    for one in outputs:
        above.append(above[-1] * sigmoid(one))
    return [high - low for high, low in zip(above, [*above[1:], 0.0], strict=True)]


def cumulative_by_hand(outputs: list[float]) -> list[float]:
    """P(grade > j) = σ(u_j), with thresholds in order."""
    u, above = outputs[0], [1.0, sigmoid(outputs[0])]
    for one in outputs[1:]:
        u -= math.log1p(math.exp(one))
        above.append(sigmoid(u))
    return [high - low for high, low in zip(above, [*above[1:], 0.0], strict=True)]


@pytest.mark.parametrize(
    ("function", "by_hand"),
    [(corn_log_probabilities, corn_by_hand), (cumulative_log_probabilities, cumulative_by_hand)],
)
def test_probabilities_are_those_of_the_definition(function: object, by_hand: object) -> None:
    outputs = torch.randn(20, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2
    expected = torch.tensor([by_hand(row) for row in outputs.tolist()], dtype=torch.float64)  # type: ignore[operator]
    torch.testing.assert_close(function(outputs).exp(), expected)  # type: ignore[operator]


@pytest.mark.parametrize("link", BOTH)
@pytest.mark.parametrize("classes", [2, 3, 9])
def test_any_outputs_give_finite_logarithms_of_probabilities_that_sum_to_one(link: str, classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    for scale in (0.1, 5.0, 80.0):
        outputs = (torch.randn(50, classes - 1, generator=generator) * scale).requires_grad_()
        logs = LINKS[link](outputs)
        assert logs.shape == (50, classes)
        assert logs.isfinite().all()
        torch.testing.assert_close(logs.exp().sum(1), torch.ones(50))
        (gradient,) = torch.autograd.grad(logs.sum(), outputs)
        assert gradient.isfinite().all()


@pytest.mark.parametrize("link", BOTH)
def test_gradients_are_those_of_differences(link: str) -> None:
    outputs = torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(LINKS[link], (outputs,))


def test_thresholds_are_in_order_whatever_the_outputs() -> None:
    outputs = torch.randn(200, 6, generator=torch.Generator().manual_seed(2)) * 10
    above = cumulative_log_probabilities(outputs).exp().flip(1).cumsum(1).flip(1)
    assert (above.diff(dim=1) <= 1e-6).all()


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_a_model_gets_the_head_where_its_classifier_was(name: str) -> None:
    model = create_model(resolve(name, (32, 32), head="corn"), 5)
    head = model.get_classifier()
    assert isinstance(head, OrdinalHead)
    assert head.weight.shape[0] == 4
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits: Tensor = model.eval()(torch.randn(4, 3, 32, 32))
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits.exp().sum(1), torch.ones(4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_rebuilt_for_inference_keeps_its_head(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model, images = (
        create_model(resolve("test_resnet", (32, 32), head="cumulative"), 5).eval(),
        torch.randn(4, 3, 32, 32),
    )
    rebuilt, steps = fused(model, dtype, images)
    assert "batch norms folded" in steps
    with torch.inference_mode():
        assert (rebuilt(images) - model(images)).abs().max() < (1e-4 if dtype == torch.float32 else 0.1)


def test_the_record_names_the_head_and_a_head_is_loaded_only_into_one_of_its_shape(tmp_path: Path) -> None:
    linear, corn = resolve("test_vit", (32, 32)), resolve("test_vit", (32, 32), head="corn")
    assert corn.to_dict()["head"] == "corn"
    assert Architecture(**corn.to_dict()) == corn
    source = create_model(corn, 5)
    torch.save(source.state_dict(), tmp_path / "w.pt")
    again = create_model(corn, 5, init=tmp_path / "w.pt", load_head=True)
    other = create_model(linear, 5, init=tmp_path / "w.pt", load_head=True)
    assert torch.equal(again.get_classifier().weight, source.get_classifier().weight)
    assert other.get_classifier().weight.shape == (5, source.get_classifier().in_features)
    assert torch.equal(other.patch_embed.proj.weight, source.patch_embed.proj.weight)


def test_names_of_heads() -> None:
    check_head("corn")
    assert head_of("cumulative", features=None) == "cumulative"
    with pytest.raises(UsageError, match="a corn head belongs to a model that is trained"):
        head_of("corn", features=True)
    with pytest.raises(UsageError, match="needs a model whose classifier is one linear layer"):
        with_ordinal_head(timm.create_model("test_resnet", num_classes=0), "corn", "test_resnet")
