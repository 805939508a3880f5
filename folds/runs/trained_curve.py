"""Learning curves by training: train the models of a run again on shares of its people, and score them."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from folds.errors import EnsembleError, FoldsFailed, UsageError
from folds.features.column_curve import share_of_columns
from folds.features.learning_curve import TRAINING, CurvePoint, LearningCurve, extrapolation_weights
from folds.metrics.classification import Metric
from folds.metrics.custom import find_metric
from folds.metrics.intervals import interval_over_people
from folds.metrics.resampling import jackknife_groups, leave_one_group_out
from folds.metrics.scored_units import scored_units
from folds.predictions.file_names import FOLD_DONE
from folds.predictions.files import oof_file, read_array, read_sidecar
from folds.predictions.reading import scored_index
from folds.runs.initial_weights import known_people
from folds.runs.run import Run
from folds.training.examples import class_codes, learned_rows
from folds.training.job import Job, Outcome
from folds.utils.csv_table import csv_text
from folds.utils.files import derive_seed, write_atomic
from folds.utils.numeric import factorize

logger = logging.getLogger(__name__)
SHARES = (0.25, 0.5)  # of the people; all of them are those of the run itself
FOLDER = "learning_curve"


def check_trained_curve(run: Run) -> None:
    """Raise UsageError if models on fewer people would know all people through the settings of the run."""
    recipe = run.recipe
    for name in ("init_run", "soft_labels", "pseudo", "soften"):
        if getattr(recipe, name) is not None:
            raise UsageError(
                f"`learning_curve` trains {run.name} on shares of its people, and with `{name}` all models know all "
                "people",
                hint=f"leave out `{name}`",
            )
    check_known_people(run)


def check_known_people(run: Run) -> None:
    """Raise UsageError if the run starts from weights of a file that have learned people of its table."""
    init = run.recipe.init
    known = 0 if init is None else known_people(run, init)
    if known:
        raise UsageError(
            f"`learning_curve` asks what fewer people teach, and `init_weights={init}` was trained on {known:,} of the "
            f"people of {run.name}",
            hint="start from weights that know none of them",
        )


def curve_jobs(run: Run, template: Job, shares: Sequence[float] = SHARES) -> dict[float, list[Job]]:
    """Return share → the jobs of all folds on this share of the people of their training parts.

    The validation people are those of the run. Of each training part a smaller share is part of a larger one, with
    about the same frequencies of the classes, and with all its classes (`share_of_columns` of several labels and
    numbers). The settings are those of the run, also the epochs.

    Parameters
    ----------
    template : the job of any fold of the run.
    """
    codes = class_codes(template, run.assignment)[1]
    people = factorize(run.assignment.persons)[1]
    found = {}
    for share in shares:
        folder = run.folder / FOLDER / f"share{share:g}"
        jobs = []
        for fold in range(run.assignment.k):
            rows = learned_rows(template, run.assignment, run.assignment.training_index(fold))
            seed = derive_seed(run.recipe.seed, fold, "curve")
            if run.target.has_columns:
                kept = share_of_columns(people[rows], codes[rows], run.target.task, share, seed)
            else:
                kept = share_of_people(people[rows], codes[rows], share, seed)
            learned = rows[np.isin(people[rows], kept)]
            left = np.setdiff1d(np.arange(len(people)), learned)
            dropped = folder / f"dropped{fold}.csv"
            _write_folder(run, folder, fold, dropped, csv_text({"id": run.assignment.ids[left].tolist()}))
            jobs.append(
                replace(
                    template,
                    run=f"{run.name}.share{share:g}",
                    fold=fold,
                    folder=str(folder),
                    checkpoint=str(folder / f"fold{fold}.pt"),
                    test_pixels=None,
                    dropped=str(dropped),
                )
            )
        found[share] = jobs
    return found


def share_of_people(people: NDArray[np.int64], codes: NDArray[np.int64], share: float, seed: int) -> NDArray[np.int64]:
    """Return the people of a share, drawn so that a smaller share is part of a larger one and each class is in it.

    Parameters
    ----------
    people, codes : (n,) person and class of each row.
    """
    names, first = np.unique(people, return_index=True)
    label, random = codes[first], np.random.default_rng(seed)
    order = random.permutation(len(names))
    rank = np.empty(len(names))
    for one in np.unique(label):  # the first people of the order have the classes of all people
        own = order[label[order] == one]
        rank[own] = (np.arange(len(own)) + random.uniform()) / len(own)
    by_rank = names[np.argsort(rank, kind="stable")]
    kept = set(by_rank[: max(2, math.ceil(share * len(names)))].tolist())
    place = dict(zip(by_rank.tolist(), range(len(by_rank)), strict=True))
    for one in np.unique(codes):  # the first person of each class: the same one for all shares
        kept.add(min(set(people[codes == one].tolist()), key=place.__getitem__))
    return np.array(sorted(kept), np.int64)


def _write_folder(run: Run, folder: Path, fold: int, dropped: Path, text: str) -> None:
    """Write what a job reads; what was trained on other people is removed."""
    folds = folder / "folds.csv"
    own = (run.folder / "folds.csv").read_bytes()
    texts = ((dropped, text.encode()), (folds, own))
    if all(path.is_file() and path.read_bytes() == content for path, content in texts):
        return
    shutil.rmtree(folder / f"fold{fold}", ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folds, own)
    write_atomic(dropped, text)


def trained_curve(
    run: Run,
    template: Job,
    train: Callable[[Sequence[Job]], list[Outcome]],
    shares: Sequence[float] = SHARES,
    by_person: bool = False,
) -> LearningCurve:
    """Train what is missing, and return the learning curve of a run; its checkpoints are removed.

    Parameters
    ----------
    template : the job of any fold of the run.
    train : trains jobs; an interruption passes through it, and the next call continues.
    by_person : whether people are scored, with the mean of their images.

    Raises
    ------
    EnsembleError : a fold of the run is not trained.
    FoldsFailed : a training failed; the others are saved.
    """
    missing = [fold for fold in range(run.assignment.k) if run.done(fold) is None]
    if missing:
        raise EnsembleError(
            f"the learning curve of {run.name} needs all its folds, and fold {missing[0]} is not trained",
            hint="leave out `fold`: the missing folds are trained first",
        )
    of_share = curve_jobs(run, template, shares)
    jobs = [job for each in of_share.values() for job in each]
    left = [job for job in jobs if not (job.fold_dir / FOLD_DONE).exists()]
    if left:
        shown = " and ".join(f"{share:.0%}" for share in shares)
        logger.info(f"{run.name}: learning curve, {len(left)} of {len(jobs)} trainings on {shown} of the people")
        failed = [one for one in train(left) if one.error is not None]
        if failed:
            raise FoldsFailed(
                f"{len(failed)} of {len(jobs)} trainings of the learning curve of {run.name} failed: "
                f"{', '.join(one.job.title for one in failed)}; the others are saved",
                hint="the same command tries them again",
            )
    for job in jobs:
        Path(job.checkpoint).unlink(missing_ok=True)
    parts = {share: [job.fold_dir / "oof.npy" for job in each] for share, each in of_share.items()}
    parts[1.0] = [run.fold_folder(fold) / "oof.npy" for fold in range(run.assignment.k)]
    learned = {share: [_learned(job, run) for job in each] for share, each in of_share.items()}
    return _curve(run, template, parts, learned, by_person)


def _learned(job: Job, run: Run) -> NDArray[np.int64]:
    return learned_rows(job, run.assignment, run.assignment.training_index(job.fold))


def _curve(
    run: Run,
    template: Job,
    parts: Mapping[float, Sequence[Path]],
    learned: Mapping[float, Sequence[NDArray[np.int64]]],
    by_person: bool,
) -> LearningCurve:
    """Return the curve from the out-of-fold predictions of all folds, for each share."""
    assignment, metric = run.assignment, find_metric(run.recipe.metric)
    scored = np.concatenate([assignment.validation_index(fold) for fold in range(assignment.k)])
    labels, people = run.target.encode_scored(class_codes(template, assignment)[0]), assignment.persons
    kept = np.flatnonzero(_unchanged(run, scored))
    rows = scored[kept]
    persons = factorize(people[rows])[1]
    points, left_out = [], []
    whole = [learned_rows(template, assignment, assignment.training_index(fold)) for fold in range(assignment.k)]
    for share, files in sorted(parts.items()):
        values = np.concatenate([read_array(path) for path in files])[kept]
        scores = scored_units(labels[rows], [values], persons, by_person, run.target.task)
        truth, (values,), of = scores.labels, scores.predictions, scores.persons
        found = interval_over_people(metric, truth, values, of)
        each = learned.get(share, whole)
        of_people = float(np.mean([len(set(people[one].tolist())) for one in each]))
        images = float(np.mean([len(one) for one in each]))
        points.append(CurvePoint(share, of_people, images, found.value, found.low, found.high, (found.value,)))
        if metric.function is None:
            codes, units, _ = jackknife_groups(of)
            left_out.append(leave_one_group_out(metric, truth, values, codes, units))
    doubled, interval = _doubled(points, np.array(left_out), metric)
    return LearningCurve(run.name, run.recipe.metric, tuple(points), doubled, TRAINING, interval)


def _unchanged(run: Run, scored: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return (n,) whether the person of each row has no changed training label; all if too few people have none."""
    sidecar = read_sidecar(oof_file(run.runs, run.name))
    index = None if sidecar is None else scored_index(run.runs, [run.name], sidecar)[0]
    if sidecar is None or index is None:
        return np.ones(len(scored), bool)
    return np.isin(run.assignment.ids[scored], sidecar.rows.ids[index])


