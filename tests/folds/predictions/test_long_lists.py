"""A sidecar with many folds is read and written as JSON reads and writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from folds.errors import EnsembleError
from folds.predictions import long_lists
from folds.predictions.long_lists import json_with_folds, read_with_folds
from folds.utils.files import json_text

LONG = np.random.default_rng(0).integers(0, 12, 5000)


def read(tmp_path: Path, text: str) -> tuple[Any, Any]:
    path = tmp_path / "a.json"
    path.write_text(text)
    return read_with_folds(path)


@pytest.mark.parametrize("indent", [None, 1, 2])
def test_long_folds_are_those_of_the_json(tmp_path: Path, indent: int | None) -> None:
    text = json.dumps({"run": "ä", "fold": LONG.tolist(), "arch": "x"}, indent=indent)
    for _ in range(2):  # the second time from memory
        record, fold = read(tmp_path, text)
        assert record == {"run": "ä", "fold": None, "arch": "x"}
        assert fold.tolist() == LONG.tolist()
    changed = LONG.copy()
    changed[-1] += 1
    assert read(tmp_path, json.dumps({"fold": changed.tolist()}, indent=indent))[1].tolist() == changed.tolist()


@pytest.mark.parametrize(
    "record",
    [
        {"fold": [0, 1, 2]},
        {"fold": 3},
        {"fold": None},
        {"fold": []},
        {"merge": {"fold": LONG.tolist()}},
        {"merge": {"fold": LONG.tolist()}, "fold": LONG.tolist()},
        {"run": '"fold": [' + "1, " * 3000 + "]"},
        {"fold": [*LONG.tolist(), -1]},
        {"fold": [*LONG.tolist(), 0.5]},
        {"fold": [*LONG.tolist(), 2**31]},
        {"fold": [*LONG.tolist(), 10**30]},
        {"fold": [*LONG.tolist(), True]},
        {"fold": [*LONG.tolist(), None]},
        {"fold": [*LONG.tolist(), "1"]},
        {"fold": [*LONG.tolist(), [1]]},
    ],
    ids=range(15),
)
def test_anything_else_is_read_by_the_json_parser(tmp_path: Path, record: dict[str, Any]) -> None:
    assert read(tmp_path, json.dumps(record)) == (record, None)


@pytest.mark.parametrize("end", ["07", "1 2", "", " ", "1,", ", 1", "1, , 1"])
def test_a_list_that_is_no_json_is_refused(tmp_path: Path, end: str) -> None:
    with pytest.raises(EnsembleError, match="is not JSON"):
        read(tmp_path, '{"fold": [' + "0, " * 3000 + end + "]}")


def test_of_a_repeated_key_the_last_one_counts(tmp_path: Path) -> None:
    listed = json.dumps(LONG.tolist())
    assert read(tmp_path, f'{{"fold": {listed}, "fold":[4]}}') == ({"fold": [4]}, None)
    assert read(tmp_path, f'{{"fold":[4], "fold": {listed}}}')[1].tolist() == LONG.tolist()


def test_folds_are_written_to_the_same_bytes_as_before() -> None:
    for fold in (LONG, LONG[:1], LONG[:0]):
        record = {"run": "a", "fold": fold, "rows": [1, 2]}
        assert json_with_folds(record) == json_text(record | {"fold": fold.tolist()})
    strange = {"run": long_lists._MARK, "fold": LONG}
    assert json_with_folds(strange) == json_text(strange | {"fold": LONG.tolist()})
    assert json_with_folds({"fold": 2}) == json_text({"fold": 2})
