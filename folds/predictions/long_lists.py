"""Read and write a sidecar without a Python object for each of its folds; numpy only.

An out-of-fold sidecar has the fold of each row, and many runs have the same folds. As a list of JSON these take most of
the time to read a file, so they are cut out of the text before it is parsed, and equal text is read once.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.utils.files import json_text, parse_json, read_bytes

_KEY = b'"fold": ['
_LONG = 1 << 12  # bytes of a list that is cut out
_MARK = "\x00folds"  # in place of the list; JSON has it only if it is written with an escape
_cached: tuple[bytes, NDArray[np.int64]] | None = None


def read_with_folds(path: Path) -> tuple[Any, NDArray[np.int64] | None]:
    """Return the JSON in `path`, and the folds of its rows if they are a long list of numbers, else None.

    The record then has None as its ``fold``.

    Raises
    ------
    EnsembleError : the file cannot be read, or is not JSON.
    """
    content = read_bytes(path)
    start = content.find(_KEY)
    stop = content.find(b"]", start)
    if start >= 0 and stop - start > _LONG and content.find(_KEY, stop) < 0:
        # Inside a text the quotation marks would be written \", so this is a key; the check below is for inner objects.
        numbers = _numbers(content[start + len(_KEY) : stop])
        if numbers is not None:
            before, after = content[: start + len(_KEY) - 1], content[stop + 1 :]
            record = parse_json(path, before + json.dumps(_MARK).encode() + after)
            if isinstance(record, dict) and record.get("fold") == _MARK:
                return record | {"fold": None}, numbers
    return parse_json(path, content), None


def _numbers(text: bytes) -> NDArray[np.int64] | None:
    """Return the numbers of ``0, 12, 3``; None if it is anything else than whole numbers from 0 to 2³¹ − 1."""
    global _cached  # the last list, which the next run most likely has as well
    known = _cached
    if known is not None and known[0] == text:
        return known[1]
    if text.translate(None, b"0123456789, \n") or not _is_json(text):
        return None
    numbers = np.fromstring(text.decode(), np.int64, sep=",")
    if numbers.min() < 0 or numbers.max() >= 2**31:
        return None
    numbers.flags.writeable = False
    _cached = text, numbers
    return numbers


def _is_json(text: bytes) -> bool:
    """Return whether digits, commas and blanks are numbers between commas, and none is written as 07."""
    padded = np.frombuffer(b" " + text + b" ", np.uint8)
    digit = (padded >= ord("0")) & (padded <= ord("9"))
    first = np.flatnonzero(digit[1:] & ~digit[:-1]) + 1
    commas = np.flatnonzero(padded == ord(","))
    if len(first) != len(commas) + 1 or (commas < first[:-1]).any() or (commas > first[1:]).any():
        return False
    return not ((padded[first] == ord("0")) & digit[first + 1]).any()


def json_with_folds(record: dict[str, Any]) -> str:
    """Return a sidecar as `folds.utils.files.write_json` writes it; its ``fold`` may be an array of whole numbers."""
    fold = record.get("fold")
    if not isinstance(fold, np.ndarray):
        return json_text(record)
    text, mark = json_text(record | {"fold": _MARK}), json.dumps(_MARK)
    if not len(fold) or text.count(mark) != 1:
        return json_text(record | {"fold": fold.tolist()})
    return text.replace(mark, "[\n  " + ",\n  ".join(map(str, fold.tolist())) + "\n ]")
