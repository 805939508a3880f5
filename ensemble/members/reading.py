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
from ensemble.members.scan import NEGATIVE, Scan, scanned
from folds.errors import EnsembleError
from folds.predictions.files import PredictionMetadata, SampleRows, read_array, read_sidecar, sidecar_path
from folds.utils.files import sha256_bytes, sha256_file

logger = logging.getLogger(__name__)

PLAIN_VIEWS = ((), ("none",))


@dataclass(frozen=True)
class Member:
    """One file, checked.

    Attributes
    ----------
    run : the run it belongs to: the sidecar's, otherwise the file's name, longer where that is not unique.
    values : (n, classes) as stored (a memory map of any number type and byte order), None for hard labels.
    answers : (n,) class names of a file of hard labels, otherwise None.
    logit : whether `values` are logits.
    sidecar : None for a bare array and for hard labels.
    rows : ids and what else is known of the samples; None for a bare array, whose row order is taken on trust.
    whole : the rows of the whole table, where the sidecar refers to a samples file; otherwise `rows`.
    sha : of the content and its meaning; equal for equal predictions of equal samples, wherever the files lie.
    content, meaning : hashes of the file, and of what its numbers mean (samples, classes, split, kind), whatever the run is called.
    note : what a reader must know of how it was read; "" for nothing.
    """

    path: Path
    run: str
    values: NDArray | None
    answers: NDArray[np.str_] | None
    logit: bool
    sidecar: PredictionMetadata | None
    rows: SampleRows | None
    whole: SampleRows | None
    sha: str
    content: str = ""
    meaning: str = ""
    note: str = ""

    def __len__(self) -> int:
        return len(self.values) if self.values is not None else len(self.rows or ())

    @property
    def views(self) -> tuple[str, ...]:
        """The test-time views that were merged; () for the plain prediction."""
        return () if self.sidecar is None or self.sidecar.views in PLAIN_VIEWS else self.sidecar.views

    @property
    def target(self) -> str:
        """``label``, or the attribute that is predicted."""
        return "label" if self.sidecar is None else self.sidecar.target


def read_members(paths: Sequence[Path], logits: bool = False, allow_duplicates: bool = False) -> list[Member]:
    """Read and check files of predictions; warn of one that repeats another.

    Parameters
    ----------
    paths : ``.npy`` arrays, with or without a sidecar, and ``.csv`` files of hard labels.
    logits : arrays without a sidecar hold logits; so does one whose sidecar says probabilities where it cannot be right.
    allow_duplicates : a file that repeats another of its run votes as a run of its own, ``<run>#2``; without it, it is
        left out. (Equal files of runs with other names: `ensemble.members.deduplication`.)

    Raises
    ------
    EnsembleError : a file is not a 2-D array of finite numbers, its rows do not sum to 1 (unless they are logits), it
        does not fit its sidecar, repeats an id, or its models have seen in training what they predict (`ensemble.members.leakage`).
    """
    samples: dict[str, SampleRows] = {}
    checked: dict[int, tuple[SampleRows, str]] = {}
    members: list[Member] = []
    leaks = LeakCheck()
    arrays = [(path, read_array(path)) for path in paths if path.suffix != ".csv"]
    with scanned(arrays) as scans:
        under_way = iter(zip(arrays, scans, strict=True))
        for path in paths:
            if path.suffix == ".csv":
                member = _read_hard(path)
            else:
                (_, values), scan = next(under_way)
                member = _read_array(path, values, scan, logits, samples)
            member = _with_rows(member, checked)
            if member.sidecar is not None:
                leaks.check(path, member.sidecar)
            same = [other for other in members if _repeats(member, other)]
            if same and not allow_duplicates:
                logger.warning(
                    "%s holds the same predictions as %s; they count once (`allow_duplicates`: each votes)",
                    path,
                    same[0].path,
                )
                continue
            members.append(replace(member, run=f"{member.run}#{len(same) + 1}") if same else member)
    return members


def _read_array(
    path: Path, values: NDArray, scan: Future[Scan], logits: bool, samples: dict[str, SampleRows]
) -> Member:
    sidecar = read_sidecar(path, samples)
    if sidecar is not None:
        _check_shape(path, values, sidecar)
    return _of_array(path, values, sidecar, scan.result(), logits, samples)


