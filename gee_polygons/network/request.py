"""One request over a network that may be slow and faulty: checked, and tried again where that can help."""

from __future__ import annotations

import logging
import os
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from gee_polygons.errors import ReadError, UsageError
from gee_polygons.network.local import AbsentError, read_local, size_of
from gee_polygons.network.places import local_path, locate, without_query

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
    A buffer of `length` bytes; with `clip`, of all up to the file's end.

    Raises
    ------
    ReadError
        Naming the place.
    """
    if clip:
        return fetch_some(place, start, length, network, stop=stop)[0]
    if local_path(place) is not None:
        return read_local(place, start, length)
    import obstore

    def ask(store: Any, path: str) -> Any:
        return _checked(obstore.get_range(store, path, start=start, length=length), start, length)

    return _retried(place, network, ask, stop)


def fetch_some(
    place: str, start: int, length: int, network: Network = NETWORK, *, stop: threading.Event | None = None
) -> tuple[Any, int]:
    """Read a range that the file may end in; retries and errors as those of `fetch`.

    Returns
    -------
    data : buffer
        `length` bytes, or all up to the end.
    size : int
        The file's.
    """
    if local_path(place) is not None:
        return read_local(place, start, length, clip=True), size_of(place)
    import obstore

    def ask(store: Any, path: str) -> tuple[Any, int]:
        # not a HEAD request: a signed URL is good for GET only, and what HEAD says of the size can't be checked
        answer = obstore.get(store, path, options={"range": (start, start + length)})
        size = int(answer.meta["size"])
        return _checked(answer.bytes(), start, min(length, size - start)), size

    found: tuple[Any, int] = _retried(place, network, ask, stop)
    return found


def fetch_end(place: str, length: int, network: Network = NETWORK) -> tuple[Any, int]:
    """Read the last bytes of a file. Returns them and the file's size; retries and errors as those of `fetch`."""
    if local_path(place) is not None:
        size = size_of(place)
        return read_local(place, max(size - length, 0), min(length, size)), size
    import obstore

    def ask(store: Any, path: str) -> tuple[Any, int]:
        try:
            answer = obstore.get(store, path, options={"range": {"suffix": length}})
        except Exception as error:
            fault = _fault(error)
            if fault.attempts > 1 or fault.what in _WORDS.values():
                raise
            # not every server counts from the end; this costs one request more
            size = int(obstore.get(store, path, options={"range": (0, 1)}).meta["size"])
            start = max(size - length, 0)
            return _checked(obstore.get_range(store, path, start=start, length=size - start), start, size - start), size
        size = int(answer.meta["size"])
        return _checked(answer.bytes(), max(size - length, 0), min(length, size)), size

    found: tuple[Any, int] = _retried(place, network, ask)
    return found


def fetch_whole(place: str, network: Network = NETWORK) -> Any:
    """Read a whole file; retries and errors as those of `fetch`."""
    if local_path(place) is not None:
        return read_local(place, 0, size_of(place))
    import obstore

    def ask(store: Any, path: str) -> Any:
        answer = obstore.get(store, path)
        return _checked(answer.bytes(), 0, int(answer.meta["size"]))

    return _retried(place, network, ask)


class _ShortError(Exception):
    """An answer of another length than it should have."""


def _checked(data: Any, start: int, length: int) -> Any:
    if len(data) != length:
        raise _ShortError(f"{length} bytes asked for at {start}, {len(data)} found: truncated")
    return data


def _retried(place: str, network: Network, ask: Callable[[Any, str], Any], stop: threading.Event | None = None) -> Any:
    """Ask until there is a right answer, or no hope of one."""
    if _Process.forked_late:  # it would wait for ever
        raise ReadError(
            f"{place}: can't be read: this process was forked from one that has made requests; start it with "
            "multiprocessing's 'spawn' or 'forkserver'",
            url=place,
        )
    _Process.has_asked = True
    store, path = locate(place, network.timeout_s)
    began = time.monotonic()
    alike: Counter[int] = Counter()  # faults so far, by how often their kind is worth a try
    for attempt in range(1, network.attempts + 1):
        try:
            return ask(store, path)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic of pyo3 is no Exception
            fault = _fault(error)
        alike[fault.attempts] += 1
        hopeless = attempt >= network.attempts or alike[fault.attempts] >= fault.attempts
        wait = min(network.longest_wait_s, network.first_wait_s * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.0)
        late = time.monotonic() - began + wait > network.give_up_after_s
        if hopeless or late or (stop is not None and stop.is_set()):
            tries = f" after {attempt} tries" if attempt > 1 else ""
            kind = AbsentError if fault.what == _WORDS["FileNotFoundError"] else ReadError
            raise kind(f"{place}: can't be read{tries}: {fault.what}", url=place)
        log.info("%s: %s; try %d of %d follows in %.2f s", place, fault.what, attempt + 1, network.attempts, wait)
        if stop is not None:
            stop.wait(wait)
        else:
            time.sleep(wait)
    raise AssertionError("unreachable")


class _Process:
    """What this process has done: a forked child has its memory, and none of its threads, obstore's included."""

    has_asked = False
    forked_late = False

    @classmethod
    def after_fork(cls) -> None:
        cls.forked_late = cls.has_asked


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_Process.after_fork)


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
    text = without_query(" ".join(str(error).split()))
    name = type(error).__name__
    if isinstance(error, _ShortError):
        return _Fault(text, _LENGTH_ATTEMPTS)
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
    return _Fault(f"{name}: {text[:200]}", _MANY if name in ("GenericError", "PanicException") else 1)
