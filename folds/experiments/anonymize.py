"""Remove paths from what is shared of the ledger: the place of the data, files of weights, paths in texts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_PATH = re.compile(r"(?<![\w/])(?:~|\.{1,2})?(?:[\w.+-]*/|[A-Za-z]:\\)[^\s,;:'\"()]*")
HIDDEN = "(path)"
# Settings and fields that hold a path; with a hash of the content beside them where the comparison needs it.
_PLACES = ("data", "test", "folds", "init", "soft_labels", "relabel", "drop", "soften")
_HASH = re.compile(r"[0-9a-f]{6,64}")


def anonymous_entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return a line of the ledger without paths; hashes of the data, settings, scores and costs are kept."""
    found = {key: _without_paths(value) for key, value in entry.items()}
    if found.get("data") is not None:
        found["data"] = HIDDEN
    if isinstance(found.get("settings"), dict):
        found["settings"] = {
            key: HIDDEN if key in _PLACES and not _HASH.fullmatch(str(value)) else value
            for key, value in found["settings"].items()
        }
    return found


def without_paths(text: str) -> str:
    """Return a text with every path replaced."""
    return _PATH.sub(HIDDEN, text)


def _without_paths(value: Any) -> Any:
    if isinstance(value, str):
        return without_paths(value)
    if isinstance(value, Mapping):
        return {key: _without_paths(one) for key, one in value.items()}
    return list(map(_without_paths, value)) if isinstance(value, list | tuple) else value
