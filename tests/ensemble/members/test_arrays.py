"""Arrays of any shape are read, or refused with the way out; archives by the names in them; nothing runs code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ensemble.members.arrays import read_arrays
from folds.errors import EnsembleError

P = np.array([[0.25, 0.75], [0.5, 0.5], [0.125, 0.875]])


@pytest.mark.parametrize("column", [P[:, 1], P[:, 1:]])
def test_one_column_becomes_two(tmp_path: Path, column: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", column)
    (found,) = read_arrays(tmp_path / "a.npy")
    assert found.one_column
    np.testing.assert_array_equal(found.values, P)


def test_one_column_of_logits_is_a_sigmoid(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[-2.5], [0.0], [3.0]]))
    values = read_arrays(tmp_path / "a.npy", logits=True)[0].values
    softmax = np.exp(values) / np.exp(values).sum(1, keepdims=True)
    np.testing.assert_allclose(softmax[:, 1], 1 / (1 + np.exp([2.5, 0.0, -3.0])))
    with pytest.raises(EnsembleError, match=r"row 0 has the value -2.5; 2 of 3 rows") as caught:
        read_arrays(tmp_path / "a.npy")
    assert "`logits=True`" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("array", "hint"),
    [
        (np.array([0, 1, 2]), "np.eye"),
        (np.array([[True], [False]]), "np.eye"),
        (np.array(["cat", "dog"]), "np.eye"),
        (np.array([0.0, 1.0, 2.0]), "id,ans"),
        (np.stack([P, P]), r"array.mean(0)"),
        (np.array(3.0), "one row per sample"),
        (np.zeros((0, 2)), "one row per sample"),
    ],
)
def test_other_shapes_are_refused_with_the_way_out(tmp_path: Path, array: np.ndarray, hint: str) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(EnsembleError, match="expected") as caught:
        read_arrays(tmp_path / "a.npy")
    assert hint in str(caught.value.hint)


def test_an_archive_with_one_array_is_that_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", P)
    (found,) = read_arrays(tmp_path / "a.npz")
    np.testing.assert_array_equal(found.values, P)


def test_named_arrays_say_ids_classes_and_splits(tmp_path: Path) -> None:
    about = {"ids": np.array(["x", "y", "z"]), "classes": np.array(["no", "yes"]), "y": np.array([0, 1, 1])}
    np.savez(tmp_path / "a.npz", oof=P, test=P[:2], **about)
    oof, test = read_arrays(tmp_path / "a.npz")
    assert (oof.split, test.split) == ("oof", "test")
    assert oof.about is not None
    assert test.about is not None
    assert set(oof.about) == {"ids", "classes", "labels"}
    assert set(test.about) == {"classes"}, "the ids are those of the array with as many rows"
    np.savez(tmp_path / "b.npz", oof=P, test=P, ids=about["ids"])
    assert not any(one.about for one in read_arrays(tmp_path / "b.npz")), "both have as many rows as there are ids"


def test_an_unclear_archive_is_refused_with_its_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", foo=P, bar=P)
    with pytest.raises(EnsembleError, match="holds the arrays foo, bar") as caught:
        read_arrays(tmp_path / "a.npz")
    assert "np.load('a.npz')['foo']" in str(caught.value.hint)
    np.savez(tmp_path / "a.npz", oof=P, ids=np.array(["x"]))
    with pytest.raises(EnsembleError, match="'ids' has 1 entries, expected 3"):
        read_arrays(tmp_path / "a.npz")


def test_objects_in_an_archive_are_never_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", oof=P, ids=np.array(["x", "y", "z"], dtype=object))
    with pytest.raises(EnsembleError, match="'ids' is not usable: it contains Python objects, which could run code"):
        read_arrays(tmp_path / "a.npz")
