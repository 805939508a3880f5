"""The options of a blend and their validation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ensemble.alignment.label_columns import check_given_task
from ensemble.learning.calibration import calibrated, parse_calibration
from ensemble.learning.columns.registry import (
    COLUMN_FITTERS,
    calibrated_labels,
    check_method,
    column_candidates,
    methods_of,
)
from ensemble.learning.combination import Fitter
from ensemble.learning.further_columns import parse_columns
from ensemble.learning.pooled import pooled_choices
from ensemble.learning.registry import FITTERS, candidates
from ensemble.members.columns import ColumnNames
from ensemble.pooling.spec import AUTO as ANY_POOL
from ensemble.pooling.spec import PoolSpec, check_rule, parse_pool
from ensemble.voting.vote import METHODS, Options
from folds.errors import UsageError, unknown_name
from folds.metrics.classification import Metric
from folds.metrics.custom import metric_of
from folds.metrics.task_names import CLASSES, COLUMN_TASKS, REGRESSION
from folds.metrics.tasks import default_metric, metric_for_task
from folds.predictions.uncertain import check_uncertain
from folds.utils.files import sha256_file

AUTO = "auto"
# Option → the method that takes it.
_OWNERS = {"power": "power", "trim": "trimmed"}
# Methods that use further columns of the samples.
_WITH_COLUMNS = ("stacking", "stacking-bias")
ALL_METHODS = (*METHODS, *(name for name, fitter in FITTERS.items() if fitter.is_fitted), AUTO)
# Methods of a task with a column for each label or number that classes do not have.
COLUMN_METHODS = tuple(
    name for name in dict.fromkeys(one for task in COLUMN_TASKS for one in methods_of(task)) if name not in ALL_METHODS
)


@dataclass(frozen=True)
class BlendConfig:
    """The options of a blend; the defaults are those of the command.

    Attributes
    ----------
    method : one of `ALL_METHODS`; by default ``weighted`` if there are weights, otherwise ``soft``.
    weights : text for `ensemble.blending.request.parse_weights`.
    runs : the runs to use; all by default.
    metric : a key of `folds.metrics.classification.METRICS`, ``module:function``, or a `Metric` of a function; also the
        objective of fitting. By default that of the task: `folds.metrics.tasks.default_metric`.
    per_person : whether to average the probabilities of a person's images before scoring; with `pool`, always.
    labels : a CSV of true labels.
    uncertain : what -1 means there, one of `folds.metrics.task_names.UNCERTAIN`; None: it is an error.
    logits : whether arrays without a sidecar hold logits.
    power, trim : parameters of the methods ``power`` and ``trimmed``; None for their defaults.
    by : ``class``, or ``attribute`` to vote on each attribute of the class separately.
    allow_duplicates : whether files of equal content vote as often as they are given.
    calibrate : text for `ensemble.learning.calibration.parse_calibration`.
    max_members, budget : maximum number of runs, and maximum cost per image.
    cost : text for `ensemble.analysis.cost.parse_costs`; forward passes are counted by default.
    contributions : whether to report the contribution of each run; None for yes if the method is ``auto``.
    detail : whether to break down the scores by class and attribute.
    columns : the columns of tables that the user named.
    classes : classes of the columns of arrays without names, in order.
    ids : files with the ids of the rows of arrays without ids.
    unfinished : whether runs that are not trained on all folds take part beside finished ones.
    positive : the positive one of two classes; by default the one that the members state.
    task : what the columns of files without a sidecar are, one of `folds.metrics.task_names`; None for classes.
    pool : text for `ensemble.pooling.spec.parse_pool`: the images of a person become one row, for which everything is
        fitted and scored.
    extra : texts for `ensemble.learning.further_columns.parse_columns`: columns of the samples for ``stacking``.
    """

    method: str | None = None
    weights: str | None = None
    runs: tuple[str, ...] | None = None
    metric: str | Metric | None = None
    per_person: bool = False
    labels: Path | None = None
    logits: bool = False
    power: float | None = None
    trim: float | None = None
    by: str = "class"
    allow_duplicates: bool = False
    calibrate: str | None = None
    max_members: int | None = None
    budget: float | None = None
    cost: str | None = None
    contributions: bool | None = None
    detail: bool = False
    columns: ColumnNames = field(default_factory=ColumnNames)
    classes: tuple[str, ...] | None = None
    ids: tuple[Path, ...] = ()
    unfinished: bool = False
    positive: str | None = None
    task: str | None = None
    pool: str | None = None
    extra: tuple[str, ...] = ()
    uncertain: str | None = None

    def __post_init__(self) -> None:
        if self.pool is not None:
            object.__setattr__(self, "per_person", True)

    @property
    def pool_spec(self) -> PoolSpec | None:
        """Return how a person's images are pooled before the fit; None for rows of images. See `parse_pool`."""
        return None if self.pool is None else parse_pool(self.pool)

    @property
    def fits_pool(self) -> bool:
        """Return whether the rule of `pool` is fitted or chosen."""
        return self.pool_spec is not None and self.pool_spec.is_fitted

    @property
    def name(self) -> str:
        """Return the name of the method."""
        return self.method or ("weighted" if self.weights is not None else "soft")

    @property
    def scored(self) -> Metric:
        """Return the metric. Raise UsageError, with close matches, if it is unknown."""
        return metric_of(self.chosen_metric)

    @property
    def chosen_metric(self) -> str | Metric:
        """Return the metric as it was given, or the default of classes."""
        return default_metric(CLASSES) if self.metric is None else self.metric

    @property
    def metric_name(self) -> str:
        """Return the name of the metric, for records; of a built-in one with settings its one spelling."""
        found = self.scored
        chosen = self.chosen_metric
        return chosen if isinstance(chosen, str) and found.function is not None else found.name

    @property
    def is_fitted(self) -> bool:
        """Return whether anything is fitted to out-of-fold predictions."""
        limited = self.max_members is not None or self.budget is not None
        return self.name not in METHODS or self.calibrate is not None or limited or self.fits_pool

    @property
    def report_contributions(self) -> bool:
        """Return whether to report the contribution of each run."""
        return self.name == AUTO and not self.fits_pool if self.contributions is None else self.contributions

    def check(self) -> None:
        """Validate the options before any file is read.

        Raises
        ------
        UsageError : an unknown method or metric (with close matches), options that exclude each other, or an invalid
            value.
        """
        name = self.name
        if name not in (*ALL_METHODS, *COLUMN_METHODS):
            raise unknown_name("method", name, [*ALL_METHODS, *COLUMN_METHODS])
        check_given_task(self.task)
        self._check_uncertain()
        _ = self.scored
        if name == "weighted" and self.weights is None:
            raise UsageError(
                "`method=weighted` needs `weights`",
                hint="`weights=.7,.3`, in the order of the runs, or `weights=swin=.7,resnet18=.3`",
            )
        if self.weights is not None and (name == "soft" or name not in METHODS or not METHODS[name].supports_weights):
            found = "fits its weights" if name not in METHODS else "weights all runs equally"
            raise UsageError(f"`method={name}` {found} and takes no `weights`", hint="`method=weighted`")
        for option, owner in _OWNERS.items():
            if getattr(self, option) is not None and name != owner:
                raise UsageError(
                    f"`method={name}` takes no `{option}`",
                    hint=f"`method={owner}` `{option}={getattr(self, option):g}`",
                )
        self.options()
        self._check_people()
        if self.classes is not None and (len(set(self.classes)) < len(self.classes) or not all(self.classes)):
            raise UsageError(
                f"`classes={','.join(self.classes)}`: expected a different name for each column", hint="`classes=A,B,C`"
            )
        if self.is_fitted:
            self._check_fitting()

    def _check_uncertain(self) -> None:
        """Raise UsageError if `uncertain` is not a reading of labels, or there is no table of labels."""
        check_uncertain(self.uncertain)
        if self.uncertain is not None and self.labels is None:
            raise UsageError("`uncertain` says how the table of `labels` is read", hint="`labels=FILE.csv`")

    def _check_people(self) -> None:
        """Raise UsageError if `pool` or `extra` do not fit the method."""
        spec = self.pool_spec
        if spec is not None and self.by != "class":
            raise UsageError("`pool` works only with `by=class`", hint="leave out `by` or `pool`")
        if spec is not None and spec.name == ANY_POOL and self.name == AUTO:
            raise UsageError(
                "`pool=auto` chooses a rule for one method, and `method=auto` a method for one rule",
                hint="name the method, or the rule of `pool`",
            )
        if spec is not None and spec.is_fitted and (self.max_members is not None or self.budget is not None):
            raise UsageError(
                f"`pool={self.pool}` is fitted, and cannot be combined with `max_members` or `budget`",
                hint="`pool=mean`, `median`, `max`, `top-k` or `noisy-or`",
            )
        if self.contributions:
            self.check_contributions()
        if self.extra and self.name not in _WITH_COLUMNS:
            raise UsageError(
                f"`method={self.name}` uses no columns of the samples, found `extra={','.join(self.extra)}`",
                hint="`method=stacking`",
            )
        parse_columns(self.extra)

    def check_contributions(self) -> None:
        """Raise UsageError if contributions of the runs are not available with the options."""
        if self.fits_pool:
            raise UsageError(
                "`contributions` are not available with a rule of `pool` that is fitted",
                hint="leave out `contributions`",
            )

    def _check_fitting(self) -> None:
        if self.fits_pool and (self.weights is not None or self.power is not None or self.trim is not None):
            raise UsageError(
                f"`pool={self.pool}` is fitted, and takes no `weights`, `power` or `trim`",
                hint="leave them out, or `pool=mean`, `median`, `max`, `top-k` or `noisy-or`",
            )
        if self.weights is not None:
            raise UsageError(
                "`weights` cannot be combined with `calibrate`, `max_members` or `budget`",
                hint="leave `weights` out",
            )
        if self.by != "class":
            raise UsageError("`by=attribute` works only with plain voting", hint="`by=class`, or `method=soft`")
        if self.power is not None or self.trim is not None:
            raise UsageError(
                "`power` and `trim` work only with plain voting",
                hint="leave out `calibrate`, `max_members` and `budget`",
            )
        if self.max_members is not None and self.max_members < 1:
            raise UsageError(
                f"`max_members={self.max_members}`: expected 1 or more", hint="leave it out to use all runs"
            )
        if self.budget is not None and not self.budget > 0:
            raise UsageError(
                f"`budget={self.budget:g}`: expected a cost above 0",
                hint="in forward passes per image, or in the unit of `cost`",
            )
        if self.calibrate is not None:
            self._check_calibration(self.calibrate)

    def _check_calibration(self, calibrate: str) -> None:
        parse_calibration(calibrate)
        if self.name == AUTO:
            raise UsageError("`method=auto` includes calibrated methods already", hint="leave `calibrate` out")
        if self.name in METHODS and METHODS[self.name].counts_votes:
            raise UsageError(
                f"`method={self.name}` counts decisions, which calibration rarely changes", hint="`method=soft`"
            )
        if self.name in METHODS and METHODS[self.name].needs_all_rows:
            raise UsageError(
                f"`method={self.name}` compares all samples with each other and cannot be calibrated",
                hint="`method=soft`",
            )

    @property
    def method_params(self) -> dict[str, float]:
        """Return the parameters that apply to the method."""
        return {name: getattr(self.options(), name) for name, owner in _OWNERS.items() if self.name == owner}

    @property
    def fitting_options(self) -> dict[str, Any]:
        """Return the options of a fit that were given, so that a later command can repeat it."""
        names = ("calibrate", "max_members", "budget", "cost", "positive", "pool")
        given: dict[str, Any] = {name: getattr(self, name) for name in names}
        given |= {"extra": list(self.extra) or None}
        return {name: value for name, value in given.items() if value is not None}

    def options(self) -> Options:
        """Return the options of a plain method.

        Raises
        ------
        UsageError : an invalid value.
        """
        given = {name: value for name in ("power", "trim") if (value := getattr(self, name)) is not None}
        return Options(**given, by=self.by)

    def for_task(self, task: str) -> BlendConfig:
        """Return the options for members of a task (`folds.metrics.task_names`), with its metric if none is given.

        Raises
        ------
        UsageError : the metric, the method or an option does not support the task.
        """
        if task not in COLUMN_TASKS:
            if self.name in COLUMN_METHODS:
                raise UsageError(
                    f"`method={self.name}` combines numbers, and the members predict classes",
                    hint="`method=simplex`, or `method=stacking`",
                )
            if self.metric is not None:
                metric_for_task(self.metric, task)
            return self
        chosen = metric_for_task(self.metric, task)
        check_method(self.name, task)
        if self.pool_spec is not None:
            check_rule(self.pool_spec, task)
        for option, value in self._of_classes().items():
            if value:
                raise UsageError(
                    f"`{option}` does not support the task {task}", hint=f"leave `{option}` out for these members"
                )
        if self.calibrate is not None:
            if task == REGRESSION:
                raise UsageError("`calibrate` does not support the task regression: numbers have no temperature")
            calibrated_labels(self.name, self.calibrate)
        given = isinstance(self.metric, str) and chosen.function is not None  # its record keeps its name
        asked = bool(self.contributions)  # `auto` reports them of classes without being asked
        return replace(self, metric=self.metric if given else chosen, contributions=asked)

    def _of_classes(self) -> dict[str, Any]:
        """Return the options that work with exclusive classes only, with what was given."""
        return {
            "by": None if self.by == "class" else self.by,
            "max_members": self.max_members,
            "budget": self.budget,
            "positive": self.positive,
            "extra": self.extra,
        }

    def fitters(self, task: str = CLASSES) -> list[Fitter]:
        """Return the fitter, or all that ``auto`` tries, without limits on the runs.

        Parameters
        ----------
        task : of the members; the order of grades is used by rules of `pool` that are fitted.
        """
        if task in COLUMN_TASKS and self.name == AUTO:
            found = list(column_candidates(task, self.scored))
        elif task in COLUMN_TASKS:
            fitter = COLUMN_FITTERS[task][self.name]
            found = [fitter if self.calibrate is None else calibrated_labels(self.name, self.calibrate)]
        elif self.name == AUTO:
            found = candidates(self.scored)
        else:
            fitter = FITTERS[self.name]
            found = [fitter if self.calibrate is None else calibrated(fitter, *parse_calibration(self.calibrate))]
        if self.pool_spec is None or not self.fits_pool:
            return found
        return [one for fitter in found for one in pooled_choices(fitter, self.pool_spec, task)]

    def identity(self, weights: dict[str, float]) -> dict[str, Any]:
        """Return the options that the result depends on, besides the files.

        Newer options are included only if they differ from their defaults, so that existing blends keep their names.
        """
        record: dict[str, Any] = {
            "method": self.name,
            "weights": weights,
            "metric": self.metric_name,
            "per_person": self.per_person,
            "logits": self.logits,
        }
        record["labels"] = None if self.labels is None else sha256_file(self.labels)
        newer: dict[str, Any] = self.method_params | {"by": self.by if self.by != "class" else None}
        newer |= {"calibrate": self.calibrate, "max_members": self.max_members, "budget": self.budget}
        newer |= {"cost": self.cost if self.budget is not None else None, "metric_sha": self.scored.sha or None}
        newer |= {"columns": self.columns.record() or None, "classes": self.classes}
        newer |= {"positive": self.positive, "task": self.task, "pool": self.pool, "extra": self.extra or None}
        newer |= {"uncertain": self.uncertain}
        newer |= {"ids": [sha256_file(path) for path in self.ids] or None}
        return record | {name: value for name, value in newer.items() if value is not None}


