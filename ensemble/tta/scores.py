"""Score the views of a run and their merge, and compare the merge with the plain image and the mean of all views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.tta.files import load_common_rows
from ensemble.tta.merge import Merge, merge_views
from ensemble.tta.result import MergedViews
from ensemble.tta.views import View
from ensemble.tta.weights import apply, metric_of_task
from folds.errors import EnsembleError
from folds.metrics.confusion import argmax_classes, f1_per_class
from folds.metrics.intervals import Difference, difference_over_people
from folds.metrics.report import ScoreReport, score_predictions
from folds.metrics.scored_units import scored_units
from folds.metrics.task_names import COLUMN_TASKS
from folds.predictions.files import PredictionMetadata, fold_files, oof_file, read_array, read_sidecar
from folds.predictions.links import predictions_of
from folds.predictions.reading import score_rows


@dataclass(frozen=True)
class ViewScores:
    """The scores of the views of a run on one split.

    Attributes
    ----------
    views : view → score, for views that have all rows and folds.
    merged : score of the written merged file.
    path : the merged file; on test that of the first fold.
    """

    split: str
    folds: tuple[int, ...]
    views: Mapping[str, ScoreReport]
    merged: ScoreReport | None
    path: Path


@dataclass(frozen=True)
class TTAGain:
    """The out-of-fold score of the merge and its comparisons, all on the same rows.

    Attributes
    ----------
    in_sample : in-sample score of the merge, as all scores by the metric of the task; None if nothing was fitted.
    mean : score of the plain mean of all views.
    against_plain, against_mean : difference of the merge to the plain image, and to the mean of all views.
    full : score of the same merge with all of its views for all images; None unless it is adaptive.
    leave_one_out : view → in-sample score of the merge minus that without it, with the other weights scaled up.
    per_class : F1 per class of the plain image, the mean of all views and the merge; {} for labels and numbers. It is
        of images, and of people if only persons are labeled.
    """

    in_sample: float | None
    mean: ScoreReport
    against_plain: Difference
    against_mean: Difference
    full: float | None
    leave_one_out: Mapping[str, float]
    per_class: Mapping[str, Sequence[float]]


def score_views(
    run: str, views: tuple[View, ...], runs: Path = Path("runs"), per_person: bool = False
) -> list[ViewScores]:
    """Return the scores of each view and of the merge from the written files: out-of-fold and, with labels, test."""
    folder, results = runs / "tta", list[ViewScores]()
    oof = read_sidecar(oof_file(folder, run))
    if oof is None:
        raise EnsembleError(f"{oof_file(folder, run)} has no sidecar")
    done = tuple(sorted(set(np.asarray(oof.fold).ravel().tolist())))
    tests = fold_files(folder, run)
    for split, paths in (("oof", [oof_file(folder, run)]), ("test", [tests[fold] for fold in done if fold in tests])):
        sidecar = read_sidecar(paths[0]) if paths else None
        if sidecar is None or sidecar.rows.labels is None:
            continue
        scores = {}
        metric = metric_of_task(sidecar.task).name
        for view in views:
            mean = _mean_of_files(folder / run / "views", run, view, paths, sidecar)
            if mean is not None:
                scores[view.name] = score_rows(mean, sidecar, metric, per_person)
        merged = np.mean([np.asarray(read_array(path), np.float64) for path in paths], axis=0)
        folds = done if split == "oof" else tuple(fold for fold in done if fold in tests)
        results.append(ViewScores(split, folds, scores, score_rows(merged, sidecar, metric, per_person), paths[0]))
    return results


def _mean_of_files(
    folder: Path, run: str, view: View, paths: Sequence[Path], sidecar: PredictionMetadata
) -> NDArray[np.float64] | None:
    """Return a view's mean predictions (n, classes) over folds on the rows of `sidecar`; None if rows are missing."""
    values = []
    for path in paths:
        found = load_common_rows([folder / f"{view.file_name}.{path.name.removeprefix(f'{run}.')}"], {})
        if found is None or not np.isin(sidecar.rows.ids, found[1].rows.ids).all():
            return None
        outputs = _in_order(found[0][0], found[1].rows.ids, sidecar.rows.ids)
        values.append(predictions_of(sidecar.task, outputs))
    return np.mean(values, axis=0)


