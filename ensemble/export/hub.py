"""Upload exported models to the Hugging Face Hub, and load them from there, through ``huggingface_hub``."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ensemble.export.predictor import DEVICE, Predictor, load
from ensemble.model_files.container import CARD, COEFFICIENTS, EXPECTED, ONNX, RECORD, WEIGHTS, is_part, open_parts
from ensemble.model_files.reading import read_model
from folds.errors import EnsembleError, UsageError, printable
from folds.models.hub import can_connect
from folds.utils.arguments import FLAG, NAME, PATH, check_arguments
from folds.utils.files import make_folder, remove
from folds.utils.schema import optional

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9][\w./-]{0,120}", re.ASCII)
PATTERNS = (RECORD, CARD, EXPECTED, ONNX, COEFFICIENTS, f"{WEIGHTS}/*.safetensors")
MAX_BYTES = 64 << 30


@dataclass(frozen=True)
class Pushed:
    """Where a model was uploaded to: repository, revision (a commit) and URL."""

    repository: str
    revision: str
    url: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for ``--json``."""
        return dict(vars(self))


def push(model: str | Path, repository: str, *, public: bool = False, message: str | None = None) -> Pushed:
    """Upload an exported model to the Hugging Face Hub; it is checked first, as `load` checks it.

    Parameters
    ----------
    model : a folder or a ``.zip`` that `export` wrote.
    repository : ``owner/name``; created if it does not exist.
    public : whether a new repository is public.
    message : message of the commit; default: the name of the model.

    Raises
    ------
    EnsembleError : it is not a model, the hub cannot be reached within 5 s, or refuses the upload.

    Examples
    --------
    >>> import ensemble as en
    >>> en.push("/nowhere/model", "owner/name")
    Traceback (most recent call last):
    ...
    folds.errors.EnsembleError: there is no model /nowhere/model
    """
    kinds = {"model": PATH, "repository": NAME, "public": FLAG, "message": optional(NAME)}
    check_arguments(locals(), kinds)
    _check_names(repository, None)
    stored = read_model(Path(model))
    hub = _library()
    with _explained(repository):
        api = hub.HfApi()
        api.create_repo(repository, private=not public, exist_ok=True, repo_type="model")
        with _as_folder(Path(model)) as folder:
            made = api.upload_folder(
                repo_id=repository,
                folder_path=str(folder),
                allow_patterns=list(PATTERNS),
                delete_patterns=[f"{WEIGHTS}/*", ONNX],  # of an earlier model
                commit_message=message or f"Upload {stored.record.name}",
                repo_type="model",
            )
    return Pushed(repository, str(getattr(made, "oid", "")), f"{hub.constants.ENDPOINT}/{repository}")


def from_hub(
    repository: str,
    revision: str | None = None,
    *,
    device: str | int = "auto",
    verify: bool = True,
    cache: str | Path | None = None,
) -> Predictor:
    """Load an exported model from the Hugging Face Hub; it passes the same checks as a local one (`load`).

    Only files with the names of parts of a model are downloaded. A revision that was downloaded before is loaded
    without the network, if it is the hash of a commit.

    Parameters
    ----------
    repository : ``owner/name``.
    revision : a branch, a tag or the hash of a commit; default: the newest. Give a hash for a model that cannot change.
    device, verify : see `load`.
    cache : folder of downloaded models; default: ``ensemble/hub`` in the user's cache.

    Raises
    ------
    EnsembleError : there is no such model, the hub cannot be reached within 5 s, or a check fails.

    Examples
    --------
    >>> import ensemble as en
    >>> en.from_hub("https://huggingface.co/owner/name")
    Traceback (most recent call last):
    ...
    folds.errors.UsageError: repository must be owner/name, found 'https://huggingface.co/owner/name'
    """
    kinds = {"repository": NAME, "revision": optional(NAME), "device": DEVICE, "verify": FLAG, "cache": optional(PATH)}
    check_arguments(locals(), kinds)
    _check_names(repository, revision)
    base = _cache() if cache is None else Path(cache)
    base = base / repository.replace("/", "--")
    if revision is not None and re.fullmatch("[0-9a-f]{40}", revision) and (base / revision).is_dir():
        return load(base / revision, device, verify)
    hub = _library()
    with _explained(repository):
        info = hub.HfApi().model_info(repository, revision=revision, files_metadata=True)
        commit = str(info.sha)
        folder = base / commit
        if not re.fullmatch("[0-9a-f]{40}", commit):
            raise EnsembleError(f"the hub states no commit of {repository}", hint="try again later")
        if not folder.is_dir():
            _download(hub, repository, commit, info, folder)
    return load(folder, device, verify)