def _with_rows(member: Member, checked: dict[int, tuple[SampleRows, str]]) -> Member:
    """Return the member with its rows checked and in its hashes; `checked` holds those of other members."""
    if member.rows is None:
        return member
    if id(member.rows) not in checked:
        checked[id(member.rows)] = member.rows, _check_rows(member.path, member.rows)
    who = checked[id(member.rows)][1]
    return replace(member, sha=_joined(member.sha, who), meaning=_joined(member.meaning, who))


def _repeats(member: Member, other: Member) -> bool:
    return other.sha == member.sha and (member.sidecar is not None or _one_file(member.path, other.path))


def _read_hard(path: Path) -> Member:
    table = read_hard_labels(path)
    rows = SampleRows(table.ids)
    found = sha256_file(path)
    return Member(path, path.stem, None, table.labels, False, None, rows, rows, found, found)


def _of_array(
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
            note = f"{path}: rows sum to 1 as probabilities do; read as logits, as was asked"
        name = path.stem
        for split in (".oof", ".test"):
            name = name.removesuffix(split)
        return Member(path, name, values, None, logits, None, None, None, scan.sha, scan.sha, note=note)
    logit = sidecar.kind == "logit"
    if not _are_probabilities(path, scan, sidecar, logit or logits) and logits and not logit:
        note = f"{path}: its sidecar says probabilities, its rows do not sum to 1; read as logits, as was asked"
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
    whole = samples.get(sidecar.samples_sha or "", sidecar.rows)
    return Member(
        path, sidecar.run, values, None, logit, sidecar, sidecar.rows, whole, sha, scan.sha, repr(meaning[:4]), note
    )


def _one_file(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def _joined(*parts: str) -> str:
    return sha256_bytes(" ".join(parts).encode())


def _check_shape(path: Path, values: NDArray, sidecar: PredictionMetadata) -> None:
    beside, expected = sidecar_path(path), (len(sidecar.rows), len(sidecar.classes))
    if len(set(sidecar.classes)) < len(sidecar.classes):
        raise EnsembleError(
            f"{beside} repeats a class: {', '.join(sidecar.classes)}", hint="every column needs a name of its own"
        )
    if values.shape != expected:
        raise EnsembleError(
            f"{path} is {values.shape[0]:,} × {values.shape[1]}, but {beside.name} describes {expected[0]:,} samples × {expected[1]} classes",
            hint="one of the two was replaced: write both again, or remove the sidecar to take the rows on trust",
        )


def _are_probabilities(path: Path, scan: Scan, sidecar: PredictionMetadata | None, logits: bool) -> bool:
    """Whether all rows are probabilities; an error where a number is not finite, or where they are not and `logits` is not said."""
    if scan.not_finite is not None:
        row, column, value = scan.not_finite
        raise EnsembleError(
            f"{path}: {_place(sidecar, row)}, column {column} is {value}, expected a finite number",
            hint="leave a sample out (its row and its id) where there is no prediction",
        )
    if scan.wrong and not logits:
        what = f"has the value {scan.lowest:.4g}" if scan.lowest < NEGATIVE else f"sums to {scan.total:.4g}"
        said = f" as its sidecar {sidecar_path(path).name} says" if sidecar is not None else ""
        raise EnsembleError(
            f"{path}: expected probabilities{said}, but {_place(sidecar, scan.first)} {what}; so it is in {scan.wrong:,} of {scan.rows:,} rows",
            hint="add `logits=True` if these are logits; otherwise divide each row by its sum",
        )
    return not scan.wrong


def _place(sidecar: PredictionMetadata | None, row: int) -> str:
    return f"row {row}" if sidecar is None else f"row {row} (id '{sidecar.rows.ids[row]}')"


def _check_rows(path: Path, rows: SampleRows) -> str:
    """The hash of ids, labels and persons; an error where an id stands twice."""
    names = rows.ids.tolist()
    if len(set(names)) < len(names):
        seen: set[str] = set()
        repeated = [name for name in names if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
        raise EnsembleError(
            f"{path}: {len(set(repeated)):,} of {len(set(names)):,} ids stand more than once, e.g. '{repeated[0]}'",
            hint="rows are lined up by id: each sample needs one row and an id of its own",
        )
    digest = hashlib.sha256()
    for column in (rows.ids, rows.labels, rows.persons):
        digest.update(b"\x1e" if column is None else column.dtype.str.encode() + column.tobytes())
    return digest.hexdigest()
