"""Makes one request for bytes of a file: checks the answer's length, and retries transient errors."""

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
from typing import Any, Final

from gee_polygons.errors import ReadError, UsageError
from gee_polygons.network.local import LocalFile, MissingFileError
from gee_polygons.network.places import local_path, locate, without_query

_LENGTH_ATTEMPTS: Final = 3  # a server that answers with a wrong length mostly goes on doing so
_UNLIMITED: Final = 10**6  # attempts: `Network.attempts` decides

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Network:
    """Retry and concurrency settings.

    Parameters
    ----------
    max_concurrent : int
        Maximum number of simultaneous requests, over all blocks of a call.
    attempts : int
        Maximum number of attempts for one request, the first included, where the error is transient: 5xx, 429, a
        dropped connection, an incomplete body, a time-out. Others (404, 403, 416) are raised at once.
    first_wait_s, longest_wait_s : float
        Wait before the second attempt; it doubles from attempt to attempt, up to the longest. Up to half of each wait
        is left out at random.
    timeout_s : float
        Time limit of one request.
    give_up_after_s : float
        No new attempt is made this long after the first.
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
            raise UsageError(f"max_concurrent={self.max_concurrent}, attempts={self.attempts}: both must be at least 1")
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
    if clip:
        return fetch_some(place, start, length, network, stop=stop)[0]
    if local_path(place) is not None:
        return LocalFile(place).read(start, length)
    import obstore

    def ask(store: Any, path: str) -> Any:
        return _checked(obstore.get_range(store, path, start=start, length=length), start, length)

    return _with_retries(place, network, ask, stop)


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
    return _read(place, slice(start, start + length), network, stop)


def fetch_end(place: str, length: int, network: Network = NETWORK) -> tuple[Any, int]:
    """Read the last bytes of a file. Returns them and the file's size; retries and errors as in `fetch`."""
    return _read(place, slice(-length, None), network)


def fetch_whole(place: str, network: Network = NETWORK) -> Any:
    """Read a whole file; retries and errors as in `fetch`."""
    return _read(place, slice(None), network)[0]


def _read(place: str, part: slice, network: Network, stop: threading.Event | None = None) -> tuple[Any, int]:
    """Return a part of a file, clipped at the file's end, and the file's size."""
    if local_path(place) is not None:
        file = LocalFile(place)
        first, last, _ = part.indices(file.size)
        if part.start is not None and part.start >= file.size:  # nothing of it is there, which is an error
            first, last = part.start, part.stop
        return file.read(first, last - first), file.size
    found: tuple[Any, int] = _with_retries(place, network, lambda store, path: _get(store, path, part), stop)
    return found


def _get(store: Any, path: str, part: slice) -> tuple[Any, int]:
    """Return a part of a remote file, and the file's size, by one request."""
    import obstore

    # not a HEAD request for the size: a signed URL is valid for GET only, and HEAD's answer can't be checked
    from_end = part.start is not None and part.start < 0
    wanted: Any = {"suffix": -part.start} if from_end else None if part.start is None else (part.start, part.stop)
    try:
        answer = obstore.get(store, path, options={"range": wanted} if wanted else {})
    except Exception as error:
        if not from_end or type(error).__name__ in _REFUSED or _diagnose(error)[1] > 1:
            raise
        # not every server supports ranges counted from the end; this costs one more request
        size = _get(store, path, slice(0, 1))[1]
        return _get(store, path, slice(max(size + part.start, 0), size))
    size = int(answer.meta["size"])
    first, last, _ = part.indices(size)
    return _checked(answer.bytes(), first, last - first), size


class _LengthError(Exception):
    """An answer has another length than the range that was requested."""


def _checked(data: Any, start: int, length: int) -> Any:
    if len(data) != length:
        raise _LengthError(f"{length} bytes asked for at {start}, {len(data)} found: truncated")
    return data


