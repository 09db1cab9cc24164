"""Bytes over a network that may be far and slow: merged ranges, many at once, in bounded memory.

A block of a planar tile is 64 ranges, 34 MB apart: what makes reading fast is having many requests under way, over
ranges and over blocks. So the ranges of several blocks are known together, neighbours become one request, and
requests run ahead of what is consumed, up to a number of bytes.

obstore's `get_ranges` panics where a merged range gets a short answer, so ranges are merged here and each is asked
for by itself. Ranges of local files are read without it, when they are decoded: a disk has no latency to hide, and each
request has its price in CPU time.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from gee_polygons.errors import ReadError
from gee_polygons.network.local import LocalFile, LocalRange
from gee_polygons.network.places import local_path
from gee_polygons.network.request import NETWORK, Network, fetch

# Two ranges are one request where the bytes between them that nobody wants, over the whole request, stay below this:
# at 100 Mbit/s they take 5 ms, a new request's latency is 20-100 ms.
MAX_WASTE_BYTES: Final = 64 * 2**10
# A larger request gains nothing in latency, and loses more when it breaks off. Two published blocks are about 0.9 MB.
MAX_REQUEST_BYTES: Final = 4 * 2**20
BATCH_BYTES: Final = 128 * 2**20  # ranges are merged among blocks of so many bytes: two of 64 bands, many of a few
AHEAD_BYTES: Final = 128 * 2**20  # fetched or under way, and not consumed yet

_MOST_THREADS: Final = 512  # over all calls of a process; they do nothing but wait


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


@dataclass(eq=False)
class Request:
    """One request: a range, and the wanted ranges (want, span) that lie in it."""

    place: str
    start: int
    stop: int
    waste: int = 0
    parts: list[tuple[int, int]] = field(default_factory=list)
    clip: bool = False
    answer: Future[Any] = field(default_factory=Future, repr=False)
    started: bool = False
    left: int = 0
    """Parts that may still be read."""

    @property
    def size(self) -> int:
        """Bytes asked for."""
        return self.stop - self.start

    @property
    def first(self) -> int:
        """The first want that needs it."""
        return min(self.parts)[0]


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
        request.left = len(request.parts)
    requests.sort(key=lambda request: min(request.parts))
    return requests


def stream(wants: Sequence[Want], network: Network = NETWORK) -> Generator[list[Any] | Failed, None, None]:
    """Hand out what is wanted, in order: for each `Want` its ranges, to be read (and waited for) when they are decoded.

    At most `network.max_concurrent` requests are under way, and about `AHEAD_BYTES` are under way or unread.
    A range far away raises `ReadError` when it is read; what can't be had of a disk is told at once, as `Failed`.
    """
    if all(local_path(want.place) is not None for want in wants):
        # a disk has no latency to hide: what lies on it is read when it is decoded
        yield from map(_read_want, wants)
        return
    feeder = _Feeder(wants, network)
    try:
        for number in range(len(wants)):
            yield feeder.ranges(number)
    finally:
        feeder.close()


def _read_want(want: Want) -> list[LocalRange] | Failed:
    """Return what is wanted of a file on a disk, to be read when it is decoded; or what can't be had."""
    ranges: list[LocalRange] = []
    try:
        file = LocalFile(want.place)
        for start, length in zip(want.starts, want.lengths, strict=True):
            ranges.append(LocalRange(file, start, file.expect(start, length, clip=want.clip)))
    except ReadError as error:
        return Failed(len(ranges), error)
    return ranges


class FarRange:
    """A range that is under way; whoever reads it waits for it. Its memory is let go as soon as it was read."""

    __slots__ = ("_clip", "_feeder", "_length", "_request", "_start", "_where")

    def __init__(self, feeder: _Feeder, request: Request, start: int, length: int) -> None:
        self._feeder, self._where, self._clip = feeder, request.place, request.clip
        self._start, self._length = start, length
        self._request: Request | None = request

    def __len__(self) -> int:
        return self._length

    def __bytes__(self) -> bytes:
        return bytes(self.read())

    def __del__(self) -> None:
        if self._request is not None:
            self._feeder.release(self._request)

    def read(self) -> memoryview:
        """Return the bytes.

        Raises
        ------
        ReadError
            If they couldn't be had.
        """
        request = self._request
        if request is None:  # it was read before: a second look is rare, and worth another request
            return memoryview(fetch(self._where, self._start, self._length, self._feeder.network, clip=self._clip))
        self._feeder.expedite(request)
        try:
            whole = memoryview(request.answer.result())
        finally:
            self._request = None
            self._feeder.release(request)
        first = self._start - request.start
        return whole[first : first + self._length]


