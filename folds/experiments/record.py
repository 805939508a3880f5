"""Make a line of the ledger from the files of a run: its hypothesis, settings, scores and cost."""

from __future__ import annotations

import math
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.config.files import read_record
from folds.config.lookup import default_of
from folds.errors import EnsembleError
from folds.experiments.compared_settings import settings_between, settings_of
from folds.experiments.comparison import BaselineComparison, Comparison, compare_runs
from folds.experiments.ledger import append, ledger_file, now, read_ledger
from folds.experiments.refit import refit_done, refit_predictions
from folds.experiments.summary import RunLike
from folds.metrics.custom import find_metric
from folds.metrics.intervals import interval_over_people
from folds.predictions.file_names import RUN_CONFIG
from folds.predictions.files import PredictionMetadata
from folds.predictions.reading import is_by_person, mean_test_predictions, oof_predictions, scored_index, units_of
from folds.predictions.task_scores import recorded_metrics
from folds.utils.files import read_json, sha256_file, write_json
from folds.utils.schema import BOOL, NUMBER, TEXT, integer, mapping_of, optional, validate_fields

EXPERIMENT_FILE = "experiment.json"
_EXPERIMENT_FIELDS = {
    "hypothesis": optional(TEXT),
    "stated": optional(TEXT),
    "stated_after": optional(integer()),
    "baseline": optional(TEXT),
}
_DONE_FIELDS = {"checkpoint_sha": TEXT, "seconds": NUMBER, "images": integer(), "epochs": integer()}
_DONE_FIELDS |= {"device": optional(TEXT), "threads": optional(integer(1)), "optimistic": optional(BOOL)}


def save_hypothesis(run: RunLike, hypothesis: str | None) -> None:
    """Write the hypothesis and the baseline of a run to ``experiment.json``; None keeps the present ones.

    The number of folds that are trained already is recorded with the hypothesis, because a hypothesis stated after the
    results can be a description of them.
    """
    experiment = _experiment(run.folder)
    if hypothesis is not None and hypothesis != experiment.get("hypothesis"):
        trained_count = len(_done(run.folder))
        experiment |= {"hypothesis": hypothesis, "stated": now(), "stated_after": trained_count}
    if run.baseline is not None:
        experiment["baseline"] = run.baseline
    if experiment:
        write_json(run.folder / EXPERIMENT_FILE, experiment)


