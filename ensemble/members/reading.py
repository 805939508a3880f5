"""Read and check the members of a blend: prediction files, bare arrays, archives and tables; numpy only."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ensemble.members.arrays import ArrayFile, read_arrays, two_columns
from ensemble.members.checks import are_probabilities, check_rows, check_shape, has_logits, is_table
from ensemble.members.columns import ColumnNames
from ensemble.members.label_tables import read_column_table
from ensemble.members.leakage import LeakCheck
from ensemble.members.naming import run_and_split, word_splits
from ensemble.members.scan import Scan, scan_arrays
from ensemble.members.tables import PredictionTable, read_prediction_table
from folds.errors import EnsembleError
from folds.metrics.task_names import CLASSES, COLUMN_TASKS, REGRESSION
from folds.predictions.files import PredictionMetadata, SampleRows, read_sidecar, sidecar_path
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
    sidecar : None for an array without a sidecar and for tables.
    rows : ids and other columns of the samples; None for an array without ids, whose row order cannot be checked.
    all_rows : rows of the full table if the sidecar refers to a samples file; otherwise `rows`.
    sha : hash of content and meaning; equal for equal predictions of equal samples, independent of the file's path.
    content, meaning : hash of the file, and of what its numbers mean (samples, classes, split, kind) without the run's
        name.
    note : a remark on how the file was read; "" for none.
    split : ``oof`` or ``test`` if the file or its name says so, otherwise "".
    classes : the class of each column if the file says so; () until `ensemble.alignment.naming` names them.
    fold : the fold of the rows, if the file says so.
    one_column : whether `values` was made of one column, the probability of the positive class.
    positive : the name of that column in a table.
    prefix : text before the classes in the names of the columns of a table.
    columns : all columns of a table.
    form : the form of the file, for the reader.
    part : the name of the array in an archive.
    summary : which columns of a table were read, for the reader.
    warnings : doubts about the file.
    task : what the columns are (`folds.metrics.task_names.ALL_TASKS`), from the sidecar or as the user says.
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
    split: str = ""
    classes: tuple[str, ...] = ()
    fold: int | NDArray[np.integer] | None = None
    one_column: bool = False
    positive: str = ""
    prefix: str = ""
    columns: tuple[str, ...] = ()
    form: str = ""
    part: str = ""
    summary: str = ""
    warnings: tuple[str, ...] = ()
    task: str = CLASSES

    def __post_init__(self) -> None:
        if self.sidecar is not None:
            for name in ("split", "classes", "fold", "task"):
                object.__setattr__(self, name, getattr(self.sidecar, name))

    @property
    def has_columns(self) -> bool:
        """Return whether every column has labels or numbers of its own (`COLUMN_TASKS`)."""
        return self.task in COLUMN_TASKS

    @property
    def source(self) -> str:
        """Return the file, with the name of the array in an archive of several; unique among members."""
        return f"{self.path} ({self.part})" if self.part else str(self.path)

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
    paths: Sequence[Path],
    logits: bool = False,
    allow_duplicates: bool = False,
    names: ColumnNames | None = None,
    progress: Progress = SILENT,
    task: str | None = None,
) -> list[Member]:
    """Return the checked prediction files; log a warning for each duplicate.

    Parameters
    ----------
    paths : ``.npy`` arrays, with or without a sidecar, ``.npz`` archives, and tables of probabilities or answers.
    logits : arrays without a sidecar hold logits; so do arrays whose sidecar states probabilities but whose rows do not
        sum to 1.
    allow_duplicates : a duplicate of a file of the same run votes as a separate run, ``<run>#2``; by default it is left
        out. (Equal files of runs with other names: `ensemble.members.deduplication`.)
    names : columns of tables that the user named.
    task : what the columns of files without a sidecar are; None for classes.

    Raises
    ------
    EnsembleError : a file does not hold finite numbers in the shape of predictions, its rows do not sum to 1 (unless
        they are logits), it does not match its sidecar, it repeats an id, or its models were trained on rows that they
        predict (`ensemble.members.leakage`).
    """
    checked: dict[int, tuple[SampleRows, str]] = {}
    members: list[Member] = []
    leak_check = LeakCheck()
    words = word_splits([path for path in paths if not run_and_split(path)[1]])
    with progress.step("reading and checking files") as advance:
        for done, member in enumerate(_read(paths, logits, names or ColumnNames(), task)):
            advance(min(done, len(paths)), len(paths))
            if member.sidecar is None and not member.split and member.path in words:
                run, split = words[member.path]
                note = f"{member.path}: {'out-of-fold' if split == 'oof' else 'test'} predictions, by its name"
                member = replace(member, run=run, split=split, note="; ".join(filter(None, (member.note, note))))
            member = _with_rows(member, checked)
            described = _metadata_of(member)
            if described is not None:
                leak_check.check(member.path, described)
            same = [other for other in members if _repeats(member, other)]
            if same and not allow_duplicates:
                logger.warning(
                    "%s has the same predictions as %s and is ignored (`allow_duplicates`: both vote)",
                    member.path,
                    same[0].path,
                )
                continue
            members.append(replace(member, run=f"{member.run}#{len(same) + 1}") if same else member)
        advance(len(paths), len(paths))
    return members


def _read(paths: Sequence[Path], logits: bool, names: ColumnNames, task: str | None) -> Iterator[Member]:
    """Yield the members in the files, in order; arrays are scanned in threads meanwhile."""
    shared = _Shared()
    columns = task if task in COLUMN_TASKS else None
    tables = {
        path: read_column_table(path, names, columns) if columns else read_prediction_table(path, names, logits)
        for path in dict.fromkeys(paths)
        if is_table(path)
    }
    arrays = {
        path: read_arrays(path, logits, partial(_has_columns, path, columns, shared))
        for path in dict.fromkeys(paths)
        if not is_table(path)
    }
    to_scan = [(path, one.values) for path, found in arrays.items() for one in found]
    to_scan += [(path, table.values) for path, table in tables.items() if table.values is not None]
    with scan_arrays(to_scan) as pending:
        scans = {id(values): scan for (_, values), scan in zip(to_scan, pending, strict=True)}
        for path in paths:
            if path in tables:
                table = tables[path]
                scanned = None if table.values is None else scans[id(table.values)]
                yield _member_of_table(path, table, scanned, logits, columns)
                continue
            for one in arrays[path]:
                yield _read_array(path, one, scans[id(one.values)], logits, shared, columns)


@dataclass
class _Shared:
    """What the files of many runs have in common: rows by the hash of their file, and hashes of arrays of folds."""

    samples: dict[str, SampleRows] = field(default_factory=dict)
    folds: dict[int, tuple[NDArray[np.integer], str]] = field(default_factory=dict)

    def hash_of_folds(self, fold: NDArray[np.integer]) -> str:
        """Return the hash of the folds (n,) of rows; that of an array which several files have is computed once."""
        if id(fold) not in self.folds:
            self.folds[id(fold)] = fold, sha256_bytes(fold.tobytes())
        return self.folds[id(fold)][1]


def _has_columns(path: Path, task: str | None, shared: _Shared) -> bool:
    """Return whether a file has labels or numbers and no classes: by its sidecar, or as the user says."""
    sidecar = read_sidecar(path, shared.samples)
    return task is not None if sidecar is None else sidecar.has_columns


def _read_array(
    path: Path, one: ArrayFile, scan: Future[Scan], logits: bool, shared: _Shared, task: str | None = None
) -> Member:
    sidecar = read_sidecar(path, shared.samples)
    if sidecar is None:
        return _member_without_sidecar(path, one, scan.result(), logits, task)
    if one.key and one.about:
        raise EnsembleError(
            f"{path} holds several arrays and has the sidecar {sidecar_path(path).name}, which describes one",
            hint="save one array with np.save, or remove the sidecar",
        )
    check_shape(path, one.values, sidecar)
    return _member_of_array(path, one, sidecar, scan.result(), logits, shared)


def _with_rows(member: Member, checked: dict[int, tuple[SampleRows, str]]) -> Member:
    """Return the member with checked rows, which its hashes include; `checked` caches the rows of other members."""
    if member.rows is None:
        return member
    if id(member.rows) not in checked:
        checked[id(member.rows)] = member.rows, check_rows(member.path, member.rows)
    rows_sha = checked[id(member.rows)][1]
    return replace(member, sha=_hash_of(member.sha, rows_sha), meaning=_hash_of(member.meaning, rows_sha))


def _metadata_of(member: Member) -> PredictionMetadata | None:
    """Return the sidecar, or the same of a table with folds; None if nothing can be checked."""
    if member.sidecar is not None or member.fold is None or member.rows is None:
        return member.sidecar
    return PredictionMetadata("probability", "oof", member.classes, member.rows, fold=member.fold, run=member.run)


def _repeats(member: Member, other: Member) -> bool:
    return other.sha == member.sha and (member.sidecar is not None or _is_same_file(member.path, other.path))


def _member_of_table(
    path: Path, table: PredictionTable, scan: Future[Scan] | None, logits: bool, task: str | None = None
) -> Member:
    """Return the member in a table. A table with true labels or folds is out of fold, unless its name says test."""
    run, split = run_and_split(path)
    values, logit, note = table.values, False, ""
    if values is not None and table.positive:
        values, logit = two_columns(f"{path} (column {table.positive})", values[:, 0], logits), logits
    elif scan is not None and task is not None and values is not None:
        logit = has_logits(path, values, scan.result(), table.ids, task, logits)
    elif scan is not None:
        logit = logits
        if are_probabilities(path, scan.result(), table.ids, None, logits) and logits:
            note = f"{path}: rows sum to 1 like probabilities; read as logits (`logits=True`)"
    rows = None if table.ids is None else SampleRows(table.ids, table.labels, table.persons)
    if not split and (table.fold is not None or table.labels is not None):
        split = "oof"
    content = sha256_file(path)
    plain = table.values is None and table.labels is None and table.fold is None
    sha = content if plain else _hash_of(content, repr((table.summary, table.classes)))
    return Member(
        path, run, values, table.answers, logit, None, rows, rows, sha, content, note=note,
        split=split, classes=table.classes, fold=table.fold, one_column=bool(table.positive), positive=table.positive,
        prefix=table.prefix, columns=table.columns, summary=table.summary, warnings=table.warnings,
        task=task or CLASSES, form=_form_of(table, task),
    )  # fmt: skip


def _form_of(table: PredictionTable, task: str | None) -> str:
    if table.values is None:
        return "answers"
    return "one probability per row" if table.positive else "numbers" if task == REGRESSION else "probabilities"


def _member_without_sidecar(path: Path, one: ArrayFile, scan: Scan, logits: bool, task: str | None = None) -> Member:
    """Return the member in an array without a sidecar; an archive may hold ids, classes, labels and folds as well."""
    run, split = run_and_split(path)
    logit, note, about = logits or one.logit, "", one.about or {}
    if task is not None:
        logit = has_logits(path, one.values, scan, None, task, logit)
    elif are_probabilities(path, scan, None, None, logit) and logit:
        note = f"{path}: rows sum to 1 like probabilities; read as logits (`logits=True`)"

    def column(name: str) -> NDArray[np.str_] | None:
        return None if name not in about else np.array(list(map(_text, about[name].tolist())), dtype=str)

    ids = column("ids")
    rows = None if ids is None else SampleRows(ids, column("labels"), column("persons"))
    fold = about["fold"].astype(np.int64) if "fold" in about and ids is not None else None
    if not (one.split or split) and ids is not None and ("labels" in about or fold is not None):
        split = "oof"
    classes = tuple(map(_text, about["classes"].tolist())) if "classes" in about else ()
    sha = scan.sha if not one.key else _hash_of(scan.sha, one.key)
    return Member(
        path, run, one.values, None, logit, None, rows, rows, sha, sha, note=note, split=one.split or split,
        classes=classes, fold=fold, one_column=one.one_column, form=one.form, part="" if one.about is None else one.key,
        task=task or CLASSES,
    )  # fmt: skip


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _member_of_array(
    path: Path,
    one: ArrayFile,
    sidecar: PredictionMetadata,
    scan: Scan,
    logits: bool,
    shared: _Shared,
) -> Member:
    note, values = "", one.values
    logit = sidecar.kind == "logit"
    if sidecar.has_columns:
        logit = has_logits(path, values, scan, sidecar.rows.ids, sidecar.task, logit or logits)
    elif logit and one.one_column and not logits:
        return _member_of_array(path, read_arrays(path, True)[0], sidecar, scan, True, shared)
    elif not are_probabilities(path, scan, sidecar.rows.ids, sidecar, logit or logits) and logits and not logit:
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
    folds = shared.hash_of_folds(sidecar.fold) if isinstance(sidecar.fold, np.ndarray) else sidecar.fold
    sha = sha256_bytes(repr((scan.sha, meaning, sidecar.folds_sha, folds, sorted(sidecar.class_attributes))).encode())
    all_rows = shared.samples.get(sidecar.samples_sha or "", sidecar.rows)
    about = (sha, scan.sha, repr(meaning[:4]), note)
    return Member(path, sidecar.run, values, None, logit, sidecar, sidecar.rows, all_rows, *about, form="sidecar")


def _is_same_file(path: Path, other: Path) -> bool:
    return path.resolve() == other.resolve()


def _hash_of(*parts: str) -> str:
    return sha256_bytes(" ".join(parts).encode())
