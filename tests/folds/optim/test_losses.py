"""Every loss against its formula, written here a second time: in float64, by numpy, image by image."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from folds.errors import UsageError
from folds.optim.losses import Loss, LossForm, build_loss, class_margins, class_weights

Numbers = NDArray[np.float64]
CLASSES = 5
COUNTS = torch.tensor([400, 20, 0, 100, 7])  # nobody has class 2
EVERY = [
    "ce",
    "wce",
    "wce:weights=effective",
    "focal",
    "focal:gamma=.5:weights=effective",
    "ldam",
    "ldam:s=10:margin=.5",
    "bce",
    "bce:weights=inverse",
    "logit_adjusted:tau=.5",
    "balanced_softmax:weights=effective",
]
ALL = [*EVERY, "f1", "focal+f1", ".5*ce:smoothing=.3+2*ldam"]


def batch(seed: int = 0, n: int = 7, spread: float = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and class indices; classes are those that somebody has."""
    rng = np.random.default_rng(seed)
    logits = torch.tensor(rng.normal(0, spread, (n, CLASSES)), dtype=torch.float32)
    return logits, torch.tensor(rng.choice([0, 1, 3, 4], n))


def one_hot(labels: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.one_hot(labels, CLASSES).float()


def mixed(seed: int = 0, n: int = 7) -> torch.Tensor:
    """Targets of which each is a mixture of two classes."""
    rng = np.random.default_rng(seed)
    first, second = (one_hot(torch.tensor(rng.choice([0, 1, 3, 4], n))) for _ in range(2))
    share = torch.tensor(rng.beta(0.5, 0.5, (n, 1)), dtype=torch.float32)
    return share * first + (1 - share) * second


def loss_of(expression: str, smoothing: float = 0.0, epoch_fraction: float = 1.0) -> Loss:
    return build_loss(expression, smoothing, COUNTS, epoch_fraction)


# The formulas: what a sample with these logits costs if its class is c.


def log_softmax(z: Numbers) -> Numbers:
    return z - z.max() - np.log(np.exp(z - z.max()).sum())


def ce(z: Numbers, c: int) -> float:
    return -log_softmax(z)[c]


def focal(z: Numbers, c: int, gamma: float = 2.0) -> float:
    p = np.exp(log_softmax(z)[c])
    return -((1 - p) ** gamma) * np.log(p)


def bce(z: Numbers, c: int) -> float:
    p = 1 / (1 + np.exp(-z))
    return -sum(np.log(p[j]) if j == c else np.log(1 - p[j]) for j in range(CLASSES))


def ldam(z: Numbers, c: int, margin: float = 0.5, s: float = 1.0) -> float:
    margins = [margin * (7 / n) ** 0.25 if n else 0.0 for n in (400, 20, 0, 100, 7)]
    lowered = z.copy()
    lowered[c] -= margins[c]
    return -log_softmax(s * lowered)[c]


def adjusted(z: Numbers, c: int, tau: float = 1.0) -> float:
    """−log e^{z_c + τ·log π_c} / Σ_j e^{z_j + τ·log π_j} (Menon et al., 2021); a class without images counts as one."""
    n = np.array([400, 20, 1, 100, 7])
    shifted = np.exp(z + tau * np.log(n / n.sum()))
    return -np.log(shifted[c] / shifted.sum())


def balanced(z: Numbers, c: int) -> float:
    """−log n_c·e^{z_c} / Σ_j n_j·e^{z_j} (Ren et al., 2020)."""
    n = np.array([400, 20, 1, 100, 7])
    return -np.log(n[c] * np.exp(z[c]) / (n * np.exp(z)).sum())


def mean_cost(
    cost: Callable[[Numbers, int], float],
    logits: Numbers,
    targets: Numbers,
    weights: Numbers | None = None,
    smoothing: float = 0.0,
    normalized: bool = True,
) -> float:
    """Each sample, each of its classes, and for each of these all classes that smoothing names instead.

    Divided by the weights of the batch, as torch does, or by its images, as before.
    """
    weights = np.ones(CLASSES) if weights is None else weights
    total = 0.0
    for z, target in zip(logits, targets):
        costs = [cost(z, c) for c in range(CLASSES)]
        for c in range(CLASSES):
            total += target[c] * weights[c] * ((1 - smoothing) * costs[c] + smoothing * sum(costs) / CLASSES)
    return total / (targets @ weights).sum() if normalized else total / len(logits)


INVERSE = np.array([527 / (4 * n) if n else 0.0 for n in (400, 20, 0, 100, 7)])


def effective(beta: float) -> Numbers:
    each = np.array([(1 - beta) / (1 - beta**n) if n else 0.0 for n in (400, 20, 0, 100, 7)])
    return each * 527 / (each * [400, 20, 0, 100, 7]).sum()


FORMULAS: dict[str, tuple[Callable[[Numbers, int], float], Numbers | None]] = {
    "ce": (ce, None),
    "wce": (ce, INVERSE),
    "wce:weights=effective": (ce, effective(0.999)),
    "wce:weights=effective:beta=.9": (ce, effective(0.9)),
    "focal": (focal, None),
    "focal:gamma=0": (ce, None),
    "focal:gamma=.5:weights=effective": (lambda z, c: focal(z, c, 0.5), effective(0.999)),
    "focal:gamma=3.5:weights=inverse": (lambda z, c: focal(z, c, 3.5), INVERSE),
    "bce": (bce, None),
    "bce:weights=inverse": (bce, INVERSE),
    "ldam:weights=none": (ldam, None),
    "ldam": (ldam, effective(0.999)),
    "ldam:s=10:margin=.8:weights=inverse": (lambda z, c: ldam(z, c, 0.8, 10), INVERSE),
    "ldam:margin=0:weights=none": (ce, None),
    "logit_adjusted": (adjusted, None),
    "logit_adjusted:tau=.4": (lambda z, c: adjusted(z, c, 0.4), None),
    "logit_adjusted:tau=0": (ce, None),
    "logit_adjusted:weights=inverse": (adjusted, INVERSE),
    "balanced_softmax": (balanced, None),
}


@pytest.mark.parametrize("expression", FORMULAS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), smoothing=st.sampled_from([0.0, 0.1, 0.6]), n=st.integers(1, 9), soft=st.booleans())
def test_a_loss_is_its_formula(expression: str, seed: int, smoothing: float, n: int, soft: bool) -> None:
    logits, labels = batch(seed, n)
    targets = mixed(seed, n) if soft else labels
    cost, weights = FORMULAS[expression]
    shares = targets if soft else one_hot(labels)
    wanted = mean_cost(cost, logits.double().numpy(), shares.double().numpy(), weights, smoothing)
    assert loss_of(expression, smoothing)(logits, targets).item() == pytest.approx(wanted, rel=2e-5, abs=1e-6)


