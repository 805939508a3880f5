"""Read and check the members of a blend: prediction files, bare arrays and CSVs of hard labels; numpy only."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ensemble.hard_labels import lists_samples, read_hard_labels
from folds.csv_table import read_header
from folds.errors import EnsembleError, nearest, unknown
from folds.files import sha256_bytes, sha256_file
from folds.predictions import Rows, Sidecar, read_array, read_sidecar, sidecar_path

Note = Callable[[str], None]
PLAIN_VIEWS = ((), ("none",))
# How far a row may be from summing to 1: what rounding to that type can do, with room for products of softmaxes in bf16.
SUM_TOLERANCE = {"float16": 5e-3, "float32": 2e-3, "float64": 2e-3}
_NEGATIVE = -1e-6
_CHECKED_AT_ONCE = 1 << 17  # numbers: a block and its float64 copy stay in the processor's cache


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
    """

    path: Path
    run: str
    values: NDArray | None
    answers: NDArray[np.str_] | None
    logit: bool
    sidecar: Sidecar | None
    rows: Rows | None
    whole: Rows | None
    sha: str

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


def find_files(given: Sequence[Path], warn: Note = lambda text: None) -> list[Path]:
    """The files that were named, each once; a pattern that the shell did not expand is expanded.

    Raises
    ------
    EnsembleError : a file is missing, a pattern matches nothing, or it is no file of predictions.
    """
    found: list[Path] = []
    for path in given:
        if path.exists() or not any(mark in str(path) for mark in "*?["):
            found.append(path)
        else:
            found += _expand(path)
    kept: dict[Path, Path] = {}
    for path in found:
        _check_name(path)
        if path.resolve() in kept:
            warn(f"{path} is given twice; it counts once")
        kept.setdefault(path.resolve(), path)
    return list(kept.values())


def _expand(pattern: Path) -> list[Path]:
    root = Path(pattern.anchor)
    matches = sorted(path for path in root.glob(str(pattern.relative_to(root))) if path.is_file())
    if matches:
        return matches
    others = [*sorted(Path().glob("*.npy")), *sorted(Path().glob("*/*.npy"))]
    if others:
        listed = ", ".join(map(str, others[:5])) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
        raise EnsembleError(f"no file matches {pattern}", hint=f"there are: {listed}")
    raise EnsembleError(f"no file matches {pattern}, and there are no predictions below this folder", hint="ensemble kfold --k 5 --arch swin")


def _check_name(path: Path) -> None:
    if path.is_dir():
        raise EnsembleError(f"{path} is a folder, expected files of predictions", hint=f"ensemble blend {path}/*.npy")
    if not path.exists():
        beside = [str(other) for other in path.parent.glob("*.npy")] if path.parent.is_dir() else []
        close = nearest(str(path), beside)
        raise EnsembleError(
            f"there is no file {path}" + (f"; did you mean {' or '.join(close)}?" if close else ""),
            hint=f"{path.parent} has {', '.join(sorted(beside)[:5])}" if beside else "ensemble kfold --k 5 --arch swin writes predictions to runs/",
        )
    if path.suffix not in (".npy", ".csv"):
        which = " (a sidecar is found by itself)" if path.suffix == ".json" else ""
        raise EnsembleError(f"{path}: expected a .npy array or a .csv of hard labels{which}", hint=f"ensemble blend {path.parent}/*.npy")
    if path.suffix == ".csv" and (path.name.startswith("samples-") or lists_samples(read_header(path))):
        raise EnsembleError(
            f"{path} lists samples with their true labels, it is no prediction",
            hint=f"to score against it: ensemble blend runs/*.npy --labels {path}",
        )


