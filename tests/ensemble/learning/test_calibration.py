"""A calibration minimizes its log loss for any probabilities and keeps decisions where it must."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar

from ensemble.learning.calibration import (
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    calibrated,
    parse_calibration,
    pool_out_of_fold,
    temperature,
    vector,
)
from ensemble.learning.class_bias import biased, expected_bias
from ensemble.learning.combination import Calibration, Combination, combine
from ensemble.learning.registry import FITTERS
from folds.errors import UsageError
from folds.metrics.classification import METRICS
from tests.ensemble.stacks import drawn, with_gaps

F1, LOSS = METRICS["macro_f1"], METRICS["log_loss"]


def loss(values: NDArray, labels: NDArray, fitted_temperature: float, offset: NDArray | None = None) -> float:
    p = Calibration(np.array(fitted_temperature), offset)(values)[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(p, 1e-300)).sum())


@pytest.mark.parametrize("seed", range(4))
def test_the_temperature_is_the_optimum_of_a_scalar_solver(seed: int) -> None:
    stack = drawn(seed, classes=2 + seed)
    for values in stack.probabilities:
        found = minimize_scalar(
            lambda b, values=values: loss(values, stack.labels, 1 / b),
            bounds=(1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE),
            method="bounded",
        )
        assert 1 / temperature(values, stack.labels) == pytest.approx(found.x, rel=1e-3)


def test_a_known_temperature_is_found_again() -> None:
    random = np.random.default_rng(0)
    logits = 2 * random.normal(size=(20000, 3))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (p.cumsum(axis=1) > random.random((20000, 1))).argmax(axis=1)
    for fitted_temperature in (0.3, 1, 4):
        sharpened = p**fitted_temperature / (p**fitted_temperature).sum(axis=1, keepdims=True)
        assert temperature(sharpened, labels) == pytest.approx(fitted_temperature, rel=0.05)


def test_probabilities_of_0_and_1_have_a_temperature() -> None:
    labels = np.array([0, 1, 2, 0, 1, 2] * 5)
    confident = np.eye(3)[labels]
    assert MIN_TEMPERATURE <= temperature(confident, labels) < 1
    wrong = np.eye(3)[(labels + 1) % 3]
    assert temperature(wrong, labels) == pytest.approx(MAX_TEMPERATURE, rel=0.01)
    mixed = np.where(np.arange(30)[:, None] % 3 > 0, confident, wrong)
    # Two of three rows are right, so the calibrated probability is 2/3, and 1/6 for each other class: the logit of ε of
    # float32 gives 15.9 / T = log 4.
    assert temperature(mixed, labels) == pytest.approx(-np.log(np.finfo(np.float32).eps) / np.log(4), rel=1e-3)
    assert np.isfinite(loss(mixed, labels, *vector(mixed, labels, 1.0)))


def test_uniform_rows_and_no_rows_give_temperature_1() -> None:
    assert temperature(np.full((9, 3), 1 / 3), np.zeros(9, int)) == 1
    assert temperature(np.zeros((0, 3)), np.zeros(0, int)) == 1
    fitted_temperature, offset = vector(np.zeros((0, 3)), np.zeros(0, int), 10.0)
    assert fitted_temperature == 1
    assert not offset.any()


@pytest.mark.parametrize("strength", [0.5, 10.0])
def test_the_vector_is_the_optimum_of_another_solver(strength: float) -> None:
    stack = drawn(5)
    values = stack.probabilities[1]

    def penalized(x: NDArray[np.float64]) -> float:
        return loss(values, stack.labels, 1 / x[0], x[1:]) + strength / 2 * float(x[1:] @ x[1:])

    found = minimize(penalized, np.array([1.0, 0, 0, 0, 0]), bounds=[(0.05, 20), *[(None, None)] * 4])
    fitted_temperature, offset = vector(values, stack.labels, strength)
    assert penalized(np.concatenate([[1 / fitted_temperature], offset])) <= found.fun + 1e-4
    assert offset == pytest.approx(found.x[1:], abs=1e-2)


def test_offsets_are_optimal_with_the_temperature_at_its_bound() -> None:
    labels = np.array([0] * 40 + [1] * 5)
    values = np.tile([0.4, 0.6], (45, 1))
    fitted_temperature, offset = vector(values, labels, 1.0)
    found = minimize(
        lambda x: loss(values, labels, 1 / x[0], x[1:]) + x[1:] @ x[1:] / 2,
        np.array([1.0, 0, 0]),
        bounds=[(0.05, 20), (-9, 9), (-9, 9)],
    )
    assert loss(values, labels, fitted_temperature, offset) + offset @ offset / 2 <= found.fun + 1e-3


def test_the_penalty_limits_the_offset_of_a_class_without_labels() -> None:
    stack = drawn(6)
    labels = np.where(stack.labels == 3, 0, stack.labels)
    _, offset = vector(stack.probabilities[0], labels, 10.0)
    assert -3 < offset[3] < 0
    _, held = vector(stack.probabilities[0], labels, 1e6)
    assert np.abs(held).max() < 1e-3


@pytest.mark.parametrize("kind", ["temperature", "vector"])
@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("gaps", [False, True])
def test_calibration_lowers_the_log_loss_it_is_fitted_to(kind: str, place: str, gaps: bool) -> None:
    stack = drawn(7, runs=1 if place == "before" else 3)
    stack = with_gaps(stack) if gaps and stack.runs > 1 else stack
    plain = LOSS(stack.labels, combine(stack, FITTERS["soft"].fit(stack, LOSS, 0)))
    found = calibrated(FITTERS["soft"], kind, place).fit(stack, LOSS, 0)
    assert LOSS(stack.labels, combine(stack, found)) < plain
    assert "temperature" in found.summary
    again = Combination.from_record(found.as_record(), stack.classes, "x")
    assert combine(stack, again) == pytest.approx(combine(stack, found), abs=1e-5)


def test_each_run_is_calibrated_on_its_own_samples() -> None:
    stack = with_gaps(drawn(8))
    found = calibrated(FITTERS["soft"], "temperature", "before").fit(stack, LOSS, 0)
    assert stack.present is not None
    assert found.before is not None
    for run in range(stack.runs):
        rows = stack.present[run]
        assert float(found.before.temperature[run, 0, 0]) == pytest.approx(
            temperature(stack.probabilities[run, rows], stack.labels[rows])
        )


def test_a_fit_on_calibrated_runs_is_applied_to_calibrated_runs() -> None:
    stack = drawn(9)
    found = calibrated(FITTERS["simplex"], "temperature", "before").fit(stack, LOSS, 0)
    assert found.before is not None
    assert found.weights is not None
    expected = sum(w * found.before(stack.probabilities)[i] for i, w in enumerate(found.weights))
    assert combine(stack, found) == pytest.approx(np.asarray(expected), abs=1e-6)


def test_temperature_after_a_fit_uses_out_of_fold_predictions() -> None:
    stack = drawn(10)
    found = calibrated(FITTERS["greedy"], "temperature", "after").fit(stack, F1, 3)
    out_of_fold = np.empty_like(stack.probabilities[0])
    for part in range(5):
        test_rows, fit_rows = np.flatnonzero(stack.outer_folds == part), np.flatnonzero(stack.outer_folds != part)
        out_of_fold[test_rows] = combine(stack.take(test_rows), FITTERS["greedy"].fit(stack.take(fit_rows), F1, 3))
    assert found.after is not None
    assert float(found.after.temperature) == pytest.approx(temperature(out_of_fold, stack.labels))


def test_calibration_after_a_bias_keeps_the_decisions() -> None:
    stack = drawn(11)
    plain = FITTERS["bias"].fit(stack, F1, 0)
    for kind in ("temperature", "vector"):
        found = calibrated(FITTERS["bias"], kind, "after").fit(stack, F1, 0)
        same = combine(stack, found).argmax(axis=1) == combine(stack, plain).argmax(axis=1)
        assert same.mean() > 0.99  # except for float32 rounding


def test_two_calibrations_after_pooling_are_an_error() -> None:
    once = calibrated(FITTERS["soft"])
    with pytest.raises(ValueError, match="already"):
        pool_out_of_fold(once, drawn(0), F1)


def test_calibration_option_is_parsed_with_suggestions() -> None:
    assert parse_calibration("before:vector") == ("vector", "before")
    assert parse_calibration(" temperature ") == ("temperature", "after")
    with pytest.raises(UsageError, match="did you mean temperature"):
        parse_calibration("after:temprature")
    with pytest.raises(UsageError, match="did you mean before"):
        parse_calibration("befor:vector")


def test_a_bias_does_not_lower_macro_f1_on_new_samples() -> None:
    stack = drawn(12, n=2000, classes=6)
    found, fresh = FITTERS["bias"].fit(stack, F1, 0), drawn(12 + 100, n=2000, classes=6)
    assert found.bias is not None
    assert found.bias.sum() == pytest.approx(0, abs=1e-6)
    assert (
        F1(fresh.labels, combine(fresh, found))
        > F1(fresh.labels, combine(fresh, FITTERS["soft"].fit(fresh, F1, 0))) - 0.005
    )


def test_a_lower_is_better_metric_gives_the_same_bias() -> None:
    stack = drawn(13)
    assert F1.class_sums is not None
    score = F1.class_sums.score
    sums = replace(F1.class_sums, score=lambda sums, classes: 1 - score(sums, classes))
    missed = replace(F1, name="missed", greater_is_better=False, class_sums=sums)
    pooled = combine(stack, FITTERS["soft"].fit(stack, F1, 0))
    assert expected_bias(pooled, stack.labels, missed) == pytest.approx(expected_bias(pooled, stack.labels, F1))


def test_log_loss_gets_no_bias_with_a_note() -> None:
    found = biased(FITTERS["soft"]).fit(drawn(14), LOSS, 0)
    assert found.bias is None
    assert "no bias" in found.summary
