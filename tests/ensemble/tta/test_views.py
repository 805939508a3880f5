from __future__ import annotations

import itertools

import numpy as np
import pytest
import timm
import torch

from ensemble.tta.views import View, deduplicate_views, parse_views, view_named
from folds.errors import UsageError
from folds.models.inference import PixelSource, predict_logits

EVERY = [
    "d4",
    "scale:0.7,1.3",
    "tencrop:0.8",
    "multiply:0.5,2",
    "add:-0.2,0.3",
    "contrast:0.5,2",
    "hshift:-0.1,0.1,vshift:0.2",
    "hflip*scale:1.2",
]


def chosen(text: str, size: tuple[int, int] = (24, 24)) -> tuple[View, ...]:
    return deduplicate_views(parse_views(text), size)


def names(text: str, size: tuple[int, int] = (24, 24)) -> list[str]:
    return [view.name for view in chosen(text, size)]


def test_the_plain_image_is_always_the_first_view() -> None:
    assert names("hflip") == ["none", "hflip"]
    assert names("none") == ["none"]
    assert names("none,hflip,none") == ["none", "hflip"]


def test_factors_multiply_and_terms_add() -> None:
    assert names("hflip*scale:0.9,1,1.1,vflip") == [
        "none",
        "scale:0.9",
        "scale:1.1",
        "hflip*scale:0.9",
        "hflip",
        "hflip*scale:1.1",
        "vflip",
    ]


def test_flips_and_rotations_give_eight_distinct_views() -> None:
    image = torch.rand(1, 3, 5, 5)
    expected = [torch.rot90(f, n, (2, 3)) for f, n in itertools.product((image, image.flip(3)), range(4))]
    seen = [view(image) for view in chosen("hflip*vflip*rot90")]
    assert len(seen) == 8
    for view in seen:
        assert sum(torch.equal(view, other) for other in expected) == 1


@pytest.mark.parametrize("text", EVERY)
@pytest.mark.parametrize("size", [(32, 32), (33, 48)])
def test_every_view_keeps_the_size_and_the_range_of_the_image(text: str, size: tuple[int, int]) -> None:
    image = torch.rand(2, 3, *size)
    for view in parse_views(text):
        seen = view(image)
        assert seen.shape == image.shape
        assert seen.min() >= 0
        assert seen.max() <= 1


def test_views_do_what_their_names_say() -> None:
    image = torch.rand(1, 3, 8, 8)
    by_name = {view.name: view(image) for view in parse_views("hflip,vflip,multiply:0.5,add:0.25,scale:2")}
    torch.testing.assert_close(by_name["hflip"], image.flip(3))
    torch.testing.assert_close(by_name["vflip"], image.flip(2))
    torch.testing.assert_close(by_name["multiply:0.5"], image * 0.5)
    torch.testing.assert_close(by_name["add:0.25"], (image + 0.25).clamp(0, 1))
    twice = torch.nn.functional.interpolate(image, scale_factor=2, mode="bilinear", align_corners=False)[
        :, :, 4:12, 4:12
    ]
    torch.testing.assert_close(by_name["scale:2"], twice)


def test_shifts_move_right_and_down_and_repeat_the_edge() -> None:
    image = torch.rand(1, 3, 10, 20)
    by_name = {view.name: view(image) for view in parse_views("hshift:0.1,-0.1,vshift:0.2")}
    torch.testing.assert_close(by_name["hshift:0.1"][..., 2:], image[..., :-2])
    torch.testing.assert_close(by_name["hshift:0.1"][..., :2], image[..., :1].expand(-1, -1, -1, 2))
    torch.testing.assert_close(by_name["hshift:-0.1"][..., :-2], image[..., 2:])
    torch.testing.assert_close(by_name["vshift:0.2"][..., 2:, :], image[..., :-2, :])


def test_contrast_keeps_the_mean_of_each_image() -> None:
    image = 0.25 + 0.5 * torch.rand(4, 3, 8, 8)
    half = {view.name: view for view in parse_views("contrast:0.5")}["contrast:0.5"](image)
    torch.testing.assert_close(half.mean((1, 2, 3)), image.mean((1, 2, 3)))
    torch.testing.assert_close(
        half.amax((1, 2, 3)) - half.amin((1, 2, 3)), (image.amax((1, 2, 3)) - image.amin((1, 2, 3))) / 2
    )


def test_tencrop_is_fivecrop_of_the_image_and_its_mirror() -> None:
    image = torch.rand(1, 3, 20, 20)
    five, ten = ({view.name: view(image) for view in parse_views(f"{name}:0.8")} for name in ("fivecrop", "tencrop"))
    assert len(ten) == 11
    for i in range(5):
        torch.testing.assert_close(ten[f"fivecrop:0.8-{i}"], five[f"fivecrop:0.8-{i}"])
    torch.testing.assert_close(ten["hflip*fivecrop:0.8-4"], five["fivecrop:0.8-4"].flip(3))


@pytest.mark.parametrize("text", EVERY)
def test_a_view_is_found_again_by_its_name(text: str) -> None:
    image = torch.rand(2, 3, 12, 12)
    for view in parse_views(text):
        again = view_named(view.name)
        assert (again.name, again.geometric_only) == (view.name, view.geometric_only)
        assert torch.equal(again(image), view(image))


@pytest.mark.parametrize("name", ["rot45", "fivecrop:0.8-7", "hflip*", "scale:9", "no"])
def test_an_unknown_view_name_is_rejected(name: str) -> None:
    with pytest.raises(UsageError):
        view_named(name)


