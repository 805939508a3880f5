"""Audit the table of a report: leaks, copies and classes that the folds lack."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ensemble.report.evidence.evidence import RunRecord
from folds.auditing.run import audit
from folds.data.table import Dataset
from folds.errors import EnsembleError, UsageError
from folds.splits.assignment import FoldAssignment, load_folds
from folds.utils.progress import SILENT, Progress

logger = logging.getLogger(__name__)

MAX_AUDITED = 5_000  # images; all pairs are compared, and ensemble folds check compares more


def find_findings(
    dataset: Dataset, records: Mapping[str, RunRecord], root: Path, images: int, progress: Progress = SILENT
) -> tuple[dict[str, Any], ...]:
    """Return the findings of an audit as plain values, with the number of images that were compared.

    Parameters
    ----------
    records : runs; the folds of the first one are audited.
    images : number of image files that can be read; they are compared if all can, and there are at most `MAX_AUDITED`.
    """
    total = len(dataset.train) + (0 if dataset.test is None else len(dataset.test))
    compared = images == total <= MAX_AUDITED
    try:
        made = audit(dataset, _folds_of(dataset, records), images=compared, root=root, progress=progress)
    except (EnsembleError, UsageError) as error:
        logger.info("the data are not audited: %s", error)
        return ()
    summary = {
        "kind": COMPARED,
        "severity": "note",
        "count": made.images or 0,
        "unit": "image",
        "message": "",
        "cases": (),
    }
    return (*(one.to_dict() for one in made.findings), summary)


COMPARED = "images compared"


def _folds_of(dataset: Dataset, records: Mapping[str, RunRecord]) -> FoldAssignment | None:
    for one in records.values():
        path = one.folder / "folds.csv"
        if path.is_file():
            try:
                return load_folds(path, dataset.train)
            except (EnsembleError, UsageError):
                continue
    return None
