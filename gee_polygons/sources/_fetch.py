"""Bytes over a network that may be far, slow and faulty: merged ranges, many at once, in bounded memory, retried.

A block of a planar tile is 64 ranges, 34 MB apart: what makes reading fast is having many requests under way, over
ranges and over blocks. So the ranges of several blocks are known together, neighbours become one request, and
requests run ahead of what is consumed, up to a number of bytes.

obstore's `get_ranges` panics where a merged range gets a short answer, so ranges are merged here and each is asked
for by itself. Ranges of local files are read without it, when they are decoded: a disk has no latency to hide, and each
request has its price in CPU time.
"""

from __future__ import annotations

import logging
import os
import random
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from gee_polygons.errors import ReadError, UsageError
from gee_polygons.sources._store import first_line, local_path, locate

__all__ = [
    "NETWORK",
    "AbsentError",
    "Failed",
    "LocalRange",
    "Network",
    "Request",
    "Want",
    "fetch",
    "fetch_end",
    "fetch_whole",
    "merge",
    "stream",
]

# Two ranges are one request where the bytes between them that nobody wants, over the whole request, stay below this:
# at 100 Mbit/s they take 5 ms, a new request's latency is 20-100 ms.
MAX_WASTE_BYTES: Final = 64 * 2**10
# A larger request gains nothing in latency, and loses more when it breaks off. Two published blocks are about 0.9 MB.
MAX_REQUEST_BYTES: Final = 4 * 2**20
BATCH_BYTES: Final = 128 * 2**20  # ranges are merged among blocks of so many bytes: two of 64 bands, many of a few
AHEAD_BYTES: Final = 64 * 2**20  # fetched or under way, and not consumed yet

_LENGTH_ATTEMPTS: Final = 3  # a server that gives a wrong length mostly goes on doing so
_TRANSIENT_STATUS: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_STATUS: Final = re.compile(r"status code: (\d{3})(?: ([A-Z][A-Za-z ]+?))?(?=:| Debug|$)")

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Network:
    """How hard a source tries, and how much it asks for at once.

    Parameters
    ----------
    max_concurrent : int
        Requests under way at most, over all blocks of a call.
    attempts : int
        Tries of one request, the first included, where the error is transient: 5xx, 429, a dropped connection, a
        body that breaks off, a time-out. Others (404, 403, 416) are raised at once.
    first_wait_s, longest_wait_s : float
        Wait before the second try; it doubles from try to try, up to the longest. A random part of it is left out.
    timeout_s : float
        How long one request may take.
    give_up_after_s : float
        No new try is made so long after the first.
    url_rewrite : mapping of str to str
        URL prefixes of an index -> those of a mirror.

    Examples
    --------
    >>> Network(max_concurrent=32).attempts
    8
    """

    max_concurrent: int = 128
    attempts: int = 8
    first_wait_s: float = 0.05
    longest_wait_s: float = 8.0
    timeout_s: float = 60.0
    give_up_after_s: float = 180.0
    url_rewrite: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.max_concurrent < 1 or self.attempts < 1:
            raise UsageError("max_concurrent and attempts are at least 1")
        object.__setattr__(self, "url_rewrite", dict(self.url_rewrite))


NETWORK: Final = Network()


class AbsentError(ReadError):
    """There is no such file, which may be an answer: a chunk that was never written."""


@dataclass(frozen=True)
class Want:
    """Ranges of one file that are wanted together: a block's bands. With `clip` the file may end inside them."""

    place: str
    starts: Sequence[int]
    lengths: Sequence[int]
    clip: bool = False

    @property
    def size(self) -> int:
        """Bytes wanted."""
        return sum(self.lengths)


@dataclass(frozen=True)
class Failed:
    """Which range of a `Want` couldn't be had, and why."""

    span: int
    error: ReadError


@dataclass
class Request:
    """One request: a range, and the wanted ranges (want, span) that lie in it."""

    place: str
    start: int
    stop: int
    waste: int = 0
    parts: list[tuple[int, int]] = field(default_factory=list)
    future: Future[Any] | None = None
    clip: bool = False
    waiting: int = 0
    """Wants that haven't been consumed yet."""


