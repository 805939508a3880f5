"""An audit from beginning to end: of a table, a split and their images; and of images that are decoded for a
training.
"""

from __future__ import annotations

import base64
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from folds.auditing.checks import (
    ERROR,
    MOST_COMPARED,
    NOTE,
    WARNING,
    AuditImages,
    Finding,
    Occurrence,
    SampleRef,
    audit_images,
    audit_table,
    pictures,
)
from folds.auditing.duplicates import SIDE
from folds.data.readers import read_data
from folds.data.table import Dataset, DataSpec, SampleTable
from folds.errors import EnsembleError, UsageError
from folds.images.cache import DecodedImages, load_images, unusable_images
from folds.images.settings import CACHE, ImageSettings
from folds.splits.assignment import FoldAssignment, load_folds
from folds.utils.display import Displayed, Table
from folds.utils.progress import SILENT, Progress
from folds.utils.text import sort_classes

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

SEVERITIES = (ERROR, WARNING, NOTE)


@dataclass(frozen=True, eq=False, repr=False)
class AuditReport(Displayed):
    """What an audit has found.

    Attributes
    ----------
    assignment : the split that was audited; None where there was none.
    findings : errors first, then warnings, then notes.
    folds : the file of the split.
    window : the values that become black and white in images of more than 8 bits; None for their full range.
    """

    data: Dataset
    assignment: FoldAssignment | None
    findings: tuple[Finding, ...]
    folds: Path | None = None
    window: tuple[float, float] | None = None

    @property
    def people(self) -> int:
        """Return how many people the training samples are of; 0 where that is not known."""
        persons = self.data.train.persons
        return 0 if persons is None else len(self.data.train.person_codes[0])

    def serious(self, strict: bool = False) -> list[Finding]:
        """Return the errors, and under `strict` the warnings."""
        return [one for one in self.findings if one.severity == ERROR or (strict and one.severity == WARNING)]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        return {
            "data": self.data.train.source,
            "folds": str(self.folds) if self.folds else None,
            "samples": len(self.data.train),
            "people": self.people,
            "counts": {severity: sum(one.severity == severity for one in self.findings) for severity in SEVERITIES},
            "findings": [finding.to_dict() for finding in self.findings],
        }

    def frame(self) -> pd.DataFrame:
        """Return a row for each finding: severity, kind, count, message."""
        import pandas as pd

        columns = ["severity", "kind", "count", "unit", "message"]
        return pd.DataFrame([[getattr(one, name) for name in columns] for one in self.findings], columns=columns)

    def display_table(self) -> Table:
        """Return what is shown: a line for each finding."""
        rows = [[one.severity, one.kind, one.amount, one.message] for one in self.findings]
        samples = f"{len(self.data.train):,} samples of {self.people:,} people"
        if not rows:
            return Table(f"{samples}: nothing found")
        return Table(samples, ["severity", "finding", "count", "meaning"], rows, left=4)

    def _repr_html_(self) -> str:
        """The findings, and the suspicious images side by side."""
        shown = self.display_table().html()
        with tempfile.TemporaryDirectory() as folder:
            sheet = Path(folder) / "sheet.png"
            if not self.write_sheet(sheet):
                return shown
            picture = base64.b64encode(sheet.read_bytes()).decode()
        return f'{shown}<img alt="suspicious images" src="data:image/png;base64,{picture}">'

    def write_sheet(self, path: Path) -> int:
        """Write a PNG of the suspicious images side by side; return how many cases it shows. 0, and no file, where
        there are none.
        """
        from folds.auditing.contact_sheet import write_sheet

        tables = {"train": self.data.train, "test": self.data.test}
        places = {
            part: (table, {name: at for at, name in enumerate(table.ids.tolist())})
            for part, table in tables.items()
            if table is not None
        }

        def file_of(row: SampleRef) -> Path | None:
            # By id: rows with unusable images were taken out before positions were counted.
            table, place = places[row.part]
            return None if table.paths is None else table.paths[place[row.id]]

        return write_sheet(path, self.findings, file_of, self.window)


def audit(
    data: Dataset,
    assignment: FoldAssignment | None = None,
    *,
    k: int = 5,
    images: bool = True,
    window: tuple[float, float] | None = None,
    folds: Path | None = None,
    root: Path = Path(),
    progress: Progress = SILENT,
) -> AuditReport:
    """Return audit data, their images and a split.

    Parameters
    ----------
    assignment : folds of ``data.train``; without them it is asked which classes could not be in every one of `k`.
    images : whether the images are looked at; they are decoded small, into ``.ensemble/images`` of the folder `root`.
    window : the values that become black and white in images of more than 8 bits; None for their full range.
    folds : the file of the split, for the report.

    Raises
    ------
    EnsembleError : a person stands in two folds (see `folds.splits.checks.check_folds`).
    """
    findings = audit_table(data, assignment, k)
    if images:
        # The audit compares thumbnails: decoded at their size, a JPEG takes a fraction of the time.
        findings += _look_at_images(data, assignment, ImageSettings(SIDE, SIDE, window=window), root, progress)
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return AuditReport(data, assignment, tuple(findings), folds, window)


