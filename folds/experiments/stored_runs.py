"""Find every file of a run or a blend, and what refers to it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from folds.errors import EnsembleError, UsageError, close_matches
from folds.experiments.ledger import ledger_file, read_ledger
from folds.predictions.file_names import FOLD_DONE
from folds.predictions.files import ALL, fold_files, oof_file, sidecar_path
from folds.predictions.named import BLENDS, is_blend, prediction_names
from folds.utils.files import is_file_safe, json_or_nothing
from folds.utils.text import counted
from folds.utils.toml import toml_value

RESERVED = ("tta", BLENDS, "tune")


@dataclass(frozen=True)
class Place:
    """One place where a run lives.

    Attributes
    ----------
    what : its content, in a few words.
    size : bytes of its files.
    """

    path: Path
    what: str
    size: int = 0


@dataclass(frozen=True)
class StoredRun:
    """The files of a run or of a blend, whether they exist or not.

    Attributes
    ----------
    name : the name, of a blend without ``blends/``.
    root : the folder that holds ``runs`` and ``checkpoints``.
    """

    name: str
    root: Path = Path()
    blend: bool = False

    @property
    def title(self) -> str:
        """Return the name as commands take it: ``swin``, ``blends/soft-1a2b``."""
        return f"{BLENDS}/{self.name}" if self.blend else self.name

    @property
    def runs(self) -> Path:
        """Return the folder of all runs."""
        return self.root / "runs"

    @property
    def folder(self) -> Path:
        """Return ``runs/<run>``, or ``runs/blends/<name>``."""
        return self.runs / self.title

    @property
    def folders(self) -> list[Path]:
        """Return the folders that are the run's alone; the one with its record is last."""
        if self.blend:
            return [self.folder]
        return [self.root / "checkpoints" / self.name, self.runs / "tta" / self.name, self.folder]

    def arrays(self) -> list[Path]:
        """Return the prediction files outside its folders, also those of which only the sidecar is left."""
        if self.blend:
            return []
        found = []
        for folder in (self.runs, self.runs / "tta"):
            oof = oof_file(folder, self.name)
            pattern = re.compile(re.escape(self.name) + r"\.fold\d+\.test\.json")
            alone = {p.with_suffix(".npy") for p in folder.glob("*.test.json") if pattern.fullmatch(p.name)}
            tests = sorted(alone | set(fold_files(folder, self.name).values()))
            found += [path for path in (oof, *tests) if path.exists() or sidecar_path(path).exists()]
        return found

    def ledger_lines(self) -> tuple[int, int]:
        """Return the numbers of its lines and of its notes in the ledger."""
        ledger = read_ledger(ledger_file(self.runs))
        return sum(entry["run"] == self.name for entry in ledger.entries), len(ledger.notes_of(self.name))

    def places(self) -> list[Place]:
        """Return every place where the run lives."""
        found = [_place(path) for path in reversed(self.folders) if path.is_dir()]
        for path in self.arrays():
            files = [file for file in (path, sidecar_path(path)) if file.exists()]
            what = "predictions and sidecar" if len(files) == 2 else "left over, without the other of its two files"
            found.append(Place(path, what, sum(file.stat().st_size for file in files)))
        lines, notes = self.ledger_lines()
        if (lines or notes) and not (self.blend and (self.runs / self.name).exists()):
            both = [counted(lines, "line")] * (lines > 0) + [counted(notes, "note")] * (notes > 0)
            found.append(Place(ledger_file(self.runs), " and ".join(both)))
        return found

    def used_by(self) -> list[str]:
        """Return what else refers to it, in words: its blends, and runs compared with it or starting from it."""
        found = []
        for path in sorted((self.runs / BLENDS).glob("*/blend.json")):
            record = json_or_nothing(path)
            members = [one.get("path") for one in record.get("inputs") or [] if isinstance(one, dict)]
            own = {str(Path(str(member))) for member in members}
            mine = {str(file) for file in [*self.arrays(), *self.folder.glob("*.npy")]}
            if path.parent != self.folder and (own & mine or any(_ends_alike(one, mine) for one in own)):
                found.append(f"the blend {BLENDS}/{path.parent.name}")
        for path in () if self.blend else sorted(self.runs.glob("*/experiment.json")):
            if path.parent != self.folder and json_or_nothing(path).get("baseline") == self.name:
                found.append(f"the run {path.parent.name} (its baseline)")
        for path in sorted(self.runs.glob("*/config.toml")):
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            if path.parent != self.folder and not self.blend and f"init_run = {toml_value(self.name)}" in lines:
                found.append(f"the run {path.parent.name} (its initial weights)")
            if path.parent != self.folder and f"teacher = {toml_value(self.title)}" in lines:
                found.append(f"the run {path.parent.name} (its teacher)")
        return found


