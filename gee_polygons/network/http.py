"""Requests byte ranges by HTTP over connections that are kept, and reads answers as they arrive.

The standard library's client, and not obstore: its time limits are those of one read from the connection, its answers
come with their headers (`Retry-After`), what has arrived before a connection breaks off is kept, and a forked process
can use it.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import email.utils
import http.client
import os
import re
import select
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote, urljoin, urlsplit

CONNECT_S: Final = 10.0  # time limit of a connection's opening
_IDLE_S: Final = 20.0  # a connection unused for longer may be dead without saying so
_MOST_REDIRECTS: Final = 10
_SLICE_S: Final = 0.5  # how often a wait for bytes looks whether it should go on
_TRICKLE_BYTES: Final = 1024  # fewer bytes than these count as silence


class FailedError(Exception):
    """A request failed.

    Parameters
    ----------
    reason : str
        For the user.
    attempts : int, optional
        How often a request that fails in this way is sent at most; None: as often as its settings allow.
    silent : bool
        Whether the server said nothing for too long.
    status : int
        HTTP's, if there was an answer.
    retry_after_s : float
        Wait that the server asks for.
    """

    def __init__(
        self, reason: str, attempts: int | None = None, *, silent: bool = False, status: int = 0,
        retry_after_s: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(reason)
        self.reason, self.attempts, self.silent = reason, attempts, silent
        self.status, self.retry_after_s = status, retry_after_s
        self.missing = status == 404


class Answer:
    """An answer whose headers have arrived."""

    def __init__(self, sock: Any, response: http.client.HTTPResponse, wait: Wait) -> None:
        self._response, self._socket, self._wait = response, sock, wait
        self.status = response.status
        self.headers = response.headers
        self.length = response.length
        """Bytes of the body; None where the server doesn't say."""
        self._left = response.length
        self._buffered = True  # bytes of the body may have come with the headers

    @property
    def is_complete(self) -> bool:
        """Whether all of the body has been read, so that the connection can be used again."""
        return self._left == 0 or self._response.isclosed()

    def close(self) -> None:
        """Read no more."""
        self._response.close()

    def read_into(self, buffer: memoryview) -> int:
        """Read what has arrived, at least a byte; 0 at the end of the body, wherever it is."""
        if self._left is None:  # chunks, or as much as comes
            n = self._response.readinto(buffer[: 2**16])
            self._wait.count(n)
            return n
        buffer = buffer[: self._left]
        if not len(buffer):
            return 0
        if self._buffered:
            n = self._response.fp.readinto1(buffer)
            self._wait.count(n)
            self._socket.settimeout(_SLICE_S)
            self._buffered = False
        else:
            n = self._wait.receive(self._socket, buffer)
        self._left -= n
        return n


class Wait:
    """Waits for bytes, until they have been missing for too long.

    Parameters
    ----------
    limit_s : callable
        Returns how long a server may be silent.
    check : callable
        Raises an error where nobody needs the bytes any more.
    """

    def __init__(self, limit_s: Callable[[], float], check: Callable[[], None]) -> None:
        self._limit_s, self._check = limit_s, check
        self._since = time.monotonic()
        self._n = 0
        self.longest_s = 0.0
        """The longest silence so far."""

    def ready(self, sock: socket.socket) -> None:
        """Wait for the first byte of an answer."""
        self._since = time.monotonic()
        while not _readable(sock, _SLICE_S):
            self._look()

    def receive(self, sock: socket.socket, buffer: memoryview) -> int:
        """Read what has arrived, at least a byte; 0 at the end."""
        while True:
            try:
                n = sock.recv_into(buffer)
            except TimeoutError:
                self._look()
                continue
            self.count(n)
            return n

    def count(self, n: int) -> None:
        """Count bytes that have arrived; a few at a time are as good as none."""
        self._n += n
        now = time.monotonic()
        if self._n >= _TRICKLE_BYTES:
            self.longest_s = max(self.longest_s, now - self._since)
            self._since, self._n = now, 0
        elif now - self._since > _SLICE_S:
            self._look()

    def _look(self) -> None:
        self._check()
        if time.monotonic() - self._since > self._limit_s():
            raise FailedError("no answer in time", silent=True)


@contextmanager
def get(url: str, headers: Mapping[str, str], wait: Wait, *, connect_s: float = CONNECT_S) -> Iterator[Answer]:
    """Send a GET request, and yield the answer, with a status of 200 or 206; redirects are followed.

    Raises
    ------
    FailedError
        If there is no such answer.
    """
    for _ in range(_MOST_REDIRECTS):
        with _exchange(url, headers, wait, connect_s) as answer:
            if answer.status in (301, 302, 303, 307, 308) and "Location" in answer.headers:
                url = urljoin(url, answer.headers["Location"])
                continue
            _check_status(answer)
            yield answer
            return
    raise FailedError("the server redirects in a circle", 1)


_REFUSALS: Final = {
    401: "access needs credentials (401); the archive is read anonymously",
    403: "access is denied (403)",
    404: "there is no such file",
    410: "there is no such file any more (410)",
    416: "truncated: it ends before the bytes asked for (416)",
}
_TRANSIENT: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


def _check_status(answer: Answer) -> None:
    code = answer.status
    if code in (200, 206):
        return
    reason = _REFUSALS.get(code) or f"the server answers {code} {http.client.responses.get(code, '')}".strip()
    if code not in _TRANSIENT and code < 520:
        raise FailedError(reason, 1, status=code)
    raise FailedError(reason, status=code, retry_after_s=_seconds(answer.headers.get("Retry-After", "")))


