"""Two runs side by side: the settings that differ, and the paired difference of their out-of-fold scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.config.files import read_record
from folds.errors import EnsembleError, UsageError, close_matches
from folds.experiments.summary import RunLike, RunSummary
from folds.metrics.classification import METRICS
from folds.metrics.grouping import average_by_person
from folds.metrics.intervals import LEVEL, Difference, Interval, difference_over_people
from folds.predictions.files import LABEL, PredictionMetadata, SampleRows, oof_file, read_array, read_sidecar
from folds.utils.files import read_json
from folds.utils.numeric import factorize
from folds.utils.text import value_text

COMPARED = ("macro_f1", "accuracy", "log_loss")
# Where something lies, and how it was asked for; what is in it is compared by its hash.
_ASKED = {"data", "test", "folds", "path", "label", "person", "id", "split", "person_regex", "name", "init", "resolved"}
_ASKED |= {"holdout", "repair", "stratify", "repeats", "seeds"}
# What was decided at the start, as a setting: the number format instead of "auto", contents by the beginning of their
# hash.
_DECIDED = {"amp": "amp", "device": "device"}
_CONTENT = {
    "table_sha": "data",
    "test_sha": "test",
    "folds_sha": "folds",
    "images_sha": "images",
    "init_sha": "init",
    "trained_sha": "trained",
}


@dataclass(frozen=True)
class Comparison:
    """What the run `second` has more than the run `first`.

    Attributes
    ----------
    varied : setting → its values in both; None where it is not set.
    controlled : the settings that are the same.
    differences : by metric, on the samples that both have predicted.
    rows, people : of these samples; `rows` are people where a person's images were averaged.
    notes : what a reader must know to take the difference for what it is.
    """

    first: str
    second: str
    changed: Mapping[str, tuple[Any, Any]]
    unchanged: tuple[str, ...]
    differences: Mapping[str, Difference]
    rows: int
    people: int
    notes: tuple[str, ...] = ()

    def verdict(self, metric: str = "macro_f1", among: int = 1) -> str:
        """Return whether the difference is significant: ``yes``, or ``no`` with the reason.

        Parameters
        ----------
        among : comparisons that are looked at together: the more there are, the likelier one stands out by chance
            (Bonferroni).
        """
        return self.differences[metric].verdict(among)


def settings_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run was made with, from its config.toml: settings as decided, and what lay in its files by the
    beginning of their hashes.
    """
    settings = {key: value for key, value in record.items() if key not in _ASKED}
    if isinstance(settings.get("arch"), list):
        settings["arch"] = ",".join(map(str, settings["arch"]))
    resolved = record.get("resolved")
    for key, value in resolved.items() if isinstance(resolved, Mapping) else ():
        if key in _DECIDED:
            settings[_DECIDED[key]] = value
        elif key in _CONTENT and value:
            settings[_CONTENT[key]] = str(value)[:12]
    return settings


def settings_between(
    first: Mapping[str, Any], second: Mapping[str, Any]
) -> tuple[dict[str, tuple[Any, Any]], tuple[str, ...]]:
    """Return the settings that differ, with both values, and the names of those that are the same."""
    names = [*first, *(name for name in second if name not in first)]
    varied = {name: (first.get(name), second.get(name)) for name in names if first.get(name) != second.get(name)}
    return varied, tuple(name for name in names if name not in varied)


def compare_runs(first: str, second: str, runs: Path = Path("runs"), per_person: bool = False) -> Comparison:
    """Compare what two runs have published, lined up by id and class name.

    Raises
    ------
    UsageError : there is no such run.
    EnsembleError : they cannot be compared: other targets or classes, no common samples, other labels for the same one.
    """
    a, b = (_published(name, runs) for name in (first, second))
    notes: list[str] = []
    _check_same_target(a, b)
    rows, at_a, at_b = _common(a, b, notes)
    labels, persons = _truth(a, b, at_a, at_b, notes)
    code = {name: i for i, name in enumerate(a.sidecar.classes)}
    strange = sorted(set(labels.tolist()) - set(code))
    if strange:
        raise EnsembleError(
            f"{a.path}: the label '{strange[0]}' is not one of its {len(code)} classes",
            hint="restore the file, or train the run again",
        )
    truth = np.array([code[label] for label in labels.tolist()])
    order = [b.sidecar.classes.index(name) for name in a.sidecar.classes]
    values = [np.asarray(a.values)[at_a], np.asarray(b.values)[at_b][:, order]]
    people = factorize(persons)[1]
    if per_person:
        averaged = [average_by_person(truth, some, people, len(code)) for some in values]
        truth, people, values = averaged[0][0], averaged[0][2], [one[1] for one in averaged]
    _note_splits(a, b, notes)
    varied, controlled = settings_between(a.settings, b.settings)
    missing = [one.run for one in (a, b) if not one.settings]
    if missing:
        notes.append(f"{' and '.join(missing)}: no config.toml, so the settings are unknown")
        varied, controlled = {}, ()
    differences = {
        name: difference_over_people(METRICS[name], truth, values[0], values[1], people, level=LEVEL)
        for name in COMPARED
    }
    return Comparison(
        first,
        second,
        varied,
        controlled,
        differences,
        len(truth) if per_person else rows,
        differences[COMPARED[0]].difference.people,
        tuple(notes),
    )


