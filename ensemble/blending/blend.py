"""Blend prediction files: align, fit, vote and score."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.alignment.completeness import absent_folds, unequal_models_note
from ensemble.alignment.split import AlignedSplit
from ensemble.analysis.cost import Costs
from ensemble.blending.aligned import SCHEMA, AlignedMembers, align_members
from ensemble.blending.best_single import BestSingle, against_best_single
from ensemble.blending.column_details import ColumnDetails, column_details
from ensemble.blending.confidence import confidence_notes
from ensemble.blending.contributions import ContributionReport, analyze_contributions
from ensemble.blending.details import Details, details_of
from ensemble.blending.fit import FittedBlend, fit_split
from ensemble.blending.hand_over import prepare_members
from ensemble.blending.output import answers_of, blend_folder, write_blend
from ensemble.blending.request import BlendConfig
from ensemble.blending.result import BlendResult
from ensemble.blending.scores import RunScore, entry_of, ranking_of, score_runs
from ensemble.learning.apply import apply_combination
from ensemble.learning.columns.combination import ColumnCombination
from ensemble.learning.combination import Combination
from ensemble.learning.cumulative import NumberToGrades
from ensemble.learning.further_columns import columns_text
from ensemble.learning.nested import outer_fold_ids
from ensemble.members.deduplication import named_apart
from ensemble.members.discovery import find_files
from ensemble.members.names import expand_names, leave_out_unfinished
from ensemble.members.reading import Member, read_members
from ensemble.pooling.spec import ANY_IMAGE
from ensemble.pooling.spec import AUTO as ANY_POOL
from ensemble.voting.base import Vote
from ensemble.voting.vote import GRADES, HARD, method_for, vote
from folds.errors import EnsembleError, UsageError, without_marks
from folds.metrics.task_names import COLUMN_TASKS, ORDINAL, REGRESSION
from folds.predictions.label_columns import COLUMN_NAMES
from folds.utils.arguments import FLAG, NAME, PATH, check_arguments
from folds.utils.parallel import one_blas_thread
from folds.utils.progress import SILENT, Advance, Progress
from folds.utils.schema import optional

logger = logging.getLogger(__name__)


@dataclass(frozen=True, repr=False)
class Blend(BlendResult):
    """A computed blend, not yet written.

    Attributes
    ----------
    identity : SHA-256 of the inputs: contents of the files in order, options, `COMPUTED_AS_IN`.
    method : the requested method.
    weights : run → its share of the vote.
    splits, votes : by split name, ``oof`` first. The out-of-fold votes of a fitted blend are nested: no person is
        predicted by a combination fitted on them.
    runs : run → split → score, in the order in which the runs first appear.
    total : split → score of the blend itself.
    combination : the combination for new samples; None if attributes are voted on separately.
    fitted : the fitted combination and its nested scores; None for plain voting.
    contribution_report : contributions of the runs, if requested and labels are known.
    details : split → breakdown of the score, if requested and labels are known.
    notes : notes on the scores; parameters are marked as in `folds.errors`.
    stated_classes : order of the classes of input arrays and results; () for the order of `splits`.
    warnings : doubts about the inputs, each with its likely cause.
    over_best_single : a plain vote compared with its best run; None for a fitted blend, one run, or unknown labels.
    hand_overs : run whose number was handed over to grades → the fit on all people.
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
    contribution_report: ContributionReport | None = None
    details: Mapping[str, Details | ColumnDetails] = field(default_factory=dict)
    notes: Sequence[str] = field(default_factory=list)
    stated_classes: tuple[str, ...] = ()
    warnings: Sequence[str] = ()
    over_best_single: BestSingle | None = None
    hand_overs: Mapping[str, NumberToGrades] = field(default_factory=dict)

    @property
    def verdict(self) -> list[str]:
        """Return what the scores say, in a few lines; parameters are marked as in `folds.errors`."""
        if self.fitted is not None:
            return self.fitted.summary_lines()
        return [] if self.over_best_single is None else [self.over_best_single.text(self.method)]

    def save(self, name: str | None = None, *, root: str | Path = ".", force: bool = False) -> Path:
        """Write the predictions, ``blend.toml`` and ``blend.json`` to ``runs/blends/NAME``; return the folder.

        See `write_blend`.

        Parameters
        ----------
        name : by default the method and a hash of the inputs.
        root : the folder that holds ``runs/``.
        force : whether to replace another blend of that name.

        Raises
        ------
        UsageError : the name is not valid for a folder.
        EnsembleError : the folder holds another blend and `force` is false.
        """
        check_arguments(locals(), {"name": optional(NAME), "root": PATH, "force": FLAG})
        folder = Path(root) / blend_folder(self, name)
        write_blend(self, folder, force)
        return folder

    def csv(
        self, form: str | None = None, columns: Sequence[str] | None = None, like: str | Path | None = None
    ) -> bytes:
        """Return a CSV of the test samples (out-of-fold samples without a test split): ``ImageID,ans`` by default.

        See `ensemble.blending.output.answers_of`.
        """
        return answers_of(self, form, columns, None if like is None else Path(like)).content

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
            "metric": self.request.metric_name,
            "per": "person" if self.request.per_person else None,
            "by": self.request.by,
            **({} if self.request.pool is None else {"pool": self.request.pool}),
            **self.request.method_params,
            "options": self.request.fitting_options,
            "target": first.target,
            "classes": list(first.classes),
            "runs": runs,
            "blend": blend,
            "combination": None if self.combination is None else self.combination.as_record(inline=False),
            "fitted": None if self.fitted is None else self.fitted.to_dict(),
            "worth": None if self.contribution_report is None else self.contribution_report.to_dict(),
            "details": {split: one.to_dict() for split, one in self.details.items()},
            "over_best_single": None if self.over_best_single is None else self.over_best_single.to_dict(),
            "inputs": inputs,
            "labels": None if self.request.labels is None else str(self.request.labels),
            "notes": [without_marks(note) for note in self.notes],
            "warnings": [without_marks(warning) for warning in self.warnings],
        }


