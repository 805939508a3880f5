"""Manage the folder of a prepared image set: its files, its protection, and the journal for resuming.

OUT/index.csv, test.csv      the tables, ready for `ensemble kfold --data … --test …`
OUT/images/train|test/…png   the images
OUT/prepare.json             settings, versions, hashes of the tables; `complete` is true when all files exist
OUT/prepare.jsonl            journal: a line for each analyzed original and each new image
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import re
import shutil
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from folds.data.image_folder import is_image, stem_of
from folds.data.table import SampleTable
from folds.data.written_labels import columns_of_labels, label_cells
from folds.errors import EnsembleError
from folds.images.content_index import UnreadableImageError, read_content
from folds.metrics.task_names import REGRESSION
from folds.utils.files import cannot_write, read_json, write_atomic, write_json

WHAT = "images prepared by ensemble"
SOURCE = "prepared_from"  # column with the path of the original
# The columns that a table of prepared images has beside those of the originals.
ADDED = (SOURCE, "face_found", "face_confidence", "face_box", "face_crop", "foreground_share")
RECORD, JOURNAL, LOCK, IMAGES, SHEET = "prepare.json", "prepare.jsonl", ".prepare.lock", "images", "worst.png"
TABLES = {"train": "index.csv", "test": "test.csv"}
_OURS = (RECORD, JOURNAL, LOCK, IMAGES, SHEET, *TABLES.values())
_LONGEST = 80  # largest number of characters in one part of a path


def image_names(part: str, ids: Sequence[str]) -> list[str]:
    """Return a safe, readable file name for each id, relative to the folder, unique even if case is ignored.

    ``mask1/a.jpg`` becomes ``images/train/mask1/a.png``. If an id is not a safe name, or its name equals that of
    another id, eight characters of its hash are appended. Other ids have no further influence on a name.
    """
    plain = [_safe(name) for name in ids]
    shared = Counter(name.casefold() for name, _ in plain)
    names: list[str] = []
    for letters in (8, 64):
        names = []
        for (name, same), id in zip(plain, ids):
            alone = same and shared[name.casefold()] == 1
            names.append(
                f"{IMAGES}/{part}/{name}{'' if alone else f'-{hashlib.sha256(id.encode()).hexdigest()[:letters]}'}.png"
            )
        if len({name.casefold() for name in names}) == len(names):
            break
    return names


def _safe(id: str) -> tuple[str, bool]:
    """Return an id as a safe relative path without image suffix, and whether only the suffix was changed."""
    *folders, last = id.split("/")
    last = stem_of(last) if is_image(last) else last
    # No dots in folder names, so that no path leads to a parent and no folder is named like an image.
    safe = [re.sub(r"[^A-Za-z0-9_-]", "_", folder)[:_LONGEST] or "_" for folder in folders]
    safe.append(re.sub(r"[^A-Za-z0-9._-]|^\.|\.$", "_", last)[:_LONGEST] or "_")
    return "/".join(safe), safe == [*folders, last]


def check_output_folder(out: Path, data: Path, originals: Iterable[Path]) -> None:
    """Check that no original can be overwritten in `out`, and that reading `data` again finds no prepared copies.

    Raises
    ------
    EnsembleError : `out` is the folder of the data or inside it, or contains the data or an original.
    """
    target, source = _real(out), _real(data)
    hint = "name a folder outside the data, e.g. `output=prepared`"
    if target == source or source in target.parents:
        raise EnsembleError(
            f"{out} is inside the data, {data}: prepared images would be read together with the originals", hint=hint
        )
    if target in source.parents:
        raise EnsembleError(f"{out} contains {data}: originals could be overwritten", hint=hint)
    for folder in {path.parent for path in originals}:
        real = _real(folder)
        if real == target or target in real.parents:
            raise EnsembleError(f"{out} contains original images, in {folder}: they could be overwritten", hint=hint)


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


class PreparedFolder:
    """The folder of one prepared set.

    Parameters
    ----------
    record : settings that determine the images; a set with another record cannot be resumed.
    """

    def __init__(self, out: Path, record: Mapping[str, Any]) -> None:
        self.out = Path(out)
        self.record: dict[str, Any] = json.loads(json.dumps(record))  # as read from the file
        self._lines: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def check(self, resume: bool, force: bool) -> None:
        """Check that the preparation can start; nothing is written or removed.

        Raises
        ------
        EnsembleError : the folder holds other files; it holds a prepared set, and neither `resume` nor `force` is
            given; or `resume` is given, and the set has other settings.
        """
        if self.out.exists() and not self.out.is_dir():
            raise EnsembleError(
                f"expected a folder to write to, found the file {self.out}", hint="give another folder with `output`"
            )
        found = self._found()
        if found is None:
            return
        if not resume and not force:
            state = "is complete" if found.get("complete") else "is not complete"
            mend = (
                "`force=True` makes it again"
                if found.get("complete")
                else "`resume=True` continues it, `force=True` makes it again from scratch"
            )
            raise EnsembleError(
                f"{self.out} holds a prepared set, which {state}", hint=f"{mend}; or give another folder with `output`"
            )
        if resume:
            there = found.get("settings")
            different = list(differences(there if isinstance(there, dict) else {}, self.record))
            if different:
                hint = "`force=True` makes it again with the present settings; or give another folder with `output`"
                raise EnsembleError(
                    f"{self.out} was prepared with other settings and cannot be resumed", hint=hint, details=different
                )

    def _found(self) -> dict[str, Any] | None:
        """Return the record of the existing set; None for a new or empty folder."""
        names = sorted(path.name for path in self.out.iterdir()) if self.out.is_dir() else []
        if RECORD in names:
            found = read_json(self.out / RECORD)
            if isinstance(found, dict) and found.get("what") == WHAT:
                return found
        others = [
            name for name in names if name != LOCK and not (name.startswith(f".{RECORD}.") and name.endswith(".tmp"))
        ]
        if others:
            raise EnsembleError(
                f"expected a new or empty folder to write to, found {others[0]} in {self.out}",
                hint="give another folder with `output`",
            )
        return None

    def begin(self, resume: bool) -> None:
        """Initialize the folder: keep finished work on a resume, else remove it. The caller holds the lock."""
        if not resume:
            self._remove()
        else:
            self._read_journal()
            for left in (self.out / IMAGES).rglob(".*.tmp"):  # temporary files of killed processes
                left.unlink(missing_ok=True)
        write_json(self.out / RECORD, {"what": WHAT, "settings": self.record, "complete": False})

    def _remove(self) -> None:
        try:
            for name in _OURS:
                path = self.out / name
                if name == LOCK:
                    continue
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(Path(error.filename or self.out), error) from None

    def _read_journal(self) -> None:
        # A killed process or a full disk can damage lines; work without a valid line is done again.
        with contextlib.suppress(OSError), open(self.out / JOURNAL, encoding="utf-8", errors="replace") as file:
            for line in file:
                with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                    entry = json.loads(line)
                    self._lines[str(entry["of"])] = entry

    def entry(self, of: str) -> dict[str, Any] | None:
        """Return the line of the journal for the hash of an original, or for the name of an image; else None."""
        return self._lines.get(of)

    def note(self, of: str, **what: Any) -> dict[str, Any]:
        """Add a line to the journal and return its entry; safe to call from any thread."""
        entry = {"of": of, **what}
        line = json.dumps(entry, ensure_ascii=True) + "\n"
        with self._lock:
            self._lines[of] = entry
            try:
                with open(self.out / JOURNAL, "ab") as file:
                    # End an incomplete last line, so that this entry starts on a new line.
                    if file.tell() and not self._ends_well():
                        file.write(b"\n")
                    file.write(line.encode())
            except OSError as error:
                raise cannot_write(self.out / JOURNAL, error) from None
        return entry

    def _ends_well(self) -> bool:
        with open(self.out / JOURNAL, "rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def is_made(self, name: str, source: str, window: Sequence[int]) -> dict[str, Any] | None:
        """Return the entry of an intact image that was made of `source` (hash) and `window`; else None."""
        entry = self._lines.get(name)
        if entry is None or entry.get("source") != source or entry.get("window") != list(window):
            return None
        try:
            return entry if read_content(self.out / name).digest == entry.get("sha") else None
        except UnreadableImageError:
            return None

    def complete(self, order: Sequence[str], counts: Mapping[str, Any]) -> None:
        """Sort the journal by `order`, and mark the set as complete."""
        lines = [self._lines[of] for of in dict.fromkeys(order) if of in self._lines]
        write_atomic(self.out / JOURNAL, "".join(json.dumps(entry, ensure_ascii=True) + "\n" for entry in lines))
        write_json(self.out / RECORD, {"what": WHAT, "settings": self.record, "counts": counts, "complete": True})


def differences(there: Mapping[str, Any], asked: Mapping[str, Any], prefix: str = "") -> Iterable[str]:
    """Yield a line per difference: ``margin: expected 0.5, found 0.3``."""
    for name in dict.fromkeys([*there, *asked]):
        old, new = there.get(name), asked.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from differences(old, new, f"{prefix}{name} ")
        elif old != new:
            yield (
                f"{prefix}{name}: expected {json.dumps(new, ensure_ascii=False)}, found "
                f"{json.dumps(old, ensure_ascii=False)}"
            )


def label_names(table: SampleTable) -> list[str]:
    """Return the columns of the labels in the tables of a prepared set: one for each of several labels or numbers.

    Raises
    ------
    EnsembleError : a number has the name of another column of these tables.
    """
    labels = columns_of_labels(table, ADDED)
    if table.task == REGRESSION and len(table.classes) > 1 and labels == ["label"]:
        raise EnsembleError(
            f"numbers of {table.source} have names of columns that the new table has for something else, among "
            f"{', '.join(table.classes[:10])}",
            hint=f"rename them: id, path, person, split, {', '.join(ADDED)}",
        )
    return labels


def write_table(path: Path, table: SampleTable, paths: Sequence[str], more: Mapping[str, Sequence[str]]) -> list[str]:
    """Write a CSV that is read as the same samples: id, path, label, person, attributes, and the columns of `more`.

    Several labels or numbers have a column each (`label_names`).

    If the table is the result of an earlier preparation (it has `SOURCE`), the columns of `more` replace its own.

    Returns
    -------
    notes : columns that were renamed, because their name is used by another column.
    """
    columns: dict[str, Sequence[str]] = {"id": table.ids.tolist(), "path": paths}
    labels = label_names(table)
    for name, known in {**label_cells(table, labels), "person": table.persons}.items():
        if known is not None:
            columns[name] = known.tolist()
    notes = []
    taken = {"id", "path", "label", "person", *labels, *(() if SOURCE in table.attributes else more)}
    for name, values in table.attributes.items():
        if name in taken:
            renamed = f"original_{name}"
            while renamed in table.attributes or renamed in more:
                renamed += "_"
            notes.append(f"column '{name}' of {table.source} is '{renamed}' in {path}")
            columns[renamed] = values.tolist()
        elif name not in more:
            columns[name] = values.tolist()
    columns |= more
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    write_atomic(path, text.getvalue())
    return notes
