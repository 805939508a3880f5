"""Heads of several layers in the place of the classifier."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from folds.models.factory import create_model, resolve
from folds.models.heads import GatedAttentionHead, build_head


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
@pytest.mark.parametrize("head", ["mlp:8", "attention:8:2", "attention-person:8"])
def test_a_model_can_start_from_one_with_a_head_of_layers(name: str, head: str, tmp_path: Path) -> None:
    source = create_model(resolve(name, (32, 32), head=head), 5).state_dict()
    torch.save(source, tmp_path / "w.pt")
    linear = create_model(resolve(name, (32, 32)), 5).state_dict()
    found = create_model(resolve(name, (32, 32)), 5, init=tmp_path / "w.pt", load_head=True).state_dict()
    body = source.keys() & linear.keys()
    assert all(torch.equal(found[one], source[one]) for one in body)
    assert len(linear.keys() - body) == 2  # weight and bias of the new classifier


def test_gated_attention_gives_each_person_one_prediction() -> None:
    torch.manual_seed(0)
    head = build_head("attention-person:8", 5, 3).eval()
    assert isinstance(head, GatedAttentionHead)
    features, persons = torch.randn(7, 5), torch.tensor([4, 2, 4, 9, 2, 4, 2])
    with torch.inference_mode():
        found = head(features, persons)
        for person in (2, 4, 9):
            own = torch.relu(head.inputs(features[persons == person]))
            scores = head.score(torch.tanh(head.value(own)) * torch.sigmoid(head.gate(own)))
            expected = head.output((torch.softmax(scores, 0) * own).sum(0))
            assert torch.allclose(
                found[persons == person], expected.expand(int((persons == person).sum()), -1), atol=1e-6
            )
        order = torch.tensor([6, 2, 0, 5, 3, 1, 4])
        assert torch.allclose(head(features[order], persons[order]), found[order], atol=1e-6)
        assert torch.allclose(head(features[:1]), head(features[:1], persons[:1]))
