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
from ensemble.cascade.record import Cascade
from ensemble.cascade.run import RunModel, run_cascade
from ensemble.prediction.source import FoldModel, PredictionSource
from folds.errors import EnsembleError, UsageError
from folds.models.checkpoint import Checkpoint

logger = logging.getLogger(__name__)

# (model, rows, names of views) → logits (views, rows, classes), the columns in the order of the checkpoint.
Logits = Callable[[FoldModel, NDArray[np.int64], Sequence[str]], NDArray[np.float32]]
EXACT = "exact"

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
            f"`cascade={value}`: expected exact, or the loss of the score that is allowed, from 0 to 1",
            hint="`cascade=exact` never changes a decision; `cascade=.001` skips more",
        )
    return number


def run_models(source: PredictionSource) -> list[RunModel]:
    """Return what a cascade needs to know about the runs of a source, in the order of its combination.

    Raises
    ------
    UsageError : the combination compares images with each other, or joins attribute runs.
    """
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
        columns = np.array([run.models[0].checkpoint.classes.index(one) for one in run.classes])
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
    if cascade is None and cost is not None:
        raise UsageError("`cost` orders the models of a cascade", hint="add `cascade=.001`, or leave `cost` out")
    if cascade is not None:
        parse_tolerance(cascade)


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
    tolerance = parse_tolerance(cascade)
    run_models(source)
    costs = None if cost is None else parse_costs(cost, sorted(source.combination.runs))
    if tolerance is None:
        return with_cascade(source, exact_cascade(source, costs)), None
    fitted = fit_source(source, root, tolerance, costs=costs, metric=metric)
    for note in fitted.notes:
        logger.warning("%s", note)
    return with_cascade(source, fitted.cascade), fitted


def cascade_record(source: PredictionSource, fitted: FittedCascade | None) -> dict[str, Any] | None:
    """Return the cascade of a source and its nested score as plain values; None without a cascade."""
    if source.cascade is None:
        return None
    return source.cascade.to_dict() | {"score": None if fitted is None else fitted.score.to_dict()}


def cascade_notes(source: PredictionSource, fitted: FittedCascade | None, passes: float) -> list[str]:
    """Return what a cascade saves and gives up, a line each; [] without a cascade."""
    if source.cascade is None:
        return []
    used = used_runs(source.combination)
    most = sum(len(run.models) * len(run.merge.weights) for run in source.runs if run.name in used)
    notes = [f"cascade: {passes:.1f} of {most} forward passes per image"]
    if fitted is None:
        return [*notes, "the decisions are those of all models; the probabilities are of the models that were used"]
    change = fitted.score.difference.difference.signed_text(4)
    notes.append(
        f"nested {source.cascade.metric} {fitted.score.cascade.text()}; compared with all models {change} (people not "
        "used for fitting, one fold model per run)"
    )
    return [*notes, *fitted.notes]


def pass_costs(source: PredictionSource) -> dict[str, float]:
    """Return run → billions of floating point operations of one forward pass, the same on every machine."""
    return {run.name: _operations(run.models[0].checkpoint) for run in source.runs if run.models}


def _operations(checkpoint: Checkpoint) -> float:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model, settings = checkpoint.build(), checkpoint.image_settings
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, settings.height, settings.width))
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
