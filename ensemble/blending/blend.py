"""A whole blend: files in; votes and scores out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.alignment.align import align
from ensemble.alignment.split import AlignedSplit
from ensemble.alignment.truth import Truth, labels_and_groups, truth_notes
from ensemble.analysis.cost import Costs, costs_of, parse_costs
from ensemble.blending.contributions import ContributionReport, analyze_contributions
from ensemble.blending.details import Details, details_of
from ensemble.blending.fit import FittedBlend, fit_split
from ensemble.blending.output import blend_folder, write_blend
from ensemble.blending.request import BlendConfig, parse_weights
from ensemble.blending.result import BlendResult
from ensemble.blending.scores import RunScore, entry_of, ranking_of, score_run
from ensemble.learning.apply import apply_combination
from ensemble.learning.combination import Combination
from ensemble.learning.nested import outer_fold_ids
from ensemble.members.deduplication import named_apart, select_runs, without_copies
from ensemble.members.discovery import find_files
from ensemble.members.hard_labels import read_hard_labels
from ensemble.members.reading import Member, read_members
from ensemble.voting.base import Vote
from ensemble.voting.vote import vote
from folds.errors import EnsembleError, without_marks
from folds.utils.files import sha256_bytes
from folds.utils.numeric import groups_in_several_folds
from folds.utils.progress import SILENT, Advance, Progress

SCHEMA = 1
# The version whose blends these are. It counts in a blend's identity; raise it when the same files and options are meant
# to give other predictions. Following the program's own version, every release would refuse the blends of the last.
COMPUTED_AS_IN = "0.1.0"


@dataclass(frozen=True, repr=False)
class Blend(BlendResult):
    """A blend that is computed and not yet written.

    Attributes
    ----------
    identity : SHA-256 of what goes in: the files' contents in their order, the options, the version that first computed it so.
    method : as asked for.
    weights : run → its share of the vote.
    splits, votes : by split name, ``oof`` first. Of what was learnt, the out-of-fold votes are nested: each by what had not seen the person.
    runs : run → split → `Entry`, in the order in which the runs first appear.
    total : split → `Entry` of the blend itself.
    combination : how it is done again on other samples; None where attributes are voted on apart.
    fitted : what was learnt, and how far it can be believed; None for plain voting.
    worths : what each run is worth, where that was asked for and labels are known.
    details : split → its score taken apart, where that was asked for and labels are known.
    notes : what a reader of the scores must know; parameters are marked as in `folds.errors`.
    stated_classes : the order of classes that arrays came in, and results go out; () for the order of `splits`.
    """

    identity: str
    method: str
    request: BlendConfig
    weights: Mapping[str, float]
    splits: Mapping[str, AlignedSplit]
    votes: Mapping[str, Vote]
    runs: Mapping[str, Mapping[str, RunScore]]
    total: Mapping[str, RunScore]
    members: Sequence[Member]
    costs: Costs
    combination: Combination | None = None
    fitted: FittedBlend | None = None
    worths: ContributionReport | None = None
    details: Mapping[str, Details] = field(default_factory=dict)
    notes: Sequence[str] = field(default_factory=list)
    stated_classes: tuple[str, ...] = ()

    def save(self, name: str | None = None, *, root: str | Path = ".", force: bool = False) -> Path:
        """Write the predictions, ``blend.toml`` and ``blend.json`` into ``runs/blends/NAME`` and return the folder (see `write_blend`).

        Parameters
        ----------
        name : without it, the method and a hash of what was blended.
        root : the folder that holds ``runs/``.
        force : replace another blend of that name.

        Raises
        ------
        UsageError : the name cannot be a folder's.
        EnsembleError : another blend is there, and not `force`.
        """
        folder = Path(root) / blend_folder(self, name)
        write_blend(self, folder, force)
        return folder

    def record(self) -> dict[str, Any]:
        """Return the content of blend.json."""
        first = next(iter(self.splits.values()))
        inputs = [{"path": str(member.path), "run": member.run, "sha": member.sha} for member in self.members]
        runs = [
            {
                "run": name,
                "weight": self.weights[name],
                "cost": self.costs.of[name].to_dict(),
                **{split: entry.to_dict() for split, entry in entries.items()},
            }
            for name, entries in self.runs.items()
        ]
        blend = {split: entry.to_dict() | {"ties": self.votes[split].ties} for split, entry in self.total.items()}
        return {
            "schema": SCHEMA,
            "identity": self.identity,
            "method": self.method,
            "weights": dict(self.weights),
            "metric": self.request.metric,
            "per": "person" if self.request.per_person else None,
            "by": self.request.by,
            **self.request.method_params,
            "target": first.target,
            "classes": list(first.classes),
            "runs": runs,
            "blend": blend,
            "combination": None if self.combination is None else self.combination.as_record(),
            "fitted": None if self.fitted is None else self.fitted.to_dict(),
            "worth": None if self.worths is None else self.worths.to_dict(),
            "details": {split: one.to_dict() for split, one in self.details.items()},
            "inputs": inputs,
            "labels": None if self.request.labels is None else str(self.request.labels),
            "notes": [without_marks(note) for note in self.notes],
        }


def make_blend(files: Sequence[str | Path], request: BlendConfig, progress: Progress = SILENT) -> Blend:
    """Read, line up, learn what is to be learnt, vote and score. Warn at once of what may be a mistake.

    Parameters
    ----------
    files : prediction files, bare arrays, CSVs of hard labels, or patterns that match some.

    Raises
    ------
    UsageError : an unknown method, metric or run, impossible weights, a method that does not fit the members.
    EnsembleError : a file cannot be used, files do not line up, or there is nothing to learn from.
    """
    request.check()
    found = find_files([Path(file) for file in files], request.allow_duplicates)
    members = named_apart(read_members(found, request.logits, request.allow_duplicates))
    return blend_members(members, request, progress)


def blend_members(members: Sequence[Member], request: BlendConfig, progress: Progress = SILENT) -> Blend:
    """Return the blend of members that are read, or that came as arrays; as `make_blend`."""
    request.check()
    loaded = _line_up(members, request)
    scores = {name: score_run(name, loaded.splits, loaded.truths, request) for name in loaded.active}
    ranking = ranking_of(scores, request.scored.greater_is_better)
    slow = request.is_fitted or request.report_contributions
    title = f"{request.name}: learning, and scoring it on people who were left out"
    with progress.step(title) if slow else nullcontext(_ignored) as advance:
        combined = _combine(loaded, request, ranking, advance)
        total = {
            name: entry_of(split, combined.votes[name], loaded.truths.get(name), request)
            for name, split in loaded.splits.items()
        }
        notes = [*loaded.notes, *combined.notes, *_vote_notes(loaded, combined, request), *_score_notes(total)]
        worths = None
        if request.report_contributions:
            worths, said = analyze_contributions(
                loaded.splits, loaded.truths, request, combined.combination, combined.fitted, loaded.costs, advance
            )
            notes += said
    return Blend(
        identity=loaded.identity,
        method=request.name,
        request=request,
        weights=combined.weights,
        splits=loaded.splits,
        votes=combined.votes,
        runs=scores,
        total=total,
        members=loaded.members,
        costs=loaded.costs,
        combination=combined.combination,
        fitted=combined.fitted,
        worths=worths,
        details=details_of(loaded.splits, combined.votes, loaded.truths, request.scored) if request.detail else {},
        notes=notes,
    )


def _ignored(done: int, total: int) -> None:
    """Report progress to nobody."""


@dataclass(frozen=True)
class _LinedUp:
    """What is combined.

    Attributes
    ----------
    weights : run → weight, as given or equal, of those that can take part; they sum to 1.
    splits : of the runs with a weight.
    truths : split → labels and people, where labels are known.
    """

    members: Sequence[Member]
    identity: str
    weights: Mapping[str, float]
    splits: Mapping[str, AlignedSplit]
    truths: Mapping[str, Truth]
    costs: Costs
    notes: Sequence[str]

    @property
    def active(self) -> list[str]:
        """Return the runs with a weight."""
        return [name for name, weight in self.weights.items() if weight > 0]


def _line_up(members: Sequence[Member], request: BlendConfig) -> _LinedUp:
    """Select the members, put their rows and classes in line, and find labels, weights and costs."""
    notes = [member.note for member in members if member.note]
    members = select_runs(members, request.runs)
    members = members if request.allow_duplicates else without_copies(members)
    labels = None if request.labels is None else read_hard_labels(request.labels)
    alignment = align(members, labels)
    splits, notes = alignment.splits, [*notes, *alignment.notes]
    # Attribute runs that are joined to the label vote under one name of their own.
    voting = {run.name for split in splits.values() for run in split.runs}
    names = [name for name in dict.fromkeys(member.run for member in members) if name in voting]
    names += sorted(voting - set(names))
    if request.is_fitted:
        names, said = _learnable(names, splits)
        notes += said
    equal = {name: 1 / len(names) for name in names}
    weights = equal if request.weights is None else parse_weights(request.weights, names)
    identity = _identity(members, request, weights)
    splits, said = _with_weight(splits, weights)
    notes += said
    truths = {}
    for name, split in splits.items():
        truth = labels_and_groups(split, request.per_person)
        if truth is not None:
            truths[name] = truth
            notes += truth_notes(split, truth)
    _check_people(splits, truths)
    if request.labels is not None and not truths:
        raise EnsembleError(
            f"{request.labels} has labels of none of the samples", hint="its ids must be those of the predictions"
        )
    costs = costs_of(splits, None if request.cost is None else parse_costs(request.cost, sorted(voting)))
    return _LinedUp(members, identity, weights, splits, truths, costs, notes)


@dataclass(frozen=True)
class _Combined:
    """The votes, by split, and how they were made."""

    votes: Mapping[str, Vote]
    weights: Mapping[str, float]
    combination: Combination | None
    fitted: FittedBlend | None = None
    notes: Sequence[str] = ()


def _combine(loaded: _LinedUp, request: BlendConfig, ranking: Sequence[str], progress: Advance) -> _Combined:
    return _fit(loaded, request, ranking, progress) if request.is_fitted else _vote(loaded, request, ranking)


def _fit(loaded: _LinedUp, request: BlendConfig, ranking: Sequence[str], progress: Advance) -> _Combined:
    """Learn a combination out of fold, and apply it to all splits."""
    if "oof" not in loaded.truths:
        raise EnsembleError(
            f"`method={request.name}` learns from out-of-fold predictions whose labels are known, and there are none",
            hint="give runs/*.oof.npy as well, or `labels=FILE.csv`; `method=soft` learns nothing",
        )
    split, truth = loaded.splits["oof"], loaded.truths["oof"]
    fitted = fit_split(split, truth, request, loaded.costs, progress)
    combination = fitted.combination
    votes = {name: apply_combination(one, combination, ranking) for name, one in loaded.splits.items()}
    votes["oof"] = _out_of_sample(votes["oof"], split, fitted, truth)
    weights = dict(zip(combination.runs, combination.shares.tolist(), strict=True))
    return _Combined(votes, weights, combination, fitted, fitted.summary_lines())


def _vote(loaded: _LinedUp, request: BlendConfig, ranking: Sequence[str]) -> _Combined:
    """Vote by a plain method; nothing is learnt."""
    weights, options = loaded.weights, request.options()
    votes = {name: vote(split, request.name, weights, ranking, options) for name, split in loaded.splits.items()}
    if request.by != "class":
        return _Combined(votes, weights, None)
    runs, params = sorted(loaded.active), request.method_params
    share = np.array([weights[name] for name in runs])
    combination = Combination(tuple(runs), request.name, share, power=params.get("power"), trim=params.get("trim"))
    return _Combined(votes, weights, combination)


def _vote_notes(loaded: _LinedUp, combined: _Combined, request: BlendConfig) -> list[str]:
    """Return what a reader of the votes must know of their ties and of attributes that contradict each other."""
    return [
        note
        for name, result in combined.votes.items()
        for note in _tie_notes(result, request, f"{len(loaded.splits[name]):,} {name} rows")
    ]


def _score_notes(total: Mapping[str, RunScore]) -> list[str]:
    """Return what a reader of the blend's scores must know."""
    scores = {name: entry.score for name, entry in total.items() if entry.score is not None}
    notes = [f"{name}: {score.interval.warning}" for name, score in scores.items() if score.interval.warning]
    mixed = next((score.people_with_several_labels for score in scores.values() if score.people_with_several_labels), 0)
    if mixed:
        notes.append(f"{mixed:,} people carry several labels and are scored by their most frequent one")
    return notes