def _in_order(values: NDArray[np.floating], ids: NDArray[np.str_], wanted: NDArray[np.str_]) -> NDArray[np.floating]:
    place = {name: i for i, name in enumerate(ids.tolist())}
    return values[[place[name] for name in wanted.tolist()]]


def gain_of(made: MergedViews, per_person: bool = False) -> TTAGain | None:
    """Return the out-of-fold score and comparisons of a merge; None if labels are unknown or there is only one view."""
    evidence = made.evidence
    if evidence is None or len(evidence.views) < 2:
        return None
    per_person = per_person or evidence.by_person
    labels, persons = evidence.labels, evidence.persons
    plain, mean, metric = evidence.plain, merge_views(evidence.logits, task=evidence.task), evidence.metric

    def against(other: NDArray[np.float64]) -> Difference:
        units = scored_units(labels, [other, made.merged], persons, per_person, evidence.task)
        first, second = units.predictions
        return difference_over_people(metric, units.labels, first, second, units.persons)

    def score(values: NDArray[np.float64]) -> float:
        return (
            score_predictions(labels, values, persons, metric.name, per_person, task=evidence.task).interval.value
            if per_person
            else metric(labels, values)
        )

    all_views = Merge(made.merge.how, made.merge.weights)
    full = None if made.full is None else score(made.full)
    fitted = score(apply(made.merge, evidence)[0]) if made.request.fitted(len(evidence.views)) else None
    before = score(apply(all_views, evidence)[0])
    without = {}
    for view in all_views.views if len(all_views.views) > 1 else ():
        others = {name: weights for name, weights in all_views.weights.items() if name != view}
        without[view] = before - score(apply(Merge(all_views.how, others), evidence)[0])
    by_name = (("plain", plain), ("mean_of_all", mean), ("merged", made.merged))

    def of_classes(values: NDArray[np.float64]) -> list[float]:
        # If only persons are labeled, the images themselves have no label.
        units = scored_units(labels, [values], persons, evidence.by_person, evidence.task)
        return list(f1_per_class(units.labels, argmax_classes(units.predictions[0]), values.shape[1]).tolist())

    per_class = {name: of_classes(values) for name, values in (() if evidence.task in COLUMN_TASKS else by_name)}
    return TTAGain(
        fitted,
        score_predictions(labels, mean, persons, metric.name, per_person, task=evidence.task),
        against(plain),
        against(mean),
        full,
        without,
        per_class,
    )


def difference_record(found: Difference) -> dict[str, Any]:
    """Return a difference of scores and its significance as plain values, for ``--json``."""
    record = found.to_dict()
    ends = {name: record[name] for name in ("difference", "low", "high", "chance")}
    return ends | {"distinguishable": found.verdict()}


def tta_record(made: MergedViews, scored: Sequence[ViewScores], gains: TTAGain | None) -> dict[str, Any]:
    """Return the views of a run, their merge and its scores as plain values, for ``--json``."""
    passes: dict[str, Any] = {"oof": made.oof_views, "test": made.test_views, "all_views": len(made.merge.views)}
    record: dict[str, Any] = {
        "run": made.run,
        "merge": made.merge.to_dict() | {"asked": made.request.how, "budget": made.request.budget},
        "passes": passes,
    }
    record["splits"] = [_split_record(one) for one in scored]
    if gains is not None and made.evidence is not None:
        record["worth"] = {
            "nested": gains.against_plain.second,
            "in_sample": gains.in_sample,
            "plain": gains.against_plain.first,
            "mean_of_all": gains.mean.to_dict(),
            "against_plain": difference_record(gains.against_plain),
            "against_mean": difference_record(gains.against_mean),
            "all_views_for_all_images": gains.full,
            "without": {view: -lost for view, lost in gains.leave_one_out.items()},
            "per_class_f1": gains.per_class,
        }
    return record


def _split_record(scored: ViewScores) -> dict[str, object]:
    return {
        "split": scored.split,
        "folds": list(scored.folds),
        "views": {name: score.to_dict() for name, score in scored.views.items()},
        "merged": None if scored.merged is None else scored.merged.to_dict(),
        "file": str(scored.path),
    }
