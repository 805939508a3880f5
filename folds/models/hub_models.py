"""Read models of timm from repositories of the Hugging Face hub, and from folders with the same files.

A repository holds ``config.json``, which names an architecture of timm and its arguments, and the weights. Only these
two files are read, and neither can run code: the architecture must be one that timm itself has.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from folds.errors import EnsembleError, UsageError
from folds.models.hub import without_waiting
from folds.utils.schema import shown

HUB, FOLDER = "hf_hub:", "local_dir:"
_PREFIXES = {"hf_hub:": HUB, "hf-hub:": HUB, "local_dir:": FOLDER, "local-dir:": FOLDER}
_OF_TIMM = "timm/"
_CONFIG, _WEIGHTS = "config.json", ("model.safetensors", "pytorch_model.bin")
_MOST_BYTES = 1_000_000  # of a config.json
_FORM = "`arch=hf_hub:OWNER/NAME`, with @REVISION for a certain one, or `arch=local_dir:FOLDER`"


@dataclass(frozen=True)
class HubModel:
    """What the files of a repository say of a model.

    Attributes
    ----------
    timm_name : the architecture, a name of timm.
    weights : the file of its weights.
    size : (height, width) of its images in pixels; None for that of the architecture.
    mean, std : of pixels scaled to 0–1; () for those of the architecture.
    arguments : of ``timm.create_model``, not checked.
    """

    timm_name: str
    weights: Path
    size: tuple[int, int] | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)


def names_files(name: str) -> bool:
    """Return whether an architecture is named by its repository or its folder: ``hf_hub:owner/name``."""
    return name.startswith(tuple(_PREFIXES))


def without_owner(name: str) -> str:
    """Return the timm id of a repository of timm itself: ``timm/resnet18.a1_in1k`` → ``resnet18.a1_in1k``.

    timm knows its own repositories, and finds their weights itself. Other names are returned unchanged.
    """
    prefix = next((prefix for prefix, kind in _PREFIXES.items() if kind == HUB and name.startswith(prefix)), "")
    inner = name.removeprefix(prefix)
    return inner.removeprefix(_OF_TIMM) if inner.startswith(_OF_TIMM) and "@" not in inner else name


@lru_cache(maxsize=16)
def read_hub_model(name: str) -> HubModel:
    """Return the model of a repository (``hf_hub:owner/name``) or of a folder (``local_dir:FOLDER``).

    Files of the hub that are in its cache are not fetched again.

    Raises
    ------
    EnsembleError : the hub cannot be reached and its cache lacks a file, or there is no such repository or folder, or
        it does not describe a model of timm.
    """
    prefix = next(prefix for prefix in _PREFIXES if name.startswith(prefix))
    place = name.removeprefix(prefix)
    if _PREFIXES[prefix] == FOLDER:
        config, weights = _in_folder(name, Path(place).expanduser())
    else:
        config, weights = _in_repository(name, place)
    return _described(name, config, weights)


def _in_folder(name: str, folder: Path) -> tuple[Path, Path]:
    if not folder.is_dir():
        raise UsageError(f"architecture {name}: there is no folder {folder}", hint=_FORM)
    weights = next((folder / one for one in _WEIGHTS if (folder / one).is_file()), None)
    missing = _CONFIG if not (folder / _CONFIG).is_file() else _WEIGHTS[0] if weights is None else None
    if missing or weights is None:
        raise EnsembleError(
            f"architecture {name}: {folder / (missing or _CONFIG)} does not exist",
            hint=f"a folder as timm saves a model for the hub: {_CONFIG} and {_WEIGHTS[0]}",
        )
    return folder / _CONFIG, weights


def _in_repository(name: str, place: str) -> tuple[Path, Path]:
    """Return the two files of a repository, from the cache of the hub or fetched."""
    repository, _, revision = place.partition("@")
    owner, slash, rest = repository.partition("/")
    if not (owner and slash and rest) or "/" in rest:
        raise UsageError(f"architecture {name}: expected a repository OWNER/NAME, found {shown(place)}", hint=_FORM)
    without_waiting()
    config = _fetched(name, repository, revision, (_CONFIG,))
    return config, _fetched(name, repository, revision, _WEIGHTS)


def _fetched(name: str, repository: str, revision: str, files: tuple[str, ...]) -> Path:
    """Return the first of some files that a repository has."""
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for file in files:
        try:
            return Path(hf_hub_download(repository, file, revision=revision or None))
        except LocalEntryNotFoundError:  # also an EntryNotFoundError: the cache lacks it, and the hub was not asked
            if file != files[-1]:
                continue
            reached = "the hub is not asked" if constants.HF_HUB_OFFLINE else "the hub cannot be reached"
            raise EnsembleError(
                f"architecture {name}: {reached}, and its cache here has no {files[0]} of {repository}",
                hint=f"`arch={FOLDER}FOLDER` reads a folder with {_CONFIG} and {_WEIGHTS[0]}",
            ) from None
        except EntryNotFoundError:
            continue
        except Exception as error:  # no such repository, a name that is none, no rights, no room on the disk
            reason = " ".join(str(error).split())[:200]
            raise EnsembleError(
                f"architecture {name}: {files[0]} of {repository} could not be downloaded: {reason}", hint=_FORM
            ) from None
    raise EnsembleError(
        f"architecture {name}: {repository} has no {' and no '.join(files)}", hint="a repository of a model of timm"
    )


def _described(name: str, config: Path, weights: Path) -> HubModel:
    """Return what a config.json says, checked."""
    try:
        if config.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it has more than {_MOST_BYTES:,} bytes")
        record = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise EnsembleError(f"architecture {name}: {config} cannot be read: {str(error)[:200]}") from None
    timm_name = record.get("architecture") if isinstance(record, dict) else None
    if not isinstance(timm_name, str):
        raise EnsembleError(
            f"architecture {name}: {config} names no architecture of timm",
            hint="only repositories of models of timm are read; `init_weights=FILE` takes weights of other programs",
        )
    # Older repositories have what is of the weights beside the architecture.
    inner = record.get("pretrained_cfg", record)
    arguments = record.get("model_args") or {}
    if not isinstance(inner, dict) or not isinstance(arguments, dict):
        raise EnsembleError(f"architecture {name}: {config} is damaged: expected tables pretrained_cfg and model_args")
    shape = _numbers(name, config, inner, "input_size")
    if shape and (shape[0] != 3 or not all(8 <= side <= 4096 and side == int(side) for side in shape[1:])):
        raise UsageError(
            f"architecture {name} reads images of {shape[0]:g} channels and {shape[2]:g}×{shape[1]:g} px; expected 3 "
            "channels and 8 to 4096 px",
            hint="gray images are read as three equal channels, by a model of three",
        )
    size = (int(shape[1]), int(shape[2])) if shape else None
    mean, std = _numbers(name, config, inner, "mean"), _numbers(name, config, inner, "std")
    return HubModel(timm_name, weights, size, mean, std if all(value > 0 for value in std) else (), arguments)


def _numbers(name: str, config: Path, record: Mapping[str, Any], key: str) -> tuple[float, ...]:
    """Return three numbers of a config.json; () if it has none."""
    found = record.get(key)
    if found is None:
        return ()
    if not isinstance(found, list) or len(found) != 3 or not all(_is_number(value) for value in found):
        raise EnsembleError(f"architecture {name}: {config}: '{key}' is {shown(found)}, expected three numbers")
    return tuple(float(value) for value in found)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6
