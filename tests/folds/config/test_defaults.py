"""Settings for fine-tuning follow the family and the size of a model, and say so."""

from __future__ import annotations

from pathlib import Path

import pytest

from folds.config.defaults import FAMILIES, OTHER, Model, family_of, former_defaults
from folds.config.recipe import Recipe


@pytest.mark.parametrize(
    ("timm_name", "title"),
    [
        ("swin_tiny_patch4_window7_224.ms_in22k_ft_in1k", "a Swin"),
        ("swinv2_base_window8_256", "a Swin"),
        ("convnextv2_nano", "a ConvNeXt"),
        ("convnext_base.clip_laion2b_augreg", "a ConvNeXt"),
        ("vit_small_patch16_224", "a vision transformer"),
        ("deit3_small_patch16_224", "a vision transformer"),
        ("vit_base_patch14_dinov2.lvd142m", "a self-supervised or image-text model"),
        ("vit_base_patch16_clip_224.openai", "a self-supervised or image-text model"),
        ("vit_base_patch16_siglip_224", "a self-supervised or image-text model"),
        ("vit_so400m_patch14_siglip_384.webli", "a self-supervised or image-text model"),
        ("beitv2_base_patch16_224", "a self-supervised or image-text model"),
        ("eva02_large_patch14_448", "a self-supervised or image-text model"),
        ("maxvit_tiny_tf_224", "another transformer"),
        ("resnet50.a1_in1k", "a convolutional network"),
        ("tf_efficientnetv2_s", "a convolutional network"),
        ("seresnextaa101d_32x8d", "a convolutional network"),
        ("mobilenetv4_conv_small", "a convolutional network"),
        ("starnet_s1", "a model"),
    ],
)
def test_the_family_follows_from_the_timm_id(timm_name: str, title: str) -> None:
    assert family_of(timm_name).title == title


@pytest.mark.parametrize("family", [*FAMILIES, OTHER], ids=lambda family: family.title)
def test_every_size_has_defaults_and_larger_models_lower_rates(family: object) -> None:
    sizes = family.sizes  # type: ignore[attr-defined]
    assert [size.most for size in sizes] == sorted(size.most for size in sizes)
    assert sizes[-1].most == float("inf")
    assert [size.rate for size in sizes] == sorted((size.rate for size in sizes), reverse=True)
    assert all(1e-5 <= size.rate <= 1e-3 and 0.5 < size.layer_decay <= 1 for size in sizes)


SWIN, VIT_LARGE, RESNET = (
    Model("swin_tiny_patch4_window7_224", 27_500_000),
    Model("vit_large_patch16_224", 303_000_000),
    Model("resnet18", 11_200_000),
)


@pytest.mark.parametrize(
    ("recipe", "model", "lr", "layer_decay", "reason"),
    [
        (Recipe(pretrained=True), SWIN, 1e-4, 0.9, "1e-4 for a Swin of 28 M parameters from pretrained weights"),
        (
            Recipe(init=Path("w.pt"), batch_size=64),
            SWIN,
            1.41e-4,
            0.9,
            "1e-4 for a Swin of 28 M parameters from pretrained weights, ×1.41 for batches of 64",
        ),
        (
            Recipe(pretrained=True),
            VIT_LARGE,
            2e-5,
            0.85,
            "2e-5 for a vision transformer of 303 M parameters from pretrained weights",
        ),
        (Recipe(pretrained=False), SWIN, 1e-3, 1.0, "from random weights"),
        (Recipe(pretrained=True, layer_decay=1.0, lr=1e-2), SWIN, 1e-2, 1.0, "as asked"),
    ],
)
def test_rate_and_layer_decay_follow_family_size_and_batch(
    recipe: Recipe, model: Model, lr: float, layer_decay: float, reason: str
) -> None:
    completed, why = recipe.completed({}, model)
    assert (completed.lr, completed.layer_decay, why) == (pytest.approx(lr), layer_decay, reason)


def test_rates_of_other_optimizers_are_relative_to_adamw() -> None:
    rates = {opt: Recipe(pretrained=True, opt=opt).completed({}, RESNET)[0].lr for opt in ("adamw", "sgd", "lion")}
    assert rates["sgd"] == pytest.approx(50 * rates["adamw"])
    assert rates["lion"] == pytest.approx(0.2 * rates["adamw"])


def test_a_given_setting_is_never_replaced() -> None:
    given = Recipe(pretrained=True, lr=3e-3, layer_decay=0.6, ema=0.5, batch_size=16)
    completed, _ = given.completed({}, SWIN)
    assert (completed.lr, completed.layer_decay, completed.ema, completed.batch_size) == (3e-3, 0.6, 0.5, 16)


def test_former_defaults_are_those_of_version_1() -> None:
    assert former_defaults(True, "adamw", {}) == {"lr": 2e-4, "layer_decay": 1.0, "ema": 0.0}
    assert former_defaults(False, "sgd", {"lr": 7e-4})["lr"] == 1e-3 * 50
    assert former_defaults(False, "adamw", {"lr": 7e-4})["lr"] == 7e-4
