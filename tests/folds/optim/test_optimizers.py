from __future__ import annotations

import itertools
from typing import Any

import pytest
import timm
import torch
from timm.optim import create_optimizer_v2

from folds.errors import UsageError
from folds.optim.optimizers import COMMON, Freezer, build_optimizer, optimizers
from folds.optim.weight_decay import default_weight_decay


@pytest.fixture
def model() -> torch.nn.Module:
    return timm.create_model("test_vit", img_size=32, num_classes=4)


@pytest.mark.parametrize("name", [*COMMON, "nadamw", "lamb"])
def test_an_optimizer_by_name_lowers_a_loss(name: str, model: torch.nn.Module) -> None:
    torch.manual_seed(0)
    optimizer = build_optimizer(model, name, 0.05, 1.0, {})
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8) % 4
    losses = []
    for _ in range(6):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 if name == "sgd" else 1e-3
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


def test_one_pass_gives_the_weights_of_torchs_own_loop(model: torch.nn.Module) -> None:
    other = timm.create_model("test_vit", img_size=32, num_classes=4)
    other.load_state_dict(model.state_dict())
    fused = build_optimizer(model, "adamw", 0.05, 1.0, {})
    decayed = [p for p in other.parameters() if p.ndim > 1 and p is not other.pos_embed and p is not other.cls_token]
    rest = [p for p in other.parameters() if all(p is not q for q in decayed)]
    plain = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}], lr=1.0
    )
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8) % 4
    for _ in range(3):
        for one, optimizer in ((model, fused), (other, plain)):
            for group in optimizer.param_groups:
                group["lr"] = 1e-3
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(one(images), labels).backward()
        for mine, theirs in zip(
            model.parameters(), other.parameters(), strict=True
        ):  # noise around 0 would decide the sign of a step
            mine.grad = theirs.grad
        fused.step()
        plain.step()
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-5)


def test_the_rate_falls_block_by_block_towards_the_input(model: torch.nn.Module) -> None:
    groups = build_optimizer(model, "adamw", 0.05, 0.5, {}).param_groups
    scales = sorted({group["lr_scale"] for group in groups})
    assert scales[-1] == 1.0
    assert len(scales) > 2
    assert all(after / before == pytest.approx(2) for before, after in itertools.pairwise(scales))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("adamm", {}, "did you mean adam"),
        ("adamw", {"lr": 0.1}, "lr has a setting of its own"),
        ("adamw", {"betas": "0.9"}, "must be a number"),
        ("adamw", {"nothing": 1}, "nothing"),
        ("sgd", {"betas": [0.9, 0.99]}, "betas"),
    ],
)
def test_what_cannot_be_is_refused(name: str, options: dict[str, Any], message: str, model: torch.nn.Module) -> None:
    with pytest.raises(UsageError, match=message):
        build_optimizer(model, name, 0.0, 1.0, options)


def test_no_optimizer_is_offered_that_needs_another_package() -> None:
    assert set(COMMON) <= set(optimizers())
    assert not [name for name in optimizers() if name.startswith("bnb")]


def test_frozen_body_keeps_statistics_and_trains_once_unfrozen() -> None:
    model = timm.create_model("test_resnet", num_classes=4)
    freezer, optimizer = Freezer(model), build_optimizer(model, "sgd", 0.05, 1.0, {})
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8) % 4
    for frozen in (True, False):
        model.train()
        freezer.set(frozen)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        moved = {
            name.split(".")[0] for name, value in model.state_dict().items() if not torch.equal(value, before[name])
        }
        assert (moved == {"fc"}) == frozen
        assert ("bn1" in moved) != frozen


@pytest.mark.parametrize("name", optimizers())
def test_the_default_weight_decay_does_not_erase_weights(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With gradients that hold no information, decay that is applied to the weights leaves 1 − rate × decay a step."""
    monkeypatch.setattr("timm.optim.kron.has_dynamo", False)  # it would be compiled for seconds
    left = []
    for decay in (0.0, default_weight_decay(name)):
        generator = torch.Generator().manual_seed(0)
        model = torch.nn.Linear(8, 8, bias=False)
        torch.nn.init.ones_(model.weight)
        optimizer = create_optimizer_v2(model, opt=name, lr=1e-2, weight_decay=decay)
        for _ in range(50):
            model.weight.grad = torch.randn(8, 8, generator=generator) * 1e-3
            optimizer.step()
        left.append(float(model.weight.detach().norm()))
    assert left[1] / left[0] > 0.94  # 0.05 × 0.01 × 50 steps = 2.5%; Adam with 0.05 would leave half


def test_decay_in_the_gradient_is_small_and_another_is_as_usual() -> None:
    found = {name: default_weight_decay(name) for name in ("adamw", "lion", "lookahead_adam", "SGD", "nadamw", "sgdw")}
    assert found == {"adamw": 0.05, "lion": 0.05, "lookahead_adam": 0.0, "SGD": 1e-4, "nadamw": 0.05, "sgdw": 0.05}


@pytest.mark.parametrize("name", ["adamw", "sgd", "lion", "lamb", "muon"])
@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_the_head_has_a_rate_of_its_own(name: str, layer_decay: float, model: torch.nn.Module) -> None:
    head = {id(parameter) for parameter in model.get_classifier().parameters()}
    plain = build_optimizer(model, name, 0.05, layer_decay, {}).param_groups
    scales = {id(one): group.get("lr_scale", 1.0) for group in plain for one in group["params"]}
    groups = build_optimizer(model, name, 0.05, layer_decay, {}, head_lr=10.0).param_groups
    found = {id(one): group.get("lr_scale", 1.0) for group in groups for one in group["params"]}
    assert found == {key: scale * (10 if key in head else 1) for key, scale in scales.items()}
    decays = {id(one): group["weight_decay"] for group in plain for one in group["params"]}
    assert {id(one): group["weight_decay"] for group in groups for one in group["params"]} == decays
