"""Say in three sentences what to submit and how sure that is, and check what the numbers rest on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from ensemble.report.evidence.evidence import Evidence
from ensemble.report.evidence.scoring import main_part
from ensemble.report.page.blocks import Block, Check, Checks, Missing, Section, Text
from ensemble.report.verdict.column_verdict import CHECKS as COLUMN_CHECKS
from ensemble.report.verdict.column_verdict import column_blocks
from ensemble.report.verdict.verdict_classes import (
    check_labels,
    check_probabilities,
    check_rare_classes,
    check_weak_classes,
)
from ensemble.report.verdict.verdict_people import (
    check_copies,
    check_folds,
    check_leaks,
    check_people,
    check_sites,
    check_table,
    check_test_people,
)
from ensemble.report.verdict.verdict_runs import (
    check_complete,
    check_files,
    check_optimism,
    check_training,
    check_versions,
    check_views,
    check_weak_runs,
)
from ensemble.report.verdict.verdict_sentences import leak_of_all, sentences

_WITH_NAMES = ("copies", "files", "sites", "table", "versions")  # checks whose findings begin with names of users


def verdict_section(evidence: Evidence) -> Section:
    """Return what to submit, its score, whether anything is better than the simple choice, and the checks."""
    blocks: list[Block] = [Text(sentences(evidence)), *_scores_of_columns(evidence)]
    if evidence.main is None and leak_of_all(evidence) is None:
        blocks.append(
            Missing(
                "which model to submit needs out-of-fold predictions with labels", "`ensemble kfold --k 5 --arch swin`"
            )
        )
    blocks.append(Checks(checks_of(evidence)))
    return Section("verdict", "Verdict", "What to submit, how sure that is, and what to check first.", tuple(blocks))


def _scores_of_columns(evidence: Evidence) -> list[Block]:
    part = main_part(evidence)
    member = None if part is None or evidence.recommended is None else part.member(evidence.recommended)
    return [] if part is None or member is None else column_blocks(evidence, part, member)


def checks_of(evidence: Evidence) -> tuple[Check, ...]:
    """Return all checks, the failed ones first."""
    order = {"fail": 0, "warn": 1, "unknown": 2, "pass": 3}
    found = [
        replace(one, subject=subject, finding=_sentence(subject, one.finding))
        for subject, check in _checks(evidence.task).items()
        for one in [check(evidence)]
        if one is not None
    ]
    return tuple(sorted(found, key=lambda one: order[one.status]))


def _checks(task: str) -> Mapping[str, Callable[[Evidence], Check | None]]:
    """Return the checks of a task: those of classes are replaced by those of labels or numbers."""
    if task not in COLUMN_CHECKS:
        return _CHECKS
    found: dict[str, Callable[[Evidence], Check | None]] = {}
    for subject, check in _CHECKS.items():
        if subject not in _OF_CLASSES:
            found[subject] = check
        if subject == "people":
            found |= COLUMN_CHECKS[task]
    return found


def _sentence(subject: str, text: str) -> str:
    """Return a finding with a capital letter, unless it may begin with a name."""
    return text if subject in _WITH_NAMES else text[:1].upper() + text[1:]


_OF_CLASSES = ("labels", "rare classes", "weak classes", "probabilities")
_CHECKS: Mapping[str, Callable[[Evidence], Check | None]] = {
    "leaks": check_leaks,
    "test people": check_test_people,
    "copies": check_copies,
    "labels": check_labels,
    "optimism": check_optimism,
    "people": check_people,
    "rare classes": check_rare_classes,
    "weak classes": check_weak_classes,
    "weak runs": check_weak_runs,
    "folds": check_folds,
    "sites": check_sites,
    "probabilities": check_probabilities,
    "training": check_training,
    "views": check_views,
    "complete": check_complete,
    "table": check_table,
    "versions": check_versions,
    "files": check_files,
}
