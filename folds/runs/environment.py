"""Compare the versions and the kind of machine with those that a run was started with."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from folds.errors import EnsembleError
from folds.training.versions import environment as environment
from folds.utils.files import read_json

# The saved folds matter, not the version that made them.
_NOT_OF_TRAINING = {"scikit-learn"}


def version_warnings(folders: Iterable[Path], now: dict[str, str], on_gpu: bool) -> list[str]:
    """Return one line per difference between `now` and the environment in which the runs in `folders` were started.

    Versions that a record does not name are not compared, and neither are runs without a record.

    Parameters
    ----------
    on_gpu : whether the runs are trained on a GPU, so that the kind of GPU is compared.
    """
    found: dict[str, list[str]] = {}
    for folder in folders:
        text = _difference(folder / "environment.json", now, on_gpu)
        if text:
            found.setdefault(text, []).append(folder.name)
    return [f"{', '.join(names)}: {text}; results may differ in the last bits" for text, names in found.items()]


def _difference(path: Path, now: dict[str, str], on_gpu: bool) -> str:
    if not path.is_file():
        return ""
    try:
        recorded = read_json(path)
    except EnsembleError:
        recorded = None
    if not isinstance(recorded, dict):
        return f"{path.name} is damaged, so the versions it was started with are unknown"
    ignored = _NOT_OF_TRAINING if on_gpu else _NOT_OF_TRAINING | {"cuda device", "accelerator"}
    names = [name for name in now if name in recorded and recorded[name] != now[name] and name not in ignored]
    return "started with " + ", ".join(f"{name} {recorded[name]} (now {now[name]})" for name in names) if names else ""
