"""Read weights from files of this program, timm, Lightning and others, and find the names of the model in them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from folds.errors import EnsembleError
from folds.models.architecture import Architecture as Architecture
from folds.models.archive import load_archive
from folds.utils.schema import shown

if TYPE_CHECKING:
    import torch


logger = logging.getLogger(__name__)


_MAX_PREFIXES = 200


def without_prefix(
    path: Path, weights: dict[str, torch.Tensor], names: Sequence[str], heads: Sequence[str] = ()
) -> dict[str, torch.Tensor]:
    """Return weights under the names of the model, if they have one prefix in common; log it.

    Lightning writes ``model.``, torch.compile ``_orig_mod.``, others ``backbone.`` or ``net.``, also one in front of
    another. Weights without the prefix (a loss with weights, a neck) belong to what was around the model.

    Parameters
    ----------
    path : the file, for messages.
    names : names of the weights of the model.
    heads : the parts of the model that may be missing.

    Raises
    ------
    EnsembleError : with a prefix the names would fit in part; the hint names it.
    """
    best, most = "", sum(name in weights for name in names)
    for prefix in _prefixes(weights):
        fitting = sum(prefix + name in weights for name in names)
        if fitting > most:
            best, most = prefix, fitting
    if not best:
        return weights
    inside = {name.removeprefix(best): value for name, value in weights.items() if name.startswith(best)}
    others = [name for name in weights if not name.startswith(best)]
    needless = tuple(f"{head}." for head in heads)
    missing = [name for name in names if name not in inside and not name.startswith(needless)]
    if missing:
        raise EnsembleError(
            f"`init_weights={path}`: without the prefix '{best}', {most:,} of {len(names):,} names are those of the "
            f"model; {len(missing):,} are missing, e.g. {shown(sorted(missing)[0])}",
            hint="the file may hold another model, or its names follow another library: rename them to those of timm",
        )
    unused = f"; {len(others):,} other weights are not used (e.g. {others[0]})" if others else ""
    logger.info(f"{path}: the prefix '{best}' of {len(inside):,} names was removed{unused}")
    return inside


def _prefixes(weights: Mapping[str, Any]) -> list[str]:
    """Return the prefixes of names up to their first, second and third dot, in the order of the file."""
    found: dict[str, None] = {}
    for name in weights:
        parts = name.split(".")[:4]
        found |= {".".join(parts[:count]) + ".": None for count in range(1, len(parts))}
    return list(found)[:_MAX_PREFIXES]


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Return the weights of a ``.safetensors`` or ``.pt``/``.pth`` file by name; no code in the file is executed.

    The file may be a checkpoint of this program, of timm's own training script or of Lightning, or hold the weights
    under a name such as ``state_dict`` or ``model``. Averaged weights beside them are preferred, and it is logged.

    Raises
    ------
    EnsembleError : the file does not exist, or it holds no weights by name.
    """
    import torch

    if not Path(path).is_file():
        raise EnsembleError(f"`init_weights`: file not found: {path}")
    try:
        if Path(path).suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state: Any = load_archive(Path(path), plain=False)
    except MemoryError:
        raise
    except Exception as error:
        reason = str(error) if type(error) is ValueError else type(error).__name__
        raise EnsembleError(
            f"`init_weights`: {path} holds no plain weights ({reason})",
            hint="save only the state dict, or use .safetensors; code in a file is never run",
        ) from None
    state = _weights_inside(Path(path), state)
    if (
        not isinstance(state, dict)
        or not state
        or not all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in state.items())
    ):
        raise EnsembleError(f"`init_weights`: expected weights by name, found none in {path}")
    return {key.removeprefix("module."): value for key, value in state.items()}


# Where training programs keep weights, most wanted first: averaged weights score better than the last ones, and a
# self-supervised teacher is what its authors publish.
_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "teacher")
_LAST = ("weights", "state_dict", "model", "model_state_dict", "net", "student", "module", "shadow")


def _weights_inside(path: Path, state: Any) -> Any:
    """Return the weights of a file that holds them under a name; log which were chosen if there are several."""
    while not _are_weights(state):
        inside = _places_of_weights(state)
        if not inside:
            return state
        if len(inside) > 1:
            logger.info(f"{path}: the weights under '{inside[0]}' are used, not those under {_quoted(inside[1:])}")
        state = state[inside[0]]
    # The counter of torch's AveragedModel lies beside the names of its model.
    return {name: value for name, value in state.items() if name != "n_averaged"}


def _are_weights(value: Any) -> bool:
    import torch

    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(key, str) and isinstance(one, torch.Tensor) for key, one in value.items())
    )


def _places_of_weights(state: Any, depth: int = 3) -> list[str]:
    """Return the names under which a mapping holds weights, most wanted first; some lie in a mapping of a mapping."""
    if not isinstance(state, dict) or not depth:
        return []
    return [
        key
        for key in (*_AVERAGED, *_LAST)
        if _are_weights(state.get(key)) or _places_of_weights(state.get(key), depth - 1)
    ]


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
