"""Heat maps show what a model uses: a planted cue, the sanity check with random weights, and many architectures."""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from ensemble.explain.target_layer import find_target_layer
from folds.data.targets import resolve_target
from folds.errors import EnsembleError
from folds.models.factory import create_model
from folds.models.model_names import resolve
from folds.models.multi_head import join_heads
from tests.ensemble.explain.planted import SIDE, TinyCNN, draw, trained

pytest.importorskip("pytorch_grad_cam", reason="needs the extra explain")
from ensemble.explain.maps import HeatMapper


@pytest.fixture(scope="module")
def network() -> TinyCNN:
    return trained()


def best(probabilities: NDArray[np.float32]) -> int:
    return int(probabilities.mean(0).argmax())


def maps_of(model: torch.nn.Module, images: torch.Tensor) -> NDArray[np.float32]:
    return HeatMapper([model], images[:1], "tiny").maps(images, [best] * len(images)).maps[0]


def test_the_heat_lies_where_the_planted_cue_is(network: TinyCNN) -> None:
    images, labels, quadrants = draw(200, 1)
    with torch.no_grad():
        assert (network(images).argmax(1).numpy() == labels).mean() > 0.95
    maps = maps_of(network, images)
    half = SIDE // 2
    heat = maps.reshape(-1, 2, half, 2, half).sum((2, 4)).reshape(-1, 4)  # of the quadrants
    assert (heat.argmax(1) == quadrants).mean() > 0.8
    share = heat[np.arange(200), quadrants] / heat.sum(1)
    assert (share > 0.5).mean() > 0.8


def test_random_weights_give_another_map(network: TinyCNN) -> None:
    """The sanity check of Adebayo et al. (2018), cascading from the head down to the first block: what does not depend
    on the weights does not explain the model.
    """
    images, _, _ = draw(60, 2)
    with torch.no_grad():
        classes = network(images).argmax(1).tolist()

    def maps(model: torch.nn.Module) -> NDArray[np.float32]:
        return (
            HeatMapper([model], images[:1], "tiny")
            .maps(images, [lambda p, code=code: code for code in classes])
            .maps[0]
        )

    def alike(one: NDArray[np.float32], two: NDArray[np.float32]) -> float:
        """The mean absolute rank correlation of maps; that with a map without any heat is 0."""
        pairs = zip(one.reshape(len(one), -1), two.reshape(len(two), -1))
        return float(np.mean([abs(spearmanr(a, b).statistic) if a.any() and b.any() else 0.0 for a, b in pairs]))

    own = maps(network)
    blocks = [("head",), ("stages.6", "stages.7"), ("stages.3", "stages.4"), ("stages.0", "stages.1")]
    found = np.zeros((5, len(blocks)))
    for seed in range(5):
        torch.manual_seed(100 + seed)
        random, model = TinyCNN(), deepcopy(network)
        for at, names in enumerate(blocks):
            for name in names:
                model.get_submodule(name).load_state_dict(random.get_submodule(name).state_dict())
            found[seed, at] = alike(own, maps(model))
    head, last, middle, all_ = found.mean(0)  # 0.62, 0.44, 0.43 and 0.23
    assert head > last > all_
    assert middle > all_
    assert all_ < 0.35
    np.testing.assert_array_equal(maps(network), own)


def test_the_map_is_that_of_the_formula(network: TinyCNN) -> None:
    images, labels, _ = draw(3, 4)
    found = HeatMapper([network], images[:1], "tiny").maps(
        images, [lambda p, code=code: code for code in labels.tolist()]
    )
    with torch.no_grad():
        features = network.stages(images)
    # Of a mean and a linear head, the gradient of a score is the weight of its channel, up to a factor.
    expected = torch.einsum("nchw,nc->nhw", features, network.head.weight[torch.from_numpy(labels)]).clamp(min=0)
    cells = found.maps[0][:, ::4, ::4]  # the first cell of strided convolutions is about the first pixel
    for one, two in zip(cells, expected.detach().numpy()):
        assert np.corrcoef(one.ravel(), two.ravel())[0, 1] > 0.97
    np.testing.assert_array_equal(found.explained, labels)


def test_several_models_keep_their_own_maps(network: TinyCNN) -> None:
    images, _, _ = draw(5, 5)
    torch.manual_seed(7)
    models = [network, TinyCNN().eval(), TinyCNN().eval()]
    pick = [lambda p: 1] * 5
    together = HeatMapper(models, images[:1], "tiny").maps(images, pick)
    for at, model in enumerate(models):
        alone = HeatMapper([model], images[:1], "tiny").maps(images, pick)
        np.testing.assert_allclose(together.maps[at], alone.maps[0], atol=1e-6)
        np.testing.assert_allclose(together.probabilities[at], alone.probabilities[0], atol=1e-6)
    assert any(not np.allclose(one, two, atol=0.1) for one, two in pairwise(together.maps))


def test_a_class_without_evidence_has_an_empty_map(network: TinyCNN) -> None:
    images, _, _ = draw(4, 6)
    silent = TinyCNN().eval()
    silent.load_state_dict(network.state_dict())
    torch.nn.init.constant_(silent.head.weight, -1.0)
    found = HeatMapper([silent], images[:1], "tiny").maps(images, [best] * 4)
    assert not found.maps.any()


PLACES = {
    "test_resnet": ("layer4", "nchw"),
    "test_convnext": ("norm_pre", "nchw"),
    "test_efficientnet": ("bn2", "nchw"),
    "test_mambaout": ("stages", "nhwc"),
    "test_vit": ("blocks.5.norm1", "tokens"),  # behind it, the image tokens do not reach the class token
    "test_vit2": ("norm", "tokens"),  # its class is read from the mean of all tokens
}


