"""Take the parts of evidence and of a section of the page that tests look at."""

from __future__ import annotations

from ensemble.report.evidence.evidence import Evidence, Part
from ensemble.report.page.blocks import Figure, Section, Table, Text


def oof(evidence: Evidence) -> Part:
    """Return the out-of-fold part, which must be there."""
    assert evidence.oof is not None
    return evidence.oof


def table_of(section: Section, name: str) -> Table:
    """Return the table of this name."""
    return next(block for block in section.blocks if isinstance(block, Table) and block.name == name)


def text_of(section: Section) -> str:
    """Return the paragraphs, and the descriptions of the drawings."""
    lines: list[str] = []
    for block in section.blocks:
        lines += block.paragraphs if isinstance(block, Text) else []
        lines += [block.description] if isinstance(block, Figure) else []
    return " ".join(lines)