@pytest.mark.parametrize("text", EVERY)
def test_geometric_views_commute_with_normalization(text: str) -> None:
    image, centre, deviation = torch.rand(2, 3, 16, 16), torch.tensor([0.4, 0.5, 0.6])[:, None, None], 0.25
    for view in parse_views(text):
        after, before = (view(image) - centre) / deviation, view((image - centre) / deviation)
        assert torch.allclose(after, before, atol=1e-5) == view.geometric_only or view.name == "none"


class Layouts(torch.nn.Module):
    """A model that counts batches in channels_last layout."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[bool] = []

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        self.seen.append(
            batch.is_contiguous(memory_format=torch.channels_last)
            and not batch.requires_grad
            and torch.is_inference_mode_enabled()
        )
        return batch.mean((2, 3))


def test_views_are_channels_last_and_without_gradients() -> None:
    values = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    views, model = [view for text in EVERY for view in parse_views(text)], Layouts()
    found = predict_logits(
        model,
        PixelSource(values, "cpu"),
        np.arange(3),
        (0.5,) * 3,
        (0.25,) * 3,
        device="cpu",
        channels_last=True,
        views=views,
    )
    assert model.seen == [True] * len(views)
    for view, logits in zip(views, found, strict=True):
        plain = view(torch.from_numpy(values).permute(0, 3, 1, 2) / 255)
        np.testing.assert_allclose(logits, ((plain - 0.5) / 0.25).mean((2, 3)), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("swin_tiny_patch4_window7_224", {"embed_dim": 32, "depths": (1, 1), "num_heads": (2, 4)}), ("test_vit", {})],
)
def test_fixed_size_models_accept_views_of_any_scale(name: str, arguments: dict[str, object]) -> None:
    model = timm.create_model(name, num_classes=4, img_size=56 if name.startswith("swin") else 32, **arguments).eval()
    size = 56 if name.startswith("swin") else 32
    values = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    views = parse_views("scale:0.5,0.9,1.1,2,fivecrop:0.7")
    found = predict_logits(
        model, PixelSource(values, "cpu"), np.arange(2), (0.5,) * 3, (0.25,) * 3, device="cpu", views=views
    )
    assert found.shape == (len(views), 2, 4)
    assert np.isfinite(found).all()


def test_a_view_does_not_change_its_input() -> None:
    image = torch.rand(1, 3, 8, 8)
    before = image.clone()
    for view in parse_views("d4,multiply:2,add:0.5,contrast:2,fivecrop:0.5,scale:0.5,hshift:0.1"):
        view(image)
    assert torch.equal(image, before)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hfilp", "did you mean hflip"),
        ("scale", "needs numbers"),
        ("scale:9", "out of range"),
        ("hflip:2", "takes no value"),
        ("", "names no view"),
        ("fivecrop:1.1", "larger than the image"),
        ("tencrop:200", "larger than the image"),
        ("hshift:0.7", "out of range"),
    ],
)
def test_invalid_views_are_rejected_with_a_hint(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_views(text)


def test_file_names_of_views_are_safe_and_distinct() -> None:
    views = chosen("d4,hflip*scale:0.9,1.1,multiply:0.5,fivecrop:0.8")
    files = [view.file_name for view in views]
    assert len(set(files)) == len(views)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-") for name in files)


@pytest.mark.parametrize(
    ("text", "size", "kept"),
    [
        ("scale:1.02", (224, 224), ["none", "scale:1.02"]),
        ("scale:1.01,1.02", (224, 224), ["none", "scale:1.01", "scale:1.02"]),
        ("fivecrop:0.99", (224, 224), ["none", *(f"fivecrop:0.99-{i}" for i in range(5))]),
        ("scale:1.02", (32, 32), ["none"]),
        ("rot90", (32, 48), ["none", "rot90", "rot180", "rot270"]),
    ],
)
def test_duplicates_are_found_at_the_size_of_the_model(text: str, size: tuple[int, int], kept: list[str]) -> None:
    assert names(text, size) == kept


def test_skipped_duplicates_are_listed_with_their_equal(caplog: pytest.LogCaptureFixture) -> None:
    deduplicate_views(parse_views("none,scale:1.02,hflip*rot90,vflip"), (32, 48))
    assert caplog.messages == [
        "duplicate views skipped, equal to another view at 48×32 px: scale:1.02 (as none), vflip (as hflip*rot180)",
    ]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("scale:2*scale:1.1", "multiply to 2.2, expected 0.25 to 2"),
        ("scale:0.5*scale:0.5*scale:0.9", "multiply to 0.225"),
        ("*".join(["hflip"] * 9), "9 factors"),
        ("*".join(["tencrop:0.9"] * 8), "more than 256"),
        ("*".join(["d4"] * 3 + ["hflip"] * 5), "more than 256"),
    ],
)
def test_the_cost_of_views_is_bounded(text: str, wanted: str) -> None:
    with pytest.raises(UsageError, match=wanted):
        parse_views(text)
    if "d4" not in text and "tencrop" not in text:
        with pytest.raises(UsageError, match=wanted):
            view_named(text)


def test_views_within_the_bounds_are_read_by_their_names() -> None:
    for text in ("hflip*rot90*scale:0.7*scale:0.7*hshift:0.1*multiply:0.9", "scale:2,0.5", "scale:0.5*scale:2", "d4"):
        for view in parse_views(text):
            assert view_named(view.name).name == view.name