def _with_retries(
    place: str, network: Network, ask: Callable[[Any, str], Any], stop: threading.Event | None = None
) -> Any:
    """Call `ask(store, path)` until it succeeds, or another attempt is pointless."""
    if _Process.was_forked_late:  # the request would never be answered
        raise ReadError(
            f"{place}: can't be read: this process was forked from one that has made requests; start it with "
            "multiprocessing's 'spawn' or 'forkserver'",
            url=place,
        )
    _Process.has_requested = True
    store, path = locate(place, network.timeout_s)
    began = time.monotonic()
    failures: Counter[int] = Counter()  # by the number of attempts that this kind of failure deserves
    for attempt in range(1, network.attempts + 1):
        try:
            return ask(store, path)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # pyo3's PanicException isn't an Exception
            reason, most = _diagnose(error)
            missing = type(error).__name__ == "FileNotFoundError"
        failures[most] += 1
        hopeless = attempt >= network.attempts or failures[most] >= most
        wait = min(network.longest_wait_s, network.first_wait_s * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.0)
        late = time.monotonic() - began + wait > network.give_up_after_s
        if hopeless or late or (stop is not None and stop.is_set()):
            tries = f" after {attempt} tries" if attempt > 1 else ""
            kind = MissingFileError if missing else ReadError
            raise kind(f"{place}: can't be read{tries}: {reason}", url=place)
        log.info("%s: %s; try %d of %d follows in %.2f s", place, reason, attempt + 1, network.attempts, wait)
        (stop or threading.Event()).wait(wait)
    raise AssertionError("unreachable")


class _Process:
    """Whether this process can make requests: a forked child lacks its parent's threads, obstore's included."""

    has_requested = False
    was_forked_late = False

    @classmethod
    def after_fork(cls) -> None:
        cls.was_forked_late = cls.has_requested


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_Process.after_fork)


# --- what an error means: a reason for the user, and the number of attempts that it deserves

_REFUSED: Final[dict[str, str]] = {  # obstore's classes
    "FileNotFoundError": "there is no such file",
    "PermissionDeniedError": "access is denied (403)",
    "UnauthenticatedError": "access needs credentials (401); the archive is read anonymously",
}
_STATUS: Final = re.compile(r"status code: (\d{3})(?: ([A-Z][A-Za-z ]+?))?(?=:| Debug|$)")
_TRANSIENT_STATUS: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_WRONG_RANGE: Final = re.compile(r"Requested (\d+)\.\.(\d+), got (\d+)\.\.(\d+)")
_KNOWN_TEXTS: Final = (  # of obstore's messages, the first that fits
    ("range was invalid|InvalidRange", "truncated: it ends before the bytes asked for", 1),
    ("following redirect", "the server redirects in a circle", 1),
    ("body error", "the connection broke off in the middle of the answer", _UNLIMITED),
    ("timed out|TimedOut|kind: Timeout", "no answer in time", _UNLIMITED),
    ("error sending request", "no connection, or it was dropped", _UNLIMITED),
)


def _diagnose(error: BaseException) -> tuple[str, int]:
    """Return what went wrong, in words, and how many attempts this kind of failure deserves in all."""
    text = without_query(" ".join(str(error).split()))
    name = type(error).__name__
    if isinstance(error, _LengthError):
        return text, _LENGTH_ATTEMPTS
    if name in _REFUSED:
        return _REFUSED[name], 1
    if "Range request not supported" in text:
        return "the server doesn't serve byte ranges", 1
    if status := _STATUS.search(text):
        code = int(status[1])
        reason = f"the server answers {code} {status[2] or ''}".strip()
        return reason, _UNLIMITED if code in _TRANSIENT_STATUS or code >= 520 else 1
    if found := _WRONG_RANGE.search(text):
        asked, answered = f"{found[1]}-{found[2]}", f"{found[3]}-{found[4]}"
        return f"bytes {asked} asked for, {answered} found: truncated, or a faulty server", _LENGTH_ATTEMPTS
    for pattern, reason, attempts in _KNOWN_TEXTS:
        if re.search(pattern, text, re.IGNORECASE):
            return reason, attempts
    return f"{name}: {text[:200]}", _UNLIMITED if name in ("GenericError", "PanicException") else 1