def merge(wants: Sequence[Want], numbers: Sequence[int] | None = None) -> list[Request]:
    """Merge neighbouring ranges into requests, ordered by who needs them first.

    Parameters
    ----------
    wants : sequence of Want
        What is wanted.
    numbers : sequence of int, optional
        Their numbers, in the order of need. Default: 0, 1, ...

    Returns
    -------
    list of Request

    Examples
    --------
    >>> block, right, far = (Want("t.tiff", [start], [400]) for start in (1000, 1408, 900_000))
    >>> [(r.start, r.stop, r.parts) for r in merge([block, far, right])]
    [(1000, 1808, [(0, 0), (2, 0)]), (900000, 900400, [(1, 0)])]
    """
    known = range(len(wants)) if numbers is None else numbers
    spans = sorted(
        (want.place, start, start + length, number, span, want.clip)
        for want, number in zip(wants, known, strict=True)
        for span, (start, length) in enumerate(zip(want.starts, want.lengths, strict=True))
    )
    requests: list[Request] = []
    for place, start, stop, number, span, clip in spans:
        last = requests[-1] if requests and requests[-1].place == place else None
        if last is not None:
            waste = last.waste + max(0, start - last.stop)
            fits = waste <= MAX_WASTE_BYTES and max(stop, last.stop) - last.start <= MAX_REQUEST_BYTES
            if stop <= last.stop or (fits and start - last.stop <= MAX_WASTE_BYTES):
                last.stop, last.waste = max(stop, last.stop), waste
                last.parts.append((number, span))
                last.clip |= clip
                continue
        requests.append(Request(place, start, stop, parts=[(number, span)], clip=clip))
    for request in requests:
        request.waiting = len({number for number, _ in request.parts})
    requests.sort(key=lambda request: min(request.parts))
    return requests


def stream(wants: Sequence[Want], network: Network = NETWORK) -> Generator[list[Any] | Failed, None, None]:
    """Fetch what is wanted, in order: for each `Want` its buffers, or what failed.

    At most `network.max_concurrent` requests are under way, and at most `AHEAD_BYTES` (or a single want, if that is
    larger) are fetched and not consumed.
    """
    if all(local_path(want.place) is not None for want in wants):
        # a disk has no latency to hide: what lies on it is read when it is decoded
        yield from map(_read_want, wants)
        return
    workers = min(network.max_concurrent, max(1, sum(len(want.starts) for want in wants)))
    stop = threading.Event()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="fetch")
    feeder = _Feeder(wants, lambda request: pool.submit(_fetch_request, request, network, stop))
    try:
        for number in range(len(wants)):
            feeder.feed(number)
            yield feeder.take(number)
    finally:
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)


class LocalRange:
    """A range of a file on a disk, read when it is decoded, into a buffer that its thread uses again and again.

    So the bytes of a block never lie in memory all at once, no new page is cleared for them, and what was just copied
    is still in the processor's cache when it is decoded.
    """

    __slots__ = ("_file", "_length", "_start")

    def __init__(self, file: _LocalFile, start: int, length: int) -> None:
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


class _LocalFile:
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


def _read_want(want: Want) -> list[LocalRange] | Failed:
    """Return what is wanted of a file on a disk, to be read when it is decoded; or what can't be had."""
    ranges: list[LocalRange] = []
    try:
        file = _LocalFile(want.place)
        for start, length in zip(want.starts, want.lengths, strict=True):
            ranges.append(LocalRange(file, start, file.expect(start, length, clip=want.clip)))
    except ReadError as error:
        return Failed(len(ranges), error)
    return ranges


def _not_opened(place: str, error: OSError) -> ReadError:
    if isinstance(error, FileNotFoundError):
        return AbsentError(f"{place}: can't be read: there is no such file", url=place)
    return ReadError(f"{place}: can't be read: {error.strerror}", url=place)


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


