"""A file far away as a Python file, so that readers of Parquet, CSV and GeoPackage needn't know."""

from __future__ import annotations

import bisect
import io
import time
from collections.abc import Sequence
from typing import Any, Final

from gee_polygons.errors import ReadError
from gee_polygons.sources._fetch import NETWORK, Failed, Network, Want, fetch, stream
from gee_polygons.sources._store import first_line, locate

__all__ = ["RemoteFile"]

_CHUNK: Final = 4 * 2**20  # of a whole file: so many bytes a request
_TAIL: Final = 64 * 2**10  # Parquet's footer is read from the end


class RemoteFile(io.RawIOBase):
    """A read-only file at a URL.

    What was read ahead with `preload` costs no further request.

    Parameters
    ----------
    place : str
        URL.
    network : Network
        How hard to try.

    Raises
    ------
    ReadError
        If it can't be opened.
    """

    def __init__(self, place: str, network: Network = NETWORK) -> None:
        self._place, self._network = place, network
        self.size = _size(place, network)
        self._at = 0
        self._starts: list[int] = []
        self._held: list[tuple[int, Any]] = []

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; no request is made."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        """Read bytes; all that is left by default."""
        stop = self.size if size is None or size < 0 else min(self.size, self._at + size)
        length = max(0, stop - self._at)
        data = self._find(self._at, length) if length else b""
        if data is None:
            if length > _CHUNK:
                self.preload([(first, min(_CHUNK, stop - first)) for first in range(self._at, stop, _CHUNK)])
                parts = [self._find(first, min(_CHUNK, stop - first)) for first in range(self._at, stop, _CHUNK)]
                data = b"".join(part for part in parts if part is not None)
            else:
                # a read near the end is followed by others there
                first = min(self._at, max(0, self.size - _TAIL)) if stop == self.size else self._at
                self._keep(first, fetch(self._place, first, stop - first, self._network))
                data = self._find(self._at, length)
        assert data is not None
        self._at += length
        return data

    def preload(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Fetch ranges (start, length), many at once."""
        wants = [Want(self._place, [start], [length]) for start, length in ranges if self._find(start, 1) is None]
        for want, answer in zip(wants, stream(wants, self._network), strict=True):
            if isinstance(answer, Failed):
                raise answer.error
            self._keep(want.starts[0], answer[0])

    def _keep(self, start: int, data: Any) -> None:
        place = bisect.bisect(self._starts, start)
        self._starts.insert(place, start)
        self._held.insert(place, (start, memoryview(data)))

    def _find(self, start: int, length: int) -> bytes | None:
        for first, data in self._held[: bisect.bisect(self._starts, start)]:
            if first <= start and start + length <= first + len(data):
                return bytes(data[start - first : start - first + length])
        return None


def _size(place: str, network: Network) -> int:
    """Ask for the size. A HEAD request has no body to break off, but may fail as others do."""
    import obstore

    store, path = locate(place, network.timeout_s)
    for attempt in range(1, network.attempts + 1):
        try:
            return int(obstore.head(store, path)["size"])
        except FileNotFoundError as error:
            raise ReadError(f"{place}: can't be read: there is no such file", url=place) from error
        except (OSError, obstore.exceptions.BaseError) as error:
            permanent = isinstance(
                error, obstore.exceptions.PermissionDeniedError | obstore.exceptions.UnauthenticatedError
            )
            if permanent or attempt == network.attempts:
                raise ReadError(f"{place}: can't be read: {first_line(error)}", url=place) from error
            time.sleep(min(network.longest_wait_s, network.first_wait_s * 2.0 ** (attempt - 1)))
    raise AssertionError("unreachable")
