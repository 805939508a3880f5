"""Remove, rename and move the files of a run or a blend together, so that a crash leaves nothing half done.

A run lives in several places: ``runs/<run>/``, its prediction files, ``checkpoints/<run>/``, ``runs/tta``, and lines of
the ledger. A change is written to a journal first (``runs/.pending.json``), then made in steps that can each be
repeated, and the journal is removed last. After a crash, `finish_pending` makes the remaining steps: nothing is half
renamed.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from folds.errors import EnsembleError
from folds.experiments.ledger import REMOVED_KIND, RENAMED_KIND, append, ledger_file, now, read_ledger
from folds.experiments.renaming import config_hashes, rename_in_blends, rename_in_sidecar, rename_references
from folds.experiments.stored_runs import StoredRun
from folds.predictions.file_names import FOLD_DONE, FOLD_STATE
from folds.predictions.files import ALL, refit_file, sidecar_path
from folds.training.job import LOCK_SECONDS, lock_of
from folds.utils.files import json_or_nothing, make_folder, read_json, remove, write_atomic, write_json
from folds.utils.locks import exclusive_lock

JOURNAL = ".pending.json"


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
        record |= {"configs": config_hashes(stored, wanted)}
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
    for name in (FOLD_DONE, FOLD_STATE):
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
        rename_in_sidecar(path, stored.name, wanted.name)
    if not wanted.blend:
        beside = sidecar_path(refit_file(wanted.runs, wanted.name))
        rename_in_sidecar(beside, f"{stored.name}.{ALL}", f"{wanted.name}.{ALL}")
    for path in (wanted.folder / "oof.json", wanted.folder / "test.json") if wanted.blend else ():
        rename_in_sidecar(path, stored.name, wanted.name)
    if stored.runs != wanted.runs:
        _move_lines(stored, wanted)
    elif stored.name != wanted.name:
        rename_references(stored, wanted)
        rename_in_blends(stored, wanted)
        # The lines of students name the hashes of records that were just changed.
        lines = any(stored.ledger_lines()) or (stored.blend and bool(configs))
        if lines and not (stored.blend and (stored.runs / stored.name).exists()):
            line = {"run": stored.name, "time": now(), "to": wanted.name, "configs": configs}
            append(ledger_file(stored.runs), RENAMED_KIND, line)


def _move_prediction(source: Path, target: Path, before: str, after: str) -> None:
    """Move an array with its sidecar; at no time is there an array without one."""
    beside, new = sidecar_path(source), sidecar_path(target)
    make_folder(target.parent)
    record = json_or_nothing(beside)
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
        name = json_or_nothing(sidecar_path(path)).get("samples")
        if isinstance(name, str) and re.fullmatch(r"samples-[0-9a-f]+\.csv", name):
            found.add(path.parent / name)
    return found


def _remove_unused(samples: set[Path]) -> None:
    """Remove the samples files that no sidecar beside them refers to any more."""
    for folder in {path.parent for path in samples}:
        used = {json_or_nothing(path).get("samples") for path in folder.glob("*.json")}
        for path in samples:
            if path.parent == folder and path.name not in used:
                remove(path)
