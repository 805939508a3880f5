from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from folds.errors import EnsembleError
from folds.predictions import files as predictions
from folds.predictions.files import (
    PredictionMetadata,
    SampleRows,
    read_array,
    read_samples_file,
    read_sidecar,
    sidecar_path,
    write_prediction,
    write_samples,
)
from folds.utils.files import sha256_bytes
from folds.utils.text import sort_classes

CLASSES = ("0", "1", "10")


def table(n: int = 6) -> SampleRows:
    names = np.array([f"person{i // 2}/{i}.jpg" for i in range(n)])
    labels, persons = np.array([CLASSES[i % 3] for i in range(n)]), np.array([f"person{i // 2}" for i in range(n)])
    return SampleRows(names, labels, persons, {"mask": np.array(["worn", "not"] * n)[:n]})


def values_for(n: int, seed: int = 0) -> NDArray:
    return np.random.default_rng(seed).dirichlet(np.ones(3), n)


def sidecar_for(rows: SampleRows, **more: Any) -> PredictionMetadata:
    return PredictionMetadata("probability", "oof", CLASSES, rows, **more)


def same_rows(one: SampleRows, other: SampleRows) -> bool:
    def listed(rows: SampleRows) -> list[Any]:
        columns = [rows.ids, rows.labels, rows.persons, *rows.attributes.values()]
        return [list(rows.attributes), *(None if column is None else column.tolist() for column in columns)]

    return listed(one) == listed(other)


def test_a_prediction_with_inline_rows_is_read_as_written(tmp_path: Path) -> None:
    rows = SampleRows(table().ids, table().labels, table().persons)
    written = PredictionMetadata(
        kind="logit",
        split="test",
        classes=CLASSES,
        rows=rows,
        target="mask",
        class_attributes={"0": {"mask": "worn"}, "10": {"mask": "not"}},
        fold=2,
        run="swin",
        arch="swin_tiny",
        seed=7,
        repeat=1,
        views=("identity", "hflip"),
        folds_sha="f" * 64,
        checkpoint_sha="c" * 64,
        created="2024-05-01T12:00:00+00:00",
    )
    values = values_for(6)
    path = write_prediction(tmp_path / "swin.fold2.test.npy", values, written)
    read = read_sidecar(path)
    assert read is not None
    assert same_rows(read.rows, rows)
    assert replace(read, rows=rows) == written
    array = read_array(path)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, values.astype(np.float32))
    assert sorted(found.name for found in tmp_path.iterdir()) == ["swin.fold2.test.json", "swin.fold2.test.npy"]


def test_a_prediction_with_referenced_rows_is_read_as_written(tmp_path: Path) -> None:
    folds = np.array([0, 1, 2, 0, 1, 2])
    shas = {"0": "a", "1": "b", "2": "c"}
    path = write_prediction(
        tmp_path / "swin.oof.npy", values_for(6), sidecar_for(table(), fold=folds, checkpoint_sha=shas), samples=table()
    )
    record = json.loads(sidecar_path(path).read_text())
    assert not {"ids", "labels", "persons", "rows"} & set(record)
    read = read_sidecar(path)
    assert read is not None
    assert same_rows(read.rows, table())
    assert isinstance(read.fold, np.ndarray)
    assert read.fold.tolist() == folds.tolist()
    assert read.checkpoint_sha == shas
    assert read.samples_sha == sha256_bytes((tmp_path / record["samples"]).read_bytes())


@pytest.mark.parametrize("index", [[0, 2, 3], [5, 1, 4, 0, 2, 3], [3]])
def test_some_of_the_samples_in_any_order_keep_their_names(tmp_path: Path, index: list[int]) -> None:
    some = table().take(np.array(index))
    path = write_prediction(tmp_path / "a.oof.npy", values_for(len(index)), sidecar_for(some), samples=table())
    read = read_sidecar(path)
    assert read is not None
    assert same_rows(read.rows, some)
    assert read.rows.ids.tolist() == [table().ids[i] for i in index]


def test_files_of_one_table_share_a_samples_file_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        write_prediction(tmp_path / f"{name}.oof.npy", values_for(6), sidecar_for(table()), samples=table())
    assert len(list(tmp_path.glob("samples-*.csv"))) == 1
    parsed: list[Path] = []
    read = read_samples_file
    monkeypatch.setattr(
        predictions, "read_samples_file", lambda path, sha=None: (parsed.append(path), read(path, sha))[1]
    )
    cache: dict[str, SampleRows] = {}
    sidecars = [read_sidecar(tmp_path / f"{name}.oof.npy", cache) for name in ("a", "b", "c")]
    assert len(parsed) == 1
    assert len({id(sidecar.rows) for sidecar in sidecars if sidecar}) == 1


