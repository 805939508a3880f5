"""What the folds of a run begin with: nothing that has seen who is scored, nothing that the command itself would
remove.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from folds.config.command_settings import Settings
from folds.config.recipe import Recipe
from folds.config.sweep import RequestedRecipe
from folds.errors import EnsembleError, UsageError
from folds.experiments.comparison import compare_runs
from folds.models.checkpoint import load_checkpoint
from folds.runs.initial_weights import find_initial_weights
from folds.runs.open import prepare_jobs
from folds.runs.plan import Plan, build_plan
from folds.runs.publish import write_predictions
from folds.runs.trained_curve import check_trained_curve
from folds.training.trainer import train_fold
from tests.conftest import Logged


def a_plan(
    data: Path, name: str, *, arch: str = "test_resnet", k: int = 3, more: dict[str, Any] | None = None, **recipe: Any
) -> Plan:
    values = {
        "epochs": 1,
        "img_size": "32",
        "pretrained": None if recipe.keys() & {"init", "init_run"} else False,
    } | recipe
    return build_plan(Settings(data=data, arch=(arch,), k=k, name=name), Recipe(**values), **(more or {}))


@pytest.fixture(scope="module")
def first(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the trained run `first`, whose epoch was chosen on the folds that are scored."""
    folder = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        plan = a_plan(drawn, "first", keep="best")
        for job in prepare_jobs(plan):
            train_fold(job)
        write_predictions(plan, plan.runs[0])
    return folder


@pytest.fixture
def planned(first: Path, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Plan]:
    shutil.copytree(first, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return lambda name, **given: a_plan(drawn, name, **given)


def test_weights_of_one_fold_are_no_beginning_for_the_others(planned: Callable[..., Plan]) -> None:
    with pytest.raises(
        EnsembleError, match=r"fold0\.pt was trained on (\d+) of the \1 people that fold 1 of second is scored on"
    ) as refused:
        planned("second", init=Path("checkpoints/first/fold0.pt"))
    assert "`init_run=first`" in (refused.value.hint or "")
    assert len(prepare_jobs(planned("second", init=Path("checkpoints/first/fold0.pt"), more={"folds": [0]}))) == 1


def test_weights_of_another_split_with_scored_people_are_warned(planned: Callable[..., Plan], logged: Logged) -> None:
    made = planned("second", k=2, init=Path("checkpoints/first/fold0.pt"))
    assert sum("people that fold" in line for line in logged.warnings) == 2
    assert [*made.warnings] == logged.warnings


def test_weights_alone_do_not_say_whom_they_have_seen(planned: Callable[..., Plan]) -> None:
    torch.save(dict(load_checkpoint(Path("checkpoints/first/fold0.pt")).weights), "weights.pt")
    planned("second", init=Path("weights.pt"))


@pytest.mark.parametrize(
    "given",
    [{"init_run": "first"}, {"init": Path("checkpoints/first/fold0.pt"), "more": {"folds": [0], "force": True}}],
)
def test_a_run_does_not_replace_what_it_begins_with(planned: Callable[..., Plan], given: dict[str, Any]) -> None:
    with pytest.raises(EnsembleError, match="would overwrite its initial weights"):
        planned("first", **given)
    assert Path("checkpoints/first/fold0.pt").is_file()


def test_a_run_does_not_begin_with_one_of_the_same_command(planned: Callable[..., Plan]) -> None:
    recipe = Recipe(epochs=1, img_size="32", init_run="first")
    variants = [
        RequestedRecipe("first", Recipe(epochs=1, img_size="32", pretrained=False), "test_resnet"),
        RequestedRecipe("second", recipe, "test_resnet"),
    ]
    with pytest.raises(EnsembleError, match="this command trains first itself"):
        planned(None, more={"variants": variants, "force": True})


def test_another_model_is_refused_before_anything_is_decoded(planned: Callable[..., Plan]) -> None:
    with pytest.raises(EnsembleError, match="expected a test_vit, the model of second, found a test_resnet in"):
        planned("second", arch="test_vit", init_run="first")
    with pytest.raises(EnsembleError, match="there is no checkpoint"):
        planned("second", init_run="frist")


def test_resume_fails_after_init_run_was_retrained_differently(planned: Callable[..., Plan]) -> None:
    prepare_jobs(planned("second", init_run="first", more={"folds": [0]}))
    assert (
        len(prepare_jobs(planned("second", init_run="first"), resume=True)) == 3
    )  # further folds are no other beginning
    plan = planned("first", epochs=2, more={"force": True})
    for job in prepare_jobs(plan, force=True):
        train_fold(job)
    with pytest.raises(EnsembleError, match="was started with different settings") as refused:
        prepare_jobs(planned("second", init_run="first"), resume=True)
    assert any("init_run_sha" in line for line in refused.value.details)


def test_selection_on_validation_is_inherited_from_init_run(planned: Callable[..., Plan]) -> None:
    plan = planned("second", init_run="first")
    assert find_initial_weights(plan.runs, plan.folds)["second"].selected_on_validation
    done = [train_fold(job) for job in prepare_jobs(plan)]
    assert all(one["optimistic"] for one in done)
    assert load_checkpoint(Path("checkpoints/second/fold1.pt")).selected_on_validation
    write_predictions(plan, plan.runs[0])
    assert any(note.startswith("second is optimistic") for note in compare_runs("first", "second").notes)


def test_a_learning_curve_does_not_start_from_weights_that_know_its_people(planned: Callable[..., Plan]) -> None:
    (run,) = planned("plain").runs
    check_trained_curve(run)
    known = replace(run, recipe=replace(run.recipe, init=Path("checkpoints/first/fold0.pt")))
    with pytest.raises(UsageError, match=r"was trained on .* of the people"):
        check_trained_curve(known)
