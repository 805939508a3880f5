"""What views are worth: each of them, their merge, what the merge gains over no other view and over the plain mean, and what was saved."""

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
from ensemble.tta.weights import METRIC, apply
from folds.errors import EnsembleError
from folds.metrics.classification import argmax_classes, f1_per_class
from folds.metrics.grouping import average_by_person
from folds.metrics.intervals import Difference, difference_over_people
from folds.metrics.report import ScoreReport, score_predictions
from folds.predictions.files import PredictionMetadata, fold_files, oof_file, read_array, read_sidecar
from folds.predictions.reading import score_rows
from folds.utils.numeric import softmax


@dataclass(frozen=True)
class ViewScores:
    """What the views of a run are worth on one split.

    Attributes
    ----------
    views : by name; without those that some row or fold lacks.
    merged : of the written file.
    path : that file; on test the first fold's.
    """

    split: str
    folds: tuple[int, ...]
    views: Mapping[str, ScoreReport]
    merged: ScoreReport | None
    path: Path


@dataclass(frozen=True)
class TTAGain:
    """What the merge is worth out of fold, and against what; all on the same rows.

    Attributes
    ----------
    in_sample : macro F1 on the rows that the merge was fitted on; None where nothing was fitted.
    mean : the plain mean of all views.
    against_plain, against_mean : the merge less no other view than the plain image, and less that mean.
    full : macro F1 of the same merge with all of its views for all images; None where it is not adaptive.
    without : view → what the merge with all its views loses without it, the weights of the others scaled up; on the rows that it was
        fitted on.
    per_class : F1 of each class, of the plain image, the mean of all views and the merge.
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
    """Scores of each view and of the merge, out of fold and, where labels are known, on test, from the written files."""
    folder, results = runs / "tta", []
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
        for view in views:
            mean = _mean_of_files(folder / run / "views", run, view, paths, sidecar)
            if mean is not None:
                scores[view.name] = score_rows(mean, sidecar, per_person=per_person)
        merged = np.mean([np.asarray(read_array(path), np.float64) for path in paths], axis=0)
        folds = done if split == "oof" else tuple(fold for fold in done if fold in tests)
        results.append(ViewScores(split, folds, scores, score_rows(merged, sidecar, per_person=per_person), paths[0]))
    return results


def _mean_of_files(
    folder: Path, run: str, view: View, paths: Sequence[Path], sidecar: PredictionMetadata
) -> NDArray[np.float64] | None:
    """Return (n, classes) a view's probabilities of the rows of `sidecar`, averaged over folds; None where a file lacks some."""
    values = []
    for path in paths:
        found = load_common_rows([folder / f"{view.file_name}.{path.name.removeprefix(f'{run}.')}"], {})
        if found is None or not np.isin(sidecar.rows.ids, found[1].rows.ids).all():
            return None
        values.append(softmax(_in_order(found[0][0], found[1].rows.ids, sidecar.rows.ids)))
    return np.mean(values, axis=0)


def _in_order(values: NDArray[np.floating], ids: NDArray[np.str_], wanted: NDArray[np.str_]) -> NDArray[np.floating]:
    place = {name: i for i, name in enumerate(ids.tolist())}
    return values[[place[name] for name in wanted.tolist()]]


def worth_of(made: MergedViews, per_person: bool = False) -> TTAGain | None:
    """Return what a merge is worth out of fold; None where labels are not known, or there is one view alone."""
    evidence = made.evidence
    if evidence is None or len(evidence.views) < 2:
        return None
    labels, persons = evidence.labels, evidence.persons
    plain, mean = softmax(evidence.logits[0]), merge_views(evidence.logits)

    def against(other: NDArray[np.float64]) -> Difference:
        some = labels, persons, [other, made.merged]
        if per_person:
            averaged = [average_by_person(labels, values, persons, values.shape[1]) for values in (other, made.merged)]
            some = averaged[0][0], averaged[0][2], [one[1] for one in averaged]
        return difference_over_people(METRIC, some[0], some[2][0], some[2][1], some[1])

    def flat(values: NDArray[np.float64]) -> float:
        return (
            score_predictions(labels, values, persons, per_person=per_person).interval.value
            if per_person
            else METRIC(labels, values)
        )

    whole = Merge(made.merge.how, made.merge.weights)
    full = None if made.full is None else flat(made.full)
    fitted = flat(apply(made.merge, evidence)[0]) if made.request.fitted(len(evidence.views)) else None
    before = flat(apply(whole, evidence)[0])
    without = {}
    for view in whole.views if len(whole.views) > 1 else ():
        others = {name: weights for name, weights in whole.weights.items() if name != view}
        without[view] = before - flat(apply(Merge(whole.how, others), evidence)[0])
    per_class = {
        name: f1_per_class(labels, argmax_classes(values), values.shape[1]).tolist()
        for name, values in (("plain", plain), ("mean_of_all", mean), ("merged", made.merged))
    }
    return TTAGain(
        fitted,
        score_predictions(labels, mean, persons, per_person=per_person),
        against(plain),
        against(mean),
        full,
        without,
        per_class,
    )


def difference_record(found: Difference) -> dict[str, Any]:
    """For --json: a difference of macro F1, and whether other people would show it."""
    change = found.difference
    return {
        "difference": change.value,
        "low": change.low,
        "high": change.high,
        "chance": found.p_value,
        "distinguishable": found.verdict(),
    }


def tta_record(made: MergedViews, scored: Sequence[ViewScores], worth: TTAGain | None) -> dict[str, Any]:
    """Return what --json says of a run's views, their merge and what it is worth."""
    passes: dict[str, Any] = {"oof": made.oof_views, "test": made.test_views, "all_views": len(made.merge.views)}
    record: dict[str, Any] = {
        "run": made.run,
        "merge": made.merge.to_dict() | {"asked": made.request.how, "budget": made.request.budget},
        "passes": passes,
    }
    record["splits"] = [_split_record(one) for one in scored]
    if worth is not None and made.evidence is not None:
        record["worth"] = {
            "nested": worth.against_plain.second,
            "in_sample": worth.in_sample,
            "plain": worth.against_plain.first,
            "mean_of_all": worth.mean.to_dict(),
            "against_plain": difference_record(worth.against_plain),
            "against_mean": difference_record(worth.against_mean),
            "all_views_for_all_images": worth.full,
            "without": {view: -lost for view, lost in worth.leave_one_out.items()},
            "per_class_f1": worth.per_class,
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
