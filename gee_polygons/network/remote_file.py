"""A remote file as a Python file object, for readers of Parquet, CSV and GeoPackage."""

from __future__ import annotations

import bisect
import io
from collections.abc import Sequence
from operator import itemgetter
from typing import Any, Final

from gee_polygons.network.ranges import FailedRange, RangeRequest, stream
from gee_polygons.network.request import NETWORK, Network, fetch, fetch_some

_CHUNK: Final = 4 * 2**20  # bytes of a request where a file is read as a whole
_HEAD: Final = 32 * 2**10  # read together with the size: a short file is then complete
_TAIL: Final = 64 * 2**10  # Parquet's footer is read from the end


class RemoteFile(io.RawIOBase):
    """A read-only file at a URL.

    Ranges read before, or with `preload`, cost no further request.

    Parameters
    ----------
    place : str
        URL.
    network : Network
        Retry settings.

    Raises
    ------
    ReadError
        If it can't be opened.
    """

    def __init__(self, place: str, network: Network = NETWORK) -> None:
        self._place, self._network = place, network
        self._at = 0
        self._known: list[tuple[int, memoryview]] = []
        beginning, self.size = fetch_some(place, 0, _HEAD, network)
        self._keep(0, beginning)

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
        """Read bytes; up to the end by default."""
        stop = self.size if size is None or size < 0 else min(self.size, self._at + size)
        length = max(0, stop - self._at)
        data = self._find(self._at, length) if length else b""
        if data is None:
            if length > _CHUNK:
                chunks = [(first, min(_CHUNK, stop - first)) for first in range(self._at, stop, _CHUNK)]
                self.preload(chunks)
                data = b"".join(self._find(*chunk) or b"" for chunk in chunks)
                assert len(data) == length
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
        missing = [(start, length) for start, length in ranges if self._find(start, length) is None]
        requests = [RangeRequest(self._place, [start], [length]) for start, length in missing]
        for (start, _), answer in zip(missing, stream(requests, self._network), strict=True):
            if isinstance(answer, FailedRange):
                raise answer.error
            self._keep(start, bytes(answer[0]))

    def _keep(self, start: int, data: Any) -> None:
        bisect.insort(self._known, (start, memoryview(data)), key=itemgetter(0))

    def _find(self, start: int, length: int) -> bytes | None:
        for first, data in self._known[: bisect.bisect(self._known, start, key=itemgetter(0))]:
            if start + length <= first + len(data):
                return bytes(data[start - first : start - first + length])
        return None