def _seconds(stated: str) -> float:
    """Return the seconds of a Retry-After header, which may be a date."""
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        if re.fullmatch(r"\s*\d{1,9}\s*", stated):
            return float(stated)
        return max(0.0, email.utils.parsedate_to_datetime(stated).timestamp() - time.time())
    return 0.0


# --- connections

_lock = threading.Lock()
_idle: dict[tuple[str, str], list[tuple[Any, float]]] = {}


@contextmanager
def _exchange(url: str, headers: Mapping[str, str], wait: Wait, connect_s: float) -> Iterator[Answer]:
    """Send one request over a kept or a new connection; keep the connection if the answer is read to its end."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise FailedError("the server redirects to what is no http or https URL", 1)
    key = (parts.scheme, parts.netloc)
    connection = answer = None
    try:
        connection, answer = _send(key, url, headers, wait, connect_s)
        yield answer
        if answer.is_complete and connection.sock is not None:
            answer.close()
            with _lock:
                _idle.setdefault(key, []).append((connection, time.monotonic()))
            connection = None
    except ssl.SSLCertVerificationError as error:
        raise FailedError(f"the server's certificate isn't trusted: {error.verify_message}", 1) from error
    except TimeoutError as error:
        raise FailedError("no answer in time", silent=True) from error
    except (http.client.InvalidURL, UnicodeError) as error:
        raise FailedError(f"no valid URL: {error}", 1) from error
    except (http.client.IncompleteRead, ConnectionError) as error:
        raise FailedError("the connection broke off" if connection else "no connection, or it was dropped") from error
    except http.client.HTTPException as error:
        raise FailedError(f"the server doesn't answer in HTTP ({type(error).__name__})") from error
    except OSError as error:
        raise FailedError("no connection, or it was dropped") from error
    finally:
        if answer is not None:
            answer.close()
        if connection is not None:
            connection.close()


def _send(
    key: tuple[str, str], url: str, headers: Mapping[str, str], wait: Wait, connect_s: float
) -> tuple[http.client.HTTPConnection, Answer]:
    """Return a connection and an answer; a kept connection that turns out to be closed is replaced."""
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    while True:
        connection = _kept(key)
        is_new = connection is None
        if connection is None:
            connection = _connect(key, parts, connect_s)
        try:
            if connection.sock is None:
                connection.timeout = connect_s
                connection.connect()
            sock = connection.sock
            sock.settimeout(connect_s)
            more = _with_password(parts, headers)
            if key[0] == "http" and (through := _proxy(*key)):
                target, more = url, more | _for_proxy(through)
            connection.request("GET", target, headers=more)
            wait.ready(sock)
            sock.settimeout(max(_SLICE_S, wait._limit_s()))
            return connection, Answer(sock, connection.getresponse(), wait)
        except BaseException as error:
            connection.close()
            if is_new or not isinstance(error, ConnectionError | http.client.BadStatusLine):
                raise


def _kept(key: tuple[str, str]) -> Any:
    _close_idle(_IDLE_S)
    with _lock:
        return _idle[key].pop()[0] if _idle.get(key) else None


def _close_idle(seconds: float = 0.0) -> None:
    """Close connections that have not been used for so long."""
    with _lock:
        for kept in _idle.values():
            while kept and time.monotonic() - kept[0][1] >= seconds:
                kept.pop(0)[0].close()


atexit.register(_close_idle)


def _connect(key: tuple[str, str], parts: Any, connect_s: float) -> http.client.HTTPConnection:
    host, port = parts.hostname, parts.port
    through = urlsplit(_proxy(*key))
    if not through.hostname:
        if parts.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=connect_s)
        return http.client.HTTPSConnection(host, port, timeout=connect_s, context=_tls())
    if parts.scheme == "http":
        return http.client.HTTPConnection(through.hostname, through.port, timeout=connect_s)
    tunnel = http.client.HTTPSConnection(through.hostname, through.port, timeout=connect_s, context=_tls())
    tunnel.set_tunnel(host, port, _for_proxy(through.geturl()))
    return tunnel


def _for_proxy(through: str) -> dict[str, str]:
    password = _with_password(urlsplit(through), {}).get("Authorization")
    return {"Proxy-Authorization": password} if password else {}


@lru_cache(maxsize=64)
def _proxy(scheme: str, netloc: str) -> str:
    """Return the URL of the proxy that the environment names for a server, or nothing."""
    host = netloc.rpartition("@")[2]
    found = urllib.request.getproxies().get(scheme, "")
    return "" if not found or urllib.request.proxy_bypass(host) else found if "://" in found else f"http://{found}"


def _with_password(parts: Any, headers: Mapping[str, str]) -> dict[str, str]:
    found = {"User-Agent": "gee_polygons", **headers}
    if parts.username:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        found["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    return found


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    import certifi

    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def _readable(sock: socket.socket, seconds: float) -> bool:
    """Wait until there is something to read."""
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([sock], [], [], seconds)[0])
    waiting = select.poll()
    waiting.register(sock, select.POLLIN)
    return bool(waiting.poll(seconds * 1000))


def _forget() -> None:
    """Start afresh in a forked process: connections are its parent's."""
    global _lock, _idle
    _lock, _idle = threading.Lock(), {}


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
