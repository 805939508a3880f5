"""Rules that pool labels and numbers are fitted to the people of the training part, on the cells that are known."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from ensemble.learning.columns.combination import ColumnCombination
from ensemble.learning.columns.registry import COLUMN_FITTERS
from ensemble.learning.columns.stack import ColumnStack
from ensemble.learning.combination import combine
from ensemble.learning.nested import nested_cv
from ensemble.learning.pooled import fit_pooling, pooled, pooled_choices
from ensemble.learning.stack import Stack, StackImages
from ensemble.pooling.bags import Bags
from ensemble.pooling.columns import ColumnPooling
from ensemble.pooling.evidence import number_statistics
from ensemble.pooling.spec import AUTO, LEARNED, LOG_ODDS, MEAN, PoolSpec
from folds.metrics.task_names import MULTILABEL, REGRESSION
from folds.metrics.tasks import metric_for_task

PEOPLE = 60
RULES = [(MULTILABEL, LOG_ODDS, "soft"), (MULTILABEL, LEARNED, "soft"), (REGRESSION, LEARNED, "soft")]


@cache
def world(task: str) -> ColumnStack:
    """Two runs; a label shows in one image, a number too near the mean; the last label is unknown for most people."""
    random = np.random.default_rng(0)
    counts = random.integers(1, 6, PEOPLE)
    codes, shape = np.repeat(np.arange(PEOPLE), counts), (PEOPLE, 2)
    noise = random.normal(size=(2, len(codes), 2))
    if task == MULTILABEL:
        labels = (random.random(shape) < 0.4).astype(float)
        shows = np.zeros((len(codes), 2))
        shows[np.cumsum(counts) - counts] = labels
        values = 1 / (1 + np.exp(2 - 4 * shows - noise))
        labels[::9, 0] = np.nan
    else:
        labels = random.normal(40, 10, shape)
        values = 20 + 0.5 * labels[codes] + noise
        labels[::9, 0] = np.nan
    present = np.ones((2, len(codes)), bool)
    present[1, ::7] = False
    images = StackImages((values * present[:, :, None]).astype(np.float32), present, Bags(codes, PEOPLE))
    own = [images.of_run(run) for run in range(2)]
    means = np.stack([bags.mean(one.astype(float)) for one, bags in own]).astype(np.float32)
    shown = np.stack([bags.counts > 0 for _, bags in own])
    people = np.arange(PEOPLE)
    return ColumnStack(("a", "b"), means, shown, labels, people, people % 5, images, columns=("x", "y"), task=task)


def fit(spec: PoolSpec, stack: Stack) -> ColumnPooling:
    found = fit_pooling(spec, stack, False)
    assert isinstance(found, ColumnPooling)
    return found


@pytest.mark.parametrize(("task", "rule", "method"), RULES)
def test_no_person_is_pooled_by_a_rule_that_saw_the_person(task: str, rule: str, method: str) -> None:
    stack, part = world(task), 2
    metric = metric_for_task("log_loss" if task == MULTILABEL else "mae", task)
    fitter = pooled(COLUMN_FITTERS[task][method], PoolSpec(rule), False)
    found = nested_cv(stack, fitter, metric)
    rest, inside = (np.flatnonzero(at) for at in (stack.outer_folds != part, stack.outer_folds == part))
    alone = fitter.fit(stack.take(rest), metric, 0)
    np.testing.assert_array_equal(found.out_of_sample[inside], combine(stack.take(inside), alone))
    labels = stack.labels.copy()
    labels[inside] = 1 - labels[inside] if task == MULTILABEL else labels[inside] + 30
    changed = nested_cv(replace(stack, labels=labels), fitter, metric)
    np.testing.assert_array_equal(changed.out_of_sample[inside], found.out_of_sample[inside])
    assert (changed.in_sample[inside] != found.in_sample[inside]).any()
    # What is written is what was fitted.
    assert isinstance(found.combination, ColumnCombination)
    record = found.combination.as_record()
    again = ColumnCombination.of_record(record, stack.columns, "blend.toml")
    np.testing.assert_allclose(combine(stack, again), found.in_sample, rtol=1e-5, atol=1e-5)
    assert again.as_record() == record
    # It is better than the mean, of people whom it did not see.
    mean = nested_cv(stack, pooled(COLUMN_FITTERS[task][method], PoolSpec(MEAN), False), metric)
    assert metric(stack.labels, found.out_of_sample) < metric(stack.labels, mean.out_of_sample)


@pytest.mark.parametrize("rule", [LOG_ODDS, LEARNED])
def test_the_rule_of_a_label_is_that_of_two_classes_on_its_known_people(rule: str) -> None:
    stack = world(MULTILABEL)
    found = fit(PoolSpec(rule), stack)
    rows = stack.known_rows(0)
    assert stack.images is not None
    images = stack.images.take(rows)
    p = images.probabilities[:, :, 0]
    two = np.stack([1 - p, p], axis=2) * images.present[:, :, None]
    one = replace(stack.of_label(0), images=replace(images, probabilities=two))
    expected = fit_pooling(PoolSpec(rule), one, False)
    assert len(rows) < PEOPLE
    assert found.each[0].as_record() == expected.as_record()
    values, bags = stack.images.of_run(0)
    pair = np.stack([1 - values[:, 0], values[:, 0]], axis=1)
    np.testing.assert_allclose(found.apply("a", values, bags)[:, 0], expected.apply("a", pair, bags)[:, 1], atol=1e-6)


def test_cells_that_are_not_known_take_no_part() -> None:
    """Images of people without a known number change nothing, nor do the other columns."""
    stack = world(REGRESSION)
    assert stack.images is not None
    unknown = np.isnan(stack.labels[:, 0])[stack.images.bags.codes]
    values = stack.images.probabilities.copy()
    values[:, unknown, 0] += 1000
    other = replace(stack, images=replace(stack.images, probabilities=values))
    first, second = (fit(PoolSpec(LEARNED), one).linear for one in (stack, other))
    np.testing.assert_array_equal(first, second)


def test_numbers_are_fitted_by_ridge_regression_towards_their_mean() -> None:
    """Of people without noise the line that made the images is found: number = 2 · (mean − 20)."""
    stack = world(REGRESSION)
    assert stack.images is not None
    codes = stack.images.bags.codes
    exact = np.where(np.isnan(stack.labels), 40, stack.labels)
    values = np.repeat((20 + 0.5 * exact[codes])[None], 2, axis=0).astype(np.float32)
    present = np.ones(values.shape[:2], bool)
    made = replace(stack, images=StackImages(values, present, stack.images.bags))
    found = fit(PoolSpec(LEARNED), made)
    known = ~np.isnan(stack.labels[:, 0])
    pooled_numbers = found.apply("a", values[0], stack.images.bags)
    assert np.abs(pooled_numbers[known, 0] - stack.labels[known, 0]).mean() < 0.2
    # One person has nothing to fit: the mean of the images.
    alone = fit(PoolSpec(LEARNED), made.take(np.array([1])))
    assert alone.linear is not None
    assert alone.linear[0, 0].tolist() == [1, 0, 0, 0, 0, 0, 0]
    assert number_statistics(values[0], stack.images.bags).shape == (6, PEOPLE, 2)


def test_a_label_that_too_few_people_have_keeps_the_mean_of_its_log_odds() -> None:
    stack = world(MULTILABEL)
    labels = stack.labels.copy()
    labels[:, 1] = 0
    labels[5, 1] = 1
    rare = replace(stack, labels=labels)
    learned, odds = fit(PoolSpec(LEARNED), rare).each[1], fit(PoolSpec(LOG_ODDS), rare).each[1]
    assert learned.coefficients is not None
    assert learned.coefficients[0, 0].tolist() == [1, 0, 0, 0, 0, 0, 0]
    assert odds.damping is not None
    assert odds.damping.tolist() == [1, 1]


def test_auto_has_the_rules_of_the_task() -> None:
    names = [one.name for one in pooled_choices(COLUMN_FITTERS[REGRESSION]["soft"], PoolSpec(AUTO), REGRESSION)]
    assert names == [f"soft, {rule}" for rule in ("mean", "median", "max", "top-k:k=3", "learned")]
    assert len(pooled_choices(COLUMN_FITTERS[MULTILABEL]["soft"], PoolSpec(AUTO), MULTILABEL)) == 7
