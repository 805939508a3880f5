"""Score a logistic head trained on fewer people: what more people would give."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.config.recipe import Recipe
from folds.data.targets import Target
from folds.errors import EnsembleError, UsageError
from folds.features.column_curve import check_known, predict_columns, share_of_columns
from folds.features.data import standardization, standardized
from folds.features.logistic import fit_path, rotate
from folds.features.selection import inner_folds, select_strength
from folds.features.store import open_features
from folds.metrics.custom import find_metric
from folds.metrics.report import score_predictions
from folds.metrics.task_names import REGRESSION
from folds.splits.assignment import FoldAssignment, read_folds
from folds.training.examples import class_codes, learned_rows
from folds.training.job import Job
from folds.training.resolve import target_of
from folds.utils.files import derive_seed
from folds.utils.numeric import factorize, softmax
from folds.utils.parallel import cpu_count, one_blas_thread

SHARES = (0.125, 0.25, 0.5, 0.75, 1.0)
DRAWS = 3
_INNER_FOLDS = 3
# What a curve was measured with: heads on frozen features, of numbers the second, or the training of the whole model.
HEADS, NUMBER_HEADS, TRAINING = "logistic heads", "ridge regressions", "training"
_FORMS = (0.25, 0.5, 1.0)  # exponents c of score = a − b·n^(−c), which an extrapolation is made with


@dataclass(frozen=True)
class CurvePoint:
    """The out-of-fold score of heads that were trained on a share of the people.

    Attributes
    ----------
    people, images : of a training part, on average over folds and draws.
    score, low, high : mean over the draws, and its 95% confidence interval: over the people who are scored, and over
        the draws of the people who train.
    scores : of each draw.
    """

    share: float
    people: float
    images: float
    score: float
    low: float
    high: float
    scores: tuple[float, ...]


@dataclass(frozen=True)
class LearningCurve:
    """The scores for growing shares of the people, and what twice the people would give.

    Attributes
    ----------
    doubled : lowest and highest extrapolation to twice the people of all; None if the points do not rise.
    measured_with : ``logistic heads`` or, of numbers, ``ridge regressions`` on frozen features; or ``training`` of the
        whole model.
    doubled_interval : `doubled` with the 95% confidence interval over the people who are scored; None if unknown.
    """

    run: str
    metric: str
    points: tuple[CurvePoint, ...]
    doubled: tuple[float, float] | None
    measured_with: str = HEADS
    doubled_interval: tuple[float, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "run": self.run,
            "metric": self.metric,
            "points": [asdict(point) for point in self.points],
            "doubled": None if self.doubled is None else list(self.doubled),
            "measured_with": self.measured_with,
            "doubled_interval": None if self.doubled_interval is None else list(self.doubled_interval),
        }


def learning_curve(
    job: Job,
    shares: Sequence[float] = SHARES,
    draws: int = DRAWS,
    advance: Callable[[int, int], None] | None = None,
    by_person: bool = False,
) -> LearningCurve:
    """Return the learning curve of a run over people, with its features and folds, by logistic heads.

    Every head is scored on the people of its fold, none of whom it has seen; its strength is chosen by inner folds of
    its own part. A smaller share is part of a larger one, with about the same frequencies of the classes. Several
    labels have a logistic regression each, and numbers a ridge regression.

    Parameters
    ----------
    job : any fold of the run, with its features.
    draws : draws of the people for each share below 1.
    by_person : whether people are scored, with the mean of their images.

    Raises
    ------
    UsageError : the target has several heads.
    EnsembleError : the features are not there.
    """
    if job.features is None or job.features.get("train") is None:
        raise EnsembleError(f"{job.run}: the features of its images are not computed")
    recipe = Recipe(**{**job.recipe, "init": None})
    target = target_of(recipe, job.classes, job.class_attributes)
    if target.joined:
        raise UsageError("a learning curve is of one target", hint="`target=label`, or one attribute")
    data = _Data(job, recipe, target, by_person)
    tasks = [(share, draw) for share in shares for draw in range(1 if share == 1 else draws)]
    work = [(share, draw, fold) for share, draw in tasks for fold in data.folds]
    done = 0
    found: dict[tuple[float, int, int], tuple[NDArray[np.float64], int, int]] = {}
    with one_blas_thread(), ThreadPoolExecutor(cpu_count(), thread_name_prefix="curve") as pool:
        for key, result in zip(work, pool.map(lambda one: data.fit(*one), work), strict=True):
            found[key] = result
            done += 1
            if advance is not None:
                advance(done, len(work))
    points = []
    for share in shares:
        own = [draw for one, draw in tasks if one == share]
        parts = [[found[share, draw, fold] for fold in data.folds] for draw in own]
        points.append(_point(data, share, parts))
    metric = find_metric(recipe.metric)
    doubled = _extrapolated(points, metric.greater_is_better)
    if target.has_columns and doubled is not None:  # an error is not below 0
        low, high = (min(max(one, metric.lower_bound), metric.upper_bound) for one in doubled)
        doubled = low, high
    measured_with = NUMBER_HEADS if target.task == REGRESSION else HEADS
    return LearningCurve(job.run, recipe.metric, tuple(points), doubled, measured_with)


class _Data:
    """The features, labels and people of a run; `labels` are scored, and `learned` are those of the training."""

    def __init__(self, job: Job, recipe: Recipe, target: Target, by_person: bool = False) -> None:
        assert job.features is not None  # noqa: S101 - checked by the caller
        self.job, self.recipe, self.target, self.by_person = job, recipe, target, by_person
        self.assignment: FoldAssignment = read_folds(Path(job.folder) / "folds.csv")
        # Labels may be changed, and images left out, for the training only.
        self.labels, self.learned = map(target.encode_scored, class_codes(job, self.assignment))
        self.people = factorize(self.assignment.persons)[1]
        self.values = open_features(Path(str(job.features["train"])))
        self.folds = range(self.assignment.k)
        self.scored = np.concatenate([self.assignment.validation_index(fold) for fold in self.folds])

    def fit(self, share: float, draw: int, fold: int) -> tuple[NDArray[np.float64], int, int]:
        """Return the predictions of a fold by a head of a share of the people, and their number and images."""
        rows = self._part(share, draw, fold)
        labels, classes = self.learned[rows], len(self.target.classes)
        by = standardization(self.values, rows)
        if self.target.has_columns:
            own, seed = (
                standardized(self.values, rows, by, 1),
                derive_seed(self.recipe.seed, fold, draw, share, "inner"),
            )
            check_known(labels, self.target.classes, f"learning curve of {self.job.run}, fold {fold}")
            held = standardized(self.values, self.assignment.validation_index(fold), by, 1)
            found = predict_columns(own, labels, self.people[rows], held, self.target.task, seed)
            return found, len(set(self.people[rows].tolist())), len(rows)
        features, rotation = rotate(standardized(self.values, rows, by, 1), np.full(len(rows), 1 / len(rows)))
        targets = np.zeros((len(rows), classes))
        targets[np.arange(len(rows)), labels] = 1 / len(rows)
        seed = derive_seed(self.recipe.seed, fold, draw, share, "inner folds")
        inner = inner_folds(self.people[rows], labels, _INNER_FOLDS, seed)
        best = select_strength(features, targets, rotation, inner).best
        fit = list(fit_path(features, targets, rotation.variance, [100 * best, 10 * best, best]))[-1]
        held = standardized(self.values, self.assignment.validation_index(fold), by, 1) @ rotation.axes
        return softmax(fit.outputs(held)), len(set(self.people[rows].tolist())), len(rows)

    def _part(self, share: float, draw: int, fold: int) -> NDArray[np.int64]:
        """Return the training rows of a share of the people of a fold."""
        rows = learned_rows(self.job, self.assignment, self.assignment.training_index(fold))
        if share == 1:
            return rows
        if self.target.has_columns:
            seed = derive_seed(self.recipe.seed, fold, draw, "people")
            drawn = share_of_columns(self.people[rows], self.learned[rows], self.target.task, share, seed)
            return rows[np.isin(self.people[rows], drawn)]
        people, first = np.unique(self.people[rows], return_index=True)
        label = self.learned[rows][first]
        random = np.random.default_rng(derive_seed(self.recipe.seed, fold, draw, "people"))
        order = random.permutation(len(people))
        rank = np.empty(len(people))
        for one in np.unique(label):  # the first people of the order have the classes of all people
            own = order[label[order] == one]
            rank[own] = (np.arange(len(own)) + random.uniform()) / len(own)
        kept = people[np.argsort(rank, kind="stable")[: max(2, math.ceil(share * len(people)))]]
        return rows[np.isin(self.people[rows], kept)]


def _point(data: _Data, share: float, parts: Sequence[Sequence[tuple[NDArray[np.float64], int, int]]]) -> CurvePoint:
    """Return a point from the predictions of all folds, for each draw."""
    labels, persons = data.labels[data.scored], data.assignment.persons[data.scored]
    found = [np.concatenate([one[0] for one in draw]) for draw in parts]
    task = data.target.task
    reports = [
        score_predictions(labels, values, persons, data.recipe.metric, data.by_person, task=task).interval
        for values in found
    ]
    scores = [one.value for one in reports]
    normal = NormalDist().inv_cdf(0.975)
    # A metric of the user has an interval by resampling, without a standard error.
    errors = [
        (one.high - one.low) / (2 * normal) if one.standard_error is None else one.standard_error for one in reports
    ]
    of_people = float(np.mean(np.square(errors)))
    of_draws = float(np.var(scores, ddof=1)) / len(scores) if len(scores) > 1 else 0.0
    middle, wide = float(np.mean(scores)), normal * math.sqrt(of_people + of_draws)
    metric = find_metric(data.recipe.metric)
    low, high = max(middle - wide, metric.lower_bound), min(middle + wide, metric.upper_bound)
    if len(scores) == 1:
        low, high = reports[0].low, reports[0].high
    counts = np.array([[one[1:] for one in draw] for draw in parts], np.float64).mean((0, 1))
    return CurvePoint(share, float(counts[0]), float(counts[1]), middle, low, high, tuple(scores))


def _extrapolated(points: Sequence[CurvePoint], greater_is_better: bool) -> tuple[float, float] | None:
    """Return the range of the score at twice the people, from curves a − b·n^(−c) through the points."""
    people, scores = np.array([one.people for one in points]), np.array([one.score for one in points])
    if len(points) < 3 or not np.isfinite(scores).all() or (scores[-1] > scores[0]) != greater_is_better:
        return None
    found = [float(weights @ scores) for weights in extrapolation_weights(people.tolist())]
    return min(found), max(found)


def extrapolation_weights(people: Sequence[float]) -> list[NDArray[np.float64]]:
    """Return for each form of a curve a − b·n^(−c) the (points,) weights whose sum over the scores is that at twice the
    people: the last score, and the change by the slope of least squares.
    """
    counts, found = np.array(people, np.float64), []
    for power in _FORMS:
        terms = counts**-power
        centered = terms - terms.mean()
        slope = centered / (centered @ centered)
        weights = slope * ((2 * counts[-1]) ** -power - terms[-1])
        weights[-1] += 1
        found.append(weights)
    return found