def _doubled(
    points: Sequence[CurvePoint], left_out: NDArray[np.float64], metric: Metric
) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    """Return the score at twice the people: its range over the forms of the curve, and with the 95% CI over people.

    Each extrapolation is a sum of the scores with fixed weights, so leaving out one person after the other (jackknife)
    gives its standard error, in which the scores on the same people vary together.

    Parameters
    ----------
    left_out : (points, units) scores without each unit; empty for a metric of the user.
    """
    scores = np.array([one.score for one in points])
    if len(points) < 3 or not np.isfinite(scores).all() or (scores[-1] > scores[0]) != metric.greater_is_better:
        return None, None
    normal, middle, ends = NormalDist().inv_cdf(0.975), [], []
    for weights in extrapolation_weights([one.people for one in points]):
        value = float(weights @ scores)
        middle.append(value)
        if len(left_out):
            each = weights @ left_out
            units = len(each)
            error = math.sqrt((units - 1) / units * float(np.square(each - each.mean()).sum()))
            ends += [value - normal * error, value + normal * error]
    clipped = [min(max(one, metric.lower_bound), metric.upper_bound) for one in (*middle, *ends)]
    middle, ends = clipped[: len(middle)], clipped[len(middle) :]
    return (min(middle), max(middle)), (min(ends), max(ends)) if ends else None
