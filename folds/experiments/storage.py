"""Find every file of a run or a blend; remove, rename and move them together.

A run lives in several places: ``runs/<run>/``, its prediction files, ``checkpoints/<run>/``, ``runs/tta``, and lines of
the ledger. A change is written to a journal first (``runs/.pending.json``), then made in steps that can each be
repeated, and the journal is removed last. After a crash, `finish_pending` makes the remaining steps: nothing is half
renamed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from folds.errors import EnsembleError, UsageError, close_matches
from folds.experiments.ledger import REMOVED_KIND, RENAMED_KIND, append, ledger_file, now, read_ledger
from folds.predictions.files import ALL, fold_files, oof_file, refit_file, sidecar_path
from folds.predictions.named import BLENDS, is_blend, prediction_names
from folds.training.job import LOCK_SECONDS, lock_of
from folds.utils.files import (
    is_file_safe,
    make_folder,
    read_json,
    remove,
    sha256_bytes,
    write_atomic,
    write_json,
)
from folds.utils.locks import exclusive_lock
from folds.utils.text import counted
from folds.utils.toml import toml_value

JOURNAL = ".pending.json"
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
            record = _json_or_nothing(path)
            members = [one.get("path") for one in record.get("inputs") or [] if isinstance(one, dict)]
            own = {str(Path(str(member))) for member in members}
            mine = {str(file) for file in [*self.arrays(), *self.folder.glob("*.npy")]}
            if path.parent != self.folder and (own & mine or any(_ends_alike(one, mine) for one in own)):
                found.append(f"the blend {BLENDS}/{path.parent.name}")
        for path in () if self.blend else sorted(self.runs.glob("*/experiment.json")):
            if path.parent != self.folder and _json_or_nothing(path).get("baseline") == self.name:
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


def remove_run(stored: StoredRun) -> None:
    """Remove a run or a blend from every place.

    The markers of finished folds go first: whatever a crash leaves does not look finished. See the module.
    """
    _perform(stored.root, {"operation": "remove", "run": stored.name, "blend": stored.blend})


def move_run(stored: StoredRun, wanted: StoredRun) -> None:
    """Give a run or a blend another name, or move it to another folder; `wanted` is from `check_new_name`."""
    record: dict[str, Any] = {"operation": "move", "run": stored.name, "blend": stored.blend, "to": wanted.name}
    if wanted.root == stored.root:
        # The hashes before and after are for the ledger; a crash in between would lose those before.
        record |= {"configs": _config_hashes(stored, wanted)}
    else:
        record |= {"folder": str(wanted.root.absolute())}
    _perform(stored.root, record)


def pending(root: Path = Path()) -> str | None:
    """Return what an interrupted command has left to do, in words; None if there is nothing."""
    path = root / "runs" / JOURNAL
    if not path.is_file():
        return None
    record = _journal(path)
    stored = _stored(root, record)
    if record["operation"] == "remove":
        return f"removing {stored.title}"
    return f"moving {stored.title} to {_wanted(root, record).folder}"


def finish_pending(root: Path = Path()) -> None:
    """Make the remaining steps of an interrupted removal or move, if there is one."""
    path = root / "runs" / JOURNAL
    if path.is_file():
        record = _journal(path)
        with _locked(_stored(root, record), _wanted(root, record)):
            _steps(root, record)
            remove(path)


def _perform(root: Path, record: dict[str, Any]) -> None:
    finish_pending(root)
    path = root / "runs" / JOURNAL
    with _locked(_stored(root, record), _wanted(root, record)):
        write_json(path, record)
        _steps(root, record)
        remove(path)


def _stored(root: Path, record: dict[str, Any]) -> StoredRun:
    return StoredRun(record["run"], root, record["blend"])


def _wanted(root: Path, record: dict[str, Any]) -> StoredRun:
    folder = record.get("folder")
    return StoredRun(record.get("to") or record["run"], Path(folder) if folder else root, record["blend"])


def _journal(path: Path) -> dict[str, Any]:
    """Return the journal, checked: its names become paths."""
    record = read_json(path)
    names = [record.get("run"), record.get("to") or record.get("run")] if isinstance(record, dict) else []
    valid = names and all(isinstance(one, str) and "/" not in one and one not in ("", ".", "..") for one in names)
    if not valid or record.get("operation") not in ("remove", "move") or type(record.get("blend")) is not bool:
        raise EnsembleError(
            f"{path} is damaged, so the interrupted change of a run cannot be finished",
            hint=f"rm {path}, then look at what is left with ensemble runs and ensemble runs show RUN",
        )
    return record


@contextlib.contextmanager
def _locked(*runs: StoredRun) -> Iterator[None]:
    """Hold the locks of the runs and of their folds, so that no training writes into what is moved."""
    with contextlib.ExitStack() as stack:
        for one in dict.fromkeys(runs):
            if one.blend:
                continue
            stack.enter_context(exclusive_lock(one.runs / f".{one.name}.lock", f"the run {one.folder}"))
            stack.enter_context(exclusive_lock(one.runs / "tta" / f".{one.name}.lock", f"the TTA of {one.name}"))
            for fold in sorted(int(p.name[4:]) for p in one.folder.glob("fold*") if p.name[4:].isdecimal()):
                what = f"fold {fold} of the run {one.folder}"
                stack.enter_context(exclusive_lock(lock_of(one.folder, fold), what, wait=LOCK_SECONDS))
            if (one.folder / ALL).is_dir():
                what = f"the model of all people of the run {one.folder}"
                stack.enter_context(exclusive_lock(lock_of(one.folder, ALL), what, wait=LOCK_SECONDS))
        yield
    for one in runs:  # do not leave an empty folder that only held a lock
        with contextlib.suppress(OSError):
            (one.runs / "tta").rmdir()


def _steps(root: Path, record: dict[str, Any]) -> None:
    stored, wanted = _stored(root, record), _wanted(root, record)
    if record["operation"] == "remove":
        _remove(stored)
    else:
        _move(stored, wanted, record.get("configs"))


def _remove(stored: StoredRun) -> None:
    for name in ("done.json", "state.pt"):
        for folder in [*sorted(stored.folder.glob("fold*/")), stored.folder / ALL]:
            remove(folder / name)
    samples = _samples(stored.arrays())
    for path in stored.arrays():
        # The array first, because a sidecar alone is ignored, but an array alone is read without checks.
        remove(path)
        remove(sidecar_path(path))
    _remove_unused(samples)
    for folder in stored.folders:
        remove(folder)
    if any(stored.ledger_lines()) and not (stored.blend and (stored.runs / stored.name).exists()):
        append(ledger_file(stored.runs), REMOVED_KIND, {"run": stored.name, "time": now()})


def _move(stored: StoredRun, wanted: StoredRun, configs: dict[str, str] | None) -> None:
    samples = _samples(stored.arrays())
    for path in stored.arrays():
        folder = wanted.runs if path.parent == stored.runs else wanted.runs / "tta"
        _move_prediction(path, folder / (wanted.name + path.name[len(stored.name) :]), stored.name, wanted.name)
    if stored.runs != wanted.runs:
        _remove_unused(samples)
    for source, target in zip(stored.folders, wanted.folders, strict=True):
        if source.is_dir():
            _move_folder(source, target)
    for path in sorted((wanted.runs / "tta" / wanted.name / "views").glob("*.json")) if not wanted.blend else ():
        _rename_in_sidecar(path, stored.name, wanted.name)
    if not wanted.blend:
        beside = sidecar_path(refit_file(wanted.runs, wanted.name))
        _rename_in_sidecar(beside, f"{stored.name}.{ALL}", f"{wanted.name}.{ALL}")
    for path in (wanted.folder / "oof.json", wanted.folder / "test.json") if wanted.blend else ():
        _rename_in_sidecar(path, stored.name, wanted.name)
    if stored.runs != wanted.runs:
        _move_lines(stored, wanted)
    elif stored.name != wanted.name:
        _rename_references(stored, wanted)
        _rename_in_blends(stored, wanted)
        # The lines of students name the hashes of records that were just changed.
        lines = any(stored.ledger_lines()) or (stored.blend and bool(configs))
        if lines and not (stored.blend and (stored.runs / stored.name).exists()):
            line = {"run": stored.name, "time": now(), "to": wanted.name, "configs": configs}
            append(ledger_file(stored.runs), RENAMED_KIND, line)


def _move_prediction(source: Path, target: Path, before: str, after: str) -> None:
    """Move an array with its sidecar; at no time is there an array without one."""
    beside, new = sidecar_path(source), sidecar_path(target)
    make_folder(target.parent)
    record = _json_or_nothing(beside)
    if record:
        samples = record.get("samples")
        if target.parent != source.parent and isinstance(samples, str) and Path(samples).name == samples:
            _copy(source.parent / samples, target.parent / samples)
        write_json(new, record | ({"run": after} if record.get("run") == before else {}))
    elif beside.exists():  # damaged: it moves as it is
        _copy(beside, new)
    if source.exists():
        _move_file(source, target)
    remove(beside)


def _rename_in_sidecar(path: Path, before: str, after: str) -> None:
    record = _json_or_nothing(path)
    if record.get("run") == before != after:
        write_json(path, record | {"run": after})


def _copy(source: Path, target: Path) -> None:
    if source.is_file() and not target.exists():
        with open(source, "rb") as file:
            write_atomic(target, lambda out: shutil.copyfileobj(file, out))


def _move_file(source: Path, target: Path) -> None:
    try:
        source.replace(target)
    except OSError:  # another disk
        _copy(source, target)
        remove(source)


def _move_folder(source: Path, target: Path) -> None:
    """Move a folder; on another disk it is copied under a temporary name first, so that it is there whole or not."""
    make_folder(target.parent)
    if target.is_dir():  # an interrupted move to another disk was copied already
        remove(source)
        return
    try:
        source.rename(target)
    except OSError:
        temporary = target.with_name(f".{target.name}.copying")
        remove(temporary)
        shutil.copytree(source, temporary, symlinks=True)
        temporary.rename(target)
        remove(source)


def _rename_references(stored: StoredRun, wanted: StoredRun) -> None:
    """Replace the name in the records of all runs."""
    for path in sorted(wanted.runs.glob("*/config.toml")):
        before = path.read_bytes()
        changed = _renamed_config(before, path.parent == wanted.folder, stored, wanted)
        if changed != before:
            write_atomic(path, changed)
    for path in () if stored.blend else sorted(wanted.runs.glob("*/experiment.json")):
        record = _json_or_nothing(path)
        if record.get("baseline") == stored.name:
            write_json(path, record | {"baseline": wanted.name})


def _config_hashes(stored: StoredRun, wanted: StoredRun) -> dict[str, str]:
    """Return hash before → after of every config.toml in which the name will be replaced."""
    found = {}
    for path in sorted(stored.runs.glob("*/config.toml")):
        before = path.read_bytes()
        changed = _renamed_config(before, path.parent == stored.folder, stored, wanted)
        if changed != before:
            found[sha256_bytes(before)] = sha256_bytes(changed)
    return found


def _renamed_config(text: bytes, own: bool, stored: StoredRun, wanted: StoredRun) -> bytes:
    """Return a config.toml with the new name: as the name of the run, its folds, and the initial weights or the teacher
    of other runs.
    """
    text = _renamed_teacher(text, stored, wanted)
    if stored.blend:
        return text
    folder = re.compile(rf'(?m)^(folds = "(?:.*/)?runs/){re.escape(stored.name)}(?=/folds\.csv"$)'.encode())
    changed = folder.sub(lambda found: found[1] + wanted.name.encode(), text)
    old, new = (f"init_run = {toml_value(one.name)}\n".encode() for one in (stored, wanted))
    changed = changed.replace(old, new)
    if not own:
        return changed
    name = f"name = {toml_value(wanted.name)}\n".encode()
    changed, found = re.subn(rb"(?m)^name = .*\n", lambda _: name, changed, count=1)
    return changed if found else name + changed


def _renamed_teacher(text: bytes, stored: StoredRun, wanted: StoredRun) -> bytes:
    end = r"/oof\.npy" if stored.blend else r"\.oof\.npy"
    file = re.compile(rf'(?m)^(soft_labels = "(?:.*/)?runs/){re.escape(stored.title)}(?={end}"$)'.encode())
    text = file.sub(lambda found: found[1] + wanted.title.encode(), text)
    name = re.compile(rf"(?m)^teacher = {re.escape(toml_value(stored.title))}$".encode())
    return name.sub(lambda found: f"teacher = {toml_value(wanted.title)}".encode(), text)


def _rename_in_blends(stored: StoredRun, wanted: StoredRun) -> None:
    """Let the blends of a run name its files by their new paths, and its checkpoints (``blend.toml``) by its new name.

    The name of the member in the combination stays.
    """
    moved = re.compile(re.escape(stored.name) + r"\.(oof|fold\d+\.test)\.")
    for path in sorted((wanted.runs / BLENDS).glob("*/blend.json")):
        record = _json_or_nothing(path)
        inputs = record.get("inputs")
        for one in inputs if isinstance(inputs, list) else ():
            file = Path(str(one.get("path"))) if isinstance(one, dict) else Path()
            ours = file.parent.name in ("runs", "tta") and moved.match(file.name)
            if ours and not stored.blend:
                one["path"] = str(file.with_name(wanted.name + file.name[len(stored.name) :]))
            elif stored.blend and file.parent.name == stored.name and file.parent.parent.name == BLENDS:
                one["path"] = str(file.parent.with_name(wanted.name) / file.name)
        if record and record != _json_or_nothing(path):
            write_json(path, record)
        recipe = path.with_name("blend.toml")
        if recipe.is_file() and not stored.blend:
            before = recipe.read_text(encoding="utf-8")
            changed = _renamed_tables(before, stored.name, wanted.name)
            if changed != before:
                write_atomic(recipe, changed)


def _renamed_tables(text: str, before: str, after: str) -> str:
    """Return a ``blend.toml`` with a run's new name as the folder of its checkpoints (``run``) in its tables."""
    tables = text.split("\n[[run]]\n")
    for i, table in enumerate(tables[1:], 1):
        lines = [line for line in table.split("\n") if not line.startswith("run = ")]
        folder = next((line for line in table.split("\n") if line.startswith("run = ")), None)
        if folder == f"run = {toml_value(before)}" or (folder is None and lines[0] == f"name = {toml_value(before)}"):
            same = lines[0] == f"name = {toml_value(after)}"
            tables[i] = "\n".join([lines[0], *([] if same else [f"run = {toml_value(after)}"]), *lines[1:]])
    return "\n[[run]]\n".join(tables)


