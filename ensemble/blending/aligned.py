"""Align the members of a blend: their rows, classes and weights, the labels and the people that they are scored on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ensemble.alignment.align import Alignment, align
from ensemble.alignment.label_columns import members_task
from ensemble.alignment.split import AlignedSplit
from ensemble.alignment.truth import GroundTruth, labels_and_groups, truth_notes
from ensemble.analysis.cost import Costs, costs_of, parse_costs
from ensemble.blending.doubts import find_doubts
from ensemble.blending.hand_over import prepare_members
from ensemble.blending.inputs import check_columns, reading_notes, reading_warnings, row_orders
from ensemble.blending.people import people_notes, people_warnings, with_persons
from ensemble.blending.request import BlendConfig, parse_weights
from ensemble.learning.combination import Combination
from ensemble.learning.pooled import fixed_pooling
from ensemble.members.deduplication import select_runs, without_copies
from ensemble.members.label_tables import read_true_columns
from ensemble.members.reading import Member
from ensemble.members.true_labels import TrueLabels, read_true_labels
from ensemble.pooling.people import split_by_person
from ensemble.pooling.pooling import Pooling
from folds.errors import EnsembleError, UsageError
from folds.metrics.task_names import COLUMN_TASKS, MULTILABEL
from folds.utils.files import sha256_bytes
from folds.utils.numeric import groups_in_several_folds

SCHEMA = 1
# Part of a blend's identity. Raise it only when the same files and options should give other predictions. With the
# version of the package instead, every release would reject the blends of the previous one.
COMPUTED_AS_IN = "0.1.0"


@dataclass(frozen=True)
class AlignedMembers:
    """The aligned inputs of a blend.

    Attributes
    ----------
    weights : run → weight, as given or equal, for the runs that can be used; they sum to 1.
    splits : splits of the runs with a weight above 0.
    truths : split → labels and people, for splits with known labels.
    alignment : how each file was placed.
    warnings : doubts about the inputs.
    images : with a rule of `pool`, the splits of the images of which `splits` has the people.
    pooling : the rule of `splits`; None if their rows are images.
    """

    members: Sequence[Member]
    identity: str
    weights: Mapping[str, float]
    splits: Mapping[str, AlignedSplit]
    truths: Mapping[str, GroundTruth]
    costs: Costs
    notes: Sequence[str]
    alignment: Alignment
    warnings: Sequence[str] = ()
    images: Mapping[str, AlignedSplit] = field(default_factory=dict)
    pooling: Pooling | None = None

    def split_for(self, name: str, combination: Combination) -> AlignedSplit:
        """Return the split that a combination is applied to: of people pooled as it states, or of images."""
        if combination.pooling is None:
            return self.splits[name]
        return split_by_person(self.images[name], combination.pooling)

    @property
    def active(self) -> list[str]:
        """Return the runs with a weight above 0."""
        return [name for name, weight in self.weights.items() if weight > 0]


def align_members(members: Sequence[Member], request: BlendConfig) -> AlignedMembers:
    """Select the members, align their rows and classes, and find labels, weights and costs."""
    notes = [member.note for member in members if member.note]
    members = select_runs(members, request.runs)
    task = members_task(members, request.task)
    members = members if request.allow_duplicates else without_copies(members)
    labels = _true_labels(members, request, task)
    check_columns(request.columns, members, labels)
    alignment = align(members, labels, request.classes, row_orders(request), request.positive, request.scored)
    splits, notes = alignment.splits, [*reading_notes(members, labels), *notes, *alignment.notes]
    # Attribute runs that are joined vote under one name.
    voting = {run.name for split in splits.values() for run in split.runs}
    names = [name for name in dict.fromkeys(member.run for member in members) if name in voting]
    names += sorted(voting - set(names))
    if request.is_fitted:
        names, messages = _fittable(names, splits)
        notes += messages
    equal = {name: 1 / len(names) for name in names}
    weights = equal if request.weights is None else parse_weights(request.weights, names)
    identity = _identity(members, request, weights)
    splits, messages = _with_weight(splits, weights)
    notes += messages
    truths = {}
    for name, split in splits.items():
        truth = labels_and_groups(split, request.per_person and request.pool is None)
        if truth is not None:
            truths[name] = truth
            notes += truth_notes(split, truth, request.per_person)
    _check_people(splits, truths)
    if request.labels is not None and not truths:
        raise EnsembleError(
            f"{request.labels} has no label for any of the samples", hint="its ids must be those of the predictions"
        )
    costs = costs_of(splits, None if request.cost is None else parse_costs(request.cost, sorted(voting)))
    warnings = [*reading_warnings(members, labels), *find_doubts(splits, truths, alignment, labels)]
    images: Mapping[str, AlignedSplit] = {}
    spec, pooling = request.pool_spec, None
    if spec is not None:
        images, messages = with_persons(splits)
        notes += messages
        first = next(iter(splits.values()))
        pooling = fixed_pooling(spec, first.task, first.classes)
        splits = {name: split_by_person(split, pooling) for name, split in images.items()}
        truths = {name: truth for name in splits if (truth := labels_and_groups(splits[name], True)) is not None}
        notes += people_notes(spec, images, splits, pooling)
        warnings += people_warnings(spec, images, pooling)
    return AlignedMembers(
        members, identity, weights, splits, truths, costs, notes, alignment, warnings, images, pooling
    )


def align_ingredients(members: Sequence[Member], request: BlendConfig) -> AlignedMembers:
    """Return `align_members` of the files that a blend was made of: numbers are handed over to grades as in the blend.

    Raises
    ------
    UsageError, EnsembleError : the errors of `prepare_members` and `align_members`.
    """
    prepared = prepare_members(members, request)
    return align_members(prepared.members, prepared.request if prepared.hand_overs else request)


def _true_labels(members: Sequence[Member], request: BlendConfig, task: str) -> TrueLabels | None:
    """Return the true labels of the table that the user named, in the form of the members' task."""
    if request.labels is None:
        return None
    if request.uncertain is not None and task != MULTILABEL:
        raise UsageError(
            f"`uncertain={request.uncertain}` is about several labels, and the members have the task {task}",
            hint="leave it out, or `task=multilabel`",
        )
    if task not in COLUMN_TASKS:
        return read_true_labels(request.labels, request.columns)
    stated = next((one.classes for one in members if one.sidecar is not None), None)
    # The only column of a table may have any name, such as that of the model.
    several = next((one.classes for one in members if len(one.classes) > 1), ())
    known = stated or request.classes or several
    counts = {one.values.shape[1] for one in members if one.values is not None}
    count = counts.pop() if len(counts) == 1 else 0
    return read_true_columns(request.labels, request.columns, task, known, count, request.uncertain)


