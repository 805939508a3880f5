"""Run the application: bind the port, load the model, answer until a signal, and end without losing a request."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from PIL import Image

from ensemble.serving.app import make_app
from ensemble.serving.engine import FAILED, Engine
from ensemble.serving.limits import Limits
from ensemble.serving.metrics import Metrics
from ensemble.serving.model import ServedModel
from ensemble.serving.protocol import make_protocol
from folds.errors import EnsembleError, UsageError

logger = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "::1", "localhost")
_BACKLOG = 2048
_GRACE = 5.0  # seconds for the answers that are ready to be sent


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address.

    Raises
    ------
    EnsembleError : the port is in use or needs rights, or the address is not one of this machine.
    """
    if not 0 <= port <= 65535:
        raise UsageError(f"`port={port}`: expected 0 to 65535", hint="`port=0` takes a free one")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a name"
        raise EnsembleError(f"`host={host}`: expected an address of this machine: {reason}", hint=_HOSTS) from None
    family, kind, protocol, _, address = found[0]
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind(address)
        made.listen(_BACKLOG)
    except OSError as error:
        made.close()
        if error.errno == errno.EADDRINUSE:
            raise EnsembleError(
                f"port {port} of {host} is in use by another program",
                hint="name another `port`; `port=0` takes a free one",
            ) from None
        if error.errno == errno.EACCES:
            raise EnsembleError(f"port {port} needs administrator rights", hint="`port=8000`") from None
        reason = os.strerror(error.errno or 0).lower()
        raise EnsembleError(f"`host={host}`: expected an address of this machine: {reason}", hint=_HOSTS) from None
    return made


_HOSTS = "`host=127.0.0.1` for this machine alone, `host=0.0.0.0` for every address"


def allowed_hosts(host: str, more: Collection[str]) -> set[str] | None:
    """Return the names that requests may have in the header Host; None if every name is accepted.

    On a loopback address only its names are: a web page whose name is changed to point to this machine could otherwise
    read the answers.
    """
    if host.lower() not in LOOPBACK:
        return {name.lower() for name in more} or None
    return {*LOOPBACK, *(name.lower() for name in more)}


@dataclass
class Serving:
    """A server that is bound to its port.

    Attributes
    ----------
    socket : the port.
    load : loads the model; called in the thread that uses it.
    hosts : names that are accepted in the header Host.
    url : the address of the server.
    """

    socket: socket.socket
    load: Callable[[], ServedModel]
    limits: Limits = field(default_factory=Limits)
    hosts: Collection[str] | None = None

    def __post_init__(self) -> None:
        host, port = self.socket.getsockname()[:2]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - where it is reached from here
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self.metrics = Metrics()
        self.engine = Engine(self.limits, self.metrics)
        self._app = make_app(self.engine, self.hosts)
        limits = self.limits
        config = uvicorn.Config(
            self._app,  # type: ignore[arg-type]
            http=make_protocol(limits.connections),
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",  # requests are logged by `Gate`
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=int(limits.upload_timeout + limits.timeout + _GRACE),
        )
        self._server = _Server(config)

    def stop(self) -> None:
        """Stop after the requests in flight; a second call gives them up."""
        self._server.force_exit = self._server.should_exit
        self._server.should_exit = True

    def run(self, ready: Callable[[ServedModel], None] = lambda model: None) -> None:
        """Serve until `stop` or, in the main thread, until SIGINT or SIGTERM.

        Parameters
        ----------
        ready : called in another thread once the model is loaded.

        Raises
        ------
        EnsembleError : the model could not be loaded.
        """
        # Two libraries warn of what clients send; the clients get it as errors.
        logging.getLogger("python_multipart").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

        def finished() -> None:
            if self.engine.state == FAILED:
                self._server.should_exit = True
            elif self.engine.model is not None and not self._server.should_exit:
                ready(self.engine.model)

        with self._signals():
            self.engine.start(self.load, finished)
            try:
                self._run_loop()
            finally:
                self.engine.stop()
                self.socket.close()
        if self.engine.error is not None:
            raise self.engine.error

    def _run_loop(self) -> None:
        """Run the server in an event loop: in a thread of its own if this one has a loop, as in a notebook."""

        def run() -> None:
            asyncio.run(self._server.serve([self.socket]))

        try:
            asyncio.get_running_loop()
        except RuntimeError:
            run()
            return
        with ThreadPoolExecutor(1) as pool:
            pool.submit(run).result()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handled = (signal.SIGINT, signal.SIGTERM)
        before = {one: signal.signal(one, lambda *_: self.stop()) for one in handled}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)


class _Server(uvicorn.Server):
    """A server that leaves signals to `Serving`: uvicorn would raise them again at its end."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[Any]:  # type: ignore[override]
        yield
