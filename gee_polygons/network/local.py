"""Reads byte ranges of local files, by default only when they are decoded."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from gee_polygons.errors import ReadError
from gee_polygons.network.places import local_path


class MissingFileError(ReadError):
    """There is no such file. In a Zarr store this means that a chunk was never written."""


class LocalRange:
    """A byte range of a local file, read when it is decoded, into a buffer that each thread reuses.

    Compressed blocks are therefore never in memory all at once, no new memory pages have to be cleared for them, and
    bytes just copied are still in the processor's cache when they are decoded.
    """

    __slots__ = ("_file", "_length", "_start")

    def __init__(self, file: LocalFile, start: int, length: int) -> None:
        self._file, self._start, self._length = file, start, length

    def __len__(self) -> int:
        return self._length

    def __bytes__(self) -> bytes:
        return bytes(self.read())

    def read(self) -> memoryview:
        """Return a view of the bytes, overwritten by this thread's next read."""
        buffer: memoryview | None = getattr(_per_thread, "buffer", None)
        if buffer is None or len(buffer) < self._length:
            buffer = _per_thread.buffer = memoryview(bytearray(self._length))
        return self._file.read_into(buffer[: self._length], self._start)


_per_thread = threading.local()


class LocalFile:
    """A local file, open for as long as one of its ranges may be read."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._lock = threading.Lock()
        try:
            self._file = Path(str(local_path(place))).open("rb", buffering=0)  # noqa: SIM115 - closed by __del__
        except FileNotFoundError as error:
            raise MissingFileError(f"{place}: can't be read: there is no such file", url=place) from error
        except OSError as error:
            raise self._unreadable(error) from error

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()

    @property
    def size(self) -> int:
        """Number of bytes."""
        return os.fstat(self._file.fileno()).st_size

    def range(self, start: int, length: int, *, clip: bool = False) -> LocalRange:
        """Return a range, and let the operating system read it ahead; with `clip` the file may end inside it."""
        size = self.size
        if clip:
            length = min(length, max(size - start, 0))
        if start + length > size:
            raise self._truncated(start, length)
        if hasattr(os, "posix_fadvise"):  # not on macOS and Windows
            os.posix_fadvise(self._file.fileno(), start, length, os.POSIX_FADV_WILLNEED)
        return LocalRange(self, start, length)

    def read(self, start: int, length: int) -> bytes:
        """Read bytes at once."""
        if start + length > self.size:  # before memory is set aside for a length that may come from a damaged file
            raise self._truncated(start, length)
        return bytes(self.read_into(memoryview(bytearray(length)), start))

    def read_into(self, buffer: memoryview, start: int) -> memoryview:
        """Fill a buffer with the bytes from `start` on."""
        done = 0
        try:
            with self._lock:  # two threads share one position in the file (Windows has no pread)
                self._file.seek(start)
                while done < len(buffer) and (n := self._file.readinto(buffer[done:])):
                    done += n
        except OSError as error:
            raise self._unreadable(error) from error
        if done < len(buffer):
            raise self._truncated(start, len(buffer))
        return buffer

    def _unreadable(self, error: OSError) -> ReadError:
        return ReadError(f"{self._place}: can't be read: {error.strerror}", url=self._place)

    def _truncated(self, start: int, length: int) -> ReadError:
        what = f"truncated: {length} bytes asked for at {start}, the file has {self.size}"
        return ReadError(f"{self._place}: can't be read: {what}", url=self._place)
