"""Tell whether a folder holds generated people, by the file that marks it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from folds.errors import EnsembleError
from folds.utils.files import read_json


def is_complete(
    folder: Path, marker: str, expected: Mapping[str, object], what: str, earlier: Mapping[str, object] | None = None
) -> bool:
    """Return whether a folder already holds people with these settings; False for a new, empty or incomplete one.

    Parameters
    ----------
    marker : name of the file with the settings.
    expected : its content; ``complete`` is not compared.
    what : the people, for messages: ``synthetic faces``.
    earlier : settings that folders of earlier versions do not have.

    Raises
    ------
    EnsembleError : the folder holds other files, or people with other settings.
    """
    if not (folder / marker).exists():
        if folder.exists() and not folder.is_dir():
            raise EnsembleError(f"expected a folder for {what}, found the file {folder}", hint="give another name")
        # A process killed before it wrote the marker leaves the lock and a temporary file (".people.*").
        names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
        others = [name for name in names if not name.startswith((".people.", f".{marker}"))]
        if others:
            raise EnsembleError(
                f"expected a new or empty folder for {what}, found {others[0]} in {folder}", hint="give another folder"
            )
        return False
    found = read_json(folder / marker)
    known = {**(earlier or {}), **(found if isinstance(found, dict) else {})}
    different = [
        f"{name}: expected {value}, found {known.get(name)}"
        for name, value in expected.items()
        if name != "complete" and known.get(name) != value
    ]
    if different:
        raise EnsembleError(
            f"{folder} holds {what} with other settings",
            hint="give another folder, or remove this one to generate them again",
            details=different,
        )
    return known.get("complete") is True