def make_blend(files: Sequence[str | Path], request: BlendConfig, progress: Progress = SILENT) -> Blend:
    """Read and align prediction files, fit a combination if the method needs it, vote and score.

    Parameters
    ----------
    files : prediction files, bare arrays, CSVs of hard labels, glob patterns, or names of runs and blends.

    Raises
    ------
    UsageError : an unknown method, metric or run, invalid weights, or a method that does not fit the members.
    EnsembleError : a file is invalid, files cannot be aligned, or there are no labeled out-of-fold predictions to fit.
    """
    request.check()
    return blend_members(read_inputs(files, request, progress), request, progress)


def read_inputs(files: Sequence[str | Path], request: BlendConfig, progress: Progress = SILENT) -> list[Member]:
    """Return the members in files, with unique names of their runs; the errors are those of `make_blend`."""
    found = find_files(expand_names([Path(file) for file in files]), request.allow_duplicates, request.columns)
    asked = {*(request.runs or ()), *map(str, files)}
    found = leave_out_unfinished(found, asked, request.unfinished)
    read = read_members(found, request.logits, request.allow_duplicates, request.columns, progress, request.task)
    return named_apart(read)


def blend_members(members: Sequence[Member], request: BlendConfig, progress: Progress = SILENT) -> Blend:
    """Return the blend of members that were read from files or given as arrays; see `make_blend`."""
    request.check()
    if not request.per_person and any(one.sidecar is not None and one.sidecar.label_of for one in members):
        request = replace(request, per_person=True)
        logger.info("only persons are labeled: scores are by person (`pool` learns for people as well)")
    prepared = prepare_members(members, request)
    request = prepared.request
    loaded = align_members(prepared.members, request)
    for warning in loaded.warnings:
        logger.warning("%s", warning)
    first = next(iter(loaded.splits.values()))
    _check_grades(request, first)
    method = method_for(request.name, first.task)
    if method != request.name and request.by == "class":
        request = replace(request, method=method)
    scores = score_runs(loaded.active, loaded.splits, loaded.truths, request, progress)
    ranking = ranking_of(scores, request.scored.greater_is_better)
    title = f"{request.name}: fitting and nested scoring"
    slow = request.is_fitted or request.report_contributions
    with one_blas_thread() if slow else nullcontext():
        with progress.step(title) if request.is_fitted else nullcontext(_ignored) as advance:
            combined = _combine(loaded, request, ranking, advance)
        total = {
            name: entry_of(split, combined.votes[name], loaded.truths.get(name), request)
            for name, split in loaded.splits.items()
        }
        plain = None if request.is_fitted else combined.votes
        best = None if plain is None else _best_single(loaded, plain, ranking, scores, request)
        notes = [*prepared.notes, *loaded.notes, *combined.notes, *([] if best is None else [best.text(request.name)])]
        notes += [
            *_weight_notes(loaded, request),
            *_vote_notes(loaded, combined, request),
            *_score_notes(total, first.task),
        ]
        notes += confidence_notes(loaded.splits, loaded.truths, request)
        contribution_report = None
        if request.report_contributions:
            contribution_report, messages = analyze_contributions(
                loaded.splits, loaded.truths, request, combined.combination, combined.fitted, loaded.costs, progress
            )
            notes += messages
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
        contribution_report=contribution_report,
        details=_details(loaded, combined, request) if request.detail else {},
        notes=notes,
        warnings=loaded.warnings,
        over_best_single=best,
        hand_overs=prepared.hand_overs_to(first.classes),
    )


