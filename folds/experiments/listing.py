"""List all runs of the ledger and of the runs folder, with their scores and what is doubtful about them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from folds.config.files import read_record
from folds.errors import EnsembleError
from folds.experiments.compared_settings import settings_of
from folds.experiments.comparison import compare_runs
from folds.experiments.ledger import Ledger
from folds.experiments.record import entry_from_files, trained_folds
from folds.experiments.refit import refit_done
from folds.metrics.classification import METRICS, Metric
from folds.metrics.custom import find_metric
from folds.metrics.intervals import Difference, interval_over_people
from folds.metrics.positive import in_order_of_metric
from folds.metrics.task_names import CLASSES
from folds.metrics.tasks import metric_for_task
from folds.predictions.changed_labels import has_changed_labels
from folds.predictions.file_names import BLEND_RECORD, RUN_CONFIG
from folds.predictions.files import read_array, read_sidecar
from folds.predictions.named import blend_names, oof_of, progress_of
from folds.predictions.reading import is_by_person, scored_index, units_of
from folds.utils.files import read_json, sha256_file
from folds.utils.text import counted

logger = logging.getLogger(__name__)

NOT_IN_LEDGER, REMOVED = "not in the ledger", "files deleted"
CHANGED, BASELINE_CHANGED = "retrained since", "baseline retrained since"
REFIT_CHANGED = "model of all people not in the ledger"
UNFINISHED = "unfinished"
BY_PERSON = "scored by person"
BLEND = "blend"  # in the column arch


@dataclass(frozen=True)
class RunListing:
    """A run in the list, described by its line of the ledger or, without one, by its files.

    Attributes
    ----------
    entry : the fields of a line of the ledger.
    notes : the notes on the run, oldest first.
    flags : warnings about the run or its line.
    among : number of runs that are compared with the same baseline.
    metric : the metric of its columns.
    """

    run: str
    entry: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    among: int = 1
    metric: Metric = METRICS["macro_f1"]

    @property
    def score(self) -> Mapping[str, float] | None:
        """Return its out-of-fold score by `metric`, with the keys of `Interval.from_dict`; None if it has none."""
        return (self.entry.get("oof") or {}).get(self.metric.name)

    @property
    def task(self) -> str:
        """Return what its classes are, one of `folds.metrics.task_names.ALL_TASKS`; as a rule ``classes``."""
        return _task_of(self.entry)

    @property
    def is_blend(self) -> bool:
        """Return whether it is a blend and not a training."""
        return self.entry.get("arch") == BLEND

    @property
    def baseline(self) -> str:
        """Return the name of the baseline; "" without one."""
        return (self.entry.get("baseline") or {}).get("run", "")

    @property
    def difference(self) -> Mapping[str, Any] | None:
        """Return the difference of its score from the baseline, with the keys of `Difference.from_dict`, or None."""
        return ((self.entry.get("baseline") or {}).get("differences") or {}).get(self.metric.name)

    @property
    def significance(self) -> str:
        """Return whether that difference is significant: ``yes``, or ``no`` with the reason; "" without a baseline."""
        found = self.difference
        return "" if found is None else Difference.from_dict(found).verdict(self.among)


def list_runs(ledger: Ledger, runs: Path = Path("runs"), others: bool = False) -> list[RunListing]:
    """Return every run with a trained fold in the order of the last lines; runs without a line follow, by name.

    A run whose files cannot be read is skipped, with a warning in the log.

    Parameters
    ----------
    others : also list the runs without a trained fold, and the blends.
    """
    latest = ledger.latest()
    existing = {path.parent.name for path in runs.glob("*/config.toml")}
    listed = []
    for name, entry in latest.items():
        entry = _without_changed_people(entry, runs)
        flags = _flags(entry, runs) if name in existing else [REMOVED]
        listed.append(RunListing(name, entry, tuple(ledger.notes_of(name)), tuple(flags)))
    for name in sorted(existing - set(latest)):
        try:
            found = entry_from_files(name, runs)
        except EnsembleError as error:
            logger.warning(f"{name}: {error.message}")
            continue
        if found is not None:
            listed.append(RunListing(name, found, tuple(ledger.notes_of(name)), (NOT_IN_LEDGER, *_flags(found, runs))))
        elif others:
            listed.append(RunListing(name, _unfinished(name, runs), tuple(ledger.notes_of(name)), (UNFINISHED,)))
    for name in blend_names(runs) if others else ():
        entry = _blend(name, runs)
        flags = [BY_PERSON] if entry["oof"].get("by_person") else []
        listed.append(RunListing(name, entry, tuple(ledger.notes_of(name.rpartition("/")[2])), tuple(flags)))
    listed = [replace(one, metric=metric_for_task(None, one.task)) for one in listed]
    counted = Counter(one.baseline for one in listed if one.difference is not None)
    return [replace(one, among=max(1, counted[one.baseline])) for one in listed]


def _task_of(entry: Mapping[str, Any]) -> str:
    """Return the task of a line of the ledger, which names it where every label or number has a column."""
    return (entry.get("oof") or {}).get("task") or CLASSES


def _without_changed_people(entry: dict[str, Any], runs: Path) -> dict[str, Any]:
    """Return a line with scores without the people of changed labels, whom earlier versions scored as well."""
    if not has_changed_labels(entry["run"], runs) or "changed_people" in (entry.get("oof") or {}):
        return entry
    try:
        found = entry_from_files(entry["run"], runs)
    except EnsembleError:
        return entry  # its flags say that the files are damaged
    return entry if found is None or found["folds"] != entry["folds"] else {**entry, "oof": found["oof"]}


def _unfinished(name: str, runs: Path) -> dict[str, Any]:
    """Return the fields of a run without a trained fold: what it was started with."""
    path = runs / name / RUN_CONFIG
    settings, progress = settings_of(read_record(path)), progress_of(name, runs)
    return _untrained(name, str(settings.get("arch", "")), path) | {
        "k": progress.k if progress else 1,
        "settings": settings,
    }


def _untrained(name: str, arch: str, path: Path) -> dict[str, Any]:
    """Return the fields of something that was not trained; its time is that of a file."""
    time = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
    cost = {"seconds": 0, "images": 0, "devices": []}
    common = {"run": name, "time": time, "arch": arch, "folds": {}, "k": 0, "settings": {}, "oof": {}, "cost": cost}
    return common | {"optimistic": False, "changed": []}


def _blend(name: str, runs: Path) -> dict[str, Any]:
    """Return the fields of a blend from its record; a record that says nothing usable leaves them empty."""
    path = runs / name / BLEND_RECORD
    entry = _untrained(name, BLEND, path)
    try:
        record = read_json(path)
        members = [str(one["run"]) for one in record["runs"]]
        entry["settings"] = {"method": str(record["method"]), "runs": ",".join(members)}
        for split, one in {} if record.get("per") else record["blend"].items():  # the list scores images
            score = one["score"]
            known = {
                key: value for key, value in score.items() if isinstance(value, dict) and None not in value.values()
            }
            entry[split] = {"rows": score["rows"], "people": score["people"], **known}
            # Numbers have no accuracy.
            own = "accuracy" in score and "accuracy" not in known
            entry[split] |= {"accuracy": {"score": score["accuracy"]}} if own else {}
    except (EnsembleError, LookupError, TypeError, AttributeError):
        pass
    if oof_of(name, runs).exists():
        try:
            sidecar = read_sidecar(oof_of(name, runs))
        except EnsembleError:  # a damaged file has no score
            return entry
        if sidecar is not None and sidecar.has_columns:
            entry["oof"] = entry["oof"] | {"task": sidecar.task}
        if sidecar is not None and is_by_person(sidecar):
            entry["oof"] = entry["oof"] | {"by_person": True}
        metric = metric_for_task(None, _task_of(entry))
        if metric.name not in entry["oof"]:
            measured = _measured(oof_of(name, runs), metric)
            entry["oof"] = entry["oof"] | ({} if measured is None else {metric.name: measured})
    return entry


def with_metric(listed: Sequence[RunListing], metric: str, runs: Path = Path("runs")) -> list[RunListing]:
    """Return the runs with their scores by another metric, computed from their predictions where the line lacks it.

    Runs of a task that the metric does not fit have no score by it.

    Raises
    ------
    UsageError : an unknown metric.
    """
    found = find_metric(metric)
    return [_with_metric(one, found, runs) for one in listed]


def _with_metric(one: RunListing, metric: Metric, runs: Path) -> RunListing:
    entry = dict(one.entry)
    scores, path = entry.get("oof") or {}, oof_of(one.run, runs)
    if one.task not in metric.tasks:
        return replace(one, entry={**entry, "baseline": None}, metric=metric)
    if "low" not in scores.get(metric.name, {}) and path.exists():
        measured = _measured(path, metric, None if one.is_blend else one.run)
        entry["oof"] = scores | ({metric.name: measured} if measured is not None else {})
    baseline = entry.get("baseline")
    if baseline is not None and metric.name not in (baseline.get("differences") or {}):
        try:
            change = compare_runs(baseline["run"], one.run, runs, metric=metric).differences[metric.name].to_dict()
        except EnsembleError:  # its files are deleted: the line says nothing about this metric
            pass
        else:
            differences = {**(baseline.get("differences") or {}), metric.name: change}
            entry["baseline"] = {**baseline, "differences": differences}
    return replace(one, entry=entry, metric=metric)


def _measured(path: Path, metric: Metric, run: str | None = None) -> dict[str, float] | None:
    """Return the score of a prediction file; None without labels.

    Parameters
    ----------
    run : the run, whose people with changed training labels are left out.
    """
    try:
        sidecar = read_sidecar(path)
        if sidecar is None:
            return None
        values = read_array(path)
        kept = None if run is None else scored_index(path.parent, [run], sidecar)[0]
        if kept is not None:
            values, sidecar = values[kept], replace(sidecar, rows=sidecar.rows.take(kept))
        labels, values, persons = units_of(values, sidecar)
        labels, (values,) = in_order_of_metric(metric, labels, [values], sidecar.classes, sidecar.scored)
        found = interval_over_people(metric, labels, values, persons)
    except (EnsembleError, ValueError, LookupError):
        return None
    return {"score": found.value, "low": found.low, "high": found.high}


def _flags(entry: Mapping[str, Any], runs: Path) -> list[str]:
    flags = ["optimistic"] if entry["optimistic"] else []
    flags += [f"student of {entry['teacher']}"] if entry.get("teacher") else []
    scores = entry.get("oof") or {}
    if scores.get("changed_people"):
        people = counted(scores["changed_people"], "person", "people")
        flags.append(f"scored {'without' if scores.get('left_out') else 'with'} {people} of changed labels")
    flags += [BY_PERSON] if scores.get("by_person") else []
    baseline = entry.get("baseline")
    try:
        if (
            trained_folds(entry["run"], runs) != entry["folds"]
            or sha256_file(runs / entry["run"] / RUN_CONFIG) != entry["config_sha"]
        ):
            flags.append(CHANGED)
        elif _refit_sha(refit_done(runs / entry["run"], entry["folds"])) != _refit_sha(entry.get("refit")):
            flags.append(REFIT_CHANGED)
        if baseline is not None and (now := trained_folds(baseline["run"], runs)) and now != baseline["folds"]:
            flags.append(BASELINE_CHANGED)
    except (EnsembleError, OSError):
        flags.append("files damaged")
    return flags


def _refit_sha(record: Mapping[str, Any] | None) -> str | None:
    return None if record is None else record.get("checkpoint_sha")