def read_members(paths: Sequence[Path], logits: bool = False, note: Note = lambda text: None, warn: Note = lambda text: None) -> list[Member]:
    """Read and check files of predictions.

    Parameters
    ----------
    paths : ``.npy`` arrays, with or without a sidecar, and ``.csv`` files of hard labels.
    logits : arrays without a sidecar hold logits; so does one whose sidecar says probabilities where it cannot be right.

    Raises
    ------
    EnsembleError : a file is not a 2-D array of finite numbers, its rows do not sum to 1 (unless they are logits), it
        does not fit its sidecar, repeats an id, or a person stands in two of its out-of-fold folds.
    """
    samples: dict[str, Rows] = {}
    checked: dict[int, str] = {}
    members: list[Member] = []
    for path in paths:
        member = _read_hard(path) if path.suffix == ".csv" else _read_array(path, logits, samples, note)
        if member.rows is not None:
            if id(member.rows) not in checked:
                checked[id(member.rows)] = _check_rows(path, member.rows)
            member = replace(member, sha=sha256_bytes(f"{member.sha} {checked[id(member.rows)]}".encode()))
        same = next((other for other in members if other.sha == member.sha), None)
        if same is not None and member.sidecar is not None:
            warn(f"{path} holds the same predictions as {same.path}; they count once")
            continue
        if same is not None:
            warn(f"{path} has the same content as {same.path}; each of the two votes")
        members.append(member)
    _check_persons(members)
    return _named_apart(members)


def _read_hard(path: Path) -> Member:
    table = read_hard_labels(path)
    rows = Rows(table.ids)
    return Member(path, path.stem, None, table.labels, False, None, rows, rows, sha256_file(path))


def _read_array(path: Path, logits: bool, samples: dict[str, Rows], note: Note) -> Member:
    values, sidecar = read_array(path), read_sidecar(path, samples)
    found = sha256_file(path)
    if sidecar is None:
        shown = _check_values(path, values, None, logits)
        if logits and shown:
            note(f"{path}: rows sum to 1 as probabilities do; read as logits, because --from says so")
        name = path.stem
        for split in (".oof", ".test"):
            name = name.removesuffix(split)
        return Member(path, name, values, None, logits, None, None, None, found)
    _check_shape(path, values, sidecar)
    logit = sidecar.kind == "logit"
    if not _check_values(path, values, sidecar, logit or logits) and logits and not logit:
        note(f"{path}: its sidecar says probabilities, its rows do not sum to 1; read as logits, because --from says so")
        logit = True
    meaning = (sidecar.kind, sidecar.split, sidecar.classes, sidecar.target, sidecar.run, sidecar.views, sidecar.seed, sidecar.repeat)
    folds = sha256_bytes(sidecar.fold.tobytes()) if isinstance(sidecar.fold, np.ndarray) else sidecar.fold
    sha = sha256_bytes(repr((found, meaning, sidecar.folds_sha, folds, sorted(sidecar.class_attributes))).encode())
    whole = samples.get(sidecar.samples_sha or "", sidecar.rows)
    return Member(path, sidecar.run, values, None, logit, sidecar, sidecar.rows, whole, sha)


def _check_shape(path: Path, values: NDArray, sidecar: Sidecar) -> None:
    beside, expected = sidecar_path(path), (len(sidecar.rows), len(sidecar.classes))
    if len(set(sidecar.classes)) < len(sidecar.classes):
        raise EnsembleError(f"{beside} repeats a class: {', '.join(sidecar.classes)}", hint="every column needs a name of its own")
    if values.shape != expected:
        raise EnsembleError(
            f"{path} is {values.shape[0]:,} × {values.shape[1]}, but {beside.name} describes {expected[0]:,} samples × {expected[1]} classes",
            hint="one of the two was replaced: write both again, or remove the sidecar to take the rows on trust",
        )