def find_stored(name: str, root: Path = Path()) -> StoredRun:
    """Return the run or blend of a name: ``swin``, ``blends/soft-1a2b``, or ``soft-1a2b`` if no run is called so.

    Raises
    ------
    UsageError : nothing has this name, not even a leftover; the message suggests the closest names.
    """
    runs = root / "runs"
    short = name.removeprefix("runs/").rstrip("/")
    stored = StoredRun(short.removeprefix(f"{BLENDS}/"), root, is_blend(short, runs))
    valid = stored.name not in (*RESERVED, "", ".", "..") and "/" not in stored.name and "\0" not in stored.name
    if valid and stored.places():
        return stored
    known = sorted({*prediction_names(runs), *(path.parent.name for path in runs.glob("*/config.toml"))})
    close = close_matches(name, known)
    raise UsageError(
        f"unknown run '{name}'" + (f"; did you mean {' or '.join(close)}?" if close else ""),
        hint=f"known: {', '.join(known[:20])}{' …' if len(known) > 20 else ''}"
        if known
        else f"{runs} has no runs yet: train one with ensemble kfold",
    )


def check_new_name(stored: StoredRun, name: str, root: Path) -> StoredRun:
    """Return what a run would be under another name or in another folder.

    Raises
    ------
    UsageError : the name is not valid for files.
    EnsembleError : something of this name exists there.
    """
    short = name.removeprefix(f"{BLENDS}/") if stored.blend else name
    if not is_file_safe(short) or (short in RESERVED and not stored.blend):
        raise UsageError(
            f"'{name}': expected a name of letters, digits, '-', '_' or '.', and not {', '.join(RESERVED)}",
            hint="ensemble runs rename RUN NEW",
        )
    wanted = StoredRun(short, root, stored.blend)
    taken = wanted.places()
    if taken:
        left = "only its lines in the ledger are left" if taken[0].path == ledger_file(wanted.runs) else "it exists"
        where = "" if root == stored.root else f" in {root}"
        raise EnsembleError(
            f"the name {wanted.title} is taken{where}: {left}",
            hint=f"choose another name, or ensemble runs rm {wanted.title}",
        )
    return wanted


def _ends_alike(one: str, files: set[str]) -> bool:
    """Return whether a path given from another folder is one of these files."""
    return any(one.endswith(f"/{file}") for file in files)


def _place(path: Path) -> Place:
    files = [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
    size = sum(file.lstat().st_size for file in files)
    if path.parent.name == "checkpoints":
        what = counted(sum(file.suffix == ".pt" for file in files), "checkpoint")
    elif path.parent.name == "tta":
        what = f"{counted(sum(file.suffix == '.npy' for file in files), 'view file')} of TTA"
    elif path.parent.name == BLENDS:
        what = "the blend"
    else:
        done = [file.parent.name for file in files if file.name == FOLD_DONE]
        what = f"settings and {counted(len(done) - (ALL in done), 'trained fold')}"
        what += ", and the model of all people" if ALL in done else ""
    return Place(path, what, size)
