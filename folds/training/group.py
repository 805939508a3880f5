"""Share the batches of one fold among processes, each with a device of its own; gradients and statistics are summed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import batch_norm
from torch.overrides import TorchFunctionMode

_BUCKET = 32 << 20  # bytes that are sent at once
_ARGUMENTS = inspect.signature(batch_norm)


class Group:
    """The processes that train a fold together; the process group of torch must be started.

    Every process holds the whole model and the whole batch, and computes its part of the images, so that a step is that
    of one device up to rounding: the gradient is that of the loss of the whole batch, batch normalization has the
    statistics of the whole batch, and images are mixed with partners from the whole batch.

    Attributes
    ----------
    rank : number of this process; process 0 writes all files.
    size : number of processes.
    """

    def __init__(self, rank: int, size: int, device: str) -> None:
        self.rank, self.size, self.device = rank, size, device

    def part(self, values: Tensor) -> Tensor:
        """Return the images of this process, of the first dimension."""
        return values.tensor_split(self.size)[self.rank]

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their sums over the processes, in place."""
        for some in _buckets(tensors):
            flat = torch.cat([one.reshape(-1) for one in some])
            dist.all_reduce(flat)
            parts = flat.split([one.numel() for one in some])
            for one, part in zip(some, parts, strict=True):
                one.copy_(part.view_as(one))

    def of_first(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by those of process 0, in place."""
        if self.rank:
            for one in tensors:
                one.zero_()
        self.add_up(tensors)

    def gathered(self, values: Tensor) -> Tensor:
        """Return (size, …) the values of all processes, which have equal shapes."""
        every = [torch.empty_like(values) for _ in range(self.size)]
        dist.all_gather(every, values.contiguous())
        return torch.stack(every)

    def gradients(
        self,
        loss_of: Callable[[Tensor, Tensor], Tensor],
        parts: Sequence[tuple[Tensor, Tensor]],
        scale: Callable[[Tensor], Tensor],
        parameters: Sequence[torch.nn.Parameter],
    ) -> Tensor:
        """Set the gradients of a batch; return its loss times its images, the same in all processes.

        Parameters
        ----------
        parts : images and labels of the parts of the whole batch that are computed one after the other.
        scale : scales a loss before it is differentiated.
        """
        n = sum(len(images) for images, _ in parts)
        total = torch.zeros((), device=self.device)
        with SyncedBatchNorm(self):
            for images, labels in parts:
                own = self.part(images)
                loss = loss_of(own, self.part(labels))
                scale(loss * (len(own) / n)).backward()
                total += loss.detach() * len(own)
        self.add_up([*(one.grad for one in parameters if one.grad is not None), total])
        return total

    def shared_rows(
        self,
        predict: Callable[[NDArray[np.int64]], NDArray[np.float32]],
        rows: NDArray[np.int64],
        batch: int,
        width: int,
    ) -> NDArray[np.float32]:
        """Return (n, width) the predictions of `rows`; each process predicts whole batches of them.

        Parameters
        ----------
        predict : called with the rows of this process, if there are any.
        batch : images per batch.
        """
        each = max(1, -(-len(rows) // (batch * self.size))) * batch
        own = rows[self.rank * each : (self.rank + 1) * each]
        padded = torch.zeros(each, width)
        if len(own):
            padded[: len(own)] = torch.from_numpy(predict(own))
        return self.gathered(padded.to(self.device)).flatten(0, 1)[: len(rows)].cpu().numpy()


def _buckets(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """Return tensors of one type and together about `_BUCKET` bytes, in their order."""
    found: list[list[Tensor]] = []
    for one in tensors:
        if not found or found[-1][0].dtype != one.dtype or sum(kept.nbytes for kept in found[-1]) > _BUCKET:
            found.append([])
        found[-1].append(one)
    return found


class SyncedBatchNorm(TorchFunctionMode):
    """Give batch normalization in training the statistics of the images of all processes, while the context is open.

    A mode and not a module, so that every kind of batch normalization is covered, and the names of the weights stay.
    """

    def __init__(self, group: Group) -> None:
        super().__init__()
        self.group = group

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Compute a batch normalization over all processes, anything else as it is."""
        if func is batch_norm:
            given = _ARGUMENTS.bind(*args, **(kwargs or {}))
            given.apply_defaults()
            if given.arguments["training"]:
                return self._normalized(**given.arguments)
        return func(*args, **(kwargs or {}))

    def _normalized(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        training: bool,
        momentum: float,
        eps: float,
    ) -> Tensor:
        out, mean, variance = _Normalize.apply(input, weight, bias, self.group, eps)
        for kept, new in ((running_mean, mean), (running_var, variance)):
            if kept is not None:
                kept.lerp_(new.to(kept.dtype), momentum)
        return out


class _Normalize(torch.autograd.Function):
    """Batch normalization over all processes, computed in float32 or more."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, weight: Tensor | None, bias: Tensor | None, group: Group, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the normalized values, their mean and their unbiased variance over all processes."""
        dims, shape = _dims(values)
        x, channels = _wide(values), values.shape[1]
        own = x.mean(dims)
        squares = (x - own.view(shape)).square().sum(dims)
        count = torch.full((1,), x.numel() / channels, dtype=x.dtype, device=x.device)
        every = group.gathered(torch.cat([own, squares, count]))
        means, counts = every[:, :channels], every[:, -1:]
        total = counts.sum()
        mean = (means * counts).sum(0) / total
        squares = every[:, channels:-1].sum(0) + (counts * (means - mean).square()).sum(0)
        factor = (squares / total + eps).rsqrt()
        out = (x - mean.view(shape)) * factor.view(shape)
        if weight is not None:
            out = out * weight.view(shape)
        if bias is not None:
            out = out + bias.view(shape)
        ctx.save_for_backward(values, mean, factor, total, weight, bias)
        ctx.group = group
        variance = squares / (total - 1).clamp(min=1)
        ctx.mark_non_differentiable(mean, variance)
        return out.to(values.dtype), mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients; those of weight and bias are summed over the processes with all other ones."""
        values, mean, factor, total, weight, bias = ctx.saved_tensors
        dims, shape = _dims(values)
        gradient = _wide(gradients[0])
        normal = (_wide(values) - mean.view(shape)) * factor.view(shape)
        of_bias, of_weight = gradient.sum(dims), (gradient * normal).sum(dims)
        sums = torch.stack([of_bias, of_weight])
        ctx.group.add_up([sums])
        inner = gradient - (sums[0].view(shape) + normal * sums[1].view(shape)) / total
        scale = factor if weight is None else factor * weight
        return (
            (inner * scale.view(shape)).to(values.dtype),
            None if weight is None else of_weight.to(weight.dtype),
            None if bias is None else of_bias.to(bias.dtype),
            None,
            None,
        )


def _wide(values: Tensor) -> Tensor:
    """Return values in float32, or in float64 if they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _dims(values: Tensor) -> tuple[list[int], list[int]]:
    """Return the dimensions of a mean per channel, and the shape of numbers per channel that fit to `values`."""
    return [0, *range(2, values.dim())], [1, -1, *[1] * (values.dim() - 2)]
