"""A cascade asks only for the passes that are needed, and without steps and skips it gives what all models give."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble.cascade.combine import Combiner
from ensemble.cascade.record import Cascade, Step
from ensemble.cascade.run import RunModel, run_cascade
from ensemble.learning.combination import Combination
from ensemble.tta.merge import Merge
from ensemble.voting.vote import METHODS
from folds.utils.numeric import softmax
from tests.ensemble.cascade_worlds import CLASSES, logits, run_models

N = 200
POOLS = [name for name, rule in METHODS.items() if not rule.needs_all_rows]


def world(runs: tuple[RunModel, ...], seed: int = 0) -> np.ndarray:
    """Return (runs, folds, views, n, classes) logits."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, N)
    models = runs[0].folds
    return logits(random, labels, len(runs) * models).reshape(len(runs), models, 2, N, CLASSES)


class Asked:
    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        self.seen: set[tuple[int, int, int, int]] = set()

    def __call__(self, run: int, fold: int, start: int, stop: int, rows: np.ndarray) -> np.ndarray:
        assert (np.diff(rows) > 0).all()
        for view in range(start, stop):
            new = {(run, fold, view, row) for row in rows.tolist()}
            assert not new & self.seen  # nothing is predicted twice
            self.seen |= new
        return self.values[run, fold, start:stop][:, rows].astype(np.float32)


def full_of(values: np.ndarray, runs: tuple[RunModel, ...], combiner: Combiner) -> np.ndarray:
    merged = np.array([[one.merge.merged(model[: one.views]) for model in run] for one, run in zip(runs, values)])
    from ensemble.cascade.combine import votes_of

    votes = np.array([votes_of(run).mean(axis=0) for run in merged]) if combiner.counts_votes else None
    return combiner(merged.mean(axis=1), votes, [True] * len(runs)).probabilities


@pytest.mark.parametrize("pool", POOLS)
def test_without_steps_and_skips_all_models_predict(pool: str) -> None:
    runs = run_models(3)
    asked, combiner = Asked(world(runs)), Combiner(Combination(("r0", "r1"), pool=pool))
    found = run_cascade(Cascade(exact=False), combiner, runs, N, asked)
    np.testing.assert_allclose(found.probabilities, full_of(asked.values, runs, combiner), atol=1e-6)
    assert found.passes.tolist() == [12] * N
    assert set(found.decided.tolist()) == {1}


def test_exact_skips_keep_every_decision_and_cost_less() -> None:
    runs = run_models(5)
    asked, combiner = Asked(world(runs)), Combiner(Combination(("r0", "r1")))
    found = run_cascade(Cascade(costs={"r0": 1.0, "r1": 3.0}), combiner, runs, N, asked)
    full = full_of(asked.values, runs, combiner)
    assert (found.probabilities.argmax(1) == full.argmax(1)).all()
    assert found.passes.mean() < 17
    assert len(asked.seen) == found.passes.sum()
    everything = found.passes == 20
    np.testing.assert_allclose(found.probabilities[everything], full[everything], atol=1e-6)


def test_a_step_decides_what_leads_and_agrees() -> None:
    runs = run_models(3)
    values = world(runs)
    step = Step({"r0": 1}, 2, 0.5)
    found = run_cascade(
        Cascade((step,), exact=False), Combiner(Combination(("r0", "r1"))), runs, N, asked := Asked(values)
    )
    single = softmax(values[0, :2, 0])
    mean = single.mean(axis=0)
    top = np.sort(mean, axis=1)
    sure = (top[:, -1] - top[:, -2] >= 0.5) & (single[0].argmax(1) == single[1].argmax(1))
    assert 20 < sure.sum() < N
    assert (found.decided == 0).tolist() == sure.tolist()
    np.testing.assert_allclose(found.probabilities[sure], mean[sure], atol=1e-6)
    assert found.passes[sure].tolist() == [2] * sure.sum()
    assert found.passes[~sure].tolist() == [12] * (~sure).sum()
    assert len(asked.seen) == found.passes.sum()


def test_runs_without_weight_are_never_asked() -> None:
    runs = run_models(2)
    asked = Asked(world(runs))
    combiner = Combiner(Combination(("r0", "r1"), weights=np.array([1.0, 0.0])))
    found = run_cascade(Cascade(exact=False), combiner, runs, N, asked)
    assert {run for run, *_ in asked.seen} == {0}
    assert set(found.passes.tolist()) == {4}


def test_adaptive_views_are_predicted_only_where_needed() -> None:
    merge = Merge("mean", {"none": (1.0,), "hflip": (1.0,)}, threshold=0.4)
    runs = (RunModel("r0", merge, 2),)
    asked = Asked(world(runs))
    found = run_cascade(Cascade(exact=False), Combiner(Combination(("r0",))), runs, N, asked)
    more = np.array([merge.needs_more_views(model[0]) for model in asked.values[0]])
    assert 0 < more.sum() < more.size
    assert found.passes.tolist() == (2 + more.sum(axis=0)).tolist()
    expected = [
        np.where(need[:, None], merge.merged(model), softmax(model[0]))
        for model, need in zip(asked.values[0], more, strict=True)
    ]
    np.testing.assert_allclose(found.probabilities, np.mean(expected, axis=0), atol=1e-6)


def test_columns_are_put_into_the_order_of_the_blend() -> None:
    runs, order = run_models(2, views=1, runs=1), np.array([2, 0, 3, 1])
    values = world(runs)
    turned = (RunModel("r0", runs[0].merge, 2, order),)
    combiner = Combiner(Combination(("r0",)))
    plain = run_cascade(Cascade(), combiner, runs, N, Asked(values))
    found = run_cascade(Cascade(), combiner, turned, N, Asked(values))
    np.testing.assert_allclose(found.probabilities, plain.probabilities[:, order], atol=1e-7)


def test_no_images_give_no_predictions() -> None:
    runs = run_models(2)
    found = run_cascade(Cascade(), Combiner(Combination(("r0", "r1"))), runs, 0, Asked(world(runs)))
    assert len(found.probabilities) == len(found.passes) == 0
