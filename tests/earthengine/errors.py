"""What the local Earth Engine answers instead of a value."""

from __future__ import annotations

_STATUS = {
    400: "INVALID_ARGUMENT",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
}


class ServiceError(Exception):
    """An error as the service words it: HTTP status and message."""

    def __init__(self, message: str, http: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.http = http

    def body(self) -> dict:
        status = _STATUS.get(self.http, "INTERNAL")
        return {"error": {"code": self.http, "message": self.message, "status": status}}


class UnimplementedError(ServiceError):
    """Something that the real service knows and this one doesn't: never guessed at."""

    def __init__(self, what: str) -> None:
        super().__init__(f"The local Earth Engine does not implement {what}.", 501)
        self.what = what


class DropError(Exception):
    """Close the connection without an answer."""


class GarbageError(Exception):
    """Answer HTTP 200 with something that is no answer, as a hotel's log-in page does."""