def test_another_table_gets_a_samples_file_of_its_own(tmp_path: Path) -> None:
    assert write_samples(tmp_path, table(6)) == write_samples(tmp_path, table(6))
    assert write_samples(tmp_path, table(6)) != write_samples(tmp_path, table(4))
    assert len(list(tmp_path.glob("samples-*.csv"))) == 2


def test_the_sidecar_is_written_before_its_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    replaced = Path.replace
    monkeypatch.setattr(
        Path, "replace", lambda self, target: (order.append(Path(target).suffix), replaced(self, target))[1]
    )
    write_prediction(tmp_path / "a.oof.npy", values_for(6), sidecar_for(table()), samples=table())
    assert order == [".csv", ".json", ".npy"]


def test_a_bare_array_has_no_sidecar(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", values_for(6))
    assert read_sidecar(tmp_path / "a.npy") is None


def test_a_sidecar_without_a_run_is_named_after_its_file(tmp_path: Path) -> None:
    path = write_prediction(tmp_path / "mine.v2.oof.npy", values_for(6), sidecar_for(table()))
    assert sidecar_path(path).name == "mine.v2.oof.json"
    read = read_sidecar(path)
    assert read is not None
    assert read.run == "mine.v2"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["10", "9", "0", "9"], ("0", "9", "10")),
        (["-1", "3", "-20"], ("-20", "-1", "3")),
        (["b", "a", "10", "9"], ("10", "9", "a", "b")),
        (["01", "1", "0"], ("0", "01", "1")),
        (["²", "1"], ("1", "²")),
        ([], ()),
    ],
)
def test_classes_sort_as_numbers_where_all_are_integers(names: list[str], expected: tuple[str, ...]) -> None:
    assert sort_classes(names) == expected


@given(st.lists(st.text("0123", min_size=1, max_size=3)))
def test_the_order_of_classes_depends_on_the_names_alone(names: list[str]) -> None:
    assert sort_classes(names) == sort_classes(list(reversed(names)))
    assert set(sort_classes(names)) == set(names)


# NUL ends a numpy string, and lone surrogates are no text; anything else may stand in a file name.
text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)
awkward = text | st.sampled_from(
    ["a,b", 'say "x"', "two\nlines", "back\rslash", "Zoë/ÄÖ 张.jpg", " spaced ", "\ufeffmark", "''", ";\t", "=1+1"]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(awkward, awkward, awkward | st.just("")), min_size=1, max_size=6))
def test_any_text_survives_the_samples_file(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]]
) -> None:
    ids, labels, mask = (np.array(column) for column in zip(*rows, strict=True))
    written = SampleRows(ids, labels, None, {"mask, worn": mask})
    folder = tmp_path_factory.getbasetemp() / "awkward"
    name, sha = write_samples(folder, written)
    assert same_rows(read_samples_file(folder / name, sha), written)


def test_any_text_survives_inline(tmp_path: Path) -> None:
    rows = SampleRows(np.array(["a,b", 'say "x"', "two\nlines", "cr\r", "Zoë 张"]))
    path = write_prediction(tmp_path / "a.npy", values_for(5), sidecar_for(rows))
    read = read_sidecar(path)
    assert read is not None
    assert same_rows(read.rows, rows)


def refused(call: Callable[[], object], *parts: str) -> EnsembleError:
    """The error of `call`, which must be exactly an EnsembleError and say all `parts`."""
    with pytest.raises(EnsembleError) as error:
        call()
    assert type(error.value) is EnsembleError
    for part in parts:
        assert part in error.value.message
    return error.value


@pytest.fixture
def referring(tmp_path: Path) -> tuple[Path, Path]:
    """A prediction that refers to a samples file, and that file."""
    path = write_prediction(
        tmp_path / "a.oof.npy", values_for(3), sidecar_for(table().take(np.array([0, 2, 3]))), samples=table()
    )
    return path, next(tmp_path.glob("samples-*.csv"))


def test_a_samples_file_changed_afterwards_is_refused(referring: tuple[Path, Path]) -> None:
    path, samples = referring
    samples.write_text(samples.read_text().replace("person0/0.jpg", "person0/9.jpg"))
    error = refused(lambda: read_sidecar(path), str(samples), "was changed after the predictions were written")
    assert "restore it" in str(error.hint)


