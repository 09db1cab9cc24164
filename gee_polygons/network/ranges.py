"""Fetches many byte ranges: neighbours merged, many requests at once, within a memory limit.

A block of a planar GeoTIFF is 64 ranges, 34 MB apart, so reading is fast only with many requests under way, over ranges
and over blocks. Ranges of several blocks are therefore merged together, and requests run ahead of their consumer, up to
a number of bytes.

Local files are read when a range is decoded: a disk has no latency to hide.
"""

from __future__ import annotations

import os
import queue
import threading
import weakref
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final

from gee_polygons.errors import ReadError
from gee_polygons.network.hosts import interruptible
from gee_polygons.network.local import LocalFile, LocalRange
from gee_polygons.network.places import local_path
from gee_polygons.network.request import NETWORK, Network, fetch

# Two ranges become one request if the unneeded bytes between them, over the whole request, stay below this: at
# 100 Mbit/s they take 5 ms, and the latency of a new request is 20-100 ms.
MAX_WASTE_BYTES: Final = 64 * 2**10
# A larger request gains nothing in latency, and loses more when it breaks off. Two published blocks are about 0.9 MB.
MAX_REQUEST_BYTES: Final = 4 * 2**20
BATCH_BYTES: Final = 128 * 2**20  # ranges are merged within batches of this size: two blocks of 64 bands, many of a few
# Requested or received, and not yet read; twice as many while a reader waits: one late answer stops no others
AHEAD_BYTES: Final = 128 * 2**20


@dataclass(frozen=True)
class RangeRequest:
    """Byte ranges of one file, such as those of a block's bands. With `clip` the file may end inside them."""

    place: str
    starts: Sequence[int]
    lengths: Sequence[int]
    clip: bool = False

    @property
    def size(self) -> int:
        """Bytes in all ranges together."""
        return sum(self.lengths)


@dataclass(frozen=True)
class FailedRange:
    """The number of the range of a `RangeRequest` that can't be read, and the error."""

    span: int
    error: ReadError


@dataclass(eq=False)
class MergedRequest:
    """One range to be requested, and the ranges that lie in it, as (number of the `RangeRequest`, number in it)."""

    place: str
    start: int
    stop: int
    waste: int = 0
    parts: list[tuple[int, int]] = field(default_factory=list)
    clip: bool = False
    answer: Future[Any] = field(default_factory=Future, repr=False)
    started: bool = False
    unread: int = 0
    """Number of parts that may still be read."""

    @property
    def size(self) -> int:
        """Bytes requested."""
        return self.stop - self.start

    @property
    def first(self) -> int:
        """Number of the first `RangeRequest` that has a part in it."""
        return min(self.parts)[0]


def merge(requests: Sequence[RangeRequest], first: int = 0) -> list[MergedRequest]:
    """Merge neighbouring ranges, and order them by who needs them first.

    Parameters
    ----------
    requests : sequence of RangeRequest
        In the order in which they are needed.
    first : int
        Number of the first one.

    Returns
    -------
    list of MergedRequest

    Examples
    --------
    >>> block, right, far = (RangeRequest("t.tiff", [start], [400]) for start in (1000, 1408, 900_000))
    >>> [(r.start, r.stop, r.parts) for r in merge([block, far, right])]
    [(1000, 1808, [(0, 0), (2, 0)]), (900000, 900400, [(1, 0)])]
    """
    spans = sorted(
        (request.place, start, start + length, number, span, request.clip)
        for number, request in enumerate(requests, first)
        for span, (start, length) in enumerate(zip(request.starts, request.lengths, strict=True))
    )
    merged: list[MergedRequest] = []
    for place, start, stop, number, span, clip in spans:
        last = merged[-1] if merged and merged[-1].place == place else None
        if last is not None:
            waste = last.waste + max(0, start - last.stop)
            fits = waste <= MAX_WASTE_BYTES and max(stop, last.stop) - last.start <= MAX_REQUEST_BYTES
            if stop <= last.stop or fits:
                last.stop, last.waste = max(stop, last.stop), waste
                last.parts.append((number, span))
                last.clip |= clip
                continue
        merged.append(MergedRequest(place, start, stop, parts=[(number, span)], clip=clip))
    for request in merged:
        request.unread = len(request.parts)
    merged.sort(key=lambda request: min(request.parts))
    return merged


