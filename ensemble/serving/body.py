"""Read the body of a request within limits of size, time and memory."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

from ensemble.serving.errors import ServingError
from ensemble.serving.gate import Receive
from ensemble.serving.limits import Limits

_DRAIN = 2  # bytes that are read and dropped after a refusal, as a multiple of the limit
_DRAIN_SECONDS = 5.0


class ClientGoneError(Exception):
    """The client closed the connection before its request was complete."""


class MemoryBudget:
    """Bytes of request bodies that may be held at the same time."""

    def __init__(self, size: int) -> None:
        self.size, self.used = size, 0
        self._lock = threading.Lock()

    def take(self, amount: int) -> bool:
        """Reserve some bytes; return False if they do not fit."""
        with self._lock:
            if self.used + amount > self.size:
                return False
            self.used += amount
            return True

    def give(self, amount: int) -> None:
        """Return bytes that were reserved."""
        with self._lock:
            self.used -= amount


class Body:
    """The body of one request, held within a budget.

    Parameters
    ----------
    declared : content of the header Content-Length.
    waits : whether the client waits for permission to send (``Expect: 100-continue``); then nothing is drained.

    Attributes
    ----------
    complete : whether the last byte was read.
    """

    def __init__(
        self, receive: Receive, limits: Limits, budget: MemoryBudget, declared: str | None, waits: bool
    ) -> None:
        self.receive, self.limits, self.budget, self.waits = receive, limits, budget, waits
        self.declared = int(declared) if declared is not None and declared.isdecimal() else None
        self.held = 0
        self._read = 0
        self.complete = False
        self._slow = False

    async def read(self) -> bytes:
        """Return the bytes.

        Raises
        ------
        ServingError : too large, too slow, or no memory for it at present.
        ClientGoneError : the client closed the connection.
        """
        if self.declared is not None and self.declared > self.limits.body_bytes:
            raise self._too_large(f"{self.declared:,}")
        if self.declared is not None and self.budget.used + self.declared > self.budget.size:
            raise _no_memory()
        chunks = []
        try:
            async with asyncio.timeout(self.limits.upload_timeout):
                async for chunk in self._chunks():
                    if self.held + len(chunk) > self.limits.body_bytes:
                        raise self._too_large("more")
                    if not self.budget.take(len(chunk)):
                        raise _no_memory()
                    self.held += len(chunk)
                    chunks.append(chunk)
        except TimeoutError:
            self._slow = True
            raise ServingError(
                408,
                "slow_upload",
                f"expected the whole request within {self.limits.upload_timeout:g} s, found {self._read:,} bytes",
                hint="send fewer images per request, or start the server with a larger --upload-timeout",
            ) from None
        return b"".join(chunks)

    def release(self) -> None:
        """Return the memory to the budget."""
        self.budget.give(self.held)
        self.held = 0

    async def drain(self) -> None:
        """Drop the rest of a body that is refused, within limits: many clients read no answer before all is sent."""
        if self.waits or self._slow or self.complete:
            return
        try:
            async with asyncio.timeout(min(_DRAIN_SECONDS, self.limits.upload_timeout)):
                async for _ in self._chunks():
                    if self._read > _DRAIN * self.limits.body_bytes:
                        return
        except (TimeoutError, ClientGoneError):
            return

    async def _chunks(self) -> AsyncIterator[bytes]:
        while not self.complete:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            chunk = message.get("body", b"")
            self.complete = not message.get("more_body", False)
            self._read += len(chunk)
            yield chunk

    def _too_large(self, found: str) -> ServingError:
        return ServingError(
            413,
            "too_large",
            f"expected at most {self.limits.body_bytes:,} bytes per request, found {found}",
            hint="send fewer or smaller images per request, or start the server with a larger --max-body",
        )


def _no_memory() -> ServingError:
    return ServingError(
        503,
        "busy",
        "the server holds as many bytes of other requests as it may",
        hint="send it again after the seconds in Retry-After",
        retry_after=1,
    )