def _move_lines(stored: StoredRun, wanted: StoredRun) -> None:
    """Append the lines of a run to the ledger of another folder, then mark them as removed here."""
    source, target = read_ledger(ledger_file(stored.runs)), read_ledger(ledger_file(wanted.runs))
    for kind, lines, known in (("run", source.entries, target.entries), ("note", source.notes, target.notes)):
        for line in lines:
            plain = {key: value for key, value in line.items() if key not in ("schema", "kind")}
            there = [{key: one.get(key) for key in plain} for one in known]
            if line["run"] == stored.name and plain | {"run": wanted.name} not in there:
                append(ledger_file(wanted.runs), kind, plain | {"run": wanted.name})
    if any(stored.ledger_lines()):
        append(ledger_file(stored.runs), REMOVED_KIND, {"run": stored.name, "time": now()})


def _samples(arrays: Sequence[Path]) -> set[Path]:
    """Return the samples files that the sidecars of these arrays refer to."""
    found = set()
    for path in arrays:
        name = _json_or_nothing(sidecar_path(path)).get("samples")
        if isinstance(name, str) and re.fullmatch(r"samples-[0-9a-f]+\.csv", name):
            found.add(path.parent / name)
    return found


def _remove_unused(samples: set[Path]) -> None:
    """Remove the samples files that no sidecar beside them refers to any more."""
    for folder in {path.parent for path in samples}:
        used = {_json_or_nothing(path).get("samples") for path in folder.glob("*.json")}
        for path in samples:
            if path.parent == folder and path.name not in used:
                remove(path)


def _json_or_nothing(path: Path) -> dict[str, Any]:
    try:
        record = read_json(path)
    except EnsembleError:
        return {}
    return record if isinstance(record, dict) else {}


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
        done = [file.parent.name for file in files if file.name == "done.json"]
        what = f"settings and {counted(len(done) - (ALL in done), 'trained fold')}"
        what += ", and the model of all people" if ALL in done else ""
    return Place(path, what, size)
