"""Tiny trainings with several labels and with numbers, from a table to the prediction file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from folds.augmentation.mixup import mix_batch
from folds.config.checks import check
from folds.config.command_settings import Settings
from folds.config.recipe import Recipe
from folds.data.sources import load_checkpoint_data
from folds.errors import EnsembleError, UsageError
from folds.experiments.comparison import compare_runs
from folds.experiments.ledger import append, ledger_file, read_ledger
from folds.experiments.record import entry_from_files
from folds.experiments.summary import summarize_run
from folds.models.checkpoint import load_checkpoint
from folds.models.factory import Architecture
from folds.models.number_head import units_of_model
from folds.predictions.files import oof_file, read_array, read_sidecar
from folds.predictions.label_columns import label_matrix
from folds.runs.open import prepare_jobs
from folds.runs.plan import Plan, build_plan
from folds.runs.publish import write_predictions
from folds.training.job import Job
from folds.training.resolve import validate_recipe
from folds.training.trainer import _build, _model, train_fold

TINY: dict[str, Any] = {"img_size": "32", "pretrained": False, "augment": "none", "lr": 6e-3, "label_smoothing": None}
PEOPLE = 16


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 16 people with three images: a red upper half is a hat, blue lower half are glasses; some unknown."""
    folder = tmp_path_factory.mktemp("columns")
    rng, lines = np.random.default_rng(0), ["path,person,hat,glasses,age,code"]
    for person in range(PEOPLE):
        hat, glasses = person % 2, person // 2 % 2
        for i in range(3):
            pixels = rng.integers(0, 60, (32, 32, 3))
            pixels[:16, :, 0] += 180 * hat
            pixels[16:, :, 2] += 180 * glasses
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{person}-{i}.png")
            known = "" if (person + i) % 7 == 0 else glasses
            lines.append(
                f"{person}-{i}.png,p{person},{hat},{known},{20.5 + 30 * hat + 5 * glasses},{400.1 + len(lines) % 33:.1f}"
            )
    (folder / "t.csv").write_text("\n".join(lines) + "\n")
    return folder / "t.csv"


def plan_of(table: Path, label: str, name: str = "run", **recipe: Any) -> Plan:
    settings = Settings(data=table, label=label, arch=("test_resnet",), k=2, name=name)
    return build_plan(settings, Recipe(**TINY | recipe))


def trained(plan: Plan, **options: Any) -> list[dict[str, Any]]:
    """Train all folds of a plan, publish them, and return what was recorded of them."""
    done = [train_fold(replace(job, threads=1), **options) for job in prepare_jobs(plan, resume=True)]
    write_predictions(plan, plan.runs[0])
    return done


