from __future__ import annotations

import itertools

import pytest
import torch

from ensemble.views import View, distinct, parse_views
from folds.errors import UsageError


def chosen(text: str, size: tuple[int, int] = (24, 24)) -> tuple[View, ...]:
    return distinct(parse_views(text), size)


def names(text: str, size: tuple[int, int] = (24, 24)) -> list[str]:
    return [view.name for view in chosen(text, size)]


def test_the_plain_image_is_always_the_first_view() -> None:
    assert names("hflip") == ["none", "hflip"]
    assert names("none") == ["none"]
    assert names("none,hflip,none") == ["none", "hflip"]


def test_factors_multiply_and_terms_add() -> None:
    assert names("hflip*scale:0.9,1,1.1,vflip") == ["none", "scale:0.9", "scale:1.1", "hflip*scale:0.9", "hflip", "hflip*scale:1.1", "vflip"]


def test_sixteen_products_of_flips_and_turns_are_the_eight_distinct_ones() -> None:
    image = torch.rand(1, 3, 5, 5)
    expected = [torch.rot90(f, n, (2, 3)) for f, n in itertools.product((image, image.flip(3)), range(4))]
    seen = [view(image) for view in chosen("hflip*vflip*rot90")]
    assert len(seen) == 8
    for view in seen:
        assert sum(torch.equal(view, other) for other in expected) == 1


@pytest.mark.parametrize("text", ["d4", "scale:0.7,1.3", "fivecrop:0.8", "multiply:0.5,2", "add:-0.2,0.3", "hflip*scale:1.2"])
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
    twice = torch.nn.functional.interpolate(image, scale_factor=2, mode="bilinear", align_corners=False)[:, :, 4:12, 4:12]
    torch.testing.assert_close(by_name["scale:2"], twice)


def test_a_view_leaves_its_input_alone() -> None:
    image = torch.rand(1, 3, 8, 8)
    before = image.clone()
    for view in parse_views("d4,multiply:2,add:0.5,fivecrop:0.5,scale:0.5"):
        view(image)
    assert torch.equal(image, before)


@pytest.mark.parametrize(
    ("text", "said"),
    [("hfilp", "did you mean hflip"), ("scale", "needs numbers"), ("scale:9", "out of range"), ("hflip:2", "takes no value"), ("", "names no view")],
)
def test_a_wrong_view_is_refused_with_what_is_right(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
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
def test_views_are_compared_at_the_size_of_the_model(text: str, size: tuple[int, int], kept: list[str]) -> None:
    assert names(text, size) == kept


def test_views_that_are_left_out_are_named_with_those_they_repeat() -> None:
    said: list[str] = []
    distinct(parse_views("none,scale:1.02,hflip*rot90,vflip"), (32, 48), said.append)
    assert said == [
        "left out, because they do the same to images of 48×32 px as another view: scale:1.02 (as none), vflip (as hflip*rot180)",
    ]
