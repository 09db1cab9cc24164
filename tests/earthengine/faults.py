"""Faults on demand: the control object of the local Earth Engine.

Three kinds. *Rules* hold until `clear()`: latency, limits, a poisoned text. *Queued* faults are used up: the next n
requests that match get them. *Random* faults come from a seeded generator. All are thread-safe and can be set from
another process through `POST /control` (a JSON object of attribute names and calls, see `apply`).
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from .errors import DropError, GarbageError, ServiceError

PAYLOAD_LIMIT = 10_485_760  # bytes of a request's body
ELEMENT_LIMIT = 5_000  # elements of a collection answered by value:compute
PIXELS_LIMIT = 50_331_648  # bytes of computePixels, 48 MiB uncompressed
GRID_LIMIT = 32_768  # pixels along one side of computePixels
BAND_LIMIT = 1_024  # bands of computePixels
CONCURRENCY_LIMIT = 40  # requests at once, per project
RATE_LIMIT = 6_000  # requests per minute, per project

RATE_MESSAGE = "Too Many Requests: Request was rejected because the request rate or concurrency limit was exceeded."
MEMORY_MESSAGE = "User memory limit exceeded."
TIMEOUT_MESSAGE = "Computation timed out."
AGGREGATIONS_MESSAGE = "Too many concurrent aggregations."

KINDS: dict[str, tuple[int, str]] = {
    "rate": (429, RATE_MESSAGE),
    "aggregations": (429, AGGREGATIONS_MESSAGE),
    "unavailable": (503, "The service is currently unavailable."),
    "internal": (500, "An internal error has occurred."),
    "memory": (400, MEMORY_MESSAGE),
    "timeout": (400, TIMEOUT_MESSAGE),
    "elements": (400, f"Collection query aborted after accumulating over {ELEMENT_LIMIT} elements."),
}


@dataclass
class Faults:
    """What goes wrong, and when.

    `latency_s` is slept before every API request (not discovery, algorithms or control). `memory_limit` is in
    pixel-bands of one request, times its tileScale; `timeout_limit` in pixel-bands whatever the tileScale.
    """

    latency_s: float = 0.0
    memory_limit: float | None = None
    timeout_limit: float | None = None
    concurrency_limit: int = CONCURRENCY_LIMIT
    rate_limit: int = RATE_LIMIT
    export_seconds: float = 0.0
    export_error: str | None = None
    _queued: deque[tuple[str, str]] = field(default_factory=deque)
    _poison: dict[str, str] = field(default_factory=dict)
    _random: tuple[random.Random, float, tuple[str, ...]] | None = None
    _recent: deque[float] = field(default_factory=deque)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fail_next(self, kind: str, count: int = 1, match: str = "") -> None:
        """Give the next `count` requests whose endpoint contains `match` a fault.

        `kind`: one of KINDS, "drop" (connection closed without an answer), "hang:SECONDS" (silence, then a drop),
        "garbage" (HTTP 200 and a web page) or any other text, which is answered as HTTP 400.
        """
        with self._lock:
            self._queued.extend([(kind, match)] * count)

    def poison(self, text: str, kind: str = "memory") -> None:
        """Give every request whose body contains `text` a fault, for ever: a bad site."""
        with self._lock:
            self._poison[text] = kind

    def fail_randomly(
        self, rate: float, kinds: tuple[str, ...] = ("rate", "unavailable", "drop"), seed: int = 0
    ) -> None:
        """Fail a share of the requests, reproducibly."""
        with self._lock:
            self._random = (random.Random(seed), rate, tuple(kinds))

    def clear(self) -> None:
        """Back to a healthy service."""
        with self._lock:
            fresh = Faults()
            for name in ("latency_s", "memory_limit", "timeout_limit", "concurrency_limit", "rate_limit"):
                setattr(self, name, getattr(fresh, name))
            self.export_seconds, self.export_error = 0.0, None
            self._queued.clear()
            self._poison.clear()
            self._random = None

    def apply(self, orders: dict[str, Any]) -> None:
        """Carry out a JSON object: `{"latency_s": 0.2, "fail_next": [{"kind": "rate", "count": 3}], "clear": true}`."""
        if orders.pop("clear", False):
            self.clear()
        for name, value in orders.items():
            if name in ("fail_next", "poison", "fail_randomly"):
                for arguments in value if isinstance(value, list) else [value]:
                    getattr(self, name)(**arguments)
            elif name.startswith("_") or not hasattr(self, name) or callable(getattr(self, name)):
                raise ServiceError(f"unknown control {name!r}")
            else:
                setattr(self, name, value)

    def admit(self, endpoint: str, body: bytes, at_once: int) -> None:
        """Raise what this request deserves, before anything is computed."""
        if at_once > self.concurrency_limit:
            raise ServiceError(RATE_MESSAGE, 429)
        with self._lock:
            now = time.monotonic()
            self._recent.append(now)
            while self._recent and self._recent[0] < now - 60:
                self._recent.popleft()
            if len(self._recent) > self.rate_limit:
                raise ServiceError(RATE_MESSAGE, 429)
            kind = self._choose(endpoint, body)
        if len(body) > PAYLOAD_LIMIT:
            raise ServiceError(f"Request payload size exceeds the limit: {PAYLOAD_LIMIT} bytes.")
        if kind is not None:
            _raise(kind)

    def charge(self, used: float, scaled: float) -> None:
        """Check what a request has used so far: pixel-bands, and pixel-bands divided by their tileScale."""
        if self.memory_limit is not None and scaled > self.memory_limit:
            raise ServiceError(MEMORY_MESSAGE)
        if self.timeout_limit is not None and used > self.timeout_limit:
            raise ServiceError(TIMEOUT_MESSAGE)

    def _choose(self, endpoint: str, body: bytes) -> str | None:
        for index, (kind, match) in enumerate(self._queued):
            if match in endpoint:
                del self._queued[index]
                return kind
        for text, kind in self._poison.items():
            if text.encode() in body:
                return kind
        if self._random is not None:
            generator, rate, kinds = self._random
            if generator.random() < rate:
                return generator.choice(kinds)
        return None


def _raise(kind: str) -> None:
    if kind == "drop":
        raise DropError
    if kind == "garbage":
        raise GarbageError
    if kind.startswith("hang:"):
        time.sleep(float(kind.partition(":")[2]))
        raise DropError
    http, message = KINDS.get(kind, (400, kind))
    raise ServiceError(message, http)
