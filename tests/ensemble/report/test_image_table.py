"""Brightness and sharpness of the images: by hand, and in blocks that fit in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ensemble as en
from ensemble.report.evidence import image_table
from ensemble.report.evidence.image_table import image_paths, images_at_once, light, read_image_table, table_record
from ensemble.report.evidence.load import load_evidence
from folds.errors import UsageError
from tests.ensemble.report.report_worlds import write_world


def test_large_images_are_measured_in_smaller_blocks() -> None:
    assert images_at_once(200, 400) == 100
    assert images_at_once(2000, 3000) == 1
    assert images_at_once(5000, 4000) == 1


def test_labels_are_read_as_the_record_of_a_run_says(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,person,hat,beard\na.jpg,p,1,-1\nb.jpg,q,0,1\n")
    config = {"data": "t.csv", "label": "hat,beard", "task": "multilabel", "uncertain": "present"}
    found = read_image_table(None, [config], tmp_path, [], "multilabel")
    assert found is not None
    assert found.train.label_values().tolist() == [[1, 1], [0, 1]]
    warnings: list[str] = []
    assert read_image_table(None, [config | {"uncertain": "x"}], tmp_path, warnings, "multilabel") is None
    assert "unknown" in warnings[0]
    # As the user says, of a table alone.
    evidence = load_evidence([tmp_path / "t.csv"], tmp_path, label="hat,beard", uncertain="absent")
    assert evidence.table is not None
    assert (evidence.task, evidence.table.labels.tolist()) == ("multilabel", ["hat", "beard"])
    for wrong in ("maybe", None):
        with pytest.raises(UsageError, match="uncertain"):
            load_evidence([tmp_path / "t.csv"], tmp_path, label="hat,beard", uncertain=wrong)


def test_labels_of_persons_are_read_as_in_the_training(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,person,label\na.jpg,p,x\nb.jpg,p,\nc.jpg,q,y\n")
    found = read_image_table(None, [{"data": "t.csv", "label_of": "person"}], tmp_path, [])
    assert found is not None
    assert found.train.labels is not None
    assert found.train.labels.tolist() == ["x", "x", "y"]


def test_the_measures_do_not_depend_on_the_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = en.read_table(write_world(tmp_path, runs=0, views=False, people=6) / "table.csv")
    pixels = np.random.default_rng(0).integers(0, 256, (len(dataset.train), 20, 30, 3), np.uint8)
    blocks: list[int] = []

    def measured(part: Any) -> Any:
        blocks.append(len(part))
        return light(part)

    monkeypatch.setattr(image_table, "_PIXELS_AT_ONCE", 5 * 20 * 30 + 1)
    monkeypatch.setattr(image_table, "cached_pixels", lambda paths, folder: pixels[: len(paths)])
    monkeypatch.setattr(image_table, "release_pages", lambda array: None)
    monkeypatch.setattr(image_table, "light", measured)
    found = table_record(dataset, image_paths(dataset), tmp_path)
    assert max(blocks) == 5
    assert found.brightness is not None
    assert found.sharpness is not None
    train = ~found.test
    np.testing.assert_allclose(found.brightness[train], light(pixels)[:, 0], rtol=1e-6)
    np.testing.assert_allclose(found.sharpness[train], light(pixels)[:, 1], rtol=1e-6)