def known_runs(runs: Path = Path("runs")) -> list[str]:
    """Return the runs that have published out-of-fold predictions, by name."""
    return sorted(path.name.removesuffix(".oof.npy") for path in runs.glob("*.oof.npy"))


def require_run(name: str, runs: Path = Path("runs"), option: str = "run") -> None:
    """An error for a run that has published nothing, with the nearest that have.

    Parameters
    ----------
    option : what the error calls it.
    """
    known = known_runs(runs)
    if name in known:
        return
    close = close_matches(name, known)
    meant = f"; did you mean {' or '.join(close)}?" if close else ""
    listed = (
        f"there are {', '.join(known[:20])}{' …' if len(known) > 20 else ''}"
        if known
        else f"{runs} has no runs yet: train one with ensemble kfold"
    )
    if (runs / name / "config.toml").is_file():
        raise EnsembleError(
            f"{option} {name}: no fold is trained yet",
            hint=f"ensemble kfold … --name {name} --resume trains them",
        )
    raise UsageError(f"unknown {option} '{name}'{meant}", hint=listed)


@dataclass(frozen=True)
class _Published:
    run: str
    path: Path
    values: NDArray[np.floating]
    sidecar: PredictionMetadata
    settings: Mapping[str, Any]
    selected_on_validation: bool = False

    @property
    def labels(self) -> NDArray[np.str_]:
        rows = self.sidecar.rows
        labels = rows.labels if self.sidecar.target == LABEL else rows.attributes.get(self.sidecar.target)
        if labels is None:
            raise EnsembleError(
                f"{self.path} has no labels: it cannot be scored", hint="only runs on labelled samples are compared"
            )
        return labels


def _published(run: str, runs: Path) -> _Published:
    require_run(run, runs)
    path = oof_file(runs, run)
    sidecar = read_sidecar(path)
    if sidecar is None:
        raise EnsembleError(
            f"{path} has no sidecar, so the ids of its rows are unknown",
            hint="ensemble blend can use bare arrays, a comparison cannot",
        )
    values = read_array(path)
    if values.shape != (len(sidecar.rows), len(sidecar.classes)):
        expected = f"{len(sidecar.rows)} × {len(sidecar.classes)}"
        raise EnsembleError(
            f"{path} is {values.shape[0]} × {values.shape[1]}, its sidecar says {expected}", hint="restore both files"
        )
    config = runs / run / "config.toml"
    settings = settings_of(read_record(config)) if config.is_file() else {}
    # What it began with may be as well, which the folds say.
    chosen = (
        settings.get("keep") == "best"
        or settings.get("patience", 0) > 0
        or any(map(_says_optimistic, (runs / run).glob("fold*/done.json")))
    )
    return _Published(run, path, values, sidecar, settings, chosen)


def _says_optimistic(path: Path) -> bool:
    done = read_json(path)
    return isinstance(done, dict) and done.get("optimistic") is True


def _check_same_target(a: _Published, b: _Published) -> None:
    if a.sidecar.target != b.sidecar.target:
        raise EnsembleError(
            f"{a.run} predicts the {a.sidecar.target}, {b.run} the {b.sidecar.target}: their scores cannot be compared",
            hint="compare runs of one target; a blend joins targets",
        )
    if set(a.sidecar.classes) != set(b.sidecar.classes):
        only = sorted(set(a.sidecar.classes) ^ set(b.sidecar.classes))
        raise EnsembleError(
            f"{a.run} and {b.run} have different classes, e.g. '{only[0]}' in one alone",
            hint="compare runs of one table",
        )


