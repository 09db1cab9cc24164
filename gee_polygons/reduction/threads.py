"""Maps a function over items in threads and yields the results in order, few of them ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")


def in_order(workers: int, function: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """Map with threads, in order, never more than `workers` results ahead: `Executor.map` would hold them all.

    Items are taken in the calling thread, each when a thread is about to be free. After an error, or if no more results
    are taken, what is still waiting isn't started.

    Examples
    --------
    >>> list(in_order(2, abs, [3, -1, -2]))
    [3, 1, 2]
    """
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[Future[T]] = deque()
        try:
            for item in items:
                ahead.append(pool.submit(function, item))
                if len(ahead) > workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