def _download(hub: Any, repository: str, commit: str, info: Any, folder: Path) -> None:
    """Download the parts of a model into a new folder, complete or not at all."""
    listed = {one.rfilename: one.size or 0 for one in info.siblings if is_part(one.rfilename)}
    if RECORD not in listed:
        raise EnsembleError(
            f"{repository} on the hub is not an exported model: it has no {RECORD}", hint="ensemble push uploads models"
        )
    if sum(listed.values()) > MAX_BYTES:
        raise EnsembleError(f"{repository} has more than {MAX_BYTES >> 30} GiB, which are not downloaded")
    make_folder(folder.parent)
    temporary = folder.with_name(f".{commit}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        for name in sorted(listed):
            hub.hf_hub_download(repository, name, revision=commit, local_dir=str(temporary))
        remove(temporary / ".cache")  # the library's notes
        with open_parts(temporary):
            pass  # only known names, no links
        temporary.rename(folder)
    except OSError:
        if not folder.is_dir():  # another process may have downloaded it meanwhile
            raise
    finally:
        remove(temporary)


def _check_names(repository: str, revision: str | None) -> None:
    if not _REPOSITORY.fullmatch(repository) or ".." in repository:
        raise UsageError(f"`repository` must be owner/name, found {repository!r}", hint="for example ann/masks")
    if revision is not None and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise UsageError(f"`revision` must be a branch, a tag or a commit, found {revision!r}")


def _library() -> Any:
    """Return the module huggingface_hub, if its server can be reached.

    Raises
    ------
    EnsembleError : it is not installed, or there is no connection within some seconds.
    """
    try:
        import huggingface_hub as hub
    except ImportError:
        raise EnsembleError(
            "the hub needs huggingface_hub, which is not installed", hint="pip install 'ensemble-folds[hub]'"
        ) from None
    if hub.constants.HF_HUB_OFFLINE or not can_connect(hub.constants.ENDPOINT):
        raise EnsembleError(
            f"the hub ({hub.constants.ENDPOINT}) cannot be reached",
            hint="without a network, copy the folder of the model and use ensemble.load(folder)",
        )
    return hub


@contextlib.contextmanager
def _explained(repository: str) -> Iterator[None]:
    """Turn an error of the hub's library into one line."""
    try:
        yield
    except EnsembleError:
        raise
    except Exception as error:  # it raises those of its HTTP library as well
        name = type(error).__name__
        reason = printable(" ".join(str(error).split()))[:200]
        hint = "hf auth login; the account must have access" if "401" in reason or "403" in reason else None
        if name in ("RepositoryNotFoundError", "RevisionNotFoundError", "GatedRepoError"):
            hint = "check the name; a private repository needs: hf auth login"
        raise EnsembleError(f"the hub refused {repository}: {name}: {reason}", hint=hint) from None


@contextlib.contextmanager
def _as_folder(model: Path) -> Iterator[Path]:
    """Yield a folder with the parts of a model; those of an archive are unpacked for the moment."""
    if model.is_dir():
        yield model
        return
    with tempfile.TemporaryDirectory() as folder, open_parts(model) as parts:
        (Path(folder) / WEIGHTS).mkdir()
        for name in parts.sizes:
            (Path(folder) / name).write_bytes(parts.read(name))
        yield Path(folder)


def _cache() -> Path:
    """Return the folder of downloaded models."""
    own = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(own) if own and Path(own).is_absolute() else Path.home() / ".cache") / "ensemble" / "hub"
