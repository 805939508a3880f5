"""`folds.soup`: average the models of several runs fold by fold into one run, if the out-of-fold score agrees.

Only models of the same fold are averaged: a model of another fold was trained on this fold's people, so the average
would have seen them, and there would be no out-of-fold score.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from folds.errors import EnsembleError, UsageError
from folds.metrics.custom import metric_of
from folds.metrics.intervals import Difference, Interval, difference_over_people, interval_over_people
from folds.predictions.files import oof_file
from folds.runs.run import file_safe
from folds.runs.soup_files import write_soup
from folds.runs.soup_models import SoupModels
from folds.utils.arguments import FLAG, METRIC, NAME, PATH, PROGRESS, check_arguments, whole
from folds.utils.bars import log_in_notebook, progress_of
from folds.utils.display import Displayed, Table
from folds.utils.files import is_file_safe
from folds.utils.locks import exclusive_lock
from folds.utils.progress import Progress
from folds.utils.schema import ANYTHING, either, list_of, named, one_of, optional

if TYPE_CHECKING:
    from folds.runs.results import Runs, TrainedRun

STATISTICS = ("recompute", "average")
_KINDS = {
    "name": optional(NAME),
    "metric": optional(METRIC),
    "batch_norm": one_of(*STATISTICS),
    "data": optional(PATH),
    "device": named(either(NAME, whole(0)), "auto, cpu, or the number of a GPU"),
    "root": PATH,
    "force": FLAG,
    "progress": PROGRESS,
    "runs": named(list_of(ANYTHING), "a list of runs or of their names, or what kfold returned"),
}


@dataclass(frozen=True, eq=False, repr=False)
class Soup(Displayed):
    """The average of the models of several runs.

    Attributes
    ----------
    name : the run that was written; None if the soup was not kept.
    runs : the runs it was made of.
    ingredients : fold → the runs that were averaged; chosen by the scores of the other folds.
    singles : out-of-fold score of each run.
    score : out-of-fold score of the soup.
    difference : soup − best single run, which is chosen by the scores of the other folds as well; paired over people.
    batch_norm : ``recompute``, ``average``, or ``none`` if the models keep no batch statistics.
    """

    name: str | None
    runs: tuple[str, ...]
    ingredients: Mapping[int, tuple[str, ...]]
    singles: Mapping[str, Interval]
    score: Interval
    difference: Difference
    metric: str
    batch_norm: str

    @property
    def kept(self) -> bool:
        """Return whether the soup was written as a run."""
        return self.name is not None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as ``ensemble soup --json`` prints them."""
        return {
            "name": self.name,
            "runs": list(self.runs),
            "ingredients": {str(fold): list(runs) for fold, runs in self.ingredients.items()},
            "metric": self.metric,
            "singles": {run: score.to_dict() for run, score in self.singles.items()},
            "soup": self.score.to_dict(),
            "difference": self.difference.to_dict(),
            "batch_norm": self.batch_norm,
        }

    def display_table(self) -> Table:
        """Return the table to display: scores of the runs and of the soup."""
        rows: list[list[object]] = [[run, f"{one.value:.3f}", one.ci_text()] for run, one in self.singles.items()]
        rows.append(["soup", f"{self.score.value:.3f}", self.score.ci_text()])
        counts = {run: sum(run in some for some in self.ingredients.values()) for run in self.runs}
        notes = [
            f"compared with the best single run (both chosen on the other folds): {self.difference.text()}",
            f"folds in which each run was averaged: {', '.join(f'{run} {count}' for run, count in counts.items())}",
            f"batch statistics: {self.batch_norm}",
        ]
        if not self.kept:
            notes.append("the soup is not better than the best single run out of fold: nothing was written")
        return Table(f"soup of {len(self.runs)} runs", ["run", f"OOF {self.metric}", "95% CI"], rows, notes, left=1)


