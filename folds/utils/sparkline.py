"""Draw numbers as one line of text, and the curves of the folds of a run on one scale."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterable, Sequence
from typing import TextIO

BLOCKS = "▁▂▃▄▅▆▇█"
PLAIN = ".:-=+*#@"  # where these are not shown, from little ink to much
UNKNOWN = " "
LEAST_SPAN = 0.1  # of a scale: noise in the third decimal looks flat
# Terminals whose fonts lack most of `BLOCKS`: the console of Linux, and those that move no cursor.
_POOR = ("linux", "dumb")


def blocks_for(stream: TextIO) -> str:
    """Return the characters that a stream shows: `BLOCKS` or `PLAIN`."""
    if os.environ.get("TERM") in _POOR:
        return PLAIN
    try:
        BLOCKS.encode(getattr(stream, "encoding", None) or "utf-8")
    except (LookupError, UnicodeEncodeError):
        return PLAIN
    return BLOCKS


def scale_of(curves: Iterable[Sequence[float]]) -> tuple[float, float] | None:
    """Return the lowest and the highest value of curves, at least `LEAST_SPAN` apart; None without a finite value."""
    known = [value for curve in curves for value in curve if math.isfinite(value)]
    if not known:
        return None
    low, high = min(known), max(known)
    missing = LEAST_SPAN - (high - low)
    return (low, high) if missing <= 0 else (low - missing / 2, high + missing / 2)


def sparkline(values: Sequence[float], scale: tuple[float, float], width: int = 12, blocks: str = BLOCKS) -> str:
    """Return values as one character each; of more than `width`, the means of neighbors. nan is a space.

    Parameters
    ----------
    scale : the values of the lowest and of the highest character; what lies outside is drawn as these.
    blocks : the characters, the lowest first.
    """
    count = min(width, len(values))
    parts = [values[i * len(values) // count : (i + 1) * len(values) // count] for i in range(count)]
    return "".join(_block(part, scale, blocks) for part in parts)


def _block(values: Sequence[float], scale: tuple[float, float], blocks: str) -> str:
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return UNKNOWN
    share = (sum(known) / len(known) - scale[0]) / (scale[1] - scale[0])
    return blocks[min(max(int(share * len(blocks) + 1e-9), 0), len(blocks) - 1)]


class RunCurves:
    """The curves of all folds that are trained, for `folds.utils.progress.JobProgress`; those of a run share a scale.

    Its methods may be called from any thread.
    """

    def __init__(self) -> None:
        self._curves: dict[tuple[str, int], tuple[str, Sequence[float]]] = {}
        self._lock = threading.Lock()

    def add(self, run: str, fold: int, metric: str, curve: Sequence[float]) -> None:
        """Take the values of a fold so far."""
        with self._lock:
            self._curves[run, fold] = metric, tuple(curve)

    def text(self, run: str, fold: int, blocks: str = BLOCKS, width: int = 12) -> str:
        """Return ``macro F1 0.613 ▁▃▅▆▇ (0.21 to 0.64)``: the last value, and the scale of all folds of the run.

        "" for a fold without a value.
        """
        with self._lock:
            metric, curve = self._curves.get((run, fold), ("", ()))
            others = [one for (name, _), (what, one) in self._curves.items() if name == run and what == metric]
        scale = scale_of(others)
        if not curve or scale is None:
            return ""
        drawn = sparkline(curve, scale, width, blocks)
        return f"{metric} {curve[-1]:.3f} {drawn} ({scale[0]:.2f} to {scale[1]:.2f})"