@pytest.mark.parametrize("name", PLACES)
def test_the_last_features_that_the_class_depends_on(name: str) -> None:
    torch.manual_seed(0)
    size = {"img_size": (160, 128)} if "vit" in name else {}
    model = timm.create_model(name, num_classes=4, **size).eval().requires_grad_(False)
    images = torch.randn(2, 3, 160, 128)
    place = find_target_layer(model, images, name)
    assert (place.name, place.layout) == PLACES[name]
    assert place.rows * 128 == place.columns * 160
    found = HeatMapper([model], images[:1], name).maps(images, [best] * 2)
    assert found.maps.shape == (1, 2, 160, 128)
    with torch.no_grad():
        np.testing.assert_allclose(found.probabilities[0], model(images).softmax(1).numpy(), atol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnetv2_b0", "convnext_atto"])
def test_the_heat_lies_where_the_features_come_from(name: str) -> None:
    """A square of another color changes the features most in cells around it; strided convolutions shift them."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=2).eval().requires_grad_(False)
    place = find_target_layer(model, torch.randn(1, 3, 128, 128), name)
    layer, kept = model.get_submodule(place.name), []
    hook = layer.register_forward_hook(lambda module, inputs, output: kept.append(place.features(output)[0]))
    centers = []
    for row, column in ((40, 72), (56, 56), (72, 64)):
        images = torch.zeros(2, 3, 128, 128)
        images[1, :, row - 8 : row + 8, column - 8 : column + 8] = 1
        kept.clear()
        model(images[:1])
        model(images[1:])
        change = (kept[1] - kept[0]).abs().sum(0).numpy() ** 2  # the tails of the receptive field count less
        cells = np.arange(len(change))
        stretched = [(cells + 0.5) * 128 / len(cells) - by for by in place.shift]
        found = [float((change.sum(1 - axis) * stretched[axis]).sum() / change.sum()) for axis in (0, 1)]
        centers.append(np.subtract(found, (row, column)))
    hook.remove()
    assert np.abs(np.mean(centers, 0)).max() < 8  # a quarter of a cell
    assert place.shift == {"resnet18": (16, 16), "tf_efficientnetv2_b0": (-16, -16), "convnext_atto": (0, 0)}[name]


def test_coarse_features_of_a_cnn_give_way_to_those_of_an_earlier_stage() -> None:
    model = timm.create_model("resnet18", num_classes=2).eval().requires_grad_(False)
    place = find_target_layer(model, torch.randn(1, 3, 64, 64), "resnet18")
    assert (place.name, place.rows, place.columns) == ("layer3", 4, 4)


def test_swin_features_with_the_channels_last() -> None:
    model = create_model(resolve("swin", small=True), 4).eval().requires_grad_(False)
    place = find_target_layer(model, torch.randn(1, 3, 64, 64), "swin")
    assert (place.name, place.layout, place.rows, place.columns) == ("norm", "nhwc", 4, 4)


def test_each_head_has_a_map_of_its_own() -> None:
    attributes = {f"{a}{b}": {"a": a, "b": b} for a in "xy" for b in "uvw"}
    target = resolve_target("a+b", tuple(attributes), attributes)
    torch.manual_seed(0)
    model = join_heads(timm.create_model("test_resnet", num_classes=target.outputs).eval(), target)
    images = torch.randn(2, 3, 64, 64)
    label = HeatMapper([model], images[:1], "test_resnet").maps(images, [best] * 2)
    assert label.probabilities.shape == (1, 2, 6)
    heads = [
        HeatMapper([model], images[:1], "test_resnet", block=block).maps(images, [best] * 2)
        for block in ((0, 2), (2, 5))
    ]
    assert [one.probabilities.shape[2] for one in heads] == [2, 3]
    joined = np.einsum("na,nb->nab", *(one.probabilities[0] for one in heads)).reshape(2, 6)
    np.testing.assert_allclose(label.probabilities[0], joined, atol=1e-5)
    assert not np.allclose(heads[0].maps, heads[1].maps, atol=0.05)


@pytest.mark.parametrize(
    ("name", "said"),
    [("crossvit_tiny_240", "no module of crossvit_tiny_240"), ("coat_tiny", "on several grids at once")],
)
def test_branches_that_one_map_would_not_show_are_refused(name: str, said: str) -> None:
    torch.manual_seed(0)
    arguments = {"embed_dim": (24, 48)} if name == "crossvit_tiny_240" else {"embed_dims": (32, 32, 32, 32)}
    model = timm.create_model(name, num_classes=2, **arguments).eval().requires_grad_(False)
    with pytest.raises(EnsembleError, match=said) as caught:
        find_target_layer(model, torch.randn(1, 3, *model.default_cfg["input_size"][1:]), name)
    assert "heat maps work for" in (caught.value.hint or "")


def test_a_coarse_bottleneck_gives_way_to_a_stage_that_nothing_leads_around() -> None:
    torch.manual_seed(0)
    model = timm.create_model("resnet26", num_classes=2).eval().requires_grad_(False)
    place = find_target_layer(model, torch.randn(1, 3, 64, 64), "resnet26")
    assert (place.name, place.rows, place.columns) == ("layer3", 4, 4)


def test_joined_backbones_are_refused() -> None:
    model = create_model(resolve("test_resnet+test_vit", img_size=(64, 64)), 4).eval()
    with pytest.raises(EnsembleError, match="joins several backbones") as caught:
        find_target_layer(model, torch.randn(1, 3, 64, 64), "test_resnet+test_vit")
    assert "resnet" in (caught.value.hint or "")


def test_a_model_without_a_grid_is_refused() -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 64, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    with pytest.raises(EnsembleError, match="no module of mlp has features on a grid"):
        find_target_layer(model, torch.randn(1, 3, 8, 8), "mlp")
