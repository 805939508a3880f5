"""Each step of greedy selection adds the same member as scoring all candidates."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ensemble.learning.greedy import Prepared, select
from folds.errors import EnsembleError, UsageError
from folds.metrics.classification import METRICS, Metric
from folds.metrics.confusion import confusion_counts


def _row_brier(labels: NDArray, probabilities: NDArray) -> NDArray:
    return np.square(probabilities - np.eye(probabilities.shape[1])[labels]).sum(axis=1)


# Neither log loss nor a metric of counts: the path for custom metrics.
BRIER = Metric("squared", "squared error", greater_is_better=False, per_row=_row_brier)
# Without ROC-AUC, which is undefined for few rows or one class.
ALL = [*(metric for metric in METRICS.values() if metric.from_counts or metric.name in ("log_loss", "brier")), BRIER]


def members(
    seed: int, m: int, n: int, classes: int, coarse: bool = False, noise: float = 1.2
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return members better than chance; coarse ones are multiples of 1/8, so that sums are often equal, and exact."""
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=n)
    if coarse:
        drawn = random.multinomial(8, np.full(classes, 1 / classes), size=(m, n)) / 8
        return drawn.astype(np.float32), labels
    z = (
        random.normal(size=(n, classes))
        + noise * random.normal(size=(m, n, classes))
        + random.normal(0, 0.4, size=(m, 1, classes))
    )
    z[:, np.arange(n), labels] += 1.5
    e = np.exp(z)
    return (e / e.sum(axis=2, keepdims=True)).astype(np.float32), labels


def score_of(metric: Metric, labels: NDArray, sums: NDArray[np.float64]) -> float:
    """Return the score of a running sum, computed by the metric; rows of zeros have no prediction."""
    empty = ~sums.any(axis=1)
    if metric.from_counts is not None:
        answered = confusion_counts(labels[~empty], sums[~empty].argmax(axis=1), sums.shape[1])
        answered[1] = np.bincount(labels, minlength=sums.shape[1])
        return float(metric.from_counts(answered))
    means = np.where(empty[:, None], 1 / sums.shape[1], sums / np.where(empty, 1, sums.sum(axis=1))[:, None])
    return metric(labels, means)


def brute_force(
    probabilities: NDArray, labels: NDArray, metric: Metric, steps: int, seed: int = 0, warm: int = 0
) -> tuple[list[int], list[float]]:
    """Every candidate scored anew: the members taken in all steps, and the errors that decide where it stops."""
    random = np.random.RandomState(seed)
    sums = np.zeros(probabilities.shape[1:])
    order: list[int] = []
    errors: list[float] = []
    rounded, ranking = False, []
    for step in range(steps):
        scores = np.array([score_of(metric, labels, sums + p) for p in probabilities])
        found = 1 - scores if metric.greater_is_better else scores
        if step == 0 and warm:
            ranking = sorted(range(len(found)), key=lambda i: (float(f"{found[i]:.10e}"), i))[:warm]
        if rounded:
            found = found.round(6)
        best = np.flatnonzero(np.isclose(found, found.min(), atol=0, rtol=1e-12)).tolist()
        best = [i for i in best if i in order] or best
        member = ranking[step] if step < len(ranking) else random.choice(best)
        rounded = rounded or (step == 0 and abs(found[member]) > 1e-4)
        order.append(int(member))
        errors.append(found[member].round(6) if rounded else found[member])
        sums += probabilities[member]
        if len(probabilities) == 1:
            break
    return order, errors


