"""Say for the methods of a paper what several labels or numbers of an image are, and how many images have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ensemble.report.evidence.column_scores import groups_of
from ensemble.report.evidence.evidence import Evidence
from ensemble.report.evidence.scoring import main_part
from ensemble.report.method.method_runs import listed, to_state
from folds.metrics.task_names import REGRESSION
from folds.predictions.label_columns import label_matrix
from folds.utils.text import counted

MAX_NAMED = 8  # labels or numbers of a sentence; the table of the parts has more

Cell = str | int | float | None


def noun_of(task: str, count: int) -> str:
    """Return ``6 labels`` or ``2 numbers``."""
    return counted(count, "number" if task == REGRESSION else "label")


def answers_of(task: str) -> str:
    """Return what a model returns for an image, in one word."""
    return "predictions" if task == REGRESSION else "probabilities"


def counts_text(
    task: str, classes: Sequence[str], labels: NDArray[np.str_], persons: NDArray[np.str_], persons_known: bool
) -> str:
    """Return the labels or numbers of some images in words, as they are inserted after their number.

    Parameters
    ----------
    labels : (n,) texts of `folds.predictions.label_columns`.
    """
    values = label_matrix(labels, classes, task)
    if len(classes) > MAX_NAMED:
        return f" with {noun_of(task, len(classes))} each (table of the parts)"
    if task == REGRESSION:
        named = "; ".join(f"{name}, {_spread(column)}" for name, column in zip(classes, values.T, strict=True))
        return f", each with {noun_of(task, len(classes))} ({named})"
    each = []
    for name, column in zip(classes, values.T, strict=True):
        has = column == 1
        people = f" of {counted(len(np.unique(persons[has])), 'person', 'people')}" if persons_known else ""
        each.append(f"{name}, {counted(int(has.sum()), 'image')}{people}")
    return f", each with any of {noun_of(task, len(classes))} ({'; '.join(each)})"


def _spread(column: NDArray[np.float64]) -> str:
    known = column[np.isfinite(column)]
    if not len(known):
        return "not known"
    deviation = f" (SD {known.std(ddof=1):,.4g})" if len(known) > 1 else ""
    return f"mean {known.mean():,.4g}{deviation}, range {known.min():,.4g} to {known.max():,.4g}"


def part_cells(
    task: str, classes: Sequence[str], labels: NDArray[np.str_], persons: NDArray[np.str_], persons_known: bool
) -> list[str]:
    """Return for each label the images (people) that have it, or for each number its mean and SD, for a table."""
    cells = []
    for column in label_matrix(labels, classes, task).T:
        known = np.isfinite(column)
        if task == REGRESSION:
            deviation = f" (SD {column[known].std(ddof=1):,.4g})" if known.sum() > 1 else ""
            cells.append(f"{column[known].mean():,.4g}{deviation}" if known.any() else "–")
        else:
            has = column == 1
            cells.append(f"{int(has.sum()):,}" + (f" ({len(np.unique(persons[has])):,})" if persons_known else ""))
    return cells


def unknown_cells(task: str, classes: Sequence[str], labels: NDArray[np.str_]) -> int:
    """Return how many labels or numbers of images are not known, of images of which others are known."""
    missing = np.isnan(label_matrix(labels, classes, task))
    return int(missing[~missing.all(axis=1)].sum())


def column_items(evidence: Evidence, predicted: bool) -> Mapping[str, str]:
    """Return the facts of a checklist that are other ones for several labels and numbers; {} for other tasks."""
    if not evidence.has_columns:
        return {}
    numbers = evidence.task == REGRESSION
    section = "Errors" if numbers else "Each label"
    part = main_part(evidence)
    groups = [] if part is None else list(groups_of(evidence, part))
    by_group = f"Section {section}: scores by {listed(groups)}." if groups else ""
    found = {
        "imbalance": "Numbers have no classes that could be balanced."
        if numbers
        else to_state("whether labels were weighted"),
        "classes": f"Section {section}: scores with CIs." + ("" if numbers else " Section Calibration: reliability."),
        "failures": f"Section {section}: largest errors, people and images. {to_state('their interpretation')}"
        if numbers
        else f"Section {section}: the worst mistakes. {to_state('their interpretation')}",
        "robustness": f"{by_group} Section Verdict: whether folds differ. {to_state('further analyses')}".strip(),
        "clusters": f"{by_group} {to_state('centers and other clusters')}".strip(),
        "fairness": f"{by_group} {to_state('approaches to fairness')}".strip(),
        "output": f"{noun_of(evidence.task, len(evidence.classes))[:1].upper()}"
        f"{noun_of(evidence.task, len(evidence.classes))[1:]} for each image, in the unit of the table.",
        "doubts": f"Section Numbers in doubt: numbers that models contradict. {to_state('error of the measurement')}",
    }
    if not numbers:
        named = noun_of(evidence.task, len(evidence.classes))
        found["output"] = f"A probability for each of {named}; they do not exclude each other. {to_state('thresholds')}"
        found["doubts"] = (
            f"Section Labels in doubt: labels that models contradict. {to_state('agreement of annotators')}"
        )
    if part is not None and evidence.averages(part):  # lists of single images are not shown
        found["failures"] = to_state("wrong people and images, and their interpretation")
        found["doubts"] = to_state("error of the measurement" if numbers else "agreement of annotators")
    if evidence.pooled is not None:  # whose section on doubts is left out
        found["doubts"] = to_state("error of the measurement" if numbers else "agreement of annotators")
    if not predicted:
        for name in ("classes", "failures", "robustness", "doubts"):
            found[name] = ""
        found["output"] = to_state("what the model returns, and thresholds, if any")
    return found
