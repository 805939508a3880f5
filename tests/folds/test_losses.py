from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from folds.errors import UsageError
from folds.losses import LOSSES, build_loss


def batch(seed: int = 0, n: int = 7, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    return torch.tensor(rng.normal(0, 3, (n, classes)), dtype=torch.float32), torch.tensor(rng.integers(0, classes, n))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.floats(0, 0.99), st.integers(1, 20), st.integers(2, 20))
def test_cross_entropy_is_its_formula_with_the_smoothed_share_spread_over_all_classes(seed: int, smoothing: float, n: int, classes: int) -> None:
    logits, labels = batch(seed, n, classes)
    logs = log_softmax(logits.numpy().astype(np.float64), axis=1)
    target = (1 - smoothing) * np.eye(classes)[labels.numpy()] + smoothing / classes
    expected = -(target * logs).sum(1).mean()
    assert build_loss("ce", smoothing)(logits, labels).item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_judged_in_full_precision(dtype: torch.dtype) -> None:
    logits, labels = batch()
    half = logits.to(dtype)
    loss = build_loss("ce", 0.1)(half, labels)
    assert loss.dtype == torch.float32
    assert loss.item() == build_loss("ce", 0.1)(half.float(), labels).item()


def test_logits_that_overflow_in_half_precision_do_not_in_the_loss() -> None:
    loss = build_loss("ce", 0.0)(torch.tensor([[60_000.0, -60_000.0]], dtype=torch.float16), torch.tensor([1]))
    assert loss.item() == pytest.approx(120_000, rel=1e-3)


def test_the_gradient_is_the_probabilities_less_the_target() -> None:
    logits, labels = batch()
    logits.requires_grad_()
    build_loss("ce", 0.2)(logits, labels).backward()
    target = 0.8 * torch.nn.functional.one_hot(labels, 5) + 0.2 / 5
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, (logits.detach().softmax(1) - target) / 7)


def test_an_unknown_loss_is_wrong_usage_that_lists_the_known() -> None:
    with pytest.raises(UsageError, match="unknown --loss 'cee'; did you mean ce") as error:
        build_loss("cee", 0.0)
    assert error.value.hint == f"known: {', '.join(LOSSES)}"
