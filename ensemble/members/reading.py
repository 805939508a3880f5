"""Read and check the members of a blend: prediction files, bare arrays and CSVs of hard labels; numpy only."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ensemble.members.hard_labels import read_hard_labels
from ensemble.members.leakage import LeakCheck
from ensemble.members.scan import NEGATIVE, Scan, scan_arrays
from folds.errors import EnsembleError
from folds.predictions.files import PredictionMetadata, SampleRows, read_array, read_sidecar, sidecar_path
from folds.utils.files import sha256_bytes, sha256_file
from folds.utils.progress import SILENT, Progress

logger = logging.getLogger(__name__)

PLAIN_VIEWS = ((), ("none",))


@dataclass(frozen=True)
class Member:
    """One checked prediction file.

    Attributes
    ----------
    run : name of its run: from the sidecar, otherwise from the file name, with folders if that is not unique.
    values : (n, classes) as stored (a memory map of any number type and byte order); None for hard labels.
    answers : (n,) class names of a file of hard labels, otherwise None.
    logit : whether `values` are logits.
    sidecar : None for an array without a sidecar and for hard labels.
    rows : ids and other columns of the samples; None for an array without a sidecar, whose row order cannot be checked.
    all_rows : rows of the full table if the sidecar refers to a samples file; otherwise `rows`.
    sha : hash of content and meaning; equal for equal predictions of equal samples, independent of the file's path.
    content, meaning : hash of the file, and of what its numbers mean (samples, classes, split, kind) without the run's
        name.
    note : a remark on how the file was read; "" for none.
    """

    path: Path
    run: str
    values: NDArray | None
    answers: NDArray[np.str_] | None
    logit: bool
    sidecar: PredictionMetadata | None
    rows: SampleRows | None
    all_rows: SampleRows | None
    sha: str
    content: str = ""
    meaning: str = ""
    note: str = ""

    def __len__(self) -> int:
        return len(self.values) if self.values is not None else len(self.rows or ())

    @property
    def views(self) -> tuple[str, ...]:
        """Return the names of the merged test-time views; () for the plain prediction."""
        return () if self.sidecar is None or self.sidecar.views in PLAIN_VIEWS else self.sidecar.views

    @property
    def target(self) -> str:
        """Return ``label`` or the predicted attribute."""
        return "label" if self.sidecar is None else self.sidecar.target


def read_members(
    paths: Sequence[Path], logits: bool = False, allow_duplicates: bool = False, progress: Progress = SILENT
) -> list[Member]:
    """Return the checked prediction files; log a warning for each duplicate.

    Parameters
    ----------
    paths : ``.npy`` arrays, with or without a sidecar, and ``.csv`` files of hard labels.
    logits : arrays without a sidecar hold logits; so do arrays whose sidecar states probabilities but whose rows do not
        sum to 1.
    allow_duplicates : a duplicate of a file of the same run votes as a separate run, ``<run>#2``; by default it is left
        out. (Equal files of runs with other names: `ensemble.members.deduplication`.)

    Raises
    ------
    EnsembleError : a file is not a 2-D array of finite numbers, its rows do not sum to 1 (unless they are logits), it
        does not match its sidecar, it repeats an id, or its models were trained on rows that they predict
        (`ensemble.members.leakage`).
    """
    samples: dict[str, SampleRows] = {}
    checked: dict[int, tuple[SampleRows, str]] = {}
    members: list[Member] = []
    leak_check = LeakCheck()
    arrays = [(path, read_array(path)) for path in paths if path.suffix != ".csv"]
    with progress.step("reading and checking files") as advance, scan_arrays(arrays) as scans:
        pending = iter(zip(arrays, scans, strict=True))
        for done, path in enumerate(paths):
            advance(done, len(paths))
            if path.suffix == ".csv":
                member = _read_hard(path)
            else:
                (_, values), scan = next(pending)
                member = _read_array(path, values, scan, logits, samples)
            member = _with_rows(member, checked)
            if member.sidecar is not None:
                leak_check.check(path, member.sidecar)
            same = [other for other in members if _repeats(member, other)]
            if same and not allow_duplicates:
                logger.warning(
                    "%s has the same predictions as %s and is ignored (`allow_duplicates`: both vote)",
                    path,
                    same[0].path,
                )
                continue
            members.append(replace(member, run=f"{member.run}#{len(same) + 1}") if same else member)
        advance(len(paths), len(paths))
    return members


def _read_array(
    path: Path, values: NDArray, scan: Future[Scan], logits: bool, samples: dict[str, SampleRows]
) -> Member:
    sidecar = read_sidecar(path, samples)
    if sidecar is not None:
        _check_shape(path, values, sidecar)
    return _member_of_array(path, values, sidecar, scan.result(), logits, samples)


def _with_rows(member: Member, checked: dict[int, tuple[SampleRows, str]]) -> Member:
    """Return the member with checked rows, which its hashes include; `checked` caches the rows of other members."""
    if member.rows is None:
        return member
    if id(member.rows) not in checked:
        checked[id(member.rows)] = member.rows, _check_rows(member.path, member.rows)
    rows_sha = checked[id(member.rows)][1]
    return replace(member, sha=_hash_of(member.sha, rows_sha), meaning=_hash_of(member.meaning, rows_sha))


def _repeats(member: Member, other: Member) -> bool:
    return other.sha == member.sha and (member.sidecar is not None or _is_same_file(member.path, other.path))


def _read_hard(path: Path) -> Member:
    table = read_hard_labels(path)
    rows = SampleRows(table.ids)
    sha = sha256_file(path)
    return Member(path, path.stem, None, table.labels, False, None, rows, rows, sha, sha)


def _member_of_array(
    path: Path,
    values: NDArray,
    sidecar: PredictionMetadata | None,
    scan: Scan,
    logits: bool,
    samples: dict[str, SampleRows],
) -> Member:
    note = ""
    if sidecar is None:
        if _are_probabilities(path, scan, None, logits) and logits:
            note = f"{path}: rows sum to 1 like probabilities; read as logits (`logits=True`)"
        name = path.stem
        for split in (".oof", ".test"):
            name = name.removesuffix(split)
        return Member(path, name, values, None, logits, None, None, None, scan.sha, scan.sha, note=note)
    logit = sidecar.kind == "logit"
    if not _are_probabilities(path, scan, sidecar, logit or logits) and logits and not logit:
        note = f"{path}: the sidecar states probabilities, but rows do not sum to 1; read as logits (`logits=True`)"
        logit = True
    meaning = (
        sidecar.kind,
        sidecar.split,
        sidecar.classes,
        sidecar.target,
        sidecar.run,
        sidecar.views,
        sidecar.seed,
        sidecar.repeat,
    )
    folds = sha256_bytes(sidecar.fold.tobytes()) if isinstance(sidecar.fold, np.ndarray) else sidecar.fold
    sha = sha256_bytes(repr((scan.sha, meaning, sidecar.folds_sha, folds, sorted(sidecar.class_attributes))).encode())
    all_rows = samples.get(sidecar.samples_sha or "", sidecar.rows)
    return Member(
        path, sidecar.run, values, None, logit, sidecar, sidecar.rows, all_rows, sha, scan.sha, repr(meaning[:4]), note
    )


def _is_same_file(path: Path, other: Path) -> bool:
    return path.resolve() == other.resolve()


def _hash_of(*parts: str) -> str:
    return sha256_bytes(" ".join(parts).encode())


def _check_shape(path: Path, values: NDArray, sidecar: PredictionMetadata) -> None:
    sidecar_file, expected = sidecar_path(path), (len(sidecar.rows), len(sidecar.classes))
    if len(set(sidecar.classes)) < len(sidecar.classes):
        raise EnsembleError(
            f"{sidecar_file} repeats a class: {', '.join(sidecar.classes)}", hint="every column needs a unique name"
        )
    if values.shape != expected:
        raise EnsembleError(
            f"{path} is {values.shape[0]:,} × {values.shape[1]}, "
            f"but {sidecar_file.name} describes {expected[0]:,} samples × {expected[1]} classes",
            hint="one of the two files was replaced: write both again, or remove the sidecar to use the row order",
        )


def _are_probabilities(path: Path, scan: Scan, sidecar: PredictionMetadata | None, logits: bool) -> bool:
    """Return whether all rows are probabilities.

    Raises
    ------
    EnsembleError : a number is not finite, or rows are not probabilities and `logits` is False.
    """
    if scan.not_finite is not None:
        row, column, value = scan.not_finite
        raise EnsembleError(
            f"{path}: {_row_text(sidecar, row)}, column {column} is {value}, expected a finite number",
            hint="remove samples without a prediction (row and id)",
        )
    if scan.wrong and not logits:
        problem = f"has the value {scan.lowest:.4g}" if scan.lowest < NEGATIVE else f"sums to {scan.total:.4g}"
        stated = f" (stated in {sidecar_path(path).name})" if sidecar is not None else ""
        raise EnsembleError(
            f"{path}: expected probabilities{stated}, but {_row_text(sidecar, scan.first)} {problem}; "
            f"{scan.wrong:,} of {scan.rows:,} rows are not probabilities",
            hint="add `logits=True` if these are logits; otherwise divide each row by its sum",
        )
    return not scan.wrong


def _row_text(sidecar: PredictionMetadata | None, row: int) -> str:
    return f"row {row}" if sidecar is None else f"row {row} (id '{sidecar.rows.ids[row]}')"


def _check_rows(path: Path, rows: SampleRows) -> str:
    """Return the hash of ids, labels and persons.

    Raises
    ------
    EnsembleError : an id is repeated.
    """
    names = rows.ids.tolist()
    if len(set(names)) < len(names):
        seen: set[str] = set()
        repeated = [name for name in names if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
        raise EnsembleError(
            f"{path}: {len(set(repeated)):,} of {len(set(names)):,} ids are repeated, e.g. '{repeated[0]}'",
            hint="rows are aligned by id: each sample needs one row and a unique id",
        )
    digest = hashlib.sha256()
    for column in (rows.ids, rows.labels, rows.persons):
        digest.update(b"\x1e" if column is None else column.dtype.str.encode() + column.tobytes())
    return digest.hexdigest()
