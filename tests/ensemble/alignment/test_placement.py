"""Members without a split and arrays without ids are placed by ids, names and lengths; an unknown row order is asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ensemble.alignment.align import Alignment, align
from ensemble.alignment.placement import RowOrder
from ensemble.members.reading import Member
from ensemble.members.true_labels import TrueLabels
from folds.errors import EnsembleError
from folds.predictions.rows import SampleRows

IDS = np.array(["c", "a", "b", "d"])
TRUTH = np.array(["1", "0", "1", "0"])


def draw(seed: int, n: int = 4) -> np.ndarray:
    values = np.random.default_rng(seed).random((n, 2))
    return values / values.sum(1, keepdims=True)


def bare(name: str, values: np.ndarray, split: str = "", run: str = "") -> Member:
    run = run or Path(name).stem
    return Member(Path(name), run, values, None, False, None, None, None, name, split=split)


def table(name: str, ids: np.ndarray, values: np.ndarray, split: str = "", **more: object) -> Member:
    rows = SampleRows(ids, **more)  # type: ignore[arg-type]
    about = {"split": split, "classes": ("0", "1")}
    return Member(Path(name), Path(name).stem, values, None, False, None, rows, rows, name, **about)  # type: ignore[arg-type]


def labels(ids: np.ndarray = IDS, truth: np.ndarray = TRUTH) -> TrueLabels:
    return TrueLabels(Path("y.csv"), ids, truth)


def probabilities(made: Alignment, run: str, split: str = "oof") -> dict[str, float]:
    found = made.splits[split]
    one = next(one for one in found.runs if one.name == run)
    return dict(zip(found.rows.ids.tolist(), one.probabilities(0, len(found))[:, 0].tolist(), strict=True))


def by_id(ids: np.ndarray, values: np.ndarray) -> dict[str, float]:
    return dict(zip(ids.tolist(), values[:, 0].tolist(), strict=True))


def test_tables_are_aligned_by_id_in_any_order() -> None:
    a, b = draw(0), draw(1)
    made = align([table("a.csv", IDS, a), table("b.csv", np.sort(IDS), b)])
    assert probabilities(made, "a", "test") == by_id(IDS, a)
    assert probabilities(made, "b", "test") == by_id(np.sort(IDS), b)


def test_files_in_different_orders_leave_an_array_unplaced() -> None:
    members = [table("a.csv", IDS, draw(0)), table("b.csv", np.sort(IDS), draw(1)), bare("c.npy", draw(2))]
    for order in ((0, 1, 2), (1, 0, 2), (2, 0, 1)):
        with pytest.raises(EnsembleError, match="list the same samples in different orders") as caught:
            align([members[i] for i in order])
        assert "`ids=a.csv`" in str(caught.value.hint)
    named = [RowOrder("b.csv", np.sort(IDS), named=True)]
    assert probabilities(align(members, orders=named), "c", "test") == by_id(np.sort(IDS), draw(2))


def test_labels_give_the_order_if_files_disagree() -> None:
    members = [table("a.csv", IDS, draw(0)), table("b.csv", np.sort(IDS), draw(1)), bare("c.npy", draw(2))]
    mixed = IDS[[3, 0, 2, 1]]
    made = align(members, labels(mixed))
    assert probabilities(made, "c") == by_id(mixed, draw(2))
    assert any("rows in the order of y.csv" in note for note in made.notes)


def test_labels_in_another_order_than_the_files_are_asked() -> None:
    members = [table("a.csv", IDS, draw(0)), bare("c.npy", draw(2))]
    with pytest.raises(EnsembleError, match=r"a\.csv and y\.csv list the same samples in different orders"):
        align(members, labels(np.sort(IDS)))
    assert probabilities(align(members, labels()), "c") == by_id(IDS, draw(2))


def test_names_say_the_splits_of_arrays_of_one_length() -> None:
    members = [bare("q.oof.npy", draw(0), "oof", "q"), bare("q.test.npy", draw(1), "test", "q")]
    made = align(members, labels())
    assert probabilities(made, "q") == by_id(IDS, draw(0))
    assert probabilities(made, "q", "test") == by_id(np.arange(4).astype(str), draw(1))
    assert made.splits["test"].rows.labels is None, "numbered rows have no labels"


def test_numbered_test_rows_get_no_labels_of_other_rows() -> None:
    numbered = np.arange(4).astype(str)
    members = [bare("q.oof.npy", draw(0), "oof", "q"), bare("q.test.npy", draw(1, 3), "test", "q")]
    made = align(members, labels(numbered))
    assert made.splits["oof"].rows.labels is not None
    assert made.splits["test"].rows.labels is None


def test_ids_name_the_rows_of_test_arrays() -> None:
    members = [bare("q.oof.npy", draw(0), "oof", "q"), bare("q.test.npy", draw(1, 2), "test", "q")]
    made = align(members, labels(), orders=[RowOrder("t.csv", np.array(["x", "y"]), named=True)])
    assert probabilities(made, "q", "test") == by_id(np.array(["x", "y"]), draw(1, 2))
    with pytest.raises(EnsembleError, match="has 3 ids, which are not those of an array without ids"):
        align(members, labels(), orders=[RowOrder("t.csv", np.array(["x", "y", "z"]), named=True)])


def test_labels_may_be_those_of_more_samples() -> None:
    made = align([table("a.csv", IDS[:3], draw(0, 3))], labels())
    assert made.splits["oof"].rows.labels is not None
    assert made.splits["oof"].rows.labels.tolist() == TRUTH[:3].tolist()


def test_labels_in_a_table_are_the_labels() -> None:
    made = align([table("a.csv", IDS, draw(0), "oof", labels=TRUTH), bare("c.npy", draw(2))])
    assert made.splits["oof"].rows.labels is not None
    assert made.splits["oof"].rows.labels.tolist() == TRUTH.tolist()
    assert probabilities(made, "c") == by_id(IDS, draw(2))
