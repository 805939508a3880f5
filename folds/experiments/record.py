"""What a run was for and what came of it, put together from its files: a line of the ledger."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.config.files import read_record
from folds.config.recipe import default_of
from folds.errors import EnsembleError
from folds.experiments.comparison import (
    COMPARED,
    BaselineComparison,
    Comparison,
    compare_runs,
    settings_between,
    settings_of,
)
from folds.experiments.ledger import append, ledger_file, now, read_ledger
from folds.experiments.summary import RunLike
from folds.metrics.classification import METRICS
from folds.metrics.intervals import interval_over_people
from folds.predictions.files import PredictionMetadata
from folds.predictions.reading import labels_and_groups, mean_test_predictions, oof_predictions
from folds.utils.files import read_json, sha256_file, write_json
from folds.utils.schema import BOOL, NUMBER, TEXT, integer, mapping_of, optional, validate_fields

INTENT = "experiment.json"
_INTENT = {
    "hypothesis": optional(TEXT),
    "stated": optional(TEXT),
    "stated_after": optional(integer()),
    "baseline": optional(TEXT),
}
_DONE = {"checkpoint_sha": TEXT, "seconds": NUMBER, "images": integer(), "epochs": integer()}
_DONE |= {"device": optional(TEXT), "threads": optional(integer(1)), "optimistic": optional(BOOL)}


def save_hypothesis(run: RunLike, hypothesis: str | None) -> None:
    """Write down what a run is for, before it is trained; what was stated when it was begun stays where nothing new is
    given.

    A hypothesis that is stated when folds are trained already is recorded as such: it may be a description of them.
    """
    said = _intent(run.folder)
    if hypothesis is not None and hypothesis != said.get("hypothesis"):
        trained = len(_done(run.folder))
        said |= {"hypothesis": hypothesis, "stated": now(), "stated_after": trained}
    if run.baseline is not None:
        said["baseline"] = run.baseline
    if said:
        write_json(run.folder / INTENT, said)


def record_run(run: RunLike, *, jobs: int | None = None, git: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """Return append what a run has come to; the entry, or None where nothing was appended.

    What the last line of the run says already is not said again, so a `--resume` that has nothing to do adds nothing;
    and
    one after a crash adds the line that is missing.

    Parameters
    ----------
    jobs : how many were trained side by side.
    git : the state of the code when it was begun.
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
    """Return the line that the ledger would have of a run that is not in it; None where nothing is trained yet.

    Raises
    ------
    EnsembleError : its files are damaged.
    """
    header = _header(run, runs)
    return None if header is None else _complete(header, runs)


def trained_folds(run: str, runs: Path = Path("runs")) -> dict[str, str]:
    """Fold → hash of its checkpoint, as its files say."""
    return {str(fold): done["checkpoint_sha"] for fold, done in _done(runs / run).items()}


