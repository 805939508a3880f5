"""Read and write the results of `ensemble tune`: a record per trial, the table of all trials, the best settings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from folds.config.command_settings import Settings
from folds.config.files import to_toml
from folds.config.recipe import Recipe
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
    """The result of a trial.

    Attributes
    ----------
    number : number of the trial, from 0 in the order of sampling.
    settings : its values of the settings in the space.
    state : ``finished``, ``stopped`` (early, by comparison with other trials) or ``failed``.
    score : mean over the folds that it was trained on, also if the last one is incomplete; None if it failed.
    folds : fold → score; the score of the last trained epoch for an incomplete fold.
    epochs : number of trained epochs, summed over the folds.
    of : number of planned epochs, summed over the folds.
    seconds : training time.
    reason : why it failed; "" otherwise.
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
    """Return the name of a trial, e.g. ``t007``."""
    return f"t{number:03d}"


def write_trial(folder: Path, trial: Trial) -> None:
    """Write the result of a trial to its folder; a trial with a record is not trained again."""
    write_json(folder / RECORD, asdict(trial) | {"folds": {str(fold): score for fold, score in trial.folds.items()}})


def read_trial(folder: Path) -> Trial | None:
    """Return the result in a trial's folder; None if the trial has not ended.

    Raises
    ------
    EnsembleError : the record is damaged.
    """
    path = folder / RECORD
    if not path.exists():
        return None
    record = read_json(path)
    if validate_fields(record, _FIELDS, others=False) or (record.get("score") is None) != (record["state"] == FAILED):
        raise EnsembleError(f"{path} is damaged", hint=f"rm {path}, then `resume=True` trains this trial again")
    return Trial(
        **record
        | {"score": record.get("score"), "folds": {int(fold): score for fold, score in record["folds"].items()}}
    )


def sort_trials(trials: Sequence[Trial], options: TuneOptions) -> list[Trial]:
    """Return the trials, best first: finished ones, then ones stopped early (after fewer epochs), then failed ones."""
    rank = {FINISHED: 0, STOPPED: 1, FAILED: 2}
    sign = 1 if options.lower_is_better else -1
    return sorted(trials, key=lambda one: (rank[one.state], sign * (one.score or 0.0), one.number))


def best_of(trials: Sequence[Trial], options: TuneOptions) -> Trial | None:
    """Return the best finished trial; None if no trial finished."""
    finished = [one for one in sort_trials(trials, options) if one.state == FINISHED]
    return finished[0] if finished else None


def write_table(folder: Path, trials: Sequence[Trial], options: TuneOptions) -> Path:
    """Write ``trials.csv`` and ``trials.json``, best first, and return the path of ``trials.csv``."""
    rows = sort_trials(trials, options)
    keys = sorted({key for one in rows for key in one.settings})
    columns: dict[str, list[str]] = {"trial": [trial_name(one.number) for one in rows]}
    columns |= {key: [cell(one.settings.get(key)) for one in rows] for key in keys}
    columns |= {
        options.metric: ["" if one.score is None else repr(one.score) for one in rows],
        "trained": [str(one.epochs) for one in rows],  # not "epochs", which can be a setting of the space
        "of": [str(one.of) for one in rows],
        "state": [one.state for one in rows],
        "seconds": [f"{one.seconds:.1f}" for one in rows],
        "reason": [one.reason for one in rows],
    }
    write_json(folder / "trials.json", trial_records(rows))
    return write_atomic(folder / TABLE, csv_text(columns))


def trial_records(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Return plain values for JSON, in the given order."""
    return [{"trial": trial_name(one.number), **asdict(one)} for one in trials]


def cell(value: Any) -> str:
    """Return the value of a setting as text for a table."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def write_best(
    folder: Path, name: str, trial: Trial, settings: Settings, recipe: Recipe, objective: str, scored: int
) -> Path:
    """Write ``best.toml``, with which ``ensemble kfold -c`` trains the best trial on all folds; return its path.

    Parameters
    ----------
    name : name of the run that it trains.
    settings, recipe : settings of the trial.
    objective : what trials are compared by: the metric, and whether it is by person.
    scored : number of trials with a score, of which this is the best.
    """
    body = to_toml(replace(settings, name=name), recipe, {}).replace("\n[resolved]\n", "")
    folds = ", ".join(map(str, trial.folds))
    values = ", ".join(f"{key} {cell(value)}" for key, value in trial.settings.items())
    lines = [
        f"# Chosen by ensemble tune: {values}.",
        f"# {objective} {trial.score:.4f} on fold {folds} is optimistic: it is the best of {scored} scores on the "
        "same folds.",
        f"# The other folds give an unbiased score: ensemble kfold -c {folder / BEST}",
    ]
    return write_atomic(folder / BEST, "\n".join([*lines, body]))
