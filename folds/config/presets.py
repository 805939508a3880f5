"""Fill settings that were not given with those of a preset: how much time a training may take for its score."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

# Costs relative to `good`; what they give is in docs/recipes.md.
PRESETS: dict[str, dict[str, Any]] = {
    "quick": {"epochs": 5},  # 1/3
    "good": {"epochs": 15},
    "best": {"epochs": 30, "seeds": 3},  # 6; the mean of the seeds is what it is for
}


def preset_settings(name: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a preset that were not given; {} without a preset.

    Parameters
    ----------
    given : setting → value, of all that were given.
    """
    return {key: value for key, value in PRESETS.get(name or "", {}).items() if key not in given}


def preset_note(name: str, values: Mapping[str, Any], without: Collection[str] = ()) -> str:
    """Return in one line what a preset decided: ``preset best: epochs 30, seeds 3``.

    Parameters
    ----------
    values : the settings of the command, by key.
    without : settings of the preset that the command has no use for.
    """
    decided = {key: value for key, value in PRESETS[name].items() if key not in without}
    kept = [key for key, value in decided.items() if values[key] != value]
    used = ", ".join(f"{key} {value}" for key, value in decided.items() if key not in kept) or "nothing"
    given = ", ".join(f"{key} {values[key]}" for key in kept)
    return f"preset {name}: {used}" + (f"; as given: {given}" if given else "")


def one_seed_note(name: str) -> str:
    """Return in one line why logistic heads have one seed of a preset's seeds."""
    return (
        f"preset {name}: one seed of each logistic head, whose fit has no random start "
        f"(`seeds={PRESETS[name]['seeds']}` trains more)"
    )
