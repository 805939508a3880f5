"""Pretrained weights that are fetched once; the hub is a function here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from folds.errors import EnsembleError
from folds.models import factory
from folds.models.factory import Architecture, create_model
from folds.models.model_names import resolve
from folds.models.pretrained import PretrainedWeights, keep_weights, kept_weights, pretrained_file, weights_sha


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Answer for timm's hub with weights that follow from the name of the model; return what was asked for."""
    asked: list[str] = []

    def load(name: str, *_: Any, **__: Any) -> dict[str, torch.Tensor]:
        asked.append(name)
        torch.manual_seed(len(name))
        model = timm.create_model(name.removeprefix("timm/").partition(".")[0])
        return {key: value + 0.5 if value.is_floating_point() else value for key, value in model.state_dict().items()}

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", load)
    monkeypatch.setattr(factory, "without_waiting", lambda: None)
    return asked


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    one, other = first.state_dict(), second.state_dict()
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize(("name", "size", "outputs"), [("test_resnet", None, 5), ("test_vit", (64, 64), 3)])
def test_a_model_from_kept_weights_is_that_of_the_hub(
    name: str, size: tuple[int, int] | None, outputs: int, hub: list[str], tmp_path: Path
) -> None:
    architecture = resolve(name, size)
    kept = keep_weights(tmp_path, architecture, outputs)
    asked = len(hub)
    for seed in (3, 4):
        torch.manual_seed(seed)
        of_hub = create_model(architecture, outputs, pretrained=True)
        torch.manual_seed(seed)
        model = create_model(architecture, outputs)
        assert not same(model, of_hub)
        kept.load_into(model)
        assert same(model, of_hub)
    assert len(hub) == asked + 2  # by the models of the hub only
    assert keep_weights(tmp_path, architecture, outputs) == kept_weights(tmp_path, architecture, outputs) == kept
    assert len(hub) == asked + 2


def test_what_a_model_has_of_its_own_is_not_kept(hub: list[str], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    architecture = resolve("test_resnet")
    names = set(load_file(keep_weights(tmp_path, architecture, 5).path))
    own = set(create_model(architecture, 5).state_dict())
    assert own - names == {"fc.weight", "fc.bias"}
    # A head with the classes of the pretrained one comes with it, as in timm.
    assert set(load_file(keep_weights(tmp_path, architecture, 1000).path)) == own


def test_each_model_has_a_file_of_its_own(tmp_path: Path) -> None:
    def of(name: str, size: int, outputs: int = 5, **arguments: Any) -> Path:
        return pretrained_file(tmp_path, Architecture("x", name, size, size, (0.5,), (0.5,), arguments), outputs)

    files = [of("vit", 224), of("vit", 384), of("vit", 224, 6), of("vit.a", 224), of("vit", 224, depth=2)]
    assert len(set(files)) == len(files)
    assert of("vit", 224) == files[0]


def test_changed_or_foreign_weights_are_refused(hub: list[str], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    architecture = resolve("test_resnet")
    kept = keep_weights(tmp_path, architecture, 5)
    with pytest.raises(EnsembleError, match="is of another model"):
        kept.load_into(create_model(resolve("test_vit"), 5))
    weights = load_file(kept.path)
    weights["conv1.0.weight"] = weights["conv1.0.weight"] + 1
    save_file(weights, kept.path)
    with pytest.raises(EnsembleError, match="was changed"):
        kept.load_into(create_model(architecture, 5))
    kept.path.write_bytes(b"no weights")
    with pytest.raises(EnsembleError, match="cannot be read"):
        keep_weights(tmp_path, architecture, 5)
    with pytest.raises(EnsembleError, match="cannot be read"):
        PretrainedWeights(tmp_path / "none.safetensors", "").load_into(create_model(architecture, 5))


def test_the_hash_is_of_names_types_shapes_and_values() -> None:
    weights = {"a": torch.arange(6.0), "b": torch.tensor(3)}
    shas = {
        weights_sha(one)
        for one in (
            weights,
            weights | {"a": torch.arange(6.0).reshape(2, 3)},
            weights | {"a": torch.arange(6)},
            weights | {"b": torch.tensor(4)},
            {"a": weights["a"], "c": weights["b"]},
        )
    }
    assert len(shas) == 5
    assert weights_sha(dict(reversed(weights.items()))) == weights_sha(weights)
