"""The construction of a model stops before it needs more than it may."""

from dataclasses import replace

import pytest
import torch

from folds.errors import EnsembleError, UsageError
from folds.models.build_limit import BuildLimit, TooLargeError
from folds.models.factory import Architecture, create_model
from folds.models.model_names import resolve


def test_a_model_within_the_limit_has_the_same_weights():
    architecture = resolve("test_vit", (32, 32))
    torch.manual_seed(0)
    limited = create_model(architecture, 3, limit=BuildLimit(10**7)).state_dict()
    after = torch.rand(1)
    torch.manual_seed(0)
    import timm

    free = timm.create_model("test_vit", num_classes=3, **architecture.arguments).state_dict()
    assert all(torch.equal(limited[name], value) for name, value in free.items())
    assert torch.equal(after, torch.rand(1))


@pytest.mark.parametrize(
    "arguments",
    [
        {"embed_dim": 3 * 10**6},
        {"depth": 10**9},
        {"depth": 2_000_001},
        {"mlp_ratio": 1e9},
        {"img_size": [10**6, 10**6]},
    ],
)
def test_arguments_that_build_a_giant_are_refused(arguments):
    giant = replace(resolve("test_vit", (32, 32)), arguments=arguments)
    with pytest.raises(UsageError, match="cannot be built with"):
        create_model(giant, 3, limit=BuildLimit(10**7))


def test_a_layer_of_a_giant_is_counted_before_it_is_made():
    with pytest.raises(TooLargeError), BuildLimit(10**6):
        torch.nn.Linear(10**7, 10**7)
    row = torch.arange(10_000)
    with pytest.raises(TooLargeError), BuildLimit(10**6):
        torch.sub(row[:, None], row[None, :])


def test_a_checkpoint_builds_no_more_than_its_weights():
    from folds.models.checkpoint import Checkpoint

    architecture = Architecture("vit", "vit_large_patch16_224", 224, 224, (0.5,) * 3, (0.5,) * 3)
    weights = {"head.weight": torch.zeros(2, 4)}
    checkpoint = Checkpoint(
        "run", 0, 2, architecture, weights, ("a", "b"), {}, "label", {}, {}, {}, "off", (), ("0" * 16,), "", {}
    )
    with pytest.raises(EnsembleError, match="is damaged"):
        checkpoint.build()


def test_a_model_that_was_built_before_counts_as_much_again():
    architecture = resolve("test_vit", (32, 32))
    left = []
    for _ in range(2):
        limit = BuildLimit(10**7)
        create_model(architecture, 3, limit=limit)
        left.append((limit.elements, limit.calls))
    assert left[0] == left[1] != (10**7, 50_000)
    with pytest.raises(UsageError, match="cannot be built with"):
        create_model(architecture, 3, limit=BuildLimit(10**7 - left[0][0] - 1))
