"""Pretrained weights of a run are fetched once, in the command, and are recorded; the hub is a function here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from folds.config.command_settings import Settings
from folds.config.files import read_record
from folds.config.recipe import Recipe
from folds.errors import EnsembleError
from folds.features.backbone import backbone_of
from folds.models import factory
from folds.models.checkpoint import load_checkpoint
from folds.runs.open import prepare_jobs
from folds.runs.plan import build_plan
from folds.training.job import Job
from folds.training.trainer import train_fold


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    asked: list[str] = []

    def load(name: str, *_: Any, **__: Any) -> dict[str, torch.Tensor]:
        asked.append(name)
        torch.manual_seed(0)
        return dict(timm.create_model("test_resnet").state_dict())

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", load)
    monkeypatch.setattr(factory, "without_waiting", lambda: None)
    return asked


def prepared(data: Path, resume: bool = False, name: str | None = None, **recipe: Any) -> list[Job]:
    settings = Settings(data=data, arch=("test_resnet",), k=3, name=name)
    values = {"epochs": 1, "img_size": "32", "pretrained": True} | recipe
    return prepare_jobs(build_plan(settings, Recipe(**values), resume=resume), resume=resume)


def test_folds_start_from_weights_that_were_fetched_once(
    hub: list[str], drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings(data=drawn, arch=("test_resnet",), k=3)
    build_plan(settings, Recipe(img_size="32", pretrained=True))
    assert not Path(".ensemble/weights").exists()  # a plan writes nothing
    jobs = prepared(drawn, lr=1e-12)
    asked = len(hub)
    assert asked
    (kept,) = Path(".ensemble/weights").iterdir()
    assert {job.pretrained for job in jobs} == {str(kept)}
    assert str(kept) in jobs[0].reads
    assert jobs[0].with_absolute_paths().pretrained == str(kept.absolute())
    train_fold(jobs[0])
    trained = load_checkpoint(Path(jobs[0].checkpoint)).weights
    torch.manual_seed(0)
    first = timm.create_model("test_resnet").state_dict()
    torch.testing.assert_close(trained["conv1.0.weight"], first["conv1.0.weight"], atol=1e-6, rtol=0)
    record = read_record(Path("runs/test_resnet/config.toml"))
    assert record["resolved"]["pretrained_sha"] == jobs[0].pretrained_sha
    assert [job.fold for job in prepared(drawn, resume=True, lr=1e-12)] == [job.fold for job in jobs[1:]]
    assert len(hub) == asked  # neither the fold nor the resumed command has asked


def test_a_run_goes_on_with_the_weights_it_was_started_with(
    hub: list[str], drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    prepared(drawn)
    (kept,) = Path(".ensemble/weights").iterdir()
    kept.unlink()
    prepared(drawn, resume=True)  # the hub still has the same weights

    def newer(name: str, *_: Any, **__: Any) -> dict[str, torch.Tensor]:
        torch.manual_seed(1)
        return dict(timm.create_model("test_resnet").state_dict())

    kept.unlink()
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", newer)
    with pytest.raises(EnsembleError, match="different settings") as found:
        prepared(drawn, resume=True)
    assert any("pretrained_sha" in line for line in found.value.details)


def test_runs_from_other_weights_keep_none(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    jobs = prepared(drawn, pretrained=False)
    assert jobs[0].pretrained is None
    assert "pretrained_sha" not in read_record(Path("runs/test_resnet/config.toml"))["resolved"]
    assert not Path(".ensemble/weights").exists()


def test_heads_of_all_kinds_use_weights_that_were_fetched_once(
    hub: list[str], drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (first, *_), asked = prepared(drawn, features=True), len(hub)
    (other, *_) = prepared(drawn, features=True, head="mlp", target="mask", name="other")
    (kept,) = Path(".ensemble/weights").iterdir()
    assert {first.pretrained, other.pretrained} == {str(kept)}
    body = backbone_of(first).body
    torch.manual_seed(0)
    torch.testing.assert_close(body.state_dict()["conv1.0.weight"], timm.create_model("test_resnet").conv1[0].weight)
    assert backbone_of(other).sha == backbone_of(first).sha
    assert len(hub) == asked
