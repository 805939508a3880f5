"""Remember which settings files of a folder may name code, outside of that folder.

`./ensemble.toml` is read because it lies in the folder, which may come from elsewhere (an archive, a repository, a
shared drive). A `transform` in it would import a module of the same folder, so it counts only after the user has
trusted the file once, with ``ensemble trust``. A file that the user names (``-c FILE``) needs no trust.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from folds.config.lookup import key_of
from folds.errors import EnsembleError
from folds.metrics.metric_spec import PARAMETERS
from folds.utils.files import write_atomic
from folds.utils.toml import read_toml

# Settings whose value ``module:object`` is imported, which runs the module. `metric` counts only with a colon.
CODE = ("transform", "metric")


def trusted_file() -> Path:
    """Return the file with the trusted hashes: ``ensemble/trusted`` in the user's configuration folder.

    The folder is ``$XDG_CONFIG_HOME`` if that is an absolute path, otherwise ``~/.config``.

    Raises
    ------
    EnsembleError : the user has no home folder.
    """
    given = Path(os.environ.get("XDG_CONFIG_HOME") or "")
    if given.is_absolute():
        return given / "ensemble" / "trusted"
    try:
        return Path.home() / ".config" / "ensemble" / "trusted"
    except RuntimeError:
        raise EnsembleError(
            "there is no home folder to remember trusted files in", hint="set XDG_CONFIG_HOME to a folder of yours"
        ) from None


def code_in(settings: Any) -> list[str]:
    """Return ``key = value`` for every value in (nested) settings that is imported as code."""
    return list(dict.fromkeys(_code_in(settings)))


def _code_in(settings: Any, key: str = "") -> Iterator[str]:
    if isinstance(settings, dict):
        for name, value in settings.items():
            yield from _code_in(value, key or _code_key(str(name)))
    elif isinstance(settings, list | tuple):
        for value in settings:
            yield from _code_in(value, key)
    elif key and isinstance(settings, str) and ":" in settings and not _has_settings(key, settings):
        yield f"{key} = {settings}"


def _has_settings(key: str, value: str) -> bool:
    """Return whether the colon of a metric begins its settings: such a metric is never imported."""
    return key == "metric" and value.partition(":")[0].strip() in PARAMETERS


def _code_key(name: str) -> str:
    key = key_of(name) or name.replace("-", "_")
    return key if key in CODE else ""


def check_trusted(path: Path, settings: Any) -> None:
    """Raise EnsembleError if a file that was not named by the user names code and is not trusted.

    Parameters
    ----------
    settings : the settings in `path` that would take effect.
    """
    named = code_in(settings)
    if named and not is_trusted(path):
        raise EnsembleError(
            f"{path} names code ({named[0]}), and a file that lies in the folder may not run code until you trust it",
            hint=f"read {path} and the module, then ensemble trust {path}; or name the file: `config={path}`",
        )


def check_file_trusted(path: Path) -> None:
    """Raise EnsembleError if a file that was not named by the user names code and is not trusted."""
    try:
        settings = read_toml(path)
    except (OSError, ValueError):
        return  # its reader reports this
    check_trusted(path, settings)


def is_trusted(path: Path) -> bool:
    """Return whether the user has trusted the file at this place with its present content."""
    try:
        return _identity(path) in _trusted()
    except EnsembleError:  # no home folder: nothing was ever trusted
        return False


def trust(path: Path, remove: bool = False) -> list[str]:
    """Remember (or forget) that a settings file may name code; return the code that it names.

    The hash covers the file's place and content: a copy elsewhere, or an edited file, must be trusted again.

    Raises
    ------
    EnsembleError : the file cannot be read, or the hash cannot be written.
    """
    try:
        named = code_in(read_toml(path))
    except (OSError, ValueError) as error:
        raise EnsembleError(f"{path} cannot be read: {error}") from None
    own, known = _identity(path), _trusted()
    line = f"{own} {str(path.resolve()).encode(errors='replace').decode()!r}"
    lines = [text for identity, text in known.items() if identity != own]
    write_atomic(trusted_file(), "\n".join([*lines, *([] if remove else [line]), ""]))
    with contextlib.suppress(OSError):
        trusted_file().chmod(0o600)
    return named


def _trusted() -> dict[str, str]:
    """Return hash → line of the file of trusted hashes; {} if there is none."""
    try:
        lines = trusted_file().read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    return {line.partition(" ")[0]: line for line in lines if line.strip()}


def _identity(path: Path) -> str:
    """Return the hash of a file's place and content; raise EnsembleError if it cannot be read."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise EnsembleError(f"cannot read {path}: {os.strerror(error.errno or 0).lower()}") from None
    return hashlib.sha256(os.fsencode(path.resolve()) + b"\0" + content).hexdigest()
