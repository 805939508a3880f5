"""Weights whose names have one prefix in common are those of the model inside."""

import logging
from pathlib import Path

import pytest
import torch

from folds.errors import EnsembleError
from folds.models.factory import create_model, resolve


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(1)
    architecture = resolve("test_vit", (32, 32), arguments={"depth": 1})
    return architecture, create_model(architecture, 2).state_dict()


@pytest.mark.parametrize(
    ("prefix", "others"),
    [
        ("model.", {"criterion.weight": torch.ones(2)}),
        ("_orig_mod.", {}),
        ("net._orig_mod.", {}),
        ("backbone.", {"head.fc.weight": torch.ones(2, 3), "head.fc.bias": torch.ones(2)}),
    ],
)
def test_a_common_prefix_is_removed_and_named(trained, prefix, others, tmp_path, caplog):
    architecture, weights = trained
    torch.save(
        {"state_dict": {f"{prefix}{name}": value for name, value in weights.items()} | others}, tmp_path / "w.pt"
    )
    with caplog.at_level(logging.INFO, "folds.models.factory"):
        model = create_model(architecture, 3, init=tmp_path / "w.pt").state_dict()
    assert torch.equal(model["blocks.0.attn.qkv.weight"], weights["blocks.0.attn.qkv.weight"])
    assert f"the prefix '{prefix}' of {len(weights):,} names was removed" in caplog.text
    assert ("other weights are not used" in caplog.text) == bool(others)


def test_a_prefix_with_names_of_another_model_is_an_error(trained, tmp_path):
    architecture, weights = trained
    some = {f"backbone.{name}": value for name, value in weights.items() if "norm" in name}
    torch.save(some, tmp_path / "w.pt")
    with pytest.raises(EnsembleError, match=r"without the prefix .backbone\.., \d+ of"):
        create_model(architecture, 2, init=Path(tmp_path / "w.pt"))


def test_plain_names_stay_as_they_are(trained, tmp_path, caplog):
    architecture, weights = trained
    torch.save(weights, tmp_path / "w.pt")
    with caplog.at_level(logging.INFO, "folds.models.factory"):
        create_model(architecture, 2, init=tmp_path / "w.pt")
    assert "prefix" not in caplog.text
