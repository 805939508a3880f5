from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from folds.errors import EnsembleError, UsageError
from folds.models.checkpoint import Checkpoint, hash_ids, save_checkpoint
from folds.models.factory import Architecture, create_model, is_convolutional
from folds.models.model_names import SHORT_NAMES, SMALL_SIZE, SMALL_VARIANTS, resolve
from folds.models.weight_files import read_weights


@pytest.mark.parametrize("name", SHORT_NAMES)
def test_short_name_resolves_to_a_timm_model_with_its_input_size(name: str) -> None:
    assert timm.is_model(SHORT_NAMES[name])
    found = resolve(name)
    config = timm.get_pretrained_cfg(SHORT_NAMES[name])
    assert (found.name, found.timm_name, found.arguments) == (name, SHORT_NAMES[name], {})
    assert (found.height, found.width) == config.input_size[1:] == (224, 224)
    assert (found.mean, found.std) == (config.mean, config.std)


def test_any_timm_id_is_accepted_with_or_without_its_tag() -> None:
    assert resolve("resnet34").timm_name == "resnet34"
    tagged = resolve("vit_base_patch16_224.augreg_in21k")
    assert tagged.timm_name == "vit_base_patch16_224.augreg_in21k"
    assert tagged.mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("name", "meant"), [("swim", "swin"), ("resnet-18", "resnet18"), ("Convnext_tinny", "convnext_tiny")]
)
def test_error_for_an_unknown_name_suggests_the_closest(name: str, meant: str) -> None:
    with pytest.raises(UsageError) as error:
        resolve(name)
    assert error.value.message.startswith(f"unknown architecture '{name}'; did you mean ")
    assert meant in error.value.message
    assert "swin" in str(error.value.hint)


def test_error_for_an_unknown_tag_names_the_architecture() -> None:
    with pytest.raises(UsageError, match=r"architecture resnet18\.no_such_tag: "):
        resolve("resnet18.no_such_tag")


@pytest.mark.parametrize("name", ["hf-hub:timm/resnet18", "local-dir:there", "someone/resnet18", "../resnet18"])
def test_names_of_hubs_and_folders_are_never_given_to_timm(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: pytest.fail("timm was asked"))
    if ":" not in name:
        with pytest.raises(UsageError, match="unknown architecture"):
            resolve(name)
    with pytest.raises(UsageError, match="timm has no model"):
        create_model(Architecture("a", name, 64, 64, (0.5,) * 3, (0.5,) * 3), 2)


@pytest.mark.parametrize(
    "arguments",
    [{"checkpoint_path": "x.pkl"}, {"pretrained_cfg": "x"}, {"pretrained": True}, {"cache_dir": "x"}, {"a": {}}],
)
def test_arguments_that_do_not_shape_the_model_are_rejected(
    arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: pytest.fail("timm was asked"))
    for build in (
        lambda: resolve("resnet18", arguments=arguments),
        lambda: create_model(Architecture("a", "resnet18", 64, 64, (), (), arguments), 2),
    ):
        with pytest.raises(UsageError, match=f"model_args: '{next(iter(arguments))}'"):
            build()


@pytest.mark.parametrize("name", SMALL_VARIANTS)
def test_small_variants_are_of_the_same_family_and_run_at_64_px(name: str) -> None:
    small = resolve(name, small=True)
    assert (small.height, small.width) == (SMALL_SIZE, SMALL_SIZE)
    assert small.timm_name == (SHORT_NAMES.get(name) or name)
    model = create_model(small, 18).eval()
    with torch.no_grad():
        assert model(torch.zeros(2, 3, SMALL_SIZE, SMALL_SIZE)).shape == (2, 18)
    assert sum(parameter.numel() for parameter in model.parameters()) < 2e6


def test_architecture_without_small_variant_gets_the_small_size() -> None:
    found = resolve("efficientnet", small=True)
    assert (found.timm_name, found.height, found.arguments) == ("efficientnet_b0", SMALL_SIZE, {})