def _check_grades(request: BlendConfig, split: AlignedSplit) -> None:
    """Raise UsageError if votes on classes without a known order are to be pooled by their median."""
    if request.name != GRADES or split.task == ORDINAL or all(re.fullmatch(r"[+-]?\d+", one) for one in split.classes):
        return
    raise UsageError(
        f"`method={GRADES}` needs grades in order, and nothing says that {', '.join(split.classes[:10])} are",
        hint="train with `task=ordinal`, which records the order, or `method=hard` for the majority",
    )


def _best_single(
    loaded: AlignedMembers,
    votes: Mapping[str, Vote],
    ranking: Sequence[str],
    scores: Mapping[str, Mapping[str, RunScore]],
    request: BlendConfig,
) -> BestSingle | None:
    if request.by != "class":
        return None
    return against_best_single(loaded.splits, votes, loaded.truths, ranking, scores, request)


def _ignored(done: int, total: int) -> None:
    """Ignore progress."""


@dataclass(frozen=True)
class _Combined:
    """The votes by split, with their weights and combination."""

    votes: Mapping[str, Vote]
    weights: Mapping[str, float]
    combination: Combination | None
    fitted: FittedBlend | None = None
    notes: Sequence[str] = ()


def _combine(loaded: AlignedMembers, request: BlendConfig, ranking: Sequence[str], progress: Advance) -> _Combined:
    return _fit(loaded, request, ranking, progress) if request.is_fitted else _vote(loaded, request, ranking)


def _fit(loaded: AlignedMembers, request: BlendConfig, ranking: Sequence[str], progress: Advance) -> _Combined:
    """Fit a combination to the out-of-fold predictions and apply it to all splits."""
    if "oof" not in loaded.truths:
        raise EnsembleError(
            f"`method={request.name}` is fitted to out-of-fold predictions with known labels, found none",
            hint="give runs/*.oof.npy as well, or `labels=FILE.csv`; `method=soft` needs no fitting",
        )
    split, truth = loaded.splits["oof"], loaded.truths["oof"]
    fitted = fit_split(split, truth, request, loaded.costs, progress, images=loaded.images.get("oof"))
    combination = fitted.combination
    votes = {
        name: apply_combination(loaded.split_for(name, combination), combination, ranking) for name in loaded.splits
    }
    votes["oof"] = _out_of_sample(votes["oof"], loaded, fitted)
    weights = dict(zip(combination.runs, combination.shares.tolist(), strict=True))
    final = combination if combination.pooling is not None else replace(combination, pooling=loaded.pooling)
    spec = request.pool_spec
    chosen = spec is not None and spec.name == ANY_POOL and not split.has_columns
    if final.pooling is not None and chosen and final.pooling.rule in ANY_IMAGE:
        final = replace(final, pooling=replace(final.pooling, majority=True))
    columns = fitted.stack.extra
    used = [f"columns beside the runs: {columns_text(columns)}; new samples need them too"] if columns else []
    return _Combined(votes, weights, final, fitted, [*fitted.summary_lines(), *used])


