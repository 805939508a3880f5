"""`ensemble.serve`: answer HTTP requests with an exported model, a checkpoint, a run or a blend."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ensemble.serving.limits import Limits
from folds.errors import EnsembleError
from folds.utils.arguments import NAME, PATH, check_arguments, whole
from folds.utils.schema import either, named

if TYPE_CHECKING:
    from ensemble.serving.model import ServedModel
    from ensemble.serving.server import Serving

logger = logging.getLogger(__name__)

NEEDED = {"fastapi": "fastapi", "uvicorn": "uvicorn", "python_multipart": "python-multipart"}
_KINDS = {
    "what": PATH,
    "host": NAME,
    "port": whole(0),
    "root": PATH,
    "device": named(either(NAME, whole(0)), "auto, cpu, or the number of a GPU"),
}


def require_packages() -> None:
    """Raise EnsembleError if a package of the extra ``serve`` is not installed."""
    missing = [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise EnsembleError(
            f"serving needs {' and '.join(missing)}, which {'are' if len(missing) > 1 else 'is'} not installed",
            hint="pip install 'ensemble-folds[serve]'",
        )


def open_server(
    what: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    device: str | int = "auto",
    allow_hosts: Sequence[str] = (),
    limits: Limits | None = None,
    root: str | Path = ".",
) -> Serving:
    """Return a server that is bound to its port and loads the model when it runs; arguments as for `serve`.

    Raises
    ------
    EnsembleError : a package of the extra ``serve`` is missing, or the port cannot be used.
    """
    require_packages()
    from ensemble.serving.load import open_model
    from ensemble.serving.server import LOOPBACK, Serving, allowed_hosts, bind

    def load() -> ServedModel:
        return open_model(what, str(device), Path(root))

    limits = limits or Limits()
    opened = Serving(bind(host, port), load, limits, allowed_hosts(host, allow_hosts))
    if host.lower() not in LOOPBACK:
        logger.warning(
            "everyone who reaches this address can use the model: there is no password and no encryption (put a "
            "reverse proxy in front of it, or use `host=127.0.0.1`)"
        )
    return opened


def serve(
    what: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    device: str | int = "auto",
    allow_hosts: Sequence[str] = (),
    limits: Limits | None = None,
    root: str | Path = ".",
    ready: Callable[[str, ServedModel], None] | None = None,
) -> None:
    """Answer HTTP requests with a model until SIGINT or SIGTERM.

    ``POST /predict`` takes images, of a model for people ``/predict-person`` all images of one person, ``/`` is a page
    to drop images on, ``/docs`` describes the interface, ``/health`` and ``/metrics`` are for the operator. Requests in
    flight are answered before the function returns.

    Parameters
    ----------
    what : an exported model (folder or ``.zip``), a checkpoint, or the name of a run or of a blend.
    host : address to listen on; the default is reached from this machine alone.
    port : 0 takes a free one.
    device : ``auto``, ``cpu``, or the number of a GPU.
    allow_hosts : further names that requests may have in the header Host, e.g. behind a proxy.
    limits : what one client may send, and how much may wait.
    root : the folder that holds ``runs/`` and ``checkpoints/``.
    ready : called with the URL and the model once it is loaded.

    Raises
    ------
    EnsembleError : a package of the extra ``serve`` is missing, the port cannot be used, or the model not be loaded.

    Examples
    --------
    >>> import ensemble as en
    >>> en.serve("model/", host="127.0.0.1", port=70000)
    Traceback (most recent call last):
    ...
    folds.errors.UsageError: port=70000: expected 0 to 65535
    """
    check_arguments(locals(), _KINDS)
    opened = open_server(what, host=host, port=port, device=device, allow_hosts=allow_hosts, limits=limits, root=root)

    def loaded(model: ServedModel) -> None:
        if ready is None:
            logger.info("%s answers at %s", model.name, opened.url)
        else:
            ready(opened.url, model)

    opened.run(loaded)
