"""Reads bytes of a file: checks the answer's length, goes on where a connection broke off, retries transient errors."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gee_polygons.errors import ReadError, UsageError
from gee_polygons.network.hosts import Host, Turn, host_of
from gee_polygons.network.http import CONNECT_S, Answer, FailedError, Wait, get
from gee_polygons.network.local import LocalFile, MissingFileError
from gee_polygons.network.places import hide_query, http_url, local_path, without_query

_LENGTH_ATTEMPTS: Final = 3  # a server that answers with a wrong length mostly goes on doing so
_MOST_WHOLE_BYTES: Final = 2**28  # of a file that is read as a whole; those are metadata
_PROGRESS_BYTES: Final = 1024  # an attempt that brings as many isn't a failure

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Network:
    """Retry and concurrency settings.

    Parameters
    ----------
    max_concurrent : int
        Maximum number of simultaneous requests, over all blocks of a call. Fewer are made where the line is slow.
    give_up_after_s : float
        How long a request is tried again while nothing of it arrives, and the error is transient: 5xx, 429, a dropped
        connection, an incomplete body, silence. Others (401, 403, 404, 410, 416) are raised at once.
    attempts : int, optional
        Maximum number of attempts within that time, the first included.
    first_wait_s, longest_wait_s : float
        Wait before the second attempt; it doubles from attempt to attempt, up to the longest. Up to half of each wait
        is left out at random. Where a server answers nobody, all requests to it wait together. A `Retry-After` is
        waited for.
    timeout_s : float
        How long a server may be silent, at most; where it usually isn't, a request is sent again sooner. There is no
        time limit for a request: a line may be slow.
    url_rewrite : mapping of str to str
        URL prefixes of an index -> those of a mirror. Passwords in them are hidden, see `hide_query`.

    Examples
    --------
    >>> Network(give_up_after_s=3600).max_concurrent  # an unattended run
    128
    """

    max_concurrent: int = 128
    give_up_after_s: float = 300.0
    attempts: int | None = None
    first_wait_s: float = 0.05
    longest_wait_s: float = 8.0
    timeout_s: float = 30.0
    url_rewrite: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.max_concurrent < 1 or (self.attempts is not None and self.attempts < 1):
            raise UsageError(f"max_concurrent={self.max_concurrent}, attempts={self.attempts}: both must be at least 1")
        object.__setattr__(
            self, "url_rewrite", {hide_query(old): hide_query(new) for old, new in self.url_rewrite.items()}
        )


NETWORK: Final = Network()


def fetch(
    place: str,
    start: int,
    length: int,
    network: Network = NETWORK,
    *,
    clip: bool = False,
    stop: threading.Event | None = None,
) -> Any:
    """Read one byte range, with retries where the error is transient.

    Parameters
    ----------
    place : str
        Path or URL.
    start, length : int
        Bytes.
    network : Network
        Retry settings.
    clip : bool
        Whether the file may end inside the range.
    stop : Event, optional
        Ends the retries when set.

    Returns
    -------
    buffer
        `length` bytes; with `clip`, at most so many.

    Raises
    ------
    ReadError
        Naming the path or URL.
    """
    if local_path(place) is not None and not clip:
        return LocalFile(place).read(start, length)
    return _read(place, _Transfer(start, start + length, clip=clip), network, stop)[0]


def fetch_some(
    place: str, start: int, length: int, network: Network = NETWORK, *, stop: threading.Event | None = None
) -> tuple[Any, int]:
    """Read a byte range that the file may end in, and the file's size; retries and errors as in `fetch`.

    Returns
    -------
    data : buffer
        `length` bytes, or all up to the end.
    size : int
        Size of the file in bytes.
    """
    return _read(place, _Transfer(start, start + length, clip=True), network, stop)


def fetch_end(place: str, length: int, network: Network = NETWORK) -> tuple[Any, int]:
    """Read the last bytes of a file. Returns them and the file's size; retries and errors as in `fetch`."""
    try:
        return _read(place, _Transfer(-length, None), network)
    except ReadError as error:
        if not isinstance(error.__cause__, FailedError) or error.__cause__.status not in (200, 400, 416, 501):
            raise
    # not every server supports ranges counted from the end; and not a HEAD request for the size: a signed URL is valid
    # for GET only, and HEAD's answer can't be checked
    size = fetch_some(place, 0, 1, network)[1]
    first = max(size - length, 0)
    return fetch_some(place, first, size - first, network)


def fetch_whole(place: str, network: Network = NETWORK) -> Any:
    """Read a whole file of at most 256 MB; retries and errors as in `fetch`."""
    return _read(place, _Transfer(0, None), network)[0]