def _vote(loaded: AlignedMembers, request: BlendConfig, ranking: Sequence[str]) -> _Combined:
    """Vote by a plain method, without fitting."""
    weights, options = loaded.weights, request.options()
    votes = {name: vote(split, request.name, weights, ranking, options) for name, split in loaded.splits.items()}
    if request.by != "class":
        return _Combined(votes, weights, None)
    runs, params = sorted(loaded.active), request.method_params
    share = np.array([weights[name] for name in runs])
    settings: dict[str, Any] = {"power": params.get("power"), "trim": params.get("trim")}
    first = next(iter(loaded.splits.values()))
    settings |= {"pooling": loaded.pooling} | (
        {"task": first.task, "columns": first.classes} if first.has_columns else {}
    )
    make = ColumnCombination if first.has_columns else Combination
    return _Combined(votes, weights, make(tuple(runs), request.name, share, **settings))


def _details(
    loaded: AlignedMembers, combined: _Combined, request: BlendConfig
) -> Mapping[str, Details | ColumnDetails]:
    has_columns = any(split.has_columns for split in loaded.splits.values())
    make = column_details if has_columns else details_of
    return make(loaded.splits, combined.votes, loaded.truths, request.scored)  # type: ignore[operator, no-any-return]


def _weight_notes(loaded: AlignedMembers, request: BlendConfig) -> list[str]:
    """Return a note on equal weights of runs with unequal numbers of models."""
    if request.is_fitted or request.weights is not None or "test" not in loaded.splits:
        return []
    lacking = absent_folds(loaded.splits)["test"]
    return list(filter(None, [unequal_models_note(loaded.splits["test"], lacking, request.name)]))


def _vote_notes(loaded: AlignedMembers, combined: _Combined, request: BlendConfig) -> list[str]:
    """Return notes on ties and on attributes that contradict each other."""
    return [
        note
        for name, result in combined.votes.items()
        for note in _tie_notes(result, request, f"{len(loaded.splits[name]):,} {name} rows")
    ]


def _score_notes(total: Mapping[str, RunScore], task: str) -> list[str]:
    """Return notes on the scores of the blend."""
    scores = {name: entry.score for name, entry in total.items() if entry.score is not None}
    notes = [f"{name}: {score.interval.warning}" for name, score in scores.items() if score.interval.warning]
    mixed = next((score.people_with_several_labels for score in scores.values() if score.people_with_several_labels), 0)
    if mixed and task in COLUMN_TASKS:
        how = "their mean" if task == REGRESSION else "each label that any image has"
        notes.append(f"the images of {mixed:,} people differ in their {COLUMN_NAMES[task]}; people are scored by {how}")
    elif mixed:
        notes.append(f"{mixed:,} people have several labels and are scored by their most frequent one")
    return notes


def _out_of_sample(result: Vote, loaded: AlignedMembers, fitted: FittedBlend) -> Vote:
    """Return the vote with nested predictions: no person is predicted by a combination fitted on them.

    This includes samples without a known label.
    """
    split, truth = loaded.splits["oof"], loaded.truths["oof"]
    probabilities = result.probabilities.copy()
    unknown = ~truth.known
    probabilities[~unknown] = fitted.nested.out_of_sample
    if unknown.any() and fitted.nested.parts:
        folds = outer_fold_ids(truth.persons, truth.labels, split.fold)
        for part, combination in zip(np.unique(fitted.stack.outer_folds).tolist(), fitted.nested.parts, strict=True):
            rows = np.flatnonzero(unknown & (folds == part))
            if len(rows):
                part_split = loaded.split_for("oof", combination).take(rows)
                probabilities[rows] = apply_combination(part_split, combination).probabilities
    return replace(result, probabilities=probabilities)


def _tie_notes(result: Vote, request: BlendConfig, rows: str) -> list[str]:
    notes = []
    if request.name in (HARD, GRADES):
        settled = "; resolved by the higher mean probability, then by the vote of the first-ranked run"
        ties = f"{result.ties:,} of {rows} were ties"
        if request.by != "class":
            ties = f"{result.ties:,} ties among the attributes of {rows}"
        notes.append(ties + (settled if result.ties else ""))
    if result.undecided:
        notes.append(
            f"{result.undecided:,} of {rows} have an attribute combination that no class has: the vote by class decides"
        )
    return notes
