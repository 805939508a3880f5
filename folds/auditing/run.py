"""Run an audit of a table, a split and their images, or of images decoded for training."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from folds.auditing.checks import (
    ERROR,
    MAX_COMPARED,
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
from folds.data.doubts import name_warnings
from folds.data.readers import read_data
from folds.data.table import Dataset, DataSpec, SampleTable
from folds.errors import EnsembleError, UsageError, without_marks
from folds.images.cache import DecodedImages, load_images, unusable_images
from folds.images.duplicates import SIDE
from folds.images.settings import CACHE, ImageSettings
from folds.images.stacks import may_be_channels, stack_parts
from folds.splits.assignment import FoldAssignment, load_folds
from folds.splits.columns import folds_of_column, unused_fold_note
from folds.utils.display import Displayed, Table
from folds.utils.progress import SILENT, Progress

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

SEVERITIES = (ERROR, WARNING, NOTE)
_PICTURE = 75_000  # characters of the suspicious images in a notebook


@dataclass(frozen=True, eq=False, repr=False)
class AuditReport(Displayed):
    """Result of an audit.

    Attributes
    ----------
    assignment : the audited split; None if there is none.
    findings : errors first, then warnings, then notes.
    folds : file of the split.
    window : intensity range mapped to black and white in images with more than 8 bits; None for the full range.
    images : number of images that were looked at; None if they were not to be looked at.
    """

    data: Dataset
    assignment: FoldAssignment | None
    findings: tuple[Finding, ...]
    folds: Path | None = None
    window: tuple[float, float] | None = None
    images: int | None = None

    @property
    def people(self) -> int:
        """Return the number of people in the training samples; 0 if unknown."""
        persons = self.data.train.persons
        return 0 if persons is None else len(self.data.train.factorized_persons[0])

    def serious(self, strict: bool = False) -> list[Finding]:
        """Return the errors, and with `strict` also the warnings."""
        return [one for one in self.findings if one.severity == ERROR or (strict and one.severity == WARNING)]

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain values, for JSON."""
        return {
            "data": self.data.train.source,
            "folds": str(self.folds) if self.folds else None,
            "samples": len(self.data.train),
            "people": self.people,
            "images": self.images,
            "counts": {severity: sum(one.severity == severity for one in self.findings) for severity in SEVERITIES},
            "findings": [finding.to_dict() for finding in self.findings],
        }

    def frame(self) -> pd.DataFrame:
        """Return a DataFrame with a row per finding: severity, kind, count, unit, message."""
        import pandas as pd

        columns = ["severity", "kind", "count", "unit", "message"]
        return pd.DataFrame([[getattr(one, name) for name in columns] for one in self.findings], columns=columns)

    def display_table(self) -> Table:
        """Return the table to display: a line per finding."""
        rows = [[one.severity, one.kind, one.amount, without_marks(one.message)] for one in self.findings]
        samples = f"{len(self.data.train):,} samples of {self.people:,} people"
        if not rows:
            return Table(f"{samples}: nothing found")
        return Table(samples, ["severity", "finding", "count", "meaning"], rows, left=4)

    def display_parts(self) -> Sequence[str]:
        """Return the suspicious images side by side; () if there are none."""
        from PIL import Image

        from folds.utils import html  # here, because only notebooks need it
        from folds.utils.drawing import picture_source

        with tempfile.TemporaryDirectory() as folder:
            sheet = Path(folder) / "sheet.png"
            if not self.write_sheet(sheet):
                return ()
            with Image.open(sheet) as picture:
                source = picture_source(picture.convert("RGB"), _PICTURE)
        return (html.image(source, "suspicious images"),)

    def write_sheet(self, path: Path) -> int:
        """Write a PNG of the suspicious images side by side; return its number of cases. Without cases: 0, no file."""
        from folds.auditing.contact_sheet import write_sheet

        tables = {"train": self.data.train, "test": self.data.test}
        rows_of = {
            part: (table, {name: at for at, name in enumerate(table.ids.tolist())})
            for part, table in tables.items()
            if table is not None
        }

        def file_of(row: SampleRef) -> Path | None:
            # By id, because positions do not count the rows with unusable images, which were removed.
            table, index = rows_of[row.part]
            return None if table.paths is None else table.paths[index[row.id]]

        limit = self.data.spec.max_pixels if self.data.spec is not None else None
        return write_sheet(path, self.findings, file_of, self.window, limit)


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
    """Return an audit of data, their images and a split.

    Parameters
    ----------
    assignment : folds of ``data.train``; None: report the classes with too few people for `k` folds.
    images : whether to audit the images; they are decoded at thumbnail size into ``.ensemble/images`` in `root`.
    window : intensity range mapped to black and white in images with more than 8 bits; None for the full range.
    folds : file of the split, for the report.

    Raises
    ------
    EnsembleError : a person is in two folds (see `folds.splits.checks.check_folds`).
    """
    findings = audit_table(data, assignment, k)
    count = None
    if images:
        # Decoding a JPEG at the size of the thumbnails takes a fraction of the time.
        limit = data.spec.max_pixels if data.spec is not None else None
        sides = [table for table in (data.train, data.test) if table is not None]
        # Not for all: thumbnails of an earlier version are used again.
        preview = any(may_be_channels(table.paths or ()) for table in sides)
        settings = ImageSettings(SIDE, SIDE, window=window, max_pixels=limit, preview=preview)
        count, more = _audit_images(data, assignment, settings, root, progress)
        findings += more
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return AuditReport(data, assignment, tuple(findings), folds, window, count)