@pytest.mark.parametrize("expression", FORMULAS)
def test_its_gradient_is_that_of_the_formula(expression: str) -> None:
    logits, _ = batch(n=3, spread=2)
    targets, (cost, weights) = mixed(n=3), FORMULAS[expression]
    logits.requires_grad_()
    loss_of(expression, 0.1)(logits, targets).backward()
    z, shares = logits.detach().double().numpy(), targets.double().numpy()
    wanted = np.zeros_like(z)
    for i, c in np.ndindex(*z.shape):
        step = np.zeros_like(z)
        step[i, c] = 1e-5
        wanted[i, c] = (
            mean_cost(cost, z + step, shares, weights, 0.1) - mean_cost(cost, z - step, shares, weights, 0.1)
        ) / 2e-5
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad.numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_weighted_losses_of_earlier_runs_divide_by_the_images() -> None:
    logits, targets = batch()[0], mixed()
    found = build_loss("wce", 0.1, COUNTS, form=LossForm(normalized=False))(logits, targets)
    z, shares = logits.double().numpy(), targets.double().numpy()
    assert found.item() == pytest.approx(mean_cost(ce, z, shares, INVERSE, 0.1, normalized=False), rel=1e-5)


def test_a_weighted_loss_is_that_of_torch() -> None:
    logits, labels = batch(n=9)
    weights = torch.tensor(INVERSE, dtype=torch.float32)
    wanted = torch.nn.functional.cross_entropy(logits, labels, weight=weights)
    assert loss_of("wce")(logits, labels).item() == pytest.approx(wanted.item(), rel=1e-5)


