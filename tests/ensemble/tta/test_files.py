"""Tests of reusing the logits of views and of joining folds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble.tta.files import load_cached_logits, load_common_rows, stitch, write
from folds.predictions.files import PredictionMetadata, SampleRows, read_sidecar, sidecar_path
from folds.predictions.rows import samples_sha

TABLE = SampleRows(np.array([f"i{n}" for n in range(8)]), np.array(list("abababab")), np.array(list("ppqqrrss")))
FOLD = np.array([0, 1, 0, 1, 2, 2, 0, 1])
LOGITS = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)


def of(fold: int, table: SampleRows = TABLE, **more: Any) -> PredictionMetadata:
    """Return the metadata of the rows of a fold."""
    said: dict[str, Any] = {
        "kind": "logit",
        "split": "oof",
        "classes": ("a", "b"),
        "run": "swin",
        "views": ("hflip",),
        "folds_sha": "f",
    }
    rows = table.take(np.flatnonzero(fold == FOLD))
    shas = {"checkpoint_sha": {str(fold): f"c{fold}"}, "images_sha": {str(fold): f"m{fold}"}}
    return PredictionMetadata(
        rows=rows, fold=np.full(len(rows), fold), samples_sha=samples_sha(table), **(said | shas | more)
    )


def put(path: Path, *folds: int) -> None:
    for fold in folds:
        stitch(path, LOGITS[fold == FOLD], of(fold), TABLE)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_stitched_bytes_do_not_depend_on_the_order_of_folds(tmp_path: Path, order: tuple[int, ...]) -> None:
    path = tmp_path / "hflip.oof.npy"
    put(path, *order)
    np.testing.assert_array_equal(np.load(path), LOGITS)
    there = read_sidecar(path)
    assert there is not None
    np.testing.assert_array_equal(there.fold, FOLD)
    assert there.rows.ids.tolist() == TABLE.ids.tolist()
    assert (there.checkpoint_sha, there.images_sha) == (
        {"0": "c0", "1": "c1", "2": "c2"},
        {"0": "m0", "1": "m1", "2": "m2"},
    )


def test_cached_rows_are_returned_in_the_requested_order(tmp_path: Path) -> None:
    path = tmp_path / "hflip.oof.npy"
    put(path, 0, 2)
    for fold in (0, 2):
        found = load_cached_logits(path, of(fold))
        assert found.there.all()
        np.testing.assert_array_equal(found.logits, LOGITS[fold == FOLD])
    backwards = of(0)
    backwards = replace(backwards, rows=backwards.rows.take(np.array([2, 1, 0])))
    np.testing.assert_array_equal(load_cached_logits(path, backwards).logits, LOGITS[[6, 2, 0]])
    assert not load_cached_logits(path, of(1)).there.any()


def test_rows_that_exist_are_reused(tmp_path: Path) -> None:
    path = tmp_path / "hflip.fold0.test.npy"
    sidecar = replace(of(0), split="test", rows=TABLE, fold=0, checkpoint_sha="c0", images_sha="m")
    some = np.array([1, 4, 5])
    write(path, LOGITS[some], replace(sidecar, rows=TABLE.take(some)), TABLE)
    found = load_cached_logits(path, sidecar)
    assert np.flatnonzero(found.there).tolist() == some.tolist()
    np.testing.assert_array_equal(found.logits, LOGITS[some])
    array = np.load(path)
    array[1, 0] = np.nan
    np.save(path, array)
    assert np.flatnonzero(load_cached_logits(path, sidecar).there).tolist() == [1, 5]


OTHERS: dict[str, Any] = {
    "checkpoint_sha": {"0": "another"},
    "images_sha": {"0": "another"},
    "views": ("vflip",),
    "samples_sha": "another",
    "folds_sha": "another",
    "classes": ("b", "a"),
    "run": "vit",
    "kind": "probability",
}


@pytest.mark.parametrize("name", OTHERS)
def test_nothing_is_reused_if_a_field_differs(tmp_path: Path, name: str) -> None:
    path = tmp_path / "hflip.oof.npy"
    put(path, 0)
    assert load_cached_logits(path, of(0)).there.all()
    assert not load_cached_logits(path, replace(of(0), **{name: OTHERS[name]})).there.any()


def test_a_file_without_image_hash_is_not_reused(tmp_path: Path) -> None:
    path = tmp_path / "hflip.oof.npy"
    stitch(path, LOGITS[FOLD == 0], of(0, images_sha=None), TABLE)
    assert read_sidecar(path) is not None
    assert not load_cached_logits(path, of(0)).there.any()


def test_a_test_file_holds_one_fold(tmp_path: Path) -> None:
    path = tmp_path / "hflip.fold0.test.npy"
    sidecar = replace(of(0), split="test", rows=TABLE, fold=0, checkpoint_sha="c0", images_sha="m")
    write(path, LOGITS, sidecar, TABLE)
    np.testing.assert_array_equal(load_cached_logits(path, sidecar).logits, LOGITS)
    assert not load_cached_logits(path, replace(sidecar, fold=1)).there.any()
    assert not load_cached_logits(path, replace(sidecar, checkpoint_sha="c1")).there.any()


@pytest.mark.parametrize("other", ["folds_sha", "views", "run"])
def test_rows_of_another_training_are_not_joined(tmp_path: Path, other: str) -> None:
    path = tmp_path / "hflip.oof.npy"
    put(path, 0, 1)
    stitch(path, LOGITS[FOLD == 2], of(2, **{other: OTHERS[other]}), TABLE)
    there = read_sidecar(path)
    assert there is not None
    assert np.unique(there.fold).tolist() == [2]


def test_only_changed_files_are_written(tmp_path: Path) -> None:
    path = tmp_path / "hflip.oof.npy"
    put(path, 0, 1, 2)
    before = path.stat().st_mtime_ns, sidecar_path(path).stat().st_mtime_ns
    put(path, 1)
    assert (path.stat().st_mtime_ns, sidecar_path(path).stat().st_mtime_ns) == before
    stitch(path, LOGITS[FOLD == 1] + 1, of(1), TABLE)
    assert path.stat().st_mtime_ns != before[0]
    np.testing.assert_array_equal(np.load(path)[FOLD == 1], LOGITS[FOLD == 1] + 1)


def test_common_rows_are_those_of_all_views_and_same_checkpoints(tmp_path: Path) -> None:
    first, second = tmp_path / "hflip.oof.npy", tmp_path / "vflip.oof.npy"
    put(first, 0, 1, 2)
    for fold in (2, 0):
        stitch(second, -LOGITS[fold == FOLD], of(fold, views=("vflip",)), TABLE)
    found = load_common_rows([first, second], {})
    assert found is not None
    logits, sidecar = found
    rows = np.flatnonzero(FOLD != 1)
    np.testing.assert_array_equal(logits, np.stack([LOGITS[rows], -LOGITS[rows]]))
    np.testing.assert_array_equal(sidecar.fold, FOLD[rows])
    assert sidecar.rows.ids.tolist() == TABLE.ids[rows].tolist()
    assert (sidecar.checkpoint_sha, sidecar.images_sha) == ({"0": "c0", "2": "c2"}, {"0": "m0", "2": "m2"})
    # Predictions of another training, or of a checkpoint that is not the current one, are ignored.
    stitch(second, -LOGITS[FOLD == 0], of(0, views=("vflip",), checkpoint_sha={"0": "another"}), TABLE)
    for current, folds in (({}, [2]), ({0: "c0"}, [2]), ({2: "c2"}, [2])):
        found = load_common_rows([first, second], current)
        assert found is not None
        assert np.unique(found[1].fold).tolist() == folds
    assert load_common_rows([first, second], {2: "another"}) is None
    second.write_bytes(b"damaged")
    assert load_common_rows([first, second], {}) is None
    assert load_common_rows([tmp_path / "none.oof.npy"], {}) is None
