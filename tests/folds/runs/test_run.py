"""A run's files: what --force removes and in which order, what is kept of an earlier start, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from folds.config.recipe import Recipe
from folds.data.targets import resolve_target
from folds.errors import EnsembleError, UsageError
from folds.models.factory import Architecture
from folds.predictions.files import oof_file
from folds.runs import run as run_module
from folds.runs.recorded_resources import RecordedResources, recorded_start
from folds.runs.run import Run
from folds.splits.assignment import FoldAssignment


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run of two folds whose files are all there, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    names = np.array(["a", "b"])
    assignment = FoldAssignment(names, names, names, np.array([0, 1]), 2, 0)
    architecture = Architecture("swin", "swin", 8, 8, (0.5,) * 3, (0.5,) * 3, {})
    made = Run("swin", architecture, Recipe(), assignment, 1, resolve_target("label", ("a", "b"), {}))
    for path in everything():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    return made


def everything() -> list[Path]:
    inside = [
        f"runs/swin/fold{fold}/{name}"
        for fold in (0, 1)
        for name in ("oof.npy", "test.npy", "history.csv", "state.pt", "done.json")
    ]
    beside = [
        f"runs/{tta}swin.{part}.{kind}"
        for tta in ("", "tta/")
        for part in ("oof", "fold0.test", "fold1.test")
        for kind in ("npy", "json")
    ]
    views = [f"runs/tta/swin/views/hflip.{part}.{kind}" for part in ("oof", "fold0.test") for kind in ("npy", "json")]
    others = ["runs/swin/config.toml", "runs/swin/folds.csv", *(f"checkpoints/swin/fold{fold}.pt" for fold in (0, 1))]
    return [Path(name) for name in (*inside, *beside, *views, *others)]


def there() -> set[str]:
    return {str(path) for path in Path().rglob("*") if path.is_file()}


def stopped_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `steps` files and folders be removed, then raise what Ctrl-C raises."""
    left, remove = [steps], run_module.remove

    def limited(path: Path) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        remove(path)

    monkeypatch.setattr(run_module, "remove", limited)


def test_all_folds_leave_nothing_and_one_fold_leaves_the_other(run: Run) -> None:
    run.remove([1])
    kept = {
        str(path)
        for path in everything()
        if "fold1" not in str(path) and "tta" not in str(path) and "swin.oof" not in str(path)
    }
    assert there() == kept
    run.remove([0, 1])
    assert there() == set()
    assert not Path("runs/swin").exists()
    assert not Path("checkpoints/swin").exists()


@pytest.mark.parametrize("folds", [[0, 1], [1]])
def test_interrupted_removal_leaves_no_fold_that_looks_finished(
    run: Run, monkeypatch: pytest.MonkeyPatch, folds: list[int]
) -> None:
    for steps in range(1, 40):
        with monkeypatch.context() as patch:
            stopped_after(steps, patch)
            try:
                run.remove(folds)
            except KeyboardInterrupt:
                marked = [fold for fold in folds if Path(f"runs/swin/fold{fold}/done.json").exists()]
                if steps >= len(folds):
                    assert marked == [], steps
                if steps >= 2 * len(folds):
                    assert not any(Path(f"runs/swin/fold{fold}/state.pt").exists() for fold in folds), steps
                for fold in marked:  # what still counts as trained is whole
                    assert Path(f"runs/swin/fold{fold}/oof.npy").exists()
                    assert Path(f"checkpoints/swin/fold{fold}.pt").exists()
            else:
                break
        for path in everything():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")
    else:
        pytest.fail("it never came to its end")


def test_array_is_removed_before_its_sidecar(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    removed: list[Path] = []
    remove = run_module.remove
    monkeypatch.setattr(run_module, "remove", lambda path: (removed.append(path), remove(path)))
    run.remove([0])
    at = removed.index(oof_file(Path("runs"), "swin"))
    assert removed[at + 1] == Path("runs/swin.oof.json")


def test_error_for_an_unremovable_file_names_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    unlink = Path.unlink

    def refused(self: Path, missing_ok: bool = False) -> None:
        if self.name == "history.csv":
            raise PermissionError(13, "Permission denied", str(self))
        unlink(self, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refused)
        with pytest.raises(
            EnsembleError, match=r"cannot remove runs/swin/fold0/history\.csv: permission denied"
        ) as error:
            run.remove([0, 1])
        assert error.value.hint == "ls -ld runs/swin/fold0 shows who may remove it; then run the same command again"
        assert not list(Path("runs").glob("swin/fold*/done.json"))
    run.remove([0, 1])
    assert there() == set()


def test_folder_in_place_of_a_checkpoint_is_removed(run: Run) -> None:
    Path("checkpoints/swin/fold1.pt").unlink()
    Path("checkpoints/swin/fold1.pt").mkdir()
    run.remove([1])
    assert not Path("checkpoints/swin/fold1.pt").exists()


def record(text: str) -> None:
    Path("runs/swin/config.toml").write_text(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[resolved]\nthreads = 3\njobs = 2", RecordedResources(3, 2, 1)),
        ("[resolved]\nthreads = 3", RecordedResources(3, None, 1)),
        ("[resolved]", RecordedResources(1, None, 1)),  # started before there was a number
        ("[resolved]\nthreads = 3\ngpus_per_job = 2", RecordedResources(3, None, 2)),
        ("", RecordedResources(1, None, 1)),
    ],
)
def test_threads_and_jobs_of_the_first_start_are_kept(run: Run, text: str, found: RecordedResources) -> None:
    record(text)
    assert recorded_start([run]) == found


