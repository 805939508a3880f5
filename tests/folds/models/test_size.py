"""The parameters of a model are counted without its weights; layer decay works on the families that have it."""

from __future__ import annotations

import pytest
import torch

from folds.config.defaults import family_of
from folds.models.factory import create_model
from folds.models.model_names import resolve
from folds.models.size import count_parameters
from folds.optim.optimizers import build_optimizer


def test_the_count_is_that_of_the_model() -> None:
    architecture = resolve("test_vit", (32, 32))
    assert count_parameters(architecture, 5) == sum(one.numel() for one in create_model(architecture, 5).parameters())


@pytest.mark.parametrize("name", ["test_vit", "beit", "eva02_tiny_patch14_224", "deit", "swin", "convnext_atto"])
def test_layer_decay_of_a_family_reaches_its_first_block(name: str) -> None:
    architecture = resolve(name)
    with torch.device("meta"):
        model = create_model(architecture, 2)
    decay = family_of(architecture.timm_name).size(10_000_000).layer_decay
    groups = build_optimizer(model, "adamw", None, decay, {}).param_groups
    scales = sorted({round(group["lr_scale"], 6) for group in groups})
    assert decay < 1
    assert scales[-1] == 1
    assert scales[-2] == pytest.approx(decay)
    assert 0.005 < scales[0] < 0.5
