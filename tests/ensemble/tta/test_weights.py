"""Tests of choosing and weighting views, and of nested scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from ensemble.tta import weights as view_weights
from ensemble.tta.merge import MergeConfig, margins, merge_views
from ensemble.tta.weights import OOFViews, apply, fit, fit_threshold, nested_view_scores
from folds.errors import EnsembleError
from folds.metrics.confusion import macro_f1
from folds.metrics.row_scores import log_loss
from folds.utils.numeric import softmax

CLASSES = 4


def evidence(noise: tuple[float, ...], rows: int = 600, seed: int = 0, folds: int = 5) -> OOFViews:
    """Return views with the true logits plus noise, 3 rows per person, people distributed over folds."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, rows)
    logits = np.stack(
        [2.0 * np.eye(CLASSES)[labels] + random.normal(scale=scale, size=(rows, CLASSES)) for scale in noise]
    )
    persons = np.arange(rows) // 3
    return OOFViews(tuple(f"v{i}" for i in range(len(noise))), logits, labels, persons, persons % folds)


def loss(known: OOFViews, weights: NDArray) -> float:
    return log_loss(known.labels, merge_views(known.logits, "weighted", weights))


def test_greedy_weights_are_close_to_a_grid_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_weights, "EQUAL", 0.0)
    known = evidence((1.0, 1.5, 3.0))
    grid = [np.array([a, b, 1 - a - b]) for a in np.linspace(0, 1, 41) for b in np.linspace(0, 1, 41) if a + b <= 1]
    best = min(loss(known, weights) for weights in grid)
    merge = fit(known, MergeConfig("weighted"))
    weights = np.array([merge.weights.get(view, (0.0,))[0] for view in known.views])
    assert loss(known, weights) < best + 2e-4
    assert weights[0] > weights[1] > weights[2]


def test_fitted_weights_are_shrunk_half_way_and_sum_to_one() -> None:
    known = evidence((1.0, 1.5, 30.0))
    weights = fit(known, MergeConfig("weighted")).weights
    assert list(weights) == ["v0", "v1", "v2"]
    assert sum(weight for (weight,) in weights.values()) == pytest.approx(1)
    assert weights["v2"][0] == pytest.approx(0.5 / 3)


def test_a_budget_of_one_is_the_best_single_view() -> None:
    known = evidence((2.0, 1.0, 3.0))
    for how in ("mean", "geometric", "weighted", "classwise"):
        merge = fit(known, MergeConfig(how, budget=1))
        assert merge.views == ("v1",)
        np.testing.assert_allclose(apply(merge, known)[0], softmax(known.logits[1]))


@pytest.mark.parametrize("how", ["mean", "geometric", "weighted", "classwise", "auto"])
@pytest.mark.parametrize("budget", [1, 2, 3])
def test_budget_holds_and_adaptive_includes_the_plain_image(how: str, budget: int) -> None:
    known = evidence((3.0, 1.0, 1.2, 1.1, 2.0), rows=150)
    free, waiting = fit(known, MergeConfig(how, budget)), fit(known, MergeConfig(how, budget, adaptive=True))
    assert 1 <= len(free.views) <= budget
    assert 1 <= len(waiting.views) <= budget
    assert waiting.views[0] == "v0"
    assert apply(waiting, known)[1].max() <= budget


def test_a_mean_of_two_views_matches_a_search_over_all_pairs() -> None:
    known = evidence((3.0, 1.0, 1.2, 2.5))
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    best = min(pairs, key=lambda pair: log_loss(known.labels, softmax(known.logits[list(pair)]).mean(0)))
    assert fit(known, MergeConfig("mean", 2)).views == tuple(f"v{i}" for i in best)
    assert fit(known, MergeConfig("mean", 2)).weights["v1"] == (0.5,)


@pytest.mark.parametrize(
    "request_",
    [
        MergeConfig("weighted"),
        MergeConfig("classwise"),
        MergeConfig("mean", 2),
        MergeConfig("auto"),
        MergeConfig("mean", adaptive=True),
    ],
)
def test_nested_rows_do_not_depend_on_their_own_labels(request_: MergeConfig) -> None:
    known = evidence((1.5, 1.0, 1.2), rows=150, folds=3)
    before, _ = nested_view_scores(known, request_)
    mine = known.folds == 1
    after, _ = nested_view_scores(
        replace(known, labels=np.where(mine, (known.labels + 1) % CLASSES, known.labels)), request_
    )
    np.testing.assert_array_equal(before[mine], after[mine])
    assert not np.array_equal(before[~mine], after[~mine]) or request_.adaptive