@pytest.mark.parametrize("size", [(32, 32), (32, 64)])
def test_a_transformer_is_built_for_another_size_and_runs_there(size: tuple[int, int]) -> None:
    found = resolve("test_vit", size)
    assert found.arguments == {"img_size": size}
    with torch.no_grad():
        assert create_model(found, 5).eval()(torch.zeros(1, 3, *size)).shape == (1, 5)


def test_a_swin_is_built_for_another_size_and_runs_there() -> None:
    found = resolve("swin", (96, 64), arguments=SMALL_VARIANTS["swin"].arguments)
    assert found.arguments["img_size"] == (96, 64)
    with torch.no_grad():
        assert create_model(found, 5).eval()(torch.zeros(1, 3, 96, 64)).shape == (1, 5)


def test_only_fixed_size_models_at_another_size_get_img_size() -> None:
    assert resolve("test_vit", (160, 160)).arguments == {}
    found = resolve("test_resnet", (48, 32))
    assert (found.height, found.width, found.arguments) == (48, 32, {})
    with torch.no_grad():
        assert create_model(found, 5).eval()(torch.zeros(1, 3, 48, 32)).shape == (1, 5)


def test_own_arguments_are_added_to_those_of_the_small_variant() -> None:
    own = dict(SMALL_VARIANTS["swin"].arguments)
    found = resolve("swin", small=True, arguments={"embed_dim": 24})
    assert found.arguments == {**own, "embed_dim": 24, "img_size": (SMALL_SIZE, SMALL_SIZE)}
    assert SMALL_VARIANTS["swin"].arguments == own


def test_description_has_model_arguments_width_and_height() -> None:
    assert resolve("test_resnet", (48, 32)).describe() == "test_resnet, 32×48 px"
    assert resolve("test_vit", (32, 32)).describe() == "test_vit, 32×32 px"
    assert (
        resolve("test_resnet", arguments={"layers": (1, 1)}).describe() == "test_resnet with layers=(1, 1), 160×160 px"
    )


def test_error_for_an_unknown_model_argument_names_it() -> None:
    with pytest.raises(UsageError, match=r"architecture test_resnet cannot be built with .*'wings': 2"):
        create_model(resolve("test_resnet", arguments={"wings": 2}), 2)


def test_error_for_an_invalid_argument_names_the_architecture() -> None:
    with pytest.raises(UsageError, match="architecture test_vit cannot be built"):
        create_model(resolve("test_vit", (32, 32), arguments={"num_heads": 5}), 2)


def test_convolutional_networks_and_transformers_are_told_apart() -> None:
    assert is_convolutional(create_model(resolve("test_resnet"), 2))
    assert not is_convolutional(create_model(resolve("test_vit", (32, 32)), 2))


