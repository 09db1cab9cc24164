"""The request log: what came in, how big, how long, how many at once, asking for which functions."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class Entry:
    """One request. `endpoint` is short: "value:compute", "table:computeFeatures", "thumbnails:getPixels", ..."""

    method: str
    path: str
    endpoint: str
    project: str
    started: float
    at_once: int
    ended: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    status: int = 0  # 0: no answer was given
    message: str = ""
    functions: tuple[str, ...] = ()
    pixel_bands: float = 0.0

    @property
    def seconds(self) -> float:
        return self.ended - self.started


class RequestLog:
    """Entries in order of arrival. Set-up requests (discovery, algorithms) and control are kept apart."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._lock = threading.Lock()

    def add(self, entry: Entry) -> None:
        with self._lock:
            self._entries.append(entry)

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()

    def entries(self, endpoint: str = "", *, setup: bool = False) -> list[Entry]:
        """Return requests whose endpoint contains a text; those of initialisation only with `setup`."""
        with self._lock:
            found = list(self._entries)
        return [e for e in found if endpoint in e.endpoint and (setup or e.endpoint not in ("discovery", "algorithms"))]

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries())

    def __len__(self) -> int:
        return len(self.entries())

    @property
    def max_at_once(self) -> int:
        return max((e.at_once for e in self.entries()), default=0)

    @property
    def errors(self) -> list[Entry]:
        return [e for e in self.entries() if not 200 <= e.status < 300]

    def as_json(self) -> list[dict[str, Any]]:
        return [asdict(e) for e in self.entries(setup=True)]
