"""A cosine head: its logits are scaled cosines, and it is built again wherever the model is."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from folds.errors import UsageError
from folds.models.cosine_head import CosineHead, with_cosine_head
from folds.models.factory import Architecture, create_model
from folds.models.fusion import fused
from folds.models.head_spec import cosine_scale
from folds.models.model_names import resolve


def test_logits_are_scaled_cosines_by_hand() -> None:
    head = CosineHead(2, 3, 30.0)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 5.0], [-1.0, -1.0]]))
    found = head(torch.tensor([[3.0, 4.0]]))
    torch.testing.assert_close(found, torch.tensor([[30 * 0.6, 30 * 0.8, 30 * -1.4 / 2**0.5]]))
    torch.testing.assert_close(head(torch.tensor([[300.0, 400.0]])), found)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet"])
def test_a_model_gets_a_cosine_head_where_its_classifier_was(name: str) -> None:
    model = create_model(resolve(name, (32, 32), head="cosine:16"), 5)
    assert isinstance(model.get_classifier(), CosineHead)
    logits = model.eval()(torch.randn(4, 3, 32, 32))
    assert logits.shape == (4, 5)
    assert logits.abs().max() <= 16 * (1 + 1e-5)


def test_half_precision_does_not_reach_the_head() -> None:
    model = create_model(resolve("test_vit", (32, 32), head="cosine"), 5).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert model(torch.randn(2, 3, 32, 32)).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_rebuilt_for_inference_keeps_its_head(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model, images = create_model(resolve("test_resnet", (32, 32), head="cosine"), 5).eval(), torch.randn(4, 3, 32, 32)
    rebuilt, steps = fused(model, dtype, images)
    assert "batch norms folded" in steps
    with torch.inference_mode():
        assert (rebuilt(images) - model(images)).abs().max() < (1e-4 if dtype == torch.float32 else 0.3)


def test_the_graph_of_an_exporter_has_no_context() -> None:
    model = create_model(resolve("test_vit", (32, 32), head="cosine"), 5).eval()
    nodes = torch.export.export(model, (torch.randn(2, 3, 32, 32),)).graph.nodes
    assert not any("autocast" in str(node.target) for node in nodes)


def test_records_of_linear_heads_are_as_before() -> None:
    plain, cosine = resolve("test_vit", (32, 32)), resolve("test_vit", (32, 32), head="cosine")
    assert "head" not in plain.to_dict()
    assert cosine.to_dict()["head"] == "cosine:30"
    assert Architecture(**plain.to_dict()) == plain
    assert cosine.describe().endswith(", cosine:30 head, 32×32 px")


def test_a_head_is_loaded_only_into_one_of_its_kind(tmp_path: Path) -> None:
    linear, cosine = resolve("test_vit", (32, 32)), resolve("test_vit", (32, 32), head="cosine")
    for architecture in (linear, cosine):
        torch.manual_seed(0)
        source = create_model(architecture, 5)
        torch.save(source.state_dict(), tmp_path / "w.pt")
        torch.manual_seed(1)
        for other in (linear, cosine):
            found = create_model(other, 5, init=tmp_path / "w.pt", load_head=True)
            same = torch.equal(found.get_classifier().weight, source.get_classifier().weight)
            assert same == (other is architecture)
            assert torch.equal(found.patch_embed.proj.weight, source.patch_embed.proj.weight)


@pytest.mark.parametrize("text", ["cosine:", "cosine:0", "cosine:x", "cosine:nan", "round", ""])
def test_an_unknown_head_is_wrong_usage(text: str) -> None:
    with pytest.raises(UsageError, match="expected linear, cosine or cosine:SCALE"):
        cosine_scale(text)


def test_a_model_without_a_linear_classifier_is_refused() -> None:
    model = timm.create_model("test_resnet", num_classes=0)
    with pytest.raises(UsageError, match="needs a model whose classifier is one linear layer"):
        with_cosine_head(model, 30.0, "test_resnet")