def _check_values(path: Path, values: NDArray, sidecar: Sidecar | None, logits: bool) -> bool:
    """Whether all rows are probabilities; an error where a number is not finite, or where they are not and `logits` is not said."""
    tolerance = SUM_TOLERANCE.get(values.dtype.name, 2e-3)
    ones, size = np.ones(values.shape[1]), max(1, _CHECKED_AT_ONCE // values.shape[1])
    wrong, first, found, lowest = 0, -1, 0.0, 0.0
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, len(values), size):
            block = values[start : start + size].astype(np.float64)
            sums = block @ ones
            if not np.isfinite(sums).all() and not np.isfinite(block).all():
                row = int(np.flatnonzero(~np.isfinite(block).all(axis=1))[0])
                column = int(np.flatnonzero(~np.isfinite(block[row]))[0])
                value = block[row, column]
                raise EnsembleError(
                    f"{path}: {_place(sidecar, start + row)}, column {column} is {value}, expected a finite number",
                    hint="leave a sample out (its row and its id) where there is no prediction",
                )
            bad = ~(np.abs(sums - 1) <= tolerance)
            if block.min() < _NEGATIVE:
                bad |= block.min(axis=1) < _NEGATIVE
            if bad.any():
                wrong += int(bad.sum())
                if first < 0:
                    first = int(np.flatnonzero(bad)[0])
                    found, lowest = float(sums[first]), float(block[first].min())
                    first += start
    if wrong and not logits:
        what = f"has the value {lowest:.4g}" if lowest < _NEGATIVE else f"sums to {found:.4g}"
        said = f" as its sidecar {sidecar_path(path).name} says" if sidecar is not None else ""
        raise EnsembleError(
            f"{path}: expected probabilities{said}, but {_place(sidecar, first)} {what}; so it is in {wrong:,} of {len(values):,} rows",
            hint="add --from logit if these are logits; otherwise divide each row by its sum",
        )
    return not wrong


def _place(sidecar: Sidecar | None, row: int) -> str:
    return f"row {row}" if sidecar is None else f"row {row} (id '{sidecar.rows.ids[row]}')"


def _check_rows(path: Path, rows: Rows) -> str:
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


def _check_persons(members: Sequence[Member]) -> None:
    """No person may stand in two folds of one out-of-fold member: its score would be of images of people seen in training."""
    codes: dict[int, NDArray[np.int64]] = {}
    for member in members:
        sidecar = member.sidecar
        if sidecar is None or sidecar.split != "oof" or sidecar.rows.persons is None or not isinstance(sidecar.fold, np.ndarray):
            continue
        if id(sidecar.rows) not in codes:
            position: dict[str, int] = {}
            codes[id(sidecar.rows)] = np.array([position.setdefault(name, len(position)) for name in sidecar.rows.persons.tolist()])
        person = codes[id(sidecar.rows)]
        fold_of = np.zeros(int(person.max()) + 1, sidecar.fold.dtype)
        fold_of[person] = sidecar.fold
        torn = np.flatnonzero(fold_of[person] != sidecar.fold)
        if len(torn):
            name = sidecar.rows.persons[torn[0]]
            folds = sorted(set(sidecar.fold[sidecar.rows.persons == name].tolist()))
            raise EnsembleError(
                f"{member.path}: person '{name}' stands in folds {', '.join(map(str, folds))}; "
                f"so do {len(set(sidecar.rows.persons[torn].tolist())):,} of {len(fold_of):,} people",
                hint="such a score is of people seen in training; split by person: ensemble folds",
            )


def _named_apart(members: Sequence[Member]) -> list[Member]:
    """Runs of files without a sidecar get names that no other run has: as much of the path as that takes."""
    without = [member for member in members if member.sidecar is None]
    taken = {member.run for member in members if member.sidecar is not None}

    def longer(member: Member, depth: int) -> str:
        return "/".join([*member.path.resolve().parts[1:-1][-depth:], member.run]) if depth else member.run

    def split_of(member: Member) -> str:
        return member.path.stem.removeprefix(member.run)  # `a.oof.npy` and `a.test.npy` are two splits of one run

    def name(member: Member) -> str:
        others = [other for other in without if other is not member and split_of(other) == split_of(member)]
        for depth in range(len(member.path.resolve().parts)):
            if longer(member, depth) not in taken | {longer(other, depth) for other in others}:
                return longer(member, depth)
        return member.path.name

    return [member if member.sidecar is not None else replace(member, run=name(member)) for member in members]


def select_runs(members: Sequence[Member], runs: Sequence[str] | None) -> list[Member]:
    """The members of these runs; all of them without `runs`. An unknown run is an error that offers the nearest."""
    if runs is None:
        return list(members)
    known = list(dict.fromkeys(member.run for member in members))
    for name in runs:
        if name not in known:
            raise unknown("run", name, known)
    return [member for member in members if member.run in runs]