def _read(place: str, wanted: _Transfer, network: Network, stop: threading.Event | None = None) -> tuple[Any, int]:
    """Return a part of a file, clipped at the file's end, and the file's size."""
    if local_path(place) is not None:
        file = LocalFile(place)
        first, last, _ = slice(wanted.start, wanted.stop).indices(file.size)
        if wanted.start and wanted.start >= file.size:  # nothing of it is there, which is an error
            first, last = wanted.start, wanted.stop or wanted.start
        return file.read(first, last - first), file.size
    url, place = http_url(place), hide_query(place)
    host, turn = host_of(url), Turn(network, stop)
    tries = refusals = 0
    try:
        while True:
            host.begin(turn)
            tries += 1
            try:
                wanted.receive(url, host, turn)
            except FailedError as failed:
                if failed.attempts is None:
                    host.failed(turn, failed)
                elif (refusals := refusals + 1) >= failed.attempts:
                    raise
                if stop is not None and stop.is_set():
                    raise
                log.info("%s: %s; try %d follows", place, failed.reason, tries + 1)
            else:
                return wanted.data, wanted.size
            finally:
                host.end(turn)
    except FailedError as failed:
        after = f" after {tries} tries" if tries > 1 else ""
        kind = MissingFileError if failed.missing else ReadError
        raise kind(f"{place}: can't be read{after}: {without_query(failed.reason)}", url=place) from failed


class _Transfer:
    """A part of a file, and what has arrived of it.

    Parameters
    ----------
    start : int
        First byte; negative: counted from the end.
    stop : int, optional
        Where the part ends; None: with the file.
    clip : bool
        Whether the file may end before.
    """

    def __init__(self, start: int, stop: int | None, *, clip: bool = False) -> None:
        self.start, self.stop, self._clip = start, stop, clip
        self.data = bytearray()
        self.size = 0
        """Of the file."""
        self._filled = 0
        self._version: tuple[int, str | None] | None = None

    def receive(self, url: str, host: Host, turn: Turn) -> None:
        """Send one request, and receive what is missing.

        Raises
        ------
        FailedError
            If it isn't answered in full.
        """
        wait, before = Wait(lambda: host.limit_s(turn), turn.check), self._filled
        try:
            with get(url, self._headers(), wait, connect_s=min(CONNECT_S, turn.network.timeout_s)) as answer:
                host.answered()
                self._prepare(answer, url, host)
                view = memoryview(self.data)
                while self._filled < len(view):
                    n = answer.read_into(view[self._filled :])
                    if not n:
                        raise FailedError("the connection broke off in the middle of the answer")
                    self._filled += n
                    host.heard = time.monotonic()
                if answer.length is None:
                    self._filled = 0  # what has arrived counts only if nothing follows
                    if answer.read_into(memoryview(bytearray(1))):
                        raise FailedError(
                            f"more bytes than the {len(view)} asked for: a faulty server", _LENGTH_ATTEMPTS
                        )
        finally:
            if self._filled >= before + _PROGRESS_BYTES:
                turn.progressed()
        host.succeeded(turn, wait.longest_s)

    def _headers(self) -> str:
        """Return the header line that asks for what is missing."""
        if self.stop is not None:
            return f"Range: bytes={self.start + self._filled}-{self.stop - 1}\r\n"
        return f"Range: bytes={self.start}\r\n" if self.start < 0 else ""

    def _prepare(self, answer: Answer, url: str, host: Host) -> None:
        """Check what the headers say, and make room for what is announced, never for more than was asked for."""
        if self.stop is None and self.start == 0:
            if answer.status != 200:
                raise FailedError("a part of the file instead of all of it: a faulty server", _LENGTH_ATTEMPTS)
            self._prepare_whole(answer)
            return
        if answer.status != 206:
            raise FailedError("the server doesn't serve byte ranges", 1, status=answer.status)
        stated = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", answer.headers.get("content-range", ""))
        if stated is None:
            raise FailedError("the answer doesn't say which bytes it holds: a faulty server", _LENGTH_ATTEMPTS)
        first, last, self.size = map(int, stated.groups())
        version = self.size, answer.headers.get("etag")
        other = host.is_other_version(url, version, begins=self.start <= 0)
        if other or (self._filled and version != self._version):
            self._filled, self._version = 0, None
            raise FailedError("the file has changed since it was opened: open it again", _LENGTH_ATTEMPTS)
        start = max(self.size + self.start, 0) if self.start < 0 else self.start + self._filled
        stop = self.size if self.stop is None else min(self.stop, self.size)
        length = last - first + 1
        if (first, last + 1) != (start, stop) or answer.length not in (length, None):
            found = f"{first}-{last + 1}" if answer.length in (length, None) else f"{answer.length} bytes"
            reason = f"bytes {start}-{stop} asked for, {found} found: truncated, or a faulty server"
            raise FailedError(reason, _LENGTH_ATTEMPTS)
        if not self._clip and self.stop is not None and self.stop > self.size:
            asked = f"{self.stop - self.start} bytes asked for at {self.start}"
            raise FailedError(f"truncated: {asked}, the file has {self.size}", 1)
        if not self._filled:
            self.data, self._version = bytearray(length), version

    def _prepare_whole(self, answer: Answer) -> None:
        self._filled, length = 0, answer.length
        if length is not None and length <= _MOST_WHOLE_BYTES:
            self.data, self.size = bytearray(length), length
            return
        self.data, piece = bytearray(), memoryview(bytearray(2**16))
        while len(self.data) <= _MOST_WHOLE_BYTES and (n := answer.read_into(piece) if length is None else 0):
            self.data += piece[:n]
        if length is not None or len(self.data) > _MOST_WHOLE_BYTES:
            raise FailedError(f"longer than {_MOST_WHOLE_BYTES >> 20} MB, which no metadata are", 1)
        self.size = self._filled = len(self.data)