@pytest.mark.parametrize("expression", ["ce", "wce", "focal", "ldam", "logit_adjusted", "ce:smoothing=.2"])
def test_a_sample_weight_multiplies_the_loss_of_its_image(expression: str) -> None:
    logits, targets = batch()[0], mixed()
    weights = torch.tensor([0.5, 2.0, 1.0, 0.25, 1.75, 0.5, 1.0])
    loss = build_loss(expression, 0.1, COUNTS, 1.0, form=LossForm(weighted=True))
    alone = [float(loss(logits[i : i + 1], targets[i : i + 1], targets)) for i in range(7)]
    found = loss(logits, targets * weights[:, None])
    assert float(found) == pytest.approx(np.mean(weights.numpy() * alone), rel=1e-5)


def test_sample_weights_of_f1_count_images() -> None:
    logits, labels = batch()
    twice = torch.cat([logits, logits[:2]]), torch.cat([one_hot(labels), one_hot(labels)[:2]])
    weights = torch.tensor([2.0, 2, 1, 1, 1, 1, 1])[:, None]
    found = build_loss("f1", 0.0, COUNTS, form=LossForm(weighted=True))(logits, one_hot(labels) * weights)
    assert float(found) == pytest.approx(float(loss_of("f1")(*twice)), rel=1e-5)


def test_margins_of_a_cosine_head_are_of_cosines() -> None:
    cosines, labels = torch.nn.functional.normalize(batch()[0]), batch()[1]
    found = build_loss("ldam:margin=.5:weights=none", 0.0, COUNTS, form=LossForm(scale=30.0))(30 * cosines, labels)
    paper = mean_cost(
        lambda z, c: ldam(z, c, 0.5, 30), cosines.double().numpy(), one_hot(labels).double().numpy(), None
    )
    assert float(found) == pytest.approx(paper, rel=1e-4)


def soft_f1(z: Numbers, targets: Numbers) -> float:
    p = np.array([np.exp(log_softmax(row)) for row in z])
    scores, present = [], []
    for c in range(CLASSES):
        hits = sum(targets[:, c] * p[:, c])
        wrong, missed = sum((1 - targets[:, c]) * p[:, c]), sum(targets[:, c] * (1 - p[:, c]))
        scores.append(2 * hits / (2 * hits + wrong + missed))
        present.append(min(1.0, sum(targets[:, c])))
    return 1 - np.average(scores, weights=present)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 9), st.booleans())
def test_f1_is_its_formula_over_the_classes_of_the_batch(seed: int, n: int, soft: bool) -> None:
    logits, labels = batch(seed, n)
    targets = mixed(seed, n) if soft else one_hot(labels)
    assert loss_of("f1", 0.3)(logits, targets).item() == pytest.approx(
        soft_f1(logits.double().numpy(), targets.double().numpy()), abs=1e-5
    )


def test_the_gradient_of_f1_is_that_of_its_formula() -> None:
    logits, labels = batch(n=4, spread=1)
    logits.requires_grad_()
    loss_of("f1")(logits, labels).backward()
    z, targets = logits.detach().double().numpy(), one_hot(labels).double().numpy()
    wanted = np.zeros_like(z)
    for i, c in np.ndindex(*z.shape):
        step = np.zeros_like(z)
        step[i, c] = 1e-5
        wanted[i, c] = (soft_f1(z + step, targets) - soft_f1(z - step, targets)) / 2e-5
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad.numpy(), wanted, rtol=1e-4, atol=1e-6)


def test_f1_loss_of_one_hot_predictions_is_one_minus_sklearn_f1() -> None:
    from sklearn.metrics import f1_score

    labels = torch.tensor([0, 0, 0, 1, 1, 3, 4, 4])
    predicted = torch.tensor([0, 0, 1, 1, 0, 3, 3, 4])
    wanted = 1 - f1_score(labels, predicted, labels=[0, 1, 3, 4], average="macro")
    assert loss_of("f1")(100 * one_hot(predicted), labels).item() == pytest.approx(wanted, abs=1e-6)


