"""Find out quickly whether the hub of pretrained weights can be reached, so that no one waits for its retries."""

from __future__ import annotations

import logging
import socket
import threading
import urllib.request
from urllib.parse import urlsplit

logger = logging.getLogger(__name__)

SECONDS = 3.0  # for the name and the connection; the hub's library would try for about 50
_reachable: bool | None = None  # of this process; a network that comes back is found by the next command


def without_waiting() -> None:
    """Let the hub's library use only its cache if the hub cannot be reached; weights that it lacks fail at once."""
    global _reachable
    try:
        from huggingface_hub import constants
    except ImportError:
        return
    if constants.HF_HUB_OFFLINE or _reachable:
        return
    if _reachable is None:
        _reachable = can_connect(constants.ENDPOINT)
    if not _reachable:
        logger.warning("the hub of pretrained weights cannot be reached; only weights that it has stored here are used")
        constants.HF_HUB_OFFLINE = True


def can_connect(address: str, seconds: float = SECONDS) -> bool:
    """Return whether the host of a URL, or the proxy for it, accepts a connection within some seconds."""
    parts = urlsplit(address)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and parts.hostname and not urllib.request.proxy_bypass(parts.hostname):
        parts = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    host, port = parts.hostname, parts.port or (80 if parts.scheme == "http" else 443)
    connected = threading.Event()

    def connect() -> None:
        try:
            socket.create_connection((host or "", port), timeout=seconds).close()
        except OSError:
            return
        connected.set()

    # In a thread, because looking up a name has no timeout.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(seconds)
    return connected.is_set()
