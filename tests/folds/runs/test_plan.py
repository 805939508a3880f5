"""What a command is going to train: architectures × repeats × seeds, each run with its own folds and its own record."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from folds.config.command_settings import Settings
from folds.config.files import load_settings
from folds.config.recipe import Recipe
from folds.config.sweep import RequestedRecipe
from folds.errors import EnsembleError, UsageError
from folds.execution import placement as devices
from folds.execution.placement import DevicePlan, Execution
from folds.runs import open as opening
from folds.runs import plan
from folds.runs.open import prepare_jobs
from folds.runs.plan import Plan, build_plan
from folds.runs.plan_checks import check_backend as _check_backend
from folds.splits.kfold import read_folds
from folds.splits.repeated import MAX_INDEPENDENT_INDEX, max_rand_index
from tests.conftest import Logged

Planner = Callable[..., Plan]
HEADS = ("logistic", "linear")


@pytest.fixture
def planned(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Planner:
    """Makes a plan of tiny runs in a folder of its own, on one core."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(devices, "cpu_count", lambda: 1)

    def make(
        arch: tuple[str, ...] = ("test_resnet",), seed: int = 0, more: dict[str, Any] | None = None, **settings: Any
    ) -> Plan:
        recipe = Recipe(epochs=1, img_size="32", pretrained=False, seed=seed)
        return build_plan(Settings(data=drawn, arch=arch, k=3, **settings), recipe, **(more or {}))

    return make


def given_again(name: str) -> Plan:
    settings, recipe, _ = load_settings({}, Path(f"runs/{name}/config.toml"))
    return build_plan(settings, recipe)


def test_a_preset_plans_one_seed_of_a_logistic_head(planned: Planner, logged: Logged) -> None:
    frozen = [
        RequestedRecipe(head, Recipe(features=True, head=head, img_size="32", pretrained=False)) for head in HEADS
    ]

    def baselines(heads: Sequence[RequestedRecipe], **more: Any) -> dict[str, str | None]:
        made = planned(preset="best", seeds=3, name="run", more={"variants": heads, **more})
        return {run.name: run.baseline for run in made.runs}

    assert baselines(frozen) == {
        "run-logistic": None,
        "run-linear": "run-logistic",
        "run-linear-s1": "run-logistic",
        "run-linear-s2": "run-logistic",
    }
    assert any("one seed of each logistic head" in line and "`seeds=3`" in line for line in logged.notes)
    assert baselines(frozen[::-1]) == {
        "run-linear": None,
        "run-linear-s1": None,
        "run-linear-s2": None,
        "run-logistic": "run-linear",
    }
    assert list(baselines(frozen[:1])) == ["run-logistic"]
    assert "preset best: nothing; as given: epochs 1" in logged.notes  # without seeds, which are not used
    assert list(baselines(frozen[:1], seeds_given=True)) == ["run-logistic", "run-logistic-s1", "run-logistic-s2"]
    assert baselines(frozen, seeds_given=True)["run-linear-s2"] == "run-logistic-s2"


def test_first_run_of_repeats_and_seeds_has_no_suffix(planned: Planner) -> None:
    made = planned(arch=("test_resnet", "test_vit"), seed=7, repeats=2, seeds=2)
    names = ["test_resnet", "test_resnet-s8", "test_resnet-r1", "test_resnet-r1-s8"]
    assert [run.name for run in made.runs] == [*names, *(name.replace("resnet", "vit") for name in names)]
    assert [run.base for run in made.runs] == ["test_resnet"] * 4 + ["test_vit"] * 4
    assert [run.recipe.seed for run in made.runs] == [7, 8] * 4
    assert [run.assignment.repeat for run in made.runs] == [0, 0, 1, 1] * 2
    assert len(made.assignments) == 2
    assert max_rand_index(list(made.assignments)) <= MAX_INDEPENDENT_INDEX
    assert len(prepare_jobs(made)) == 8 * 3


