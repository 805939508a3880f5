"""Open the section about labels or numbers in doubt: what it is about, and when it is not shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ensemble.analysis.columns import Column
from ensemble.report.evidence.column_scores import columns_of
from ensemble.report.evidence.evidence import Evidence, Part, Predicted
from ensemble.report.evidence.scoring import labeled
from ensemble.report.page.blocks import Block, Missing, Section, Text


def doubts_section(
    evidence: Evidence,
    word: str,
    lead: str,
    blocks_of: Callable[[Evidence, Part, Predicted, Sequence[Column]], Sequence[Block]],
) -> Section:
    """Return the section about the answers of the table that the recommended member contradicts out of fold.

    Parameters
    ----------
    word : ``label`` or ``number``: what the table has for each image.
    blocks_of : returns the blocks of the section from the out-of-fold part, the member and its columns.
    """
    title, part = f"{word.capitalize()}s in doubt", labeled(evidence.oof)
    if part is None:
        missing = Missing(
            f"{word}s that out-of-fold predictions contradict",
            f"`ensemble kfold …` trains runs with out-of-fold predictions; test {word}s are never doubted",
        )
        return Section("labels", title, lead, (missing,))
    if evidence.averages(part):
        text = f"Not shown for scores by person: the {word} of each image is judged by its own prediction."
        return Section("labels", title, lead, (Text((text,)),))
    member = evidence.main or part.members[0]
    blocks = blocks_of(evidence, part, member, columns_of(evidence, part, member))
    return Section("labels", title, lead, tuple(blocks))
