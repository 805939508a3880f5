"""What a large default size costs is said; a size that was chosen, or a usual one, is not worth a line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from folds.config.recipe import Recipe
from folds.data.readers import read_data
from folds.data.table import Dataset, DataSpec
from folds.models.model_names import resolve
from folds.runs.run import Run
from folds.runs.size_note import size_note


@pytest.fixture
def data(drawn: Path) -> Dataset:
    return read_data(DataSpec(drawn))


def run(arch: str, **recipe: Any) -> Run:
    given = Recipe(**recipe)
    unused: Any = None
    return Run("run", resolve(arch, given.size()), given, unused, 0, unused, base="run")


def test_a_large_default_size_is_told_with_its_cost_and_the_flag(data: Dataset) -> None:
    images = len(data.train) + (0 if data.test is None else len(data.test))
    line = size_note(run("vit_small_patch14_dinov2"), data)
    assert line == (
        "run: vit_small_patch14_dinov2 reads images of 518×518 px by default: a step takes at least 5.3 times as long as at "
        f"224×224 px, and {images} decoded images take {images * 518 * 518 * 3 / 1e9:.2g} GB; `img_size=224` lowers both"
    )


def test_a_size_that_was_chosen_or_is_usual_is_not(data: Dataset) -> None:
    assert size_note(run("vit_small_patch14_dinov2", img_size="518"), data) == ""
    assert size_note(run("resnet18"), data) == ""


def test_the_margin_of_larger_images_counts(data: Dataset) -> None:
    plain = run("vit_small_patch14_dinov2")
    larger = replace(plain, recipe=replace(plain.recipe, cache_scale=2.0))
    assert size_note(larger, data) != size_note(plain, data)