def built(name: str, classes: int, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return create_model(resolve(name, (32, 32)), classes)


HEADS = {"test_resnet": "fc.", "test_vit": "head.", "test_convnext": "head.fc.", "test_efficientnet": "classifier."}


def as_checkpoint(path: Path, name: str, model: torch.nn.Module, classes: int) -> None:
    some: dict[str, Any] = {
        "class_attributes": {},
        "images": {},
        "data": {},
        "recipe": {},
        "versions": {},
        "folds_sha": "",
        "amp": "off",
    }
    names = tuple(map(str, range(classes)))
    ids: dict[str, Any] = {"training_hashes": hash_ids(["a"]), "validation_hashes": hash_ids(["b"])}
    architecture = resolve(name, (32, 32))
    save_checkpoint(
        path,
        Checkpoint(
            "run",
            0,
            2,
            architecture=architecture,
            weights=model.state_dict(),
            classes=names,
            target="label",
            **some,
            **ids,
        ),
    )


FORMS: dict[str, Callable[[Path, str, torch.nn.Module, int], Any]] = {
    "state.pt": lambda path, _, model, __: torch.save(model.state_dict(), path),
    "state.pth": lambda path, _, model, __: torch.save({"epoch": 3, "model": model.state_dict()}, path),
    "lightning.pt": lambda path, _, model, __: torch.save({"state_dict": model.state_dict()}, path),
    "parallel.pt": lambda path, _, model, __: torch.save(
        {f"module.{key}": value for key, value in model.state_dict().items()}, path
    ),
    "state.safetensors": lambda path, _, model, __: save_file(model.state_dict(), path),
    "fold0.pt": as_checkpoint,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("classes", [3, 7])
def test_weights_come_from_a_file_of_any_form_with_a_fresh_head(tmp_path: Path, form: str, classes: int) -> None:
    path = tmp_path / form
    source = built("test_resnet", 3)
    FORMS[form](path, "test_resnet", source, 3)
    torch.manual_seed(1)
    model = create_model(resolve("test_resnet", (32, 32)), classes, init=path)
    for name, value in model.state_dict().items():
        if not name.startswith("fc."):
            assert torch.equal(value, source.state_dict()[name]), name
    fresh = built("test_resnet", classes, seed=1).state_dict()
    assert torch.equal(model.state_dict()["fc.weight"], fresh["fc.weight"])


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("classes", [3, 1000])
def test_every_family_takes_all_weights_but_the_head(tmp_path: Path, name: str, classes: int) -> None:
    source = built(name, 3)
    torch.save(source.state_dict(), tmp_path / "w.pt")
    torch.manual_seed(1)
    found = create_model(resolve(name, (32, 32)), classes, init=tmp_path / "w.pt").state_dict()
    for key, value in source.state_dict().items():
        assert key.startswith(HEADS[name]) or torch.equal(found[key], value), key
    assert found[f"{HEADS[name]}weight"].shape[0] == classes


def test_weights_without_any_head_are_taken_too(tmp_path: Path) -> None:
    source = built("test_vit", 3)
    torch.save(
        {key: value for key, value in source.state_dict().items() if not key.startswith("head.")}, tmp_path / "w.pt"
    )
    found = create_model(resolve("test_vit", (32, 32)), 4, init=tmp_path / "w.pt")
    assert torch.equal(found.state_dict()["blocks.0.attn.qkv.weight"], source.state_dict()["blocks.0.attn.qkv.weight"])


def test_position_embeddings_are_resampled_to_another_size(tmp_path: Path) -> None:
    source = built("test_vit", 3)
    torch.save(source.state_dict(), tmp_path / "w.pt")
    found = create_model(resolve("test_vit", (64, 64)), 3, init=tmp_path / "w.pt")
    assert found.state_dict()["pos_embed"].shape[1] == 1 + 16
    assert torch.equal(found.state_dict()["blocks.0.attn.qkv.weight"], source.state_dict()["blocks.0.attn.qkv.weight"])
    with torch.no_grad():
        assert found.eval()(torch.zeros(1, 3, 64, 64)).isfinite().all()


@pytest.mark.parametrize(
    ("weights", "name"), [("test_vit", "test_resnet"), ("test_resnet", "test_vit"), ("test_resnet", "test_convnext")]
)
@pytest.mark.parametrize("classes", [3, 7])
def test_weights_of_another_model_are_an_error(tmp_path: Path, weights: str, name: str, classes: int) -> None:
    torch.save(built(weights, 3).state_dict(), tmp_path / "w.pt")
    with pytest.raises(EnsembleError) as error:
        create_model(resolve(name, (32, 32)), classes, init=tmp_path / "w.pt")
    assert type(error.value) is EnsembleError
    assert error.value.message.startswith(f"`init_weights={tmp_path / 'w.pt'}` does not fit {name}: ")
    assert "this timm model" in str(error.value.hint)


@pytest.mark.parametrize("change", ["missing", "left over", "other shape"])
def test_error_for_partly_fitting_weights_names_the_layer(tmp_path: Path, change: str) -> None:
    state = dict(built("test_resnet", 3).state_dict())
    if change == "missing":
        del state["layer3.0.conv2.weight"]
    elif change == "left over":
        state["layer9.0.conv2.weight"] = torch.zeros(1)
    else:
        state["layer3.0.conv2.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(EnsembleError, match=r"does not fit test_resnet: .*layer\d\.0\.conv2\.weight"):
        create_model(resolve("test_resnet", (32, 32)), 7, init=tmp_path / "w.pt")


class Payload:
    """Unpickled, it would leave a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors", ".bin"])
def test_a_file_that_holds_code_is_refused_and_not_run(tmp_path: Path, suffix: str) -> None:
    path, trace = tmp_path / f"w{suffix}", tmp_path / "was-run"
    torch.save({"fc.weight": torch.zeros(1), "x": Payload(trace)}, path)
    with pytest.raises(EnsembleError) as error:
        create_model(resolve("test_resnet"), 2, init=path)
    assert not trace.exists()
    assert type(error.value) is EnsembleError
    assert error.value.message.startswith(f"`init_weights`: {path} holds no plain weights")
    assert "code in a file is never run" in str(error.value.hint)
    pickle.loads(pickle.dumps(Payload(trace)))
    assert trace.exists(), "the payload does nothing: this test could not fail"


def test_a_whole_pickled_model_is_refused(tmp_path: Path) -> None:
    torch.save(built("test_resnet", 2), tmp_path / "w.pt")
    with pytest.raises(EnsembleError, match="holds no plain weights"):
        read_weights(tmp_path / "w.pt")


@pytest.mark.parametrize("content", [{}, [1, 2], {"epoch": 3}, {0: torch.zeros(1)}, torch.zeros(2), {"model": {}}])
def test_file_without_named_weights_is_an_error_naming_the_file(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(EnsembleError) as error:
        read_weights(tmp_path / "w.pt")
    assert error.value.message == f"`init_weights`: expected weights by name, found none in {tmp_path / 'w.pt'}"


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n", json.dumps({"a": 1}).encode()])
def test_a_file_that_is_something_else_is_an_error_that_names_it(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(EnsembleError, match="holds no plain weights") as error:
        read_weights(tmp_path / name)
    assert str(tmp_path / name) in error.value.message


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    for path in (tmp_path / "w.pt", tmp_path):
        with pytest.raises(EnsembleError, match=f"init_weights: file not found: {path}"):
            read_weights(path)


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        OSError("We couldn't connect to the hub"),
        ConnectionError("offline"),
        caused(RuntimeError("no\nurl"), TimeoutError("slow")),
    ],
)
def test_error_for_a_failed_download_has_two_alternatives(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    asked: dict[str, Any] = {}

    def offline(*_: Any, **arguments: Any) -> None:
        asked.update(arguments)
        raise error

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(EnsembleError) as found:
        create_model(Architecture("swin", "resnet18", 64, 64, (0.5,) * 3, (0.5,) * 3), 2, pretrained=True)
    assert asked["pretrained"] is True
    assert type(found.value) is EnsembleError
    assert (
        found.value.message
        == f"the pretrained weights of resnet18 could not be downloaded: {' '.join(str(error).split())}"
    )
    assert "`init_weights=FILE`" in str(found.value.hint)
    assert "`pretrained=False`" in str(found.value.hint)


def test_random_weights_never_ask_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    real = timm.create_model
    monkeypatch.setattr(
        timm,
        "create_model",
        lambda *a, pretrained, **k: (asked.append(pretrained), real(*a, pretrained=pretrained, **k))[1],
    )
    create_model(resolve("test_resnet"), 2)
    assert asked == [False]


def test_resolving_a_name_builds_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.Module, "__init__", lambda *_, **__: pytest.fail("a model is built"))
    assert resolve("vit_large").timm_name == SHORT_NAMES["vit_large"]


def test_an_error_that_is_not_about_fetching_is_not_told_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    def misfit(*_: Any, **arguments: Any) -> None:
        raise RuntimeError("size mismatch for pos_embed")

    monkeypatch.setattr(timm, "create_model", misfit)
    with pytest.raises(EnsembleError, match="could not be built with its pretrained weights: size mismatch") as found:
        create_model(Architecture("vit", "test_vit", 64, 64, (0.5,) * 3, (0.5,) * 3), 2, pretrained=True)
    assert "download" not in found.value.message