class _Feeder:
    """Hands out requests ahead of their consumption, within the bytes allowed."""

    def __init__(self, wants: Sequence[Want], submit: Callable[[Request], Future[Any]]) -> None:
        self._wants, self._submit = wants, submit
        self._queue: deque[Request] = deque()
        self._of: dict[int, list[Request]] = {}
        self._next = 0  # the first want that isn't in a batch yet
        self._ahead = 0

    def feed(self, number: int) -> None:
        """Hand out all that `number` needs, and more as far as allowed."""
        while self._queue or self._next < len(self._wants):
            if not self._queue:
                self._batch()
                continue
            request = self._queue[0]
            size = request.stop - request.start
            if min(request.parts)[0] > number and self._ahead + size > AHEAD_BYTES:
                return
            self._queue.popleft()
            self._ahead += size
            request.future = self._submit(request)

    def take(self, number: int) -> list[Any] | Failed:
        """Wait for what a want needs; its requests' buffers are let go with the last want that uses them."""
        want = self._wants[number]
        payloads: list[Any] = [None] * len(want.starts)
        failed: Failed | None = None
        for request in self._of.pop(number, []):
            assert request.future is not None
            mine = [span for owner, span in request.parts if owner == number]
            try:
                buffer = memoryview(request.future.result())
                for span in mine:
                    first = want.starts[span] - request.start
                    payloads[span] = buffer[first : first + want.lengths[span]]
            except ReadError as error:
                if failed is None or min(mine) < failed.span:
                    failed = Failed(min(mine), error)
            request.waiting -= 1
            if not request.waiting:
                self._ahead -= request.stop - request.start
        return failed or payloads

    def _batch(self) -> None:
        first, size = self._next, 0
        while self._next < len(self._wants):
            size += self._wants[self._next].size
            if size > BATCH_BYTES and self._next > first:
                break
            self._next += 1
        numbers = range(first, self._next)
        for request in merge(self._wants[first : self._next], numbers):
            self._queue.append(request)
            for number in {owner for owner, _ in request.parts}:
                self._of.setdefault(number, []).append(request)


def _fetch_request(request: Request, network: Network, stop: threading.Event) -> Any:
    return fetch(request.place, request.start, request.stop - request.start, network, clip=request.clip, stop=stop)


def fetch(
    place: str,
    start: int,
    length: int,
    network: Network = NETWORK,
    *,
    clip: bool = False,
    stop: threading.Event | None = None,
) -> Any:
    """Read one range, again and again where the error is transient.

    Parameters
    ----------
    place : str
        Path or URL.
    start, length : int
        Bytes.
    network : Network
        How often, how long.
    clip : bool
        Whether the file may end inside the range.
    stop : Event, optional
        Ends the waiting between tries.

    Returns
    -------
    A buffer of `length` bytes.

    Raises
    ------
    ReadError
        Naming the place.
    """
    if local_path(place) is not None:
        with _open(place) as file:
            return _read(place, file, start, length, clip=clip)
    import obstore

    def once(store: Any, path: str) -> Any:
        if not clip:
            return _checked(obstore.get_range(store, path, start=start, length=length), start, length)
        answer = obstore.get(store, path, options={"range": (start, start + length)})
        return _checked(answer.bytes(), start, min(length, answer.meta["size"] - start))

    return _retried(place, network, once, stop)


def fetch_whole(place: str, network: Network = NETWORK) -> Any:
    """Read a whole file: `fetch` for one whose size isn't known.

    Raises
    ------
    AbsentError
        If there is no such file.
    ReadError
        If it can't be read.
    """
    if local_path(place) is not None:
        with _open(place) as file:
            size = os.fstat(file).st_size
            return _read(place, file, 0, size) if size else b""
    import obstore

    def once(store: Any, path: str) -> Any:
        answer = obstore.get(store, path)
        return _checked(answer.bytes(), 0, answer.meta["size"])

    return _retried(place, network, once)


