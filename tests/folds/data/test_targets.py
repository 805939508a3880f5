from __future__ import annotations

import numpy as np
import pytest
import torch

from folds.data.mask_competition import CLASS_ATTRIBUTES, CLASSES
from folds.data.targets import rebinned, resolve_target
from folds.errors import UsageError
from folds.models.multi_head import MultiHeadModel, join_heads
from folds.optim.losses import build_loss
from folds.training.criterion import build_criterion, check_head_losses


def test_the_label_is_one_head_with_all_classes() -> None:
    target = resolve_target("label", CLASSES, CLASS_ATTRIBUTES)
    codes = np.array([3, 17, 0])
    assert (target.name, target.classes, target.outputs, target.head_names, target.joined) == (
        "label",
        CLASSES,
        18,
        (),
        False,
    )
    np.testing.assert_array_equal(target.encode_scored(codes), codes)
    np.testing.assert_array_equal(target.encode_heads(codes), codes[:, None])


def test_an_attribute_alone_is_scored_by_its_own_values() -> None:
    target = resolve_target("age", CLASSES, CLASS_ATTRIBUTES)
    assert (target.name, target.classes, target.outputs) == ("age", ("<30", "30-59", ">=60"), 3)
    np.testing.assert_array_equal(target.encode_scored(np.arange(18)), np.arange(18) % 3)
    np.testing.assert_array_equal(target.encode_heads(np.arange(18))[:, 0], np.arange(18) % 3)


def test_three_heads_make_the_label() -> None:
    target = resolve_target("mask+gender+age", CLASSES, CLASS_ATTRIBUTES)
    assert (target.name, target.classes, target.outputs, target.head_names) == (
        "label",
        CLASSES,
        8,
        ("mask", "gender", "age"),
    )
    codes = np.arange(18)
    np.testing.assert_array_equal(target.encode_heads(codes), np.stack([codes // 6, codes // 3 % 2, codes % 3], 1))
    np.testing.assert_array_equal(target.encode_scored(codes), codes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gende", "did you mean gender"),
        ("mask+agee", "did you mean age"),
        ("mask+mask", "names an attribute twice"),
        ("mask+gender", "9|classes have equal mask, gender"),
        ("label+mask", "unknown target 'label'"),
    ],
)
def test_what_is_no_target_is_refused_with_the_nearest(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve_target(text, CLASSES, CLASS_ATTRIBUTES)


def test_a_table_without_attributes_says_that_there_are_none() -> None:
    with pytest.raises(UsageError) as error:
        resolve_target("age", ("a", "b"), {})
    assert "no attributes" in (error.value.hint or "")


class Fixed(torch.nn.Module):
    """Gives the images back as logits."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = torch.nn.Parameter(torch.zeros(()))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images + self.nothing


def test_joined_heads_are_the_product_of_their_probabilities() -> None:
    target = resolve_target("mask+gender+age", CLASSES, CLASS_ATTRIBUTES)
    outputs = torch.from_numpy(np.random.default_rng(0).normal(size=(5, 8))).float()
    found = join_heads(Fixed(), target)(outputs).softmax(1).detach().numpy()
    mask, gender, age = (part.softmax(1).numpy() for part in outputs.split([3, 2, 3], 1))
    expected = np.einsum("nm,ng,na->nmga", mask, gender, age).reshape(5, 18)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_combinations_that_are_no_class_are_shared_out() -> None:
    meaning = {"a": {"x": "0", "y": "0"}, "b": {"x": "0", "y": "1"}, "c": {"x": "1", "y": "0"}}  # 1, 1 is no class
    target = resolve_target("x+y", ("a", "b", "c"), meaning)
    found = MultiHeadModel(Fixed(), target)(torch.zeros(1, 4)).softmax(1)
    np.testing.assert_allclose(found.detach().numpy(), np.full((1, 3), 1 / 3), atol=1e-6)


def test_one_head_is_the_model_itself() -> None:
    model = Fixed()
    assert join_heads(model, resolve_target("age", CLASSES, CLASS_ATTRIBUTES)) is model


def test_the_loss_of_heads_is_the_sum_of_theirs() -> None:
    target = resolve_target("mask+gender+age", CLASSES, CLASS_ATTRIBUTES)
    codes = np.array([0, 5, 17, 9])
    truth = torch.from_numpy(target.encode_heads(codes))
    outputs = torch.from_numpy(np.random.default_rng(1).normal(size=(4, 8))).float()
    counts = [torch.ones(3), torch.ones(2), torch.ones(3)]
    found = build_criterion(target, "ce", {}, 0.1, counts, 0.0)(outputs, truth)
    parts = zip(outputs.split([3, 2, 3], 1), truth.unbind(1), strict=True)
    assert float(found) == pytest.approx(
        sum(float(build_loss("ce", 0.1)(block, part)) for block, part in parts), rel=1e-6
    )
    shares = torch.cat(
        [
            torch.nn.functional.one_hot(part, size).float()
            for part, size in zip(truth.unbind(1), (3, 2, 3), strict=True)
        ],
        1,
    )
    assert float(build_criterion(target, "ce", {}, 0.1, counts, 0.0)(outputs, shares)) == pytest.approx(
        float(found), rel=1e-6
    )


def test_a_loss_for_a_head_that_there_is_not_is_refused() -> None:
    with pytest.raises(UsageError, match="did you mean age"):
        check_head_losses(resolve_target("mask+gender+age", CLASSES, CLASS_ATTRIBUTES), {"agee": "ce"})


def test_age_cut_elsewhere_moves_the_label_and_nothing_else() -> None:
    labels, years = ["1", "1", "4", "2", "0"], ["57", "58", "59", "60", "29"]
    trained = rebinned(labels, CLASS_ATTRIBUTES, "age", years, [30, 58], ["row"] * 5)
    assert trained == ["1", "2", "5", "2", "0"]
    assert rebinned(labels, CLASS_ATTRIBUTES, "age", years, [30, 60], ["row"] * 5) == labels


@pytest.mark.parametrize(
    ("attribute", "numbers", "cuts", "message"),
    [
        ("agee", ["1", "40", "70"], [30, 58], "did you mean age"),
        ("age", ["1", "old", "70"], [30, 58], "row 1: expected a number, found 'old'"),
        ("age", ["1", "nan", "70"], [30, 58], "row 1: expected a number, found 'nan'"),
        ("age", ["1", "40", "70"], [58, 30], "expected 2 ascending cuts"),
        ("age", ["1", "40", "70"], [30], "expected 2 ascending cuts for <30, 30-59, >=60, found 30"),
    ],
)
def test_cuts_that_cannot_be_are_refused(attribute: str, numbers: list[str], cuts: list[float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        rebinned(["0", "1", "2"], CLASS_ATTRIBUTES, attribute, numbers, cuts, [f"row {i}" for i in range(3)])
