"""Byte ranges of files on a disk: read when they are decoded, into a buffer that is used again."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gee_polygons.errors import ReadError
from gee_polygons.network.places import local_path


class AbsentError(ReadError):
    """There is no such file, which may be an answer: a chunk that was never written."""


class LocalRange:
    """A range of a file on a disk, read when it is decoded, into a buffer that its thread uses again and again.

    So the bytes of a block never lie in memory all at once, no new page is cleared for them, and what was just copied
    is still in the processor's cache when it is decoded.
    """

    __slots__ = ("_file", "_length", "_start")

    def __init__(self, file: LocalFile, start: int, length: int) -> None:
        self._file, self._start, self._length = file, start, length

    def __len__(self) -> int:
        return self._length

    def __bytes__(self) -> bytes:
        return bytes(self.read())

    def read(self) -> memoryview:
        """Return the bytes; they are good until this thread's next call."""
        buffer: memoryview | None = getattr(_own, "buffer", None)
        if buffer is None or len(buffer) < self._length:
            buffer = _own.buffer = memoryview(bytearray(self._length))
        return self._file.read_into(buffer[: self._length], self._start)


_own = threading.local()


class LocalFile:
    """A file that is open as long as one of its ranges may be wanted."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._lock = threading.Lock()
        try:
            self._file = Path(str(local_path(place))).open("rb", buffering=0)  # noqa: SIM115 - closed by __del__
        except OSError as error:
            raise _not_opened(place, error) from error

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()

    def expect(self, start: int, length: int, *, clip: bool = False) -> int:
        """Check that the file is long enough, and have the system read this range ahead; return its length."""
        size = os.fstat(self._file.fileno()).st_size
        if clip:
            length = min(length, max(size - start, 0))
        if start + length > size:
            raise ReadError(
                f"{self._place}: can't be read: truncated: {length} bytes asked for at {start}, the file has {size}",
                url=self._place,
            )
        if hasattr(os, "posix_fadvise"):  # not on macOS and Windows
            os.posix_fadvise(self._file.fileno(), start, length, os.POSIX_FADV_WILLNEED)
        return length

    def read_into(self, buffer: memoryview, start: int) -> memoryview:
        """Fill a buffer with the bytes from `start` on."""
        done = 0
        try:
            with self._lock:  # two threads have one position in the file (pread isn't there on Windows)
                self._file.seek(start)
                while done < len(buffer) and (n := self._file.readinto(buffer[done:])):
                    done += n
        except OSError as error:
            raise ReadError(f"{self._place}: can't be read: {error.strerror}", url=self._place) from error
        if done < len(buffer):
            self.expect(start, len(buffer))
        return buffer


def _not_opened(place: str, error: OSError) -> ReadError:
    if isinstance(error, FileNotFoundError):
        return AbsentError(f"{place}: can't be read: there is no such file", url=place)
    return ReadError(f"{place}: can't be read: {error.strerror}", url=place)


def read_local(place: str, start: int, length: int, *, clip: bool = False) -> bytes:
    """Read one range of a file at once; with `clip` the file may end inside it."""
    with _open(place) as file:
        return _read(place, file, start, length, clip=clip)


def size_of(place: str) -> int:
    """Return how many bytes a file has."""
    with _open(place) as file:
        return os.fstat(file).st_size


@contextmanager
def _open(place: str) -> Iterator[int]:
    """Open a local file for `_read`."""
    try:
        file = os.open(str(local_path(place)), os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise _not_opened(place, error) from error
    try:
        yield file
    finally:
        os.close(file)


def _read(place: str, file: int, start: int, length: int, *, clip: bool = False) -> bytes:
    try:
        if hasattr(os, "pread"):
            data = os.pread(file, length, start)
        else:  # Windows: nobody else uses this file's position
            os.lseek(file, start, os.SEEK_SET)
            data = os.read(file, length)
    except OSError as error:
        raise ReadError(f"{place}: can't be read: {error.strerror}", url=place) from error
    if len(data) < length and not (clip and data):
        if data:  # a signal, or a limit of the system: the rest may be there
            more = _read(place, file, start + len(data), length - len(data), clip=True)
            if len(data) + len(more) == length:
                return data + more
        size = os.fstat(file).st_size
        raise ReadError(
            f"{place}: can't be read: truncated: {length} bytes asked for at {start}, the file has {size}", url=place
        )
    return data
