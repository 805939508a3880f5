from __future__ import annotations

from dataclasses import astuple, fields, replace
from itertools import pairwise

import pytest

from folds.augmentation.presets import PRESETS, Augmentation, choose_presets, preset, strongest
from folds.errors import UsageError

LABELS = ["0", "1", "2", "0"]
ATTRIBUTES = {"age": [">=60", "<30", "30-59", ">=60"], "mask": ["wear", "wear", "normal", "wear"]}


def test_an_unknown_preset_is_refused_with_a_suggestion() -> None:
    assert preset("standard") is PRESETS["standard"]
    assert preset("none") == Augmentation() == replace(PRESETS["light"], flip=0.0, shift=0.0)
    with pytest.raises(UsageError, match="unknown augment 'standart'; did you mean standard") as error:
        preset("standart")
    assert error.value.hint == f"known: {', '.join(PRESETS)}"


def test_each_preset_is_at_least_as_strong_as_the_one_before() -> None:
    ways = list(PRESETS.values())
    for weaker, stronger in pairwise(ways):
        assert strongest((weaker, stronger)) == stronger != weaker


def test_the_erasing_probability_of_any_preset_can_be_set() -> None:
    assert preset("light", erase=0.5) == replace(PRESETS["light"], erase=0.5)
    assert preset("strong", erase=0.0) == replace(PRESETS["strong"], erase=0.0)
    assert preset("strong", erase=None) == PRESETS["strong"]


def test_the_strongest_has_the_widest_range_of_each_parameter() -> None:
    found = strongest((Augmentation(flip=0.5, rotate=3.0), Augmentation(flip=0.1, erase=0.2), Augmentation()))
    assert found == Augmentation(flip=0.5, rotate=3.0, erase=0.2)
    assert len(astuple(found)) == len(fields(Augmentation))


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, ["light", "light", "light", "light"]),
        ({"age=>=60": "strong"}, ["strong", "light", "light", "strong"]),
        ({"2": "none"}, ["light", "light", "none", "light"]),
        # Of several attributes the strongest counts, in whatever order they are given.
        ({"mask=wear": "standard", "age=>=60": "strong"}, ["strong", "standard", "light", "strong"]),
        ({"age=>=60": "strong", "mask=wear": "standard"}, ["strong", "standard", "light", "strong"]),
        # An attribute can also ask for less than the base.
        ({"mask=wear": "none"}, ["none", "none", "light", "none"]),
        # A class before its attributes.
        ({"0": "none", "mask=wear": "strong"}, ["none", "strong", "light", "none"]),
    ],
)
def test_chosen_classes_and_attributes_have_presets_of_their_own(more: dict[str, str], expected: list[str]) -> None:
    names, codes = choose_presets("light", more, LABELS, ATTRIBUTES)
    assert [names[code] for code in codes] == expected
    assert list(names) == sorted(set(expected), key=list(PRESETS).index)


def test_a_class_may_look_like_an_attribute() -> None:
    names, codes = choose_presets("light", {"a=b": "strong"}, ["a=b", "c"], {"a": ["x", "b"]})
    assert [names[code] for code in codes] == ["strong", "light"]


@pytest.mark.parametrize(
    ("base", "more", "message"),
    [
        ("lihgt", {}, "unknown augment 'lihgt'; did you mean light"),
        ("light", {"0": "stong"}, "unknown augmentation of '0': 'stong'; did you mean strong"),
        (
            "light",
            {"mask=ware": "strong"},
            "unknown class or attribute=value in augment_more 'mask=ware'; did you mean mask=wear",
        ),
        ("light", {"7": "strong"}, "unknown class or attribute=value in augment_more '7'"),
    ],
)
def test_unknown_names_are_refused_with_a_suggestion(base: str, more: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        choose_presets(base, more, LABELS, ATTRIBUTES)