def record_run(run: RunLike, *, jobs: int | None = None, git: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """Append a line about a run to the ledger, and return it; return None if its last line is up to date.

    So a resume with nothing left to train appends no line, and a resume after a crash appends the missing one.

    Parameters
    ----------
    jobs : number of folds that were trained in parallel.
    git : state of the code at the start of the run (`git_state`).
    """
    header = _header(run.name, run.runs)
    if header is None:
        return None
    path = ledger_file(run.runs)
    last = read_ledger(path).latest().get(run.name)
    if last is not None and _identity(last) == _identity(header):
        return None
    entry = _complete(header, run.runs)
    entry["cost"] |= {"parameters": run.parameters, "jobs": jobs}
    entry["git"] = None if git is None else dict(git)
    append(path, "run", entry)
    return entry


def entry_from_files(run: str, runs: Path = Path("runs")) -> dict[str, Any] | None:
    """Return the line for a run that is not in the ledger; None if no fold is trained yet.

    Raises
    ------
    EnsembleError : the files of the run are damaged.
    """
    header = _header(run, runs)
    return None if header is None else _complete(header, runs)


def trained_folds(run: str, runs: Path = Path("runs")) -> dict[str, str]:
    """Return fold → hash of its checkpoint, from the files of the run."""
    return {str(fold): done["checkpoint_sha"] for fold, done in _done(runs / run).items()}


def comparison_record(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as plain values, for the ledger and ``--json``."""
    return {
        "varied": {name: list(values) for name, values in comparison.changed.items()},
        "controlled": list(comparison.unchanged),
        "differences": {name: found.to_dict() for name, found in comparison.differences.items()},
        "rows": comparison.rows,
        "people": comparison.people,
        "notes": list(comparison.notes),
    }


def baseline_records(compared: Sequence[BaselineComparison]) -> list[dict[str, Any]]:
    """Return the comparisons with baselines as plain values, for JSON."""
    among, records = sum(one.comparison is not None for one in compared), []
    for one in compared:
        if one.comparison is not None:
            verdict = {"distinguishable": one.comparison.verdict(among=among)}
            records.append({"run": one.run, "baseline": one.baseline} | comparison_record(one.comparison) | verdict)
        elif one.problem:
            records.append({"run": one.run, "baseline": one.baseline, "differences": None, "notes": [one.problem]})
    return records


def _experiment(folder: Path) -> dict[str, Any]:
    path = folder / EXPERIMENT_FILE
    if not path.is_file():
        return {}
    experiment = read_json(path)
    wrong = validate_fields(experiment, _EXPERIMENT_FIELDS)
    if wrong:
        raise EnsembleError(f"{path}: {wrong[0]}", hint="delete it, and give `hypothesis` and `baseline` again")
    return dict(experiment)


def _done(folder: Path) -> dict[int, dict[str, Any]]:
    """Return fold → content of its done.json, for the trained folds of a run."""
    found = {}
    for path in folder.glob("fold*/done.json"):
        record = read_json(path)
        wrong = validate_fields(record, _DONE_FIELDS)
        number = path.parent.name.removeprefix("fold")
        if wrong or not number.isdecimal():
            raise EnsembleError(
                f"{path} is damaged: {wrong[0] if wrong else 'not in the folder of a fold'}",
                hint=f"ensemble kfold … --name {folder.name} --resume trains this fold again",
            )
        found[int(number)] = record
    return dict(sorted(found.items()))


def _header(run: str, runs: Path) -> dict[str, Any] | None:
    """Return the fields of a line that do not need the predictions; None if no fold is trained."""
    folder, config = runs / run, runs / run / RUN_CONFIG
    done = _done(folder)
    if not done or not config.is_file():
        return None
    record = read_record(config)
    resolved = record["resolved"] if isinstance(record.get("resolved"), dict) else {}
    experiment = _experiment(folder)
    baseline = experiment.get("baseline")
    settings = settings_of(record)
    shas = {str(fold): one["checkpoint_sha"] for fold, one in done.items()}
    refit = _refit(folder, shas)
    teacher = {"teacher": str(resolved["teacher"])} if resolved.get("teacher") else {}
    return (
        ({} if refit is None else {"refit": refit})
        | teacher
        | {
            "run": run,
            "folds": shas,
            "k": record.get("k", len(done)),
            "settings": settings,
            "changed": [key for key, value in settings.items() if key in record and record[key] != default_of(key)],
            "data": record.get("data"),
            "hypothesis": experiment.get("hypothesis"),
            "stated_after": experiment.get("stated_after"),
            "baseline": None if baseline is None else {"run": baseline, "folds": trained_folds(baseline, runs)},
            "table_sha": str(resolved.get("table_sha", "")),
            "folds_sha": str(resolved.get("folds_sha", "")),
            "config_sha": sha256_file(config),
            "optimistic": any(one.get("optimistic") for one in done.values()),
            "cost": {
                "seconds": round(sum(float(one["seconds"]) for one in done.values()), 1),
                "images": sum(one["images"] * one["epochs"] for one in done.values()),
                "devices": sorted({one.get("device") or "unknown" for one in done.values()}),
                "threads": max((one.get("threads") or 1 for one in done.values()), default=1),
            },
        }
    )


def _refit(folder: Path, folds: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the fields of the model of all people that do not need its predictions."""
    done = refit_done(folder, folds)
    if done is None:
        return None
    return {"epochs": done["epochs"], "seconds": done["seconds"], "checkpoint_sha": done["checkpoint_sha"]}


def _identity(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    baseline = entry.get("baseline")
    compared = None if baseline is None else (baseline["run"], baseline["folds"])
    refit = (entry.get("refit") or {}).get("checkpoint_sha")
    return entry["folds"], entry["config_sha"], entry.get("hypothesis"), compared, refit


def _complete(header: dict[str, Any], runs: Path) -> dict[str, Any]:
    run = header["run"]
    try:
        values, sidecar = oof_predictions(runs, run)
        test = mean_test_predictions(runs, run)
        scores = {"oof": _measured_oof(run, runs, values, sidecar), "test": None if test is None else _measured(*test)}
    except (ValueError, LookupError) as error:
        raise EnsembleError(
            f"the predictions of {run} cannot be scored: {error}",
            hint=f"ensemble kfold … --name {run} --resume writes them",
        ) from None
    versions = runs / run / "environment.json"
    known = read_json(versions) if versions.is_file() else {}
    entry = header | {
        "time": now(),
        "arch": sidecar.arch or str(header["settings"].get("arch", "")),
        **scores,
        "versions": known if mapping_of(TEXT).holds(known) else {},
    }
    if isinstance(sidecar.checkpoint_sha, Mapping):  # a fold trained just before a stop is not in the predictions yet
        entry["folds"] = dict(sidecar.checkpoint_sha)
    if "refit" in header:
        found = refit_predictions(runs, run)
        if found is not None and found[1].rows.labels is not None:
            entry["refit"] = header["refit"] | {"test": _measured(*found)}
    if header["baseline"] is not None:
        entry["baseline"] = header["baseline"] | _against(header["baseline"]["run"], run, runs)
    return entry


def _against(baseline: str, run: str, runs: Path) -> dict[str, Any]:
    """Return the comparison with the baseline; if it fails, only the settings that differ, and the reason."""
    try:
        return comparison_record(compare_runs(baseline, run, runs))
    except EnsembleError as error:
        config = runs / baseline / RUN_CONFIG
        first = settings_of(read_record(config)) if config.is_file() else {}
        changed, unchanged = (
            settings_between(first, settings_of(read_record(runs / run / RUN_CONFIG))) if first else ({}, ())
        )
        values = {name: list(both) for name, both in changed.items()}
        return {"varied": values, "controlled": list(unchanged), "differences": None, "notes": [error.message]}


def _measured_oof(run: str, runs: Path, values: NDArray[np.floating], sidecar: PredictionMetadata) -> dict[str, Any]:
    """Return the out-of-fold scores, without the people of whom the run has changed training labels."""
    rows, people, left_out = scored_index(runs, [run], sidecar)
    if rows is not None:
        values, sidecar = values[rows], replace(sidecar, rows=sidecar.rows.take(rows))
    return _measured(values, sidecar) | ({"changed_people": people, "left_out": left_out} if people else {})


def _measured(values: NDArray[np.floating], sidecar: PredictionMetadata) -> dict[str, Any]:
    """Return the scores of predictions (n, classes) with their 95% CIs over people; by person if only persons are
    labeled.
    """
    labels, values, persons = units_of(values, sidecar)
    record: dict[str, Any] = {"rows": len(labels), "people": len(np.unique(persons))}
    record |= {"task": sidecar.task} if sidecar.has_columns else {}
    record |= {"by_person": True} if is_by_person(sidecar) else {}
    for name in recorded_metrics(sidecar.task):
        found = interval_over_people(find_metric(name), labels, values, persons).to_dict()
        if not sidecar.has_columns or (found["score"] is not None and not math.isnan(found["score"])):
            record[name] = {key: found[key] for key in ("score", "low", "high")}
    return record


TIMEOUT_SECONDS = 5.0  # a git status can take minutes for a huge working tree on a slow drive


def git_state(folder: Path = Path()) -> dict[str, Any] | None:
    """Return ``{"commit": …, "dirty": …}`` of the working tree that contains `folder`; None without a tree or git.

    ``dirty`` is true if a tracked file differs from the commit; untracked files (data, results) do not count. Nothing
    is sent or fetched, no code of the tree is run (None if its own settings name filters), and no author is recorded.
    """
    if _filters(folder):
        return None
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    if commit is None:
        return None
    status = _git(folder, "status", "--porcelain", "--untracked-files=no", "--ignore-submodules=all")
    return None if status is None else {"commit": commit.strip(), "dirty": bool(status.strip())}


def _filters(folder: Path) -> bool:
    """Return whether the working tree has settings of its own that make git run programs (filters of contents).

    A folder from elsewhere may bring its own ``.git/config``; `git status` would run a ``filter.NAME.clean`` in it.
    """
    names = _git(folder, "config", "--show-scope", "--includes", "--name-only", "--list")
    scopes = [line.lower().partition("\t") for line in (names or "").splitlines()]
    return any(scope in ("local", "worktree") and name.startswith("filter.") for scope, _, name in scopes)


def _git(folder: Path, *words: str) -> str | None:
    # No file-system monitor and no hook of the working tree may run, and no lock may block a git command of the user.
    command = ["git", "-C", str(folder), "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", *words]
    variables = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=TIMEOUT_SECONDS, env=variables, stdin=subprocess.DEVNULL, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None
