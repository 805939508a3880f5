"""Images that cannot be used: left out and named where that is asked for, and never most of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from folds.data.readers import read_data
from folds.data.table import DataSpec
from folds.errors import EnsembleError


@pytest.fixture
def damaged(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    for i in range(6):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3)).astype("u1")).save(tmp_path / f"{i}.jpg")
    (tmp_path / "1.jpg").write_bytes((tmp_path / "1.jpg").read_bytes()[:-40])
    (tmp_path / "2.jpg").unlink()
    (tmp_path / "t.csv").write_text("path,label,person\n" + "".join(f"{i}.jpg,{i % 2},p{i}\n" for i in range(6)))
    return tmp_path / "t.csv"


def test_unusable_images_are_left_out_and_named(damaged):
    data = read_data(DataSpec(damaged, skip_unusable=True))
    assert data.train.ids.tolist() == ["0.jpg", "3.jpg", "4.jpg", "5.jpg"]
    assert data.left_out == 2
    (line,) = [line for line in data.warnings if "left out" in line]
    assert "2 of 6 images" in line
    assert "1.jpg cannot be decoded" in line
    assert "2.jpg does not exist" in line


def test_a_split_leaves_out_the_same_images(damaged):
    with_images = read_data(DataSpec(damaged, skip_unusable=True)).train
    assert read_data(DataSpec(damaged, skip_unusable=True), need_images=False).train.sha == with_images.sha


def test_most_images_are_never_left_out(damaged):
    for i in (3, 4, 5):
        (damaged.parent / f"{i}.jpg").write_bytes(b"")
    with pytest.raises(EnsembleError, match=r"5 of 6 images .* too many to leave out"):
        read_data(DataSpec(damaged, skip_unusable=True))


def test_large_images_are_left_out_by_the_limit(damaged):
    assert len(read_data(DataSpec(damaged, skip_unusable=True, max_pixels=32 * 32)).train) == 4
    with pytest.raises(EnsembleError, match="too many"):
        read_data(DataSpec(damaged, skip_unusable=True, max_pixels=32 * 32 - 1))
