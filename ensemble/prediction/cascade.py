"""Predict with a cascade: fit it to a blend's files, and run its models only on the images that are still open."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.analysis.cost import parse_costs
from ensemble.cascade.combine import Combiner, check_combination, used_runs
from ensemble.cascade.evidence import Loaded, files_of_blend, files_of_run, load_evidence
from ensemble.cascade.fit import FittedCascade, fit_cascade
from ensemble.cascade.record import SCORE_NAMES, Cascade
from ensemble.cascade.run import RunModel, run_cascade
from ensemble.prediction.models import check_no_hand_over
from ensemble.prediction.source import FoldModel, PredictionSource, root_of_source
from folds.errors import EnsembleError, UsageError
from folds.metrics.intervals import Interval
from folds.metrics.task_names import require_classes
from folds.models.checkpoint import Checkpoint
from folds.models.head_spec import require_image_head

# (model, rows, names of views) → logits (views, rows, classes), the columns in the order of the checkpoint.
Logits = Callable[[FoldModel, NDArray[np.int64], Sequence[str]], NDArray[np.float32]]
EXACT, OFF = "exact", "off"

logger = logging.getLogger(__name__)


def parse_tolerance(value: str | float) -> float | None:
    """Return the loss of the score that is allowed; None for ``exact``.

    Raises
    ------
    UsageError : it is neither ``exact`` nor a number from 0 to 1.
    """
    if value == EXACT:
        return None
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise UsageError(
            f"`cascade={value}`: expected exact, or the loss of the score that is allowed, from 0 to 1, or off",
            hint="`cascade=exact` never changes a decision; `cascade=.001` skips more; `cascade=off` skips nothing",
        )
    return number


def run_models(source: PredictionSource) -> list[RunModel]:
    """Return what a cascade needs to know about the runs of a source, in the order of its combination.

    Raises
    ------
    UsageError : the combination compares images with each other, joins attribute runs, or has a number that is handed
        over to grades; or nothing is decided.
    """
    require_classes(source.task, "a cascade, which skips what cannot change a decision,", "use all models (no cascade)")
    for model in source.models:
        require_image_head(model.checkpoint.architecture.head, "a cascade", source.name)
    check_no_hand_over(source, "a cascade", "use all models (no cascade)")
    check_combination(source.combination)
    joined = [run.name for run in source.runs if run.joined]
    if joined:
        raise UsageError(
            f"a cascade cannot skip parts of {joined[0]}, which joins the runs of several attributes",
            hint="use all models (no cascade), or blend runs that predict the class",
        )
    by_name = {run.name: run for run in source.runs}
    found = []
    for name in source.combination.runs:
        run = by_name[name]
        columns = np.array([run.models[0].checkpoint.classes.index(one) for one in source.classes])
        found.append(RunModel(name, run.merge, len(run.models), columns))
    return found


def fit_source(
    source: PredictionSource,
    root: Path,
    tolerance: float | None,
    *,
    costs: Mapping[str, float] | None = None,
    metric: str = "macro_f1",
) -> FittedCascade:
    """Return the cascade of a run or a blend, fitted to the predictions that it was made of.

    Parameters
    ----------
    tolerance : largest loss of the nested score; None for a cascade that never changes a decision.
    costs : run → cost of one forward pass; by default the multiplications of its network.
    metric : metric of the tolerance for a run; a blend has its own.

    Raises
    ------
    UsageError : the combination cannot be applied image by image, or there is one pass per image.
    EnsembleError : a file is missing or has changed since the blend was made.
    """
    return fit_loaded(source, load_source_evidence(source, root, metric), tolerance, costs)


def load_source_evidence(source: PredictionSource, root: Path, metric: str = "macro_f1") -> Loaded:
    """Return the predictions that a run or a blend was made of; the errors are those of `fit_source`."""
    runs = run_models(source)
    if source.kind == "checkpoint":
        raise UsageError("a cascade needs several models, found one checkpoint", hint="use all models (no cascade)")
    if source.kind == "model":
        raise UsageError(
            f"the predictions to which a cascade is fitted are not in the model {source.name}",
            hint="export it with `cascade=.001` where it was trained; `cascade=exact` needs no predictions",
        )
    root = root_of_source(source, root)
    files = (
        files_of_run(source.combination.runs[0], root, metric)
        if source.folder is None
        else files_of_blend(source.folder, root)
    )
    models = {run.name: [(model.checkpoint.fold, model.sha) for model in run.models] for run in source.runs}
    return load_evidence(files, source.combination, runs, source.classes, models, root)


def fit_loaded(
    source: PredictionSource, loaded: Loaded, tolerance: float | None, costs: Mapping[str, float] | None = None
) -> FittedCascade:
    """Return the cascade of a source, fitted to predictions that are in memory; see `fit_source`."""
    return fit_cascade(
        loaded.evidence,
        source.combination,
        loaded.parts,
        loaded.metric,
        tolerance=tolerance,
        costs=pass_costs(source) if costs is None else costs,
        ranking=source.ranking,
    )


def exact_cascade(source: PredictionSource, costs: Mapping[str, float] | None = None) -> Cascade:
    """Return the cascade that only skips what cannot change a decision; it needs no files."""
    run_models(source)
    return Cascade((), True, None, "accuracy", pass_costs(source) if costs is None else dict(costs))


def with_cascade(source: PredictionSource, cascade: Cascade) -> PredictionSource:
    """Return the source with a cascade, checked against its runs.

    Raises
    ------
    EnsembleError : the cascade is of other runs.
    """
    runs = run_models(source)
    wrong = cascade.problems({run.name: run.views for run in runs}, {run.name: run.folds for run in runs})
    if wrong:
        raise EnsembleError(f"the cascade does not fit {source.name}: {wrong[0]}", hint="fit the cascade again")
    return replace(source, cascade=cascade)


def check_cascade_options(cascade: str | float | None, cost: str | None) -> None:
    """Raise UsageError for a tolerance that is none, or for costs without a cascade."""
    if cascade in (None, OFF) and cost is not None:
        raise UsageError("`cost` orders the models of a cascade", hint="add `cascade=.001`, or leave `cost` out")
    if cascade is not None and cascade != OFF:
        parse_tolerance(cascade)


def _refuse(cascade: str, other: str, hint: str) -> None:
    """Raise UsageError: probabilities of a cascade are used for what needs those of all models.

    Parameters
    ----------
    cascade : what asks for the cascade, as a message names it.
    other : what needs the probabilities of all models.
    """
    raise UsageError(
        f"{cascade} and {other} exclude each other: the probabilities of a cascade are those of the models that were "
        "used for an image, not of all models",
        hint=hint,
    )


def check_cascade_alone(
    source: PredictionSource, cascade: str | float | None, rules: bool, per_person: bool = False
) -> None:
    """Raise UsageError if decision rules or means over people would be applied to the probabilities of a cascade.

    Rules are fitted to out-of-fold probabilities of all models. The loss of a cascade is measured by image, and its
    exact skips keep the decisions of images: neither holds for the mean probabilities of a person.

    Parameters
    ----------
    source : as it was loaded; it may have a cascade and rules of its own.
    cascade : what is asked for now, if anything.
    rules : whether decision rules are asked for now.
    """
    if cascade == OFF or (cascade is None and source.cascade is None):
        return
    asked = cascade is not None
    named = f"`cascade={cascade}`" if asked else f"the cascade of {source.name}"
    without = "leave out `cascade`" if asked and source.cascade is None else "add `cascade=off`"
    if rules:
        _refuse(
            named,
            "decision rules (`threshold`, `cost_matrix`, `abstain`, `sets`)",
            f"{without} to decide with all models, or leave out the rules",
        )
    if source.decision is not None:
        _refuse(named, f"the decision rules of {source.name}", "leave out `cascade`, or export it without rules")
    if per_person:
        _refuse(named, "`per_person`", f"{without} to average all models, or predict one row per image")


def cascaded(
    source: PredictionSource, root: Path, cascade: str | float, cost: str | None = None, metric: str = "macro_f1"
) -> tuple[PredictionSource, FittedCascade | None]:
    """Return the source with a cascade, and its nested score; None for exact skips, which lose nothing.

    Parameters
    ----------
    cascade : ``exact``, or the loss of the nested score that is allowed.
    cost : cost of one forward pass of each run, ``swin=3,resnet18=1``; None for `pass_costs`.
    metric : metric of the tolerance for a run; a blend has its own.
    """
    if cascade == OFF:
        return replace(source, cascade=None), None
    tolerance = parse_tolerance(cascade)
    run_models(source)
    if source.refit and tolerance is not None:
        raise UsageError(
            f"a cascade is fitted to the models of the folds, and {source.name} predicts with models of all people",
            hint="leave out `refit` or `cascade`; `cascade=exact` needs no fit",
        )
    if all_passes(source) < 2:
        what = source.kind if source.kind == "checkpoint" else f"model: {source.name} makes one pass per image"
        raise UsageError(f"a cascade needs several models, found one {what}", hint="predict without `cascade`")
    costs = None if cost is None else parse_costs(cost, sorted(source.combination.runs))
    if tolerance is None:
        return with_cascade(source, exact_cascade(source, costs)), None
    fitted = fit_source(source, root, tolerance, costs=costs, metric=metric)
    for note in fitted.notes:
        logger.warning("%s", note)
    return with_cascade(source, replace(fitted.cascade, score=stored_score(fitted))), fitted


def stored_score(fitted: FittedCascade) -> dict[str, float]:
    """Return the nested score of a cascade as its record keeps it; ends of an interval only where they are known."""
    score, change = fitted.score.cascade, fitted.score.difference.difference
    values = (score.value, score.low, score.high, change.value, change.low, change.high)
    return {name: float(one) for name, one in zip(SCORE_NAMES, values, strict=True) if np.isfinite(one)}


def score_texts(cascade: Cascade) -> tuple[str, str] | None:
    """Return the nested score of a cascade and its difference from all models as text; None if they are not known."""
    if cascade.score is None:
        return None
    value, low, high, change, less, more = (float(cascade.score.get(name, np.nan)) for name in SCORE_NAMES)
    return Interval(value, low, high).text(), Interval(change, less, more).signed_text(4)


def all_passes(source: PredictionSource) -> int:
    """Return the forward passes per image of all models and views that the combination uses."""
    used = used_runs(source.combination)
    return sum(len(run.models) * len(run.merge.weights) for run in source.runs if run.name in used)


def cascade_record(source: PredictionSource, fitted: FittedCascade | None) -> dict[str, Any] | None:
    """Return the cascade of a source and its nested score as plain values; None without a cascade."""
    if source.cascade is None:
        return None
    score = source.cascade.score if fitted is None else fitted.score.to_dict()
    return source.cascade.to_dict() | {"score": None if score is None else dict(score)}


def cascade_notes(source: PredictionSource, fitted: FittedCascade | None, passes: float) -> list[str]:
    """Return what a cascade saves and gives up, a line each; [] without a cascade."""
    if source.cascade is None:
        return []
    notes = [f"cascade: {passes:.1f} of {all_passes(source)} forward passes per image"]
    if source.cascade.loses_nothing:
        notes.append("the decisions are those of all models; the probabilities are of the models that were used")
    else:
        notes.append(loss_line(source.cascade))
    return [*notes, *(() if fitted is None else fitted.notes)]


def loss_line(cascade: Cascade) -> str:
    """Return in one line what the steps of a cascade give up."""
    texts = score_texts(cascade)
    if texts is None:
        allowed = "a part" if cascade.tolerance is None else f"up to {cascade.tolerance:g}"
        return f"it stops early and may lose {allowed} of the {cascade.metric}; its own score is not known"
    return (
        f"nested {cascade.metric} {texts[0]}; compared with all models {texts[1]} (people not used for fitting, one "
        "fold model per run)"
    )


def pass_costs(source: PredictionSource) -> dict[str, float]:
    """Return run → billions of floating point operations of one forward pass, the same on every machine."""
    return {run.name: _operations(run.models[0].checkpoint) for run in source.runs if run.models}


def _operations(checkpoint: Checkpoint) -> float:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model, settings = checkpoint.build(), checkpoint.image_settings
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, settings.depth, settings.height, settings.width))
    return max(counter.get_total_flops(), 1) / 1e9


def fill_cascade(
    source: PredictionSource, rows: NDArray[np.int64], logits: Logits, start: int, array: np.memmap[Any, Any]
) -> int:
    """Write the probabilities of some rows of a chunk that begins at row `start`; return the forward passes made.

    Parameters
    ----------
    rows : rows of the chunk whose images can be used.
    logits : predicts some rows of the chunk with one model; called only for what is needed.
    """
    assert source.cascade is not None  # noqa: S101 - called for sources with a cascade
    runs = run_models(source)
    by_name = {run.name: run for run in source.runs}

    def ask(run: int, fold: int, first: int, stop: int, asked: NDArray[np.int64]) -> NDArray[np.float32]:
        part = by_name[runs[run].name]
        return logits(part.models[fold], rows[asked], part.merge.views[first:stop])

    combiner = Combiner(source.combination, source.ranking)
    result = run_cascade(source.cascade, combiner, runs, len(rows), ask)
    array[start + rows] = result.probabilities
    return int(result.passes.sum())
