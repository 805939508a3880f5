"""The files of a blend are read again as they were read for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import ensemble as en
from ensemble.blending.labeled_predictions import ColumnPredictions, read_labeled_predictions


def test_runs_of_a_blend_of_tables_of_numbers_are_found_again(tmp_path: Path) -> None:
    tables = {"a": [1.5, 2.5, 3.5, 4.5], "b": [2.5, 2.5, 2.5, 4.0]}
    for name, values in tables.items():
        lines = [f"i{row},p{row},{row % 2},{value}" for row, value in enumerate(values)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["id,person,fold,age", *lines]) + "\n")
    truth = [f"i{row},p{row},{row + 1}.5" for row in range(4)]
    (tmp_path / "truth.csv").write_text("\n".join(["id,person,age", *truth]) + "\n")
    files = [tmp_path / f"{name}.csv" for name in tables]
    made = en.blend(files, task="regression", labels=tmp_path / "truth.csv")
    made.save("final", root=tmp_path)
    found = read_labeled_predictions(["final"], runs=tmp_path / "runs")
    assert isinstance(found, ColumnPredictions)
    for name, values in tables.items():
        np.testing.assert_allclose(found.rows.members[name][:, 0], values)