@pytest.fixture(scope="module")
def labels_run(table: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A folder with a run of several labels, and the records of its folds."""
    return run_in(tmp_path_factory.mktemp("labels"), lambda: trained(plan_of(table, "hat,glasses", epochs=12)))


@pytest.fixture(scope="module")
def numbers_run(table: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A folder with a run of a number, and the records of its folds."""
    settings = {"epochs": 30, "task": "regression", "loss": "gaussian"}
    return run_in(tmp_path_factory.mktemp("numbers"), lambda: trained(plan_of(table, "age", **settings)))


def run_in(folder: Path, make: Callable[[], Any]) -> tuple[Path, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return folder, make()


def test_labels_are_learned_and_published(labels_run: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, done = labels_run
    path = oof_file(folder / "runs", "run")
    values, sidecar = read_array(path), read_sidecar(path)
    assert sidecar is not None
    assert (sidecar.kind, sidecar.task, sidecar.classes) == ("probability", "multilabel", ("hat", "glasses"))
    assert sidecar.rows.labels is not None
    assert values.shape == (3 * PEOPLE, 2)
    assert values.min() >= 0
    assert values.max() <= 1
    labels = label_matrix(sidecar.rows.labels, sidecar.classes, sidecar.task)
    assert np.isnan(labels[:, 1]).sum() == 7
    summary = summarize_run("run", dict(enumerate(done)), 2, folder / "runs")
    assert summary.oof.metric == "roc_auc"
    assert summary.oof.interval.value > 0.9
    assert list(summary.columns) == ["hat", "glasses"]
    assert done[0]["task"] == "multilabel"
    assert list(done[0]["scores"]) == ["roc_auc", "macro_f1", "log_loss"]


def test_numbers_are_in_the_unit_of_the_table(numbers_run: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, _ = numbers_run
    path = oof_file(folder / "runs", "run")
    values, sidecar = read_array(path), read_sidecar(path)
    assert sidecar is not None
    assert sidecar.rows.labels is not None
    assert (sidecar.kind, sidecar.task, sidecar.classes) == ("number", "regression", ("age",))
    truth = label_matrix(sidecar.rows.labels, sidecar.classes, sidecar.task)
    assert np.abs(values - truth).mean() < 0.5 * np.abs(truth - truth.mean()).mean()
    checkpoint = load_checkpoint(folder / "checkpoints" / "run" / "fold0.pt")
    assert (checkpoint.task, checkpoint.architecture.head) == ("regression", "gaussian")
    # The variance is learned, and no part of the predictions.
    assert checkpoint.build()(torch.zeros(1, 3, 32, 32)).shape == (1, 1)
    assert checkpoint.weights["fc.weight"].shape[0] == 2


def test_a_student_learns_the_numbers_of_its_teacher_in_the_units_of_its_head(
    numbers_run: tuple[Path, Any], table: Path, tmp_path: Path
) -> None:
    oof = oof_file(numbers_run[0] / "runs", "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        plan = plan_of(table, "age", "student", task="regression", epochs=1, soft_labels=oof)
        context = _build(replace(prepare_jobs(plan)[0], threads=1)).context
    teacher, values = read_array(oof)[:, 0].astype(np.float64), plan.table.label_values()
    assert read_sidecar(oof).rows.ids.tolist() == plan.table.ids.tolist()  # type: ignore[union-attr]
    own = values[context.training]
    expected = (teacher - own.mean()) / own.std()
    assert context.soft_labels is not None
    np.testing.assert_allclose(context.soft_labels[:, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(context.training_labels, (values - own.mean()) / own.std(), rtol=1e-5)
    assert context.counts().soft_share == 1  # type: ignore[union-attr]
    assert context.selected_on_validation  # its score is optimistic, as that of every student
    assert plan.runs[0].recipe.soft_weight == 0.5


@pytest.mark.parametrize(("classes", "same"), [(("age",), True), (("height",), False)])
def test_units_of_another_run_are_kept_for_the_same_numbers_only(
    numbers_run: tuple[Path, Any], table: Path, tmp_path: Path, classes: tuple[str, ...], same: bool
) -> None:
    init = numbers_run[0] / "checkpoints" / "run" / "fold0.pt"
    weights = load_checkpoint(init).weights
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        job = prepare_jobs(plan_of(table, "age", task="regression", loss="gaussian", epochs=1))[0]
    model, _, _ = _model(
        replace(job, init=str(init), classes=classes), Recipe(**job.recipe), Architecture(**job.architecture), 1
    )
    found = model.state_dict()
    assert torch.equal(found["conv1.0.weight"], weights["conv1.0.weight"].float())  # the body is loaded
    assert torch.equal(found["fc.center"], weights["fc.center"].float()) == same
    assert units_of_model(model).are_usual != same


def test_the_ledger_and_comparisons_have_the_scores_of_the_task(numbers_run: tuple[Path, Any]) -> None:
    runs = numbers_run[0] / "runs"
    entry = entry_from_files("run", runs)
    assert entry is not None
    append(ledger_file(runs), "run", entry)
    (line,) = read_ledger(ledger_file(runs)).entries
    assert line["schema"] == 3  # earlier versions say that they cannot read it
    assert line["oof"]["task"] == "regression"
    assert {"mae", "rmse", "r2"} < set(line["oof"])
    found = compare_runs("run", "run", runs)
    assert list(found.differences) == ["mae", "rmse", "r2"]
    assert found.differences["mae"].difference.value == 0


def test_a_resumed_training_gives_the_same_bytes(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = {"epochs": 3, "task": "regression", "mixup": 0.5, "cutmix": 1.0, "accumulate": 2, "ema": 0.5}
    settings |= {"weight_column": "hat2"}
    weighted = tmp_path / "t.csv"
    first, *rows = table.read_text().splitlines()
    lines = [f"{table.parent}/{row},{1 + i % 3}" for i, row in enumerate(rows)]
    weighted.write_text("\n".join([f"{first},hat2", *lines]) + "\n")

    def job(name: str) -> Job:
        plan = plan_of(weighted, "hat,glasses,age", name, **settings)
        return replace(prepare_jobs(plan, resume=True)[0], threads=1, save_seconds=0, run="same")

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "epoch" and event["epoch"] == 2:
            raise KeyboardInterrupt

    whole = job("whole")
    train_fold(whole)
    with pytest.raises(KeyboardInterrupt):
        train_fold(job("stopped"), stop)
    stopped = job("stopped")
    assert (stopped.fold_dir / "state.pt").exists()
    train_fold(stopped)
    first_array, second = (read_array(one.fold_dir / "oof.npy") for one in (whole, stopped))
    assert np.isfinite(first_array).all()
    assert first_array.tobytes() == second.tobytes()


def test_a_run_of_classes_that_are_numbers_is_resumed_as_it_was_started(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    guessed = plan_of(table, "code", epochs=1, head="linear")
    assert (guessed.table.task, guessed.runs[0].recipe.head) == ("regression", "number")
    started = plan_of(table, "code", epochs=1, task="classes")
    jobs = prepare_jobs(started)
    config = Path("runs/run/config.toml")
    text = config.read_text()
    for given, recorded in ((None, "classes"), ("classes", None), (None, None)):
        config.write_text(text if recorded else text.replace('task = "classes"\n', ""))  # as before there were tasks
        again = plan_of(table, "code", epochs=1, **({"task": given} if given else {}))
        assert (again.table.task, again.spec.task, len(again.table.classes)) == ("classes", "classes", 33)
        assert again.runs[0].recipe.task == recorded
        assert sorted(job.fold for job in prepare_jobs(again, resume=True)) == [0, 1]
    with pytest.raises(EnsembleError, match="different settings") as error:
        prepare_jobs(plan_of(table, "code", epochs=1, task="regression"), resume=True)
    assert any(line.startswith("task: not set") for line in error.value.details)
    assert plan_of(table, "code", name="new", epochs=1).table.task == "regression"
    # A checkpoint without a task is one of classes as well.
    record = {name: value for name, value in jobs[0].data.items() if name != "task"}
    assert load_checkpoint_data(record).train.task == "classes"


def test_a_mixed_cell_is_known_if_both_are() -> None:
    draws = torch.tensor([[1, 0.25], [0, 0.5]])
    labels = torch.tensor([[1.0, torch.nan], [0.0, 1.0]])
    _, mixed = mix_batch(torch.rand(2, 3, 4, 4), labels, draws)
    assert mixed[:, 0].tolist() == [0.25, 0.5]
    assert mixed[:, 1].isnan().all()


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"task": "multilabel", "sampler": "balanced"}, "sampler=balanced is about exclusive classes"),
        ({"task": "multilabel", "soften": Path("v.csv")}, "soften=v.csv is about exclusive classes"),
        ({"task": "regression", "relabel": Path("v.csv")}, "relabel=v.csv is about exclusive classes"),
        ({"task": "regression", "augment_more": {"a": "strong"}}, "augment_more=a is about exclusive classes"),
        ({"task": "regression", "per_person": {"a": 1}}, "per_person=a is about exclusive classes"),
        ({"task": "regression", "label_smoothing": 0.1}, "label_smoothing=0.1 is for multilabel"),
        ({"task": "multilabel", "head": "cosine"}, "head=cosine does not work with task=multilabel"),
        ({"task": "regression", "head": "cosine"}, "head=cosine does not work with task=regr"),
        ({"task": "multilabel", "loss": "ce"}, "ce is not a loss of task=multilabel"),
        ({"task": "regression", "loss": "gaussian", "features": True, "head": "linear"}, "has a head of its own"),
        ({"task": "regression", "loss": "l1", "features": True}, "head=logistic is fitted with mse"),
        ({"task": "binary", "loss": "huber"}, "huber is a loss of task=regression"),
        ({"head": "gaussian"}, "head=gaussian is for numbers"),
    ],
)
def test_what_a_task_does_not_support_is_refused(recipe: dict[str, Any], message: str) -> None:
    def check_all() -> None:
        check(Settings(), Recipe(**recipe))
        validate_recipe(Recipe(**recipe))

    with pytest.raises(UsageError, match=message):
        check_all()


@pytest.mark.parametrize(
    ("label", "recipe", "message"),
    [
        ("hat", {"loss": "asymmetric"}, "asymmetric is a loss of task=multilabel"),
        ("hat,glasses", {"loss": "l1"}, "l1 is not a loss|l1 is a loss of task=regression"),
        ("hat,glasses", {"metric": "mae"}, "metric=mae does not fit task=multilabel"),
        ("hat,glasses", {"target": "age"}, "target=age is about exclusive classes"),
    ],
)
def test_the_task_of_the_table_decides_what_fits(table: Path, label: str, recipe: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan_of(table, label, **recipe)


def test_open_settings_have_the_defaults_of_the_task(table: Path) -> None:
    recipe = plan_of(table, "hat,glasses").runs[0].recipe
    assert (recipe.task, recipe.loss, recipe.metric) == ("multilabel", "bce", "roc_auc")
    assert type(recipe.loss) is type(recipe.metric) is str  # a checkpoint holds plain values
    given = plan_of(table, "age", task="regression", metric="r2", loss="l1+.5*mse", head="linear").runs[0].recipe
    assert (given.loss, given.metric, given.head) == ("l1+.5*mse", "r2", "number")
