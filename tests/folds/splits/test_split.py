"""`split` and `load_folds` of the Python interface: what they take, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from folds.errors import UsageError
from folds.splits.split import load_folds, split

FRAME = pd.DataFrame(
    {
        "path": [f"{i}.jpg" for i in range(24)],
        "label": ["cat", "dog"] * 12,
        "person": [f"p{i // 3}" for i in range(24)],
        "fold": np.arange(24) // 12,
    }
)


def test_k_and_holdout_exclude_each_other() -> None:
    assert split(FRAME).k == 5
    assert split(FRAME, holdout=0.25).k == 1
    with pytest.raises(UsageError, match="holdout and k contradict each other"):
        split(FRAME, k=3, holdout=0.25)


def test_numbers_of_numpy_are_whole_numbers() -> None:
    assert split(FRAME, k=np.int64(3), seed=np.int64(1)).sha == split(FRAME, k=3, seed=1).sha


def test_folds_need_a_source() -> None:
    with pytest.raises(UsageError, match="source must be a file of folds, or a table with a column of folds"):
        load_folds(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("column", ["label", "person", "path"])
def test_a_column_with_another_meaning_is_not_unknown(column: str) -> None:
    with pytest.raises(
        UsageError, match=f"column '{column}' of the DataFrame is the {column} of each sample"
    ) as raised:
        load_folds(FRAME, column=column)
    assert raised.value.hint == "further columns: fold"


@pytest.mark.parametrize("data", [3, [1, 2], np.eye(2)], ids=str)
def test_what_is_no_table_is_described(data: Any) -> None:
    with pytest.raises(UsageError, match="expected a path, a DataFrame or the result of read_table, found"):
        split(data)
