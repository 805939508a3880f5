"""Build the frozen backbone of a run: a model without its classifier, and the identity of its weights."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from folds.errors import UsageError
from folds.models.factory import Architecture, create_model, is_convolutional
from folds.models.head_spec import LINEAR
from folds.models.heads import build_head, classifier_of, input_layer, replace_module
from folds.models.pretrained import PretrainedWeights, weights_for_features
from folds.training.job import Job
from folds.utils.files import derive_seed

_SAMPLE = 2  # images of the check that the classifier is the last step of the model
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Backbone:
    """A model without its classifier.

    Attributes
    ----------
    body : images (n, 3, height, width) → features (n, size), in evaluation mode.
    place : name of the classifier in the model.
    sha : hash of the weights of the body.
    """

    architecture: Architecture
    body: nn.Module
    place: str
    size: int
    sha: str

    def with_head(self, head: nn.Module) -> nn.Module:
        """Return the model with a head at the place of the classifier; it shares the weights of the body."""
        return _WithHead(self.body, self.place, head)


class _WithHead(nn.Module):
    """The weights of a body and a head under the names of the whole model, without a change of the shared body."""

    def __init__(self, body: nn.Module, place: str, head: nn.Module) -> None:
        super().__init__()
        self.body, self.place, self.head = body, place, head

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return name → weight, as the model with this head in it has them."""
        own = {f"{self.place}.{name}": value for name, value in self.head.state_dict().items()}
        return dict(self.body.state_dict()) | own


def build_backbone(
    architecture: Architecture,
    *,
    pretrained: bool = False,
    init: Path | None = None,
    kept: PretrainedWeights | None = None,
    seed: tuple[Any, ...] = (),
) -> Backbone:
    """Return the frozen backbone of an architecture.

    Parameters
    ----------
    kept : the file of the pretrained weights (`weights_for_features`); None to ask the hub.
    seed : of random weights; one seed for all folds, so that their features are the same.

    Raises
    ------
    UsageError : the model has no single linear classifier as its last step.
    EnsembleError : see `create_model`.
    """
    torch.manual_seed(derive_seed(*seed, "frozen backbone"))
    plain, outputs = weights_for_features(architecture)
    model = create_model(plain, outputs, pretrained=pretrained and init is None and kept is None, init=init)
    if kept is not None and init is None:
        kept.load_into(model)
    model = model.eval().requires_grad_(False)
    place, classifier = classifier_of(model, architecture.name)
    size = input_layer(classifier).in_features
    images = torch.randn(
        *(_SAMPLE, architecture.channels, architecture.height, architecture.width),
        generator=torch.Generator().manual_seed(0),
    )
    with torch.inference_mode():
        expected = model(images)
        replace_module(model, place, nn.Identity())
        features = model(images)
        good = isinstance(features, Tensor) and features.shape == (_SAMPLE, size)
        scale = expected.abs().max().clamp_min(1.0)
        good = good and bool(((classifier(features) - expected).abs() <= _TOLERANCE * scale).all())
    if not good:
        raise UsageError(
            f"frozen features need a model whose last step is its classifier; that of {architecture.name} is not",
            hint="choose another `arch`, or fine-tune the model without `features`",
        )
    return Backbone(architecture, model, place, size, _hash_weights(model))


def backbone_of(job: Job) -> Backbone:
    """Return the frozen backbone of a job; that of the last job is kept, because folds and settings share it."""
    architecture = architecture_of(job)
    init = job.init or job.recipe.get("init")
    changed = None if init is None else Path(init).stat().st_mtime_ns
    kept = None if job.pretrained is None else PretrainedWeights(Path(job.pretrained), job.pretrained_sha)
    parts = replace(architecture, head=LINEAR).to_dict()
    key = json.dumps([parts, init, changed, bool(job.recipe.get("pretrained")), job.pretrained, job.pretrained_sha])
    if key not in _kept:
        _kept.clear()
        path = None if init is None else Path(init)
        pretrained = bool(job.recipe.get("pretrained"))
        _kept[key] = build_backbone(architecture, pretrained=pretrained, init=path, kept=kept)
    return _kept[key]


_kept: dict[str, Backbone] = {}


def architecture_of(job: Job) -> Architecture:
    """Return the architecture of a job."""
    record = {**job.architecture}
    record |= {name: tuple(record[name]) for name in ("mean", "std")}
    return Architecture(**{**record, "joined": tuple(record.get("joined") or ())})


def new_head(architecture: Architecture, features: int, outputs: int, seed: int) -> nn.Module:
    """Return the head of an architecture with initial weights that depend only on the seed."""
    torch.manual_seed(seed)
    return build_head(architecture.head, features, outputs)


def channels_last_of(model: nn.Module, setting: bool | None) -> bool:
    """Return whether a model computes in the memory format channels_last."""
    return is_convolutional(model) if setting is None else setting


def _hash_weights(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