def fetch_end(place: str, length: int, network: Network = NETWORK) -> tuple[Any, int]:
    """Read the last bytes of a file. Returns them and the file's size; errors as those of `fetch_whole`."""
    if local_path(place) is not None:
        with _open(place) as file:
            size = os.fstat(file).st_size
            return _read(place, file, max(size - length, 0), length), size
    import obstore

    def once(store: Any, path: str) -> tuple[Any, int]:
        try:
            answer = obstore.get(store, path, options={"range": {"suffix": length}})
        except Exception as error:
            fault = _fault(error)
            if fault.attempts > 1 or fault.what in _WORDS.values():
                raise
            # not every server counts from the end; this costs one request more
            size = obstore.get(store, path, options={"range": (0, 1)}).meta["size"]
            data = obstore.get_range(store, path, start=max(size - length, 0), length=min(length, size))
            return _checked(data, size - length, length), size
        size = answer.meta["size"]
        return _checked(answer.bytes(), size - length, length), size

    found: tuple[Any, int] = _retried(place, network, once)
    return found


class _ShortError(Exception):
    """An answer of another length than asked for."""


def _checked(data: Any, start: int, length: int) -> Any:
    if len(data) != length:
        raise _ShortError(f"{length} bytes asked for at {start}, {len(data)} found: truncated")
    return data


def _retried(place: str, network: Network, once: Callable[[Any, str], Any], stop: threading.Event | None = None) -> Any:
    """Ask until there is an answer, an error that stays, or no more tries."""
    store, path = locate(place, network.timeout_s)
    began = time.monotonic()
    for attempt in range(1, network.attempts + 1):
        try:
            return once(store, path)
        except _ShortError as error:
            fault = _Fault(str(error), _LENGTH_ATTEMPTS)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic of pyo3 is no Exception
            fault = _fault(error)
        most = min(network.attempts, fault.attempts)
        wait = min(network.longest_wait_s, network.first_wait_s * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.0)
        late = time.monotonic() - began + wait > network.give_up_after_s
        if attempt >= most or late or (stop is not None and stop.is_set()):
            tries = f" after {attempt} tries" if attempt > 1 else ""
            kind = AbsentError if fault.what == _WORDS["FileNotFoundError"] else ReadError
            raise kind(f"{place}: can't be read{tries}: {fault.what}", url=place)
        log.info("%s: %s; try %d of %d follows in %.2f s", place, fault.what, attempt + 1, most, wait)
        if stop is not None:
            stop.wait(wait)
        else:
            time.sleep(wait)
    raise AssertionError("unreachable")


@dataclass(frozen=True)
class _Fault:
    """What went wrong, in words, and how often it is worth a try in all."""

    what: str
    attempts: int


_MANY: Final = 10**6
_WORDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "FileNotFoundError": "there is no such file",
        "PermissionDeniedError": "access is denied (403)",
        "UnauthenticatedError": "access needs credentials (401); the archive is read anonymously",
    }
)


def _fault(error: BaseException) -> _Fault:
    text = " ".join(str(error).split())
    name = type(error).__name__
    if name in _WORDS:
        return _Fault(_WORDS[name], 1)
    if "Range request not supported" in text:
        return _Fault("the server doesn't serve byte ranges", 1)
    if status := _STATUS.search(text):
        code = int(status[1])
        reason = f"the server answers {code} {status[2] or ''}".strip()
        return _Fault(reason, _MANY if code in _TRANSIENT_STATUS or code >= 520 else 1)
    if found := re.search(r"Requested (\d+)\.\.(\d+), got (\d+)\.\.(\d+)", text):
        return _Fault(
            f"bytes {found[1]}-{found[2]} asked for, {found[3]}-{found[4]} found: truncated, or a faulty server",
            _LENGTH_ATTEMPTS,
        )
    if "range was invalid" in text.lower() or "InvalidRange" in text:
        return _Fault("truncated: it ends before the bytes asked for", 1)
    if "following redirect" in text:
        return _Fault("the server redirects in a circle", 1)
    if "body error" in text:
        return _Fault("the connection broke off in the middle of the answer", _MANY)
    if "timed out" in text.lower() or "TimedOut" in text or "kind: Timeout" in text:
        return _Fault("no answer in time", _MANY)
    if "error sending request" in text:
        return _Fault("no connection, or it was dropped", _MANY)
    return _Fault(f"{name}: {first_line(error)[:200]}", _MANY if name in ("GenericError", "PanicException") else 1)
