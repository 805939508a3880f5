"""Find texts that are probably the same name written in two ways, and texts that stand for a missing value."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

# Texts by which programs and people mark a missing value, in lower case.
PLACEHOLDERS = frozenset(
    {
        "",
        "#n/a",
        "#na",
        "<na>",
        "-",
        "--",
        "-1",
        "-1.0",
        "?",
        "n/a",
        "na",
        "nan",
        "nat",
        "nil",
        "none",
        "null",
        "unknown",
    }
)
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufeff]")
_SHOWN = 3
_NUMBER_STARTS = frozenset("+-.0123456789")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)\Z", re.ASCII)


def is_placeholder(text: str) -> bool:
    """Return whether a text stands for a missing value: empty, ``nan``, ``<NA>``, ``unknown``, ``-1``, …"""
    return text.strip().lower() in PLACEHOLDERS


def spelling_key(text: str) -> str:
    """Return a text that is equal for all spellings of a name.

    Ignored are case, Unicode form, invisible characters, blanks and their kind, and how a number is written
    (``12``, ``12.0``, ``0012``).
    """
    if text.isascii() and text.isdigit():
        return text.lstrip("0") or "0"
    if not text.isascii():
        text = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))
    key = " ".join(text.casefold().split())
    if key[:1] in _NUMBER_STARTS and _NUMBER.match(key):
        sign = "-" if key[0] == "-" else ""
        whole, _, fraction = key.lstrip("+-").partition(".")
        whole, fraction = whole.lstrip("0") or "0", fraction.rstrip("0")
        number = f"{whole}.{fraction}" if fraction else whole
        return number if number == "0" else sign + number
    return key


def spellings(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Return the groups of names that differ only in spelling, sorted; placeholders are ignored."""
    first: dict[str, str] = {}
    several: dict[str, set[str]] = {}
    for name in names:
        key = spelling_key(name)
        other = first.setdefault(key, name)
        if other != name:
            several.setdefault(key, {other}).add(name)
    groups = ({name for name in group if not is_placeholder(name)} for group in several.values())
    return sorted(tuple(sorted(group)) for group in groups if len(group) > 1)


def merged_spellings(counts: Mapping[str, int], declared: Sequence[str] | None = None) -> dict[str, str]:
    """Return name → the spelling that replaces it, for names that are replaced: the declared one, or else the most
    frequent one.

    Examples
    --------
    >>> merged_spellings({"Cat": 3, "cat": 1, "dog": 2})
    {'cat': 'Cat'}
    """
    target = {name: max(group, key=lambda each: (counts[each], each)) for group in spellings(counts) for name in group}
    known = {spelling_key(name): name for name in declared or ()}
    target |= {name: known[spelling_key(name)] for name in counts if spelling_key(name) in known}
    return {name: other for name, other in target.items() if name != other}


def spelling_text(names: Iterable[str]) -> str:
    """Return spellings of one name as text that shows their difference: ``'Bär' (NFC)``, ``'cat\\u200b'``."""
    names = list(names)
    alike = len({unicodedata.normalize("NFC", name) for name in names}) < len(names)
    shown = []
    for name in names:
        visible = _INVISIBLE.sub(lambda found: f"\\u{ord(found[0]):04x}", name)
        form = (
            "NFC" if unicodedata.is_normalized("NFC", name) else "NFD" if unicodedata.is_normalized("NFD", name) else ""
        )
        shown.append(f"'{visible}'" + (f" ({form})" if alike and form else ""))
    return " and ".join(shown)


def some_texts(texts: Iterable[str]) -> str:
    """Return the first texts of many in one line, and how many more there are."""
    listed = list(texts)
    return ", ".join(listed[:_SHOWN]) + (f", … and {len(listed) - _SHOWN:,} more" if len(listed) > _SHOWN else "")


def merged_note(target: Mapping[str, str], source: str, one: str, many: str) -> str:
    """Return a line about the spellings that were merged, of `merged_spellings`."""
    kept = len(set(target.values()))
    listed = (f"{spelling_text([name])} into {spelling_text([other])}" for name, other in sorted(target.items()))
    return f"{source}: spellings of {kept:,} {one if kept == 1 else many} were merged: {some_texts(listed)}"


def spelling_warning(counts: Mapping[str, int], source: str, one: str, many: str, effect: str) -> list[str]:
    """Return a warning that names of `counts` are written in more than one way, and the effect; [] if none is.

    Parameters
    ----------
    counts : name → its number of images.
    """
    groups = spellings(counts)
    if not groups:
        return []
    listed = some_texts(
        f"{spelling_text(group)} ({' and '.join(f'{counts[name]:,}' for name in group)} images)" for group in groups
    )
    return [
        f"{len(groups):,} {one if len(groups) == 1 else many} written in more than one way in {source}: {listed}: "
        f"{effect}; `merge_spellings=True` treats them as one"
    ]