def load_audited(
    spec: DataSpec | None,
    folds: Path | None,
    columns: Mapping[str, str | None] | None = None,
    images: bool = True,
) -> tuple[Dataset, FoldAssignment | None]:
    """Return the data to audit, and their split; if `spec` is None, return the split alone.

    The notes of the data are logged; their warnings become findings of the audit.

    Parameters
    ----------
    folds : file of the split; None for the column `fold` of the table, or no split.
    columns : role (id, label, person, fold) → column of the file, or of the table for the fold, where it is named.
    images : whether images will be looked at, so that their files are looked for.

    Raises
    ------
    UsageError : both `spec` and `folds` are None.
    """
    if spec is not None:
        data = read_data(spec, need_images=False, find_images=images)
        for line in data.notes:
            logger.info(line)
        column = (columns or {}).get("fold")
        if folds is not None:
            return data, load_folds(folds, data.train, columns)
        if column is not None:
            return data, folds_of_column(data.train, column)
        for line in unused_fold_note(data.train):
            logger.info(line)
        return data, None
    if folds is None:
        raise UsageError("expected a split or data to check, found neither", hint="name a split, or give `data`")
    assignment = load_folds(folds, columns=columns)
    logger.info("only the split is checked; with `data`, the table and the images are checked too")
    table = _table_of(assignment, folds)
    return Dataset(table, warnings=tuple(name_warnings(table))), assignment


def _table_of(assignment: FoldAssignment, file: Path) -> SampleTable:
    """Return a split of another program as a table without images."""
    locations = tuple(f"{file.name}: id {name}" for name in assignment.ids.tolist())
    classes = assignment.classes
    return SampleTable(
        str(file),
        assignment.ids,
        None,
        assignment.labels,
        assignment.persons,
        classes,
        {},
        {},
        locations,
        assignment.task,
    )


def _audit_images(
    data: Dataset, assignment: FoldAssignment | None, settings: ImageSettings, root: Path, progress: Progress
) -> tuple[int, list[Finding]]:
    """Return the number of images that were looked at, and findings about them."""
    fold = None if assignment is None else assignment.fold
    train, findings = _decoded(data.train, "train", fold, settings, root, progress)
    test = None
    if data.test is not None:
        test, more = _decoded(data.test, "test", None, settings, root, progress)
        findings += more
    count = sum(len(side.content) for side in (train, test) if side is not None)
    return count, findings if train is None else findings + audit_images(train, test)


def _decoded(
    table: SampleTable,
    part: str,
    fold: NDArray[np.integer] | None,
    settings: ImageSettings,
    root: Path,
    progress: Progress,
) -> tuple[AuditImages | None, list[Finding]]:
    """Return the usable images of a table (None if there are none), and a finding if some are unusable."""
    paths = table.paths
    if paths is None:
        logger.info(f"{table.source} names no images: only its table is checked")
        return None, []
    if not any(stack_parts(path)[0].exists() for path in paths):
        message = (
            f"none of the {len(paths):,} images of {table.source} was found, e.g. {stack_parts(paths[0])[0]}: only the "
            "table is checked; name their folder with `images`, or check the table alone with `no_images=True`"
        )
        return None, [Finding("no images found", WARNING, len(paths), "image", message)]
    folder = root / CACHE / "images"
    with progress.step("decoding images") as advance:
        try:
            cache = load_images(paths, settings, cache_dir=folder, locations=table.locations, progress=advance)
            return pictures(table, cache, fold, part), []
        except EnsembleError:
            bad = dict(unusable_images(paths, table.locations, settings=settings))
            if not bad:
                raise
    message = f"{len(bad):,} of {len(table):,} images of {table.source} cannot be used: training will fail"
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
    """Return warnings about images decoded for training, and a note if altered copies were not looked for.

    Parameters
    ----------
    fold : (n,) fold of each training sample.
    """
    sides = (
        pictures(data.train, train, fold),
        None if test is None or data.test is None else pictures(data.test, test, part="test"),
    )
    near = len(train.content) + (len(test.content) if test else 0) <= MAX_COMPARED
    return [finding for finding in audit_images(*sides, near=near) if finding.severity == WARNING or not near]


def check_strict(warnings: Sequence[str], findings: Sequence[Finding] = ()) -> None:
    """Raise EnsembleError if there are `warnings` about data or folds, or findings that are warnings."""
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
        f"{count} {what} with `strict=True`: nothing was trained",
        hint="for the full report, run ensemble folds check with the same data; to train anyway, omit `strict`",
        details=[*warnings, *(line for finding in serious for line in finding.lines(shown=2))],
    )


def log_findings(findings: Sequence[Finding]) -> None:
    """Log the findings of the audit before training."""
    for finding in findings:
        if finding.severity == WARNING:
            logger.warning("\n".join(finding.lines()))
        else:
            logger.info(f"{finding.message}; ensemble folds check searches for them")
