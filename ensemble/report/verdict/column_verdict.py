"""Choose what the verdict says of several labels and of numbers, beside and in the place of what it says of classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ensemble.report.evidence.column_scores import columns_of
from ensemble.report.evidence.evidence import Evidence, Part, Predicted
from ensemble.report.mistakes.several_labels import answer
from ensemble.report.page.blocks import Block, Check
from ensemble.report.verdict.label_verdict import check_label_probabilities, check_rare_labels, check_weak_labels
from ensemble.report.verdict.number_verdict import (
    against_constant,
    check_bias,
    check_constant,
    check_slope,
    score_table,
)
from folds.metrics.task_names import MULTILABEL, REGRESSION


def column_sentences(evidence: Evidence, part: Part, member: Predicted) -> tuple[str, ...]:
    """Return what the verdict of several labels or of numbers says beyond the score; () for other tasks."""
    if evidence.task == MULTILABEL:
        return answer(columns_of(evidence, part, member))
    return against_constant(evidence, part, member) if evidence.task == REGRESSION else ()


def column_blocks(evidence: Evidence, part: Part, member: Predicted) -> list[Block]:
    """Return the scores of numbers beside those of a constant answer; [] for other tasks."""
    return [score_table(evidence, part, member)] if evidence.task == REGRESSION else []


CHECKS: Mapping[str, Mapping[str, Callable[[Evidence], Check | None]]] = {
    MULTILABEL: {
        "rare labels": check_rare_labels,
        "weak labels": check_weak_labels,
        "probabilities": check_label_probabilities,
    },
    REGRESSION: {"constant": check_constant, "bias": check_bias, "middle": check_slope},
}
