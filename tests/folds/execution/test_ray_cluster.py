"""A real cluster of two machines' worth of Ray processes, on this machine."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from folds.config.command_settings import Settings
from folds.config.recipe import Recipe
from folds.errors import EnsembleError, UsageError
from folds.execution import placement as devices
from folds.execution import ray_cluster as cluster_module
from folds.execution import waiting as patience
from folds.execution.placement import DevicePlan, Execution
from folds.execution.ray_cluster import connect, place_on_cluster, train_on_cluster
from folds.runs.execute import lock_runs, train
from folds.runs.open import prepare_jobs
from folds.runs.plan import Plan, build_plan
from folds.training.job import Job, Outcome, job_as_dict, job_from_dict
from folds.training.trainer import train_fold
from tests.conftest import Logged, holding, start_over

# Loss of a machine is noticed within seconds, not the minute that suits a real network.
QUICK = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 10_000,
    "health_check_failure_threshold": 3,
}
ONE_CPU = DevicePlan(("cpu",), 1, "", "ray")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    ray = pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    from ray.cluster_utils import Cluster

    made = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "_system_config": QUICK, "include_dashboard": False}
    )
    made.second = made.add_node(num_cpus=1)
    made.wait_for_nodes()
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def plan(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Plan]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(devices, "cpu_count", lambda: 1)

    def make(execution: Execution | None = None, epochs: int = 1) -> Plan:
        settings = Settings(data=drawn, arch=("test_resnet",), k=3)
        return build_plan(settings, Recipe(epochs=epochs, img_size="32", pretrained=False), execution=execution)

    return make


@pytest.fixture
def jobs(plan: Callable[..., Plan]) -> Iterator[list[Job]]:
    """The jobs of three folds of one epoch; their runs are held by this process."""
    with lock_runs(one := plan()):
        yield prepare_jobs(one)


@contextmanager
def graphics_machine(cluster: Any) -> Iterator[Any]:
    """A further machine that says it has a GPU and two cores."""
    before = os.environ.pop("CUDA_VISIBLE_DEVICES", None)  # an empty list would leave Ray no GPU to offer
    try:
        node = cluster.add_node(num_cpus=2, num_gpus=1)
    finally:
        if before is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = before
    try:
        yield node
    finally:
        cluster.remove_node(node)


def no_report(job: Job, event: dict[str, Any]) -> None:
    pass


def errors(outcomes: Sequence[Outcome]) -> list[str]:
    """What is printed of those that failed, in one string each."""
    return ["\n".join(outcome.error.lines()) for outcome in outcomes if outcome.error is not None]


def results() -> dict[str, bytes]:
    return {
        str(path): path.read_bytes()
        for path in sorted([*Path("runs").glob("*.npy"), *Path("checkpoints").glob("*/*.pt")])
    }


def left_behind() -> list[Path]:
    """Files that serve a command while it runs."""
    return [
        path
        for pattern in ("**/progress*", "**/.*shared*")
        for folder in ("runs", "checkpoints")
        for path in Path(folder).glob(pattern)
    ]


def test_a_lost_machine_s_jobs_go_on_elsewhere_to_the_same_bytes(
    cluster: Any, plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    epochs = 12
    with lock_runs(one := plan(epochs=epochs)):
        for job in prepare_jobs(one):
            train_fold(
                job_from_dict(json.loads(json.dumps(job_as_dict(job))))
            )  # in this process; as a worker would get it
        assert list(train(one, [])) == []
    expected = results()
    assert len(expected) == 7
    start_over()

    monkeypatch.setattr(cluster_module, "_LISTEN_SECONDS", 0.2)
    nodes: dict[int, list[str]] = {}
    heard: dict[int, list[int]] = {}
    lost: list[float] = []

    def watch(job: Job, event: dict[str, Any]) -> None:
        seen = nodes.setdefault(job.fold, [])
        if event["node"] not in seen:
            seen.append(event["node"])
        if event["event"] == "epoch":
            heard.setdefault(job.fold, []).append(event["epoch"])
        under_way = {name for fold in nodes.values() for name in fold}
        if len(under_way) == 2 and event.get("epoch", 0) >= 2 and not lost:
            lost.append(time.monotonic())
            cluster.remove_node(cluster.second, allow_graceful=False)

    one = plan(Execution(backend="ray", address=cluster.address), epochs=epochs)
    assert one.placement.devices == ("cpu", "cpu")
    assert "2 machines with 2 cores (Ray), 1 thread each" in one.placement.reason
    with lock_runs(one):
        outcomes = list(train(one, prepare_jobs(one), watch))
    assert [outcome.error for outcome in outcomes] == [None] * 3
    assert lost, "both machines were never at work at once"
    moved = [fold for fold, seen in nodes.items() if len(seen) == 2]
    assert moved, "no job was seen on two machines"
    assert any(
        f"fold {moved[0]}: worker or machine lost; restarting from the last saved state on {nodes[moved[0]][1]}" in note
        for note in logged.notes
    )
    # Every epoch was heard of, though several end between two looks; one that was done and not yet saved was done
    # again.
    assert {fold: sorted(set(epochs)) for fold, epochs in heard.items()} == {
        fold: list(range(1, epochs + 1)) for fold in range(3)
    }
    assert results() == expected
    assert left_behind() == []


def test_a_lock_that_another_process_holds_is_waited_for(
    cluster: Any, jobs: list[Job], monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    monkeypatch.setattr(patience, "AGAIN_SECONDS", 0.2)
    with holding(jobs[0].lock) as holder:
        logged.react = lambda text: holder.kill()
        outcomes = list(train_on_cluster(jobs[:2], ONE_CPU, cluster.address, no_report))
        assert logged.notes == [f"{jobs[0].title} is in use by process {holder.pid}; trying again for up to 10 min"]
    assert errors(outcomes) == []
    assert outcomes[0].job.title == jobs[1].title, "the other job did not get the slot meanwhile"


def test_a_lock_that_stays_held_ends_the_job_with_what_to_do(
    cluster: Any, jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "AGAIN_SECONDS", 0.2)
    with holding(jobs[0].lock) as holder:
        outcomes = list(train_on_cluster(jobs[:1], ONE_CPU, cluster.address, no_report, patience=1.5))
        (said,) = errors(outcomes)
    assert f"error: {jobs[0].title} is in use by process {holder.pid}, waited for " in said
    assert (
        "hint: run again with resume=True when that process has ended; if its machine is lost and the lock remains, rm "
        in said
    )
    assert f"{jobs[0].lock.absolute()} first" in said
    assert left_behind() == []


@pytest.mark.parametrize("path", ["folder", "checkpoint", "pixels", "test_pixels", "init"])
def test_error_for_an_unseen_path_names_machine_and_path(
    cluster: Any, jobs: list[Job], monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    Path("weights.pt").write_bytes(b"weights")
    job = replace(jobs[0], recipe=jobs[0].recipe | {"init": "weights.pt"})
    absolute = job.with_absolute_paths()

    def all_but_one(self: Job) -> Job:  # a path of this folder, which the machine does not work in
        return (
            replace(absolute, recipe=job.recipe) if path == "init" else replace(absolute, **{path: getattr(job, path)})
        )

    monkeypatch.setattr(Job, "with_absolute_paths", all_but_one)
    (said,) = errors(list(train_on_cluster([job], ONE_CPU, cluster.address, no_report)))
    there = {"folder": job.folder, "checkpoint": "checkpoints/test_resnet", "init": "weights.pt"}.get(path) or getattr(
        job, path
    )
    assert f"error: test_resnet fold {job.fold}: the machine {os.uname().nodename} (" in said
    assert f") does not see {there}\n" in said
    assert "a drive that all machines see under the same path" in said
    assert left_behind() == []


def test_one_fold_that_fails_on_the_cluster_leaves_the_others(cluster: Any, plan: Callable[..., Plan]) -> None:
    Path("checkpoints/test_resnet/fold1.pt").mkdir(parents=True)
    one = plan(Execution(backend="ray", address=cluster.address))
    with lock_runs(one):
        outcomes = {outcome.job.fold: outcome for outcome in train(one, prepare_jobs(one))}
    assert [fold for fold, outcome in sorted(outcomes.items()) if outcome.error is not None] == [1]
    assert "fold1.pt" in str(outcomes[1].error)
    assert outcomes[1].error is not None
    assert any("on the machine " in line for line in outcomes[1].error.details)


def test_error_for_a_killed_process_has_the_number_of_retries(
    cluster: Any, jobs: list[Job], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def killed(record: str, must_see: dict[str, Any]) -> None:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(cluster_module, "run_task", killed)
    monkeypatch.setattr(cluster_module, "RETRIES", 1)
    (said,) = errors(list(train_on_cluster(jobs[:1], ONE_CPU, cluster.address, no_report)))
    assert f"{jobs[0].title}: worker crashed or was killed; stopped after 1 retries" in said
    time.sleep(1)  # for what Ray itself has to say about it
    assert capsys.readouterr().out == "", "standard output is for results"


def test_error_for_a_missing_module_names_the_machine_only(
    cluster: Any, jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(record: str, must_see: dict[str, Any]) -> None:
        import a_module_that_is_not_there  # noqa: F401

    monkeypatch.setattr(cluster_module, "run_task", absent)
    (said,) = errors(list(train_on_cluster(jobs[:1], ONE_CPU, cluster.address, no_report)))
    assert "it could not start on the machine " in said
    assert "ModuleNotFoundError: No module named 'a_module_that_is_not_there'" in said
    assert "the same versions of ensemble" in said
    assert "retries" not in said


def test_jobs_that_no_machine_can_run_are_said_once_and_given_up(
    cluster: Any, jobs: list[Job], monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    monkeypatch.setattr(patience, "LOOK_SECONDS", 0.4)
    big = DevicePlan(("cpu", "cpu"), 64, "", "ray")
    outcomes = list(train_on_cluster(jobs, big, cluster.address, lambda job, event: None, patience=2))
    assert logged.notes == [
        "no machine of the cluster has 64 CPU cores for a job (the largest has 1); waiting for one for up to 2 s"
    ]
    assert sorted(outcome.job.fold for outcome in outcomes) == [0, 1, 2]
    for said in errors(outcomes):
        assert "no machine of the cluster has 64 CPU cores for a job (the largest has 1), waited for " in said
        assert "a run keeps the number of threads that it was started with" in said
        assert "hint: ray status shows the resources; start a machine that has enough, then resume=True" in said
    assert left_behind() == []


def test_two_jobs_share_a_gpu_when_a_machine_with_one_joins(
    cluster: Any, jobs: list[Job], monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    def pretending(record: str, must_see: dict[str, Any]) -> dict[str, Any]:
        """The task, on a GPU that only says that it is there; what would be trained on it says what it was given."""
        import os
        import time

        import torch

        from folds.execution.ray_task import run_task
        from folds.training import trainer as training
        from folds.training.amp import decide_amp

        def train_job(job: Any, report: Any, train: Any) -> dict[str, Any]:
            report({"event": "note", "text": "on it"})
            (job.fold_dir / "arrived").touch()
            end = time.monotonic() + 30
            while len(list(job.fold_dir.parent.glob("fold*/arrived"))) < 2 and time.monotonic() < end:
                time.sleep(0.05)
            given = os.environ["CUDA_VISIBLE_DEVICES"]
            together = time.monotonic() < end
            return {
                "device": job.device,
                "given": given,
                "amp": decide_amp(job),
                "process": os.getpid(),
                "together": together,
            }

        training.train_fold = train_job
        torch.cuda.is_available = lambda: True
        torch.cuda.get_device_capability = lambda device: (9, 0)
        return run_task(record, must_see)

    monkeypatch.setattr(cluster_module, "run_task", pretending)
    monkeypatch.setattr(patience, "LOOK_SECONDS", 0.4)
    with ExitStack() as machines:

        def add_a_machine(text: str) -> None:
            if "no machine" in text:
                machines.enter_context(graphics_machine(cluster))

        logged.react = add_a_machine
        on_gpus = DevicePlan(("cuda", "cuda"), 1, "", "ray", 0.5)
        outcomes = list(
            train_on_cluster([replace(job, amp="auto") for job in jobs[:2]], on_gpus, cluster.address, no_report)
        )
    assert errors(outcomes) == []
    expected = {"device": "cuda", "given": "0", "amp": "bf16", "together": True}
    assert [{key: (outcome.result or {})[key] for key in expected} for outcome in outcomes] == [expected] * 2
    assert len({(outcome.result or {})["process"] for outcome in outcomes}) == 2
    assert logged.notes == [
        "no machine of the cluster has a GPU; waiting for one for up to 10 min",
        "on it",
        "on it",
    ]


def test_error_for_an_unusable_gpu_names_the_machine(cluster: Any, jobs: list[Job]) -> None:
    with graphics_machine(cluster):
        placement = place_on_cluster(5, Execution(backend="ray", address=cluster.address, per_device=2))
        assert placement.devices == ("cuda",) * 2
        assert placement.gpu_share == 0.5
        assert "training 2 folds in parallel on 1 GPU of " in placement.reason
        assert place_on_cluster(5, Execution(devices="cpu", backend="ray", address=cluster.address)).gpu_share == 0
        outcomes = list(train_on_cluster(jobs[:1], placement, cluster.address, no_report))
    (said,) = errors(outcomes)
    assert f"{jobs[0].title}: Ray assigned GPU 0 of the machine {os.uname().nodename} (" in said
    assert "), but torch finds no GPU there" in said
    assert "hint: run ensemble doctor on that machine" in said


def test_gpus_are_not_chosen_by_number_on_a_cluster(cluster: Any, plan: Callable[..., Plan]) -> None:
    with pytest.raises(UsageError, match="on a cluster Ray chooses the GPUs"):
        plan(Execution(devices="0,1", backend="ray", address=cluster.address))


def test_an_address_without_a_cluster_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    ray.shutdown()
    monkeypatch.setenv("RAY_gcs_rpc_server_connect_timeout_s", "1")

    def none(**named: Any) -> None:
        raise ConnectionError("Could not find any running Ray instance")

    monkeypatch.setattr(ray, "init", none)
    with pytest.raises(EnsembleError, match="ray_address=auto: Could not find") as error:
        connect("auto")
    assert "ray start --head" in (error.value.hint or "")


def test_without_ray_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match="not installed") as error:
        connect(None)
    assert error.value.hint == "pip install ray"
