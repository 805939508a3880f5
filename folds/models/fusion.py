"""Rebuild a model for inference on a CPU: convolutions and batch norms folded, matrix products by oneDNN.

The rebuilt model computes the same function with other roundings. It needs no compiler. Every step that does not apply
to a model (it cannot be traced, it has no batch norm, torch was built without oneDNN) is left out; the caller compares
the outputs with those of the original model before it relies on them.

Measured with torch 2.14 on a Zen 5 CPU: the matrix products of `torch.nn.Linear` in float32 come from MKL, which
reaches half the rate of oneDNN there (100 and 220 GFLOP/s per core).
"""

from __future__ import annotations

import copy
import operator
from typing import Any

import torch
from torch import Tensor, fx, nn

from folds.models.cosine_head import CosineHead
from folds.models.ordinal_head import OrdinalHead

_ONE_DNN = torch.ops.mkldnn
_RELU = (nn.ReLU, nn.functional.relu, torch.relu, torch.relu_)
_ADD = (operator.add, operator.iadd, torch.add)


def fused(model: nn.Module, dtype: torch.dtype = torch.float32, sample: Tensor | None = None) -> tuple[nn.Module, str]:
    """Return a copy of a model that computes the same faster on a CPU, and the steps that were applied.

    Parameters
    ----------
    model : a model in evaluation mode on the CPU; it is not changed.
    dtype : format of the weights and of the computation; inputs are cast, outputs are float32.
    sample : images (n, 3, height, width) that the result must accept; without it, this is not tried.

    Raises
    ------
    RuntimeError : torch has no oneDNN for this CPU, or the rebuilt model does not run.
    """
    if not (torch.backends.mkldnn.is_available() and hasattr(_ONE_DNN, "_linear_pointwise")):
        raise RuntimeError("torch has no oneDNN here")
    packed, steps = _rebuilt(model, dtype, True)
    if sample is None:
        return packed, steps
    try:
        with torch.inference_mode():
            packed(sample)
        return packed, steps
    except Exception:  # a module reads the weights of another one (BEiT), which packed weights do not allow
        plain, steps = _rebuilt(model, dtype, False)
    try:
        with torch.inference_mode():
            plain(sample)
    except Exception as error:  # of any kind: the operators are not made for this model
        raise RuntimeError(f"the rebuilt model does not run: {error}") from None
    return plain, steps


def _rebuilt(model: nn.Module, dtype: torch.dtype, packed: bool) -> tuple[nn.Module, str]:
    steps: list[str] = []
    body = copy.deepcopy(model).eval().requires_grad_(False)
    norms = sum(isinstance(part, nn.BatchNorm2d) for part in body.modules())
    if norms:
        folded, count = _fold(body)
        body = folded
        steps += [f"{count} of {norms} batch norms folded"] if count else []
    body = body.to(dtype)
    if _convolutional(body):
        body = _channels_last(body)
        steps.append("channels_last")
    convolutions = _fuse_convolutions(body) if isinstance(body, fx.GraphModule) else 0
    steps += [f"{convolutions} convolutions fused with their activation"] if convolutions else []
    linear = _replace_linear(body, packed)
    steps += [f"{linear} matrix products by oneDNN"] if linear else []
    if dtype is torch.float32:  # measured: 7% faster with Swin in float32, no difference in bfloat16
        for part in body.modules():
            if getattr(part, "fused_attn", None) is False:
                part.fused_attn = True  # type: ignore[assignment]
    return _Cast(body, dtype, _convolutional(model)), ", ".join(steps) or "nothing to fuse"


class _Cast(nn.Module):
    """Cast inputs to the format of a model, and its outputs to float32."""

    def __init__(self, model: nn.Module, dtype: torch.dtype, channels_last: bool) -> None:
        super().__init__()
        self.model, self.dtype = model, dtype
        self.layout = torch.channels_last if channels_last else torch.contiguous_format

    def forward(self, images: Tensor) -> Tensor:
        """Return float32 (n, outputs) of float32 (n, 3, height, width)."""
        output: Tensor = self.model(images.to(dtype=self.dtype, memory_format=self.layout))
        return output.float()


class _Tracer(fx.Tracer):
    """Trace a model down to the layers of torch, batch norms of timm that include an activation, and own heads."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return whether the graph has one node for a module."""
        return isinstance(m, nn.BatchNorm2d | CosineHead | OrdinalHead) or super().is_leaf_module(
            m, module_qualified_name
        )


