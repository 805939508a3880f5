"""Describe what charts show: lines, rows, points and calibration curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Series:
    """A line with an optional band.

    Attributes
    ----------
    x, y : equally long; a nan in `y` interrupts the line.
    low, high : the band around it.
    tone : color 0 to 7, dash pattern and marker; the number of the series by default.
    markers : whether each point has a marker.
    faint : drawn thin and without an entry in the legend, for lines that are shown together.
    steps : whether a value holds up to the next one.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    tone: int | None = None
    markers: bool = False
    faint: bool = False
    steps: bool = False


@dataclass(frozen=True)
class Row:
    """A named value with its interval; nan or None where it is unknown.

    Attributes
    ----------
    text : the value as text, shown at its right.
    tone : color 0 to 7.
    strong : whether it is emphasized.
    mark : another value of the row that a forest shows, hollow, such as that by chance.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    text: str = ""
    tone: int = 0
    strong: bool = False
    mark: float | None = None


@dataclass(frozen=True)
class Point:
    """A named point with an optional vertical interval."""

    name: str
    x: float
    y: float
    low: float | None = None
    high: float | None = None
    text: str = ""
    tone: int = 0
    strong: bool = False


@dataclass(frozen=True)
class Calibrated:
    """A curve of a reliability diagram; all sequences have one entry per bin.

    Attributes
    ----------
    confidence, accuracy : means of the bin, from 0 to 1; nan for an empty bin.
    low, high : interval of the accuracy; nan if unknown.
    count : images of the bin, or people, as `unit` says in plural.
    """

    name: str
    confidence: Sequence[float]
    accuracy: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    count: Sequence[int]
    tone: int = 0
    unit: str = "images"
