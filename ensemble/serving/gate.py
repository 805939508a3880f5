"""Wrap the application: check where a request comes from, add security headers, count it, and log it in one line.

The log has the path of a known page or ``other``, never what the client wrote: a path can contain a name.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from ensemble.serving.errors import ServingError
from ensemble.serving.metrics import Metrics
from ensemble.serving.pages import NO_CONTENT_POLICY

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

logger = logging.getLogger(__name__)

_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"cache-control": b"no-store",
    b"content-security-policy": NO_CONTENT_POLICY.encode(),
}
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class Gate:
    """An ASGI application around another one.

    Parameters
    ----------
    paths : paths that are counted and logged by name.
    hosts : names of this server that are accepted in the header Host, in lower case; None accepts every name.
    """

    def __init__(
        self, application: Application, metrics: Metrics, paths: Collection[str], hosts: Collection[str] | None
    ) -> None:
        self.application, self.metrics, self.paths, self.hosts = application, metrics, paths, hosts

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request; other events of the server are passed to the application."""
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return
        start, status = time.monotonic(), 0
        scope.setdefault("state", {})["facts"] = facts = {}

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = {name.lower() for name, _ in message.get("headers", ())}
                extra = [(name, value) for name, value in _HEADERS.items() if name not in given]
                message = {**message, "headers": [*message.get("headers", ()), *extra]}
            await send(message)

        try:
            refused = self._refusal(scope)
            if refused is not None:
                facts["error"] = refused.kind
                await send_error(refused, answer)
            else:
                await self.application(scope, receive, answer)
        except asyncio.CancelledError:  # the operator stops the server without waiting
            facts["error"] = "not_ready"
            if not status:
                await send_error(
                    ServingError(503, "not_ready", "the server was stopped", "send it again later"), answer
                )
        except Exception:
            logger.exception("a request could not be answered because of a fault of the server")
            facts["error"] = "internal"
            if not status:
                fault = ServingError(500, "internal", "the server has a fault", "see the log of the server")
                await send_error(fault, answer)
        finally:
            self._record(scope, status, facts, time.monotonic() - start)

    def _record(self, scope: Message, status: int, facts: dict[str, Any], seconds: float) -> None:
        path = scope["path"] if scope["path"] in self.paths else "other"
        method = scope["method"] if scope["method"] in _METHODS else "other"
        status = facts.pop("status", status)
        self.metrics.request(path, status)
        if "error" in facts:
            self.metrics.error(facts["error"])
        parts = [f"{name}={value}" for name, value in facts.items()]
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with contextlib.suppress(OSError):  # nothing reads the log any more; the answer is sent all the same
            logger.info("%s", " ".join([moment, method, path, str(status), *parts, f"ms={1000 * seconds:.1f}"]))

    def _refusal(self, scope: Message) -> ServingError | None:
        headers = {name.lower(): value.decode("latin-1").strip().lower() for name, value in scope["headers"]}
        if self.hosts is not None:
            host = headers.get(b"host", "")
            name = host.rpartition(":")[0] if ":" in host.rpartition("]")[2] else host
            if name.strip("[]") not in self.hosts:
                return ServingError(
                    421,
                    "not_allowed",
                    "the header Host does not name this server",
                    hint="use http://127.0.0.1, or start the server with --allow-host NAME",
                )
        if scope["method"] not in ("GET", "HEAD") and headers.get(b"sec-fetch-site") in ("cross-site", "same-site"):
            return ServingError(
                403,
                "not_allowed",
                "the request comes from a web page of another site",
                hint="call the server from a program, or from its own page",
            )
        return None


async def send_error(error: ServingError, send: Send) -> None:
    """Send an error as JSON; the connection is closed, because the body of the request may not have been read."""
    body = json.dumps({"error": error.to_dict()}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers.append((b"connection", b"close"))
    if error.retry_after is not None:
        headers.append((b"retry-after", str(error.retry_after).encode()))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
