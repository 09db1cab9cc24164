"""Reads tags of the first image of a TIFF file; counts and positions are checked before anything is read or allocated.

Classic TIFF and BigTIFF (TIFF 6.0, BigTIFF design), either byte order, tags in any order and anywhere in the file.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gee_polygons.errors import ReadError
from gee_polygons.network.request import Network, fetch_some

# The header of a published tile of 8192 px, its overviews' included: 4096 positions of 8 bytes and lengths of 4, a
# third as much for overviews, band names. One request gets it whole.
PREFETCH_BYTES: Final = 96 * 2**10
MOST_TAGS: Final = 4096
MOST_BYTES: Final = 2**20  # of one tag's value, but for those whose count the layout says
# TIFF's types: their numbers, and NumPy's names without byte order
_INTEGERS: Final = {1: "u1", 3: "u2", 4: "u4", 6: "i1", 8: "i2", 9: "i4", 13: "u4", 16: "u8", 17: "i8", 18: "u8"}
_FLOATS: Final = {11: "f4", 12: "f8"}
_TEXTS: Final = {1: "u1", 2: "u1", 7: "u1"}


class FirstImage:
    """The tags of a file's first image, read when they are asked for.

    Parameters
    ----------
    place : str
        Path or URL.
    network : Network
        Retry settings.

    Raises
    ------
    ReadError
        If the file can't be read, or isn't a TIFF file; by each method, if a tag's value isn't what it should be.
    """

    def __init__(self, place: str, network: Network) -> None:
        self._place, self._network = place, network
        first, self._size = fetch_some(place, 0, PREFETCH_BYTES, network)
        self._pieces = [(0, memoryview(first))]  # what was read of the file: position and bytes
        start = bytes(self._bytes(0, min(16, self._size)))
        self.order = {b"II": "<", b"MM": ">"}.get(start[:2], "")
        version = struct.unpack(f"{self.order}H", start[2:4])[0] if self.order and len(start) == 16 else 0
        if version not in (42, 43):
            raise ReadError(f"{place}: not a TIFF file", url=place)
        big = version == 43
        self._position = f"{self.order}Q" if big else f"{self.order}I"
        self._inline = struct.calcsize(self._position)  # a value of so many bytes stands in the tag itself
        where = struct.unpack_from(self._position, start, self._inline)[0]
        count_format, entry_format = (
            (f"{self.order}Q", f"{self.order}HHQ8x") if big else (f"{self.order}H", f"{self.order}HHI4x")
        )
        n = struct.unpack(count_format, self._bytes(where, struct.calcsize(count_format)))[0]
        if not 0 < n <= MOST_TAGS:
            raise self.damaged(f"it has {n} tags")
        where, size = where + struct.calcsize(count_format), struct.calcsize(entry_format)
        entries = struct.iter_unpack(entry_format, self._bytes(where, n * size))
        # tag -> type, number of values, where they or their position are
        self._tags = {
            tag: (kind, count, where + (i + 1) * size - self._inline) for i, (tag, kind, count) in enumerate(entries)
        }

    def count(self, tag: int) -> int:
        """Return the number of a tag's values; 0 where the tag is missing."""
        return int(self._tags[tag][1]) if tag in self._tags else 0

    def integers(self, tag: int, most: int | None = None) -> NDArray[np.int64]:
        """Return a tag's values, shape (count,); empty where the tag is missing. `most`: values that it may have."""
        return self._values(tag, _INTEGERS, most).astype(np.int64)

    def integer(self, tag: int, default: int) -> int:
        """Return a tag's first value."""
        values = self.integers(tag)
        return int(values[0]) if len(values) else default

    def floats(self, tag: int) -> list[float]:
        """Return a tag's values; empty where the tag is missing."""
        return [float(value) for value in self._values(tag, _FLOATS)]

    def text(self, tag: int) -> str:
        """Return a tag's text, empty where the tag is missing."""
        return self._values(tag, _TEXTS).tobytes().rstrip(b"\0").decode("utf-8", "replace")

    def _values(self, tag: int, types: dict[int, str], most: int | None = None) -> NDArray[Any]:
        if tag not in self._tags:
            return np.zeros(0, np.uint8)
        kind, count, where = self._tags[tag]
        if kind not in types:
            raise self.damaged(f"tag {tag} has type {kind}")
        dtype = np.dtype(self.order + types[kind])
        length = count * dtype.itemsize
        if length > (MOST_BYTES if most is None else most * dtype.itemsize):
            raise self.damaged(f"tag {tag} has {count} values")
        if length > self._inline:
            where = struct.unpack(self._position, self._bytes(where, self._inline))[0]
        return np.frombuffer(self._bytes(where, length), dtype)

    def _bytes(self, start: int, length: int) -> memoryview:
        if start + length > self._size:
            raise self.damaged(f"{length} bytes at {start} are beyond its end at {self._size}")
        for first, data in self._pieces:
            if first <= start and start + length <= first + len(data):
                return data[start - first : start - first + length]
        data, _ = fetch_some(self._place, start, max(length, PREFETCH_BYTES), self._network)
        if len(data) < length:
            raise self.damaged("it became shorter while it was read")
        self._pieces.append((start, memoryview(data)))
        return self._pieces[-1][1][:length]

    def damaged(self, what: str) -> ReadError:
        """Return the error of a header that can't be right."""
        return ReadError(f"{self._place}: the header can't be read: damaged: {what}", url=self._place)
