"""Losses of ordered classes against the formulas of their papers, and what they cannot be combined with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from folds.errors import UsageError
from folds.models.ordinal_head import LINKS, OrdinalHead
from folds.optim.loss_spec import default_smoothing, parse_loss
from folds.optim.losses import LossForm, build_loss, class_weights, soft_grades

CLASSES = 5
COUNTS = torch.tensor([50, 20, 10, 6, 4])


def batch(seed: int = 0, n: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, CLASSES - 1, generator=generator) * 2, torch.randint(CLASSES, (n,), generator=generator)


def corn_of_the_paper(outputs: Tensor, grades: Tensor, weights: Tensor | None = None) -> Tensor:
    """Shi, Cao and Raschka, 2021, equation 7: the mean over all pairs of a task and an image in its training set."""
    total, pairs = torch.zeros(()), torch.zeros(())
    for task in range(CLASSES - 1):
        inside = grades >= task  # the conditional training set
        own = torch.ones(CLASSES)[grades] if weights is None else weights[grades]
        each = binary_cross_entropy_with_logits(
            outputs[inside, task], (grades[inside] > task).float(), reduction="none"
        )
        total, pairs = total + (own[inside] * each).sum(), pairs + own[inside].sum()
    return total / pairs


@pytest.mark.parametrize("weighted", [False, True])
def test_corn_and_its_gradient_are_those_of_the_paper(weighted: bool) -> None:
    outputs, grades = batch()
    weights = class_weights(COUNTS, None) if weighted else None
    loss = build_loss("corn:weights=inverse" if weighted else "corn", 0.0, COUNTS, 1.0)
    mine, theirs = outputs.clone().requires_grad_(), outputs.clone().requires_grad_()
    found, expected = loss(LINKS["corn"](mine), grades), corn_of_the_paper(theirs, grades, weights)
    torch.testing.assert_close(found, expected)
    found.backward()
    expected.backward()
    torch.testing.assert_close(mine.grad, theirs.grad)


def test_cumulative_is_the_likelihood_of_the_grade() -> None:
    outputs, grades = batch(1)
    above = torch.sigmoid(
        torch.cat([outputs[:, :1], outputs[:, :1] - torch.nn.functional.softplus(outputs[:, 1:]).cumsum(1)], 1)
    )
    edges = torch.cat([torch.ones(12, 1), above, torch.zeros(12, 1)], 1)
    p = (edges[:, :-1] - edges[:, 1:])[torch.arange(12), grades]
    found = build_loss("cumulative", 0.0)(LINKS["cumulative"](outputs), grades)
    torch.testing.assert_close(found, -p.log().mean(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("expression", ["corn", "corn:weights=effective", "cumulative", "ce:ordinal=1.5"])
def test_parts_of_a_batch_add_up_and_mixed_images_are_between(expression: str) -> None:
    outputs, grades = batch(2)
    logits = LINKS["corn"](outputs)
    loss = build_loss(expression, 0.0, COUNTS, 1.0)
    whole = loss(logits, grades)
    parts = [loss(logits[rows], grades[rows], grades) * len(grades[rows]) / 12 for rows in (slice(0, 5), slice(5, 12))]
    torch.testing.assert_close(sum(parts), whole)
    hard = torch.nn.functional.one_hot(grades, CLASSES).float()
    torch.testing.assert_close(loss(logits, hard), whole)
    mixed = 0.5 * hard + 0.5 * hard.roll(1, 0)
    assert loss(logits, mixed).isfinite()
    weighted = build_loss(expression, 0.0, COUNTS, 1.0, form=LossForm(weighted=True))
    torch.testing.assert_close(weighted(logits, hard), whole)


def test_soft_grades_are_in_proportion_to_the_distance() -> None:
    soft = soft_grades(4, 1.5, torch.device("cpu")).numpy()
    by_hand = np.array([[np.exp(-1.5 * abs(i - j)) for j in range(4)] for i in range(4)])
    np.testing.assert_allclose(soft, by_hand / by_hand.sum(1, keepdims=True), rtol=1e-6)
    logits, grades = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3, 3, 0])
    expected = -(torch.from_numpy(soft)[grades] * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(build_loss("ce:ordinal=1.5", None)(logits, grades), expected)
    plain = build_loss("ce", 0.0)(logits, grades)
    torch.testing.assert_close(build_loss("ce:ordinal=50", None)(logits, grades), plain)
    # Targets that are soft already stay as they are.
    shares = torch.softmax(logits.flip(0), 1)
    torch.testing.assert_close(
        build_loss("ce:ordinal=1.5", None, smooth=False)(logits, shares), build_loss("ce", 0.0)(logits, shares)
    )


@pytest.mark.parametrize("expression", ["corn", "cumulative", "corn+.5*f1", "ce:ordinal=2"])
def test_a_random_model_learns_the_order_in_a_few_steps(expression: str) -> None:
    torch.manual_seed(0)
    features, grades = torch.randn(64, 3), torch.arange(64) % CLASSES
    features[:, 0] += grades
    link = parse_loss(expression).ordered_head
    model = torch.nn.Linear(3, CLASSES) if link is None else OrdinalHead(3, CLASSES, link)
    loss, optimizer = build_loss(expression, None), torch.optim.Adam(model.parameters(), 0.1)
    values = []
    for _ in range(40):
        optimizer.zero_grad()
        value = loss(model(features), grades)
        value.backward()
        optimizer.step()
        values.append(float(value))
    assert values[-1] < 0.8 * values[0]
    off = (model(features).argmax(1) - grades).abs().float().mean()
    assert off < 1.0


def test_smoothing_is_only_that_of_losses_that_do_not_spread_by_distance() -> None:
    assert default_smoothing(["corn"]) == default_smoothing(["ce:ordinal=1.5"]) == 0.0
    assert default_smoothing(["ce"]) == 0.1
    assert default_smoothing(["ce+ce:ordinal=1"]) is None
    assert [term.smoothing for term in parse_loss("ce+ce:ordinal=1", None).terms] == [0.1, 0.0]
    assert parse_loss("corn:smoothing=.1").terms[0].smoothing == 0.1
    assert [parse_loss(text).is_of_grades for text in ("corn", "cumulative", "ce:ordinal=1", "ce")] == [True] * 3 + [
        False
    ]


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("corn+cumulative", "corn cannot be added to cumulative"),
        ("corn+bce", "corn cannot be added to bce"),
        ("ldam+cumulative", "cumulative cannot be added to ldam"),
        ("ce:ordinal=0", "ordinal of ce must be above 0, up to 50"),
        ("ce:ordinal=1:smoothing=.1", "ordinal and label smoothing of ce both spread the target"),
        ("corn:ordinal=1", "unknown key of loss=corn 'ordinal'"),
    ],
)
def test_what_cannot_be_is_refused_and_said(expression: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_loss(expression)
