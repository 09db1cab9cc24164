"""A file far away as a Python file, so that readers of Parquet, CSV and GeoPackage needn't know."""

from __future__ import annotations

import bisect
import io
from collections.abc import Sequence
from typing import Any, Final

from gee_polygons.network.ranges import Failed, Want, stream
from gee_polygons.network.request import NETWORK, Network, fetch, fetch_some

_CHUNK: Final = 4 * 2**20  # of a whole file: so many bytes a request
_HEAD: Final = 32 * 2**10  # comes with the size; a short file whole
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
        self._at = 0
        self._starts: list[int] = []
        self._held: list[tuple[int, Any]] = []
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
        """Read bytes; all that is left by default."""
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
        wants = [Want(self._place, [start], [length]) for start, length in ranges if self._find(start, length) is None]
        for want, answer in zip(wants, stream(wants, self._network), strict=True):
            if isinstance(answer, Failed):
                raise answer.error
            self._keep(want.starts[0], bytes(answer[0]))

    def _keep(self, start: int, data: Any) -> None:
        place = bisect.bisect(self._starts, start)
        self._starts.insert(place, start)
        self._held.insert(place, (start, memoryview(data)))

    def _find(self, start: int, length: int) -> bytes | None:
        for first, data in self._held[: bisect.bisect(self._starts, start)]:
            if first <= start and start + length <= first + len(data):
                return bytes(data[start - first : start - first + length])
        return None
