"""A file with ids gives arrays their row order."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ensemble.members.row_order import read_row_order
from folds.errors import EnsembleError


def test_ids_are_read_from_every_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("label,image_id\n0,x\n1,y\n")
    (tmp_path / "b.txt").write_text("x\ny\n")
    (tmp_path / "c.txt").write_text("id\nx\ny\n")
    np.save(tmp_path / "d.npy", np.array(["x", "y"]))
    np.save(tmp_path / "e.npy", np.eye(2))
    sidecar = {"kind": "probability", "split": "test", "classes": ["0", "1"], "ids": ["x", "y"]}
    (tmp_path / "e.json").write_text(json.dumps(sidecar))
    for path in sorted(tmp_path.glob("*.*")):
        assert read_row_order(path).tolist() == ["x", "y"], path


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "key,value\nx,1\nx,2\n", "the id 'x' is in rows 2 and 3"),
        ("a.csv", "u,v\nx,1\n", "no column of the ids"),
        ("a.txt", "", "has no ids"),
        ("a.txt", "x\n\ny\n", "row 2 has no id"),
    ],
)
def test_files_without_ids_are_an_error(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(EnsembleError, match=message):
        read_row_order(tmp_path / name)
