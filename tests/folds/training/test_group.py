"""Shared batches: here two threads stand for two processes, and compute in float64."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import timm
import torch

from folds.training.group import Group, SyncedBatchNorm, _buckets


class Exchange:
    """What the threads of a group share."""

    def __init__(self, size: int) -> None:
        self.barrier, self.values = threading.Barrier(size, timeout=60), [torch.empty(0)] * size


class Threads(Group):
    """A process that is a thread."""

    def __init__(self, rank: int, size: int, exchange: Exchange) -> None:
        super().__init__(rank, size, "cpu")
        self.exchange = exchange

    def gathered(self, values: torch.Tensor) -> torch.Tensor:
        self.exchange.values[self.rank] = values
        self.exchange.barrier.wait()
        every = torch.stack(self.exchange.values)
        self.exchange.barrier.wait()
        return every

    def add_up(self, tensors: Sequence[torch.Tensor]) -> None:
        for one in tensors:
            one.copy_(self.gathered(one.clone()).sum(0))


def of_all(size: int, task: Callable[[Group], Any]) -> list[Any]:
    """Return the results of a task in all processes of a group."""
    exchange = Exchange(size)

    def run(rank: int) -> Any:
        try:
            return task(Threads(rank, size, exchange))
        except BaseException:
            exchange.barrier.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(run, range(size)))


def model_of(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=3).double().train()


@pytest.mark.parametrize(("name", "size", "parts"), [("test_resnet", 2, 1), ("test_resnet", 3, 2), ("test_vit", 2, 1)])
def test_the_gradient_is_that_of_the_whole_batch(name: str, size: int, parts: int) -> None:
    torch.manual_seed(1)
    side = 160 if name == "test_vit" else 32
    images, labels = torch.randn(7 * parts, 3, side, side, dtype=torch.float64), torch.randint(3, (7 * parts,))
    split = list(zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True))
    alone = model_of(name)
    models = [copy.deepcopy(alone) for _ in range(size)]
    loss_sum = 0.0
    for some, of_some in split:
        loss = torch.nn.functional.cross_entropy(alone(some), of_some)
        (2 * loss / parts).backward()
        loss_sum += float(loss.detach()) * len(some)

    def task(group: Group) -> tuple[torch.nn.Module, float]:
        model = models[group.rank]

        def loss_of(some: torch.Tensor, of_some: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.cross_entropy(model(some), of_some)

        total = group.gradients(loss_of, split, lambda loss: 2 * loss, list(model.parameters()))
        return model, float(total)

    for model, total in of_all(size, task):
        assert total == pytest.approx(loss_sum, rel=1e-6)
        for (key, one), other in zip(alone.named_parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(
                other.grad, one.grad, atol=1e-10, rtol=1e-8, msg=lambda text, key=key: key + text
            )
        for (key, kept), found in zip(alone.named_buffers(), model.buffers(), strict=True):
            torch.testing.assert_close(found, kept, atol=1e-10, rtol=1e-8, msg=lambda text, key=key: key + text)


def test_all_processes_get_the_tensors_of_the_first_one() -> None:
    values = [[torch.full((2, 3), rank + 0.1), torch.tensor(rank + 7)] for rank in range(3)]
    of_all(3, lambda group: group.of_first(values[group.rank]))
    for found in values:
        torch.testing.assert_close(found, [torch.full((2, 3), 0.1), torch.tensor(7)], atol=0, rtol=0)


class Halves(Group):
    """Two processes of which the other one has the same images: sums are twice, and values are twice there."""

    def __init__(self) -> None:
        super().__init__(0, 2, "cpu")

    def gathered(self, values: torch.Tensor) -> torch.Tensor:
        return torch.stack([values, values])

    def add_up(self, tensors: Any) -> None:
        for one in tensors:
            one.mul_(2)


@pytest.mark.parametrize("affine", [True, False])
def test_synchronized_normalization_is_that_of_the_whole_batch(affine: bool) -> None:
    torch.manual_seed(0)
    half = torch.randn(3, 4, 2, 5) * 3 + 7
    whole = torch.cat([half, half]).requires_grad_()
    half = half.clone().requires_grad_()
    norms = [torch.nn.BatchNorm2d(4, affine=affine) for _ in "ab"]
    factor = torch.randn(3, 4, 2, 5)
    expected = norms[0](whole)
    (expected * torch.cat([factor, factor])).sum().backward()
    with SyncedBatchNorm(Halves()):
        found = norms[1](half)
    (found * factor).sum().backward()
    torch.testing.assert_close(found, expected[:3], atol=1e-5, rtol=1e-5)
    assert whole.grad is not None
    assert half.grad is not None
    torch.testing.assert_close(half.grad, whole.grad[:3], atol=1e-5, rtol=1e-4)
    for name, value in norms[0].state_dict().items():
        torch.testing.assert_close(norms[1].state_dict()[name], value)
    if affine:  # of this process; the sum is that of the whole batch
        assert norms[0].weight.grad is not None
        assert norms[1].weight.grad is not None
        torch.testing.assert_close(2 * norms[1].weight.grad, norms[0].weight.grad, atol=1e-4, rtol=1e-4)
    before = norms[1].state_dict()["running_mean"].clone()
    with SyncedBatchNorm(Halves()):
        norms[1].eval()(half)  # in evaluation as always
    torch.testing.assert_close(norms[1].state_dict()["running_mean"], before)


class Kept(Group):
    """A process that keeps what it would send to the others, in a list that they share."""

    parts: list[torch.Tensor]

    def gathered(self, values: torch.Tensor) -> torch.Tensor:
        self.parts.append(values)
        return torch.stack(self.parts)


@pytest.mark.parametrize(("n", "sizes"), [(30, [16, 14]), (5, [4, 1]), (3, [3]), (8, [4, 4])])
def test_predictions_are_whole_batches_in_the_order_of_the_rows(n: int, sizes: list[int]) -> None:
    values = np.random.default_rng(0).random((30, 3), dtype=np.float32)
    rows, asked, parts = np.random.default_rng(n).permutation(30)[:n], [], []

    def predict(some: np.ndarray) -> np.ndarray:
        asked.append(len(some))
        return values[some]

    for rank in range(2):
        one = Kept(rank, 2, "cpu")
        one.parts = parts
        found = one.shared_rows(predict, rows, 4, 3)
    np.testing.assert_array_equal(found, values[rows])
    assert asked == sizes


def test_gradients_are_sent_in_pieces_of_one_type() -> None:
    sizes = [torch.zeros(9 << 20), torch.zeros(3), torch.zeros(2, dtype=torch.float64), torch.zeros(1)]
    assert [[one.numel() for one in some] for some in _buckets(sizes)] == [[9 << 20], [3], [2], [1]]
    assert _buckets([]) == []
