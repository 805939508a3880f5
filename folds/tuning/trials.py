"""What came of the trials of `ensemble tune`: one record each, the table of them all, and the settings that came out
best.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from folds.config.files import to_toml
from folds.config.recipe import Recipe, Settings
from folds.errors import EnsembleError
from folds.tuning.space import TuneOptions
from folds.utils.csv_table import csv_text
from folds.utils.files import read_json, write_atomic, write_json
from folds.utils.schema import ANYTHING, NUMBER, TEXT, FieldType, integer, mapping_of, one_of, optional, validate_fields

FINISHED, STOPPED, FAILED = "finished", "stopped", "failed"
RECORD = "trial.json"
BEST = "best.toml"
TABLE = "trials.csv"
_SCORES = FieldType(
    "scores by fold",
    lambda value: isinstance(value, dict) and all(f.isdecimal() and NUMBER.holds(s) for f, s in value.items()),
)
_FIELDS = {
    "number": integer(),
    "settings": mapping_of(ANYTHING),
    "state": one_of(FINISHED, STOPPED, FAILED),
    "score": optional(NUMBER),
    "folds": _SCORES,
    "epochs": integer(),
    "of": integer(),
    "seconds": NUMBER,
    "reason": TEXT,
}


@dataclass(frozen=True)
class Trial:
    """How a trial has ended.

    Attributes
    ----------
    number : from 0 in the order of drawing.
    settings : what it was tried with, of the space alone.
    state : ``finished``, ``stopped`` (early, by comparison with others) or ``failed``.
    score : mean over the folds that it was trained on, as far as it came; None where it failed.
    folds : score by fold; of a fold that was not finished, that of its last epoch.
    epochs : trained, all folds together; `of` so many.
    seconds : of training.
    reason : why it failed.
    """

    number: int
    settings: Mapping[str, Any]
    state: str
    score: float | None
    folds: Mapping[int, float]
    epochs: int
    of: int
    seconds: float
    reason: str = ""


def trial_name(number: int) -> str:
    """Return ``t007``."""
    return f"t{number:03d}"


def write_trial(folder: Path, trial: Trial) -> None:
    """Record how a trial ended, in its folder; what is recorded is not trained again."""
    write_json(folder / RECORD, asdict(trial) | {"folds": {str(fold): score for fold, score in trial.folds.items()}})


def read_trial(folder: Path) -> Trial | None:
    """Return the record in a trial's folder; None where it has not ended.

    Raises
    ------
    EnsembleError : the record is damaged.
    """
    path = folder / RECORD
    if not path.exists():
        return None
    record = read_json(path)
    if validate_fields(record, _FIELDS, others=False) or (record.get("score") is None) != (record["state"] == FAILED):
        raise EnsembleError(f"{path} is damaged", hint=f"rm {path} and --resume train this trial again")
    return Trial(
        **record
        | {"score": record.get("score"), "folds": {int(fold): score for fold, score in record["folds"].items()}}
    )


def ordered(trials: Sequence[Trial], options: TuneOptions) -> list[Trial]:
    """Best first: those that finished, then those that were stopped early (their scores are of fewer epochs), then
    those that failed.
    """
    place = {FINISHED: 0, STOPPED: 1, FAILED: 2}
    sign = 1 if options.lower_is_better else -1
    return sorted(trials, key=lambda one: (place[one.state], sign * (one.score or 0.0), one.number))


def best_of(trials: Sequence[Trial], options: TuneOptions) -> Trial | None:
    """Return the best of those that finished; None where none did."""
    finished = [one for one in ordered(trials, options) if one.state == FINISHED]
    return finished[0] if finished else None


def write_table(folder: Path, trials: Sequence[Trial], options: TuneOptions) -> Path:
    """Write ``trials.csv`` and ``trials.json``, best first; the path of the first."""
    rows = ordered(trials, options)
    keys = sorted({key for one in rows for key in one.settings})
    columns: dict[str, list[str]] = {"trial": [trial_name(one.number) for one in rows]}
    columns |= {key: [cell(one.settings.get(key)) for one in rows] for key in keys}
    columns |= {
        options.metric: ["" if one.score is None else repr(one.score) for one in rows],
        "trained": [str(one.epochs) for one in rows],  # not epochs: that may be a setting
        "of": [str(one.of) for one in rows],
        "state": [one.state for one in rows],
        "seconds": [f"{one.seconds:.1f}" for one in rows],
        "reason": [one.reason for one in rows],
    }
    write_json(folder / "trials.json", trial_records(rows))
    return write_atomic(folder / TABLE, csv_text(columns))


def trial_records(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """For JSON, in the order given."""
    return [{"trial": trial_name(one.number), **asdict(one)} for one in trials]


def cell(value: Any) -> str:
    """Return a setting in a table."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def write_best(
    folder: Path, name: str, trial: Trial, settings: Settings, recipe: Recipe, options: TuneOptions, scored: int
) -> Path:
    """Write ``best.toml``, ready for ``ensemble kfold -c``: trained on all folds, as a run of its own.

    Parameters
    ----------
    name : of that run.
    settings, recipe : of the trial.
    scored : the trials that had a score, among which it was the best.
    """
    body = to_toml(replace(settings, name=name), recipe, {}).replace("\n[resolved]\n", "")
    folds = ", ".join(map(str, trial.folds))
    chosen = ", ".join(f"{key} {cell(value)}" for key, value in trial.settings.items())
    lines = [
        f"# Chosen by ensemble tune: {chosen}.",
        f"# {options.metric} {trial.score:.4f} on fold {folds}, the best of {scored} trials there: optimistic, "
        "because it was chosen for this score.",
        f"# What it is worth say the other folds of: ensemble kfold -c {folder / BEST}",
    ]
    return write_atomic(folder / BEST, "\n".join([*lines, body]))
