"""Find the files of what a report is about: names of runs and blends, prediction files of any program, a table."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ensemble.members.true_labels import is_sample_table
from folds.errors import EnsembleError, UsageError, close_matches
from folds.metrics.task_names import ALL_TASKS, CLASSES, COLUMN_TASKS
from folds.predictions.file_names import BLEND_RECIPE, BLEND_RECORD, RUN_CONFIG
from folds.predictions.files import sidecar_path
from folds.predictions.named import BLENDS, TTA, blend_names, files_of, is_blend, prediction_names
from folds.utils.files import expand_pattern, is_pattern, read_json
from folds.utils.tables import table_header, table_suffix


@dataclass
class ReportInputs:
    """The files of a report.

    Attributes
    ----------
    runs : prediction files of runs, and of other programs.
    views : prediction files of runs with test-time views.
    blends : folders with a blend.json, those that were named first.
    folders : run → its folder with config.toml.
    data : the table or the folder of images that was named.
    named : whether something was named, so that nothing is added.
    """

    runs: list[Path] = field(default_factory=list)
    views: list[Path] = field(default_factory=list)
    blends: list[Path] = field(default_factory=list)
    folders: dict[str, Path] = field(default_factory=dict)
    data: Path | None = None
    named: bool = False


def find_inputs(what: Iterable[Any] = (), root: Path = Path(), as_table: bool = False) -> ReportInputs:
    """Return the files of what was named; of nothing: those of all runs in ``runs/``, and of the newest blend.

    Parameters
    ----------
    what : names of runs and blends, prediction files and patterns, folders of runs and blends, a table or a folder of
        images; runs and blends of Python.
    root : the folder that holds ``runs/``.
    as_table : whether a CSV that is named is a table of images, whatever its columns.

    Raises
    ------
    EnsembleError : nothing has this name, or there are no runs.
    """
    found, runs = ReportInputs(), root / "runs"
    for one in what:
        found.named = True
        if as_table and isinstance(one, str | Path) and table_suffix(str(one)) and Path(one).is_file():
            found.data = Path(one)
            continue
        _add(found, one, runs)
    if not found.named:
        for name in prediction_names(runs):
            if not name.startswith(f"{BLENDS}/"):
                _add_run(found, name, runs)
        newest = sorted(blend_names(runs), key=lambda name: ((runs / name / BLEND_RECORD).stat().st_mtime_ns, name))
        found.blends += [runs / name for name in newest[-1:]]
    for name, folder in list(found.folders.items()):
        _add_views(found, name, folder.parent)
    for listed in (found.runs, found.views, found.blends):
        listed[:] = list(dict.fromkeys(listed))
    if not (found.runs or found.views or found.blends or found.data):
        raise EnsembleError(
            f"there are no predictions in {runs}, from which a report is made",
            hint="ensemble kfold --k 5 --arch swin trains a run; ensemble report TABLE.csv shows the data alone",
        )
    return found


def stated_task(path: Path) -> str | None:
    """Return the task that the file beside predictions states, ``classes`` if it names none; None without the file."""
    beside = sidecar_path(path)
    if path.suffix == ".npy" and beside.is_file():
        with suppress(EnsembleError):
            record = read_json(beside)
            task = record.get("task") if isinstance(record, dict) else None
            return task if task in ALL_TASKS else CLASSES
    return None


def keep_one_task(found: ReportInputs) -> list[str]:
    """Keep the runs of one task, for a page about everything in ``runs/``; return a warning that names the others.

    The task is that of the newest blend, else that of most runs; all tasks with one label of an image are one.
    """

    def group(path: Path) -> str | None:
        task = stated_task(path)
        return CLASSES if task is not None and task not in COLUMN_TASKS else task

    blends = [folder / f"{split}.npy" for folder in found.blends for split in ("oof", "test")]
    stated = {(_run_of(path), one): None for path in found.runs if (one := group(path)) is not None}
    counts = Counter(task for _, task in stated)
    kept = next((one for path in blends if path.is_file() and (one := group(path)) in counts), None)
    if len(counts) < 2:
        return []
    kept = kept or counts.most_common(1)[0][0]
    names = list(dict.fromkeys(name for name, task in stated if task != kept))
    for listed in (found.runs, found.views):
        listed[:] = [path for path in listed if group(path) in (kept, None)]
    for name in names:
        found.folders.pop(name, None)
    return [f"the page is about {kept}; runs of other tasks are left out: {', '.join(names)} (name them for a page)"]


def _run_of(path: Path) -> str:
    """Return the name of the run of a prediction file in ``runs/``."""
    return re.split(r"\.(?:oof|test|fold\d+\.test)\.npy$", path.name)[0]


def _add(found: ReportInputs, one: Any, runs: Path) -> None:
    if isinstance(one, Mapping):  # `Runs`
        for run in one.values():
            _add(found, run, runs)
        return
    if not isinstance(one, str | Path):
        _add_object(found, one)
        return
    path, text = Path(one), str(one)
    if is_pattern(path):
        matches = expand_pattern(path)
        if not matches:
            raise EnsembleError(f"no file matches {path}", hint=_hint(runs))
        for match in matches:
            _add_path(found, match, runs)
        return
    if not path.is_file() and files_of(text, runs):
        _add_name(found, text, runs)
    elif path.exists():
        _add_path(found, path, runs)
    else:
        close = close_matches(
            text, [*prediction_names(runs), *(name.removeprefix(f"{BLENDS}/") for name in blend_names(runs))]
        )
        meant = f"; did you mean {' or '.join(close)}?" if close else ""
        raise EnsembleError(
            f"expected a run, a blend, a prediction file or a table, found '{text}'{meant}", hint=_hint(runs)
        )


def _hint(runs: Path) -> str:
    names = prediction_names(runs)
    return f"{runs} has {', '.join(names[:10])}" if names else "ensemble kfold --k 5 --arch swin trains a run"


def _add_name(found: ReportInputs, name: str, runs: Path) -> None:
    folder, _, rest = name.rpartition("/")
    if folder == TTA:
        found.views += files_of(name, runs)
    elif is_blend(name, runs):
        found.blends.append(runs / BLENDS / rest)
    else:
        _add_run(found, name, runs)


def _add_run(found: ReportInputs, name: str, runs: Path) -> None:
    found.runs += files_of(name, runs)
    if (runs / name / RUN_CONFIG).is_file():
        found.folders[name] = runs / name


def _add_views(found: ReportInputs, name: str, runs: Path) -> None:
    found.views += files_of(f"{TTA}/{name}", runs)


def _add_object(found: ReportInputs, one: Any) -> None:
    """Add a run, a merge of views or a saved blend of the Python interface."""
    name, root, files = (getattr(one, field, None) for field in ("name", "root", "files"))
    run = getattr(one, "run", None)
    if isinstance(run, str) and files is not None:  # TTAResult
        found.views += [Path(file) for file in files]
    elif isinstance(name, str) and isinstance(root, Path) and files is not None:  # TrainedRun
        found.runs += [Path(file) for file in files]
        if (root / "runs" / name / RUN_CONFIG).is_file():
            found.folders[name] = root / "runs" / name
    else:
        raise UsageError(
            "expected names of runs, of blends and of files, or results of kfold and tta, "
            f"found a {type(one).__name__}",
            hint="a blend is saved first: report(blend=blend.save()), or report(blend='NAME')",
        )


def _add_path(found: ReportInputs, path: Path, runs: Path) -> None:
    if path.name in (BLEND_RECIPE, BLEND_RECORD):
        path = path.parent
    if (path / BLEND_RECORD).is_file():
        found.blends.append(path)
    elif (path / RUN_CONFIG).is_file():
        _add_run(found, path.resolve().name, path.resolve().parent)
    elif path.is_dir():
        found.data = path
    elif path.parent.parent.name == BLENDS and path.suffix == ".npy":
        found.blends.append(path.parent)
    elif path.parent.name == TTA:
        found.views.append(path)
    elif table_suffix(path.name) and _lists_samples(path):
        found.data = path
    else:
        found.runs.append(path)
        for end in (".oof", ".test"):
            name = path.name.removesuffix(".npy").removesuffix(end)
            if (path.parent / name / RUN_CONFIG).is_file():
                found.folders[name] = path.parent / name


def _lists_samples(path: Path) -> bool:
    """Return whether a table names images with their labels, so that it holds no predictions."""
    if path.name.startswith("samples-"):
        return True
    header = table_header(path)
    return is_sample_table(header) or {"path", "label"} <= set(header)
