"""Compare the recorded settings of two runs: which are compared, which differ, and how that is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from folds.config.lookup import spelling_of
from folds.utils.text import value_text

# Locations and requests are not compared; the contents of the files are compared by hash.
_NOT_COMPARED = {"data", "test", "folds", "path", "label", "person", "id", "split", "person_regex", "name", "init"}
_NOT_COMPARED |= {"images", "test_images", "test_labels", "skip_unusable", "max_pixels"}
_NOT_COMPARED |= {
    "holdout",
    "repair",
    "stratify",
    "group_within",
    "leave_out",
    "repeats",
    "seeds",
    "resolved",
    "preset",
}
# Resolved values that are compared as settings: the number format in place of "auto", contents as abbreviated hashes.
_RESOLVED = {"amp": "amp", "device": "device"}
_CONTENT = {
    "table_sha": "data",
    "test_sha": "test",
    "folds_sha": "folds",
    "images_sha": "images",
    "init_sha": "init",
    "soft_sha": "soft_labels",
    "trained_sha": "trained",
    "weights_sha": "weights",
    "pseudo_sha": "pseudo",
    "relabel_sha": "relabel",
    "drop_sha": "drop",
    "soften_sha": "soften",
}


def settings_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a run from its config.toml: resolved values, and input files as abbreviated hashes."""
    settings = {key: value for key, value in record.items() if key not in _NOT_COMPARED}
    if isinstance(settings.get("arch"), list):
        settings["arch"] = ",".join(map(str, settings["arch"]))
    resolved = record.get("resolved")
    for key, value in resolved.items() if isinstance(resolved, Mapping) else ():
        if key in _RESOLVED:
            settings[_RESOLVED[key]] = value
        elif key in _CONTENT and value:
            settings[_CONTENT[key]] = str(value)[:12]
    return settings


def settings_between(
    first: Mapping[str, Any], second: Mapping[str, Any]
) -> tuple[dict[str, tuple[Any, Any]], tuple[str, ...]]:
    """Return the settings that differ, with both values, and the names of those that are the same."""
    names = [*first, *(name for name in second if name not in first)]
    changed = {name: (first.get(name), second.get(name)) for name in names if first.get(name) != second.get(name)}
    return changed, tuple(name for name in names if name not in changed)


def changes_text(changed: Mapping[str, Sequence[Any]], max_length: int = 60) -> str:
    """Return ``loss: ce → focal``; only the names if the text is longer than `max_length` characters."""
    changed = {spelling_of(name): values for name, values in changed.items()}
    text = ", ".join(f"{name}: {value_text(before)} → {value_text(after)}" for name, (before, after) in changed.items())
    if len(text) <= max_length:
        return text
    names = list(changed)
    while len(names) > 1 and len(_listed(names, len(changed))) > max_length:
        names.pop()
    return _listed(names, len(changed))


def _listed(names: Sequence[str], of: int) -> str:
    return ", ".join(names) + (f" and {of - len(names)} more" if len(names) < of else "")