def _learnable(names: Sequence[str], splits: Mapping[str, AlignedSplit]) -> tuple[list[str], list[str]]:
    """Return the runs that can be learnt of, those with out-of-fold predictions, and a note on the others."""
    known = {run.name for run in splits["oof"].runs} if "oof" in splits else set(names)
    without = [name for name in names if name not in known]
    notes = [f"{', '.join(without)} has no oof predictions to learn from, and takes no part"] if without else []
    return [name for name in names if name in known], notes


def _out_of_sample(result: Vote, split: AlignedSplit, fitted: FittedBlend, truth: Truth) -> Vote:
    """Return the vote in which everybody is predicted by what had not seen them, also where their labels are not known."""
    probabilities = result.probabilities.copy()
    unknown = truth.labels < 0
    probabilities[~unknown] = fitted.nested.out_of_sample
    if unknown.any() and fitted.nested.parts:
        nests = outer_fold_ids(truth.persons, truth.labels, split.fold)
        for part, learnt in zip(np.unique(fitted.stack.outer_folds).tolist(), fitted.nested.parts, strict=True):
            rows = np.flatnonzero(unknown & (nests == part))
            if len(rows):
                probabilities[rows] = apply_combination(split.take(rows), learnt).probabilities
    return replace(result, probabilities=probabilities)


