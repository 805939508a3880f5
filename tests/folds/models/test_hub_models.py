"""Models named by a repository of the hub or by a folder: read as data, or refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from folds.errors import EnsembleError
from folds.models import hub_models
from folds.models.factory import create_model
from folds.models.hub_models import read_hub_model, without_owner
from folds.models.model_names import hub_model_of, resolve

CONFIG: dict[str, Any] = {
    "architecture": "test_resnet",
    "num_classes": 7,
    "pretrained_cfg": {"input_size": [3, 48, 64], "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]},
    "model_args": {"drop_rate": 0.25},
}


@pytest.fixture(autouse=True)
def _nothing_remembered() -> None:
    read_hub_model.cache_clear()


def saved(folder: Path, **changes: Any) -> str:
    """Write a model as timm saves it for the hub; return its name."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet", num_classes=7).state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))
    return f"local_dir:{folder}"


def test_a_folder_gives_architecture_input_and_weights(tmp_path: Path) -> None:
    name = saved(tmp_path / "m+n")
    found = resolve(name)
    assert (found.timm_name, found.height, found.width) == ("test_resnet", 48, 64)
    assert (found.mean, found.std, found.arguments) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), {"drop_rate": 0.25})
    model = hub_model_of(name)
    assert model is not None
    built = create_model(found, 3, init=model.weights)
    torch.manual_seed(0)
    original = timm.create_model("test_resnet", num_classes=7).state_dict()
    body = {key: value for key, value in built.state_dict().items() if not key.startswith("fc.")}
    assert all(torch.equal(value, original[key]) for key, value in body.items())
    assert built.state_dict()["fc.weight"].shape[0] == 3


@pytest.mark.parametrize("name", ["timm/test_resnet.r160_in1k", "hf_hub:timm/test_resnet.r160_in1k", "hf-hub:timm/vit"])
def test_repositories_of_timm_are_its_own_ids(name: str) -> None:
    assert without_owner(name) == name.split("/")[1]


def test_a_repository_of_timm_is_resolved_without_any_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_models, "read_hub_model", lambda name: pytest.fail("the hub was asked"))
    assert resolve("hf_hub:timm/test_resnet.r160_in1k").timm_name == "test_resnet.r160_in1k"


def test_a_repository_without_network_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EnsembleError, match=r"its cache here has no config\.json of someone/model") as error:
        resolve("hf_hub:someone/model")
    assert "\n" not in error.value.message
    assert "local_dir:FOLDER" in (error.value.hint or "")


def test_a_cached_repository_works_without_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    saved(tmp_path / "files")
    monkeypatch.setattr(
        "huggingface_hub.hf_hub_download", lambda repository, file, revision=None: str(tmp_path / "files" / file)
    )
    assert resolve("hf_hub:someone/model@main").timm_name == "test_resnet"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architecture": "test_resnet_of_tomorrow"}, "which this version of timm does not have"),
        ({"architecture": None}, "names no architecture of timm"),
        ({"architecture": "hf-hub:other/model"}, "which this version of timm does not have"),
        ({"model_args": {"in_chans": 1}}, "'in_chans' cannot be set"),
        ({"model_args": {"checkpoint_path": "x.pkl"}}, "is not an argument that shapes the model"),
        ({"pretrained_cfg": {"input_size": [1, 48, 48]}}, "images of 1 channels"),
        ({"pretrained_cfg": {"mean": ["a", 1, 2]}}, "expected three numbers"),
        ({"pretrained_cfg": []}, "is damaged"),
    ],
)
def test_what_is_not_a_model_of_timm_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(EnsembleError, match=said):
        resolve(saved(tmp_path / "m", **changes))


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", ""])
def test_a_folder_that_lacks_a_file_is_an_error_that_names_it(tmp_path: Path, missing: str) -> None:
    name = saved(tmp_path / "m")
    if missing:
        (tmp_path / "m" / missing).unlink()
    else:
        name, missing = f"local_dir:{tmp_path / 'nowhere'}", "there is no folder"
    with pytest.raises(EnsembleError, match=missing):
        resolve(name)


@pytest.mark.parametrize("name", ["hf_hub:someone", "hf_hub:a/b/c", "hf_hub:"])
def test_a_name_that_is_no_repository_is_refused(name: str) -> None:
    with pytest.raises(EnsembleError, match="expected a repository OWNER/NAME"):
        resolve(name)


def test_a_folder_is_not_joined_with_other_backbones(tmp_path: Path) -> None:
    with pytest.raises(EnsembleError, match="cannot be joined"):
        resolve(f"test_resnet+{saved(tmp_path / 'm')}")