def parse_weights(text: str, runs: Sequence[str]) -> dict[str, float]:
    """Parse ``swin=.7,resnet18=.3``, or ``.7,.3`` in the order of `runs`, to run → weight; the weights sum to 1.

    Raises
    ------
    UsageError : a run is unknown or has no weight, the numbers of weights and runs differ, a weight is not a number ≥
        0, or the sum is 0.
    """
    parts = [part.strip() for part in text.split(",")]
    named = ["=" in part for part in parts]
    example = ",".join(f"{name}={1 / len(runs):.2g}" for name in runs)
    if any(named) and not all(named):
        raise UsageError(f"`weights={text}`: some weights have a name and some have none", hint=f"`weights={example}`")
    given = _named(parts, text, runs, example) if any(named) else _in_order(parts, text, runs, example)
    largest = max(given.values())
    if largest <= 0:
        raise UsageError(f"`weights={text}`: the weights sum to 0", hint=f"`weights={example}`")
    # Scale by a power of two first, which is exact: the sum of the largest floats would be infinite.
    scaled = {name: math.ldexp(value, -math.frexp(largest)[1]) for name, value in given.items()}
    total = sum(scaled.values())
    return {name: scaled[name] / total for name in runs}


def _in_order(parts: Sequence[str], text: str, runs: Sequence[str], example: str) -> dict[str, float]:
    """Parse weights in the order of the runs to run → weight."""
    if len(parts) != len(runs):
        raise UsageError(
            f"`weights`: expected one weight per run, {len(runs)} ({', '.join(runs)}), found {len(parts)}",
            hint=f"`weights={example}`",
        )
    return dict(zip(runs, (_number(part, text) for part in parts), strict=True))


def _named(parts: Sequence[str], text: str, runs: Sequence[str], example: str) -> dict[str, float]:
    """Parse ``RUN=WEIGHT`` parts to run → weight."""
    given: dict[str, float] = {}
    for part in parts:
        name, _, value = part.rpartition("=")
        name = name.strip()
        if name not in runs:
            raise unknown_name("run in `weights`", name, runs)
        if name in given:
            raise UsageError(f"`weights` names {name} twice", hint=f"`weights={example}`")
        given[name] = _number(value.strip(), text)
    missing = [name for name in runs if name not in given]
    if missing:
        raise UsageError(
            f"`weights` has no weight for {', '.join(missing)}",
            hint=f"to leave it out: {missing[0]}=0, or `runs`",
        )
    return given


def _number(part: str, text: str) -> float:
    try:
        value = float(part)
    except ValueError:
        raise UsageError(
            f"`weights={text}`: '{part}' is not a number", hint="`weights=.7,.3` or `weights=swin=.7,resnet18=.3`"
        ) from None
    if not math.isfinite(value) or value < 0:
        raise UsageError(
            f"`weights={text}`: a weight must be a finite number ≥ 0, found {part}",
            hint="weights are scaled to sum to 1",
        )
    return value
