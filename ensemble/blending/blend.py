"""A whole blend: files in; votes and scores out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ensemble import __version__
from ensemble.alignment.align import align
from ensemble.alignment.split import AlignedSplit
from ensemble.alignment.truth import Truth, labels_and_groups
from ensemble.analysis.cost import Costs, costs_of, parse_costs
from ensemble.blending.contributions import ContributionReport, analyze_contributions
from ensemble.blending.details import Details, details_of
from ensemble.blending.fit import FittedBlend, fit_split
from ensemble.blending.request import BlendConfig, parse_weights
from ensemble.blending.scores import RunScore, entry_of, ranking_of, score_run
from ensemble.learning.apply import apply_combination
from ensemble.learning.combination import Combination
from ensemble.learning.nested import Progress, outer_fold_ids
from ensemble.members.deduplication import named_apart, select_runs, without_copies
from ensemble.members.discovery import find_files
from ensemble.members.hard_labels import read_hard_labels
from ensemble.members.reading import Member, read_members
from ensemble.voting.base import Options, Vote
from ensemble.voting.vote import vote
from folds.errors import EnsembleError
from folds.utils.files import sha256_bytes
from folds.utils.numeric import groups_in_several_folds
from folds.utils.text import Note

SCHEMA = 1


@dataclass(frozen=True)
class Blend:
    """A blend that is computed and not yet written.

    Attributes
    ----------
    identity : SHA-256 of what goes in: the files' contents in their order, the options, the version of the program.
    method : as asked for.
    weights : run → its share of the vote.
    splits, votes : by split name, ``oof`` first. Of what was learnt, the out-of-fold votes are nested: each by what had not seen the person.
    runs : run → split → `Entry`, in the order in which the runs first appear.
    total : split → `Entry` of the blend itself.
    combination : how it is done again on other samples; None where attributes are voted on apart.
    fitted : what was learnt, and how far it can be believed; None for plain voting.
    worths : what each run is worth, where that was asked for and labels are known.
    details : split → its score taken apart, where that was asked for and labels are known.
    notes : what a reader of the scores must know.
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

    @property
    def name(self) -> str:
        """``soft-1a2b3c4d``: method and short hash."""
        return f"{self.method}-{self.identity[:8]}"

    def record(self) -> dict[str, Any]:
        """The content of blend.json."""
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
            "notes": list(self.notes),
        }


def make_blend(
    files: Sequence[Path],
    request: BlendConfig,
    warn: Note = lambda text: None,
    progress: Progress = lambda done, of: None,
) -> Blend:
    """Read, line up, learn what is to be learnt, vote and score.

    Parameters
    ----------
    files : prediction files, bare arrays, CSVs of hard labels, or patterns that match some.
    warn : is told at once what may be a mistake.
    progress : called with what is done and what there is to do, where something is learnt.

    Raises
    ------
    UsageError : an unknown method, metric or run, impossible weights, a method that does not fit the members.
    EnsembleError : a file cannot be used, files do not line up, or there is nothing to learn from.
    """
    request.check()
    notes: list[str] = []
    found = find_files(files, warn, request.allow_duplicates)
    members = select_runs(
        named_apart(read_members(found, request.logits, notes.append, warn, request.allow_duplicates)), request.runs
    )
    members = members if request.allow_duplicates else without_copies(members, warn)
    labels = None if request.labels is None else read_hard_labels(request.labels)
    names = list(dict.fromkeys(member.run for member in members))
    splits = align(members, labels, notes.append)
    # Attribute runs that are joined to the label vote under one name of their own.
    voting = {run.name for split in splits.values() for run in split.runs}
    names = [*(name for name in names if name in voting), *sorted(voting - set(names))]
    if request.is_fitted:
        names = _learnable(names, splits, notes.append)
    equal = {name: 1 / len(names) for name in names}
    weights = equal if request.weights is None else parse_weights(request.weights, names)
    identity = _identity(members, request, weights)
    splits = _with_weight(splits, weights, notes.append)
    truths = {
        name: truth
        for name, split in splits.items()
        if (truth := labels_and_groups(split, request.per_person, notes.append)) is not None
    }
    _check_people(splits, truths)
    if request.labels is not None and not truths:
        raise EnsembleError(
            f"{request.labels} has labels of none of the samples", hint="its ids must be those of the predictions"
        )
    runs = {name: score_run(name, splits, truths, request) for name in names if weights[name] > 0}
    ranking = ranking_of(runs, request.scored.greater_is_better)
    costs = costs_of(splits, None if request.cost is None else parse_costs(request.cost, sorted(voting)))
    fitted = None
    combination: Combination | None = None
    if request.is_fitted:
        if "oof" not in truths:
            raise EnsembleError(
                f"--method {request.name} learns from out-of-fold predictions whose labels are known, and there are none",
                hint="give runs/*.oof.npy as well, or --labels FILE.csv; --method soft learns nothing",
            )
        fitted = fit_split(splits["oof"], truths["oof"], request, costs, progress)
        combination = fitted.combination
        weights = dict(zip(combination.runs, combination.shares.tolist(), strict=True))
        votes = {name: apply_combination(split, combination, ranking) for name, split in splits.items()}
        votes["oof"] = _honest(votes["oof"], splits["oof"], fitted, truths["oof"])
        notes += fitted.summary_lines()
    else:
        votes = {name: vote(split, request.name, weights, ranking, request.options()) for name, split in splits.items()}
        if request.by == "class":
            heard, told = sorted(name for name, weight in weights.items() if weight > 0), request.method_params
            of_heard = np.array([weights[name] for name in heard])
            combination = Combination(
                tuple(heard), request.name, of_heard, power=told.get("power"), trim=told.get("trim")
            )
    total = {name: entry_of(split, votes[name], truths.get(name), request) for name, split in splits.items()}
    for name, result in votes.items():
        notes += _said_of(result, request.name, request.options(), f"{len(splits[name]):,} {name} rows")
    notes += [
        f"{name}: {entry.score.interval.warning}"
        for name, entry in total.items()
        if entry.score is not None and entry.score.interval.warning
    ]
    mixed = next(
        (
            entry.score.people_with_several_labels
            for entry in total.values()
            if entry.score is not None and entry.score.people_with_several_labels
        ),
        0,
    )
    if mixed:
        notes.append(f"{mixed:,} people carry several labels and are scored by their most frequent one")
    worths = (
        analyze_contributions(splits, truths, request, combination, fitted, costs, progress, notes.append)
        if request.report_contributions
        else None
    )
    details = details_of(splits, votes, truths, request.scored) if request.detail else {}
    return Blend(
        identity,
        request.name,
        request,
        weights,
        splits,
        votes,
        runs,
        total,
        members,
        costs,
        combination,
        fitted,
        worths,
        details,
        notes,
    )


