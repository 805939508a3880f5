from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from folds.augmentation import batch as blocks_of
from folds.augmentation.mixup import MixupCutmix, draw_mixing, mix_batch
from folds.errors import UsageError

BOTH = MixupCutmix(mixup=0.4, cutmix=1.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(n: int = 12, height: int = 10, width: int = 14, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    stream = generator(seed)
    return torch.randn((n, 3, height, width), generator=stream), torch.eye(5)[torch.randint(5, (n,), generator=stream)]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("how", [MixupCutmix(mixup=0.4), MixupCutmix(cutmix=1.0), BOTH])
def test_images_and_targets_are_mixed_in_the_same_shares(
    how: MixupCutmix, layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, targets = batch()
    draws = draw_mixing(12, how, generator(1))
    monkeypatch.setattr(blocks_of, "_BLOCK", 3 * 10 * 14 * 4 * 5)
    mixed, shares = mix_batch(inputs.contiguous(memory_format=layout), targets, draws)
    assert mixed.is_contiguous(memory_format=layout)
    for i, row in enumerate(draws.double().numpy()):
        own, other = inputs[i], inputs[int(row[0])]
        if how.cutmix and row[2]:
            side = np.sqrt(1 - row[1])
            edges = [
                np.round(np.clip((middle + sign * side / 2) * size, 0, size))
                for middle, size in ((row[3], 10), (row[4], 14))
                for sign in (-1, 1)
            ]
            top, bottom, left, right = map(int, edges)
            expected = own.clone()
            expected[:, top:bottom, left:right] = other[:, top:bottom, left:right]
            share = 1 - (bottom - top) * (right - left) / 140
            assert torch.equal(mixed[i], expected)
        else:
            share = row[1]
            torch.testing.assert_close(
                mixed[i], (share * own.double() + (1 - share) * other.double()).float(), atol=1e-5, rtol=0
            )
        torch.testing.assert_close(
            shares[i], (share * targets[i] + (1 - share) * targets[int(row[0])]).float(), atol=1e-5, rtol=0
        )


def test_the_weight_of_a_pasted_image_is_its_visible_area() -> None:
    n = 200
    inputs = torch.arange(n).float()[:, None, None, None].expand(n, 3, 9, 13).contiguous()
    draws = draw_mixing(n, MixupCutmix(cutmix=1.0), generator())
    mixed, shares = mix_batch(inputs, torch.eye(n), draws)
    own = torch.arange(n)
    torch.testing.assert_close(
        shares[own, own] * (draws[:, 0] != own), (mixed == inputs).float().mean((1, 2, 3)) * (draws[:, 0] != own)
    )
    assert 0.3 < shares[own, own].mean() < 0.8


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20), st.floats(0, 5), st.floats(0, 5), st.integers(0, 1000))
def test_targets_stay_distributions_and_values_in_range(n: int, mixup: float, cutmix: float, seed: int) -> None:
    inputs, targets = batch(n, seed=seed)
    draws = draw_mixing(n, MixupCutmix(mixup, cutmix), generator(seed))
    before = inputs.clone(), targets.clone()
    mixed, shares = mix_batch(inputs, targets, draws)
    assert torch.equal(before[0], inputs)
    assert torch.equal(before[1], targets)
    torch.testing.assert_close(shares.sum(1), torch.ones(n))
    assert shares.min() >= -1e-6
    other = inputs[draws[:, 0].long()]
    assert (mixed >= torch.minimum(inputs, other) - 1e-5).all()
    assert (mixed <= torch.maximum(inputs, other) + 1e-5).all()


def test_every_image_is_somebodys_partner_once() -> None:
    partners = draw_mixing(50, BOTH, generator())[:, 0]
    assert sorted(partners.tolist()) == list(range(50))
    assert (partners != torch.arange(50)).sum() > 40


def test_without_strength_nothing_is_mixed() -> None:
    inputs, targets = batch()
    mixed, shares = mix_batch(inputs, targets, draw_mixing(12, MixupCutmix(), generator()))
    assert torch.equal(mixed, inputs)
    assert torch.equal(shares, targets)
    assert not MixupCutmix()
    assert MixupCutmix(mixup=0.1)
    assert MixupCutmix(cutmix=0.1)


def test_weights_are_beta_distributed_and_kinds_equally_likely() -> None:
    draws = draw_mixing(4000, BOTH, generator())
    cut = draws[:, 2] > 0
    assert cut.float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert stats.kstest(draws[~cut, 1].numpy(), stats.beta(0.4, 0.4).cdf).pvalue > 0.01
    assert stats.kstest(draws[cut, 1].numpy(), stats.uniform.cdf).pvalue > 0.01
    for column in (3, 4):
        assert stats.kstest(draws[:, column].numpy(), stats.uniform.cdf).pvalue > 0.01
    assert draw_mixing(3, MixupCutmix(mixup=0.2), generator()).shape == (3, 2)


def test_the_generator_alone_decides() -> None:
    np.random.seed(0)
    torch.manual_seed(0)
    first = draw_mixing(9, BOTH, generator(4))
    np.random.seed(1)
    torch.manual_seed(1)
    assert torch.equal(first, draw_mixing(9, BOTH, generator(4)))
    assert not torch.equal(first, draw_mixing(9, BOTH, generator(5)))


@pytest.mark.parametrize(("name", "value"), [("mixup", -0.1), ("cutmix", 101.0), ("mixup", float("nan"))])
def test_an_impossible_strength_is_wrong_usage(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"{name} must be from 0 .off. to 100, found {value}"):
        MixupCutmix(**{name: value})