def test_a_missing_samples_file_is_an_error_that_names_it(referring: tuple[Path, Path]) -> None:
    path, samples = referring
    samples.unlink()
    error = refused(lambda: read_sidecar(path), str(samples), "is missing")
    assert "samples-*.csv" in str(error.hint)


@pytest.mark.parametrize("where", ["../secret.csv", "/etc/passwd", "sub/s.csv", "..", "", ".", "a\0b"])
def test_samples_outside_the_folder_are_never_read(
    referring: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    path, _ = referring
    (path.parent.parent / "secret.csv").write_text("id\nx\n")
    change(path, samples=where)
    monkeypatch.setattr(predictions, "read_samples_file", lambda *_: pytest.fail("was read"))
    refused(lambda: read_sidecar(path), str(sidecar_path(path)), "must be a file in the same folder", where)


def test_a_folder_in_place_of_the_samples_file_is_an_error(referring: tuple[Path, Path]) -> None:
    path, samples = referring
    samples.unlink()
    samples.mkdir()
    refused(lambda: read_sidecar(path), str(samples), "cannot be read")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"name,label\na,1\n", "has no column 'id'"),
        (b"", "has no column 'id'"),
        (b"id,label\n", "has no rows"),
        (b"id,label\na,1\nb\n", "row 3 of the samples file"),
        (b"id,label\n\xff\xfe,1\n", "is not a CSV in UTF-8"),
    ],
)
def test_a_samples_file_that_is_none_is_an_error_that_names_it(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "samples-1.csv").write_bytes(content)
    refused(lambda: read_samples_file(tmp_path / "samples-1.csv"), str(tmp_path / "samples-1.csv"), says)


def test_a_long_id_is_read(tmp_path: Path) -> None:
    (tmp_path / "samples-1.csv").write_bytes(b"id\n" + b"x" * 200_000 + b"\n")
    assert read_samples_file(tmp_path / "samples-1.csv").ids.tolist() == ["x" * 200_000]


def change(path: Path, **entries: Any) -> None:
    beside = sidecar_path(path)
    record = json.loads(beside.read_text()) | entries
    beside.write_text(
        json.dumps({key: value for key, value in record.items() if value is not ...}, default=lambda _: None)
    )


@pytest.fixture
def inline(tmp_path: Path) -> Path:
    rows = SampleRows(table().ids, table().labels, table().persons)
    return write_prediction(tmp_path / "a.oof.npy", values_for(6), sidecar_for(rows))


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"schema": 2}, "has schema 2, this version reads 1"),
        ({"kind": "score"}, "'kind' is 'score', expected probability or logit"),
        ({"kind": ["logit"]}, "'kind' is ['logit']"),
        ({"split": "train"}, "'split' is 'train', expected oof or test"),
        ({"classes": "abc"}, "expected an object with 'classes'"),
        ({"fold": [0, 1]}, "'fold' has 2 entries for 6 rows"),
        ({"fold": "0"}, "'fold' is '0', expected a whole number from 0, or one per row"),
        ({"fold": [0, 1, 2, 0, 1, None]}, "'fold' is [0, 1, 2, 0, 1, None], expected a whole number"),
        ({"fold": 1.5}, "'fold' is 1.5, expected a whole number"),
        ({"fold": 10**30}, "'fold' is 1000000000000000000000000000000, expected a whole number"),
        ({"fold": True}, "'fold' is True, expected a whole number"),
        ({"run": 5}, "'run' is 5, expected text"),
        *(
            ({name: ["a"]}, f"'{name}' is ['a'], expected ")
            for name in ("run", "seed", "repeat", "target", "folds_sha", "checkpoint_sha", "arch")
        ),
        *(
            ({name: {"a": 1}}, f"'{name}' is {{'a': 1}}, expected ")
            for name in ("run", "seed", "repeat", "target", "folds_sha", "created", "views")
        ),
        ({"seed": 10**30}, "'seed' is 1000000000000000000000000000000, expected a whole number"),
        ({"views": [["a"]]}, "'views' is [['a']], expected a list of texts without control characters"),
        ({"classes": [["a"], "b", "c"]}, "'classes' is [['a'], 'b', 'c'], expected a list"),
        (
            {"class_attributes": {"0": None}},
            "'class_attributes' is {'0': None}, expected an object: class → attribute → value",
        ),
        ({"class_attributes": {"0": "abc"}}, "'class_attributes' is {'0': 'abc'}, expected an object"),
        ({"labels": ["0", "1"]}, "'labels' has 2 entries for 6 ids"),
        ({"persons": []}, "'persons' has 0 entries for 6 ids"),
        ({"ids": "abcdef"}, "'ids' must be a list"),
        ({"ids": [["a"], ["b", "c"]]}, "'ids' must be a list with one entry per row"),
        ({"ids": None}, "names no samples"),
        ({"ids": None, "samples": "s.csv"}, "names no samples"),
        ({"views": "hflip"}, "'views' is 'hflip', expected a list"),
        ({"class_attributes": ["mask"]}, "'class_attributes' is ['mask'], expected an object"),
        *(
            ({name: "a\nerror: b"}, f"'{name}' is 'a\\nerror: b', expected text without control characters")
            for name in ("run", "target", "arch")
        ),
        (
            {"classes": ["0", "1", "\x1b[2J"]},
            "'classes' is ['0', '1', '\\x1b[2J'], expected a list of entries (text without control characters",
        ),
        (
            {"views": ["none", "\ud800"]},
            "'views' is ['none', '\\ud800'], expected a list of texts without control characters",
        ),
        ({"class_attributes": {"0": {"mask": "\x9b2J"}}}, "'class_attributes' is"),
        ({"class_attributes": {"0": {"\x7f": "worn"}}}, "'class_attributes' is"),
    ],
)
def test_a_wrong_sidecar_is_refused_naming_file_and_field(inline: Path, entries: dict[str, Any], says: str) -> None:
    change(inline, **entries)
    refused(lambda: read_sidecar(inline), str(sidecar_path(inline)), says)