def _fold(model: nn.Module) -> tuple[nn.Module, int]:
    """Return the model with batch norms folded into the convolutions before them, and their number.

    The model is returned as it is if it cannot be traced.
    """
    try:
        graph = fx.GraphModule(model, _Tracer().trace(model))
    except Exception:  # control flow that depends on values: tracing raises many kinds of errors
        return model, 0
    parts, count = dict(graph.named_modules()), 0
    for node in list(graph.graph.nodes):
        norm = parts.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None or norm.running_var is None:
            continue
        before = node.args[0]
        once = isinstance(before, fx.Node) and before.op == "call_module" and len(before.users) == 1
        convolution = parts.get(str(before.target)) if once else None
        if not isinstance(convolution, nn.Conv2d) or not (
            _calls(graph, before.target) == _calls(graph, node.target) == 1
        ):
            continue
        _fold_pair(convolution, norm)
        _replace(graph, str(node.target), parts, _after_norm(norm))
        count += 1
    graph.recompile()
    return (graph, count) if count else (model, 0)


def _calls(graph: fx.GraphModule, target: object) -> int:
    return sum(node.op == "call_module" and node.target == target for node in graph.graph.nodes)


def _fold_pair(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Change the weights of a convolution so that it includes the batch norm after it; computed in float64."""
    assert norm.running_mean is not None  # noqa: S101 - checked by the caller
    assert norm.running_var is not None  # noqa: S101 - likewise
    with torch.no_grad():
        scale = (norm.running_var.double() + norm.eps).rsqrt()
        scale = scale if norm.weight is None else scale * norm.weight.double()
        bias = -norm.running_mean.double() if convolution.bias is None else convolution.bias - norm.running_mean
        shift = bias.double() * scale
        shift = shift if norm.bias is None else shift + norm.bias.double()
        weight = convolution.weight.double() * scale[:, None, None, None]
        convolution.weight = nn.Parameter(weight.to(convolution.weight.dtype), requires_grad=False)
        convolution.bias = nn.Parameter(shift.to(convolution.weight.dtype), requires_grad=False)


def _after_norm(norm: nn.BatchNorm2d) -> nn.Module:
    """Return what a batch norm does after normalizing: the activation of timm's ``BatchNormAct2d``."""
    after = [part for name in ("drop", "act") if isinstance(part := getattr(norm, name, None), nn.Module)]
    after = [part for part in after if not isinstance(part, nn.Identity)]
    return after[0] if len(after) == 1 else nn.Sequential(*after) if after else nn.Identity()


def _replace(model: nn.Module, name: str, parts: dict[str, nn.Module], part: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, part)
    parts[name] = part


def _convolutional(model: nn.Module) -> bool:
    """Return whether most weights are of convolutions."""
    own = sum(part.weight.numel() for part in model.modules() if isinstance(part, nn.Conv2d))
    return own * 2 > sum(parameter.numel() for parameter in model.parameters())


def _channels_last(model: nn.Module) -> nn.Module:
    for part in model.modules():
        if isinstance(part, nn.Conv2d):
            part.weight.data = part.weight.data.contiguous(memory_format=torch.channels_last)
    return model


class _Convolution(nn.Module):
    """A convolution by oneDNN, an optional sum, and ReLU."""

    def __init__(self, own: nn.Conv2d, relu: bool) -> None:
        super().__init__()
        self.padding, self.stride, self.dilation = ([*map(int, x)] for x in (own.padding, own.stride, own.dilation))
        self.groups, self.activation = own.groups, "relu" if relu else None
        self.register_buffer("weight", own.weight.data)
        self.register_buffer("bias", None if own.bias is None else own.bias.data)

    def forward(self, images: Tensor, other: Tensor | None = None) -> Tensor:
        """Return the activation of the convolution, plus `other` if given."""
        where = (self.padding, self.stride, self.dilation, self.groups)
        if other is None:
            return _ONE_DNN._convolution_pointwise(
                images, self.weight, self.bias, *where, self.activation or "none", [], ""
            )
        return _ONE_DNN._convolution_pointwise.binary(
            images, other, self.weight, self.bias, *where, "add", 1.0, self.activation, [], None
        )


def _fuse_convolutions(graph: fx.GraphModule) -> int:
    """Join convolutions with the sum and the ReLU after them; return how many."""
    parts, count = dict(graph.named_modules()), 0
    for node in list(graph.graph.nodes):
        own = parts.get(str(node.target)) if node.op == "call_module" else None
        if type(own) is not nn.Conv2d or own.padding_mode != "zeros" or isinstance(own.padding, str):
            continue
        if _calls(graph, node.target) != 1:
            continue
        last, other = _only_user(node, parts), None
        if last is not None and _is(last, _ADD, parts) and not last.kwargs and len(last.args) == 2:
            rest = [arg for arg in last.args if arg is not node]
            following = _only_user(last, parts)
            # The sum must be computed already: its node stands before, so the fused one takes the place of the sum.
            if len(rest) == 1 and isinstance(rest[0], fx.Node) and following is not None:
                other, add, last = rest[0], last, following
        if last is None or not _is(last, _RELU, parts):
            continue
        before = add if other is not None else node
        _replace(graph, str(node.target), parts, _Convolution(own, relu=True))
        with graph.graph.inserting_before(last):
            arguments = (node.args[0],) if other is None else (node.args[0], other)
            joined = graph.graph.call_module(str(node.target), arguments)
        last.replace_all_uses_with(joined)
        graph.graph.erase_node(last)
        if before is not node:
            graph.graph.erase_node(before)
        graph.graph.erase_node(node)
        count += 1
    graph.graph.lint()
    graph.recompile()
    return count


def _only_user(node: fx.Node, parts: dict[str, nn.Module]) -> fx.Node | None:
    """Return the node that alone uses a node, looking through modules that do nothing; None if there are several."""
    while len(node.users) == 1:
        user = next(iter(node.users))
        part = parts.get(str(user.target)) if user.op == "call_module" else None
        if not (isinstance(part, nn.Identity | nn.Dropout) or type(part).__name__ in ("DropPath", "DropBlock2d")):
            return user
        # A module that does nothing is taken out of the graph.
        user.replace_all_uses_with(user.args[0])  # type: ignore[arg-type]
        user.graph.erase_node(user)
    return None


def _is(node: fx.Node, what: tuple[Any, ...], parts: dict[str, nn.Module]) -> bool:
    if node.op == "call_module":
        return type(parts.get(str(node.target))) in what
    if node.op == "call_method":
        return str(node.target) in {getattr(one, "__name__", "") for one in what}
    return node.op == "call_function" and node.target in what


class _Linear(nn.Module):
    """A linear layer by oneDNN, and an optional GELU."""

    def __init__(self, own: nn.Linear, packed: bool, activation: str = "none", algorithm: str = "") -> None:
        super().__init__()
        self.activation, self.algorithm = activation, algorithm
        self.in_features, self.out_features = own.in_features, own.out_features
        weight = own.weight.data
        self.register_buffer("weight", _ONE_DNN._reorder_linear_weight(weight) if packed else weight)
        self.register_buffer("bias", None if own.bias is None else own.bias.data)

    def forward(self, values: Tensor) -> Tensor:
        """Return (…, outputs) of (…, inputs)."""
        result: Tensor = _ONE_DNN._linear_pointwise(values, self.weight, self.bias, self.activation, [], self.algorithm)
        return result


def _replace_linear(model: nn.Module, packed: bool) -> int:
    """Replace the linear layers of a model, with a GELU after them; return how many.

    The layers in torch's own attention are left, because other modules read their weights.
    """
    count = 0
    for parent in list(model.modules()):
        if isinstance(parent, nn.MultiheadAttention | nn.TransformerEncoderLayer):
            continue
        for name, part in list(parent.named_children()):
            if type(part) is not nn.Linear:
                continue
            algorithm = _gelu(parent, name)
            activation = () if algorithm is None else ("gelu", algorithm)
            setattr(parent, name, _Linear(part, packed, *activation))
            if algorithm is not None:
                parent.act = nn.Identity()
            count += 1
    return count


def _gelu(parent: nn.Module, name: str) -> str | None:
    """Return the form of the GELU that follows a layer of a timm MLP; None if another or no activation does."""
    if type(parent).__name__ != "Mlp" or name != "fc1":
        return None
    activation = getattr(parent, "act", None)
    if type(activation) is nn.GELU:
        return activation.approximate
    return "none" if type(activation).__name__ == "GELU" else None