def _common(a: _Published, b: _Published, notes: list[str]) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
    """Return how many samples both have, and where they stand in each, in the order of the first."""
    _, at_a, at_b = np.intersect1d(a.sidecar.rows.ids, b.sidecar.rows.ids, return_indices=True)
    if not len(at_a):
        example = f"'{a.sidecar.rows.ids[0]}' and '{b.sidecar.rows.ids[0]}'"
        raise EnsembleError(
            f"{a.run} and {b.run} have no sample in common, e.g. {example}",
            hint="compare runs of one table, with the same --id",
        )
    order = np.argsort(at_a)
    sizes = {one.run: len(one.sidecar.rows) for one in (a, b)}
    if set(sizes.values()) != {len(at_a)}:
        each = ", ".join(f"{run} has {size:,}" for run, size in sizes.items())
        notes.append(f"compared on the {len(at_a):,} samples that both have predicted ({each})")
    return len(at_a), at_a[order], at_b[order]


def _truth(
    a: _Published, b: _Published, at_a: NDArray[np.int64], at_b: NDArray[np.int64], notes: list[str]
) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    labels, others = a.labels[at_a], b.labels[at_b]
    ids = a.sidecar.rows.ids[at_a]
    differing = np.flatnonzero(labels != others)
    if len(differing):
        first = differing[0]
        raise EnsembleError(
            f"{a.run} and {b.run} have different labels for {len(differing):,} samples, e.g. '{ids[first]}': "
            f"{labels[first]} and {others[first]}",
            hint="train both on the correct table",
        )
    persons, theirs = (
        None if rows.persons is None else rows.persons[at]
        for rows, at in ((a.sidecar.rows, at_a), (b.sidecar.rows, at_b))
    )
    if persons is None:
        persons = theirs
    elif theirs is not None and (persons != theirs).any():
        notes.append(
            f"{int((persons != theirs).sum()):,} samples have different persons in the two runs; those of {a.run} are "
            "used"
        )
    if persons is None:
        notes.append("persons are not known: each image counts as one, which makes the intervals too narrow")
        return labels, ids
    return labels, persons


def _note_splits(a: _Published, b: _Published, notes: list[str]) -> None:
    if a.sidecar.folds_sha != b.sidecar.folds_sha:
        notes.append("the folds differ: the luck of the split is part of the difference")
    notes += [
        f"{one.run} is optimistic: its epoch was selected on the scored folds"
        for one in (a, b)
        if one.selected_on_validation
    ]


def check_comparable(
    baseline: str, rows: SampleRows, classes: Sequence[str], target: str, runs: Path = Path("runs")
) -> None:
    """Before anything is trained: whether a run on these rows could be compared with `baseline`.

    Raises
    ------
    EnsembleError : as `compare` would, after hours.
    """
    known = _published(baseline, runs)
    sidecar = PredictionMetadata(kind="probability", split="oof", classes=tuple(classes), rows=rows, target=target)
    planned = _Published("this run", known.path, known.values, sidecar, {})
    _check_same_target(known, planned)
    _, at_known, at_planned = _common(known, planned, [])
    _truth(known, planned, at_known, at_planned, [])


def changes_text(varied: Mapping[str, Sequence[Any]], most: int = 60) -> str:
    """Return ``loss: ce → focal``; names alone where that is longer than `most` characters."""
    text = ", ".join(f"{name}: {value_text(before)} → {value_text(after)}" for name, (before, after) in varied.items())
    if len(text) <= most:
        return text
    names = list(varied)
    while len(names) > 1 and len(_listed(names, len(varied))) > most:
        names.pop()
    return _listed(names, len(varied))


def _listed(names: Sequence[str], of: int) -> str:
    return ", ".join(names) + (f" and {of - len(names)} more" if len(names) < of else "")


@dataclass(frozen=True)
class BaselineComparison:
    """A run beside the one that it is compared with.

    Attributes
    ----------
    baseline : None for a run that others are compared with.
    score : macro F1 out of fold.
    comparison : None for a baseline, and where they could not be compared.
    problem : why they could not be compared; "" where they could.
    """

    run: str
    baseline: str | None
    score: Interval
    comparison: Comparison | None = None
    problem: str = ""


def compare_with_baselines(
    runs: Sequence[RunLike], summaries: Sequence[RunSummary], per_person: bool = False
) -> list[BaselineComparison]:
    """Compare each run with its baseline; the baselines among them are listed as well, [] where nothing is compared."""
    scores = {summary.run: summary.oof.interval for summary in summaries}
    baselines = {run.baseline for run in runs if run.baseline is not None}
    compared: list[BaselineComparison] = []
    for run in runs:
        if run.name not in scores or (run.baseline is None and run.name not in baselines):
            continue
        comparison, problem = None, ""
        if run.baseline is not None:
            try:
                comparison = compare_runs(run.baseline, run.name, run.runs, per_person)
            except EnsembleError as error:
                problem = error.message
        compared.append(BaselineComparison(run.name, run.baseline, scores[run.name], comparison, problem))
    return compared if any(one.baseline for one in compared) else []
