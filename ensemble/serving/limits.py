"""Define the limits of a server: how much one client may send, and how much work may wait."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from folds.errors import UsageError

MIB = 1 << 20
# Request bodies that are held at the same time, as a multiple of the largest allowed one.
BODIES_IN_MEMORY = 4


@dataclass(frozen=True)
class Limits:
    """The limits of a server.

    Attributes
    ----------
    batch : images that are predicted together, at most.
    wait_ms : milliseconds that an image waits for others to be predicted with.
    queue : images that are decoded, waiting or predicted at the same time; further requests get status 503.
    max_images : images per request.
    max_body : MiB per request.
    max_pixels : height × width of the largest image that is decoded.
    timeout : seconds from the last byte of a request to its answer.
    upload_timeout : seconds from the first to the last byte of a request.
    connections : open connections; further ones get status 503 and are closed.

    Raises
    ------
    UsageError : a limit that is not positive, or a request that could never be answered.
    """

    batch: int = 32
    wait_ms: float = 5.0
    queue: int = 256
    max_images: int = 32
    max_body: float = 64.0
    max_pixels: int = 50_000_000
    timeout: float = 30.0
    upload_timeout: float = 30.0
    connections: int = 256

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            whole = field.type == "int"
            numeric = isinstance(value, int) if whole else isinstance(value, int | float)
            least = 0 if field.name == "wait_ms" else 1 if whole else None
            above = value >= least if numeric and least is not None else numeric and value > 0
            if not numeric or isinstance(value, bool) or not math.isfinite(value) or not above:
                kind = "a whole number of 1 or more" if whole else "a number above 0" if least is None else "0 or more"
                raise UsageError(f"`{field.name}={value}`: expected {kind}")
        if self.max_images > self.queue:
            raise UsageError(
                f"`max_images={self.max_images}` is more than `queue={self.queue}`: such a request would always be "
                "refused",
                hint=f"`queue={self.max_images}` or more",
            )

    @property
    def body_bytes(self) -> int:
        """Return the largest body of a request, in bytes."""
        return int(self.max_body * MIB)

    @property
    def memory_bytes(self) -> int:
        """Return the largest total of the bodies that are held at the same time, in bytes."""
        return BODIES_IN_MEMORY * self.body_bytes