def load_audited(spec: DataSpec | None, folds: Path | None) -> tuple[Dataset, FoldAssignment | None]:
    """Read what is to be audited: data, with a split of them where `folds` names one; or a split as it stands, where
    `spec` is None.

    What is noteworthy about the data is logged; what may be wrong with them is for the audit to say.
    """
    if spec is not None:
        data = read_data(spec, need_images=False)
        for line in data.notes:
            logger.info(line)
        return data, load_folds(folds, data.train) if folds is not None else None
    if folds is None:
        raise UsageError("there is nothing to check", hint="name a split, or the data with --data")
    assignment = load_folds(folds)
    logger.info("the split alone is looked at; with --data, its table and images too")
    return Dataset(_table_of(assignment, folds)), assignment


def _table_of(assignment: FoldAssignment, file: Path) -> SampleTable:
    """Return a split made elsewhere, as a table without images."""
    where = tuple(f"{file.name}: id {name}" for name in assignment.ids.tolist())
    classes = sort_classes(assignment.labels.tolist())
    return SampleTable(str(file), assignment.ids, None, assignment.labels, assignment.persons, classes, {}, {}, where)


def _look_at_images(
    data: Dataset, assignment: FoldAssignment | None, settings: ImageSettings, root: Path, progress: Progress
) -> list[Finding]:
    fold = None if assignment is None else assignment.fold
    train, findings = _decoded(data.train, "train", fold, settings, root, progress)
    test = None
    if data.test is not None:
        test, more = _decoded(data.test, "test", None, settings, root, progress)
        findings += more
    return findings if train is None else findings + audit_images(train, test)


def _decoded(
    table: SampleTable,
    part: str,
    fold: NDArray[np.integer] | None,
    settings: ImageSettings,
    root: Path,
    progress: Progress,
) -> tuple[AuditImages | None, list[Finding]]:
    """Return the images of a table that can be used (None where there are none at all); those that cannot are a
    finding.
    """
    paths = table.paths
    if paths is None or not any(path.exists() for path in paths):
        logger.info(f"the images of {table.source} are not there: its table alone is looked at")
        return None, []
    folder = root / CACHE / "images"
    with progress.step("decoding images") as advance:
        try:
            cache = load_images(paths, settings, cache_dir=folder, locations=table.locations, progress=advance)
            return pictures(table, cache, fold, part), []
        except EnsembleError:
            bad = dict(unusable_images(paths, table.locations, settings=settings))
            if not bad:
                raise
    message = f"{len(bad):,} of {len(table):,} images of {table.source} cannot be used: training will refuse them"
    cases = tuple(Occurrence(detail=line) for line in bad.values())
    finding = Finding("unusable images", ERROR, len(bad), "image", message, cases)
    good = np.array([at for at in range(len(table)) if at not in bad], np.int64)
    if not len(good):
        return None, [finding]
    rest = table.take(good)
    cache = load_images(rest.paths or (), settings, cache_dir=folder, locations=rest.locations)
    return pictures(rest, cache, None if fold is None else fold[good], part), [finding]


def audit_decoded(
    data: Dataset, train: DecodedImages, test: DecodedImages | None, fold: NDArray[np.integer]
) -> list[Finding]:
    """Return what may be wrong with images that are decoded for a training: the warnings, and what was not looked for.

    Parameters
    ----------
    fold : (n,) of each training sample.
    """
    sides = (
        pictures(data.train, train, fold),
        None if test is None or data.test is None else pictures(data.test, test, part="test"),
    )
    near = len(train.content) + (len(test.content) if test else 0) <= MOST_COMPARED
    return [finding for finding in audit_images(*sides, near=near) if finding.severity == WARNING or not near]


def check_strict(warnings: Sequence[str], findings: Sequence[Finding] = ()) -> None:
    """Raise an EnsembleError where there is a warning: lines about the data and the folds, or a finding of that
    severity.
    """
    serious = [finding for finding in findings if finding.severity == WARNING]
    count = len(warnings) + len(serious)
    if not count:
        return
    what = (
        "warning about the data or the folds, an error"
        if count == 1
        else "warnings about the data and the folds, errors"
    )
    raise EnsembleError(
        f"{count} {what} under --strict: nothing was trained",
        hint="ensemble folds check, with the same --data, shows all of it; without --strict it is trained all the same",
        details=[*warnings, *(line for finding in serious for line in finding.lines(shown=2))],
    )


def log_findings(findings: Sequence[Finding]) -> None:
    """Log what the audit before a training has found."""
    for finding in findings:
        if finding.severity == WARNING:
            logger.warning("\n".join(finding.lines()))
        else:
            logger.info(f"{finding.message}; ensemble folds check does")
