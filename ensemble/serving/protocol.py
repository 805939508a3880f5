"""Bound what uvicorn leaves unbounded: the number of connections, and the time in which a request must begin."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from ensemble.serving.errors import ServingError

_HEADERS_SECONDS = 10.0


def make_protocol(connections: int, headers_seconds: float = _HEADERS_SECONDS) -> type[H11Protocol]:
    """Return a protocol for ``uvicorn.Config(http=…)``.

    Parameters
    ----------
    connections : further connections get status 503 and are closed.
    headers_seconds : a connection without a complete request head is closed after this time.
    """

    class BoundedProtocol(H11Protocol):
        """HTTP/1.1 with a limit of connections and of the time for the head of a request."""

        _head_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > connections:
                transport.write(_plain_answer(_too_many(connections)))
                transport.close()
                return
            self._head_timer = self.loop.call_later(headers_seconds, self._close)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            waiting = self.cycle is None or self.cycle.response_complete
            if not waiting:
                self._stop_timer()
            elif self._head_timer is None:  # the next head, or a body that was refused and still arrives
                self._head_timer = self.loop.call_later(headers_seconds, self._close)

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:
            failed = ServingError(400, "bad_request", f"expected HTTP/1.1: {msg}")
            self.transport.write(_plain_answer(failed))
            self.transport.close()

        def _stop_timer(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

        def _close(self) -> None:
            self._head_timer = None
            if not self.transport.is_closing():
                failed = ServingError(408, "slow_upload", f"expected a request within {headers_seconds:g} s")
                self.transport.write(_plain_answer(failed))
                self.transport.close()

    return BoundedProtocol


def _too_many(connections: int) -> ServingError:
    return ServingError(
        503,
        "busy",
        f"the server has {connections:,} open connections",
        hint="try again after the seconds in Retry-After",
        retry_after=1,
    )


def _plain_answer(error: ServingError) -> bytes:
    """Return a whole HTTP answer, for a connection without a request."""
    body = json.dumps({"error": error.to_dict()}).encode()
    fields: dict[str, Any] = {"Content-Type": "application/json", "Content-Length": len(body), "Connection": "close"}
    fields |= {} if error.retry_after is None else {"Retry-After": error.retry_after}
    lines = [f"HTTP/1.1 {error.status} {_REASONS[error.status]}", *(f"{key}: {value}" for key, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


_REASONS = {400: "Bad Request", 408: "Request Timeout", 503: "Service Unavailable"}
