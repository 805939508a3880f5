"""What a page is made of: sections of blocks, without any markup."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Status = Literal["pass", "warn", "fail", "unknown"]
_NAME = re.compile(r"[a-z][a-z0-9-]*")


@dataclass(frozen=True)
class Text:
    """Paragraphs of plain text."""

    paragraphs: tuple[str, ...]


Cells = list[str | int | float | None]  # a row of a table


@dataclass(frozen=True)
class Table:
    """A table that the reader can sort, and take along as CSV, Markdown and LaTeX.

    Attributes
    ----------
    name : lower-case letters, digits and hyphens, unique in the page: ``compare-scores``.
    caption : one sentence.
    header : at most three words per column, with the unit.
    rows : texts or numbers; a number sorts as a number.
    left : how many columns are aligned left.
    note : what the reader must know to read it, such as how the intervals are made.
    """

    name: str
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str | int | float | None]]
    left: int = 1
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """A drawing.

    Attributes
    ----------
    name : as in `Table`.
    svg : ``<svg …>…</svg>`` of `folds.utils.charts`, which escapes all texts.
    title : what is drawn, one short line.
    description : what can be seen, in a sentence or two, for readers who cannot see it.
    folded : "" to show it, or the words of a line that opens it, with all blocks of these words that follow.
    """

    name: str
    svg: str
    title: str
    description: str
    folded: str = ""


@dataclass(frozen=True)
class Picture:
    """An image with what is known about it.

    Attributes
    ----------
    source : ``data:image/jpeg;base64,…`` of `ensemble.report.page.thumbnails`; "" if the image cannot be shown.
    title : its id.
    lines : facts, one line each.
    tags : filter → value, such as ``{"true": "cat", "predicted": "dog"}``.
    """

    source: str
    title: str
    lines: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Gallery:
    """Images that the reader can filter by their tags.

    Attributes
    ----------
    name : as in `Table`.
    folded : as in `Figure`.
    wide : whether the pictures are shown in their own width, in wider columns.
    """

    name: str
    caption: str
    pictures: tuple[Picture, ...]
    note: str = ""
    folded: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix; a cell filters the gallery `opens` by the tags ``true`` and ``predicted``.

    Attributes
    ----------
    counts : (classes, classes) images of each true class (rows) by predicted class.
    shares : the same as texts, the share of the row with its confidence interval.
    compact : whether the cells show the counts alone; the shares are shown when the pointer rests on them.
    heads : (classes,) short names for the heads of the columns; the classes by default.
    """

    name: str
    caption: str
    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    shares: tuple[tuple[str, ...], ...]
    opens: str = ""
    note: str = ""
    compact: bool = False
    heads: tuple[str, ...] = ()


@dataclass(frozen=True)
class Missing:
    """A part that cannot be made from what is on disk: what it would show, and the command that makes it possible."""

    what: str
    how: str


@dataclass(frozen=True)
class Check:
    """One check of the results.

    Attributes
    ----------
    status : ``unknown`` if what it needs is not there.
    title : what was found, in a few words: "No person is in training and validation", "Few people".
    finding : the same with numbers.
    action : what to do about it; "" if there is nothing to do.
    subject : what was checked, in one or two words, whatever was found: "leaks".
    """

    status: Status
    title: str
    finding: str
    action: str = ""
    subject: str = ""


@dataclass(frozen=True)
class Checks:
    """A numbered list of checks, the failed ones first."""

    checks: tuple[Check, ...]


Block = Text | Table | Figure | Gallery | Matrix | Missing | Checks


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes
    ----------
    name : as in `Table`; the anchor of the section.
    title : one or two words.
    lead : what the section answers, in one or two sentences.
    """

    name: str
    title: str
    lead: str
    blocks: tuple[Block, ...]

    def __post_init__(self) -> None:
        names = [self.name, *(block.name for block in self.blocks if hasattr(block, "name"))]
        for name in names:
            if not _NAME.fullmatch(name):
                raise ValueError(f"expected a name of lower-case letters, digits and hyphens, found {name!r}")
