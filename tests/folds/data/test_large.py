"""What makes large tables quick and small, held to the plain way of saying the same."""

from __future__ import annotations

import hashlib
import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from folds.data import image_files
from folds.data.image_paths import ImagePaths, normal_path
from folds.data.readers import read_data
from folds.data.table import DataSpec, SampleTable
from folds.errors import EnsembleError
from folds.splits.assignment import FoldAssignment, load_folds, save_folds
from folds.splits.checks import check_folds
from folds.splits.kfold import split_by_person
from folds.utils.csv_table import RowLocations

FOLDER = Path("/data/set")
name = st.lists(st.sampled_from(["a", "b.jpg", ".", "..", "", " ", "é", "a..b", ".x", "\n"]), min_size=1, max_size=4)
names = st.lists(st.builds(str.__add__, st.sampled_from(["", "", "", "/", "//"]), name.map("/".join)), max_size=6)


def written(folder: Path, rows: int = 40_000, seed: int = 0) -> Path:
    """A CSV of `rows` images in an order of its own, of a person for each four."""
    order = np.random.default_rng(seed).permutation(rows).tolist()
    lines = [f"images/p{i // 4:05d}/{i:06d}.jpg,{'abc'[i * 7 % 3]},p{i // 4:05d}\n" for i in order]
    path = folder / "t.csv"
    path.write_text("path,label,person\n" + "".join(lines))
    return path


@settings(max_examples=300, deadline=None)
@given(names)
def test_paths_made_when_asked_for_are_those_of_pathlib(names):
    paths, expected = ImagePaths(FOLDER, names), [FOLDER / each for each in names]
    assert paths == expected
    assert list(paths.texts()) == [str(path) for path in expected]
    same = [[one == other for other in map(normal_path, expected)] for one in map(normal_path, expected)]
    assert [[one == other for other in paths.keys()] for one in paths.keys()] == same  # noqa: SIM118


@pytest.mark.parametrize("as_array", [False, True])
def test_paths_are_taken_cut_and_pickled(as_array):
    names = ["a.jpg", "b/c.jpg", "/x/d.jpg"]
    paths = ImagePaths(FOLDER, np.array(names) if as_array else names)
    assert paths[-1] == Path("/x/d.jpg")
    assert paths[:2] == (FOLDER / "a.jpg", FOLDER / "b/c.jpg")
    assert paths.take([2, 0]) == (Path("/x/d.jpg"), FOLDER / "a.jpg")
    assert pickle.loads(pickle.dumps(paths)) == paths
    assert type(str(paths[0])) is str


@pytest.mark.parametrize("need_images", [False, True])
def test_a_sound_table_is_read_without_a_path_or_a_location(tmp_path, monkeypatch, need_images):
    path = written(tmp_path, 12)
    for row in path.read_text().splitlines()[1:]:
        image = tmp_path / row.split(",")[0]
        image.parent.mkdir(parents=True, exist_ok=True)
        image.touch()

    def made(*args):
        raise AssertionError("made for a message that nobody reads")

    monkeypatch.setattr(ImagePaths, "__getitem__", made)
    monkeypatch.setattr(RowLocations, "__getitem__", made)
    assert len(read_data(DataSpec(path), need_images=need_images).train) == 12


def test_folders_are_listed_once_and_missing_images_sorted(tmp_path, monkeypatch):
    path = written(tmp_path, 60)
    order = [row.split(",")[0] for row in path.read_text().splitlines()[1:]]
    for row in order:
        (tmp_path / row).parent.mkdir(parents=True, exist_ok=True)
        if row != order[7] and row != order[3]:
            (tmp_path / row).touch()
    listed: list[str] = []
    file_names = image_files._file_names
    monkeypatch.setattr(image_files, "_file_names", lambda folder: listed.append(folder) or file_names(folder))
    with pytest.raises(EnsembleError) as error:
        read_data(DataSpec(path))
    assert [line.split(":")[0] for line in error.value.details] == ["t.csv row 5", "t.csv row 9"]
    assert len(listed) == 15 + 2