def _fittable(names: Sequence[str], splits: Mapping[str, AlignedSplit]) -> tuple[list[str], list[str]]:
    """Return the runs with out-of-fold predictions, which can be used for fitting, and a note on the others."""
    known = {run.name for run in splits["oof"].runs} if "oof" in splits else set(names)
    without = [name for name in names if name not in known]
    notes = [f"{', '.join(without)} skipped: no out-of-fold predictions"] if without else []
    return [name for name in names if name in known], notes


def _check_people(splits: Mapping[str, AlignedSplit], truths: Mapping[str, GroundTruth]) -> None:
    """Raise EnsembleError if a person is in several folds of a run, also with the people of `labels`.

    A model would then predict people of its training data.
    """
    for name, truth in truths.items():
        folds: dict[int, tuple[str, NDArray[np.int64]]] = {}  # each array once: many runs share one
        for run in splits[name].runs if name == "oof" else ():
            for part in run.parts:
                if isinstance(part.fold, np.ndarray):
                    folds.setdefault(id(part.fold), (run.name, part.fold))
        for run_name, fold in folds.values():
            found = groups_in_several_folds(truth.persons, fold)
            if len(found):
                names = splits[name].rows.persons
                row = int(np.flatnonzero(truth.persons == found[0])[0])
                person = names[row] if names is not None else found[0]
                raise EnsembleError(
                    f"{run_name}: {len(found):,} people appear in more than one fold, e.g. '{person}'",
                    hint="the score would include people seen in training; split by person: ensemble folds",
                )


def _with_weight(
    splits: Mapping[str, AlignedSplit], weights: Mapping[str, float]
) -> tuple[dict[str, AlignedSplit], list[str]]:
    """Return the splits with only the runs of a weight above 0, and notes on what is left out."""
    active = [name for name, weight in weights.items() if weight > 0]
    kept = {name: split for name, full in splits.items() if (split := full.select_runs(active)) is not None}
    notes = []
    for name, split in kept.items():
        present = [run.name for run in split.runs]
        absent = [run for run in active if run not in present]
        if absent:
            notes.append(
                f"{', '.join(absent)} has no {name} predictions: the {name} blend uses only {', '.join(present)}"
            )
        dropped = len(splits[name]) - len(split)
        if dropped:
            notes.append(f"{dropped:,} {name} samples are predicted only by runs of weight 0 and are left out")
    return kept, notes


def _identity(members: Sequence[Member], request: BlendConfig, weights: Mapping[str, float]) -> str:
    inputs = [(member.run, member.sha) for member in members]
    return sha256_bytes(json.dumps([SCHEMA, COMPUTED_AS_IN, request.identity(dict(weights)), inputs]).encode())
