"""Read the weights of a checkpoint when they are needed, so that many checkpoints can be open at once."""

from __future__ import annotations

import threading
from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from pathlib import Path
from typing import TYPE_CHECKING

from folds.errors import EnsembleError
from folds.models.archive import load_archive
from folds.utils.files import sha256_file

if TYPE_CHECKING:
    import torch

_MOST_BYTES = 256 << 20  # weights that stay in memory; those of the last checkpoint stay in any case

_lock = threading.Lock()
_recent: dict[tuple[Path, str], Mapping[str, torch.Tensor]] = {}


class StoredWeights(Mapping[str, "torch.Tensor"]):
    """The weights of a checkpoint file that was read and checked before; they are read again on use.

    Parameters
    ----------
    path, sha : the file, and the SHA-256 that it must still have.
    weights : its weights.
    """

    def __init__(self, path: Path, sha: str, weights: Mapping[str, torch.Tensor]) -> None:
        self.path, self.sha = path, sha
        self.names = tuple(weights)
        self.nbytes = sum(value.nbytes for value in weights.values())
        with _lock:
            _remember((path, sha), weights)

    def _weights(self) -> Mapping[str, torch.Tensor]:
        """Return the weights.

        Raises
        ------
        EnsembleError : the file was changed since it was read first.
        """
        key = (self.path, self.sha)
        with _lock:
            if key not in _recent:
                if not self.path.is_file() or sha256_file(self.path) != self.sha:
                    raise EnsembleError(
                        f"{self.path} was changed or removed while it was in use", hint="run the same command again"
                    )
                _remember(key, load_archive(self.path)["weights"])
            return _recent[key]

    def __getitem__(self, name: str) -> torch.Tensor:
        """Return one weight."""
        return self._weights()[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, without reading the file."""
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def items(self) -> ItemsView[str, torch.Tensor]:
        """Return (name, weight) pairs; the file is read once."""
        return self._weights().items()

    def values(self) -> ValuesView[torch.Tensor]:
        """Return the weights; the file is read once."""
        return self._weights().values()


def _remember(key: tuple[Path, str], weights: Mapping[str, torch.Tensor]) -> None:
    _recent.pop(key, None)
    _recent[key] = weights
    total = sum(value.nbytes for kept in _recent.values() for value in kept.values())
    while total > _MOST_BYTES and len(_recent) > 1:
        oldest = next(iter(_recent))
        total -= sum(value.nbytes for value in _recent.pop(oldest).values())
