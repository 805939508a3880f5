"""Hand a number over to a blend of grades: members of a regression become members of grades.

Each person's number is turned into probabilities of the grades by a fit on the people of the other outer folds; the
numbers of new samples by the fit on all people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.alignment.align import align
from ensemble.alignment.label_columns import members_task
from ensemble.alignment.truth import labels_and_groups
from ensemble.blending.inputs import row_orders
from ensemble.blending.request import BlendConfig
from ensemble.learning.cumulative import NumberToGrades, fit_grades
from ensemble.learning.nested import outer_fold_ids
from ensemble.members.reading import Member
from ensemble.members.true_labels import TrueLabels, read_true_labels
from folds.errors import EnsembleError, UsageError
from folds.metrics.task_names import ORDINAL, REGRESSION
from folds.predictions.files import PredictionMetadata
from folds.predictions.rows import SampleRows
from folds.utils.files import sha256_bytes


@dataclass(frozen=True)
class PreparedMembers:
    """Members of one task, the options for it, and what was handed over.

    Attributes
    ----------
    hand_overs : run → the fit on all people that turns its number into `grades`.
    notes : what was handed over, for the reader.
    """

    members: Sequence[Member]
    request: BlendConfig
    hand_overs: Mapping[str, NumberToGrades] = field(default_factory=dict)
    notes: Sequence[str] = ()
    grades: tuple[str, ...] = ()

    def hand_overs_to(self, classes: tuple[str, ...]) -> Mapping[str, NumberToGrades]:
        """Return the fits for the columns of the blend: descending if the positive one of two is the lower grade."""
        if classes == self.grades:
            return self.hand_overs
        return {name: fit.reversed() for name, fit in self.hand_overs.items()}


def prepare_members(members: Sequence[Member], request: BlendConfig) -> PreparedMembers:
    """Return members of one task and the options for it; members of a regression join members of grades.

    Raises
    ------
    UsageError : members of different tasks that cannot be joined, or an option that does not support the task.
    EnsembleError : nothing to fit the grades of a number to.
    """
    chosen = [one for one in members if request.runs is None or one.run in request.runs]
    numbers = [one for one in chosen if one.task == REGRESSION]
    others = [one for one in chosen if one.task != REGRESSION]
    if not numbers or not any(one.task == ORDINAL for one in others) or any(one.has_columns for one in others):
        return PreparedMembers(members, request.for_task(members_task(chosen, request.task)))
    request = replace(request, task=None)
    handed = _HandOver(others, request)
    made: list[Member] = []
    for run in dict.fromkeys(one.run for one in numbers):
        made += handed.run(run, [one for one in numbers if one.run == run])
    by_source = {one.source: one for one in made}
    joined = [by_source.get(one.source, one) for one in chosen]
    return PreparedMembers(joined, request.for_task(ORDINAL), handed.fits, handed.notes, handed.grades)


def metadata_of_grades(metadata: PredictionMetadata, grades: tuple[str, ...], rows: SampleRows) -> PredictionMetadata:
    """Return the metadata of a number's predictions after it was handed over to grades.

    Parameters
    ----------
    rows : of the predictions; their labels are numbers, and left out.
    """
    return replace(
        metadata,
        kind="probability",
        classes=grades,
        rows=_without_labels(rows),
        task=ORDINAL,
        class_attributes={},
        samples_sha=None,
    )


def _without_labels(rows: SampleRows) -> SampleRows:
    return SampleRows(rows.ids, None, rows.persons)


class _HandOver:
    """The grades of the people of a blend, to which numbers are fitted."""

    def __init__(self, others: Sequence[Member], request: BlendConfig) -> None:
        labels: TrueLabels | None = None
        if request.labels is not None:
            labels = read_true_labels(request.labels, request.columns)
        aligned = align(others, labels, request.classes, row_orders(request))
        split = aligned.splits.get("oof")
        truth = None if split is None else labels_and_groups(split)
        if split is None or truth is None:
            raise EnsembleError(
                "a number is handed over to grades by a fit to out-of-fold predictions with known grades, found none",
                hint="give the out-of-fold predictions of the grades as well, or `labels=FILE.csv`",
            )
        self.grades = split.classes
        self.truth = truth
        self.parts = outer_fold_ids(truth.persons, truth.labels, split.fold)
        self.position = {name: row for row, name in enumerate(split.rows.ids.tolist())}
        self.fits: dict[str, NumberToGrades] = {}
        self.notes: list[str] = []

    def run(self, name: str, files: Sequence[Member]) -> list[Member]:
        """Return the files of a run of numbers as files of grades."""
        for file in files:
            _check(file)
        numbers = self._out_of_fold(files)
        known = self.truth.known & ~np.isnan(numbers)
        folds = np.unique(self.parts[known])
        if len(folds) < 2 or len(np.unique(self.truth.labels[known])) < 2:
            raise EnsembleError(
                f"{files[0].path}: the number of {name} is handed over to grades by a fit on other people, found "
                f"{int(known.sum()):,} samples with both in {len(folds)} outer folds",
                hint="its out-of-fold predictions must be of the samples of the grades",
            )
        by_part = {int(part): self._fit(numbers, known & (self.parts != part)) for part in np.unique(self.parts)}
        whole = self._fit(numbers, known)
        self.fits[name] = whole
        points = ", ".join(f"{point:.4g}" for point in whole.points)
        self.notes.append(
            f"{name}: its number {files[0].classes[0] if files[0].classes else ''} is handed over to the grades "
            f"{', '.join(self.grades[:10])} by a cumulative logistic fit, for each person on others: even between two "
            f"grades at {points or 'none'}"
        )
        return [self._as_grades(file, by_part, whole) for file in files]

    def _out_of_fold(self, files: Sequence[Member]) -> NDArray[np.float64]:
        """Return (n,) the number of each sample of the grades, nan where there is none."""
        total, count = np.zeros(len(self.position)), np.zeros(len(self.position))
        for file in files:
            if file.rows is None or file.split == "test":
                continue
            at = np.array([self.position.get(one, -1) for one in file.rows.ids.tolist()])
            np.add.at(total, at[at >= 0], _numbers(file)[at >= 0])
            np.add.at(count, at[at >= 0], 1)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    def _fit(self, numbers: NDArray[np.float64], rows: NDArray[np.bool_]) -> NumberToGrades:
        return fit_grades(numbers[rows], self.truth.labels[rows], len(self.grades))

    def _as_grades(self, file: Member, by_part: Mapping[int, NumberToGrades], whole: NumberToGrades) -> Member:
        assert file.rows is not None  # noqa: S101 - checked by `_check`
        numbers = _numbers(file)
        values = whole.probabilities(numbers)
        at = np.array([self.position.get(one, -1) for one in file.rows.ids.tolist()])
        if file.split != "test":
            for part, fit in by_part.items():
                rows = np.flatnonzero((at >= 0) & (self.parts[np.maximum(at, 0)] == part))
                values[rows] = fit.probabilities(numbers[rows])
        rows_of = _without_labels(file.rows)
        fits = repr([(fit.slope, fit.cuts) for fit in [*by_part.values(), whole]])
        changed: dict[str, Any] = {
            "values": np.ascontiguousarray(values, np.float32),
            "rows": rows_of,
            "all_rows": rows_of,
            "classes": self.grades,
            "task": ORDINAL,
            "sha": sha256_bytes(f"{file.sha} {fits}".encode()),
        }
        if file.sidecar is not None:
            changed["sidecar"] = metadata_of_grades(file.sidecar, self.grades, file.rows)
        return replace(file, **changed)


def _check(file: Member) -> None:
    """Raise UsageError unless a file has one number of each sample, with ids."""
    assert file.values is not None  # noqa: S101 - numbers are no answers
    if file.values.shape[1] != 1:
        raise UsageError(
            f"{file.path} has {file.values.shape[1]} numbers ({', '.join(file.classes[:10])}): one number is "
            "handed over to grades",
            hint="write the one that the grades are made of to a file of its own",
        )
    if file.rows is None:
        raise UsageError(
            f"{file.path} has no ids, so its number cannot be handed over to the grades of the same samples",
            hint="add a sidecar, or write a table with a column of ids",
        )


def _numbers(file: Member) -> NDArray[np.float64]:
    return np.asarray(file.values, np.float64)[:, 0]