def assert_as_brute_force(
    probabilities: NDArray, labels: NDArray, metric: Metric, steps: int, **options: NDArray | int | None
) -> None:
    present, rows = options.get("present"), options.get("rows")
    found = select(probabilities, labels, metric, steps=steps, **options)  # type: ignore[arg-type]
    chosen = slice(None) if rows is None else rows
    order, errors = brute_force(
        probabilities[:, chosen],
        labels[chosen],
        metric,
        steps,
        int(options.get("seed") or 0),
        int(options.get("warm") or 0),
    )
    best = errors.index(min(errors))
    assert found.order == tuple(order[: best + 1]), (metric.name, present is None)
    scores = np.array(found.trajectory)
    np.testing.assert_allclose(1 - scores if metric.greater_is_better else scores, errors, atol=5.1e-7, rtol=0)
    np.testing.assert_array_equal(
        found.weights, np.bincount(order[: best + 1], minlength=len(probabilities)) / (best + 1)
    )


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    m=st.integers(1, 6),
    n=st.integers(1, 40),
    classes=st.integers(2, 5),
    coarse=st.booleans(),
    absent=st.sampled_from([0.0, 0.2, 0.7]),
    twin=st.booleans(),
    warm=st.integers(0, 3),
    part=st.booleans(),
    metric=st.sampled_from(ALL),
)
@example(
    seed=1, m=3, n=2, classes=4, coarse=True, absent=0.0, twin=False, warm=1, part=False, metric=METRICS["log_loss"]
)
def test_every_step_equals_scoring_all_candidates(
    seed: int,
    m: int,
    n: int,
    classes: int,
    coarse: bool,
    absent: float,
    twin: bool,
    warm: int,
    part: bool,
    metric: Metric,
) -> None:
    probabilities, labels = members(seed, m, n, classes, coarse)
    if twin:
        probabilities = np.concatenate([probabilities, probabilities[:1]])
    random = np.random.default_rng(seed)
    present = random.random(probabilities.shape[:2]) >= absent
    probabilities = np.where(present[:, :, None], probabilities, 0).astype(np.float32)
    rows = np.sort(random.choice(n, max(1, n // 2), replace=False)) if part else None
    assert_as_brute_force(
        probabilities, labels, metric, 12, present=present if absent else None, rows=rows, seed=seed % 7, warm=warm
    )


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
@pytest.mark.parametrize(("noise", "dtype"), [(0.3, np.float32), (1.2, np.float32), (4.0, np.float64)])
def test_a_long_selection_checks_every_row_in_time(metric: Metric, noise: float, dtype: type) -> None:
    probabilities, labels = members(3, 9, 500, 6, noise=noise)
    assert_as_brute_force(probabilities.astype(dtype), labels, metric, 60)


@pytest.mark.parametrize("metric", [METRICS["log_loss"], METRICS["macro_f1"]], ids=lambda metric: metric.name)
def test_blocks_and_many_classes_do_not_change_the_selection(metric: Metric) -> None:
    probabilities, labels = members(5, 5, 1500, 150)
    assert_as_brute_force(probabilities, labels, metric, 6)


def test_probability_0_is_clipped_like_in_the_log_loss() -> None:
    probabilities, labels = members(1, 4, 60, 3)
    probabilities[:, :20] = np.eye(3, dtype=np.float32)[(labels[:20] + 1) % 3]
    probabilities[0, 10:20] = probabilities[1, 30:40] = np.eye(3, dtype=np.float32)[labels[10:20]]
    assert_as_brute_force(probabilities, labels, METRICS["log_loss"], 20)


def test_sums_other_than_1_are_normalized() -> None:
    probabilities, labels = members(2, 4, 50, 3)
    probabilities *= np.linspace(0.9, 1.1, 50, dtype=np.float32)[:, None]
    for metric in (METRICS["log_loss"], BRIER):
        assert_as_brute_force(probabilities, labels, metric, 20)


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_prepared_once_fits_any_rows(metric: Metric) -> None:
    probabilities, labels = members(7, 6, 200, 4)
    prepared = Prepared(probabilities, labels)
    fold = np.arange(200) % 5
    for i in range(5):
        alone = select(probabilities[:, fold != i], labels[fold != i], metric, steps=25)
        by_mask, by_index = (
            prepared.select(metric, steps=25, rows=fold != i),
            prepared.select(metric, steps=25, rows=np.flatnonzero(fold != i)[::-1]),
        )
        assert alone.order == by_mask.order == by_index.order
        np.testing.assert_allclose(alone.trajectory, by_mask.trajectory, rtol=1e-12)


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_patience_stops_a_prefix_of_the_full_selection(metric: Metric) -> None:
    probabilities, labels = members(11, 8, 300, 4)
    full, short = (
        select(probabilities, labels, metric, steps=60),
        select(probabilities, labels, metric, steps=60, patience=5),
    )
    tried = len(short.trajectory)
    assert tried < 60
    assert short.trajectory == full.trajectory[:tried]
    assert len(short.order) == tried - 5
    assert short.order == full.order[: len(short.order)]


def test_warm_starts_with_the_best_single_members() -> None:
    probabilities, labels = members(13, 8, 300, 4)
    alone = [METRICS["log_loss"](labels, p.astype(float)) for p in probabilities]
    found = select(probabilities, labels, METRICS["log_loss"], steps=30, warm=4)
    assert found.order[:4] == tuple(np.argsort(alone)[:4])


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_bags_are_the_mean_of_selections_from_random_members(metric: Metric) -> None:
    probabilities, labels = members(17, 8, 200, 4)
    prepared = Prepared(probabilities, labels)
    found = prepared.select(metric, steps=20, bags=3, bag_share=0.5, seed=4)
    assert found == found
    assert len(found.trajectory) == 3
    assert found.trajectory[-1] == pytest.approx(prepared.score(metric, found.weights), rel=1e-12)
    assert found.weights.sum() == pytest.approx(1, abs=1e-15)
    again = prepared.select(metric, steps=20, bags=3, bag_share=0.5, seed=4)
    other = prepared.select(metric, steps=20, bags=3, bag_share=0.5, seed=5)
    assert again.order == found.order
    assert other.order != found.order
    # One bag of all members is a selection from all: only the draws for ties may differ.
    whole = prepared.select(BRIER, steps=20, bags=1, bag_share=1.0)
    assert whole.order == prepared.select(BRIER, steps=20).order
    # A bag of one member selects only that member.
    assert set(prepared.select(metric, bags=1, bag_share=0.01).weights) == {0.0, 1.0}


def test_score_of_weights_is_that_of_the_mean_of_present_members() -> None:
    probabilities, labels = members(19, 3, 80, 3)
    present = np.random.default_rng(0).random((3, 80)) > 0.4
    probabilities[~present] = 0
    weights = np.array([0.5, 0.25, 0.25])
    sums = np.einsum("m,mnc->nc", weights, probabilities.astype(float))
    for metric in ALL:
        rows = np.arange(0, 80, 2)
        assert Prepared(probabilities, labels, present).score(metric, weights) == pytest.approx(
            score_of(metric, labels, sums), rel=1e-12
        )
        assert Prepared(probabilities, labels, present).score(metric, weights, rows) == pytest.approx(
            score_of(metric, labels[rows], sums[rows]), rel=1e-12
        )


def test_the_same_input_gives_the_same_selection_to_the_bit() -> None:
    probabilities, labels = members(23, 6, 400, 5)
    for metric in ALL:
        first, second = (select(probabilities, labels, metric, steps=15) for _ in range(2))
        assert (first.order, first.trajectory) == (second.order, second.trajectory)


def test_nan_for_all_is_an_error_and_a_nan_candidate_is_skipped() -> None:
    probabilities, labels = members(1, 3, 20, 3)
    never = Metric("never", "the user's", per_row=lambda labels, p: np.full(len(labels), np.nan))
    with pytest.raises(EnsembleError, match="the user's of every candidate is NaN"):
        select(probabilities, labels, never)
    first = probabilities[0, 0, 0]
    picky = Metric("picky", "picky", per_row=lambda labels, p: np.where(np.isclose(p[0, 0], first), np.nan, p[:, 0]))
    assert select(probabilities, labels, picky, steps=1).order[0] != 0


@pytest.mark.parametrize(
    "option", [{"steps": 0}, {"bags": -1}, {"bag_share": 0.0}, {"bag_share": 1.5}, {"warm": -1}, {"patience": 0}]
)
def test_a_parameter_out_of_range_is_an_error(option: dict[str, int]) -> None:
    probabilities, labels = members(1, 2, 10, 3)
    with pytest.raises(UsageError, match=next(iter(option))):
        select(probabilities, labels, METRICS["accuracy"], **option)  # type: ignore[arg-type]


def test_arrays_that_do_not_match_are_an_error() -> None:
    probabilities, labels = members(1, 2, 10, 3)
    with pytest.raises(EnsembleError, match="members, n, classes"):
        Prepared(probabilities[0], labels)
    with pytest.raises(EnsembleError, match="a label for each of 10 rows"):
        Prepared(probabilities, labels[:9])
    with pytest.raises(EnsembleError, match="labels from 0 to 2"):
        Prepared(probabilities, labels - 1)
    with pytest.raises(EnsembleError, match="expected present"):
        Prepared(probabilities, labels, np.ones((2, 9), bool))
    for rows in ([1, 1], [10], [-1], []):
        with pytest.raises(EnsembleError, match="different rows"):
            select(probabilities, labels, METRICS["accuracy"], rows=np.array(rows, int))
    for wrong in (-0.1, np.nan, np.inf):
        broken = probabilities.copy()
        broken[1, 3] = wrong
        for metric in ("log_loss", "accuracy"):
            with pytest.raises(EnsembleError, match="member 1"):
                select(broken, labels, METRICS[metric])


def test_greedy_imports_only_numpy() -> None:
    code = "import sys, ensemble.learning.greedy\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3]
    )
    assert not set(done.stdout.split()) & {"scipy", "sklearn", "pandas", "torch"}
