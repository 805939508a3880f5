"""Define the errors that a client gets as JSON: what was expected, what was found, how to mend it."""

from __future__ import annotations

from typing import Any


class ServingError(Exception):
    """A request, or one image of it, that cannot be answered.

    Parameters
    ----------
    status : HTTP status of the answer if nothing else can be answered.
    kind : short name, the same for the same cause; `/metrics` counts by it.
    message : what was expected and what was found.
    hint : how to mend it.
    retry_after : seconds after which the same request may succeed.
    """

    def __init__(
        self, status: int, kind: str, message: str, hint: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.message, self.hint, self.retry_after = status, kind, message, hint, retry_after

    def to_dict(self) -> dict[str, Any]:
        """Return the error as JSON shows it; what is no Unicode, which a client can write as JSON, becomes ``?``."""
        message = self.message.encode("utf-8", "replace").decode("utf-8")
        return {"kind": self.kind, "message": message, "hint": self.hint}


# Every kind, so that the documentation and `/metrics` list all of them.
KINDS = {
    "bad_request": "the request is not valid HTTP, JSON or multipart",
    "not_allowed": "the request comes from a web page of another site, or names another host",
    "not_found": "there is no such path",
    "method": "the path has another method",
    "slow_upload": "the body did not arrive in time",
    "too_large": "a body, a number of images or an image is over a limit",
    "content_type": "neither multipart/form-data nor application/json",
    "invalid": "a field is missing, unknown or of another type",
    "unreadable": "a file is not an image, or is damaged",
    "busy": "too much work is waiting",
    "not_ready": "the model is being loaded, or could not be loaded",
    "timeout": "the answer was not ready in time",
    "model": "the model failed on an image",
    "internal": "a fault of the server",
    "disconnected": "the client closed the connection before the answer",
}
