"""Equal predictions count once for any file names, unless duplicates are allowed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ensemble.alignment.align import align
from ensemble.members.deduplication import named_apart, without_copies
from ensemble.members.discovery import find_files
from ensemble.members.reading import Member, read_members
from ensemble.voting.vote import vote
from folds.predictions.files import PredictionMetadata, SampleRows, write_prediction

Read = Callable[..., tuple[list[Member], list[str]]]
ROWS = SampleRows(np.array(["x", "y", "z"]))


def draw(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(3), 3).astype(np.float32)


def save(folder: Path, name: str, values: np.ndarray, **more: object) -> Path:
    sidecar = PredictionMetadata("probability", "test", ("a", "b", "c"), ROWS, run=name.split(".")[0])
    return write_prediction(folder / f"{name}.npy", values, replace(sidecar, **more))  # type: ignore[arg-type]


@pytest.fixture
def read(caplog: pytest.LogCaptureFixture) -> Read:
    """Return a function that reads members as a blend does and returns members and warnings."""

    def once(paths: list[Path], allow: bool = False) -> tuple[list[Member], list[str]]:
        caplog.clear()
        members = named_apart(read_members(find_files(paths, allow), allow_duplicates=allow))
        return members if allow else without_copies(members), caplog.messages[:]

    return once


@pytest.mark.parametrize("kind", ["bare", "sidecar", "csv", "bare beside sidecar", "the file itself"])
def test_a_duplicate_counts_once_with_a_warning(tmp_path: Path, kind: str, read: Read) -> None:
    if kind == "csv":
        for name, text in (("a", "id,ans\nx,a\ny,b\nz,c\n"), ("b", "id,ans\nx,a\ny,a\nz,a\n")):
            (tmp_path / f"{name}.csv").write_text(text)
        one, other, copy = tmp_path / "a.csv", tmp_path / "b.csv", tmp_path / "again.csv"
        shutil.copy(one, copy)
    else:
        one, other, copy = save(tmp_path, "a", draw(0)), save(tmp_path, "b", draw(1)), tmp_path / "again.npy"
        shutil.copy(one, copy)
        if kind == "sidecar":
            save(tmp_path, "again", draw(0))
        if kind == "bare":
            one.with_suffix(".json").unlink()
            other.with_suffix(".json").unlink()
        if kind == "the file itself":
            copy = one
    members, warnings = read([one, other, copy])
    assert [member.run for member in members] == ["a", "b"]
    assert len(warnings) == 1
    assert "`allow_duplicates`" in warnings[0]
    assert str(copy) in warnings[0]
    members, no_warnings = read([one, other, copy], allow=True)
    assert no_warnings == []
    split = align(members).splits["test"]
    assert len(split.runs) == 3
    equal = sum(np.array_equal(run.votes(0, 3), split.runs[0].votes(0, 3)) for run in split.runs)
    assert equal == 2
    if kind != "csv":
        np.testing.assert_allclose(vote(split).probabilities, (2 * draw(0) + draw(1)) / 3, atol=1e-6)


def test_equal_folds_are_kept_and_a_renamed_run_is_a_duplicate(tmp_path: Path, read: Read) -> None:
    flat = np.full((3, 3), 1 / 3, np.float32)
    own = [save(tmp_path, f"a.fold{fold}", values, fold=fold) for fold, values in enumerate((flat, flat, draw(0)))]
    members, warnings = read(own)
    assert len(members) == 3
    assert warnings == []
    renamed = [save(tmp_path, f"b.fold{fold}", values, fold=fold) for fold, values in enumerate((flat, flat, draw(0)))]
    members, warnings = read([*own, *renamed])
    assert [member.run for member in members] == ["a"] * 3
    assert len(warnings) == 1
    other = save(tmp_path, "b.fold1", draw(2), fold=1)
    assert len(read([*own, renamed[0], other, renamed[2]])[0]) == 6, (
        "a run that shares only some files is not a duplicate"
    )


def test_equal_values_of_other_samples_are_not_duplicates(tmp_path: Path, read: Read) -> None:
    paths = [save(tmp_path, "a", draw(0)), save(tmp_path, "b", draw(0), classes=("b", "a", "c"))]
    paths.append(save(tmp_path, "c", draw(0), rows=SampleRows(ROWS.ids[::-1].copy())))
    members, warnings = read(paths)
    assert len(members) == 3
    assert warnings == []


def test_allowed_duplicates_are_separate_runs(tmp_path: Path, read: Read) -> None:
    path = save(tmp_path, "a", draw(0))
    assert [member.run for member in read([path, path, path], allow=True)[0]] == ["a", "a#2", "a#3"]
    path.with_suffix(".json").unlink()
    assert [member.run for member in read([path, path], allow=True)[0]] == ["a", "a#2"]