def _check_people(splits: Mapping[str, AlignedSplit], truths: Mapping[str, Truth]) -> None:
    """Nobody may stand in two folds of a run, also where only ``--labels`` says who they are: models have seen whom they predict."""
    for name, truth in truths.items():
        folds = [
            (run.name, part.fold)
            for run in splits[name].runs
            for part in run.parts
            if isinstance(part.fold, np.ndarray)
        ]
        for run, fold in folds if name == "oof" else ():
            found = groups_in_several_folds(truth.persons, fold)
            if len(found):
                names = splits[name].rows.persons
                row = int(np.flatnonzero(truth.persons == found[0])[0])
                raise EnsembleError(
                    f"{run}: {len(found):,} people stand in two folds or more, e.g. '{names[row] if names is not None else found[0]}'",
                    hint="such a score is of people seen in training; split by person: ensemble folds",
                )


def _tie_notes(result: Vote, request: BlendConfig, rows: str) -> list[str]:
    notes = []
    if request.name == "hard":
        settled = "; they go to the class with the higher mean probability, else to the vote of the first-ranked run"
        ties = f"{result.ties:,} of {rows} were ties"
        if request.by != "class":
            ties = f"{result.ties:,} ties among the attributes of {rows}"
        notes.append(ties + (settled if result.ties else ""))
    if result.undecided:
        notes.append(
            f"{result.undecided:,} of {rows} have attributes that no class has together: there the vote by class decides"
        )
    return notes


def _with_weight(
    splits: Mapping[str, AlignedSplit], weights: Mapping[str, float]
) -> tuple[dict[str, AlignedSplit], list[str]]:
    """Return the splits with the runs that have a weight, and notes on what is left out."""
    active = [name for name, weight in weights.items() if weight > 0]
    kept = {name: split for name, whole in splits.items() if (split := whole.select_runs(active)) is not None}
    notes = []
    for name, split in kept.items():
        there = [run.name for run in split.runs]
        absent = [run for run in active if run not in there]
        if absent:
            notes.append(
                f"{', '.join(absent)} has no {name} predictions: the {name} blend is of {', '.join(there)} alone"
            )
        if len(split) < len(splits[name]):
            notes.append(
                f"{len(splits[name]) - len(split):,} {name} samples are predicted only by runs of weight 0 and are left out"
            )
    return kept, notes


def _identity(members: Sequence[Member], request: BlendConfig, weights: Mapping[str, float]) -> str:
    inputs = [(member.run, member.sha) for member in members]
    return sha256_bytes(json.dumps([SCHEMA, COMPUTED_AS_IN, request.identity(dict(weights)), inputs]).encode())
