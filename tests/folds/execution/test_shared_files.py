"""Whether a machine sees what a job reads and writes, tried in one place that changes between the two looks."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from folds.errors import EnsembleError
from folds.execution.shared_files import file_manifest, mark_folders, missing_here
from folds.training.job import Job


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.chdir(tmp_path)
    for path, size in {
        "runs/swin/folds.csv": 300,
        "cache/train.npy": 500_000,
        "cache/test.npy": 70_000,
        "weights.pt": 200_000,
    }.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(bytes(i % 251 for i in range(size)))
    recipe = {"init": "weights.pt"}
    paths = {
        "folder": "runs/swin",
        "checkpoint": "checkpoints/swin/fold0.pt",
        "pixels": "cache/train.npy",
        "test_pixels": "cache/test.npy",
    }
    return Job(
        run="swin",
        fold=0,
        k=2,
        architecture={},
        recipe=recipe,
        images={},
        data={},
        classes=(),
        class_attributes={},
        folds_sha="",
        **paths,
    )


def files() -> set[str]:
    return {str(path) for path in Path().rglob("*") if path.is_file()}


def test_complete_machine_lacks_nothing_and_markers_are_removed(job: Job) -> None:
    before = files()
    with mark_folders([job], "t0"):
        assert missing_here(json.loads(json.dumps(file_manifest(job, "t0")))) == []
        assert {str(Path(path).parent) for path in files() - before} == {"runs", "runs/swin", "checkpoints/swin"}
    assert files() == before


def test_markers_of_failed_and_killed_commands_are_removed(job: Job) -> None:
    before = files()
    with pytest.raises(ZeroDivisionError), mark_folders([job], "t0"):
        raise ZeroDivisionError
    assert files() == before
    killed = mark_folders([job], "t0")
    killed.__enter__()
    assert len(files() - before) == 3
    other = mark_folders([replace(job, run="swin-2", folder="runs/swin-2")], "t9")
    with other, mark_folders([job], "t1"):
        assert not [path for path in files() if "shared-t0" in path]
        assert [path for path in files() if "shared-t9" in path], "a mark of another run was removed"


def test_different_folder_with_the_same_path_is_detected(job: Job) -> None:
    with mark_folders([job], "t0"):
        must_see = file_manifest(job, "t0")
    with mark_folders([job], "t1"):
        assert missing_here(must_see) == [
            "does not see runs/swin",
            "does not see checkpoints/swin",
            "does not see runs",
        ]


def _shorter(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _other_beginning(path: Path) -> None:
    path.write_bytes(b"\xff" + path.read_bytes()[1:])


def _other_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")


@pytest.mark.parametrize("path", ["runs/swin/folds.csv", "cache/train.npy", "cache/test.npy", "weights.pt"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (Path.unlink, "does not see {path}"),
        (_shorter, "has a different {path}: {found:,} bytes, expected {expected:,}"),
        (_other_beginning, "has a different {path}: same size, different content"),
        (_other_end, "has a different {path}: same size, different content"),
    ],
)
def test_a_file_that_is_missing_or_another_is_named(
    job: Job, path: str, change: Callable[[Path], None], said: str
) -> None:
    with mark_folders([job], "t0"):
        must_see = file_manifest(job, "t0")
        size = Path(path).stat().st_size
        change(Path(path))
        assert missing_here(must_see) == [said.format(path=path, found=size - 1, expected=size)]


def test_a_folder_that_may_not_be_written_is_named(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, how: how != os.W_OK or Path(path) != Path("checkpoints/swin"))
    with mark_folders([job], "t0"):
        assert missing_here(file_manifest(job, "t0")) == ["cannot write to checkpoints/swin"]


def test_missing_input_file_is_an_error_before_submission(job: Job) -> None:
    Path("cache/train.npy").unlink()
    with pytest.raises(EnsembleError, match=r"swin fold 0: cannot read cache/train\.npy: no such file"):
        file_manifest(job, "t0")


def test_a_job_without_test_images_and_weights_reads_two_files(job: Job) -> None:
    assert replace(job, test_pixels=None, recipe={"init": None}).reads == ("runs/swin/folds.csv", "cache/train.npy")
