"""Replace the name of a run or a blend in what refers to it: sidecars, records of runs, blends."""

from __future__ import annotations

import re
from pathlib import Path

from folds.experiments.stored_runs import StoredRun
from folds.predictions.file_names import BLEND_RECIPE
from folds.predictions.named import BLENDS
from folds.utils.files import json_or_nothing, sha256_bytes, write_atomic, write_json
from folds.utils.toml import toml_value


def rename_in_sidecar(path: Path, before: str, after: str) -> None:
    """Replace the name of a run in a sidecar, if it has that name."""
    record = json_or_nothing(path)
    if record.get("run") == before != after:
        write_json(path, record | {"run": after})


def rename_references(stored: StoredRun, wanted: StoredRun) -> None:
    """Replace the name in the records of all runs."""
    for path in sorted(wanted.runs.glob("*/config.toml")):
        before = path.read_bytes()
        changed = _renamed_config(before, path.parent == wanted.folder, stored, wanted)
        if changed != before:
            write_atomic(path, changed)
    for path in () if stored.blend else sorted(wanted.runs.glob("*/experiment.json")):
        record = json_or_nothing(path)
        if record.get("baseline") == stored.name:
            write_json(path, record | {"baseline": wanted.name})


def config_hashes(stored: StoredRun, wanted: StoredRun) -> dict[str, str]:
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


def rename_in_blends(stored: StoredRun, wanted: StoredRun) -> None:
    """Let the blends of a run name its files by their new paths, and its checkpoints (``blend.toml``) by its new name.

    The name of the member in the combination stays.
    """
    moved = re.compile(re.escape(stored.name) + r"\.(oof|fold\d+\.test)\.")
    for path in sorted((wanted.runs / BLENDS).glob("*/blend.json")):
        record = json_or_nothing(path)
        inputs = record.get("inputs")
        for one in inputs if isinstance(inputs, list) else ():
            file = Path(str(one.get("path"))) if isinstance(one, dict) else Path()
            ours = file.parent.name in ("runs", "tta") and moved.match(file.name)
            if ours and not stored.blend:
                one["path"] = str(file.with_name(wanted.name + file.name[len(stored.name) :]))
            elif stored.blend and file.parent.name == stored.name and file.parent.parent.name == BLENDS:
                one["path"] = str(file.parent.with_name(wanted.name) / file.name)
        if record and record != json_or_nothing(path):
            write_json(path, record)
        recipe = path.with_name(BLEND_RECIPE)
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
