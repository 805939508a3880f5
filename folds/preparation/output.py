"""The folder of a prepared image set: what is in it, what must not happen to it, and the journal that a resume goes by.

OUT/index.csv, test.csv      the tables, ready for `ensemble kfold --data … --test …`
OUT/images/train|test/…png   the images
OUT/prepare.json             settings, versions, hashes of the tables; `complete` is true once all of it is there
OUT/prepare.jsonl            what was found in each file and made of it, a line each
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
from folds.errors import EnsembleError
from folds.images.content_index import UnreadableImageError, read_content
from folds.utils.files import cannot_write, read_json, write_atomic, write_json

WHAT = "images prepared by ensemble"
SOURCE = "prepared_from"  # the column with the original's path
RECORD, JOURNAL, LOCK, IMAGES, SHEET = "prepare.json", "prepare.jsonl", ".prepare.lock", "images", "worst.png"
TABLES = {"train": "index.csv", "test": "test.csv"}
_OURS = (RECORD, JOURNAL, LOCK, IMAGES, SHEET, *TABLES.values())
_LONGEST = 80  # characters of one part of a file name


def image_names(part: str, ids: Sequence[str]) -> list[str]:
    """Return a file for each id, relative to the folder: readable, safe, and no two the same even where upper and lower
    case are.

    ``mask1/a.jpg`` is in ``images/train/mask1/a.png``. An id that is not safe as a name, or that would share one with
    another, has eight letters of
    its hash added; what other ids there are decides nothing else.
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
    """Return an id as a relative path of safe parts without suffix, and whether nothing of it was changed but an
    image's suffix.
    """
    *folders, last = id.split("/")
    last = stem_of(last) if is_image(last) else last
    # No dots in folders: there is no way up, and no folder has the name of an image.
    safe = [re.sub(r"[^A-Za-z0-9_-]", "_", folder)[:_LONGEST] or "_" for folder in folders]
    safe.append(re.sub(r"[^A-Za-z0-9._-]|^\.|\.$", "_", last)[:_LONGEST] or "_")
    return "/".join(safe), safe == [*folders, last]


def check_place(out: Path, data: Path, originals: Iterable[Path]) -> None:
    """Refuse a folder in which originals could be overwritten, or in which the next reading of the data would find
    their prepared copies.

    Raises
    ------
    EnsembleError : `out` is the data's folder or within it, or one that holds the data or any original.
    """
    place, source = _real(out), _real(data)
    hint = "name a folder beside the data: -o prepared"
    if place == source or source in place.parents:
        raise EnsembleError(f"{out} is in the data, {data}: they would be read with it next time", hint=hint)
    if place in source.parents:
        raise EnsembleError(f"{out} is the folder that {data} is in: originals could be overwritten", hint=hint)
    for folder in {path.parent for path in originals}:
        real = _real(folder)
        if real == place or place in real.parents:
            raise EnsembleError(f"{out} holds original images, in {folder}: they could be overwritten", hint=hint)


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