def test_names_stay_unique_where_an_architecture_is_named_twice(planned: Planner) -> None:
    names = [run.name for run in planned(arch=("test_resnet", "test_resnet"), seeds=2).runs]
    assert names == ["test_resnet", "test_resnet-s1", "test_resnet-2", "test_resnet-2-s1"]


def test_the_jobs_of_a_repeat_are_of_its_own_folds(planned: Planner) -> None:
    made = planned(repeats=2)
    jobs = {job.run: job for job in prepare_jobs(made)}
    for run in made.runs:
        assert jobs[run.name].folds_sha == run.assignment.sha
        assert read_folds(run.folder / "folds.csv").sha == run.assignment.sha
        assert json.loads((run.folder / "folds.json").read_text())["repeat"] == run.assignment.repeat
    assert len({job.folds_sha for job in jobs.values()}) == 2


def test_images_are_decoded_once_for_all_repeats_and_seeds(planned: Planner, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    load = opening.load_images
    monkeypatch.setattr(
        opening, "load_images", lambda paths, *rest, **named: (asked.append(len(paths)), load(paths, *rest, **named))[1]
    )
    prepare_jobs(planned(repeats=2, seeds=2))
    assert asked == [210, 42]


def test_repeats_and_seeds_can_be_added_to_a_run_that_is_there(planned: Planner) -> None:
    prepare_jobs(planned())
    before = Path("runs/test_resnet/config.toml").read_bytes()
    assert len(prepare_jobs(planned(repeats=2, seeds=2), resume=True)) == 4 * 3
    assert Path("runs/test_resnet/config.toml").read_bytes() == before


@pytest.mark.parametrize("name", ["test_resnet", "test_resnet-s1", "test_resnet-r1", "test_resnet-r1-s1"])
def test_the_record_of_each_run_given_again_is_that_run_alone(planned: Planner, name: str) -> None:
    made = planned(repeats=2, seeds=2, stratify=("gender",))
    prepare_jobs(made)
    wanted = next(run for run in made.runs if run.name == name)
    Path("ensemble.toml").write_text("repeats = 3\nseeds = 3\n")  # what the record says comes first
    again = given_again(name)
    assert [(run.name, run.recipe.seed, run.assignment.sha) for run in again.runs] == [
        (name, wanted.recipe.seed, wanted.assignment.sha)
    ]
    assert (again.runs[0].assignment.repeat, again.runs[0].assignment.stratify) == (
        wanted.assignment.repeat,
        ("gender",),
    )
    assert len(prepare_jobs(again, resume=True)) == 3


def test_a_held_out_part_with_several_seeds_is_one_part(planned: Planner) -> None:
    made = planned(holdout=0.2, seeds=2)
    prepare_jobs(made)
    assert [run.name for run in made.runs] == ["test_resnet", "test_resnet-s1"]
    assert made.runs[0].assignment is made.runs[1].assignment
    assert given_again("test_resnet-s1").assignment.sha == made.assignment.sha


def test_columns_are_spread_besides_the_label_and_recorded(planned: Planner) -> None:
    made = planned(stratify=("gender", "age"))
    prepare_jobs(made)
    assert tomllib.loads(Path("runs/test_resnet/config.toml").read_text())["stratify"] == ["gender", "age"]
    assert json.loads(Path("runs/test_resnet/folds.json").read_text())["stratify"] == ["gender", "age"]
    assert made.assignment.sha != planned().assignment.sha
    with pytest.raises(UsageError, match="unknown column 'gendr'; did you mean gender"):
        planned(stratify=("gendr",))


def test_warning_for_a_missing_class_has_the_repeat_number(
    planned: Planner, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    monkeypatch.setattr(plan, "check_folds", lambda assignment, *rest: [f"fold of repeat {assignment.repeat}"])
    planned(repeats=2)
    assert logged.warnings == ["fold of repeat 0", "repeat 1: fold of repeat 1"]


@pytest.mark.parametrize(("loss", "accumulate", "lines"), [("ce+f1", 2, 1), ("ce+f1", 1, 0), ("ce", 2, 0)])
def test_a_batch_loss_over_parts_of_a_batch_is_warned_about(
    planned: Planner, loss: str, accumulate: int, lines: int, logged: Logged
) -> None:
    variant = RequestedRecipe("", Recipe(epochs=1, img_size="32", pretrained=False, loss=loss, accumulate=accumulate))
    planned(more={"variants": [variant, variant]})
    assert (
        sum("F1 is computed on each part of a batch" in line for line in logged.warnings) == lines
    )  # once for all variants


def test_other_device_kind_is_an_error_before_any_removal(planned: Planner) -> None:
    prepare_jobs(planned())
    made = planned()
    elsewhere = replace(
        made,
        placement=DevicePlan(("cuda:0",), 1, "a GPU"),
        runs=tuple(replace(r, recipe=replace(r.recipe, amp="off")) for r in made.runs),
    )
    with pytest.raises(EnsembleError, match="started with different settings"):  # amp was asked for, too
        prepare_jobs(elsewhere, resume=True)
    Path("runs/test_resnet/config.toml").write_text(
        Path("runs/test_resnet/config.toml").read_text().replace('amp = "auto"', 'amp = "off"')
    )
    with pytest.raises(EnsembleError, match="started on another kind of device") as refused:
        prepare_jobs(elsewhere, resume=True)
    assert refused.value.details == ("resolved device: cpu → cuda",)
    Path("runs/test_resnet/config.toml").write_text(
        Path("runs/test_resnet/config.toml").read_text().replace('device = "cpu"\n', "")
    )
    assert len(prepare_jobs(elsewhere, resume=True)) == 3  # begun before it was recorded


def test_version_warnings_are_for_unfinished_runs_only(
    planned: Planner, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    prepare_jobs(planned())
    prepare_jobs(planned(), resume=True)
    assert logged.warnings_of("folds.runs.open") == []
    now = opening.environment()
    monkeypatch.setattr(opening, "environment", lambda: now | {"numpy": "9.9"})
    prepare_jobs(planned(), resume=True)
    assert logged.warnings_of("folds.runs.open") == [
        f"test_resnet: started with numpy {now['numpy']} (now 9.9); results may differ in the last bits"
    ]
    monkeypatch.setattr(opening.Run, "done", lambda self, fold: {})
    assert prepare_jobs(planned(), resume=True) == []
    assert len(logged.warnings_of("folds.runs.open")) == 1


def test_force_on_all_folds_ignores_the_record(planned: Planner, logged: Logged) -> None:
    prepare_jobs(planned(more={"execution": Execution(per_device=3)}))
    record = Path("runs/test_resnet/config.toml")
    assert planned().placement.devices == ("cpu",) * 3
    for content in ("[", "resolved = 5", "[resolved]\nthreads = 'many'"):
        record.write_text(content)
        Path("runs/test_resnet/environment.json").write_text("{")
        with pytest.raises(EnsembleError, match=r"config\.toml"):
            planned(more={"folds": [0], "force": True})
        made = planned(more={"force": True})
        assert made.placement.devices == ("cpu",)
        assert len(prepare_jobs(made, force=True)) == 3
        assert logged.warnings_of("folds.runs.open") == []
        assert tomllib.loads(record.read_text())["resolved"]["threads"] == 1


def test_recorded_jobs_per_device_are_the_default_of_a_resume(planned: Planner) -> None:
    prepare_jobs(planned(more={"execution": Execution(per_device=2)}))
    assert tomllib.loads(Path("runs/test_resnet/config.toml").read_text())["resolved"]["jobs"] == 2
    assert planned().placement.devices == ("cpu", "cpu")
    assert planned(more={"execution": Execution(per_device=1)}).placement.devices == ("cpu",)


def test_one_job_a_gpu_is_recorded_as_the_choice_it_was(planned: Planner) -> None:
    made = replace(planned(), placement=DevicePlan(("cuda:0",), 1, "a GPU"))
    made = replace(made, runs=tuple(replace(run, recipe=replace(run.recipe, amp="off")) for run in made.runs))
    prepare_jobs(made)
    resolved = tomllib.loads(Path("runs/test_resnet/config.toml").read_text())["resolved"]
    assert (resolved["device"], resolved["jobs"]) == ("cuda", 1)


def test_cpu_jobs_follow_from_the_recorded_threads(planned: Planner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cpu_count", lambda: 2)
    prepare_jobs(planned(more={"folds": [0]}))
    resolved = tomllib.loads(Path("runs/test_resnet/config.toml").read_text())["resolved"]
    assert (resolved["device"], resolved["threads"], resolved.get("jobs")) == ("cpu", 2, None)
    assert planned().placement.devices == ("cpu",)
    monkeypatch.setattr(devices, "cpu_count", lambda: 6)
    assert planned().placement.devices == ("cpu",) * 3


def test_every_sample_is_validated_once_in_each_repeat(planned: Planner) -> None:
    for assignment in planned(repeats=3).assignments:
        rows = np.concatenate([assignment.validation_index(fold) for fold in range(3)])
        assert sorted(rows.tolist()) == list(range(210))


def test_a_column_given_as_a_file_of_folds_points_at_the_option(planned: Planner) -> None:
    with pytest.raises(UsageError, match="there is no file gender") as error:
        planned(folds=Path("gender"))
    assert "`fold_column=gender`" in (error.value.hint or "")


def test_folds_of_the_folder_are_those_of_the_plan_and_recorded(planned: Planner) -> None:
    first = planned(more={"found_folds": Path("folds.csv")})
    first.assignment.save("folds.csv")
    again = planned(seed=5, more={"found_folds": Path("folds.csv")})
    assert again.settings.folds == Path("folds.csv")
    assert again.assignment.sha == first.assignment.sha
    assert planned(seed=5, more={"found_folds": None}).assignment.sha != first.assignment.sha


def test_a_run_of_earlier_defaults_goes_on_with_them(planned: Planner, tmp_path: Path) -> None:
    """Version 1 of the defaults had one rate for all pretrained models and batch sizes."""
    from folds.models.factory import create_model
    from folds.models.model_names import resolve

    weights = tmp_path / "w.pt"
    torch.save(create_model(resolve("test_vit", (32, 32)), 18).state_dict(), weights)
    recipe = Recipe(epochs=1, img_size="32", init=weights, batch_size=64)

    def again() -> Plan:
        return build_plan(replace(planned().settings, arch=("test_vit",)), recipe)

    run = again().runs[0]
    assert (run.recipe.lr, run.recipe.layer_decay, run.recipe.ema) == (1.41e-3, 1.0, 0.0)
    assert run.rate_reason.endswith(" parameters from pretrained weights, ×1.41 for batches of 64")
    prepare_jobs(again())
    record = run.folder / "config.toml"
    now = record.read_text()
    former = now.replace("lr = 0.00141", "lr = 0.0002")
    assert former != now
    record.write_text(former.replace("defaults = 2\n", ""))
    old = again().runs[0]
    assert (old.recipe.lr, old.rate_reason) == (2e-4, "as this run was started")
    one = build_plan(replace(planned().settings, arch=("test_vit",)), recipe, folds=[1], force=True)
    assert one.runs[0].recipe.lr == 2e-4  # the other folds keep it
    prepare_jobs(again(), resume=True)
    record.write_text(former)  # with today's defaults, the rate was given
    with pytest.raises(EnsembleError, match="different settings") as caught:
        prepare_jobs(again(), resume=True)
    assert list(caught.value.details) == ["lr: 0.0002 → 0.00141"]


@pytest.mark.parametrize("execution", [Execution(gpus_per_job=2), Execution(backend="ray")])
def test_heads_on_frozen_features_train_on_this_cpu(execution: Execution) -> None:
    with pytest.raises(UsageError, match="frozen features"):
        _check_backend([Recipe(features=True)], execution)
    _check_backend([Recipe()], execution)
