"""Say how each file of a blend is read and what would be done, and write nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ensemble.blending.aligned import AlignedMembers, align_members
from ensemble.blending.blend import read_inputs
from ensemble.blending.hand_over import prepare_members
from ensemble.blending.inputs import reading_notes, reading_warnings
from ensemble.blending.request import BlendConfig
from ensemble.members.columns import listed
from ensemble.members.reading import Member
from folds.errors import EnsembleError, without_marks
from folds.metrics.task_names import REGRESSION
from folds.predictions.label_columns import COLUMN_NAMES


@dataclass(frozen=True)
class FileReading:
    """How one file was read.

    Attributes
    ----------
    form : ``probabilities``, ``answers``, ``one probability per row``, ``logits``, with the kind of file.
    ids : where the ids come from.
    order : the file whose row order an array without ids was given.
    classes : the class of each column, in the order of the file; for answers the classes that occur.
    assumed : whether the order of the columns was assumed.
    columns : the columns of a table that were read, as text.
    """

    path: str
    run: str
    form: str
    rows: int
    split: str
    ids: str
    order: str
    classes: tuple[str, ...]
    assumed: bool
    columns: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return vars(self) | {"classes": list(self.classes)}


@dataclass(frozen=True)
class BlendCheck:
    """What `ensemble blend` would do with files.

    Attributes
    ----------
    files : how each file was read.
    plan : what would be done, as text; "" if the files cannot be blended.
    notes, warnings : as those of the blend.
    error : why the files cannot be blended, or None.
    """

    files: tuple[FileReading, ...]
    plan: str
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    error: EnsembleError | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for ``--json``."""
        error = None if self.error is None else without_marks(self.error.message)
        return {
            "files": [one.to_dict() for one in self.files],
            "plan": without_marks(self.plan),
            "notes": list(map(without_marks, self.notes)),
            "warnings": list(map(without_marks, self.warnings)),
            "error": error,
            "hint": None if self.error is None or self.error.hint is None else without_marks(self.error.hint),
        }


def check_blend(files: Sequence[str | Path], request: BlendConfig) -> BlendCheck:
    """Return how files are read, and what `make_blend` would do with them.

    Raises
    ------
    UsageError, EnsembleError : the errors of `make_blend` for a file by itself. An error of all files together is part
        of the result, so that the reading of each file is known.
    """
    request.check()
    members = read_inputs(files, request)
    try:
        prepared = prepare_members(members, request)
        members, request = list(prepared.members), prepared.request
        aligned = align_members(members, request)
    except EnsembleError as error:
        notes, warnings = reading_notes(members, None), reading_warnings(members, None)
        return BlendCheck(tuple(map(_reading, members)), "", tuple(notes), tuple(warnings), error)
    placed = {member.source: member for member in aligned.alignment.members}
    readings = tuple(_reading(placed.get(member.source, member), aligned) for member in members)
    return BlendCheck(readings, _plan(aligned, request), (*prepared.notes, *aligned.notes), tuple(aligned.warnings))


def _reading(member: Member, aligned: AlignedMembers | None = None) -> FileReading:
    alignment = None if aligned is None else aligned.alignment
    used = alignment is None or member.source in alignment.placed
    split = member.split if alignment is None else alignment.placed.get(member.source, "not used")
    order = "" if alignment is None else alignment.order.get(member.source, "")
    positional = member.source in alignment.order if alignment is not None else member.rows is None
    if member.sidecar is not None:
        ids = "sidecar"
    elif positional:
        ids = f"those of {order}" if order else "none: rows are numbered" if alignment is not None else "none"
    else:
        ids = next(
            (part.partition(" = ")[2] for part in member.summary.split(", ") if part.startswith("id = ")), "file"
        )
    kind = "logits" if member.logit and member.answers is None and not member.one_column else ""
    values = kind or _values_of(member)
    form = member.form if member.form in ("answers", "probabilities", "numbers", "one probability per row") else ""
    names = {"sidecar": "array with sidecar", "array": "array", "one column": "array of one column"}
    form = form if form and not kind else f"{names.get(member.form, member.form or 'table')}: {values}"
    return FileReading(
        member.source,
        member.run,
        form,
        len(member),
        split or "unknown",
        ids,
        order,
        tuple(sorted(set(member.answers.tolist()))) if member.answers is not None else member.classes,
        used and alignment is not None and member.source in alignment.assumed,
        member.summary,
    )


def _plan(aligned: AlignedMembers, request: BlendConfig) -> str:
    parts = []
    for name, split in aligned.splits.items():
        runs = [run.name for run in split.runs]
        labeled = "scored" if name in aligned.truths else "not scored (no labels)"
        parts.append(
            f"{name}: {request.name} of {listed(runs)} over {len(split):,} rows and {len(split.classes)} "
            f"{COLUMN_NAMES.get(split.task, 'classes')} ({listed(split.classes)}), {labeled}"
        )
    return "; ".join(parts)


def _values_of(member: Member) -> str:
    if member.answers is not None:
        return "answers"
    return "numbers" if member.task == REGRESSION else "probabilities"
