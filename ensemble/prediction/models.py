"""Describe what predicts new images: the fold models, how views are merged, and how runs are combined."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ensemble.cascade.record import Cascade
from ensemble.decisions.label_decision import AnyDecision
from ensemble.learning.columns.combination import ColumnCombination
from ensemble.learning.combination import Combination
from ensemble.learning.cumulative import NumberToGrades
from ensemble.tta.merge import Merge
from ensemble.voting.vote import METHODS
from folds.errors import EnsembleError, UsageError
from folds.metrics.task_names import BINARY, CLASSES, COLUMN_TASKS, ORDINAL, REGRESSION
from folds.models.checkpoint import Checkpoint
from folds.predictions.files import LABEL
from folds.utils.files import sha256_bytes

PLAIN = Merge("mean", {"none": (1.0,)})


@dataclass(frozen=True)
class FoldModel:
    """A checkpoint of one fold, with the hash of its file."""

    path: Path
    sha: str
    checkpoint: Checkpoint


@dataclass(frozen=True)
class RunModels:
    """The fold models of one run, and how their views are merged.

    Attributes
    ----------
    name : name in the combination.
    models : one per fold, in the order of the folds.
    classes : columns of the predictions of its models.
    joined : names of the attribute runs that this run combines; it has no models of its own then.
    hand_over : the fit that turns the number of its models into the grades of the source; None for an ordinary run.
    """

    name: str
    models: tuple[FoldModel, ...]
    classes: tuple[str, ...]
    target: str = LABEL
    merge: Merge = PLAIN
    joined: tuple[str, ...] = ()
    hand_over: NumberToGrades | None = None

    @property
    def folds(self) -> tuple[int, ...]:
        """Return the folds of the models."""
        return tuple(model.checkpoint.fold for model in self.models)


@dataclass(frozen=True)
class PredictionSource:
    """Everything needed to predict new images.

    Attributes
    ----------
    name : the checkpoint, run or blend, as it is called in messages and file names.
    kind : ``checkpoint``, ``run``, ``refit`` (a run's model of all people), ``blend`` or ``model`` (an exported one).
    classes, target : of the result.
    combination : how the runs are combined.
    runs : the runs of the combination, then the attribute runs that are joined.
    ranking : run names, best out-of-fold score first, for ties of hard votes.
    class_attributes : class → attribute → value.
    folder : folder of the blend, or folder or archive of the model; None for a checkpoint or a run.
    decision : decision rules that come with the models; None if there are none.
    cascade : the order of the models and when the remaining ones are skipped; None to use all models for every image.
    refit : whether the models were trained on all people, so that no out-of-fold score is their own.
    positive : the positive class that was named for the blend, the last one; None if none was. An exported model has
        it too.
    """

    name: str
    kind: str
    classes: tuple[str, ...]
    target: str
    combination: Combination
    runs: tuple[RunModels, ...]
    ranking: tuple[str, ...] = ()
    class_attributes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    folder: Path | None = None
    decision: AnyDecision | None = None
    cascade: Cascade | None = None
    refit: bool = False
    positive: str | None = None

    @property
    def models(self) -> list[FoldModel]:
        """Return the models of all runs."""
        return [model for run in self.runs for model in run.models]

    @property
    def task(self) -> str:
        """Return what the columns are, one of `folds.metrics.task_names`: that of the models, ``binary`` if a positive
        class was named for the blend, or ``ordinal`` if a number is handed over to grades.
        """
        if any(run.hand_over is not None for run in self.runs):
            return ORDINAL
        trained = next((model.checkpoint.task for model in self.models if model.checkpoint.task != CLASSES), CLASSES)
        named = self.positive is not None and self.classes[1:] == (self.positive,) and self.target == LABEL
        return BINARY if trained == CLASSES and named else trained

    @property
    def exclusive(self) -> bool:
        """Return whether exclusive classes were asked for when a model was trained."""
        return self.task == CLASSES and any(model.checkpoint.exclusive for model in self.models)

    @property
    def sha(self) -> str:
        """Return a hash of the checkpoints, the merges of views and the combination."""
        runs = [(run.name, run.joined, [model.sha for model in run.models], run.merge.to_dict()) for run in self.runs]
        parts: list[Any] = [self.classes, self.target, self.combination.as_record(inline=False), runs, self.ranking]
        parts += [] if self.cascade is None else [self.cascade.to_dict()]
        parts += [(run.name, run.hand_over.as_record()) for run in self.runs if run.hand_over is not None]
        return sha256_bytes(repr(parts).encode())


def check_rows_compared(source: PredictionSource, rows: int) -> None:
    """Raise UsageError if the combination compares rows with each other, and there is one.

    Parameters
    ----------
    rows : images, or people of a combination for people.
    """
    made = source.combination
    pools = {one.pool for one in made.each} if isinstance(made, ColumnCombination) and made.each else {made.pool}
    compares = next((pool for pool in sorted(pools) if METHODS[pool].needs_all_rows), None)
    if compares is not None and made.stacked is None and rows < 2:
        of_people = made.pooling is not None
        raise UsageError(
            f"{compares} voting compares the {'people' if of_people else 'images'} of a table with each other, found 1 "
            f"{'person' if of_people else 'image'}",
            hint=f"predict a table of {'people' if of_people else 'images'}, or blend with another `method`",
        )


def check_one_task(source: PredictionSource) -> PredictionSource:
    """Return the source.

    Raises
    ------
    EnsembleError : its models have different tasks, one of which has labels or numbers in its columns, or another one
        than the combination. A number that is handed over to grades counts as grades.
    """
    found = sorted({_combined_task(run, model, source) for run in source.runs for model in run.models})
    _check_grades(source)
    if len(found) > 1 and set(found) & set(COLUMN_TASKS):
        raise EnsembleError(
            f"the models of {source.name} have different tasks ({', '.join(found)}), whose predictions cannot be "
            "combined for new images",
            hint="predict with each of its runs",
        )
    made = source.combination
    combined = made.task if isinstance(made, ColumnCombination) else CLASSES
    if (source.task if source.task in COLUMN_TASKS else CLASSES) != combined:
        raise EnsembleError(
            f"the combination of {source.name} is for the task {combined}, and its models for {source.task}",
            hint="predict with each of its runs",
        )
    return source


def _check_grades(source: PredictionSource) -> None:
    """Raise EnsembleError if a number is handed over to grades that the models of grades have in another order.

    Two grades may change places, if the positive one is the lower; the cuts are ascending for the order of the source.
    """
    orders = {source.classes, source.classes[::-1]} if len(source.classes) == 2 else {source.classes}
    for run in source.runs if any(run.hand_over is not None for run in source.runs) else ():
        for model in run.models if run.hand_over is None and run.target == source.target else ():
            own = model.checkpoint.classes
            if model.checkpoint.task == ORDINAL and set(own) == set(source.classes) and own not in orders:
                raise EnsembleError(
                    f"{source.name} hands a number to the grades {', '.join(source.classes[:10])}, and {model.path} "
                    f"has them in the order {', '.join(own[:10])}",
                    hint="run ensemble blend again",
                )


def _combined_task(run: RunModels, model: FoldModel, source: PredictionSource) -> str:
    """Return the task as which the predictions of a model are combined.

    Raises
    ------
    EnsembleError : it is to be handed over to grades, and does not predict one number.
    """
    made = model.checkpoint
    if run.hand_over is None:
        return made.task
    if made.task != REGRESSION or len(made.classes) != 1:
        raise EnsembleError(
            f"one number of run '{run.name}' is handed over to the grades of {source.name}, and {model.path} predicts "
            f"{', '.join(made.classes[:10])} of the task {made.task}",
            hint="run ensemble blend again",
        )
    return ORDINAL


def check_no_hand_over(source: PredictionSource, what: str, hint: str) -> None:
    """Raise UsageError, with what does not support it, if the number of a run is handed over to grades.

    Parameters
    ----------
    what : what is asked for, as a message names it.
    """
    found = next((run.name for run in source.runs if run.hand_over is not None), None)
    if found is not None:
        raise UsageError(
            f"{what} does not support {source.name}, whose run {found} hands a number to grades", hint=hint
        )