def test_the_plain_gradient_is_the_probabilities_less_the_target() -> None:
    logits, labels = batch()
    logits.requires_grad_()
    build_loss("ce", 0.2)(logits, labels).backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, (logits.detach().softmax(1) - (0.8 * one_hot(labels) + 0.2 / 5)) / 7)


@pytest.mark.parametrize("expression", ALL)
def test_class_index_and_one_hot_target_have_equal_loss(expression: str) -> None:
    logits, labels = batch()
    torch.testing.assert_close(
        loss_of(expression, 0.1)(logits, labels), loss_of(expression, 0.1)(logits, one_hot(labels))
    )


@pytest.mark.parametrize("expression", EVERY)
def test_loss_of_mixed_targets_is_the_mixture_of_losses(expression: str) -> None:
    # With class weights, the mixture of means that are divided by different weights is no mean.
    loss = build_loss(expression, 0.1, COUNTS, 1.0, form=LossForm(normalized=False))
    logits, first, second = batch()[0], batch()[1], batch(1)[1]
    mixture = 0.3 * one_hot(first) + 0.7 * one_hot(second)
    torch.testing.assert_close(loss(logits, mixture), 0.3 * loss(logits, first) + 0.7 * loss(logits, second))


@pytest.mark.parametrize("expression", EVERY)
def test_the_parts_of_a_batch_add_up_to_the_batch(expression: str) -> None:
    loss, (logits, labels) = loss_of(expression, 0.1), batch()
    for targets in (labels, mixed()):
        first, second = ((logits[part], targets[part], targets) for part in (slice(0, 4), slice(4, 7)))
        torch.testing.assert_close(loss(logits, targets), (4 * loss(*first) + 3 * loss(*second)) / 7)


@pytest.mark.parametrize("expression", ALL)
def test_the_order_of_the_images_does_not_matter(expression: str) -> None:
    logits, labels = batch()
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loss_of(expression)(logits, labels), loss_of(expression)(logits[order], labels[order]))


