"""The setting `head` and the names of heads in checkpoints."""

from __future__ import annotations

import pytest

from folds.errors import UsageError
from folds.models.head_spec import check_head, cosine_scale, head_of, is_of_layers, is_of_person


@pytest.mark.parametrize(
    ("setting", "features", "name"),
    [
        (None, None, "linear"),
        ("linear", False, "linear"),
        ("cosine", None, "cosine:30"),
        ("cosine:16.0", None, "cosine:16"),
        (None, True, "linear"),
        ("logistic", True, "linear"),
        ("linear", True, "linear"),
        ("mlp", True, "mlp:32"),
        ("attention", True, "attention:64:4"),
        ("attention-person", True, "attention-person:64"),
        ("relative", True, "relative"),
    ],
)
def test_the_values_of_the_setting_depend_on_frozen_features(
    setting: str | None, features: bool | None, name: str
) -> None:
    assert head_of(setting, features, 32) == name
    check_head(name)
    assert is_of_layers(name) == (setting in ("mlp", "attention", "attention-person", "relative"))
    assert is_of_person(name) == (setting in ("attention", "attention-person", "relative"))
    assert (cosine_scale(name) is not None) == name.startswith("cosine")


@pytest.mark.parametrize(
    ("setting", "features"), [("mlp", None), ("logistic", False), ("cosine", True), ("mlp:3", True)]
)
def test_a_head_of_the_other_kind_is_refused(setting: str, features: bool | None) -> None:
    with pytest.raises(UsageError, match="features"):
        head_of(setting, features)


@pytest.mark.parametrize("text", ["mlp", "mlp:0", "mlp:9999", "attention:64:3", "attention:64", "logistic", ""])
def test_a_name_of_no_head_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="head"):
        check_head(text)