@pytest.mark.parametrize("content", ["[1, 2]", '"text"', "null"])
def test_a_sidecar_that_is_no_object_is_refused(inline: Path, content: str) -> None:
    sidecar_path(inline).write_text(content)
    refused(lambda: read_sidecar(inline), str(sidecar_path(inline)), "is not a sidecar")


def test_a_damaged_sidecar_is_an_error_and_not_a_bare_array(inline: Path) -> None:
    beside = sidecar_path(inline)
    beside.write_text(beside.read_text()[:100])
    refused(lambda: read_sidecar(inline), str(beside), "is not JSON")


@pytest.mark.parametrize(
    "rows",
    [
        [0, 1, 6],
        [-1, 0, 1],
        [],
        [0.0, 1.0, 2.0],
        ["0", "1"],
        [True, False],
        [[0, 1], [1, 2]],
        [[0], [1, 2]],
        3,
        [2**70],
        "012",
    ],
)
def test_rows_outside_the_samples_file_are_refused(referring: tuple[Path, Path], rows: Any) -> None:
    path, samples = referring
    change(path, rows=rows)
    refused(
        lambda: read_sidecar(path), str(sidecar_path(path)), f"'rows' must be positions in the 6 rows of {samples.name}"
    )


def test_integers_as_ids_and_classes_are_read_as_text(inline: Path) -> None:
    change(inline, ids=[3, 2, 1, 10, 11, 12], classes=[0, 1, 10])
    read = read_sidecar(inline)
    assert read is not None
    assert read.rows.ids.tolist() == ["3", "2", "1", "10", "11", "12"]
    assert read.classes == CLASSES


