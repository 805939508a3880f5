"""Load an object of the user's own code, named ``module:object``."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from folds.errors import UsageError, close_matches
from folds.utils.files import sha256_file

_imported_files: dict[str, str] = {}  # module → SHA-256 of its file when it was imported here


def load_object(name: str, option: str, example: str) -> tuple[ModuleType, Any]:
    """Return the module and the object of a name ``module:object``.

    The current folder is searched first, as in `python -m`. A module whose file has changed since the last call is
    imported anew, so that a notebook never uses the version before; modules that it imports are not.

    Importing a module runs it, so use this only for a name that the user gave, never for one read from a file of
    results.

    Parameters
    ----------
    option : the parameter that named it, for the errors: ``transform``.
    example : the hint of the errors.

    Raises
    ------
    UsageError : the module or the object does not exist or cannot be imported.
    """
    module_name, _, path = name.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), *path.split("."))):
        raise UsageError(f"`{option}={name}`: expected MODULE:OBJECT", hint=example)
    module = _imported(name, module_name, option, example)
    found: Any = module
    for part in path.split("."):
        if not hasattr(found, part):
            close = close_matches(part, [other for other in vars(module) if not other.startswith("_")])
            suggestion = f"; did you mean {' or '.join(close)}?" if close else ""
            raise UsageError(
                f"`{option}={name}`: {getattr(module, '__file__', module_name)} has no '{path}'{suggestion}",
                hint=example,
            )
        found = getattr(found, part)
    return module, found


def _imported(name: str, module: str, option: str, example: str) -> ModuleType:
    with _current_folder_first(), _not_compiled_to_files():
        try:
            return _of_its_file(module)
        except ModuleNotFoundError as error:
            if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
                raise UsageError(
                    f"`{option}={name}`: there is no module {error.name}, neither in {Path.cwd()} nor installed",
                    hint=example,
                ) from None
            raise UsageError(
                f"`{option}={name}`: {module} needs {error.name}, which is not installed",
                hint=f"pip install {error.name}",
            ) from error
        except Exception as error:
            raise UsageError(
                f"`{option}={name}`: importing {module} failed: {type(error).__name__}: {error}",
                hint=f"test the import: python -c 'import {module}'",
            ) from error


def _of_its_file(module: str) -> ModuleType:
    """Import a module, or return it; import it anew if its file has changed since this was called before."""
    found = sys.modules.get(module)
    if found is None:
        found = importlib.import_module(module)
    elif _imported_files.get(module) not in (None, _sha(found)):
        found = importlib.reload(found)
    _imported_files[module] = _sha(found)
    return found


def _sha(module: ModuleType) -> str:
    """Return the SHA-256 of a module's file; empty if it has none."""
    file = getattr(module, "__file__", None)
    return sha256_file(Path(file)) if file and Path(file).is_file() else ""


@contextlib.contextmanager
def _not_compiled_to_files() -> Iterator[None]:
    """Keep Python from storing compiled modules during an import.

    Python takes a stored one for current if the source has the same size and the same second, which is not so for a
    file that a notebook or a script has just written twice.
    """
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


@contextlib.contextmanager
def _current_folder_first() -> Iterator[None]:
    """Put the current folder first on the path during one import only: its files must not shadow modules that are
    imported later.
    """
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(folder)