def test_without_a_record_there_is_nothing_to_keep(run: Run) -> None:
    Path("runs/swin/config.toml").unlink()
    assert recorded_start([run]) == RecordedResources()


@pytest.mark.parametrize(
    "text",
    ["resolved = 5", "[resolved]\nthreads = 'many'", "[resolved]\nthreads = 0", "[resolved]\njobs = true", "[", "\x00"],
)
def test_error_for_a_damaged_record_names_it_and_the_remedies(run: Run, text: str) -> None:
    record(text)
    with pytest.raises(EnsembleError, match=r"runs/swin/config\.toml (is damaged|cannot be read)") as error:
        recorded_start([run])
    assert "retrain all folds from scratch with `force`" in str(error.value.hint)
    assert "`name=NEW`" in str(error.value.hint)


@pytest.fixture
def refused(run: Run) -> Callable[..., EnsembleError]:
    def of(before: str, after: str) -> EnsembleError:
        record(before)
        with pytest.raises(EnsembleError) as error:
            run.check_same_settings(after)
        return error.value

    return of


@pytest.mark.parametrize(
    ("before", "after", "way"),
    [
        ("cpu", "cuda", "`devices=cpu` continues it"),
        ("cuda", "cpu", "a machine with a GPU (`devices=auto`, or a CUDA number) continues it"),
    ],
)
def test_another_kind_of_device_is_refused_with_the_way_back(
    refused: Callable[..., EnsembleError], before: str, after: str, way: str
) -> None:
    amp = {"cpu": "off", "cuda": "bf16"}
    error = refused(
        f'[resolved]\ndevice = "{before}"\namp = "{amp[before]}"',
        f'[resolved]\ndevice = "{after}"\namp = "{amp[after]}"',
    )
    assert "runs/swin was started on another kind of device" in error.message
    assert f"resolved device: {before} → {after}" in error.details
    assert way in str(error.hint)
    assert "`name=NEW`" in str(error.hint)


def test_more_epochs_are_refused_with_the_way_to_train_on(refused: Callable[..., EnsembleError]) -> None:
    error = refused("epochs = 1\nlr = 0.1", "epochs = 3\nlr = 0.1")
    assert error.hint == "`init_run=swin` `name=NEW` trains on from its weights, fold by fold"
    assert "started with different settings" in refused("epochs = 3", "epochs = 1").message


def test_beside_other_changes_the_device_is_one_of_them(refused: Callable[..., EnsembleError]) -> None:
    error = refused('epochs = 1\n[resolved]\ndevice = "cpu"', 'epochs = 2\n[resolved]\ndevice = "cuda"')
    assert "started with different settings" in error.message
    assert error.details == ("epochs: 1 → 2", "resolved device: cpu → cuda")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("epochs = 1", 'epochs = 1\nopt = "adamw"\nmixup = 0.0'),  # settings that an earlier version did not have yet
        ("epochs = 1\n[resolved]", 'epochs = 1\n[resolved]\ntransform_sha = ""'),
        (
            "[resolved]\nthreads = 1",
            '[resolved]\nthreads = 1\ndevice = "cuda"\njobs = 1',
        ),  # begun before they were recorded
        ('[resolved]\njobs = 2\ndevice = "cuda"', '[resolved]\njobs = 1\ndevice = "cuda"'),
        ("stratify = ['site']\nrepeats = 1\nseeds = 1", ""),  # the folds are compared, not how they were asked for
    ],
)
def test_what_changes_nothing_that_comes_out_is_no_other_setting(run: Run, before: str, after: str) -> None:
    record(before)
    run.check_same_settings(after)


def test_all_folds_of_a_run_are_the_whole(run: Run) -> None:
    whole: list[Any] = [[0, 1], (1, 0), [1, 1, 0]]
    assert all(run.has_all(folds) for folds in whole)
    assert not run.has_all([1])


def test_gpus_of_a_job_are_those_of_the_first_start() -> None:
    assert [RecordedResources().gpus(asked) for asked in (None, 1, 4)] == [1, 1, 4]
    assert [RecordedResources(gpus_per_job=2).gpus(asked) for asked in (None, 2)] == [2, 2]
    for recorded, asked in ((1, 2), (2, 1)):
        with pytest.raises(UsageError, match=f"gpus_per_job={asked}: the run was started with {recorded}"):
            RecordedResources(gpus_per_job=recorded).gpus(asked)