def test_the_sha_of_a_table_is_that_of_one_json_text(tmp_path):
    table = read_data(DataSpec(written(tmp_path)), need_images=False).train
    for each in (table, table.take(np.arange(0)), table.take(np.arange(1)), replace(table, persons=None)):
        columns = [None if column is None else column.tolist() for column in (each.ids, each.labels, each.persons)]
        text = json.dumps([*columns, each.classes], ensure_ascii=True)
        assert each.sha == hashlib.sha256(text.encode()).hexdigest()


def fold_sha(assignment: FoldAssignment) -> str:
    pairs = sorted(zip(assignment.ids.tolist(), assignment.fold.tolist()))
    return hashlib.sha256("\n".join(f"{fold} {name}" for name, fold in pairs).encode()).hexdigest()


def test_the_sha_of_folds_is_that_of_sorted_pairs(tmp_path):
    assignment = split_by_person(read_data(DataSpec(written(tmp_path)), need_images=False).train, 5)
    assert assignment.sha == fold_sha(assignment)


@pytest.mark.parametrize("at", [0, 100, (1 << 14) - 1, 1 << 14, 39_998])
def test_the_sha_of_folds_sorts_a_repeated_id_by_fold(at):
    ids = np.array([f"é{i:06d}" for i in range(40_000)])
    ids[at + 1] = ids[at]
    fold = np.arange(len(ids))[::-1] % 3
    assignment = FoldAssignment(ids, ids, ids, fold, 3, 0)
    assert assignment.sha == fold_sha(assignment)
    assert FoldAssignment(ids[:0], ids[:0], ids[:0], fold[:0], 3, 0).sha == hashlib.sha256(b"").hexdigest()


def test_folds_in_another_order_are_lined_up(tmp_path):
    table = read_data(DataSpec(written(tmp_path, 400)), need_images=False).train
    assignment = split_by_person(table, 5)
    save_folds(tmp_path / "f.csv", assignment)
    head, *lines = (tmp_path / "f.csv").read_text().splitlines()
    (tmp_path / "g.csv").write_text("\n".join([head, *sorted(lines, reverse=True)]))
    for name in ("f.csv", "g.csv"):
        loaded = load_folds(tmp_path / name, table)
        assert np.array_equal(loaded.fold, assignment.fold)
        assert loaded.ids is table.ids
        assert loaded.factorized_persons is table.factorized_persons


def test_codes_shared_with_the_table_are_those_of_the_persons(tmp_path):
    table = read_data(DataSpec(written(tmp_path, 400)), need_images=False).train
    names, codes = np.unique(table.persons, return_inverse=True)
    for each in (table, split_by_person(table, 5), table.take(np.arange(len(table))[::-1]).take(np.arange(400)[::-1])):
        assert each.factorized_persons[0] == names.tolist()
        assert np.array_equal(each.factorized_persons[1], codes)
    other = replace(split_by_person(table, 5), persons=table.ids).with_codes_of(table)
    assert len(other.factorized_persons[0]) == 400


def test_a_person_in_two_folds_is_counted_in_each(tmp_path):
    table = read_data(DataSpec(written(tmp_path, 400)), need_images=False).train
    assignment = split_by_person(table, 5)
    mine = np.flatnonzero(table.persons == "p00007")
    fold = assignment.fold.copy()
    fold[mine[0]] = (fold[mine[0]] + 1) % 5
    with pytest.raises(EnsembleError) as error:
        check_folds(replace(assignment, fold=fold), table.classes)
    count = {int(f): int((fold[mine] == f).sum()) for f in sorted(set(fold[mine].tolist()))}
    parts = [f"fold {f} ({n} sample{'s' if n > 1 else ''})" for f, n in count.items()]
    assert error.value.details == (f"p00007: {', '.join(parts)}",)


def test_an_attribute_of_any_kind_is_an_array_of_text(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("path,label,person,site,note\na,x,p,s,n1\nb,y,q,s,\nc,x,r,t,n3\n")
    table: SampleTable = read_data(DataSpec(path), need_images=False).train
    assert table.attributes["site"].tolist() == ["s", "s", "t"]
    assert table.attributes["note"].tolist() == ["n1", "", "n3"]
    assert all(values.dtype.kind == "U" for values in table.attributes.values())
