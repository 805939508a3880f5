"""Runs that lack rows or folds: what is averaged is said, and weights can count each model once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ensemble.blending.blend import Blend, make_blend
from ensemble.blending.request import BlendConfig
from folds.predictions.files import PredictionMetadata, SampleRows, write_prediction

CLASSES = ("cat", "dog", "owl")
PEOPLE, TEST = 20, 8
FOLD = np.arange(2 * PEOPLE) // 2 % 5


def _rows(n: int, prefix: str) -> SampleRows:
    number = range(n)
    return SampleRows(
        np.array([f"{prefix}{i}" for i in number]),
        np.array([CLASSES[i % 3] for i in number]),
        np.array([f"person of {prefix}{i // 2}" for i in number]),
    )


def _values(n: int, seed: int) -> NDArray[np.float32]:
    values = np.random.default_rng(seed).random((n, 3)) + 0.01
    return (values / values.sum(1, keepdims=True)).astype(np.float32)


@pytest.fixture
def models() -> list[NDArray[np.float32]]:
    """The test predictions of the five folds."""
    return [_values(TEST, 10 + fold) for fold in range(5)]


def _write(folder: Path, run: str, folds: Sequence[int], models: Sequence[NDArray[np.float32]]) -> list[Path]:
    """Write the predictions of a run with some folds; return the files."""
    more = {"kind": "probability", "classes": CLASSES, "run": run, "folds_sha": "f" * 64}
    rows, test = _rows(2 * PEOPLE, "im"), _rows(TEST, "t")
    inside = np.flatnonzero(np.isin(FOLD, folds))
    oof = PredictionMetadata(split="oof", rows=rows.take(inside), fold=FOLD[inside], **more)  # type: ignore[arg-type]
    paths = [write_prediction(folder / f"{run}.oof.npy", _values(2 * PEOPLE, ord(run))[inside], oof)]
    for fold in folds:
        sidecar = PredictionMetadata(split="test", rows=test, fold=fold, **more)  # type: ignore[arg-type]
        paths.append(write_prediction(folder / f"{run}.fold{fold}.test.npy", models[fold], sidecar))
    return paths


def _blend(paths: Sequence[Path], **more: str) -> tuple[Blend, str]:
    made = make_blend(paths, BlendConfig(**more))  # type: ignore[arg-type]
    return made, "\n".join(made.notes)


def test_runs_that_share_the_folds_weigh_equally_and_it_is_said(
    tmp_path: Path, models: list[NDArray[np.float32]]
) -> None:
    paths = _write(tmp_path, "a", [0, 1, 2, 3], models) + _write(tmp_path, "b", [4], models)
    made, notes = _blend(paths)
    expected = (np.mean(models[:4], axis=0) + models[4]) / 2
    np.testing.assert_allclose(made.votes["test"].probabilities, expected, atol=1e-6)
    assert "a has 32, b has 8 of 40): 40 rows of 1 run" in notes
    assert "1 model of b with as much as 4 of a; `weights=a=4,b=1` weights each model equally" in notes


def test_weights_by_models_give_the_mean_over_all_models(tmp_path: Path, models: list[NDArray[np.float32]]) -> None:
    paths = _write(tmp_path, "a", [0, 1, 2, 3], models) + _write(tmp_path, "b", [4], models)
    made, notes = _blend(paths, weights="a=4,b=1")
    np.testing.assert_allclose(made.votes["test"].probabilities, np.mean(models, axis=0), atol=1e-6)
    assert made.splits["oof"].runs[0].rows + made.splits["oof"].runs[1].rows == 40
    assert "whatever their number of models" not in notes
    plain = _blend(paths)[0].votes["oof"].probabilities
    np.testing.assert_allclose(made.votes["oof"].probabilities, plain, atol=1e-6)  # one run per row: no weight matters


def test_a_run_with_one_fold_counts_where_it_is_present(tmp_path: Path, models: list[NDArray[np.float32]]) -> None:
    paths = _write(tmp_path, "a", range(5), models) + _write(tmp_path, "b", [4], models)
    made, notes = _blend(paths)
    a, b = _values(2 * PEOPLE, ord("a")), _values(2 * PEOPLE, ord("b"))
    expected = np.where((FOLD == 4)[:, None], (a + b) / 2, a)
    np.testing.assert_allclose(made.votes["oof"].probabilities, expected, atol=1e-6)
    assert "8 rows of 2 runs, 32 rows of 1 run; the runs of a row share the weight" in notes
    assert "b (test) lacks folds 0, 1, 2, 3: mean of the other 1" in notes
    assert "1 model of b with as much as 5 of a" in notes


def test_complete_runs_need_no_note(tmp_path: Path, models: list[NDArray[np.float32]]) -> None:
    notes = _blend(_write(tmp_path, "a", range(5), models) + _write(tmp_path, "b", range(5), models))[1]
    assert "rows of" not in notes
    assert "number of models" not in notes
    assert "lack" not in notes
