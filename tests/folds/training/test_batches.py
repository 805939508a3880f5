from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from folds.training.batches import count_batches, full_batches
from folds.training.sampler import SamplerConfig


def shuffled(images: int) -> Callable[[int], np.ndarray]:
    return lambda number: np.random.default_rng(number).permutation(images)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.integers(1, 64), st.integers(1, 12))
def test_all_batches_are_full_and_images_equally_used(images: int, size: int, epochs: int) -> None:
    used = np.zeros(images, int)
    for epoch in range(epochs):
        batches = full_batches(shuffled(images), images, size, epoch)
        assert {len(rows) for rows in batches} == {min(size, images)}
        assert len(batches) == count_batches(images, min(size, images))
        used += np.bincount(np.concatenate(batches), minlength=images)
    assert used.max() - used.min() <= 1


@pytest.mark.parametrize(
    ("images", "size", "full", "steps"),
    [
        (100, 32, True, 3),
        (113, 32, True, 4),
        (112, 32, True, 4),
        (111, 32, True, 3),
        (5, 32, True, 1),
        (33, 32, True, 1),
        (64, 32, True, 2),
        (33, 32, False, 2),
        (5, 32, False, 1),
    ],
)
def test_an_epoch_is_the_closest_number_of_batches(images: int, size: int, full: bool, steps: int) -> None:
    assert count_batches(images, size, full=full) == steps


def test_epochs_are_the_rounds_one_after_the_other() -> None:
    rows = shuffled(10)
    shown = np.concatenate([np.concatenate(full_batches(rows, 10, 4, epoch)) for epoch in range(5)])
    assert shown.tolist() == np.concatenate([rows(number) for number in range(6)])[: len(shown)].tolist()


def test_proportions_of_a_balanced_sampler_are_kept_over_epochs() -> None:
    labels = np.repeat([0, 1, 2], [5, 20, 75])
    sampler = SamplerConfig(3, power=0.0).over(np.arange(100), labels, np.arange(100), ("seed",))
    shown = np.concatenate([np.concatenate(full_batches(sampler.rows, 100, 32, epoch)) for epoch in range(25)])
    classes = np.bincount(labels[shown])
    assert len(shown) == 25 * 96
    np.testing.assert_allclose(classes, 800, atol=25)
    used = np.bincount(shown, minlength=100)
    for code in range(3):
        assert np.ptp(used[labels == code]) <= 2