class PreparedFolder:
    """The folder of one prepared set.

    Parameters
    ----------
    record : what decides its bytes; a resume under another record is refused.
    """

    def __init__(self, out: Path, record: Mapping[str, Any]) -> None:
        self.out = Path(out)
        self.record: dict[str, Any] = json.loads(json.dumps(record))  # as it will be read back
        self._lines: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def check(self, resume: bool, force: bool) -> None:
        """Whether the work may begin; nothing is written or removed.

        Raises
        ------
        EnsembleError : the folder holds other files; or a prepared set, and neither `resume` nor `force` is said; or
            other settings.
        """
        if self.out.exists() and not self.out.is_dir():
            raise EnsembleError(
                f"{self.out} is a file, expected a folder to write to", hint="give another name with -o"
            )
        found = self._found()
        if found is None:
            return
        if not resume and not force:
            state = "is complete" if found.get("complete") else "is not complete"
            mend = (
                "--force makes it again" if found.get("complete") else "--resume goes on with it, --force begins again"
            )
            raise EnsembleError(
                f"{self.out} holds a prepared set, which {state}", hint=f"{mend}; or give another folder with -o"
            )
        if resume:
            there = found.get("settings")
            different = list(differences(there if isinstance(there, dict) else {}, self.record))
            if different:
                hint = "--force makes it again as asked now; or give another folder with -o"
                raise EnsembleError(
                    f"{self.out} was prepared otherwise, so it cannot be resumed", hint=hint, details=different
                )

    def _found(self) -> dict[str, Any] | None:
        """Return the record of the set that is there, None for a new or empty folder."""
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
                hint="give another folder with -o",
            )
        return None

    def begin(self, resume: bool) -> None:
        """Make the folder ready, for who holds its lock: what was done is kept on a resume, else removed."""
        if not resume:
            self._remove()
        else:
            self._read_journal()
            for left in (self.out / IMAGES).rglob(".*.tmp"):  # of files that a kill cut off
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
        # A kill can tear the last line, a full disk any; what a line does not say is done again.
        with contextlib.suppress(OSError), open(self.out / JOURNAL, encoding="utf-8", errors="replace") as file:
            for line in file:
                with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                    entry = json.loads(line)
                    self._lines[str(entry["of"])] = entry

    def entry(self, of: str) -> dict[str, Any] | None:
        """Return what the journal says of a file's hash, or of an image."""
        return self._lines.get(of)

    def note(self, of: str, **what: Any) -> dict[str, Any]:
        """Return add a line to the journal; any thread may."""
        entry = {"of": of, **what}
        line = json.dumps(entry, ensure_ascii=True) + "\n"
        with self._lock:
            self._lines[of] = entry
            try:
                with open(self.out / JOURNAL, "ab") as file:
                    # A torn last line ends here: this one begins on its own.
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
        """Return the entry of an image that is there, whole, and made of `source` (a hash) by `window`; else None."""
        entry = self._lines.get(name)
        if entry is None or entry.get("source") != source or entry.get("window") != list(window):
            return None
        try:
            return entry if read_content(self.out / name).digest == entry.get("sha") else None
        except UnreadableImageError:
            return None

    def complete(self, order: Sequence[str], counts: Mapping[str, Any]) -> None:
        """Put the journal in order, whatever the order of the work was, and say that all is there."""
        lines = [self._lines[of] for of in dict.fromkeys(order) if of in self._lines]
        write_atomic(self.out / JOURNAL, "".join(json.dumps(entry, ensure_ascii=True) + "\n" for entry in lines))
        write_json(self.out / RECORD, {"what": WHAT, "settings": self.record, "counts": counts, "complete": True})


def differences(there: Mapping[str, Any], asked: Mapping[str, Any], prefix: str = "") -> Iterable[str]:
    """Return ``margin: 0.3 there, 0.5 asked for``, a line each."""
    for name in dict.fromkeys([*there, *asked]):
        old, new = there.get(name), asked.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from differences(old, new, f"{prefix}{name} ")
        elif old != new:
            yield (
                f"{prefix}{name}: {json.dumps(old, ensure_ascii=False)} there, {json.dumps(new, ensure_ascii=False)} "
                "asked for"
            )


def write_table(path: Path, table: SampleTable, paths: Sequence[str], more: Mapping[str, Sequence[str]]) -> list[str]:
    """Write a table that the CSV reader reads as the same samples: id, path, label, person, attributes, and the columns
    of `more`.

    Where the table is that of an earlier preparation (it has `SOURCE`), the columns of `more` replace its own.

    Returns
    -------
    notes : columns that had to be renamed, since their name is taken.
    """
    columns: dict[str, Sequence[str]] = {"id": table.ids.tolist(), "path": paths}
    for name, known in (("label", table.labels), ("person", table.persons)):
        if known is not None:
            columns[name] = known.tolist()
    notes = []
    taken = {"id", "path", "label", "person", *(() if SOURCE in table.attributes else more)}
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
