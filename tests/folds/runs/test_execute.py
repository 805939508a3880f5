from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score

from folds.config.command_settings import Settings
from folds.config.recipe import Recipe
from folds.data.table import DataSpec
from folds.errors import EnsembleError
from folds.execution import local as manager
from folds.execution import placement as devices
from folds.execution import worker as worker_module
from folds.experiments.summary import summarize_run
from folds.predictions.files import read_sidecar
from folds.runs import open as opening
from folds.runs.execute import lock_runs, train
from folds.runs.open import prepare_jobs
from folds.runs.plan import Plan, build_plan
from folds.runs.run import file_safe
from folds.training import predictor
from folds.training.job import Job, Outcome, job_from_dict
from folds.training.trainer import train_fold
from tests.conftest import Logged, environment_of, start_over
from tests.processes import Forked

Planner = Callable[..., Plan]


class InProcess:
    """Stands in for a worker process where a test is not about processes: the same job, without the start-up."""

    pid = None

    def __init__(self, threads: int, variables: Mapping[str, str] | None = None) -> None:
        self.threads = threads

    def run(self, job: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        return train_fold(job_from_dict(json.loads(json.dumps(job))), report)

    def stop(self) -> None:
        pass

    @classmethod
    def warm_up(cls) -> None:
        pass


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager, "Worker", InProcess)