def stream(
    requests: Sequence[RangeRequest], network: Network = NETWORK
) -> Generator[list[Any] | FailedRange, None, None]:
    """Yield the ranges of each request, in order; their bytes are waited for when they are read.

    At most `network.max_concurrent` requests are under way, and about `AHEAD_BYTES` are under way or unread
    (twice as many while a reader waits).
    A remote range raises `ReadError` when it is read; a local one that can't be read is a `FailedRange` at once.
    """
    if all(local_path(request.place) is not None for request in requests):
        yield from map(_local_ranges, requests)
        return
    scheduler = _Scheduler(requests, network)
    try:
        for number in range(len(requests)):
            yield scheduler.ranges(number)
    finally:
        scheduler.close()


def _local_ranges(request: RangeRequest) -> list[LocalRange] | FailedRange:
    """Return ranges of a local file, to be read when they are decoded, or the first one that can't be read."""
    ranges: list[LocalRange] = []
    try:
        file = LocalFile(request.place)
        for start, length in zip(request.starts, request.lengths, strict=True):
            ranges.append(file.range(start, length, clip=request.clip))
    except ReadError as error:
        return FailedRange(len(ranges), error)
    return ranges


class RemoteRange:
    """A range that was or will be requested; reading it waits for the answer, and releases its memory."""

    __slots__ = ("_clip", "_length", "_place", "_request", "_scheduler", "_start")

    def __init__(self, scheduler: _Scheduler, request: MergedRequest, start: int, length: int) -> None:
        self._scheduler, self._place, self._clip = scheduler, request.place, request.clip
        self._start, self._length = start, length
        self._request: MergedRequest | None = request

    def __len__(self) -> int:
        return self._length

    def __bytes__(self) -> bytes:
        return bytes(self.read())

    def __del__(self) -> None:
        if self._request is not None:
            self._scheduler.release(self._request)

    def read(self) -> memoryview:
        """Return the bytes.

        Raises
        ------
        ReadError
            If they can't be read.
        """
        request = self._request
        if request is None:  # a second read is rare, and costs another request
            network = self._scheduler.network
            return memoryview(fetch(self._place, self._start, self._length, network, clip=self._clip))
        self._scheduler.expedite(request)
        try:
            with interruptible():
                whole = memoryview(request.answer.result())
        finally:
            self._request = None
            self._scheduler.release(request)
        first = self._start - request.start
        return whole[first : first + self._length]


