"""Heads on the features of a backbone, and several backbones joined to one model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from folds.config.frozen import ATTENTION_PERSON, RELATIVE
from folds.errors import UsageError
from folds.models.head_spec import LINEAR, cosine_scale, is_of_person


def build_head(text: str, features: int, outputs: int) -> nn.Module:
    """Return a new head on frozen features, (n, features) → (n, outputs), of the kind `text` (`check_head`)."""
    if cosine_scale(text) is not None:
        raise UsageError(f"a head on frozen features is not {text}", hint="leave out `head`")
    if text == LINEAR:
        return nn.Linear(features, outputs)
    sizes = [int(size) for size in text.split(":")[1:]]
    if text == RELATIVE:
        return RelativeHead(features, outputs)
    if text.startswith(ATTENTION_PERSON):
        return GatedAttentionHead(features, sizes[0], outputs)
    if is_of_person(text):
        return AttentionHead(features, sizes[0], sizes[1], outputs)
    return nn.Sequential(nn.Linear(features, sizes[0]), nn.GELU(), nn.Dropout(0.2), nn.Linear(sizes[0], outputs))


def input_layer(head: nn.Module) -> nn.Linear:
    """Return the layer of a head that reads the features."""
    first = head.inputs if isinstance(head, AttentionHead) else head[0] if isinstance(head, nn.Sequential) else head
    assert isinstance(first, nn.Linear)  # noqa: S101 - heads of `build_head` begin with one
    return first


def output_layer(head: nn.Module) -> nn.Linear:
    """Return the layer of a head that computes the outputs; of `RelativeHead` that of the z-scores."""
    last = head.output if isinstance(head, AttentionHead) else head[-1] if isinstance(head, nn.Sequential) else head
    assert isinstance(last, nn.Linear)  # noqa: S101 - heads of `build_head` end with one
    return last


class AttentionHead(nn.Module):
    """Predict each image from its features and, by attention, from those of the other images of its person.

    Multi-head attention within a person (Vaswani et al., 2017) with a residual; it does not depend on the order of the
    images. A person with one image is its own context.

    Parameters
    ----------
    features, dim, heads, outputs : sizes of the input, of the attention, the number of attention heads, and of the
        output.
    """

    def __init__(self, features: int, dim: int, heads: int, outputs: int) -> None:
        super().__init__()
        self.inputs = nn.Linear(features, dim)
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.project = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.drop = nn.Dropout(0.2)
        self.output = nn.Linear(2 * dim, outputs)
        self.heads = heads

    def forward(self, features: Tensor, persons: Tensor | None = None) -> Tensor:
        """Return (n, outputs) for features (n, features) of the persons (n,) int64; None: all are of one person."""
        n = features.shape[0]
        own = self.inputs(features)
        query, key, value = self.query_key_value(own).view(n, 3, self.heads, -1).permute(1, 2, 0, 3)
        scores = query @ key.transpose(1, 2) * query.shape[-1] ** -0.5  # (heads, n, n)
        if persons is not None:
            scores = scores.masked_fill(persons[:, None] != persons[None, :], -torch.inf)
        context = (scores.softmax(-1) @ value).transpose(0, 1).reshape(n, -1)
        joined = self.norm(own + self.project(context))
        result: Tensor = self.output(self.drop(torch.cat([own, joined], 1)))
        return result


class GatedAttentionHead(AttentionHead):
    """Predict each person from the features of all its images, weighted by gated attention (Ilse et al., 2018).

    The weight of an image is the softmax over the images of its person of w · (tanh(V h) ⊙ sigmoid(U h)). All images of
    a person get the prediction of the person. It does not depend on the order of the images.

    Parameters
    ----------
    features, dim, outputs : sizes of the input, of the hidden layer, and of the output.
    """

    def __init__(self, features: int, dim: int, outputs: int) -> None:
        nn.Module.__init__(self)
        self.inputs = nn.Linear(features, dim)
        self.value = nn.Linear(dim, dim)
        self.gate = nn.Linear(dim, dim)
        self.score = nn.Linear(dim, 1)
        self.drop = nn.Dropout(0.2)
        self.output = nn.Linear(dim, outputs)

    def forward(self, features: Tensor, persons: Tensor | None = None) -> Tensor:
        """Return (n, outputs) for features (n, features) of the persons (n,) int64; None: all are of one person."""
        hidden = torch.relu(self.inputs(features))
        scores = self.score(torch.tanh(self.value(hidden)) * torch.sigmoid(self.gate(hidden)))[:, 0]
        if persons is None:
            person = self.output(self.drop(scores.softmax(0)[None] @ hidden))
            return person.expand(features.shape[0], -1)
        place = torch.unique(persons, return_inverse=True)[1]
        same = place[None] == torch.arange(int(place.max()) + 1)[:, None]  # (people, n)
        weights = scores.masked_fill(~same, -torch.inf).softmax(-1)
        result: Tensor = self.output(self.drop(weights @ hidden))[place]
        return result


class RelativeHead(AttentionHead):
    """Predict each image from its features and from their z-scores within its person, by one linear layer.

    A z-score says how far an image is from the other images of its person ("ugly duckling"). It is the same for
    standardized features; those of a person with one image, and of a feature that does not vary, are 0.

    Parameters
    ----------
    features, outputs : sizes of the input and of the output.
    """

    def __init__(self, features: int, outputs: int) -> None:
        nn.Module.__init__(self)
        self.inputs = nn.Linear(features, outputs)
        self.output = nn.Linear(features, outputs, bias=False)

    def forward(self, features: Tensor, persons: Tensor | None = None) -> Tensor:
        """Return (n, outputs) for features (n, features) of the persons (n,) int64; None: all are of one person."""
        result: Tensor = self.inputs(features) + self.output(z_scores(features, persons))
        return result


def z_scores(features: Tensor, persons: Tensor | None = None) -> Tensor:
    """Return (n, features) the z-scores of features (n, features) within the persons (n,); 0 without deviation.

    Without persons all images are of one, and an exporter can follow what is computed.
    """
    if persons is None:
        change = features - features.mean(0)
        deviation = (change**2).mean(0).sqrt()
        varies = _varies(deviation, features.mean(0))
        return torch.where(varies, change / torch.where(varies, deviation, 1), 0)
    place = torch.unique(persons, return_inverse=True)[1]
    counts = torch.bincount(place).to(features.dtype)[:, None]
    zeros = torch.zeros(len(counts), features.shape[1], dtype=features.dtype)
    mean = zeros.index_add(0, place, features) / counts
    change = features - mean[place]
    deviation = (zeros.index_add(0, place, change**2) / counts).sqrt()
    varies = _varies(deviation, mean)
    return torch.where(varies[place], change / torch.where(varies, deviation, 1)[place], 0)


def _varies(deviation: Tensor, mean: Tensor) -> Tensor:
    return deviation > 1e-5 * mean.abs() + 1e-12  # copies differ in the last digits


class JoinedBackbones(nn.Module):
    """Several backbones whose features are concatenated, and one head.

    Parameters
    ----------
    bodies : models (n, 3, height, width) → (n, features).
    sizes : features of each.
    outputs : number of outputs.
    statistics : mean and std (3,) of each; images come normalized with those of the first.
    """

    def __init__(
        self,
        bodies: Sequence[nn.Module],
        sizes: Sequence[int],
        outputs: int,
        statistics: Sequence[tuple[Sequence[float], Sequence[float]]],
    ) -> None:
        super().__init__()
        self.bodies = nn.ModuleList(bodies)
        self.head: nn.Module = nn.Linear(sum(sizes), outputs)
        mean, std = (torch.tensor(values, dtype=torch.float64) for values in statistics[0])
        for i, (own_mean, own_std) in enumerate(statistics):
            center, scale = (torch.tensor(values, dtype=torch.float64) for values in (own_mean, own_std))
            for name, values in (("scale", std / scale), ("shift", (mean - center) / scale)):
                self.register_buffer(f"{name}{i}", values.float()[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return (n, outputs) of images (n, 3, height, width)."""
        parts = [
            body(images * self.get_buffer(f"scale{i}") + self.get_buffer(f"shift{i}"))
            for i, body in enumerate(self.bodies)
        ]
        result: Tensor = self.head(torch.cat([part.float() for part in parts], 1))
        return result

    def get_classifier(self) -> nn.Module:
        """Return the head, as models of timm do."""
        return self.head


def classifier_of(model: nn.Module, name: str) -> tuple[str, nn.Module]:
    """Return the place and the module of the classifier of a model.

    Raises
    ------
    UsageError : the model has several classifiers, or one that is not a linear layer or a head of `build_head`.
    """
    get = getattr(model, "get_classifier", None)
    found = get() if callable(get) else None
    place = next((place for place, part in model.named_modules() if part is found), None)
    if place is None or not isinstance(found, nn.Linear | nn.Sequential | AttentionHead):
        kind = f"{len(found)} of them" if isinstance(found, tuple | list) else type(found).__name__
        raise UsageError(
            f"frozen features need a model with one linear classifier; that of {name} is {kind}",
            hint="choose another `arch`, or fine-tune the model without `features`",
        )
    return place, found


def replace_module(model: nn.Module, place: str, part: nn.Module) -> None:
    """Put a module at a place of the model, ``head.fc``."""
    parent, _, own = place.rpartition(".")
    setattr(model.get_submodule(parent), own, part)
