"""Warn of people and images that appear in both training and test."""

from __future__ import annotations

import numpy as np

from folds.data.doubts import spelled_leaks
from folds.data.image_paths import normal_path
from folds.data.table import SampleTable
from folds.images.stacks import shown_path


def leak_warnings(train: SampleTable, test: SampleTable | None) -> list[str]:
    """Return warnings if no person has two images, or if people or images appear in both training and test."""
    warnings = []
    if train.persons is not None:
        people, _ = train.factorized_persons
        if len(people) == len(train):
            warnings.append(
                f"each of the {len(train):,} images of {train.source} is its own person: grouping has no effect"
            )
        if test is not None and test.persons is not None:
            both = sorted(set(people).intersection(test.factorized_persons[0]))
            if both:
                images = int(np.isin(test.persons, both).sum())
                names = ", ".join(both[:3]) + (", …" if len(both) > 3 else "")
                warnings.append(
                    f"{len(both):,} people appear in both training and test ({names}; {images:,} test images): test "
                    "scores will be optimistic"
                )
            warnings += spelled_leaks(people, test.factorized_persons[0])
    if test is not None and train.paths is not None and test.paths is not None:
        same = set(map(normal_path, train.paths)) & set(map(normal_path, test.paths))
        if same:
            warnings.append(
                f"{len(same):,} images appear in both training and test (first {shown_path(min(same))}): test scores "
                "will be optimistic"
            )
    return warnings
