"""Keep the pretrained weights of a model in a file, so that they are fetched once and are the same for all folds."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from folds.errors import EnsembleError
from folds.models.factory import Architecture, create_model
from folds.models.head_spec import LINEAR
from folds.utils.files import sha256_bytes, write_atomic

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

FOLDER = "weights"  # under .ensemble
OUTPUTS_OF_BACKBONE = 2
_SEEDS = (1, 2)


@dataclass(frozen=True)
class PretrainedWeights:
    """A file of pretrained weights (``.safetensors``) and the SHA-256 of the names, shapes and values in it."""

    path: Path
    sha: str

    def load_into(self, model: torch.nn.Module) -> None:
        """Load the weights into a model; what is not in the file (a new head) keeps its values.

        Raises
        ------
        EnsembleError : the file is missing, was changed, or is of another model.
        """
        weights = _read(self.path)
        if weights_sha(weights) != self.sha:
            raise EnsembleError(
                f"{self.path} was changed since this run has recorded its hash", hint=f"rm {self.path} fetches it again"
            )
        own = model.state_dict()
        wrong = [name for name, value in weights.items() if name not in own or own[name].shape != value.shape]
        if wrong:
            raise EnsembleError(
                f"{self.path} is of another model: {len(wrong):,} weights do not fit, e.g. '{wrong[0][:100]}'",
                hint=f"rm {self.path} fetches it again",
            )
        model.load_state_dict(weights, strict=False)


def weights_for_features(architecture: Architecture) -> tuple[Architecture, int]:
    """Return under which architecture and number of outputs the weights of a frozen model are kept: for any head."""
    return replace(architecture, head=LINEAR), OUTPUTS_OF_BACKBONE


def pretrained_file(folder: Path, architecture: Architecture, outputs: int) -> Path:
    """Return the file in `folder` of the weights of a model with `outputs` outputs, which may not exist yet.

    Its name has a hash of everything that the weights depend on, also timm's version, which names the layers.
    """
    import timm

    parts = {key: value for key, value in architecture.to_dict().items() if key not in ("name", "mean", "std")}
    channels = [] if architecture.channels == 3 else [architecture.channels]
    key = json.dumps([parts, outputs, timm.__version__, *channels], sort_keys=True, default=list)
    return folder / f"{architecture.timm_name}-{sha256_bytes(key.encode())[:12]}.safetensors"


def kept_weights(folder: Path, architecture: Architecture, outputs: int) -> PretrainedWeights | None:
    """Return the weights that are kept in `folder` for a model; None if there are none.

    Raises
    ------
    EnsembleError : the file is damaged.
    """
    path = pretrained_file(folder, architecture, outputs)
    return PretrainedWeights(path, weights_sha(_read(path))) if path.is_file() else None


def keep_weights(folder: Path, architecture: Architecture, outputs: int) -> PretrainedWeights:
    """Return the weights that are kept in `folder`; they are fetched from the hub if there are none.

    Raises
    ------
    EnsembleError : the hub cannot be reached, or the file cannot be written.
    """
    from safetensors.torch import save

    found = kept_weights(folder, architecture, outputs)
    if found is not None:
        return found
    weights = _without_random(architecture, outputs)
    path = pretrained_file(folder, architecture, outputs)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, save(weights))
    logger.info(f"the pretrained weights of {architecture.timm_name} are kept in {path}, for all folds and machines")
    return PretrainedWeights(path, weights_sha(weights))


def _without_random(architecture: Architecture, outputs: int) -> dict[str, torch.Tensor]:
    """Return the weights of a pretrained model that do not depend on the seed: without a new head.

    The model is built twice, because what timm takes from the hub follows from rules of each model.
    """
    import torch

    states = []
    for seed in _SEEDS:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            states.append(create_model(architecture, outputs, pretrained=True).state_dict())
    first, second = states
    same = [name for name, value in first.items() if torch.equal(value, second[name])]
    return {name: first[name].detach().clone().contiguous() for name in same}


def _read(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except MemoryError:
        raise
    except Exception as error:  # the library has errors of its own
        reason = " ".join(str(error).split())[:200]
        raise EnsembleError(f"{path} cannot be read: {reason}", hint=f"rm {path} fetches it again") from None


def weights_sha(weights: dict[str, torch.Tensor]) -> str:
    """Return the SHA-256 of weights: their names, types, shapes and values, in any order."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        if value.numel():
            digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