class _Scheduler:
    """Sends requests ahead of their consumer, within the limits of bytes and of concurrent requests."""

    def __init__(self, requests: Sequence[RangeRequest], network: Network) -> None:
        self.network = network
        self._requests = requests
        self._lock = threading.RLock()  # the garbage collector may release a range at any point
        self._queue: deque[MergedRequest] = deque()
        self._merged: dict[int, list[MergedRequest]] = {}  # by the numbers of the requests that have parts in them
        self._n_batched = 0
        self._n_yielded = 0
        self._under_way = 0
        self._bytes_ahead = 0
        self._awaited = -1  # the last request that a reader waits for
        self._late: set[MergedRequest] = set()  # what readers wait for
        self._stop = threading.Event()

    def __del__(self) -> None:
        self._stop.set()  # nobody can read what is still under way: no further attempts

    def ranges(self, number: int) -> list[RemoteRange]:
        """Return the ranges of a request."""
        request = self._requests[number]
        found: list[Any] = [None] * len(request.starts)
        with self._lock:
            while number >= self._n_batched:
                self._merge_batch()
            for merged in self._merged.pop(number, []):
                for owner, span in merged.parts:
                    if owner == number:
                        found[span] = RemoteRange(self, merged, request.starts[span], request.lengths[span])
            self._n_yielded = number + 1
        self._send()
        return found

    def close(self) -> None:
        """Send no more requests, except for ranges that were yielded already."""
        with self._lock:
            self._n_batched = len(self._requests)
            self._queue = deque(merged for merged in self._queue if merged.first < self._n_yielded)

    def expedite(self, merged: MergedRequest) -> None:
        """Send everything up to a request, whatever the limit of bytes, and more beyond it: a reader waits for it."""
        if not merged.answer.done():
            with self._lock:
                self._awaited = max(self._awaited, merged.first)
                self._late.add(merged)
            self._send()

    def release(self, merged: MergedRequest) -> None:
        """Count a part as read, or as no longer needed."""
        with self._lock:
            self._late.discard(merged)
            merged.unread -= 1
            if merged.unread or not merged.started:
                return
            self._bytes_ahead -= merged.size
        self._send()

    def answered(self) -> None:
        """Count a request as answered."""
        with self._lock:
            self._under_way -= 1
        self._send()

    def _send(self) -> None:
        """Send as many requests as the limits allow."""
        with self._lock:
            while self._under_way < self.network.max_concurrent:
                if not self._queue:
                    if self._n_batched >= len(self._requests):
                        return
                    self._merge_batch()
                    continue
                merged = self._queue.popleft()  # at once: releasing a range may call this method again
                most = AHEAD_BYTES * (2 if self._late else 1)
                too_far = self._bytes_ahead and self._bytes_ahead + merged.size > most
                if too_far and merged.first > self._awaited:
                    self._queue.appendleft(merged)
                    return
                if merged.unread:
                    merged.started = True
                    self._bytes_ahead += merged.size
                    self._under_way += 1
                    _threads.submit(merged, self.network, self._stop, weakref.ref(self))

    def _merge_batch(self) -> None:
        first, self._n_batched = self._n_batched, _batch_end(self._requests, self._n_batched)
        for merged in merge(self._requests[first : self._n_batched], first):
            self._queue.append(merged)
            for number in {owner for owner, _ in merged.parts}:
                self._merged.setdefault(number, []).append(merged)


def _batch_end(requests: Sequence[RangeRequest], first: int) -> int:
    """Return where the batch ends that begins with the request `first`."""
    size, stop = 0, first
    while stop < len(requests):
        size += requests[stop].size
        if size > BATCH_BYTES and stop > first:
            break
        stop += 1
    return stop


def cost(requests: Sequence[RangeRequest]) -> tuple[int, int]:
    """Return the number of requests that `stream` will send, and their bytes."""
    n_requests = n_bytes = first = 0
    while first < len(requests):
        stop = _batch_end(requests, first)
        merged = merge(requests[first:stop])
        n_requests, n_bytes = n_requests + len(merged), n_bytes + sum(request.size for request in merged)
        first = stop
    return n_requests, n_bytes


def _answer(merged: MergedRequest, network: Network, stop: threading.Event, scheduler: weakref.ref[_Scheduler]) -> None:
    """Send a request, and give its answer or its error to those who wait for it."""
    try:
        data = fetch(merged.place, merged.start, merged.size, network, clip=merged.clip, stop=stop)
        merged.answer.set_result(data)
    except BaseException as error:  # it is raised in the thread that reads the range
        merged.answer.set_exception(error)
    if (sender := scheduler()) is not None:
        sender.answered()


class _Threads:
    """Threads that wait for answers, started as needed; a process that ends doesn't wait for them."""

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)

    def submit(self, *task: Any) -> None:
        self._tasks.put(task)
        if not self._idle.acquire(blocking=False):
            threading.Thread(target=self._work, name="fetch", daemon=True).start()

    def _work(self) -> None:
        while True:
            _answer(*self._tasks.get())
            self._idle.release()


_threads = _Threads()


def _forget() -> None:
    """Start afresh in a forked process, which has none of the threads."""
    global _threads
    _threads = _Threads()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
