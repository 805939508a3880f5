"""Heads of several layers in the place of the classifier."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from folds.features.column_heads import in_unit_of_table
from folds.models.factory import create_model
from folds.models.heads import GatedAttentionHead, build_head, z_scores
from folds.models.model_names import resolve
from folds.models.number_head import Units


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
@pytest.mark.parametrize("head", ["mlp:8", "attention:8:2", "attention-person:8", "relative"])
def test_a_model_can_start_from_one_with_a_head_of_layers(name: str, head: str, tmp_path: Path) -> None:
    source = create_model(resolve(name, (32, 32), head=head), 5).state_dict()
    torch.save(source, tmp_path / "w.pt")
    linear = create_model(resolve(name, (32, 32)), 5).state_dict()
    found = create_model(resolve(name, (32, 32)), 5, init=tmp_path / "w.pt", load_head=True).state_dict()
    body = source.keys() & linear.keys()
    assert all(torch.equal(found[one], source[one]) for one in body)
    assert len(linear.keys() - body) == 2  # weight and bias of the new classifier


def test_z_scores_are_within_the_person() -> None:
    torch.manual_seed(0)
    features, persons = torch.randn(6, 4), torch.tensor([7, 1, 7, 3, 1, 7])
    features[[1, 4], 2] = 0.3  # does not vary
    found = z_scores(features, persons)
    own = features[persons == 7]
    expected = (own - own.mean(0)) / own.std(0, correction=0)
    assert torch.allclose(found[persons == 7], expected, atol=1e-5)
    assert not found[3].any()
    assert not found[[1, 4], 2].any()
    scaled = z_scores(features * 3 + 1, persons)
    assert torch.allclose(scaled, found, atol=1e-4)


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


@pytest.mark.parametrize("kind", ["attention:8:2", "attention-person:8", "relative"])
def test_without_persons_all_images_are_of_one(kind: str) -> None:
    torch.manual_seed(0)
    head = build_head(kind, 5, 3).eval()
    for count in (1, 2, 6):
        features = torch.randn(count, 5)
        features[:, 2] = 0.3  # does not vary
        with torch.inference_mode():
            found, expected = head(features), head(features, torch.full((count,), 4))
        assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["linear", "mlp:4", "attention:8:2", "attention-person:8", "relative"])
def test_numbers_of_a_head_come_in_the_unit_of_the_table(kind: str) -> None:
    torch.manual_seed(0)
    head = build_head(kind, 5, 2).eval()
    features, units = torch.randn(4, 5), Units(np.array([30, -2], np.float32), np.array([12, 0.5], np.float32))
    with torch.inference_mode():
        expected = units.restore(head(features).numpy())
        np.testing.assert_allclose(in_unit_of_table(head, units)(features).numpy(), expected, rtol=1e-5)
