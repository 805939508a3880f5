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


def load_object(name: str, option: str, example: str) -> tuple[ModuleType, Any]:
    """Return the module and the object of that name, the module looked for in the current folder first, as `python -m`
    does.

    Importing a module runs it: only for a name that the user gave, never for one that was read from a file of results.

    Parameters
    ----------
    option : what it was given with, for the errors: ``--transform``.
    example : the hint of the errors.

    Raises
    ------
    UsageError : the module or the object is not there, or cannot be imported.
    """
    module_name, _, path = name.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), *path.split("."))):
        raise UsageError(f"{option} {name}: expected MODULE:OBJECT", hint=example)
    module = _imported(name, module_name, option, example)
    found: Any = module
    for part in path.split("."):
        if not hasattr(found, part):
            close = close_matches(part, [other for other in vars(module) if not other.startswith("_")])
            meant = f"; did you mean {' or '.join(close)}?" if close else ""
            raise UsageError(
                f"{option} {name}: {getattr(module, '__file__', module_name)} has no '{path}'{meant}", hint=example
            )
        found = getattr(found, part)
    return module, found


def _imported(name: str, module: str, option: str, example: str) -> ModuleType:
    with _current_folder_first():
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
                raise UsageError(
                    f"{option} {name}: there is no module {error.name}, neither in {Path.cwd()} nor installed",
                    hint=example,
                ) from None
            raise UsageError(
                f"{option} {name}: {module} needs {error.name}, which is not installed",
                hint=f"pip install {error.name}",
            ) from error
        except Exception as error:
            raise UsageError(
                f"{option} {name}: importing {module} failed: {type(error).__name__}: {error}",
                hint=f"try it alone: python -c 'import {module}'",
            ) from error


@contextlib.contextmanager
def _current_folder_first() -> Iterator[None]:
    """For this import only: a file here may have the name of a module that is imported later, and must not take its
    place.
    """
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(folder)
