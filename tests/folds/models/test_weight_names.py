"""Weights whose names have one prefix in common are those of the model inside."""

import argparse
import logging
from pathlib import Path

import pytest
import torch

from folds.errors import EnsembleError
from folds.models.factory import create_model
from folds.models.model_names import resolve
from folds.models.weight_files import read_weights


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
    with caplog.at_level(logging.INFO, "folds.models.weight_files"):
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
    with caplog.at_level(logging.INFO, "folds.models.weight_files"):
        create_model(architecture, 2, init=tmp_path / "w.pt")
    assert "prefix" not in caplog.text


def test_a_checkpoint_of_timms_training_script_is_read(trained, tmp_path, caplog):
    """It holds its command line as an object, and averaged weights beside the last ones, which are preferred."""
    architecture, weights = trained
    content = {
        "epoch": 3,
        "arch": "test_vit",
        "args": argparse.Namespace(lr=0.1, model="test_vit", betas=[0.9, 0.99]),
        "state_dict": {name: torch.zeros_like(value) for name, value in weights.items()},
        "state_dict_ema": weights,
    }
    torch.save(content, tmp_path / "checkpoint-3.pth.tar")
    with caplog.at_level(logging.INFO, "folds.models.weight_files"):
        model = create_model(architecture, 3, init=tmp_path / "checkpoint-3.pth.tar").state_dict()
    assert torch.equal(model["blocks.0.attn.qkv.weight"], weights["blocks.0.attn.qkv.weight"])
    assert "under 'state_dict_ema' are used, not those under 'state_dict'" in caplog.text


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: {"teacher": {f"module.backbone.{k}": v for k, v in w.items()}, "student": {"x": torch.ones(1)}},
        lambda w: {"model_ema": {f"module.{k}": v for k, v in w.items()} | {"n_averaged": torch.tensor(5)}},
        lambda w: {"checkpoint": 1, "model": {"state_dict": {f"model._orig_mod.{k}": v for k, v in w.items()}}},
        lambda w: {"state_dict_ema": {}, "state_dict": w},
        lambda w: {"model": w, "ema": {"decay": 0.99, "updates": 5}},
        lambda w: {"model": {"x": torch.ones(1)}, "ema": {"module": w, "decay": 0.99}},
        lambda w: {"state_dict": {"x": torch.ones(1)}, "ema": {"shadow": w}},
    ],
)
def test_weights_are_found_where_training_programs_keep_them(trained, wrap, tmp_path):
    architecture, weights = trained
    torch.save(wrap(weights), tmp_path / "w.pt")
    model = create_model(architecture, 3, init=tmp_path / "w.pt").state_dict()
    assert torch.equal(model["blocks.0.attn.qkv.weight"], weights["blocks.0.attn.qkv.weight"])


class Command(argparse.Namespace):
    pass


def test_only_the_plain_object_of_a_command_line_is_accepted(trained, tmp_path):
    _, weights = trained
    torch.save({"state_dict": weights, "args": Command(lr=1)}, tmp_path / "w.pt")
    with pytest.raises(EnsembleError, match="holds no plain weights"):
        read_weights(tmp_path / "w.pt")
