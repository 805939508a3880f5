"""One model on all people: its epochs, its files, and that nothing takes it for a fold or scores it out of fold."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import folds
from folds.config.command_settings import Settings
from folds.config.recipe import Recipe
from folds.errors import EnsembleError
from folds.experiments.ledger import ledger_file, read_ledger
from folds.experiments.listing import list_runs
from folds.experiments.refit import refit_done, summarize_refit
from folds.experiments.run_columns import COLUMNS
from folds.experiments.storage import move_run, remove_run
from folds.experiments.stored_runs import find_stored
from folds.models.checkpoint import hash_ids, load_checkpoint
from folds.predictions.files import fold_files
from folds.runs.execute import lock_runs, train
from folds.runs.open import prepare
from folds.runs.plan import build_plan
from folds.runs.refit import plan_refit, refit_jobs
from folds.runs.results import Runs
from folds.training.loop import best_epoch
from folds.training.trainer import train_fold
from tests.conftest import Called, Logged

SMALL: dict[str, Any] = {"k": 2, "epochs": 2, "img_size": 32, "pretrained": False, "batch_size": 32, "progress": False}


@pytest.fixture(scope="module")
def made(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("refit")
    folds.kfold(folds.read_table(drawn), arch="test_resnet", select="best", root=root, **SMALL)
    for name in ("checkpoints", "runs"):
        shutil.copytree(root / name, root / f"{name} before")
    folds.kfold(folds.read_table(drawn), arch="test_resnet", select="best", root=root, fold="all", **SMALL)
    return root


@pytest.fixture
def refit(made: Path, tmp_path: Path) -> Path:
    """A copy of a folder with a run of two folds and its model of all people."""
    shutil.copytree(made, tmp_path / "root")
    return tmp_path / "root"


def again(drawn: Path, root: Path, **more: Any) -> Runs:
    return folds.kfold(folds.read_table(drawn), arch="test_resnet", select="best", root=root, **{**SMALL, **more})


def test_folds_keep_their_bytes(made: Path) -> None:
    for before in [*made.glob("checkpoints before/*/*.pt"), *made.glob("runs before/*.npy")]:
        after = Path(str(before).replace(" before", ""))
        assert after.read_bytes() == before.read_bytes()
    config = "runs/test_resnet/config.toml"
    assert (made / config).read_bytes() == (made / "runs before/test_resnet/config.toml").read_bytes()


def test_the_checkpoint_knows_all_people_and_no_fold(made: Path, drawn: Path) -> None:
    checkpoint = load_checkpoint(made / "checkpoints/test_resnet/all.pt")
    ids = folds.read_table(drawn).train.ids.tolist()
    assert set(checkpoint.training_hashes) == set(hash_ids(ids))
    assert checkpoint.validation_hashes == ()
    assert (checkpoint.fold, checkpoint.k, checkpoint.part) == (2, 2, "all")
    done = [folds.load_run("test_resnet", root=made).checkpoints[fold] for fold in (0, 1)]
    assert checkpoint.refit is not None
    assert set(checkpoint.refit["folds"]) == {"0", "1"}
    assert all(path.is_file() for path in done)


def test_its_predictions_are_not_among_those_of_folds(made: Path) -> None:
    run = folds.load_run("test_resnet", root=made)
    assert run.refit is not None
    assert run.refit.test is not None
    assert (run.refit.test.run, run.refit.test.split) == ("test_resnet.all", "test")
    assert len(run.refit.test) == 42
    assert not list((made / "runs").glob("*all*.npy"))
    assert list(fold_files(made / "runs", "test_resnet")) == [0, 1]
    assert run.trained == (0, 1)
    assert not (made / "runs/test_resnet/all/oof.npy").exists()


def test_its_score_is_called_that_of_the_procedure(made: Path, drawn: Path) -> None:
    runs = again(drawn, made, fold="all")
    summary = runs.summaries[0]
    (line,) = summary.refit_lines()
    assert summary.oof.interval.text() in line
    assert "is the score of the procedure" in line
    assert summary.refit is not None
    assert summary.refit.test is not None
    assert f"this model itself has {summary.refit.test.interval.text()}" in line
    assert "optimistic" in line  # the best epoch was kept
    untested = replace(summary, refit=replace(summary.refit, test=None)).refit_lines()
    assert "never tested on unseen people" in untested[0]
    assert "score of the procedure" in runs.display_table().text(400)


def test_ledger_and_list_know_it(refit: Path) -> None:
    ledger = read_ledger(ledger_file(refit / "runs"))
    assert not ledger.damaged
    entry = ledger.latest()["test_resnet"]
    assert entry["refit"]["epochs"] in (1, 2)
    assert 0 <= entry["refit"]["test"]["macro_f1"]["score"] <= 1
    (one,) = list_runs(ledger, refit / "runs")
    assert COLUMNS["folds"][1](one) == "2/2 + all"
    assert one.flags == ("optimistic",)
    shutil.rmtree(refit / "runs/test_resnet/all")
    (one,) = list_runs(ledger, refit / "runs")
    assert "model of all people not in the ledger" in one.flags


@dataclass(frozen=True)
class FakeAssignment:
    k: int


@pytest.mark.parametrize(
    ("keep", "best", "expected"), [("last", (1, 2, 3), 4), ("best", (1, 2, 4), 2), ("best", (1, 2), 2)]
)
def test_epochs_are_the_median_of_the_folds(tmp_path: Path, keep: str, best: tuple[int, ...], expected: int) -> None:
    for fold, epoch in enumerate(best):
        folder = tmp_path / f"runs/x/fold{fold}"
        folder.mkdir(parents=True)
        scores = [0.1 + 0.5 * (at == epoch) for at in range(1, 5)]
        rows = "\n".join(f"{at},1.0,{score}" for at, score in enumerate(scores, 1))
        (folder / "history.csv").write_text(f"epoch,loss,validation_macro_f1\n{rows}\n")

    class FakeRun:
        name, recipe, assignment = "x", Recipe(epochs=4, keep=keep), FakeAssignment(len(best))

        def done(self, fold: int) -> dict[str, Any]:
            return {"checkpoint_sha": f"sha{fold}", "epochs": 4}

        def fold_folder(self, fold: int) -> Path:
            return tmp_path / f"runs/x/fold{fold}"

    found = plan_refit(FakeRun())  # type: ignore[arg-type]
    assert found.epochs == expected
    assert found.folds == {str(fold): f"sha{fold}" for fold in range(len(best))}


def test_the_best_epoch_is_the_first_of_equal_ones() -> None:
    history = [{"validation_log_loss": value} for value in (0.9, 0.4, 0.4, 0.6)]
    assert best_epoch(history, "log_loss") == 2
    assert best_epoch([{"validation_macro_f1": float("nan")}, {"validation_macro_f1": 0.1}], "macro_f1") == 2


def test_the_same_call_trains_nothing_again(refit: Path, drawn: Path) -> None:
    files = [refit / "checkpoints/test_resnet/all.pt", refit / "runs/test_resnet/all/done.json"]
    before = [path.stat().st_mtime_ns for path in files]
    again(drawn, refit, fold="all")
    assert [path.stat().st_mtime_ns for path in files] == before


def test_force_trains_only_this_model_and_gives_equal_weights(refit: Path, drawn: Path) -> None:
    checkpoints = {path.name: path for path in (refit / "checkpoints/test_resnet").glob("*.pt")}
    times = {name: path.stat().st_mtime_ns for name, path in checkpoints.items()}
    content = checkpoints["all.pt"].read_bytes()
    with pytest.raises(EnsembleError, match="model of all people"):
        again(drawn, refit, fold="all", resume=False)
    again(drawn, refit, fold="all", force=True)
    assert checkpoints["all.pt"].stat().st_mtime_ns > times["all.pt"]
    assert checkpoints["all.pt"].read_bytes() == content
    assert checkpoints["fold0.pt"].stat().st_mtime_ns == times["fold0.pt"]


def test_an_interrupted_training_goes_on_to_equal_weights(refit: Path, drawn: Path) -> None:
    path = refit / "checkpoints/test_resnet/all.pt"
    content = path.read_bytes()
    shutil.rmtree(refit / "runs/test_resnet/all")
    path.unlink()
    settings = Settings(data=drawn, k=2, arch=("test_resnet",))
    recipe = Recipe(epochs=2, img_size="32", pretrained=False, batch_size=32, keep="best")
    plan = build_plan(settings, recipe, root=refit, refit=True)
    with lock_runs(plan):
        (job,) = refit_jobs(plan, prepare(plan, resume=True).templates)
    job = replace(job, save_seconds=-1.0)  # after every step

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "epoch":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_fold(job, stop)
    assert (refit / "runs/test_resnet/all/state.pt").is_file()
    again(drawn, refit, fold="all")
    assert path.read_bytes() == content
    assert not (refit / "runs/test_resnet/all/state.pt").exists()


def test_a_fold_that_is_trained_again_removes_it(refit: Path, drawn: Path) -> None:
    again(drawn, refit, fold=1, force=True)
    assert not (refit / "checkpoints/test_resnet/all.pt").exists()
    assert refit_done(refit / "runs/test_resnet") is None


def test_a_model_of_other_folds_counts_as_none(refit: Path) -> None:
    assert summarize_refit("test_resnet", {"0": "other"}, refit / "runs") is None
    (refit / "runs/test_resnet/all/done.json").write_text('{"epochs": 1}')
    with pytest.raises(EnsembleError, match="is damaged"):
        refit_done(refit / "runs/test_resnet")


def test_a_failed_fold_leaves_its_run_without_one(refit: Path, drawn: Path, logged: Logged) -> None:
    plan = build_plan(
        Settings(data=drawn, k=2, arch=("test_resnet",)),
        Recipe(epochs=2, img_size="32", pretrained=False, batch_size=32, keep="best"),
        root=refit,
        refit=True,
    )
    assert refit_jobs(plan, {}, failed=["test_resnet"]) == []
    assert any("a fold has failed" in line for line in logged.warnings)
    with lock_runs(plan):
        assert list(train(plan, [])) == []


def test_a_renamed_run_takes_it_along(refit: Path) -> None:
    stored = find_stored("test_resnet", refit)
    assert any("model of all people" in place.what for place in stored.places())
    move_run(stored, replace(stored, name="other"))
    run = folds.load_run("other", root=refit)
    assert run.refit is not None
    assert run.refit.test is not None
    assert run.refit.test.run == "other.all"
    assert load_checkpoint(run.refit.checkpoint).run == "other"
    remove_run(find_stored("other", refit))
    assert not (refit / "checkpoints/other").exists()
    assert not (refit / "runs/other").exists()


def test_views_and_initial_weights_refuse_it(
    refit: Path, drawn: Path, call: Callable[..., Called], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(refit)
    said = call("tta", "checkpoints/test_resnet/all.pt", "--views", "hflip")
    assert said.code == 1
    assert "was trained on all people" in said.err
    (refit / "checkpoints/test_resnet/all.pt").unlink()
    with pytest.raises(EnsembleError, match="starts from that of test_resnet"):
        again(drawn, refit, name="more", init_run="test_resnet", pretrained=None, fold="all")


def test_dry_run_names_it_and_a_wrong_fold_is_refused(
    call: Callable[..., Called], drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["kfold", "--data", drawn, "--arch", "test_resnet", "--k", "2", "--img-size", "32", "--no-pretrained"]
    said = call(*words, "--fold", "all", "--dry-run")
    assert said.code == 0
    assert "test_resnet: all people" in said.out
    assert call(*words, "--fold", "0,all", "--dry-run").code == 2
    with pytest.raises(folds.UsageError, match="or 'all'"):
        folds.kfold(drawn, fold="every")


def test_a_damaged_checkpoint_of_all_people_is_refused(made: Path, tmp_path: Path) -> None:
    import torch

    record = torch.load(made / "checkpoints/test_resnet/all.pt", weights_only=True)
    for change in ({"refit": None}, {"fold": 0}, {"refit": {"epochs": 1}}, {"validation_hashes": "0" * 16}):
        torch.save(record | change, tmp_path / "x.pt")
        with pytest.raises(EnsembleError, match="damaged"):
            load_checkpoint(tmp_path / "x.pt")
    assert np.isfinite(record["weights"][next(iter(record["weights"]))].numpy()).all()
