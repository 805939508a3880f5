"""Tests of parsing weights."""

from __future__ import annotations

import pytest

from ensemble.blending.request import parse_weights
from folds.errors import UsageError


def test_weights_are_read_by_name_or_by_order_and_sum_to_one() -> None:
    assert parse_weights("swin=3, resnet18=1", ["resnet18", "swin"]) == {"resnet18": 0.25, "swin": 0.75}
    assert parse_weights("3,1", ["swin", "resnet18"]) == {"swin": 0.75, "resnet18": 0.25}


@pytest.mark.parametrize("size", ["1e308", "1e-320", "5e-324", "3"])
def test_weights_of_any_magnitude_are_normalized(size: str) -> None:
    assert parse_weights(f"{size},{size},{size}", ["a", "b", "c"]) == dict.fromkeys("abc", 1 / 3)
    assert parse_weights(f"{size},0", ["a", "b"]) == {"a": 1, "b": 0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (".7", r"expected one weight per run, 2 \(swin, resnet18\), found 1"),
        (".7,.2,.1", r"expected one weight per run, 2 \(swin, resnet18\), found 3"),
        ("swin=.7", "no weight for resnet18"),
        ("swim=.7,resnet18=.3", "unknown run in weights 'swim'; did you mean swin"),
        ("swin=.7,.3", "some weights have a name"),
        ("swin=.7,swin=.3", "names swin twice"),
        ("0,0", "sum to 0"),
        ("1,-1", "found -1"),
        ("nan,1", "found nan"),
        ("1,inf", "found inf"),
        ("1,x", "'x' is not a number"),
        ("1,", "'' is not a number"),
    ],
)
def test_invalid_weights_are_rejected(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_weights(text, ["swin", "resnet18"])