def test_a_sum_is_the_sum_of_its_parts() -> None:
    logits, labels = batch()
    total = loss_of(".5*ce:smoothing=.3+2*ldam+f1", 0.1)(logits, labels)
    parts = (loss_of(expression, 0.1)(logits, labels) for expression in ("ce:smoothing=.3", "ldam", "f1"))
    torch.testing.assert_close(total, sum(weight * part for weight, part in zip((0.5, 2, 1), parts)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("expression", ALL)
def test_half_precision_logits_are_judged_in_full_precision(expression: str, dtype: torch.dtype) -> None:
    logits, labels = batch()
    half = logits.to(dtype)
    found = loss_of(expression, 0.1)(half, labels)
    assert (found.dtype, found.shape) == (torch.float32, ())
    assert found.item() == loss_of(expression, 0.1)(half.float(), labels).item()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert found.item() == loss_of(expression, 0.1)(half, labels).item()


@pytest.mark.parametrize("size", [1e4, 65504.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("expression", [*ALL, "focal:gamma=0", "focal:gamma=.01", "ldam:s=1000"])
def test_however_large_the_logits_value_and_gradient_are_finite(
    expression: str, dtype: torch.dtype, size: float
) -> None:
    corners = torch.tensor([[x, y, -1, z, 1] for x in (-1, 0, 1) for y in (-1, 1) for z in (-1, 0, 1)]) * size
    for smoothing in (0.0, 0.1):
        for label in (0, 1, 3, 4):
            logits = corners.to(dtype).requires_grad_()
            loss = loss_of(expression, smoothing)(logits, torch.full((len(corners),), label))
            loss.backward()
            assert loss.isfinite()
            assert logits.grad is not None
            assert logits.grad.isfinite().all()


def test_large_half_precision_logits_do_not_overflow_in_the_loss() -> None:
    loss = build_loss("ce", 0.0)(torch.tensor([[60_000.0, -60_000.0]], dtype=torch.float16), torch.tensor([1]))
    assert loss.item() == pytest.approx(120_000, rel=1e-3)


def test_focal_loss_is_precise_where_p_is_close_to_one() -> None:
    """1 − p is 2·10⁻⁹ here, which no float32 p can tell from 0; so is its derivative."""
    logits = torch.tensor([[20.0, 0.0]]).requires_grad_()
    loss = build_loss("focal:gamma=.5", 0.0)(logits, torch.tensor([0]))
    loss.backward()
    rest = 1 / (1 + math.exp(20))
    assert logits.grad is not None
    # −(1 − p)^½ log p = (1 − p)^1.5 for p near 1; its derivative by the margin z₀ − z₁ is −1.5 times that.
    assert logits.grad[0, 1].item() == pytest.approx(1.5 * rest**1.5, rel=1e-3)


def test_class_weights_have_mean_one_and_are_zero_without_images() -> None:
    for beta in (None, 0.0, 0.9, 0.9999):
        weights = class_weights(COUNTS, beta)
        assert weights.dtype == torch.float32
        assert weights[2] == 0
        assert (weights * COUNTS).sum().item() == pytest.approx(527)


def test_weights_by_hand() -> None:
    np.testing.assert_allclose(class_weights(torch.tensor([30, 10]), None), [40 / 60, 40 / 20], rtol=1e-6)
    # β = ½: effective numbers of 1 and 2 images are 1 and 1.5; 1·1 + 2/1.5 = 7/3 is to become 3.
    np.testing.assert_allclose(class_weights(torch.tensor([1, 2]), 0.5), [9 / 7, 6 / 7], rtol=1e-6)
    np.testing.assert_allclose(class_weights(torch.tensor([1, 500]), 0.0), [1, 1], rtol=1e-6)


def test_effective_weights_are_between_none_and_inverse() -> None:
    inverse = class_weights(COUNTS, None)[4]
    found = [class_weights(COUNTS, beta)[4].item() for beta in (0.0, 0.9, 0.99, 0.999, 0.99999)]
    assert found == sorted(found)
    assert found[0] == pytest.approx(1)
    assert found[-1] == pytest.approx(inverse.item(), rel=0.01)


def test_margins_by_hand() -> None:
    # 1, 16 and 81 images: 1, 1/2 and 1/3.
    np.testing.assert_allclose(class_margins(torch.tensor([16, 1, 0, 81]), 0.6), [0.3, 0.6, 0, 0.2], rtol=1e-6)


@pytest.mark.parametrize(
    ("expression", "plain", "start"), [("ldam", "ldam:weights=none", 0.6), ("wce:drw=.8", "ce", 0.8)]
)
def test_late_weights_count_from_their_share_of_the_epochs_on(expression: str, plain: str, start: float) -> None:
    logits, labels = batch()
    before, at, after = (
        loss_of(expression, epoch_fraction=fraction)(logits, labels).item() for fraction in (start - 0.01, start, 1.0)
    )
    assert before == pytest.approx(loss_of(plain)(logits, labels).item())
    assert at == after
    assert at != pytest.approx(before)


@pytest.mark.parametrize("expression", ["wce", "ldam", "focal:weights=effective", "f1+wce", "wce:drw=.8"])
def test_losses_that_need_class_counts_raise_without_them(expression: str) -> None:
    with pytest.raises(UsageError, match="needs the number of images of each class"):
        build_loss(expression, 0.1)


def test_an_unknown_loss_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="unknown loss 'focsl'; did you mean focal"):
        build_loss("focsl", 0.0)


@pytest.mark.parametrize("expression", ALL)
def test_a_loss_is_one_graph_to_the_compiler(expression: str) -> None:
    torch.compiler.reset()  # else the compiler gives up on the ninth loss that it meets here
    logits, labels = batch()
    for targets in (labels, one_hot(labels)):
        loss = loss_of(expression, 0.1)
        compiled = torch.compile(loss, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(logits, targets), loss(logits, targets))