class _Feeder:
    """Sends requests ahead of their consumption, within the bytes allowed."""

    def __init__(self, wants: Sequence[Want], network: Network) -> None:
        self.network = network
        self._wants = wants
        self._lock = threading.RLock()  # a range may be let go by the garbage collector, at any point
        self._queue: deque[Request] = deque()
        self._of: dict[int, list[Request]] = {}
        self._next = 0  # the first want that isn't in a batch yet
        self._handed_out = 0
        self._under_way = 0
        self._ahead = 0
        self._awaited = -1  # the last want that somebody waits for
        self._stop = threading.Event()

    def __del__(self) -> None:
        self._stop.set()  # nobody can read what is still under way: no further tries

    def ranges(self, number: int) -> list[FarRange]:
        """Return a want's ranges."""
        want = self._wants[number]
        found: list[Any] = [None] * len(want.starts)
        with self._lock:
            while number >= self._next:
                self._batch()
            for request in self._of.pop(number, []):
                for owner, span in request.parts:
                    if owner == number:
                        found[span] = FarRange(self, request, want.starts[span], want.lengths[span])
            self._handed_out = number + 1
        self._send()
        return found

    def close(self) -> None:
        """Send nothing more but what was handed out already."""
        with self._lock:
            self._next = len(self._wants)
            self._queue = deque(r for r in self._queue if r.first < self._handed_out)

    def expedite(self, request: Request) -> None:
        """Send all that is needed up to a request, however much is held: somebody waits for it."""
        if request.started:
            return
        with self._lock:
            self._awaited = max(self._awaited, request.first)
        self._send()

    def release(self, request: Request) -> None:
        """Count a part as read, or as not wanted any more."""
        with self._lock:
            request.left -= 1
            if request.left or not request.started:
                return
            self._ahead -= request.size
        self._send()

    def landed(self) -> None:
        """Count a request as answered."""
        with self._lock:
            self._under_way -= 1
        self._send()

    def _send(self) -> None:
        """Send as many requests as may be under way."""
        with self._lock:
            while self._under_way < self.network.max_concurrent:
                if not self._queue:
                    if self._next >= len(self._wants):
                        return
                    self._batch()
                    continue
                request = self._queue.popleft()  # out at once: a range let go meanwhile may come by here, too
                if request.first > self._awaited and self._ahead and self._ahead + request.size > AHEAD_BYTES:
                    self._queue.appendleft(request)
                    return
                if request.left:
                    request.started = True
                    self._ahead += request.size
                    self._under_way += 1
                    _pool().submit(_answer, request, self.network, self._stop, weakref.ref(self))

    def _batch(self) -> None:
        first, self._next = self._next, _batch_end(self._wants, self._next)
        for request in merge(self._wants[first : self._next], range(first, self._next)):
            self._queue.append(request)
            for number in {owner for owner, _ in request.parts}:
                self._of.setdefault(number, []).append(request)


def _batch_end(wants: Sequence[Want], first: int) -> int:
    """Return where the batch ends that begins with a want."""
    size, stop = 0, first
    while stop < len(wants):
        size += wants[stop].size
        if size > BATCH_BYTES and stop > first:
            break
        stop += 1
    return stop


def cost(wants: Sequence[Want]) -> tuple[int, int]:
    """Return the requests that `stream` will send for what is wanted, and their bytes."""
    n_requests = n_bytes = first = 0
    while first < len(wants):
        stop = _batch_end(wants, first)
        requests = merge(wants[first:stop])
        n_requests, n_bytes = n_requests + len(requests), n_bytes + sum(request.size for request in requests)
        first = stop
    return n_requests, n_bytes


def _answer(request: Request, network: Network, stop: threading.Event, feeder: weakref.ref[_Feeder]) -> None:
    """Fetch what a request asks for, and tell those who wait for it."""
    try:
        data = fetch(request.place, request.start, request.size, network, clip=request.clip, stop=stop)
        request.answer.set_result(data)
    except BaseException as error:  # it is raised where somebody waits
        request.answer.set_exception(error)
    if (sender := feeder()) is not None:
        sender.landed()


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    """Return the threads that wait for answers: as many as were ever needed at once, and used by every call."""
    return ThreadPoolExecutor(_MOST_THREADS, thread_name_prefix="fetch")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a child has none of the threads
