"""Prediction files are aligned by name; files that cannot be aligned are an error with the reason."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ensemble.alignment.align import align
from ensemble.alignment.split import AlignedSplit
from ensemble.members.deduplication import named_apart, select_runs
from ensemble.members.discovery import find_files
from ensemble.members.reading import read_members
from ensemble.members.true_labels import read_true_labels
from ensemble.voting.vote import METHODS, vote
from folds.errors import EnsembleError, UsageError
from folds.predictions.files import PredictionMetadata, SampleRows, write_prediction

CLASSES = ("0", "1", "2", "10")


def draw(n: int, classes: int = 4, seed: int = 0) -> NDArray[np.float64]:
    values = np.random.default_rng(seed).random((n, classes)) + 0.01
    return values / values.sum(1, keepdims=True)


def table(n: int, prefix: str = "im") -> SampleRows:
    number = np.arange(n)
    return SampleRows(
        np.array([f"{prefix}{i}" for i in number]),
        np.array([CLASSES[i % 4] for i in number]),
        np.array([f"p{prefix}{i // 2}" for i in number]),
    )


def save(
    folder: Path,
    name: str,
    values: NDArray,
    rows: SampleRows,
    *,
    split: str = "oof",
    samples: SampleRows | None = None,
    classes: tuple[str, ...] = CLASSES,
    **more: object,
) -> Path:
    sidecar = PredictionMetadata(
        **{"kind": "probability", "split": split, "classes": classes, "rows": rows, "run": name.split(".")[0], **more}
    )  # type: ignore[arg-type]
    return write_prediction(folder / f"{name}.npy", values, sidecar, samples)


def aligned_splits(*paths: Path, notes: list[str] | None = None, **more: object) -> dict[str, AlignedSplit]:
    alignment = align(named_apart(read_members(find_files(paths))), **more)  # type: ignore[arg-type]
    if notes is not None:
        notes += alignment.notes
    return dict(alignment.splits)


@pytest.mark.parametrize(
    ("header", "table"),
    [
        ("id,label,person,fold", True),
        ("ID,Fold", True),
        ("path,label,person", True),
        ("id;label;patient", True),
        ("id,path,label", True),
        ("ImageID,ans", False),
        ("id,label", False),
        ("path,label", False),
        ("id,ans,person", False),
    ],
)
def test_a_table_of_samples_is_not_a_member(tmp_path: Path, header: str, table: bool) -> None:
    mark = ";" if ";" in header else ","
    (tmp_path / "a.csv").write_text(
        "\n".join([header, *(mark.join([f"im{i}", *"0" * header.count(mark)]) for i in range(3))])
    )
    if not table:
        assert find_files([tmp_path / "a.csv"]) == [tmp_path / "a.csv"]
        return
    with pytest.raises(
        EnsembleError, match=r"a\.csv lists samples with their true labels, expected predictions"
    ) as caught:
        find_files([tmp_path / "a.csv"])
    assert f"--labels {tmp_path / 'a.csv'}" in str(caught.value.hint)


def test_rows_and_columns_are_aligned_by_name(tmp_path: Path) -> None:
    rows, a, b = table(20), draw(20), draw(20, seed=1)
    order, columns = np.random.default_rng(2).permutation(20), np.array([3, 1, 0, 2])
    one = save(tmp_path, "a.oof", a, rows)
    other = save(tmp_path, "b.oof", b[order][:, columns], rows.take(order), classes=tuple(CLASSES[c] for c in columns))
    split = aligned_splits(one, other)["oof"]
    assert split.classes == CLASSES
    assert split.rows.ids.tolist() == rows.ids.tolist()
    np.testing.assert_allclose(split.runs[1].probabilities(0, 20), b, atol=1e-7)
    np.testing.assert_allclose(vote(split).probabilities, (a + b) / 2, atol=1e-7)


def test_integer_class_names_are_ordered_as_numbers(tmp_path: Path) -> None:
    path = save(tmp_path, "a.oof", draw(4)[:, [1, 3, 0, 2]], table(4), classes=("1", "10", "0", "2"))
    assert aligned_splits(path)["oof"].classes == ("0", "1", "2", "10")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), n=st.integers(1, 12), runs=st.integers(1, 4))
def test_a_blend_ignores_the_order_of_files_rows_and_classes(tmp_path: Path, seed: int, n: int, runs: int) -> None:
    rng = np.random.default_rng(seed)
    rows, first, second = table(n), [], []
    for run in range(runs):
        values = draw(n, seed=seed + run)
        first.append(save(tmp_path, f"r{run}.oof", values, rows))
        order, columns = rng.permutation(n), rng.permutation(4)
        (tmp_path / "other").mkdir(exist_ok=True)
        shuffled = values[order][:, columns]
        second.append(
            save(
                tmp_path / "other",
                f"r{run}.oof",
                shuffled,
                rows.take(order),
                classes=tuple(CLASSES[c] for c in columns),
            )
        )
    rng.shuffle(second)  # type: ignore[arg-type]
    one, other = aligned_splits(*first)["oof"], aligned_splits(*second)["oof"]
    position = [other.rows.ids.tolist().index(name) for name in one.rows.ids.tolist()]
    for method in METHODS:
        ranking = [f"r{run}" for run in range(runs)]
        a, b = vote(one, method, ranking=ranking), vote(other, method, ranking=ranking)
        assert a.ties == b.ties
        np.testing.assert_allclose(
            a.probabilities, b.probabilities[position], rtol=0, atol=1e-7 if method == "rank" else 0, err_msg=method
        )


@pytest.mark.parametrize("dtype", ["<f8", "<f4", "<f2", ">f4", ">f8"])
def test_all_dtypes_byte_orders_and_memory_orders_read_equal(tmp_path: Path, dtype: str) -> None:
    values = draw(300)
    np.save(tmp_path / "a.npy", np.asfortranarray(values.astype(dtype)))
    split = aligned_splits(tmp_path / "a.npy")["test"]
    np.testing.assert_allclose(split.runs[0].probabilities(0, 300), values, atol=1e-3 if dtype == "<f2" else 1e-6)


def test_one_hot_integers_are_read(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.eye(4, dtype=np.int64))
    assert np.array_equal(aligned_splits(tmp_path / "a.npy")["test"].runs[0].probabilities(0, 4), np.eye(4))


def test_logits_become_probabilities_without_overflow(tmp_path: Path) -> None:
    logits = np.random.default_rng(0).normal(size=(9, 4)) * 3
    logits[0] = [1e4, 1e4, -1e4, 0]
    split = aligned_splits(save(tmp_path, "a.oof", logits, table(9), kind="logit"))["oof"]
    exact = [[np.exp(float(v) - max(map(float, row))) for v in row] for row in logits.astype(np.float32)]
    np.testing.assert_allclose(
        split.runs[0].probabilities(0, 9), [np.array(row) / sum(row) for row in exact], rtol=1e-9
    )


def test_logits_are_never_guessed(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(5, 3)).astype("f4"))
    with pytest.raises(EnsembleError, match=r"a\.npy: expected probabilities, but row 0 .* 5 of 5 rows") as caught:
        read_members([tmp_path / "a.npy"])
    assert "`logits=True`" in str(caught.value.hint)
    assert read_members([tmp_path / "a.npy"], logits=True)[0].logit


def test_logits_option_keeps_valid_probabilities_with_a_sidecar(tmp_path: Path) -> None:
    right = save(tmp_path, "a.oof", draw(6), table(6))
    wrong = save(tmp_path, "b.oof", draw(6) * 4 - 1, table(6))
    assert [member.logit for member in read_members([right, wrong], logits=True)] == [False, True]


def test_different_samples_are_an_error_with_groups_and_counts(tmp_path: Path) -> None:
    paths = [
        save(tmp_path, "a.oof", draw(20), table(20)),
        save(tmp_path, "b.oof", draw(20), table(20)),
        save(tmp_path, "c.oof", draw(15), table(35).take(np.arange(20, 35))),
    ]
    with pytest.raises(EnsembleError, match="35 ids differ between a, b and c") as caught:
        aligned_splits(*paths)
    assert caught.value.hint is not None
    assert "`runs=a,b`" in caught.value.hint
    assert any("c: 15 ids, 15 of them not in the other group" in line for line in caught.value.details)


def test_equal_fold_hashes_with_different_ids_are_an_error(tmp_path: Path) -> None:
    fold = np.arange(20) // 2 % 5
    paths = [
        save(tmp_path, name, draw(20), rows, fold=fold, folds_sha="f" * 64)
        for name, rows in (("a.oof", table(20)), ("b.oof", table(20, "x")))
    ]
    with pytest.raises(EnsembleError, match="40 ids differ"):
        aligned_splits(*paths)


@pytest.mark.parametrize("shared", [True, False])
def test_a_run_that_lacks_a_fold_votes_where_it_is_present(tmp_path: Path, shared: bool) -> None:
    rows, fold, a, b = table(20), np.arange(20) // 2 % 5, draw(20), draw(20, seed=1)
    index = np.flatnonzero(fold != 3)
    whole = rows if shared else None  # with a samples file, and with ids in the sidecar
    one = save(tmp_path, "a.oof", a, rows, samples=whole, fold=fold)
    other = save(tmp_path, "b.oof", b[index], rows.take(index), samples=whole, fold=fold[index])
    notes: list[str] = []
    split = aligned_splits(other, one, notes=notes)["oof"]
    expected = np.where((fold == 3)[:, None], a, (a + b) / 2)
    np.testing.assert_allclose(vote(split).probabilities, expected, atol=1e-7)
    assert {run.name: run.rows for run in split.runs} == {"a": 20, "b": 16}
    assert any("b has 16" in note for note in notes)


def test_rows_without_any_run_are_left_out_and_counted(tmp_path: Path) -> None:
    rows, fold = table(20), np.arange(20) // 2 % 5
    index = np.flatnonzero(fold != 3)
    notes: list[str] = []
    split = aligned_splits(
        save(tmp_path, "a.oof", draw(16), rows.take(index), samples=rows, fold=fold[index]), notes=notes
    )["oof"]
    assert split.rows.ids.tolist() == rows.ids[index].tolist()
    assert any(note.startswith("4 of 20 oof samples") for note in notes)


def test_one_file_a_fold_is_one_run_out_of_fold(tmp_path: Path) -> None:
    rows, fold, values = table(20), np.arange(20) // 2 % 5, draw(20)
    paths = [
        save(tmp_path, f"a.{i}.oof", values[fold == i], rows.take(np.flatnonzero(fold == i)), fold=i) for i in range(5)
    ]
    split = aligned_splits(*paths, save(tmp_path, "b.oof", values, rows))["oof"]
    mine = split.runs[0]
    position = [rows.ids.tolist().index(name) for name in split.rows.ids.tolist()]
    assert mine.folds == (0, 1, 2, 3, 4)
    np.testing.assert_allclose(mine.probabilities(0, 20), values[position], atol=1e-7)


def test_folds_of_a_run_are_averaged_first(tmp_path: Path) -> None:
    rows = table(6, "t")
    folds = [draw(6, seed=i) for i in range(3)]
    other = draw(6, seed=9)
    paths = [save(tmp_path, f"a.fold{i}.test", values, rows, split="test", fold=i) for i, values in enumerate(folds)]
    split = aligned_splits(*paths, save(tmp_path, "b.fold0.test", other, rows, split="test", fold=0))["test"]
    np.testing.assert_allclose(vote(split).probabilities, (sum(folds) / 3 + other) / 2, atol=1e-7)


def test_a_fold_that_is_missing_on_test_is_noted(tmp_path: Path) -> None:
    rows = table(6, "t")
    notes: list[str] = []
    paths = [
        save(tmp_path, f"{run}.fold{i}.test", draw(6, seed=i), rows, split="test", fold=i, folds_sha="f" * 64)
        for run, i in (("a", 0), ("a", 1), ("b", 0))
    ]
    aligned_splits(*paths, notes=notes)
    assert any("b (test) lacks fold 1" in note for note in notes)


def test_different_classes_are_named(tmp_path: Path) -> None:
    paths = [
        save(tmp_path, "a.oof", draw(4), table(4)),
        save(tmp_path, "b.oof", draw(4), table(4), classes=("0", "1", "2", "11")),
    ]
    with pytest.raises(EnsembleError, match="only the first has 10; only the second has 11"):
        aligned_splits(*paths)


def test_contradicting_labels_are_an_error(tmp_path: Path) -> None:
    rows = table(4)
    other = SampleRows(rows.ids, rows.labels[::-1], rows.persons)  # type: ignore[index]
    with pytest.raises(EnsembleError, match="differ for 4 ids"):
        aligned_splits(save(tmp_path, "a.oof", draw(4), rows), save(tmp_path, "b.oof", draw(4), other))


def test_a_repeated_id_is_an_error(tmp_path: Path) -> None:
    rows = table(5).take(np.array([0, 1, 2, 1, 4]))
    with pytest.raises(EnsembleError, match=r"1 of 4 ids are repeated, e\.g\. 'im1'"):
        read_members([save(tmp_path, "a.oof", draw(5), rows)])


def test_a_person_in_two_folds_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EnsembleError, match="person 'pim1' is in folds 0, 1"):
        read_members([save(tmp_path, "a.oof", draw(6), table(6), fold=np.array([0, 0, 1, 0, 1, 1]))])


def test_different_fold_assignments_are_noted(tmp_path: Path) -> None:
    notes: list[str] = []
    paths = [save(tmp_path, f"{name}.oof", draw(6), table(6), folds_sha=name * 64) for name in "ab"]
    aligned_splits(*paths, notes=notes)
    assert any("2 different fold assignments" in note for note in notes)


def test_predictions_over_views_replace_plain_ones(tmp_path: Path) -> None:
    rows, fold = table(20), np.arange(20) // 2 % 5
    plain, over_views = draw(20), draw(20, seed=1)
    (tmp_path / "tta").mkdir()
    index = np.flatnonzero(fold < 2)
    paths = [
        save(tmp_path, "a.oof", plain, rows, samples=rows, fold=fold),
        save(
            tmp_path / "tta",
            "a.oof",
            over_views[index],
            rows.take(index),
            samples=rows,
            fold=fold[index],
            views=("none", "hflip"),
        ),
    ]
    notes: list[str] = []
    split = aligned_splits(*paths, notes=notes)["oof"]
    np.testing.assert_allclose(vote(split).probabilities, np.where((fold < 2)[:, None], over_views, plain), atol=1e-7)
    assert any("views (none, hflip) are used" in note for note in notes)


def test_two_files_for_the_same_predictions_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    paths = [save(tmp_path, "a.oof", draw(6), table(6)), save(tmp_path / "old", "a.oof", draw(6, seed=1), table(6))]
    with pytest.raises(EnsembleError, match="different oof predictions of the same models of run 'a'"):
        aligned_splits(*paths)


def test_uniform_rows_are_valid_probabilities(tmp_path: Path) -> None:
    flat, rows = np.full((6, 4), 0.25, np.float32), table(6)
    split = aligned_splits(save(tmp_path, "a.oof", flat, rows), save(tmp_path, "b.oof", draw(6), rows))["oof"]
    np.testing.assert_allclose(vote(split).probabilities, (flat + draw(6)) / 2, atol=1e-7)
    alone = vote(aligned_splits(save(tmp_path, "a.oof", flat, rows))["oof"], "hard")
    assert alone.probabilities.argmax(1).tolist() == [0] * 6


def test_the_same_file_given_twice_counts_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = save(tmp_path, "a.oof", draw(6), table(6))
    (tmp_path / "link.npy").symlink_to(path)
    (tmp_path / "copy.npy").write_bytes(path.read_bytes())
    (tmp_path / "copy.json").write_text(path.with_suffix(".json").read_text())
    assert len(read_members(find_files([path, path, tmp_path / "link.npy", tmp_path / "copy.npy"]))) == 1
    assert len(caplog.messages) == 3


def test_arrays_without_sidecars_are_test_with_a_note(tmp_path: Path) -> None:
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", draw(7, seed=ord(name)))
    notes: list[str] = []
    splits = aligned_splits(tmp_path / "a.npy", tmp_path / "b.npy", notes=notes)
    assert list(splits) == ["test"]
    assert splits["test"].rows.ids.tolist() == [str(i) for i in range(7)]
    assert any("order not checked" in note for note in notes)
    np.save(tmp_path / "c.npy", draw(8))
    with pytest.raises(EnsembleError, match=r"c\.npy has 8 rows .*a\.npy has 7"):
        aligned_splits(tmp_path / "a.npy", tmp_path / "b.npy", tmp_path / "c.npy")
    np.save(tmp_path / "d.npy", draw(7, classes=3))
    with pytest.raises(EnsembleError, match=r"d\.npy has 3 columns"):
        aligned_splits(tmp_path / "a.npy", tmp_path / "d.npy")


def test_bare_arrays_with_labels_are_out_of_fold(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", draw(4))
    (tmp_path / "labels.csv").write_bytes(
        b"\xef\xbb\xbfid,label,person\r\nx,10\r\n".replace(b"x,10\r\n", b"x,10,p\r\ny,0,p\r\nz,1,q\r\nw,2,q\r\n")
    )
    split = aligned_splits(tmp_path / "a.npy", labels=read_true_labels(tmp_path / "labels.csv"))["oof"]
    assert split.classes == ("0", "1", "2", "10")
    assert split.rows.ids.tolist() == ["x", "y", "z", "w"]
    assert split.rows.persons is not None


def test_an_array_without_a_sidecar_must_match_one_split(tmp_path: Path) -> None:
    oof, test = (
        save(tmp_path, "a.oof", draw(10), table(10)),
        save(tmp_path, "a.fold0.test", draw(6), table(6, "t"), split="test", fold=0),
    )
    np.save(tmp_path / "bare.npy", draw(6, seed=3))
    assert [run.name for run in aligned_splits(oof, test, tmp_path / "bare.npy")["test"].runs] == ["a", "bare"]
    np.save(tmp_path / "bare.npy", draw(7))
    with pytest.raises(EnsembleError, match="oof has 10 samples, test has 6 samples"):
        aligned_splits(oof, test, tmp_path / "bare.npy")
    (tmp_path / "two").mkdir()
    same = save(tmp_path / "two", "a.fold0.test", draw(10), table(10, "t"), split="test", fold=0)
    np.save(tmp_path / "bare.npy", draw(10))
    with pytest.raises(EnsembleError, match="matches two splits"):
        aligned_splits(oof, same, tmp_path / "bare.npy")


def test_files_of_one_name_in_two_folders_are_two_runs(tmp_path: Path) -> None:
    for team in ("x", "y"):
        (tmp_path / team).mkdir()
        (tmp_path / team / "info.csv").write_text(f"ImageID,ans\na,{1 if team == 'x' else 0}\nb,0\n")
    split = aligned_splits(tmp_path / "x" / "info.csv", tmp_path / "y" / "info.csv")["test"]
    assert [run.name for run in split.runs] == ["x/info", "y/info"]


def test_hard_labels_are_aligned_by_id(tmp_path: Path) -> None:
    rows = table(4, "t")
    path = save(tmp_path, "a.fold0.test", draw(4), rows, split="test", fold=0)
    (tmp_path / "info.csv").write_bytes("ImageID,ans\r\nt3,10\r\nt0,1\r\nt2,0\r\nt1,2\r\n".encode("utf-8-sig"))
    split = aligned_splits(path, tmp_path / "info.csv")["test"]
    assert [split.classes[code] for code in split.runs[1].votes(0, 4).argmax(1)] == ["1", "2", "0", "10"]
    (tmp_path / "info.csv").write_text("ImageID,ans\nt3,10\nt0,1\nt2,0\nt1,11\n")
    with pytest.raises(EnsembleError, match=r"'11' \(id 't1'\) is not one of the 4 classes"):
        aligned_splits(path, tmp_path / "info.csv")
    (tmp_path / "info.csv").write_text("ImageID,ans\nt3,10\nt0,1\nt2,0\n")
    with pytest.raises(EnsembleError, match="1 ids differ"):
        aligned_splits(path, tmp_path / "info.csv")


def test_classes_of_a_csv_are_printable_and_ids_may_be_anything(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('id,label\n"x\ny",cat\nz,"do\x1b[2Jg"\n')
    with pytest.raises(EnsembleError, match=r"row 3: the class 'do\\x1b\[2Jg' has control characters"):
        read_true_labels(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text('id,label\n"x\ny",cat\nz,dog\n')
    assert read_true_labels(tmp_path / "a.csv").ids.tolist() == ["x\ny", "z"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("ImageID,ans\na,1\na,2\n", "'a' is in rows 2 and 3"),
        ("a,1\nb,1\n", "expected a header row"),
        ("ImageID,ans\na,\n", "row 2 has no label"),
        ("x,y,z\n1,2,3\n", "expected a column of ids"),
        ("", "is empty"),
    ],
)
def test_an_invalid_csv_of_labels_is_an_error(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "info.csv").write_text(content)
    with pytest.raises(EnsembleError, match=message):
        read_members([tmp_path / "info.csv"])


def test_two_spellings_of_a_number_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,ans\nx,5\ny,1\n")
    (tmp_path / "b.csv").write_text("id,ans\nx,5.0\ny,1.0\n")
    with pytest.raises(EnsembleError, match="two spellings of the same number"):
        aligned_splits(tmp_path / "a.csv", tmp_path / "b.csv")


def test_a_samples_file_is_not_a_member(tmp_path: Path) -> None:
    save(tmp_path, "a.oof", draw(6), table(6), samples=table(6))
    samples = next(tmp_path.glob("samples-*.csv"))
    with pytest.raises(EnsembleError, match="true labels"):
        find_files([samples])


def attribute_files(folder: Path, rows: SampleRows) -> tuple[list[Path], dict[str, NDArray], dict[str, dict[str, str]]]:
    class_attributes = {
        name: {"mask": "no" if i // 2 else "yes", "age": "old" if i % 2 else "young"} for i, name in enumerate(CLASSES)
    }
    values = {"mask": draw(len(rows), 2, 5), "age": draw(len(rows), 2, 6)}
    names = {"mask": ("yes", "no"), "age": ("old", "young")}
    return (
        [save(folder, f"{key}.oof", values[key], rows, target=key, classes=names[key]) for key in names],
        values,
        class_attributes,
    )


def test_attribute_members_are_joined_by_products(tmp_path: Path) -> None:
    rows, label = table(8), draw(8)
    paths, values, class_attributes = attribute_files(tmp_path, rows)
    split = aligned_splits(save(tmp_path, "label.oof", label, rows, class_attributes=class_attributes), *paths)["oof"]
    product = np.empty((8, 4))
    for row in range(8):
        for i, name in enumerate(CLASSES):
            mask = {"yes": 0, "no": 1}[class_attributes[name]["mask"]]
            age = {"old": 0, "young": 1}[class_attributes[name]["age"]]
            product[row, i] = values["mask"][row, mask] * values["age"][row, age]
    assert [run.name for run in split.runs] == ["label", "mask+age"]
    np.testing.assert_allclose(split.runs[1].probabilities(0, 8), product, atol=1e-6)
    np.testing.assert_allclose(vote(split).probabilities, (label + product) / 2, atol=1e-6)


def test_attribute_members_that_cannot_be_joined_are_an_error(tmp_path: Path) -> None:
    rows = table(8)
    paths, _, class_attributes = attribute_files(tmp_path, rows)
    with pytest.raises(EnsembleError, match="no file has class_attributes with these attributes"):
        aligned_splits(*paths)
    plain = save(tmp_path, "label.oof", draw(8), rows)
    with pytest.raises(EnsembleError, match="class_attributes have no mask for class '0'"):
        aligned_splits(plain, *paths)
    label = save(tmp_path, "label.oof", draw(8), rows, class_attributes=class_attributes)
    with pytest.raises(EnsembleError, match="classes '0' and '1' have the same mask"):
        aligned_splits(label, paths[0])


def test_members_of_one_attribute_are_blended(tmp_path: Path) -> None:
    rows = table(8)
    path = save(tmp_path, "mask.oof", draw(8, 2), rows, target="mask", classes=("no", "yes"))
    split = aligned_splits(path)["oof"]
    assert split.target == "mask"
    assert split.rows.labels is None, "labels of the class are not labels of the mask"


def test_select_runs_suggests_close_names(tmp_path: Path) -> None:
    members = read_members(
        [save(tmp_path, "swin.oof", draw(4), table(4)), save(tmp_path, "resnet18.oof", draw(4, seed=1), table(4))]
    )
    assert [member.run for member in select_runs(members, ["swin"])] == ["swin"]
    with pytest.raises(UsageError, match="unknown run 'swim'; did you mean swin"):
        select_runs(members, ["swim"])


def test_non_finite_values_are_an_error_with_row_and_column(tmp_path: Path) -> None:
    values = draw(70_000)
    values[69_999, 2] = np.nan
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(EnsembleError, match=r"a\.npy: row 69999, column 2 is nan"):
        read_members([tmp_path / "a.npy"])


class _Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (str(self.path),)


def test_nothing_read_runs_code(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    np.save(tmp_path / "object.npy", np.array([[_Payload(proof)]], dtype=object), allow_pickle=True)
    (tmp_path / "pickle.npy").write_bytes(pickle.dumps(_Payload(proof)))
    for name in ("object.npy", "pickle.npy"):
        with pytest.raises(EnsembleError, match=f"{name} is not a usable .npy array: .*could run code"):
            read_members([tmp_path / name])
    assert not proof.exists()
    pickle.loads((tmp_path / "pickle.npy").read_bytes())
    assert proof.exists(), "the payload must work, otherwise the test proves nothing"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda npy, side: npy.write_bytes(npy.read_bytes()[:-9]), "is not a usable .npy"),
        (lambda npy, side: npy.write_bytes(b""), "is not a usable .npy"),
        (lambda npy, side: np.save(npy, draw(9)), "is 9 × 4, but a.oof.json describes 8 samples × 4 classes"),
        (lambda npy, side: np.save(npy, np.ones((2, 2, 2))), "expected a 2-D array"),
        (lambda npy, side: np.save(npy, np.full((8, 4), "x")), "expected numbers"),
        (lambda npy, side: side.write_text("{"), "a.oof.json is not JSON"),
        (lambda npy, side: side.write_text("[]"), "is not a sidecar"),
        (
            lambda npy, side: side.write_text(
                json.dumps(json.loads(side.read_text()) | {"classes": ["0", "1", "1", "2"]})
            ),
            "repeats a class",
        ),
        (
            lambda npy, side: side.write_text(json.dumps(json.loads(side.read_text()) | {"kind": "odds"})),
            "'kind' is 'odds'",
        ),
    ],
)
def test_a_damaged_file_is_an_error_with_name_and_reason(tmp_path: Path, spoil, message: str) -> None:  # type: ignore[no-untyped-def]
    path = save(tmp_path, "a.oof", draw(8), table(8))
    spoil(path, path.with_suffix(".json"))
    with pytest.raises(EnsembleError, match=message) as caught:
        read_members([path])
    assert str(tmp_path) in caught.value.message


def test_no_files_are_an_error_and_one_is_enough(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected at least one prediction file"):
        find_files([])
    assert read_members([]) == []
    assert len(read_members([save(tmp_path, "a.oof", draw(4), table(4))])) == 1


def test_an_unexpanded_pattern_is_expanded_or_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EnsembleError, match=r"no file matches runs/\*\.npy") as caught:
        find_files([Path("runs/*.npy")])
    assert "ensemble kfold" in str(caught.value.hint)
    save(tmp_path / "runs", "a.oof", draw(4), table(4))
    assert find_files([Path("runs/*.npy")]) == [Path("runs/a.oof.npy")]
    with pytest.raises(EnsembleError) as caught:
        find_files([Path("run/*.npy")])
    assert "runs/a.oof.npy" in str(caught.value.hint)
    for wrong, message in (
        ("runs", "is a folder"),
        ("runs/a.oof.json", "sidecars are found automatically"),
        ("runs/b.oof.npy", r"did you mean runs/a\.oof\.npy"),
    ):
        with pytest.raises(EnsembleError, match=message):
            find_files([Path(wrong)])