def comparison_record(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as plain values, for the ledger and --json."""
    return {
        "varied": {name: list(values) for name, values in comparison.changed.items()},
        "controlled": list(comparison.unchanged),
        "differences": {name: found.to_dict() for name, found in comparison.differences.items()},
        "rows": comparison.rows,
        "people": comparison.people,
        "notes": list(comparison.notes),
    }


def baseline_records(compared: Sequence[BaselineComparison]) -> list[dict[str, Any]]:
    """Return runs beside their baselines as plain values, for JSON."""
    among, records = sum(one.comparison is not None for one in compared), []
    for one in compared:
        if one.comparison is not None:
            verdict = {"distinguishable": one.comparison.verdict(among=among)}
            records.append({"run": one.run, "baseline": one.baseline} | comparison_record(one.comparison) | verdict)
        elif one.problem:
            records.append({"run": one.run, "baseline": one.baseline, "differences": None, "notes": [one.problem]})
    return records


def _intent(folder: Path) -> dict[str, Any]:
    path = folder / INTENT
    if not path.is_file():
        return {}
    said = read_json(path)
    wrong = validate_fields(said, _INTENT)
    if wrong:
        raise EnsembleError(f"{path}: {wrong[0]}", hint="remove it, and give --hypothesis and --baseline again")
    return dict(said)


def _done(folder: Path) -> dict[int, dict[str, Any]]:
    """Return what the trained folds of a run say, by fold."""
    found = {}
    for path in folder.glob("fold*/done.json"):
        record = read_json(path)
        wrong = validate_fields(record, _DONE)
        number = path.parent.name.removeprefix("fold")
        if wrong or not number.isdecimal():
            raise EnsembleError(
                f"{path} is damaged: {wrong[0] if wrong else 'not in the folder of a fold'}",
                hint="--resume trains this fold again",
            )
        found[int(number)] = record
    return dict(sorted(found.items()))


def _header(run: str, runs: Path) -> dict[str, Any] | None:
    """Return what is known of a run without looking at its predictions."""
    folder, config = runs / run, runs / run / "config.toml"
    done = _done(folder)
    if not done or not config.is_file():
        return None
    record = read_record(config)
    resolved = record["resolved"] if isinstance(record.get("resolved"), dict) else {}
    said = _intent(folder)
    baseline = said.get("baseline")
    settings = settings_of(record)
    return {
        "run": run,
        "folds": {str(fold): one["checkpoint_sha"] for fold, one in done.items()},
        "k": record.get("k", len(done)),
        "settings": settings,
        "changed": [key for key, value in settings.items() if key in record and record[key] != default_of(key)],
        "data": record.get("data"),
        "hypothesis": said.get("hypothesis"),
        "stated_after": said.get("stated_after"),
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


def _identity(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    baseline = entry.get("baseline")
    told = None if baseline is None else (baseline["run"], baseline["folds"])
    return entry["folds"], entry["config_sha"], entry.get("hypothesis"), told


def _complete(header: dict[str, Any], runs: Path) -> dict[str, Any]:
    run = header["run"]
    try:
        values, sidecar = oof_predictions(runs, run)
        test = mean_test_predictions(runs, run)
        scores = {"oof": _measured(values, sidecar), "test": None if test is None else _measured(*test)}
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
    if isinstance(sidecar.checkpoint_sha, Mapping):  # of a run that was stopped before it published a fold
        entry["folds"] = dict(sidecar.checkpoint_sha)
    if header["baseline"] is not None:
        entry["baseline"] = header["baseline"] | _against(header["baseline"]["run"], run, runs)
    return entry


def _against(baseline: str, run: str, runs: Path) -> dict[str, Any]:
    """Return what differs from the baseline; where the scores cannot be compared, the settings alone, and why."""
    try:
        return comparison_record(compare_runs(baseline, run, runs))
    except EnsembleError as error:
        config = runs / baseline / "config.toml"
        first = settings_of(read_record(config)) if config.is_file() else {}
        varied, controlled = (
            settings_between(first, settings_of(read_record(runs / run / "config.toml"))) if first else ({}, ())
        )
        differing = {name: list(values) for name, values in varied.items()}
        return {"varied": differing, "controlled": list(controlled), "differences": None, "notes": [error.message]}


def _measured(values: NDArray[np.floating], sidecar: PredictionMetadata) -> dict[str, Any]:
    """Scores of predictions (n, classes) with their intervals over people."""
    truth, persons = labels_and_groups(sidecar)
    measured: dict[str, Any] = {"rows": len(truth), "people": int(persons.max()) + 1}
    for name in COMPARED:
        found = interval_over_people(METRICS[name], truth, values, persons)
        measured[name] = {"score": found.value, "low": found.low, "high": found.high}
    return measured


SECONDS = 5.0  # a huge working tree on a slow drive is not worth more


def git_state(folder: Path = Path()) -> dict[str, Any] | None:
    """Return ``{"commit": …, "dirty": …}`` of the working tree that `folder` is in; None where there is none, or no
    git.

    `dirty`: a file that git keeps differs from the commit; what it does not keep (data, results) does not count.
    Nothing is sent or fetched, nothing in the tree is run, and it says nothing about who made it.
    """
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    if commit is None:
        return None
    status = _git(folder, "status", "--porcelain", "--untracked-files=no", "--ignore-submodules=all")
    return None if status is None else {"commit": commit.strip(), "dirty": bool(status.strip())}


def _git(folder: Path, *words: str) -> str | None:
    # Neither a monitor nor hooks that a working tree names are run; no lock is taken that a command of the user would
    # meet.
    command = ["git", "-C", str(folder), "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", *words]
    variables = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=SECONDS, env=variables, stdin=subprocess.DEVNULL, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None
