"""What the features of images are computed from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from folds.config.recipe import Recipe
from folds.features.embed import _with_statistics
from folds.splits.assignment import FoldAssignment, save_folds
from folds.training.job import Job


@pytest.mark.parametrize(("refit", "learned"), [(None, [2, 3]), ("all", [0, 2, 3])])
def test_statistics_leave_out_dropped_images(tmp_path: Path, refit: str | None, learned: list[int]) -> None:
    """Image 1 is dropped; fold 0 holds image 0."""
    values = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    np.save(tmp_path / "pixels.npy", values)
    (tmp_path / "dropped.csv").write_text("id\n1.png\n")
    names = np.array([f"{i}.png" for i in range(4)])
    save_folds(
        tmp_path / "run/folds.csv",
        FoldAssignment(names, np.array(["a", "b", "a", "b"]), np.array(list("pqrs")), np.array([0, 1, 1, 1]), 2, 0),
    )
    job = Job(
        run="run",
        fold=0,
        k=2,
        folder=str(tmp_path / "run"),
        checkpoint="",
        pixels=str(tmp_path / "pixels.npy"),
        test_pixels=None,
        architecture={},
        recipe=vars(Recipe(features=True, normalise="data")),
        images={},
        data={},
        classes=("a", "b"),
        class_attributes={},
        folds_sha="",
        refit=refit,
        dropped=str(tmp_path / "dropped.csv"),
    )
    found = _with_statistics(job).architecture
    pixels = values[learned].reshape(-1, 3) / 255
    assert found["mean"] == pytest.approx(pixels.mean(0).tolist())
    assert found["std"] == pytest.approx(pixels.std(0).tolist())
