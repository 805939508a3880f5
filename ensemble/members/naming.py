"""Read what the names of prediction files say: the run, and whether they are out-of-fold or test predictions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from folds.utils.tables import table_suffix

# Words in the name of a file that say its split, if other files of the blend are named so that they say the other one.
_WORDS = {"oof": "oof", "test": "test", "submission": "test", "sub": "test"}
_WORD = re.compile(r"(?<![A-Za-z0-9])(oof|test|submission|sub)(?![A-Za-z])", re.IGNORECASE)


def stem(path: Path) -> str:
    """Return the file name without its suffix (``.npy``, ``.csv.gz``)."""
    suffix = table_suffix(path.name) or path.suffix
    return path.name[: len(path.name) - len(suffix)] if suffix else path.name


def run_and_split(path: Path) -> tuple[str, str]:
    """Return the run, and ``oof`` or ``test`` if the name ends so (``swin.oof.npy``), otherwise ""."""
    name = stem(path)
    for split in ("oof", "test"):
        if name.lower().endswith(f".{split}"):
            return name[: -len(split) - 1], split
    return name, ""


def word_splits(paths: Sequence[Path]) -> dict[Path, tuple[str, str]]:
    """Return path → (run, split) for names like ``oof_swin.npy`` and ``test_swin.npy``.

    Such a name counts only if the names of other files say the other split, so that it tells files apart.
    """
    found: dict[Path, tuple[str, str]] = {}
    for path in paths:
        words = _WORD.findall(stem(path))
        splits = {_WORDS[word.lower()] for word in words}
        if len(splits) == 1:
            rest = re.sub(r"[._\s-]{2,}", "_", _WORD.sub("", stem(path))).strip("._- ")
            found[path] = rest or stem(path), splits.pop()
    return found if {split for _, split in found.values()} == {"oof", "test"} else {}