def test_a_single_fold_is_split_into_five_groups_of_people() -> None:
    known = evidence((1.0, 1.0), rows=90, folds=1)
    parts = list(known.parts())
    assert len(parts) == 5
    np.testing.assert_array_equal(np.sum(parts, axis=0), np.ones(90))
    groups = np.argmax(parts, axis=0)
    assert all(len(np.unique(groups[known.persons == person])) == 1 for person in np.unique(known.persons))
    with pytest.raises(EnsembleError, match="expected 2 or more people, found 1"):
        nested_view_scores(replace(known, persons=np.zeros(90, int)), MergeConfig("weighted"))


def test_auto_chooses_the_plain_image_if_other_views_are_noise() -> None:
    known = evidence((0.5, 8.0, 8.0))
    merge = fit(known, MergeConfig("auto"))
    np.testing.assert_allclose(apply(merge, known)[0].argmax(1), known.logits[0].argmax(1))


def by_class(rare: int = 200) -> OOFViews:
    """Return two views, each good at two of four classes; the last class has `rare` rows."""
    random = np.random.default_rng(3)
    labels = np.repeat(np.arange(CLASSES), [200, 200, 200, rare])
    noise = np.where(labels < 2, 0.7, 4.0), np.where(labels < 2, 4.0, 0.7)
    logits = np.stack(
        [2.5 * np.eye(CLASSES)[labels] + random.normal(size=(len(labels), CLASSES)) * scale[:, None] for scale in noise]
    )
    order = random.permutation(len(labels))
    persons = np.arange(len(labels)) // 2
    return OOFViews(("v0", "v1"), logits[:, order], labels[order], persons, persons % 5)


def test_weights_by_class_generalize_to_other_people() -> None:
    known = by_class()
    weights = fit(known, MergeConfig("classwise")).weights
    assert min(weights["v0"][:2]) > max(weights["v0"][2:])
    shared, single = (
        log_loss(known.labels, nested_view_scores(known, MergeConfig(how))[0]) for how in ("weighted", "classwise")
    )
    assert single < shared


def test_weights_of_rare_classes_are_closer_to_the_shared_ones() -> None:
    often, rare = (np.array(fit(by_class(rows), MergeConfig("classwise")).weights["v1"])[3] for rows in (200, 4))
    assert abs(rare - 0.5) < abs(often - 0.5)


def test_weights_by_class_lower_their_objective() -> None:
    known = by_class()
    shared = np.array([0.5, 0.5])
    found = view_weights._by_class(known, shared)

    def objective(weights: NDArray) -> float:
        moved = np.log(weights) - np.log(shared)[:, None]
        penalty = ((moved - moved.mean(0)) ** 2).sum() / (2 * view_weights.SPREAD**2 * len(known.labels))
        return log_loss(known.labels, merge_views(known.logits, "classwise", weights)) + float(penalty)

    best = objective(found)
    assert best < objective(np.tile(shared[:, None], CLASSES)) - 0.01
    random = np.random.default_rng(0)
    for _ in range(50):
        other = found * np.exp(random.normal(scale=0.05, size=found.shape))
        assert objective(other / other.sum(0)) > best - 1e-4


@pytest.mark.parametrize("seed", range(8))
def test_threshold_is_the_smallest_that_keeps_the_score(seed: int) -> None:
    known = evidence((1.6, 1.6, 1.6), rows=300, seed=seed)
    plain, full = softmax(known.logits[0]), merge_views(known.logits)
    margin = margins(plain)

    def score(threshold: float) -> float:
        merged = np.where((margin < threshold)[:, None], full, plain)
        return macro_f1(known.labels, merged.argmax(1), CLASSES)

    found = fit_threshold(plain, full, known.labels)
    whole = macro_f1(known.labels, full.argmax(1), CLASSES)
    steps = np.unique(np.append(margin, [0.0, 1.1]))
    assert all(score(step) >= whole - 0.001 - 1e-9 for step in [found, *steps[steps >= found]])
    below = steps[steps < found]
    assert found == 0 or any(score(step) < whole - 0.001 for step in below[-60:])


def test_threshold_is_zero_if_views_change_no_decision() -> None:
    plain = softmax(evidence((1.0,)).logits[0])
    assert fit_threshold(plain, plain, evidence((1.0,)).labels) == 0


def test_adaptive_views_keep_the_score_with_fewer_passes() -> None:
    known = evidence((0.4,) * 8, rows=1500)
    shared = np.random.default_rng(9).normal(
        scale=1.5, size=known.logits.shape[1:]
    )  # correlated errors of the views of an image
    known = replace(known, logits=known.logits + shared)
    merged, views = nested_view_scores(known, MergeConfig("mean", adaptive=True))
    full = macro_f1(known.labels, merge_views(known.logits).argmax(1), CLASSES)
    assert macro_f1(known.labels, merged.argmax(1), CLASSES) > full - 0.005
    assert set(np.unique(views).tolist()) == {1, 8}
    assert views.mean() < 5