@pytest.fixture
def plan(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Planner:
    """Makes a plan of tiny runs in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(devices, "cpu_count", lambda: 1)  # one slot of one thread, for one fold as for three

    def make(
        arch: tuple[str, ...] = ("test_resnet",),
        folds: list[int] | None = None,
        k: int = 3,
        data: Path = drawn,
        **recipe: Any,
    ) -> Plan:
        values = {"epochs": 1, "img_size": "32", "pretrained": False} | recipe
        return build_plan(Settings(data=data, arch=arch, k=k), Recipe(**values), folds=folds)

    return make


def run(
    plan: Plan,
    *,
    resume: bool = False,
    force: bool = False,
    report: Callable[[Job, dict[str, Any]], None] = lambda job, event: None,
) -> list[Outcome]:
    with lock_runs(plan):
        return list(train(plan, prepare_jobs(plan, resume=resume, force=force), report))


def test_files_have_the_pooled_score_and_every_sample_once(grid: Path) -> None:
    for name in ("test_resnet", "test_vit"):
        sidecar = read_sidecar(grid / f"runs/{name}.oof.npy")
        assert sidecar is not None
        assert sidecar.rows.labels is not None
        assert len(set(sidecar.rows.ids.tolist())) == 30 * 7
        probabilities = np.load(grid / f"runs/{name}.oof.npy")
        np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
        predicted = [sidecar.classes[i] for i in probabilities.argmax(1)]
        expected = f1_score(
            sidecar.rows.labels, predicted, labels=list(sidecar.classes), average="macro", zero_division=0
        )
        done = {fold: json.loads((grid / f"runs/{name}/fold{fold}/done.json").read_text()) for fold in range(3)}
        summary = summarize_run(name, done, 3)
        assert summary.oof.interval.value == pytest.approx(expected, abs=1e-12)
        assert summary.oof.interval.low < expected < summary.oof.interval.high
        assert summary.test is not None
        assert summary.test.rows == 42


def test_runs_of_one_command_share_folds_samples_and_pixels(grid: Path) -> None:
    folds = {(grid / f"runs/{name}/folds.csv").read_bytes() for name in ("test_resnet", "test_vit")}
    assert len(folds) == 1
    assert len(list((grid / "runs").glob("samples-*.csv"))) == 2  # training and test
    assert len(list((grid / ".ensemble/images").glob("*.npy"))) == 2


def test_no_fold_predicts_people_of_its_training_part(grid: Path) -> None:
    from folds.models.checkpoint import hash_ids, load_checkpoint

    sidecar = read_sidecar(grid / "runs/test_vit.oof.npy")
    assert sidecar is not None
    assert sidecar.rows.persons is not None
    assert isinstance(sidecar.fold, np.ndarray)
    person = dict(zip(hash_ids(sidecar.rows.ids.tolist()), sidecar.rows.persons.tolist(), strict=True))
    for fold in range(3):
        seen = {person[name] for name in load_checkpoint(grid / f"checkpoints/test_vit/fold{fold}.pt").training_hashes}
        assert not seen & set(sidecar.rows.persons[sidecar.fold == fold].tolist())


def test_single_folds_stitch_to_the_same_bytes_as_all_at_once(in_process: None, plan: Planner) -> None:
    run(plan())
    expected = Path("runs/test_resnet.oof.npy").read_bytes()
    start_over()
    run(plan(folds=[1]))
    part = read_sidecar(Path("runs/test_resnet.oof.npy"))
    assert part is not None
    assert set(np.unique(part.fold)) == {1}
    assert sorted(path.name for path in Path("runs").glob("*.test.npy")) == ["test_resnet.fold1.test.npy"]
    run(plan(folds=[0, 2]))
    assert Path("runs/test_resnet.oof.npy").read_bytes() == expected


def test_existing_run_is_not_overwritten_or_mixed(in_process: None, plan: Planner) -> None:
    run(plan(folds=[0]))
    before = Path("runs/test_resnet.oof.npy").read_bytes()
    with pytest.raises(EnsembleError, match="exists and folds 0 are trained") as refused:
        run(plan())
    assert "`resume=True`" in (refused.value.hint or "")
    with pytest.raises(EnsembleError, match="was started with") as refused:
        run(plan(epochs=2), resume=True)
    assert refused.value.details == ("epochs: 1 → 2",)
    with pytest.raises(EnsembleError, match="was started with") as refused:
        run(plan(k=2), resume=True)
    assert any(line.startswith("k: 3 → 2") for line in refused.value.details)
    assert Path("runs/test_resnet.oof.npy").read_bytes() == before


def test_changed_images_are_noticed_at_a_resume(in_process: None, plan: Planner, drawn: Path, tmp_path: Path) -> None:
    shutil.copytree(drawn, tmp_path / "own")
    run(plan(data=Path("own"), folds=[0]))
    pictures = sorted(Path("own/train/images").glob("*/normal.jpg"))
    shutil.copy(pictures[0], pictures[1])
    with pytest.raises(EnsembleError, match="was started with") as refused:
        run(plan(data=Path("own")), resume=True)
    assert any("images_sha" in line for line in refused.value.details)


def test_resume_trains_missing_folds_and_force_retrains_all(in_process: None, plan: Planner) -> None:
    run(plan(folds=[2]))
    assert sorted(outcome.job.fold for outcome in run(plan(), resume=True)) == [0, 1]
    assert run(plan(), resume=True) == []
    assert len(run(plan(), force=True)) == 3


def test_force_removes_the_folds_and_their_predictions(in_process: None, plan: Planner) -> None:
    run(plan())
    expected = {path: path.read_bytes() for path in [*Path("runs").glob("*.npy"), *Path("checkpoints").glob("*/*.pt")]}
    others = [
        Path("runs/test_resnet.fold9.oof.npy"),
        Path("runs/test_resnet.fold9.fold0.test.npy"),
        Path("runs/tta/test_resnet.fold9.oof.npy"),
    ]
    stale = [
        Path("runs/tta/test_resnet.oof.npy"),
        Path("runs/tta/test_resnet.fold0.test.npy"),
        Path("runs/tta/test_resnet/views/hflip.oof.npy"),
    ]
    for path in (*others, *stale):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"another's" if path in others else b"of the old models")
    kept = Path("checkpoints/test_resnet/fold0.pt").stat().st_mtime_ns
    assert [outcome.job.fold for outcome in run(plan(folds=[1]), force=True)] == [1]
    assert {path: path.read_bytes() for path in expected} == expected
    assert Path("checkpoints/test_resnet/fold0.pt").stat().st_mtime_ns == kept
    assert all(path.read_bytes() == b"another's" for path in others)
    assert not any(path.exists() for path in stale)
    with pytest.raises(EnsembleError, match="was started with"):
        run(plan(folds=[1], epochs=2), force=True)


def test_force_on_all_folds_replaces_the_run_completely(in_process: None, plan: Planner) -> None:
    run(plan())
    run(plan(k=2), force=True)
    sidecar = read_sidecar(Path("runs/test_resnet.oof.npy"))
    assert sidecar is not None
    assert set(np.unique(sidecar.fold)) == {0, 1}
    assert sorted(path.name for path in Path("runs").glob("*.test.npy")) == [
        "test_resnet.fold0.test.npy",
        "test_resnet.fold1.test.npy",
    ]
    assert not Path("checkpoints/test_resnet/fold2.pt").exists()


@pytest.mark.parametrize(
    "name", ["runs/test_resnet.oof.npy", "runs/test_resnet.fold4.test.npy", "checkpoints/test_resnet/fold0.pt"]
)
def test_predictions_of_another_origin_are_not_overwritten(in_process: None, plan: Planner, name: str) -> None:
    path = Path(name)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"a colleague's")
    with pytest.raises(EnsembleError, match=f"{path} exists, but its run runs/test_resnet does not"):
        run(plan())
    assert path.read_bytes() == b"a colleague's"
    assert not Path("runs/test_resnet").exists()


@pytest.mark.parametrize("content", ["{}", "[]", "5", '{"checkpoint_sha": 1}', "{"])
def test_a_damaged_record_of_a_fold_says_how_to_train_it_again(in_process: None, plan: Planner, content: str) -> None:
    run(plan())
    Path("runs/test_resnet/fold1/done.json").write_text(content)
    with pytest.raises(EnsembleError, match=r"fold1/done\.json"):
        run(plan(), resume=True)
    shutil.rmtree("runs/test_resnet/fold1")
    assert [outcome.job.fold for outcome in run(plan(), resume=True)] == [1]


def test_predictions_that_are_gone_are_missed(in_process: None, plan: Planner) -> None:
    run(plan())
    Path("runs/test_resnet/fold1/oof.npy").unlink()
    with pytest.raises(
        EnsembleError, match=r"records a trained fold, but runs/test_resnet/fold1/oof\.npy does not exist"
    ) as refused:
        run(plan(), resume=True)
    assert refused.value.hint == "rm -r runs/test_resnet/fold1, then `resume=True` trains this fold again"


@pytest.mark.parametrize("content", ["resolved = 5", "[resolved]\nthreads = 'many'", "[resolved]\nthreads = 0"])
def test_a_damaged_record_of_a_run_is_an_error(in_process: None, plan: Planner, content: str) -> None:
    run(plan(folds=[0]))
    Path("runs/test_resnet/config.toml").write_text(content)
    with pytest.raises(EnsembleError, match=r"config\.toml is damaged"):
        plan()


def test_diverged_fold_fails_alone_and_is_not_marked_trained(
    in_process: None, plan: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict = predictor.predict_logits

    def diverged(model: Any, pixels: Any, rows: Any, *arguments: Any, **named: Any) -> Any:
        logits = predict(model, pixels, rows, *arguments, **named)
        return logits * np.nan if np.array_equal(rows, one.assignment.validation_index(1)) else logits

    one = plan()
    monkeypatch.setattr(predictor, "predict_logits", diverged)
    failed = [outcome for outcome in run(one) if outcome.error is not None]
    assert [outcome.job.fold for outcome in failed] == [1]
    assert "predictions are not finite numbers" in str(failed[0].error)
    assert not Path("runs/test_resnet/fold1/done.json").exists()


def test_a_fold_that_fails_leaves_the_others_and_can_be_resumed(in_process: None, plan: Planner) -> None:
    blocked = Path("checkpoints/test_resnet/fold1.pt")
    blocked.mkdir(parents=True)  # a folder where the checkpoint should go
    outcomes = run(plan())
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    assert [outcome.job.fold for outcome in failed] == [1]
    assert "fold1.pt" in str(failed[0].error)
    sidecar = read_sidecar(Path("runs/test_resnet.oof.npy"))
    assert sidecar is not None
    assert set(np.unique(sidecar.fold)) == {0, 2}
    blocked.rmdir()
    assert [outcome.job.fold for outcome in run(plan(), resume=True)] == [1]


def test_a_killed_worker_costs_nothing_but_time(plan: Planner, monkeypatch: pytest.MonkeyPatch, logged: Logged) -> None:
    run(plan(folds=[0], epochs=3))
    expected = Path("runs/test_resnet.oof.npy").read_bytes()
    start_over()
    started: list[worker_module.Process] = []
    start = worker_module.Worker._start

    def remember(self: worker_module.Worker) -> worker_module.Process:
        started.append(start(self))
        return started[-1]

    monkeypatch.setattr(worker_module.Worker, "_start", remember)

    def kill_after_the_first_epoch(job: Job, event: dict[str, Any]) -> None:
        if event["event"] == "epoch" and event["epoch"] == 1 and len(started) == 1:
            os.kill(started[0].pid, signal.SIGKILL)

    outcomes = run(plan(folds=[0], epochs=3), report=kill_after_the_first_epoch)
    assert outcomes[0].error is None
    assert len(started) == 2
    assert any("worker killed (SIGKILL)" in text for text in logged.notes)
    assert Path("runs/test_resnet.oof.npy").read_bytes() == expected


def test_workers_end_when_their_parent_is_killed(plan: Planner, drawn: Path) -> None:
    words = [
        "kfold",
        "--data",
        drawn,
        "--arch",
        "test_resnet",
        "--k",
        "2",
        "--epochs",
        "500",
        "--img-size",
        "32",
        "--no-pretrained",
        "--jobs",
        "1",
        "--save-every",
        "0.01",
    ]
    parent = Forked("ensemble.cli", words, Path.cwd(), environment_of())
    try:
        wait_for(lambda: list(Path("runs").glob("*/fold*/state.pt")) != [])
        template = children_of(parent.pid)
        children = [*template, *(worker for pid in template for worker in children_of(pid))]
        assert len(children) > 1
    finally:
        parent.kill()
    wait_for(lambda: not any(alive(pid) for pid in children))


def test_run_is_locked_by_a_living_process_only(in_process: None, plan: Planner) -> None:
    code = "import sys,time; from pathlib import Path; from folds.utils.locks import exclusive_lock\n"
    code += "with exclusive_lock(Path('runs/.test_resnet.lock'), 'it'): print('held', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(EnsembleError, match=f"in use by process {holder.pid}"):
            run(plan(folds=[0]))
    finally:
        holder.kill()
        holder.wait()
    assert run(plan(folds=[0]))[0].error is None


def test_unreadable_image_is_an_error_before_any_training(
    in_process: None, plan: Planner, drawn: Path, tmp_path: Path
) -> None:
    shutil.copytree(drawn, tmp_path / "own")
    broken = sorted(Path("own/train/images").glob("*/mask1.jpg"))[:2]
    broken[0].write_bytes(b"")
    broken[1].write_bytes(broken[1].read_bytes()[:100])
    with pytest.raises(EnsembleError) as refused:
        run(plan(data=Path("own")))
    text = "\n".join(refused.value.lines())
    assert all(str(path) in text or path.parent.name in text for path in broken)
    assert not Path("runs/test_resnet").exists()


@pytest.mark.parametrize("name", ["tta", "blends", "///", ""])
def test_a_run_is_not_named_like_a_folder_of_the_program(name: str) -> None:
    with pytest.raises(EnsembleError):
        file_safe(name)


def test_two_runs_of_one_architecture_get_different_names(plan: Planner) -> None:
    assert [one.name for one in plan(arch=("test_resnet", "test_resnet")).runs] == ["test_resnet", "test_resnet-2"]


def test_the_data_spec_survives_the_checkpoint(grid: Path) -> None:
    from folds.data.sources import load_checkpoint_data
    from folds.models.checkpoint import load_checkpoint

    read = load_checkpoint(grid / "checkpoints/test_vit/fold0.pt")
    assert set(read.data) == set(DataSpec.__dataclass_fields__) - set(opening._LATER_FIELDS)
    assert (read.data["data"], read.data["test"]) == (None, None)
    found = load_checkpoint_data(read.data, run=read.run, folds_sha=read.folds_sha, root=grid)
    assert len(found.train) == 210
    with pytest.raises(EnsembleError, match="the table of test_vit is not known"):
        load_checkpoint_data(read.data, run=read.run, folds_sha="0" * 64, root=grid)


def test_fields_that_were_not_given_are_not_recorded() -> None:
    given = {"data": "t.csv", "id": None, "images": ("a",), "max_pixels": None}
    assert opening._without_open(given, opening._LATER_FIELDS) == {"data": "t.csv", "id": None, "images": ("a",)}


def children_of(pid: int) -> list[int]:
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition: Callable[[], bool], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


def test_one_part_held_out_is_one_job_that_trains_on_the_rest(plan: Planner, drawn: Path, in_process: None) -> None:
    made = build_plan(
        Settings(data=drawn, arch=("test_resnet",), holdout=0.2), Recipe(epochs=1, img_size="32", pretrained=False)
    )
    assert made.folds == (0,)
    outcomes = run(made)
    assert [outcome.job.fold for outcome in outcomes] == [0]
    held = made.assignment.validation_index(0)
    sidecar = read_sidecar(Path("runs/test_resnet.oof.npy"))
    assert sidecar is not None
    assert sidecar.rows.ids.tolist() == made.table.ids[held].tolist()
    assert outcomes[0].result is not None
    assert outcomes[0].result["images"] == 160  # five batches of 32 of the 168 images
    done = made.runs[0].done(0)
    assert done is not None
    assert summarize_run("test_resnet", {0: done}, made.assignment.k).oof.rows == len(held)
    # The same part from its file is the same run.
    settings = Settings(data=drawn, arch=("test_resnet",), folds=Path("runs/test_resnet/folds.csv"))
    again = build_plan(settings, Recipe(epochs=1, img_size="32", pretrained=False))
    assert prepare_jobs(again, resume=True) == []
    with pytest.raises(EnsembleError, match="fold=1: the folds are 0 to 0"):
        build_plan(settings, Recipe(epochs=1, img_size="32", pretrained=False), folds=[1])


def test_force_removes_nothing_before_all_runs_are_checked(in_process: None, plan: Planner) -> None:
    run(plan(folds=[0, 1]))
    before = {path: path.read_bytes() for path in [*Path("runs").rglob("*.npy"), *Path("checkpoints").rglob("*.pt")]}
    with pytest.raises(EnsembleError, match="was started with"):
        run(plan(folds=[1], epochs=2), force=True)
    assert {path: path.read_bytes() for path in before} == before


def test_fold_finished_by_a_lost_process_is_not_retrained(in_process: None, plan: Planner) -> None:
    one = plan(folds=[0])
    with lock_runs(one):
        job = prepare_jobs(one)[0]
        done = train_fold(job)
        assert train_fold(job, lambda event: pytest.fail("it was trained again")) == done


def test_fewer_slots_where_a_run_keeps_more_threads_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cpu_count", lambda: 8)
    assert devices.plan_devices(5, "cpu", threads=4).devices == ("cpu", "cpu")
    assert devices.plan_devices(5, "cpu", threads=16).devices == ("cpu",)


def test_runs_with_different_threads_are_not_resumed_together(
    in_process: None, plan: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(plan(arch=("test_resnet",), folds=[0]))
    monkeypatch.setattr(devices, "cpu_count", lambda: 2)
    run(plan(arch=("test_vit",), folds=[0]))
    with pytest.raises(
        EnsembleError, match="different numbers of threads per job: test_resnet with 1, test_vit with 2"
    ):
        plan(arch=("test_resnet", "test_vit"))
    assert plan(arch=("test_vit",)).placement.threads == 2
