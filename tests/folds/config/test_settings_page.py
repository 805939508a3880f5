"""The page of all settings shows the defaults that other settings change."""

from __future__ import annotations

from folds.config.lookup import default_of
from folds.config.recipe import Recipe
from folds.config.settings_page import settings_page


def _default(setting: str) -> str:
    row = next(line for line in settings_page().splitlines() if line.startswith(f"| `{setting}`"))
    return row.strip("| ").split(" | ")[-1]


def test_defaults_of_heads_on_frozen_features_are_shown_where_they_differ() -> None:
    head = Recipe(features=True, head="linear").completed({})[0]
    assert _default("batch_size").endswith(f"; {head.batch_size} with --features")
    assert _default("lr").endswith(f"; {head.lr:g} with --features")
    assert _default("head") == "linear; logistic on frozen features"
    assert _default("label_smoothing").endswith("with other losses; 0 with --head logistic")
    assert head.epochs == default_of("epochs")
    assert _default("epochs") == "15"