def _learnable(names: Sequence[str], splits: Mapping[str, AlignedSplit], note: Note) -> list[str]:
    """The runs that can be learnt of: those with out-of-fold predictions."""
    known = {run.name for run in splits["oof"].runs} if "oof" in splits else set(names)
    without = [name for name in names if name not in known]
    if without:
        note(f"{', '.join(without)} has no oof predictions to learn from, and takes no part")
    return [name for name in names if name in known]


def _honest(result: Vote, split: AlignedSplit, fitted: FittedBlend, truth: Truth) -> Vote:
    """The vote in which everybody is predicted by what had not seen them, also where their labels are not known."""
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


def _said_of(result: Vote, method: str, options: Options, rows: str) -> list[str]:
    """What a reader of a vote must know of its ties and of attributes that contradict each other."""
    said = []
    if method == "hard":
        settled = (
            "; they go to the class with the higher mean probability, else to the vote of the first-ranked run"
            if result.ties
            else ""
        )
        ties = (
            f"{result.ties:,} of {rows} were ties"
            if options.by == "class"
            else f"{result.ties:,} ties among the attributes of {rows}"
        )
        said.append(ties + settled)
    if result.undecided:
        said.append(
            f"{result.undecided:,} of {rows} have attributes that no class has together: there the vote by class decides"
        )
    return said


def _with_weight(
    splits: Mapping[str, AlignedSplit], weights: Mapping[str, float], note: Note
) -> dict[str, AlignedSplit]:
    """The splits with the runs that have a weight."""
    heard = [name for name, weight in weights.items() if weight > 0]
    kept = {name: split for name, whole in splits.items() if (split := whole.select_runs(heard)) is not None}
    for name, split in kept.items():
        absent = [run for run in heard if run not in {own.name for own in split.runs}]
        if absent:
            note(
                f"{', '.join(absent)} has no {name} predictions: the {name} blend is of {', '.join(run.name for run in split.runs)} alone"
            )
        if len(split) < len(splits[name]):
            note(
                f"{len(splits[name]) - len(split):,} {name} samples are predicted only by runs of weight 0 and are left out"
            )
    return kept


def _identity(members: Sequence[Member], request: BlendConfig, weights: Mapping[str, float]) -> str:
    inputs = [(member.run, member.sha) for member in members]
    return sha256_bytes(json.dumps([SCHEMA, __version__, request.identity(dict(weights)), inputs]).encode())
