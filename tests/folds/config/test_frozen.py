"""Options that stand for settings of heads on frozen features."""

from __future__ import annotations

import pytest

from folds.config.files import load_settings
from folds.config.frozen import check_features, check_fitted_losses, joined_arch, with_heads
from folds.config.recipe import Recipe
from folds.errors import UsageError


def test_one_head_is_a_setting_and_several_are_a_sweep() -> None:
    assert with_heads({"lr": 1.0}, None, ["a=1,2"]) == ({"lr": 1.0}, ["a=1,2"])
    assert with_heads({"features": None}, ["mlp"], []) == ({"features": True, "head": "mlp"}, [])
    assert with_heads({}, ["mlp", "linear"], ["lr=1,2"]) == ({"features": True}, ["head=mlp,linear", "lr=1,2"])
    with pytest.raises(UsageError, match="contradict"):
        with_heads({"head": "mlp"}, ["linear"], [])


def test_join_makes_one_architecture_of_several() -> None:
    assert joined_arch("swin, resnet18", True) == "swin+resnet18"
    assert joined_arch("swin,resnet18", False) == "swin,resnet18"
    with pytest.raises(UsageError, match="several models"):
        joined_arch("swin", True)


@pytest.mark.parametrize("name", ["freeze", "freeze_epochs"])
def test_freeze_all_is_another_name_of_features(name: str) -> None:
    _, recipe, origins = load_settings({name: "all"}, implicit=False)
    assert (recipe.features, recipe.freeze, origins) == (True, 0, {"features": "flag"})
    assert load_settings({name: "2"}, implicit=False)[1].freeze == 2
    with pytest.raises(UsageError, match="whole number"):
        load_settings({name: "some"}, implicit=False)
    with pytest.raises(UsageError, match="contradict"):
        load_settings({name: "all", "features": False}, implicit=False)


@pytest.mark.parametrize(
    ("loss", "task", "known"),
    [("bce", "multilabel", "ce or wce"), ("mse", "regression", "ce or wce"), ("ce", "classes", "mse")],
)
def test_the_loss_of_a_fitted_head_is_checked_when_the_task_is_known(loss: str, task: str, known: str) -> None:
    recipe = Recipe(features=True, loss=loss)
    check_features(recipe)
    check_fitted_losses(recipe, task)
    with pytest.raises(UsageError, match=f"fitted with {known}, found the loss {loss}"):
        check_fitted_losses(recipe, "regression" if task == "classes" else "classes")
    with pytest.raises(UsageError, match="several labels with bce"):
        check_features(Recipe(features=True, loss="focal"))