@pytest.mark.parametrize("shape", [(5, 3), (6, 2), (6,), (3, 6)])
def test_values_of_another_shape_are_not_written(tmp_path: Path, shape: tuple[int, ...]) -> None:
    refused(
        lambda: write_prediction(tmp_path / "a.npy", np.ones(shape), sidecar_for(table())),
        str(tmp_path / "a.npy"),
        f"{shape}",
        "(6, 3)",
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_non_finite_values_are_refused_naming_the_sample(tmp_path: Path, value: float) -> None:
    values = values_for(6)
    values[4, 1] = value
    with np.errstate(over="ignore"):
        error = refused(
            lambda: write_prediction(tmp_path / "a.npy", values, sidecar_for(table())),
            "sample 'person2/4.jpg' is not finite",
        )
    assert "`lr`" in str(error.hint)
    assert not list(tmp_path.iterdir())


class Payload:
    """Unpickled, it would leave a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("form", ["object array", "bare pickle", "object array in an archive"])
def test_a_file_that_could_run_code_is_refused_and_not_run(tmp_path: Path, form: str) -> None:
    path, trace = tmp_path / "a.npy", tmp_path / "was-run"
    array = np.array([[Payload(trace)]], dtype=object)
    if form == "object array":
        np.save(path, array, allow_pickle=True)
    elif form == "bare pickle":
        path.write_bytes(pickle.dumps(array))
    else:
        with path.open("wb") as file:
            np.savez(file, a=array)
    error = refused(lambda: read_array(path), str(path))
    assert not trace.exists()
    if "archive" not in form:
        assert "could run code" in error.message
        assert "np.save" in str(error.hint)
    pickle.loads(pickle.dumps(Payload(trace)))
    assert trace.exists(), "the payload does nothing: this test could not fail"


def saved(array: Any, **how: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **how)
    return file.getvalue()


def archive() -> bytes:
    file = io.BytesIO()
    np.savez(file, a=np.ones((3, 2)))
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (saved(np.ones((4, 3)))[:-8], "is not a usable .npy array"),
        (saved(np.ones((4, 3)))[:60], "is not a usable .npy array"),
        (saved(np.ones((4, 3)))[:6], "is not a usable .npy array"),
        (b"", "is not a usable .npy array"),
        (b"id,ans\na,1\n", "has no .npy header"),
        (archive(), "found an archive"),
        (archive()[:100], "is not a usable .npy array"),
        (saved(np.ones(4)), "expected a 2-D array (samples, classes), found (4,)"),
        (saved(np.ones((2, 2, 2))), "found (2, 2, 2)"),
        (saved(np.float32(1)), "found ()"),
        (saved(np.ones((0, 3))), "found (0, 3)"),
        (saved(np.ones((3, 0))), "found (3, 0)"),
        (saved(np.array([["a", "b"]])), "expected numbers, found dtype <U1"),
        (saved(np.ones((2, 2), complex)), "expected numbers, found dtype complex128"),
        (saved(np.ones((2, 2), bool)), "expected numbers, found dtype bool"),
    ],
)
def test_a_file_without_a_prediction_array_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    refused(lambda: read_array(path), str(path), says)


def test_a_missing_array_is_an_error_that_names_it(tmp_path: Path) -> None:
    refused(lambda: read_array(tmp_path / "a.npy"), f"there is no prediction file {tmp_path / 'a.npy'}")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 127), st.integers(0, 255)), min_size=1, max_size=3))
@pytest.mark.filterwarnings("ignore")
def test_no_damaged_header_is_more_than_an_error(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    content = bytearray(saved(np.ones((4, 3), np.float32)))
    for place, value in changes:
        content[place] = value
    path = tmp_path_factory.getbasetemp() / "damaged.npy"
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    try:
        assert read_array(path).ndim == 2
    except EnsembleError as error:
        assert str(path) in error.message  # noqa: PT017 - either outcome is right


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int64, np.uint8, ">f4"])
def test_any_number_type_and_memory_order_is_read_unchanged(tmp_path: Path, dtype: Any) -> None:
    values = np.asfortranarray(np.arange(6).reshape(3, 2).astype(dtype))
    np.save(tmp_path / "a.npy", values)
    np.testing.assert_array_equal(read_array(tmp_path / "a.npy"), values)


def test_an_array_is_mapped_and_not_writable(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((3, 2)))
    values = read_array(tmp_path / "a.npy")
    assert isinstance(values, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        values[0, 0] = 2


def test_rows_are_taken_with_all_their_columns() -> None:
    taken = table().take(np.array([4, 0]))
    assert len(taken) == 2
    assert taken.ids.tolist() == ["person2/4.jpg", "person0/0.jpg"]
    assert taken.labels is not None
    assert taken.persons is not None
    assert [taken.labels.tolist(), taken.persons.tolist()] == [["1", "0"], ["person2", "person0"]]
    assert taken.attributes["mask"].tolist() == ["worn", "worn"]
    assert SampleRows(table().ids).take(np.array([1])).labels is None


def test_columns_of_the_same_name_are_one_clear_error(tmp_path: Path) -> None:
    rows = SampleRows(np.array(["1", "2"]), np.array(["a", "-"]), np.array(["p", "q"]))
    path = tmp_path / "r.oof.npy"
    made = PredictionMetadata("probability", "oof", ("a", "b"), rows, run="r", task="multilabel")
    write_prediction(path, np.full((2, 2), 0.5, np.float32), made)
    for wrong in (["a", "a"], ["a;b", "c"]):
        beside = path.with_suffix(".json")
        record = json.loads(beside.read_text(encoding="utf-8")) | {"classes": wrong}
        beside.write_text(json.dumps(record), encoding="utf-8")
        with pytest.raises(EnsembleError, match=r"r\.oof\.json"):
            read_sidecar(path)
