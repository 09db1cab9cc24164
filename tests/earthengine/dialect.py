"""Other ways of saying the same: what the documented API leaves open, and what proxies add.

A `Dialect` rewrites an answer before it is sent. A client that works with each of them leans on nothing but the
documents.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field
from typing import Any

# the same conditions in other words and with other statuses
OTHER_WORDS: dict[str, tuple[int, str]] = {
    "Too Many Requests": (429, "RESOURCE_EXHAUSTED: Quota exceeded for quota metric 'Concurrent requests'."),
    "Too many concurrent aggregations": (400, "Too many concurrent aggregations."),
    "User memory limit exceeded": (500, "Execution failed; out of memory. User memory limit exceeded."),
    "Computation timed out": (503, "Computation timed out."),
    "accumulating over 5000": (500, "Collection query aborted after accumulating over 5000 elements."),
    "payload size exceeds": (413, "Request Entity Too Large"),
    "currently unavailable": (502, "Bad Gateway"),
    "An internal error": (500, ""),
}


@dataclass(frozen=True)
class Dialect:
    """How answers differ from the plain ones.

    Parameters
    ----------
    page : int
        Most features of a page, whatever was asked for; 0: as asked for.
    backwards : bool
        Whether features come in another order.
    zipped : bool
        Whether answers are compressed.
    floats : bool
        Whether whole numbers are written 3.0.
    sparse : bool
        Whether what may be left out is: types, ids, empty lists, metadata.
    long_names : bool
        Whether operations are listed under another parent than they were started under.
    error_form : {"google", "list", "text", "html"}
        What an error's body is.
    words : dict
        Part of a message -> another status and message.
    """

    page: int = 0
    backwards: bool = False
    zipped: bool = False
    floats: bool = False
    sparse: bool = False
    long_names: bool = False
    error_form: str = "google"
    words: dict[str, tuple[int, str]] = field(default_factory=dict)

    def rewrite(self, endpoint: str, status: int, content: bytes, kind: str) -> tuple[int, bytes, str]:
        setup = endpoint in ("discovery", "algorithms", "control")
        if self == Dialect() or setup or "json" not in kind or not status:
            return status, content, kind
        found = json.loads(content)
        if "error" in found and status >= 400:
            return self._error(status, found["error"])
        if "features" in found:
            found = self._features(found)
        if endpoint.startswith(("operations", "table:export")):
            found = self._operation(found, listed=endpoint == "operations")
        if self.floats:
            found = _with_floats(found)
        return status, json.dumps(found).encode(), kind

    def sent(self, content: bytes) -> tuple[bytes, dict[str, str]]:
        return (gzip.compress(content), {"Content-Encoding": "gzip"}) if self.zipped else (content, {})

    def _error(self, status: int, error: dict[str, Any]) -> tuple[int, bytes, str]:
        message = error["message"]
        for part, other in self.words.items():
            if part in message:
                status, message = other
                error = {"code": status, "message": message, "status": "UNKNOWN"}
        if self.error_form == "list":
            return status, json.dumps([{"error": error}]).encode(), "application/json"
        if self.error_form == "text":
            return status, json.dumps({"error": message}).encode(), "application/json"
        if self.error_form == "html":
            page = f"<html><head><title>Error {status}</title></head><body><h1>{message}</h1></body></html>"
            return status, page.encode(), "text/html"
        return status, json.dumps({"error": error}).encode(), "application/json"

    def _features(self, found: dict[str, Any]) -> dict[str, Any]:
        features = found["features"][::-1] if self.backwards else found["features"]
        if self.sparse:
            features = [{"properties": f["properties"]} for f in features]
            found = {k: v for k, v in found.items() if k != "type"}
        found = {**found, "features": features}
        if self.sparse and not features:
            del found["features"]
        return found

    def _operation(self, found: dict[str, Any], *, listed: bool) -> dict[str, Any]:
        for operation in found.get("operations", [found]):
            if self.sparse and "metadata" in operation:
                kept = ("state", "description")
                operation["metadata"] = {k: operation["metadata"][k] for k in kept if k in operation["metadata"]}
            if self.long_names and listed:
                operation["name"] = "projects/earthengine-legacy/operations/" + operation["name"].rpartition("/")[2]
        if self.sparse and not found.get("operations", True):
            del found["operations"]
        return found


def _with_floats(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _with_floats(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_with_floats(v) for v in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


# each way of saying it stands in one of them
DIALECTS: dict[str, Dialect] = {
    "small pages, backwards, compressed, sparse": Dialect(page=7, backwards=True, zipped=True, sparse=True),
    "floats, other words, in lists": Dialect(floats=True, words=OTHER_WORDS, error_form="list", long_names=True),
    "errors as text": Dialect(error_form="text", backwards=True),
    "errors as web pages": Dialect(error_form="html", words=OTHER_WORDS, page=3),
}
