"""Pooling is fitted to the people of the training part alone, and the combination to people it did not see."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from ensemble.learning.auto import choose
from ensemble.learning.combination import Combination, combine
from ensemble.learning.nested import nested_cv
from ensemble.learning.pool_rules import DAMPINGS
from ensemble.learning.pooled import fit_pooling, pooled, pooled_choices
from ensemble.learning.registry import FITTERS
from ensemble.learning.stack import Stack, StackImages
from ensemble.pooling.bags import Bags
from ensemble.pooling.evidence import damped_log_odds
from ensemble.pooling.rules import pool_images
from ensemble.pooling.spec import AUTO, LEARNED, LOG_ODDS, MAX, PoolSpec
from folds.metrics.classification import METRICS

LOSS = METRICS["log_loss"]


@cache
def world(people: int = 60, seed: int = 0) -> Stack:
    """Two runs; one image of a positive person shows it."""
    random = np.random.default_rng(seed)
    labels = (np.arange(people) % 3 == 0).astype(np.int64)
    counts = random.integers(1, 6, people)
    codes = np.repeat(np.arange(people), counts)
    shows = np.zeros(len(codes))
    shows[(np.cumsum(counts) - counts)[labels == 1]] = 1
    logits = -2 + 4 * shows + random.normal(size=(2, len(codes)))
    p = 1 / (1 + np.exp(-logits))
    values = np.stack([1 - p, p], axis=2).astype(np.float32)
    present = np.ones(values.shape[:2], bool)
    present[1, ::7] = False
    images = StackImages(values * present[:, :, None], present, Bags(codes, people))
    means = np.stack([images.of_run(run)[1].mean(images.of_run(run)[0].astype(float)) for run in range(2)])
    shown = np.stack([images.of_run(run)[1].counts > 0 for run in range(2)])
    folds = np.arange(people) % 5
    return Stack(("a", "b"), means.astype(np.float32), shown, labels, np.arange(people), folds, images)


def test_the_people_of_a_part_keep_their_images() -> None:
    stack = world()
    rows = np.array([7, 3, 30])
    taken = stack.take(rows)
    assert taken.images is not None
    assert stack.images is not None
    for place, row in enumerate(rows):
        own = taken.images.probabilities[0, taken.images.bags.codes == place]
        assert (own == stack.images.probabilities[0, stack.images.bags.codes == row]).all()


@pytest.mark.parametrize("name", [LOG_ODDS, LEARNED])
def test_no_person_is_pooled_by_a_rule_that_saw_the_person(name: str) -> None:
    stack, part = world(), 2
    fitter = pooled(FITTERS["soft"], PoolSpec(name), False)
    found = nested_cv(stack, fitter, LOSS)
    rest, inside = (np.flatnonzero(at) for at in (stack.outer_folds != part, stack.outer_folds == part))
    pooling = fit_pooling(PoolSpec(name), stack.take(rest), False)
    expected = combine(stack.take(inside).pooled(pooling), Combination(stack.names))
    assert (found.out_of_sample[inside] == expected).all()
    assert found.combination.pooling is not None
    # Other labels and images of the people of a part must not change how they are predicted.
    labels = stack.labels.copy()
    labels[inside] = 1 - labels[inside]
    changed = nested_cv(replace(stack, labels=labels), fitter, LOSS)
    assert (changed.out_of_sample[inside] == found.out_of_sample[inside]).all()
    assert (changed.in_sample[inside] != found.in_sample[inside]).any()


def test_weights_are_learned_from_people_that_the_rule_did_not_see() -> None:
    stack = world()
    made = pooled(FITTERS["simplex"], PoolSpec(LEARNED), False).fit(stack, LOSS, 0)
    values = stack.probabilities.copy()
    for part in range(5):
        rest, inside = (np.flatnonzero(at) for at in (stack.outer_folds != part, stack.outer_folds == part))
        pooling = fit_pooling(PoolSpec(LEARNED), stack.take(rest), False)
        values[:, inside] = stack.take(inside).pooled(pooling).probabilities
    expected = FITTERS["simplex"].fit(replace(stack, probabilities=values, images=None), LOSS, 0)
    assert made.weights == pytest.approx(expected.weights)


def test_damping_has_the_smallest_loss() -> None:
    stack = world()
    assert stack.images is not None
    found = fit_pooling(PoolSpec(LOG_ODDS), stack, False)
    values, bags = stack.images.of_run(0)
    assert found.damping is not None
    assert found.prior is not None

    def loss(damping: float) -> float:
        return LOSS(stack.labels, damped_log_odds(values, bags, damping, found.prior[0]))  # type: ignore[index]

    assert loss(float(found.damping[0])) == pytest.approx(min(map(loss, DAMPINGS)))
    assert fit_pooling(PoolSpec(LOG_ODDS, damping=0.25), stack, False).damping == pytest.approx([0.25, 0.25])


def test_a_rule_that_fits_nothing_equals_rows_pooled_before() -> None:
    stack = world()
    assert stack.images is not None
    before: list[NDArray[np.float64]] = [pool_images(*stack.images.of_run(run), MAX, 3, False) for run in range(2)]
    given = replace(stack, probabilities=np.stack(before).astype(np.float32), images=None)
    fitter = pooled(FITTERS["greedy"], PoolSpec(MAX), False)
    made, plain = nested_cv(stack, fitter, LOSS), nested_cv(given, FITTERS["greedy"], LOSS)
    assert (made.out_of_sample == plain.out_of_sample).all()


def test_the_choice_of_a_rule_is_part_of_the_score() -> None:
    stack = world(60)
    fitters = pooled_choices(FITTERS["soft"], PoolSpec(AUTO))
    found = choose(stack, fitters, LOSS, plain=fitters[0].name)
    assert fitters[0].name == "soft, mean"
    assert found.chosen in {"soft, learned", "soft, max"}  # one image shows it
    assert found.chosen == found.by_part[0]
    # With these labels the people of one part speak for another rule: it must not be chosen for themselves.
    part = 0
    rest, inside = (np.flatnonzero(at) for at in (stack.outer_folds != part, stack.outer_folds == part))
    labels = stack.labels.copy()
    labels[inside] = 1 - labels[inside]
    turned = choose(replace(stack, labels=labels), fitters, LOSS, plain=fitters[0].name)
    assert turned.chosen != found.chosen
    alone = choose(stack.take(rest), fitters, LOSS, plain=fitters[0].name).chosen  # never sees the part
    assert turned.by_part[part] == alone
    fitter = next(one for one in fitters if one.name == alone)
    expected = combine(stack.take(inside), fitter.fit(stack.take(rest), LOSS, 0))
    assert turned.nested.out_of_sample[inside] == pytest.approx(expected)


def test_few_people_keep_the_mean_of_their_log_odds() -> None:
    pooling = fit_pooling(PoolSpec(LEARNED), world().take(np.array([0])), False)
    assert pooling.coefficients is not None
    assert pooling.coefficients[0, 0].tolist() == [1, 0, 0, 0, 0, 0, 0]
