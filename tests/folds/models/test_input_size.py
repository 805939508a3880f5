"""Models are built for other image sizes, or refused with sizes that work."""

from __future__ import annotations

import pytest
import torch

from folds.errors import UsageError
from folds.models.factory import create_model
from folds.models.input_size import accepts, flexible
from folds.models.model_names import resolve

TINY_SWIN = {"embed_dim": 16, "depths": (1, 1), "num_heads": (2, 4), "window_size": 4}
TINY_VIT = {"depth": 1, "embed_dim": 32, "num_heads": 2}


@pytest.mark.parametrize(
    ("name", "size", "arguments"),
    [
        ("crossvit_tiny_240", (192, 192), {}),  # it scales images to its own size
        ("efficientformer_l1", (200, 200), {"img_size": (200, 200)}),  # as many patches as at 224
        ("test_vit", (40, 50), {"dynamic_img_size": True, "dynamic_img_pad": True}),  # no multiple of its patches
        ("test_vit", (32, 32), {"img_size": (32, 32)}),
        ("halonet26t", (512, 512), {}),
    ],
)
def test_a_model_is_built_for_the_size_in_the_way_that_works(
    name: str, size: tuple[int, int], arguments: dict[str, object]
) -> None:
    found = resolve(name, size)
    assert (found.height, found.width) == size
    assert found.arguments == arguments
    assert accepts(found, size)


def test_a_size_that_is_no_multiple_of_the_patches_is_padded() -> None:
    with torch.no_grad():
        assert create_model(resolve("test_vit", (40, 50)), 3).eval()(torch.zeros(1, 3, 40, 50)).shape == (1, 3)


@pytest.mark.parametrize(
    ("name", "side", "hint"),
    [
        ("efficientformer_l1", 256, "`img_size=224` (its own)"),
        ("halonet26t", 224, "`img_size=256` (its own)"),
        ("vgg11", 16, "`img_size=224` (its own), `img_size=32`, `img_size=56`"),
    ],
)
def test_the_error_for_an_impossible_size_names_sizes_that_work(name: str, side: int, hint: str) -> None:
    with pytest.raises(UsageError, match=f"architecture {name} does not accept {side}×{side} px") as error:
        resolve(name, (side, side))
    assert (error.value.hint or "").startswith(hint)


def test_the_error_names_models_of_the_family_for_other_sizes() -> None:
    with pytest.raises(UsageError) as error:
        resolve("halonet26t", (224, 224))
    assert "other models of the family: haloregnetz_b (224×224)" in (error.value.hint or "")


@pytest.mark.parametrize(
    ("name", "arguments", "way"),
    [
        ("test_resnet", {}, {}),
        ("vit_tiny_patch16_224", TINY_VIT, {"dynamic_img_size": True}),
        ("swin", TINY_SWIN, {"dynamic_img_size": True}),
    ],
)
def test_a_model_for_several_sizes_has_the_weights_and_the_numbers_of_the_plain_one(
    name: str, arguments: dict[str, object], way: dict[str, object]
) -> None:
    plain = resolve(name, (64, 64), arguments=arguments)
    several = flexible(plain, [(32, 32), (64, 64)])
    assert several.arguments == {**plain.arguments, **way}
    one, other = create_model(plain, 3).eval(), create_model(several, 3).eval()
    other.load_state_dict(one.state_dict())
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(one(images), other(images))
        assert other(images[:, :, :32, :32]).shape == (2, 3)


def test_a_model_with_weights_for_one_size_is_refused_for_several() -> None:
    with pytest.raises(UsageError, match="does not accept 128×128 px with the same weights"):
        flexible(resolve("efficientformer_l1"), [(128, 128), (224, 224)])


def test_other_channels_are_refused() -> None:
    with pytest.raises(UsageError, match="'in_chans' cannot be set: images have 3 channels"):
        resolve("test_resnet", arguments={"in_chans": 1})
