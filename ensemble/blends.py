"""A whole blend: files in; votes and scores out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ensemble import __version__
from ensemble.alignment import align
from ensemble.copies import named_apart, select_runs, without_copies
from ensemble.found_files import Note, find_files
from ensemble.given_weights import parse_weights
from ensemble.hard_labels import read_hard_labels
from ensemble.members import Member, read_members
from ensemble.runs import Split
from ensemble.scoring import Score, Truth, score_vote, truth_of
from ensemble.voting import METHODS, Options, Vote, vote
from folds.errors import EnsembleError, UsageError, unknown
from folds.files import sha256_bytes, sha256_file
from folds.scores import METRICS

SCHEMA = 1
# In the design, not built yet.
LATER = ("greedy", "stacking", "auto")
# Option → the method that takes it.
_TOLD = {"power": "power", "trim": "trimmed"}


@dataclass(frozen=True)
class Request:
    """What is asked for; the defaults are those of the command.

    Attributes
    ----------
    method : a key of `ensemble.voting.METHODS`; None for ``weighted`` where there are weights, otherwise ``soft``.
    weights : as `ensemble.given_weights.parse_weights` reads them.
    runs : only these.
    labels : a CSV of true labels.
    logits : arrays without a sidecar hold logits.
    power, trim : of the methods of these names; None for their defaults.
    by : ``class``, or ``attribute`` to vote on each attribute of the class by itself.
    allow_duplicates : files of equal content vote as often as they are given.
    """

    method: str | None = None
    weights: str | None = None
    runs: tuple[str, ...] | None = None
    metric: str = "macro_f1"
    per_person: bool = False
    labels: Path | None = None
    logits: bool = False
    power: float | None = None
    trim: float | None = None
    by: str = "class"
    allow_duplicates: bool = False

    def options(self) -> Options:
        """What the method is told.

        Raises
        ------
        UsageError : an impossible value.
        """
        told = {name: value for name in ("power", "trim") if (value := getattr(self, name)) is not None}
        return Options(**told, by=self.by)


@dataclass(frozen=True)
class Entry:
    """A run, or the blend, on one split: the folds there are, its rows, its score where labels are known."""

    folds: tuple[int, ...]
    rows: int
    score: Score | None

    def as_json(self) -> dict[str, Any]:
        """For --json and blend.json."""
        return {"folds": list(self.folds), "rows": self.rows, "score": None if self.score is None else self.score.as_json()}


@dataclass(frozen=True)
class Blend:
    """A blend that is computed and not yet written.

    Attributes
    ----------
    identity : SHA-256 of what goes in: the files' contents in their order, the options, the version of the program.
    weights : run → its share of the vote.
    splits, votes : by split name, ``oof`` first.
    runs : run → split → `Entry`, in the order in which the runs first appear.
    total : split → `Entry` of the blend itself.
    notes : what a reader of the scores must know.
    """

    identity: str
    method: str
    request: Request
    weights: Mapping[str, float]
    splits: Mapping[str, Split]
    votes: Mapping[str, Vote]
    runs: Mapping[str, Mapping[str, Entry]]
    total: Mapping[str, Entry]
    members: Sequence[Member]
    notes: Sequence[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """``soft-1a2b3c4d``: method and short hash."""
        return f"{self.method}-{self.identity[:8]}"

    def record(self) -> dict[str, Any]:
        """The content of blend.json."""
        first = next(iter(self.splits.values()))
        inputs = [{"path": str(member.path), "run": member.run, "sha": member.sha} for member in self.members]
        runs = [
            {"run": name, "weight": self.weights[name], **{split: entry.as_json() for split, entry in entries.items()}}
            for name, entries in self.runs.items()
        ]
        blend = {split: entry.as_json() | {"ties": self.votes[split].ties} for split, entry in self.total.items()}
        return {
            "schema": SCHEMA,
            "identity": self.identity,
            "method": self.method,
            "weights": dict(self.weights),
            "metric": self.request.metric,
            "per": "person" if self.request.per_person else None,
            "by": self.request.by,
            **_told(self.method, self.request),
            "target": first.target,
            "classes": list(first.classes),
            "runs": runs,
            "blend": blend,
            "inputs": inputs,
            "labels": None if self.request.labels is None else str(self.request.labels),
            "notes": list(self.notes),
        }


def make_blend(files: Sequence[Path], request: Request, warn: Note = lambda text: None) -> Blend:
    """Read, line up, vote and score.

    Parameters
    ----------
    files : prediction files, bare arrays, CSVs of hard labels, or patterns that match some.
    warn : is told at once what may be a mistake.

    Raises
    ------
    UsageError : an unknown method, metric or run, impossible weights, a method that does not fit the members.
    EnsembleError : a file cannot be used, or files do not line up.
    """
    method, options = _method(request), request.options()
    if request.metric not in METRICS:
        raise unknown("metric", request.metric, list(METRICS))
    notes: list[str] = []
    found = find_files(files, warn, request.allow_duplicates)
    members = select_runs(named_apart(read_members(found, request.logits, notes.append, warn, request.allow_duplicates)), request.runs)
    members = members if request.allow_duplicates else without_copies(members, warn)
    labels = None if request.labels is None else read_hard_labels(request.labels)
    names = list(dict.fromkeys(member.run for member in members))
    splits = align(members, labels, notes.append)
    # Attribute runs that are joined to the label vote under one name of their own.
    voting = {run.name for split in splits.values() for run in split.runs}
    names = [*(name for name in names if name in voting), *sorted(voting - set(names))]
    equal = {name: 1 / len(names) for name in names}
    weights = equal if request.weights is None else parse_weights(request.weights, names)
    splits = _with_weight(splits, weights, notes.append)
    truths = {name: truth for name, split in splits.items() if (truth := truth_of(split, request.per_person, notes.append)) is not None}
    if request.labels is not None and not truths:
        raise EnsembleError(f"{request.labels} has labels of none of the samples", hint="its ids must be those of the predictions")
    runs = {name: _entries(name, splits, truths, request) for name in names if weights[name] > 0}
    ranking = _ranking(runs, request.metric)
    votes = {name: vote(split, method, weights, ranking, options) for name, split in splits.items()}
    total = {name: _entry(split, votes[name], truths.get(name), None, request) for name, split in splits.items()}
    for name, result in votes.items():
        notes += _said_of(result, method, options, f"{len(splits[name]):,} {name} rows")
    mixed = next((entry.score.mixed_people for entry in total.values() if entry.score is not None and entry.score.mixed_people), 0)
    if mixed:
        notes.append(f"{mixed:,} people carry several labels and are scored by their most frequent one")
    return Blend(_identity(members, method, request, weights), method, request, weights, splits, votes, runs, total, members, notes)


def _method(request: Request) -> str:
    method = request.method or ("weighted" if request.weights is not None else "soft")
    if method in LATER:
        raise UsageError(f"--method {method} is not built yet", hint=f"there are {', '.join(METHODS)}")
    if method not in METHODS:
        raise unknown("method", method, list(METHODS))
    if method == "weighted" and request.weights is None:
        raise UsageError("--method weighted needs --weights", hint="--weights .7,.3, in the order of the runs, or --weights swin=.7,resnet18=.3")
    if (method == "soft" or not METHODS[method].weighs) and request.weights is not None:
        raise UsageError(f"--method {method} counts all runs alike and takes no --weights", hint="--method weighted")
    for option, owner in _TOLD.items():
        if getattr(request, option) is not None and method != owner:
            raise UsageError(f"--method {method} takes no --{option}", hint=f"--method {owner} --{option} {getattr(request, option):g}")
    return method


def _said_of(result: Vote, method: str, options: Options, rows: str) -> list[str]:
    """What a reader of a vote must know of its ties and of attributes that contradict each other."""
    said = []
    if method == "hard":
        settled = "; they go to the class with the higher mean probability, else to the vote of the first-ranked run" if result.ties else ""
        ties = f"{result.ties:,} of {rows} were ties" if options.by == "class" else f"{result.ties:,} ties among the attributes of {rows}"
        said.append(ties + settled)
    if result.undecided:
        said.append(f"{result.undecided:,} of {rows} have attributes that no class has together: there the vote by class decides")
    return said


def _with_weight(splits: Mapping[str, Split], weights: Mapping[str, float], note: Note) -> dict[str, Split]:
    """The splits with the runs that have a weight."""
    heard = [name for name, weight in weights.items() if weight > 0]
    kept = {name: split for name, whole in splits.items() if (split := whole.only(heard)) is not None}
    for name, split in kept.items():
        absent = [run for run in heard if run not in {own.name for own in split.runs}]
        if absent:
            note(f"{', '.join(absent)} has no {name} predictions: the {name} blend is of {', '.join(run.name for run in split.runs)} alone")
        if len(split) < len(splits[name]):
            note(f"{len(splits[name]) - len(split):,} {name} samples are predicted only by runs of weight 0 and are left out")
    return kept


def _entries(name: str, splits: Mapping[str, Split], truths: Mapping[str, Truth], request: Request) -> dict[str, Entry]:
    entries = {}
    for split_name, split in splits.items():
        run = next((run for run in split.runs if run.name == name), None)
        alone = None if run is None else split.only([name])
        if run is None or alone is None:
            continue
        if split_name not in truths:
            entries[split_name] = Entry(run.folds, len(alone), None)
            continue
        present = None if len(alone) == len(split) else np.flatnonzero(run.models(0, len(split)) > 0)
        truth = truths[split_name] if present is None else truths[split_name].take(present)
        entries[split_name] = _entry(alone, vote(alone, "hard" if run.hard else "soft"), truth, run.folds, request)
    return entries


def _entry(split: Split, result: Vote, truth: Truth | None, folds: tuple[int, ...] | None, request: Request) -> Entry:
    if folds is None:
        folds = tuple(sorted({fold for run in split.runs for fold in run.folds}))
    score = None if truth is None else score_vote(result, truth, request.metric, request.per_person)
    return Entry(folds, len(split), score)


def _ranking(runs: Mapping[str, Mapping[str, Entry]], metric: str) -> list[str]:
    """Run names, best out-of-fold score first; those without one keep their order, behind."""

    def rank(name: str) -> tuple[bool, float]:
        entry = runs[name].get("oof")
        if entry is None or entry.score is None:
            return True, 0.0
        value = entry.score.headline.score
        return False, -value if METRICS[metric].greater_is_better else value

    return sorted(runs, key=rank)


def _told(method: str, request: Request) -> dict[str, float]:
    """What the method was told, where it listens."""
    return {name: getattr(request.options(), name) for name, owner in _TOLD.items() if method == owner}


def _identity(members: Sequence[Member], method: str, request: Request, weights: Mapping[str, float]) -> str:
    options = {"method": method, "weights": weights, "metric": request.metric, "per_person": request.per_person, "logits": request.logits}
    options["labels"] = None if request.labels is None else sha256_file(request.labels)
    # Only what is not as it is by default: blends of before keep their names.
    options |= _told(method, request) | ({"by": request.by} if request.by != "class" else {})
    inputs = [(member.run, member.sha) for member in members]
    return sha256_bytes(json.dumps([SCHEMA, __version__, options, inputs]).encode())
