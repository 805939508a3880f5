"""A fitted cascade saves passes, loses little of people it was not fitted to, and says when it cannot."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ensemble.cascade import search as module
from ensemble.cascade.fit import FittedCascade, _Procedure, fit_cascade, with_raised
from ensemble.cascade.predictions import CascadeEvidence
from ensemble.learning.combination import Combination
from folds.errors import UsageError
from folds.metrics.classification import METRICS
from tests.ensemble.cascade_worlds import evidence


@pytest.fixture(autouse=True)
def _fewer_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LEVELS", 8)


SOFT = Combination(("r0", "r1"))
COSTS = {"r0": 1.0, "r1": 4.0}


def fitted(
    found: CascadeEvidence, tolerance: float | None, metric: str = "macro_f1", combination: Combination = SOFT
) -> FittedCascade:
    return fit_cascade(found, combination, {}, METRICS[metric], tolerance=tolerance, costs=COSTS)


def test_an_exact_cascade_loses_nothing_and_saves_something() -> None:
    found = fitted(evidence(), None)
    assert found.cascade.steps == ()
    assert found.score.difference.difference.value == 0
    assert found.score.agreement == 1
    assert found.score.expected_loss == 0
    assert found.score.passes is not None
    assert 0.4 * 20 < found.score.passes < 0.9 * 20


@pytest.mark.parametrize("metric", ["macro_f1", "accuracy", "log_loss"])
def test_a_tolerance_saves_passes_and_holds_for_others(metric: str) -> None:
    found = fitted(evidence(n=600), 0.02, metric)
    exact = fitted(evidence(n=600), None, metric)
    assert found.cascade.steps
    assert found.notes == ()
    assert found.score.loss <= 0.02
    assert found.score.passes is not None
    assert exact.score.passes is not None
    assert found.score.passes < 0.6 * exact.score.passes
    assert found.score.agreement is not None
    assert found.score.agreement > 0.95


def test_a_larger_tolerance_never_costs_more() -> None:
    world = evidence(1)
    shares = [fitted(world, tolerance).score.cost_share for tolerance in (None, 0.02, 0.1)]
    assert shares == sorted(shares, reverse=True)


def test_cheap_runs_are_asked_first() -> None:
    found = fitted(evidence(2), 0.05)
    assert list(found.cascade.steps[0].views) == ["r0"]


def test_without_unseen_images_every_step_waits_for_all_folds() -> None:
    found = fitted(evidence(unseen=0), 0.05)
    assert found.cascade.steps
    assert {step.folds for step in found.cascade.steps} == {5}
    assert found.score.images == 0
    assert found.score.passes is None
    assert found.score.agreement is None


def test_labels_of_unseen_images_are_never_used_for_fitting() -> None:
    world = evidence(3)
    assert world.unseen is not None
    assert world.unseen.labels is not None
    other = replace(world, unseen=replace(world.unseen, labels=np.roll(world.unseen.labels, 1)))
    first, second = fitted(world, 0.02), fitted(other, 0.02)
    assert first.cascade == second.cascade
    assert first.score.test is not None
    assert second.score.test is not None
    assert first.score.test.first > second.score.test.first


def test_people_are_predicted_by_a_cascade_fitted_without_them() -> None:
    world = evidence(4)
    labels = world.labels.copy()
    part = world.parts == 2
    labels[part] = (labels[part] + 1) % 4
    first, second = fitted(world, 1.0), fitted(replace(world, labels=labels), 1.0)
    np.testing.assert_array_equal(first.score.out_of_sample[1][part], second.score.out_of_sample[1][part])
    assert first.score.cascade.value > second.score.cascade.value


def test_combinations_of_each_part_are_used_for_its_people() -> None:
    world = evidence(5, unseen=0)
    only = {part: Combination(("r0", "r1"), weights=np.array([1.0, 0.0])) for part in (0,)}
    found = fit_cascade(world, SOFT, only, METRICS["accuracy"], tolerance=None, costs=COSTS)
    inside = world.parts == 0
    np.testing.assert_allclose(found.score.out_of_sample[0][inside], world.full[0][inside], atol=1e-6)
    np.testing.assert_allclose(found.score.out_of_sample[0][~inside], world.full.mean(axis=0)[~inside], atol=1e-6)


def test_what_loses_too_much_of_others_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    nested = _Procedure.nested

    def lossy(self, tolerance, raised=0.0):  # thresholds that fit their own people only
        return replace(nested(self, tolerance, raised), expected_loss=0.0 if tolerance is None else 0.5)

    monkeypatch.setattr(_Procedure, "nested", lossy)
    found = fitted(evidence(6), 0.02)
    assert found.cascade.steps == ()
    assert found.cascade.tolerance == 0.02
    assert found.score.loss == 0
    assert "no cascade loses at most 0.02 macro F1" in found.notes[0]


def test_stricter_thresholds_are_tried_before_giving_up(monkeypatch: pytest.MonkeyPatch) -> None:
    nested, tried = _Procedure.nested, []

    def lossy(self, tolerance, raised=0.0):
        tried.append((tolerance, raised))
        return replace(nested(self, tolerance, raised), expected_loss=0.0 if raised == 0.4 else 0.5)

    monkeypatch.setattr(_Procedure, "nested", lossy)
    found = fitted(evidence(6), 0.02)
    assert tried == [(0.02, 0.0), (0.0, 0.0), (0.0, 0.2), (0.0, 0.4)]
    assert found.cascade.steps
    assert found.cascade.tolerance == 0.02
    assert min(step.threshold for step in found.cascade.steps) >= 0.4
    assert found.notes == ()


def test_thresholds_are_raised_towards_1() -> None:
    steps = (module.Step({"r0": 1}, 1, 0.5), module.Step({"r0": 1}, 2, 1.5))
    raised = with_raised(module.Cascade(steps), 0.2)
    assert [step.threshold for step in raised.steps] == [pytest.approx(0.6), 1.5]


def test_lucky_decisions_do_not_pay_for_wrong_ones() -> None:
    world = evidence(7, unseen=0)
    trial = module._Trial(
        world,
        module.Combiner(SOFT),
        (module.Step({"r0": 1}, 5, 0.0),),
        METRICS["accuracy"],
        module.Cascade(costs=COSTS),
    )
    trial.thresholds[:] = 0.0  # every image is decided by the first run
    one, full = world.first[0].argmax(1), trial.decisions[-1]
    harmed = (full == world.labels) & (one != world.labels)
    helped = (full != world.labels) & (one == world.labels)
    assert helped.any()
    assert trial._loss_and_cost()[0] == pytest.approx(harmed.mean())


@pytest.mark.parametrize("pool", ["hard", "geometric", "median"])
def test_other_pools_can_be_cascaded(pool: str) -> None:
    found = fitted(evidence(8), 0.03, combination=Combination(("r0", "r1"), pool=pool))
    assert found.cascade.steps
    assert found.score.loss <= 0.03


def test_stacking_can_be_cascaded() -> None:
    world = evidence(9)
    coefficients = np.vstack([np.eye(4), np.eye(4), np.zeros((1, 4))])
    found = fitted(world, 0.05, combination=Combination(("r0", "r1"), stacked=coefficients))
    assert found.score.loss <= 0.05


def test_what_cannot_be_cascaded_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="rank voting"):
        fitted(evidence(), 0.01, combination=Combination(("r0", "r1"), pool="rank"))
    with pytest.raises(UsageError, match="two or more forward passes"):
        fitted(evidence(folds=1, views=1, runs=1), 0.01, combination=Combination(("r0",)))
    with pytest.raises(UsageError, match="from 0 to 1"):
        fitted(evidence(), 1.5)
