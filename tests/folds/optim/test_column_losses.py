"""Losses of several labels and of numbers: their definitions, unknown cells, and parts of a batch."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from folds.errors import EnsembleError, UsageError
from folds.optim.column_losses import CellCounts, build_column_loss, label_weights
from folds.optim.loss_spec import COLUMN_LOSSES
from folds.optim.losses import LossForm

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(12, 3, generator=GENERATOR) * 3
LABELS = (torch.rand(12, 3, generator=GENERATOR) < 0.4).float()
NUMBERS = torch.randn(12, 3, generator=GENERATOR)
UNKNOWN = torch.rand(12, 3, generator=GENERATOR) < 0.4
EVERY = [(task, name) for task, names in COLUMN_LOSSES.items() for name in names]


def loss_of(task, expression, targets, smoothing=0.0, **options):
    return build_column_loss(task, expression, smoothing, CellCounts.of(targets), **options)


def case(task, name):
    outputs = torch.cat([LOGITS, LOGITS.flip(0) / 3], 1) if name == "gaussian" else LOGITS
    return outputs.clone().requires_grad_(), (LABELS if task == "multilabel" else NUMBERS).clone()


def test_bce_is_that_of_torch():
    found = loss_of("multilabel", "bce", LABELS)(LOGITS, LABELS)
    assert found.item() == pytest.approx(functional.binary_cross_entropy_with_logits(LOGITS, LABELS).item())
    smooth = loss_of("multilabel", "bce:smoothing=.2", LABELS)(LOGITS, LABELS)
    soft = functional.binary_cross_entropy_with_logits(LOGITS, 0.8 * LABELS + 0.1)
    assert smooth.item() == pytest.approx(soft.item())


@pytest.mark.parametrize(("gamma_pos", "gamma_neg", "clip"), [(1, 4, 0.05), (0, 2, 0.0), (2, 3, 0.2)])
def test_asymmetric_is_that_of_timm(gamma_pos, gamma_neg, clip):
    from timm.loss import AsymmetricLossMultiLabel

    expected = AsymmetricLossMultiLabel(gamma_neg, gamma_pos, clip)(LOGITS, LABELS).item() / 3  # sums over labels
    text = f"asymmetric:gamma_pos={gamma_pos}:gamma_neg={gamma_neg}:clip={clip}"
    assert loss_of("multilabel", text, LABELS)(LOGITS, LABELS).item() == pytest.approx(expected, rel=1e-5)


def test_asymmetric_has_timms_gradient():
    from timm.loss import AsymmetricLossMultiLabel

    ours, theirs = (LOGITS.clone().requires_grad_() for _ in range(2))
    loss_of("multilabel", "asymmetric", LABELS)(ours, LABELS).backward()
    (AsymmetricLossMultiLabel()(theirs, LABELS) / 3).backward()
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-7)


def test_focal_has_the_definition_of_its_paper():
    p = torch.sigmoid(LOGITS.double())
    right = torch.where(LABELS > 0, p, 1 - p)
    expected = (-((1 - right) ** 2) * right.log()).mean().item()
    assert loss_of("multilabel", "focal", LABELS)(LOGITS, LABELS).item() == pytest.approx(expected, rel=1e-5)


def test_number_losses_are_those_of_torch():
    found = {
        text: loss_of("regression", text, NUMBERS)(LOGITS, NUMBERS).item() for text in ("l1", "mse", "huber:delta=.5")
    }
    expected = {
        "l1": functional.l1_loss(LOGITS, NUMBERS),
        "mse": functional.mse_loss(LOGITS, NUMBERS),
        "huber:delta=.5": functional.huber_loss(LOGITS, NUMBERS, delta=0.5),
    }
    assert found == pytest.approx({text: value.item() for text, value in expected.items()})
    outputs, targets = case("regression", "gaussian")
    means, log_variances = outputs.detach().split(3, 1)
    nll = functional.gaussian_nll_loss(means, targets, log_variances.exp())
    assert loss_of("regression", "gaussian", targets)(outputs, targets).item() == pytest.approx(nll.item(), rel=1e-5)


@pytest.mark.parametrize(("task", "name"), EVERY)
def test_unknown_cells_take_no_part(task, name):
    outputs, targets = case(task, name)
    targets[UNKNOWN] = torch.nan
    loss = loss_of(task, name, targets)
    value = loss(outputs, targets)
    value.backward()
    unknown = UNKNOWN.repeat(1, outputs.shape[1] // 3)
    assert torch.isfinite(value)
    assert not outputs.grad[unknown].any()
    assert outputs.grad[~unknown].isfinite().all()
    other = torch.where(unknown, torch.inf, outputs.detach()).requires_grad_()
    again = loss(other, targets)
    again.backward()
    assert again == value
    assert torch.equal(other.grad, outputs.grad)


@pytest.mark.parametrize(("task", "name"), EVERY)
def test_a_batch_without_known_cells_has_no_loss(task, name):
    outputs, targets = case(task, name)
    value = loss_of(task, name, targets)(outputs, torch.full_like(targets, torch.nan))
    value.backward()
    assert value == 0
    assert not outputs.grad.any()


@pytest.mark.parametrize(("task", "name"), EVERY)
@pytest.mark.parametrize("weighted", [False, True])
def test_losses_of_parts_add_up(task, name, weighted):
    outputs, targets = case(task, name)
    targets[UNKNOWN] = torch.nan
    loss = loss_of(task, name, targets, form=LossForm(weighted=weighted))
    batch = torch.cat([targets * 2.0, torch.full((12, 1), 2.0)], 1) if weighted else targets
    parts = [
        loss(some, of, batch) * len(some)
        for some, of in zip(outputs.detach().split([5, 7]), batch.split([5, 7]), strict=True)
    ]
    assert (sum(parts) / 12).item() == pytest.approx(loss(outputs, batch).item(), rel=1e-5)


def test_an_epoch_weighs_known_cells_alike():
    targets = LABELS.clone()
    targets[6:, 1:] = torch.nan
    loss, known = loss_of("multilabel", "bce", targets), ~targets.isnan()
    each = functional.binary_cross_entropy_with_logits(LOGITS, LABELS, reduction="none")
    halves = [loss(LOGITS[rows], targets[rows]).item() for rows in (slice(0, 6), slice(6, 12))]
    assert np.mean(halves) == pytest.approx(each[known].mean().item())
    assert halves[1] == pytest.approx(each[6:, 0].sum().item() / 12)


def test_label_weights_are_torchs_with_mean_1():
    targets = LABELS.clone()
    targets[UNKNOWN] = torch.nan
    counts = CellCounts.of(targets)
    absent, present = label_weights(counts, None)
    assert torch.allclose(present / absent, (counts.known - counts.positive) / counts.positive)
    mean = (absent * (counts.known - counts.positive) + present * counts.positive) / counts.known
    assert torch.allclose(mean, torch.ones(3))
    late = loss_of("multilabel", "bce:weights=inverse:drw=.5", LABELS, epoch_fraction=0.6)(LOGITS, LABELS)
    assert late == loss_of("multilabel", "bce:weights=inverse", LABELS)(LOGITS, LABELS)


def test_sample_weights_multiply_the_loss_of_a_row():
    weights = torch.rand(12, 1, generator=GENERATOR) + 0.5
    loss = loss_of("regression", "huber", NUMBERS, form=LossForm(weighted=True))
    each = functional.huber_loss(LOGITS, NUMBERS, reduction="none")
    found = loss(LOGITS, torch.cat([NUMBERS * weights, weights], 1))
    assert found.item() == pytest.approx((each * weights).mean().item())


def test_sums_add_terms_and_read_the_means():
    outputs, targets = case("regression", "gaussian")
    whole = loss_of("regression", "gaussian+.5*l1", targets)(outputs, targets).item()
    nll = loss_of("regression", "gaussian", targets)(outputs, targets).item()
    assert whole == pytest.approx(nll + 0.5 * functional.l1_loss(LOGITS, NUMBERS).item())


def test_extreme_outputs_have_finite_gradients():
    for task, name in [*EVERY, ("multilabel", "asymmetric:gamma_neg=.5:clip=0"), ("multilabel", "focal:gamma=.5")]:
        width = 6 if name == "gaussian" else 3
        outputs = torch.tensor([-1e4, -30.0, 0.0, 30.0, 1e4]).repeat(width, 1).T.contiguous().requires_grad_()
        targets = torch.tensor([0.0, 1.0, torch.nan]).repeat(5, 1)
        value = loss_of(task, name, targets)(outputs, targets)
        value.backward()
        assert math.isfinite(value.item()), name
        assert outputs.grad.isfinite().all(), name


@pytest.mark.parametrize(
    ("task", "expression", "message"),
    [
        ("multilabel", "ce", "ce is not a loss of task=multilabel"),
        ("multilabel", "bce+.5*f1", "f1 is not a loss of task=multilabel"),
        ("regression", "bce", "bce is not a loss of task=regression"),
        ("regression", "huber:delta=0", "must be above 0"),
        ("multilabel", "asymmetric:clip=1", "from 0 to below 1"),
    ],
)
def test_losses_of_another_task_are_refused(task, expression, message):
    with pytest.raises(UsageError, match=message):
        loss_of(task, expression, NUMBERS)


def test_nothing_known_is_an_error():
    with pytest.raises(EnsembleError, match="no known label"):
        loss_of("multilabel", "bce", torch.full((2, 2), torch.nan))
