"""Find the teacher of a distillation: the out-of-fold predictions of a blend or a run, and the table they are for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ensemble.blending.recipe import read_recipe
from folds.config.command_settings import Settings
from folds.config.files import read_record
from folds.errors import EnsembleError, UsageError, close_matches
from folds.metrics.task_names import COLUMN_TASKS
from folds.predictions.file_names import BLEND_RECIPE, BLEND_RECORD, RUN_CONFIG
from folds.predictions.files import LABEL, oof_file, read_sidecar
from folds.utils.files import is_file_safe, read_json

# Settings of a run that say which table it reads, and how; its folds are read from its folds.csv.
_NOT_OF_DATA = {"arch", "name", "k", "folds", "fold_column", "holdout", "stratify", "repeats", "repair", "seeds"}
_NOT_OF_DATA |= {"group_within", "leave_out"}
_OF_DATA = tuple(field.name for field in fields(Settings) if field.name not in _NOT_OF_DATA)
_OF_SPLIT = ("k", "folds", "fold_column", "holdout", "stratify", "repeats", "group_within", "leave_out")


@dataclass(frozen=True)
class Teacher:
    """The out-of-fold predictions that a student learns.

    Attributes
    ----------
    name : the blend or run.
    kind : ``blend`` or ``run``.
    oof : the prediction file; of a fitted blend, its nested predictions.
    run : the run whose table and folds the student gets.
    nested : whether the weights of the blend were fitted.
    target : what is predicted, ``label`` or an attribute.
    """

    name: str
    kind: str
    oof: Path
    run: Path
    nested: bool
    target: str

    def settings(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return the settings of a student: the table and folds of the teacher, its predictions, and `given`.

        Parameters
        ----------
        given : settings that the user chose, by key; they take precedence.
        """
        record = read_record(self.run / RUN_CONFIG)
        found: dict[str, Any] = {key: record[key] for key in _OF_DATA if key in record}
        found = {key: tuple(value) if isinstance(value, list) else value for key, value in found.items()}
        if record.get("task") in COLUMN_TASKS:  # as which the table is read
            found["task"] = record["task"]
        if not any(given.get(key) for key in _OF_SPLIT):
            found["folds"] = self.run / "folds.csv"
        found |= {"soft_labels": self.oof} | ({} if self.target == LABEL else {"target": self.target})
        return found | {key: value for key, value in given.items() if value is not None}

    def student_name(self, archs: tuple[str, ...]) -> str:
        """Return the name of the student; with several architectures, each is appended to it."""
        base = f"{self.name}-student"
        return f"{base}-{archs[0]}" if len(archs) == 1 else base

    def text(self) -> str:
        """Return what the student learns, and what its score is worth, in words."""
        nested = "nested " if self.nested else ""
        return (
            f"teacher: the {nested}out-of-fold predictions of the {self.kind} {self.name}. No teacher of a soft label "
            "has seen its person, but the teachers have seen the people that a student is scored on, so its "
            "out-of-fold score is optimistic; a test score is not (docs/distill.md)"
        )


def find_teacher(what: str | Path, root: Path = Path()) -> Teacher:
    """Return the teacher of a name.

    Parameters
    ----------
    what : name, folder or ``blend.toml`` of a blend; or name of a run.
    root : the folder that holds ``runs/``.

    Raises
    ------
    EnsembleError : there is no such blend or run, it has no out-of-fold predictions, or none of its runs was trained
        here, so that its table is not known.
    """
    text, path, runs = str(what), Path(what), root / "runs"
    folder = path.parent if path.suffix == ".toml" else path
    if not (folder / BLEND_RECIPE).is_file():
        short = text.removeprefix("blends/")
        if not short or "/" in short or short in (".", ".."):
            raise UsageError(f"expected a blend or a run, found '{text}'", hint="name it as in ensemble runs")
        folder = runs / "blends" / short
    is_run = is_file_safe(text) and (runs / text / RUN_CONFIG).is_file()
    if (folder / BLEND_RECIPE).is_file():
        if is_run and folder.parent == runs / "blends" and not text.startswith("blends/"):
            raise UsageError(f"'{text}' is the name of a run and of a blend", hint=f"blends/{text} names the blend")
        return _of_blend(folder, root)
    if is_run:
        return Teacher(text, "run", _checked(oof_file(runs, text)), runs / text, False, _target(oof_file(runs, text)))
    known = sorted({*(one.parent.name for one in runs.glob("*/config.toml"))})
    known += sorted(one.parent.name for one in (runs / "blends").glob("*/blend.toml"))
    close = close_matches(text, known)
    raise EnsembleError(
        f"expected a blend or a run, found '{text}'" + (f"; did you mean {' or '.join(close)}?" if close else ""),
        hint=f"known: {', '.join(known[:20])}" if known else "ensemble kfold, then ensemble blend",
    )


def _of_blend(folder: Path, root: Path) -> Teacher:
    oof = _checked(folder / "oof.npy")
    sidecar = read_sidecar(oof)
    blends = folder.absolute().parent
    runs = blends.parent if blends.name == "blends" else root / "runs"
    runs = root / "runs" if runs.resolve() == (root / "runs").resolve() else runs
    if read_recipe(folder / BLEND_RECIPE).combination.pooling is not None:
        raise UsageError(
            f"{folder.name} is a blend for people: it has no predictions of images, which a student learns",
            hint="blend again without `pool`",
        )
    members = list(_trained_members(folder, runs))
    if not members:
        raise EnsembleError(
            f"{folder}: none of its runs was trained here, so its table and folds are not known",
            hint=f"train with its predictions: ensemble kfold --data TABLE --soft-labels {oof}",
        )
    same = [run for run, sha in members if sidecar is not None and sha == sidecar.folds_sha]
    record = read_json(folder / BLEND_RECORD) if (folder / BLEND_RECORD).is_file() else {}
    nested = isinstance(record, dict) and record.get("fitted") is not None
    return Teacher(folder.resolve().name, "blend", oof, (same or [members[0][0]])[0], nested, _target(oof))


def _trained_members(folder: Path, runs: Path) -> Iterator[tuple[Path, str]]:
    """Yield the folder of each run of a blend that was trained here, and the hash of its folds."""
    for member in read_recipe(folder / BLEND_RECIPE).runs:
        run = runs / (member.run or member.name).partition("#")[0]
        if "/" not in (member.run or member.name) and (run / RUN_CONFIG).is_file() and (run / "folds.csv").is_file():
            resolved = read_record(run / RUN_CONFIG).get("resolved")
            yield run, str(resolved.get("folds_sha", "")) if isinstance(resolved, dict) else ""


def _checked(oof: Path) -> Path:
    if not oof.is_file():
        raise EnsembleError(
            f"{oof} does not exist: a student learns out-of-fold predictions",
            hint="blend the out-of-fold predictions of runs, not only their test predictions",
        )
    return oof


def _target(oof: Path) -> str:
    sidecar = read_sidecar(oof)
    return LABEL if sidecar is None else sidecar.target
