"""Heads of several layers in the place of the classifier."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from folds.models.factory import create_model, resolve


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
@pytest.mark.parametrize("head", ["mlp:8", "attention:8:2"])
def test_a_model_can_start_from_one_with_a_head_of_layers(name: str, head: str, tmp_path: Path) -> None:
    source = create_model(resolve(name, (32, 32), head=head), 5).state_dict()
    torch.save(source, tmp_path / "w.pt")
    linear = create_model(resolve(name, (32, 32)), 5).state_dict()
    found = create_model(resolve(name, (32, 32)), 5, init=tmp_path / "w.pt", load_head=True).state_dict()
    body = source.keys() & linear.keys()
    assert all(torch.equal(found[one], source[one]) for one in body)
    assert len(linear.keys() - body) == 2  # weight and bias of the new classifier
