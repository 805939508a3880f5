"""A real cluster of two machines' worth of Ray processes, on this machine."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from folds import cluster as cluster_module
from folds import devices
from folds.cluster import connect, place_on_cluster, train_on_cluster
from folds.devices import Execution
from folds.errors import EnsembleError, UsageError
from folds.job import Job
from folds.manager import locked, train
from folds.plan import Plan, make_plan, open_runs
from folds.recipe import Recipe, Settings
from tests.conftest import start_over

# Loss of a machine is noticed within seconds, not the minute that suits a real network.
QUICK = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000, "health_check_timeout_ms": 10_000, "health_check_failure_threshold": 3}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    ray = pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "_system_config": QUICK, "include_dashboard": False})
    made.second = made.add_node(num_cpus=1)
    made.wait_for_nodes()
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def plan(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Plan]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(devices, "available_cores", lambda: 1)

    def make(execution: Execution | None = None, epochs: int = 30) -> Plan:
        settings = Settings(data=drawn, arch=("test_resnet",), k=3)
        return make_plan(settings, Recipe(epochs=epochs, img_size="32", pretrained=False), execution=execution)

    return make


def results() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted([*Path("runs").glob("*.npy"), *Path("checkpoints").glob("*/*.pt")])}


def test_a_lost_machine_s_jobs_go_on_elsewhere_to_the_same_bytes(cluster: Any, plan: Callable[..., Plan]) -> None:
    with locked(one := plan()):
        assert all(outcome.error is None for outcome in train(one, open_runs(one)))
    expected = results()
    assert len(expected) == 7
    start_over()

    nodes: dict[int, list[str]] = {}
    lost: list[float] = []

    def watch(job: Job, event: dict[str, Any]) -> None:
        seen = nodes.setdefault(job.fold, [])
        if event["node"] not in seen:
            seen.append(event["node"])
        under_way = {name for fold in nodes.values() for name in fold}
        if len(under_way) == 2 and event.get("epoch", 0) >= 2 and not lost:
            lost.append(time.monotonic())
            cluster.remove_node(cluster.second, allow_graceful=False)

    one = plan(Execution(backend="ray", address=cluster.address))
    assert one.placement.devices == ("cpu", "cpu")
    assert "2 machines with 2 cores (Ray), 1 thread each" in one.placement.reason
    with locked(one):
        outcomes = list(train(one, open_runs(one), watch))
    assert [outcome.error for outcome in outcomes] == [None] * 3
    assert lost, "both machines were never at work at once"
    assert max(map(len, nodes.values())) == 2, "no job was seen on two machines"
    assert results() == expected
    assert not list(Path("runs").glob("*/*/progress.json"))


def test_a_machine_that_does_not_see_the_files_is_an_error_that_names_both(
    cluster: Any, plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Job, "anywhere", lambda self: self)  # paths of this folder, which the machine does not work in
    one = plan(Execution(backend="ray", address=cluster.address), epochs=1)
    with locked(one):
        outcomes = list(train(one, open_runs(one)))
    assert all("does not see runs/test_resnet" in str(outcome.error) for outcome in outcomes)
    assert all("all machines share" in (outcome.error.hint or "") for outcome in outcomes if outcome.error)


def test_one_fold_that_fails_on_the_cluster_leaves_the_others(cluster: Any, plan: Callable[..., Plan]) -> None:
    Path("checkpoints/test_resnet/fold1.pt").mkdir(parents=True)
    one = plan(Execution(backend="ray", address=cluster.address), epochs=1)
    with locked(one):
        outcomes = {outcome.job.fold: outcome for outcome in train(one, open_runs(one))}
    assert [fold for fold, outcome in sorted(outcomes.items()) if outcome.error is not None] == [1]
    assert "fold1.pt" in str(outcomes[1].error)


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
    with pytest.raises(EnsembleError, match="--ray-address auto: Could not find") as error:
        connect("auto")
    assert "ray start --head" in (error.value.hint or "")


def test_without_ray_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match="not installed") as error:
        connect(None)
    assert error.value.hint == "pip install ray"


def test_a_cluster_with_gpus_gives_each_job_one_and_trains_on_it(plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    class Cluster:
        """Stands in for ray: what is asked of it, without a GPU."""

        exceptions = None

        def __init__(self) -> None:
            self.asked: list[dict[str, Any]] = []
            self.jobs: list[dict[str, Any]] = []

        def nodes(self) -> list[dict[str, Any]]:
            return [{"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0}}, {"Alive": False, "Resources": {"CPU": 8.0, "GPU": 2.0}}]

        def remote(self, function: Any) -> Any:
            return self

        def options(self, **asked: Any) -> Any:
            self.asked.append(asked)
            self.remote = lambda record, token: self.jobs.append(json.loads(record)) or len(self.jobs)  # type: ignore[method-assign]
            return self

        def wait(self, references: list[int], **how: Any) -> tuple[list[int], list[int]]:
            return references[:1], references[1:]

        def get(self, reference: int) -> dict[str, Any]:
            return {"message": "no GPU here", "hint": None, "details": []}

        def cancel(self, reference: int, force: bool) -> None:
            raise AssertionError

        def shutdown(self) -> None:
            pass

    standing_in = Cluster()
    monkeypatch.setattr(cluster_module, "connect", lambda address: standing_in)
    placement = place_on_cluster(5, Execution(backend="ray", per_device=2))
    assert placement.devices == ("cuda",) * 4
    assert placement.gpu_share == 0.5
    one = plan(epochs=1)
    with locked(one):
        outcomes = list(train_on_cluster(open_runs(one), placement, "auto", lambda job, event: None))
    assert [str(outcome.error) for outcome in outcomes] == ["no GPU here"] * 3
    assert standing_in.asked[0]["num_gpus"] == 0.5
    assert {job["device"] for job in standing_in.jobs} == {"cuda"}
    assert all(Path(job["folder"]).is_absolute() for job in standing_in.jobs)
