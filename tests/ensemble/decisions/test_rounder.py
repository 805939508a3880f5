"""The rounder: the best cuts of expected grades, nested scores, and its record."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

import ensemble as en
from ensemble.decisions.decision import Decision
from ensemble.decisions.labels import LabelRule, parse_aims
from ensemble.decisions.rounder import fit_cuts, round_grades, rounder_metric
from folds.errors import EnsembleError, UsageError
from folds.metrics.classification import Metric
from folds.metrics.grades import decided_as, expected_grades

NAMES = ("0", "1", "2", "3")


def graded(n: int, seed: int, classes: int = 4, shift: float = 0.4) -> tuple[NDArray, NDArray]:
    """Labels (n,), and probabilities (n, classes) that are compressed toward the middle and too low by `shift`."""
    random = np.random.default_rng(seed)
    labels = random.choice(classes, n, p=np.arange(classes, 0, -1) / (classes * (classes + 1) / 2))
    center = (labels - (classes - 1) / 2) * 0.6 + (classes - 1) / 2 - shift + random.normal(0, 0.6, n)
    p = np.exp(-((np.arange(classes) - center[:, None]) ** 2) / 0.8)
    return labels.astype(np.int64), p / p.sum(axis=1, keepdims=True)


def score_of_grades(metric: Metric, labels: NDArray, decided: NDArray, classes: int) -> float:
    return metric(labels, decided_as(decided, classes))


def best_of_all(p: NDArray, labels: NDArray, name: str) -> float:
    """The best score over all cuts between rows, tried one by one."""
    metric, classes = rounder_metric(name), p.shape[1]
    values = np.sort(expected_grades(p))
    places = [0.0, *((values[1:] + values[:-1]) / 2), float(classes)]
    sign = 1 if metric.greater_is_better else -1
    return sign * max(
        sign * score_of_grades(metric, labels, round_grades(p, np.array(cuts)), classes)
        for cuts in itertools.combinations_with_replacement(places, classes - 1)
    )


@pytest.mark.parametrize("name", ["quadratic_kappa", "grade_mae"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_cuts_are_better(name: str, seed: int) -> None:
    labels, p = graded(22, seed)
    cuts = fit_cuts(p, labels, rounder_metric(name))
    assert (np.diff(cuts) >= 0).all()
    found = score_of_grades(rounder_metric(name), labels, round_grades(p, cuts), 4)
    assert found == pytest.approx(best_of_all(p, labels, name), abs=1e-12)


def test_the_search_of_a_metric_of_counts_ends_where_no_cut_improves_it() -> None:
    labels, p = graded(22, 3)
    metric = rounder_metric("macro_f1")
    cuts = fit_cuts(p, labels, metric)
    found = score_of_grades(metric, labels, round_grades(p, cuts), 4)
    nearest = score_of_grades(metric, labels, np.rint(expected_grades(p)).astype(np.int64), 4)
    assert nearest < found <= best_of_all(p, labels, "macro_f1") + 1e-12
    for at, place in itertools.product(range(3), np.linspace(0, 4, 41)):
        moved = np.sort(np.where(np.arange(3) == at, place, cuts))
        if (np.delete(moved, at) == np.delete(cuts, at)).all():  # it has not passed another cut
            assert score_of_grades(metric, labels, round_grades(p, moved), 4) <= found + 1e-12


def test_cuts_do_not_depend_on_the_order_of_rows_and_equal_grades_stay_together() -> None:
    labels, p = graded(60, 4)
    p = p.round(1) + 1e-3
    p /= p.sum(axis=1, keepdims=True)  # many equal expected grades
    cuts = fit_cuts(p, labels, rounder_metric("quadratic_kappa"))
    shuffled = np.random.default_rng(0).permutation(60)
    assert np.array_equal(fit_cuts(p[shuffled], labels[shuffled], rounder_metric("quadratic_kappa")), cuts)
    distance = np.abs(np.subtract.outer(expected_grades(p), cuts))
    assert distance.min() > 1e-6  # in the middle between rows, so rounding changes no decision


def test_a_grade_that_is_never_seen_is_never_decided() -> None:
    labels, p = graded(40, 5)
    labels = np.minimum(labels, 2)
    cuts = fit_cuts(p, labels, rounder_metric("grade_mae"))
    assert cuts[-1] == 4
    assert round_grades(p, cuts).max() <= 2
    assert fit_cuts(p, np.full(40, 3), rounder_metric("grade_mae")).tolist() == [0, 0, 0]


def test_decide_scores_the_rounder_on_people_it_was_not_fitted_to() -> None:
    labels, p = graded(300, 6, shift=0.8)
    people = np.arange(300) // 2
    report = en.decide(p, y=labels, groups=people, classes=list(NAMES), threshold="rounder")
    scores = {name: score.interval.value for name, score in report.scores.items()}
    assert scores["quadratic kappa"] > scores["quadratic kappa of argmax"] + 0.02
    assert "mean absolute error of grades" in scores
    fitted = score_of_grades(rounder_metric("quadratic_kappa"), labels, report.decision.apply(p).codes, 4)
    assert fitted >= scores["quadratic kappa"]
    assert report.decision.records["labels"].status == ("none",)
    assert any("expected grade" in line for line in report.display_table().notes)


def test_a_rounder_is_read_as_it_was_written_and_checked() -> None:
    cuts = np.array([0.25, 1.5, 4.0])
    rule = LabelRule("rounder", NAMES, np.full(4, np.nan), cuts=cuts)
    record = Decision(NAMES, labels=rule).to_dict()
    read = Decision.from_json(record, NAMES)
    p = graded(50, 7)[1]
    assert read.labels is not None
    assert read.labels.cuts is not None
    assert read.labels.cuts.tolist() == cuts.tolist()
    assert np.array_equal(read.apply(p).codes, round_grades(p, cuts))
    for wrong in ([0.5, 0.2, 1.0], [0.5, 1.0], None):
        damaged = {**record, "labels": {**record["labels"], "cuts": wrong}}
        with pytest.raises(EnsembleError, match="cuts"):
            Decision.from_json(damaged, NAMES)


def test_wrong_requests_say_what_to_give() -> None:
    with pytest.raises(UsageError, match="sets the thresholds of all classes"):
        parse_aims(["rounder", "0=.3"], NAMES)
    with pytest.raises(UsageError, match="a metric of decisions, and log_loss is not"):
        parse_aims(["rounder:log_loss"], NAMES)
    assert [str(aim) for aim in parse_aims(["rounder"], NAMES)] == ["rounder:quadratic_kappa"]
    assert parse_aims(["rounder=.3"], ("rounder", "other"))[0].name == "rounder"  # a class of this name
