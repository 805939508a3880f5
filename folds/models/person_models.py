"""Divide a model that predicts an image from all images of its person: a body, which sees an image, and its head.

The body gives the features of each image. The head is applied to those of all images of a person, when all are known.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from folds.errors import EnsembleError
from folds.models.checkpoint import Checkpoint
from folds.models.feature_heads import class_logits, joined_outputs
from folds.models.head_spec import is_of_person
from folds.models.heads import build_head, classifier_of, replace_module

FEATURES = np.float16  # of features, as the training keeps them; a z-score can be sensitive to other digits
_FIRST, _LAST = "inputs.weight", "output.weight"  # of a head (`folds.models.heads`)


def needs_people(checkpoint: Checkpoint) -> bool:
    """Return whether the model predicts an image from all images of its person."""
    return is_of_person(checkpoint.architecture.head)


def count_features(checkpoint: Checkpoint, path: Path | None = None) -> int:
    """Return the number of features that the head of such a model reads.

    Raises
    ------
    EnsembleError : the checkpoint has no such head, or several.
    """
    return int(checkpoint.weights[_place(checkpoint, path) + _FIRST].shape[1])


def body_key(checkpoint: Checkpoint, path: Path | None = None) -> str:
    """Return a hash of everything that the features of an image depend on; folds of a run often share it."""
    place, settings = _place(checkpoint, path), checkpoint.recipe.get("channels_last")
    architecture = {key: value for key, value in checkpoint.architecture.to_dict().items() if key not in _NO_BODY}
    parts = [architecture, dict(checkpoint.images), settings, checkpoint.amp]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=list).encode())
    for name, value in sorted(checkpoint.weights.items()):
        if not name.startswith(place):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


_NO_BODY = ("name", "head")  # of an architecture


def body_on(checkpoint: Checkpoint, device: str, path: Path | None = None) -> tuple[nn.Module, bool]:
    """Return the body on a device, images → features, in evaluation mode, and whether it is in channels_last.

    Raises
    ------
    EnsembleError : the weights do not fit the architecture.
    """
    return checkpoint.placed(_body(checkpoint, path), device)


def _body(checkpoint: Checkpoint, path: Path | None) -> nn.Module:
    model = checkpoint.network(path)
    place = classifier_of(model, checkpoint.architecture.name)[0]
    replace_module(model, place, nn.Identity())
    return model


class PersonNetwork(nn.Module):
    """The body and the head of a checkpoint: all images of one person (n, 3, height, width) → (n, classes) logits.

    The features are rounded to float16, as everywhere.

    Raises
    ------
    EnsembleError : the weights do not fit the architecture.
    """

    def __init__(self, checkpoint: Checkpoint, path: Path | None = None) -> None:
        super().__init__()
        self.body, self.head = _body(checkpoint, path), person_head(checkpoint, path)
        self.joined = joined_outputs(checkpoint.outputs())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits, or numbers, of the images."""
        logits: torch.Tensor = self.joined(self.head(self.body(images).half().float()))
        return logits


def in_features(found: NDArray[np.floating], name: str) -> NDArray[np.float16]:
    """Return features as the head reads them.

    Parameters
    ----------
    name : of the model, for the error.

    Raises
    ------
    EnsembleError : a feature is not finite in float16.
    """
    with np.errstate(over="ignore"):
        features = found.astype(FEATURES)
    if not np.isfinite(features).all():
        raise EnsembleError(
            f"the features of {name} are not finite in float16",
            hint="`precision=fp32` computes in float32; check the weights of the model",
        )
    return features


def person_head(checkpoint: Checkpoint, path: Path | None = None) -> nn.Module:
    """Return the head in evaluation mode, features (n, features) and persons (n,) → outputs, on the CPU.

    Raises
    ------
    EnsembleError : its weights do not fit the architecture.
    """
    place = _place(checkpoint, path)
    own = {name.removeprefix(place): value for name, value in checkpoint.weights.items() if name.startswith(place)}
    with torch.device("meta"):  # nothing is allocated: a file of a few weights may name a head of any size
        head = build_head(checkpoint.architecture.head, count_features(checkpoint, path), checkpoint.outputs().outputs)
    try:
        head.load_state_dict({name: value.float() for name, value in own.items()}, assign=True)
    except RuntimeError as error:
        raise _damaged(checkpoint, path, str(error).splitlines()[-1].strip()) from None
    return head.eval()


def person_logits(
    checkpoint: Checkpoint, head: nn.Module, features: NDArray[np.floating], people: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return float32 (n, classes) the logits, or numbers, of images from all images of their persons.

    Parameters
    ----------
    head : of the checkpoint (`person_head`).
    features : (n, features) of the images, by the body.
    people : (n,) the number of each image's person.
    """
    return class_logits(head, checkpoint.outputs(), features, people)


def _place(checkpoint: Checkpoint, path: Path | None) -> str:
    """Return the start of the names of the weights of the head: ``head.fc.``."""
    names = [name for name in checkpoint.weights if name.endswith(f".{_FIRST}")]
    places = [name.removesuffix(_FIRST) for name in names]
    found = [place for place in places if place + _LAST in checkpoint.weights]
    if len(found) != 1 or checkpoint.weights[found[0] + _FIRST].ndim != 2:
        raise _damaged(checkpoint, path, f"it has {len(found)} heads of persons, expected 1")
    return found[0]


def _damaged(checkpoint: Checkpoint, path: Path | None, why: str) -> EnsembleError:
    return EnsembleError(f"{path or 'the checkpoint'} is damaged: {why}", hint=checkpoint.repair)