def soup(
    runs: Sequence[str | TrainedRun] | Runs,
    *,
    name: str | None = None,
    metric: str | None = None,
    batch_norm: str = "recompute",
    data: str | Path | None = None,
    device: str | int = "auto",
    root: str | Path = ".",
    force: bool = False,
    progress: bool | Progress = True,
) -> Soup:
    """Average the weights of several runs fold by fold, and write the result as a run if it is better out of fold.

    Greedy (arXiv 2203.05482): starting from the best run, a run is added if the average then scores at least as well.
    For each fold, the runs are chosen by the scores of the other folds, so the out-of-fold score of the soup includes
    the choice.

    Parameters
    ----------
    runs : two or more runs of one architecture with the same folds, e.g. seeds, or settings, from the same initial
        weights: their names, runs, or what `kfold` returned.
    name : name of the new run, by default ``soup-`` and the first run.
    metric : metric of the choice; None for macro F1, or that of the task of several labels or numbers.
    batch_norm : ``recompute`` the statistics of batch normalization on the training images of each fold, or ``average``
        those of the runs.
    data : the table that the runs were trained on, if it was moved.
    device : ``auto``, ``cpu``, or the number of a GPU.
    root : the folder that holds ``runs/`` and ``checkpoints/``.
    force : whether to replace a run of that name.
    progress : False for no progress output.

    Raises
    ------
    UsageError : fewer than two runs, or models of different folds.
    EnsembleError : the runs differ in architecture, folds or classes, or a fold is not trained.

    Examples
    --------
    >>> import folds
    >>> folds.soup(["only"], root="/nowhere")
    Traceback (most recent call last):
    ...
    folds.errors.UsageError: expected two or more runs, found 1
    """
    log_in_notebook()
    check_arguments(locals() | {"runs": list(runs) if isinstance(runs, Mapping) else runs}, _KINDS)
    root = Path(root)
    if metric is not None:
        metric_of(metric)
    names = [str(getattr(run, "name", run)) for run in runs]
    _check_names(names)
    target = file_safe(name or f"soup-{names[0]}")
    if target in names:
        raise UsageError(f"`name={target}` is one of the runs", hint="give the soup a name of its own")
    folder = root / "runs" / target
    if not force and (folder.exists() or oof_file(root / "runs", target).exists()):
        raise EnsembleError(f"the run {folder} exists", hint="`name=NEW`, or `force=True` to replace it")
    models = SoupModels(names, root, metric, batch_norm, None if data is None else Path(data), str(device))
    shown = progress_of(progress)
    with shown.step("averaging") as advance:
        chosen, best = models.choose(advance)
    made = _result(models, chosen, best)
    if made.difference.difference.value * (1 if models.metric.greater_is_better else -1) < 0 or not any(
        len(some) > 1 for some in chosen.values()
    ):
        return made
    with exclusive_lock(root / "runs" / f".{target}.lock", f"the run {folder}"):
        write_soup(models, target, chosen, made.to_dict() | {"name": target}, force)
    return replace(made, name=target)


def _check_names(runs: Sequence[str]) -> None:
    """Raise UsageError unless these are names of different runs."""
    folds = [run for run in runs if run.endswith(".pt") or re.search(r"(^|/)fold\d+$", run)]
    if folds:
        raise UsageError(
            f"expected runs, found the checkpoint of a fold: {folds[0]}",
            hint="models of different folds are never averaged: each has seen the people that the others are scored "
            "on, so the average would have no out-of-fold score; name two runs with the same folds",
        )
    unsafe = next((run for run in runs if not is_file_safe(run)), None)
    if unsafe is not None:
        raise UsageError(f"expected names of runs, found '{unsafe}'", hint="ensemble runs lists the runs")
    if len(runs) < 2:
        raise UsageError(f"expected two or more runs, found {len(runs)}", hint="runs of other seeds or settings")
    repeated = next((run for run in runs if list(runs).count(run) > 1), None)
    if repeated is not None:
        raise UsageError(f"run {repeated} is named twice", hint="name each run once")


def _result(models: SoupModels, chosen: Mapping[int, tuple[str, ...]], best: Mapping[int, str]) -> Soup:
    """Return the scores of the soup and of its runs."""
    rows = np.concatenate([models.rows[fold] for fold in models.folds])
    labels = models.labels[rows]
    together = [models.together(dict.fromkeys(models.folds, (run,))) for run in models.runs]
    together += [models.together(chosen), models.together({fold: (run,) for fold, run in best.items()})]
    labels, together, persons = models.units(labels, together, models.persons[rows])
    labels, (*of_runs, whole, single) = models.in_order(labels, *together)
    singles = {
        run: interval_over_people(models.metric, labels, values, persons)
        for run, values in zip(models.runs, of_runs, strict=True)
    }
    return Soup(
        None,
        models.runs,
        chosen,
        singles,
        interval_over_people(models.metric, labels, whole, persons),
        difference_over_people(models.metric, labels, single, whole, persons),
        models.metric.name,
        models.batch_norm,
    )
