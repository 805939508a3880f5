"""A preset fills the settings that were not given, and says which."""

from __future__ import annotations

from pathlib import Path

import pytest

from folds.config.command_settings import Settings
from folds.config.files import load_settings, to_toml
from folds.config.lookup import all_settings
from folds.config.presets import PRESETS, preset_note
from folds.config.recipe import Recipe
from folds.errors import UsageError


def test_a_preset_fills_open_settings_only() -> None:
    settings, recipe, origins = load_settings({"preset": "best", "epochs": 7}, implicit=False)
    assert (recipe.epochs, settings.seeds, settings.preset) == (7, 3, "best")
    assert (origins["epochs"], origins["seeds"]) == ("flag", "preset best")
    plain = load_settings({}, implicit=False)
    assert (plain[0].seeds, plain[1]) == (1, Recipe())


def test_a_setting_of_a_file_or_a_run_wins_over_a_preset(tmp_path: Path) -> None:
    config = tmp_path / "own.toml"
    config.write_text("epochs = 3\n")
    assert load_settings({"preset": "quick"}, config, implicit=False)[1].epochs == 3
    assert load_settings({"preset": "quick"}, None, {"epochs": 4}, implicit=False)[1].epochs == 4


def test_a_record_given_again_keeps_its_values(tmp_path: Path) -> None:
    """A run of three seeds records one seed of its own; the preset must not ask for three again."""
    config = tmp_path / "config.toml"
    config.write_text(to_toml(Settings(preset="best", seeds=1), Recipe(epochs=30), {}))
    settings, recipe, _ = load_settings({}, config, implicit=False)
    assert (settings.seeds, recipe.epochs) == (1, 30)


def test_a_study_does_not_take_the_seeds_of_a_preset() -> None:
    settings, recipe, _ = load_settings({"preset": "best"}, tuning=True, implicit=False)
    assert (settings.seeds, recipe.epochs) == (1, 30)


def test_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="preset"):
        load_settings({"preset": "bset"}, implicit=False)


def test_presets_name_settings_and_values_that_exist() -> None:
    for values in PRESETS.values():
        for key, value in values.items():
            all_settings()[key].check(value)


def test_the_note_tells_what_was_decided_and_what_was_given() -> None:
    assert preset_note("best", {"epochs": 30, "seeds": 3}) == "preset best: epochs 30, seeds 3"
    assert preset_note("best", {"epochs": 9, "seeds": 3}) == "preset best: seeds 3; as given: epochs 9"
    assert preset_note("quick", {"epochs": 9, "seeds": 1}) == "preset quick: nothing; as given: epochs 9"
