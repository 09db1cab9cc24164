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
import io
import os
import re
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urljoin, urlsplit, urlunsplit

CONNECT_S: Final = 10.0  # time limit of a connection's opening
_NEXT_ADDRESS_S: Final = 2.0  # after this a server's next address is tried; a lost packet is sent again within it
_TLS_ATTEMPTS: Final = 3
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


class Answer(http.client.HTTPResponse):
    """An answer whose headers have arrived."""

    def read_into(self, buffer: memoryview) -> int:
        """Read what has arrived, at least a byte; 0 at the end of the body, wherever it is."""
        if self.length is None:  # chunks, or as much as comes
            return self.readinto(buffer[: 2**16])
        n: int = self.fp.readinto1(buffer[: self.length]) if self.length else 0
        self.length -= n
        return n


class _Incoming(io.RawIOBase):
    """What arrives over a connection, as a file that an answer can be read from."""

    def __init__(self, sock: socket.socket, wait: Wait) -> None:
        self._sock, self._wait = sock, wait
        self._file = sock.makefile("rb", buffering=0)  # the socket stays open as long as its files
        sock.settimeout(_SLICE_S)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._wait.receive(self._sock, buffer)

    def close(self) -> None:
        self._file.close()
        super().close()


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

    def begin(self) -> None:
        """Begin to count: a request was sent."""
        self._since, self._n = time.monotonic(), 0

    def receive(self, sock: socket.socket, buffer: memoryview) -> int:
        """Read what has arrived, at least a byte; 0 at the end."""
        while True:
            try:
                n = sock.recv_into(buffer)
            except TimeoutError:
                self._look()
                continue
            self._n += n
            now = time.monotonic()
            self.longest_s = max(self.longest_s, now - self._since)
            if self._n >= _TRICKLE_BYTES:  # a few at a time are as good as none
                self._since, self._n = now, 0
            elif now - self._since > _SLICE_S:
                self._look()
            return n

    def _look(self) -> None:
        self._check()
        if time.monotonic() - self._since > self._limit_s():
            raise FailedError("no answer in time", silent=True)


@contextmanager
def get(url: str, headers: Mapping[str, str], wait: Wait, *, connect_s: float) -> Iterator[Answer]:
    """Send a GET request, and yield the answer, with a status of 200 or 206; redirects are followed.

    Raises
    ------
    FailedError
        If there is no such answer.
    """
    for _ in range(_MOST_REDIRECTS):
        with _exchange(url, headers, wait, connect_s) as answer:
            if answer.status in (301, 302, 303, 307, 308) and "Location" in answer.headers:
                url = _redirected(url, answer.headers["Location"])
                continue
            _check_status(answer)
            yield answer
            return
    raise FailedError("the server redirects in a circle", 1)


def _redirected(url: str, location: str) -> str:
    try:
        found = urljoin(url, location)
        unsafe = urlsplit(url).scheme == "https" and urlsplit(found).scheme == "http"
    except ValueError as error:
        raise FailedError("the server redirects to no valid http or https URL", 1) from error
    if unsafe:
        raise FailedError("the server redirects from https to http, where anyone may read or change the answer", 1)
    return found


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
_found: set[str] = set()  # names whose addresses are known
_dead: dict[Any, float] = {}  # addresses that didn't answer, and when


@contextmanager
def _exchange(url: str, headers: Mapping[str, str], wait: Wait, connect_s: float) -> Iterator[Answer]:
    """Send one request over a kept or a new connection; keep the connection if the answer is read to its end."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise FailedError("no valid http or https URL", 1)
    key = (parts.scheme, parts.netloc)
    connection = answer = None
    try:
        connection, answer = _send(key, parts, headers, wait, connect_s)
        yield answer
        if (answer.length == 0 or answer.isclosed()) and connection.sock is not None:
            answer.close()
            with _lock:
                _idle.setdefault(key, []).append((connection, time.monotonic()))
            connection = None
    except (http.client.InvalidURL, UnicodeError) as error:  # its text may hold a signature
        raise FailedError("no valid URL", 1) from error
    except http.client.HTTPException as error:
        if isinstance(error, http.client.IncompleteRead | ConnectionError):
            raise FailedError("the connection broke off") from error
        raise FailedError(f"the server doesn't answer in HTTP ({type(error).__name__})") from error
    except OSError as error:
        raise _unconnected(error, parts.hostname or "") from error
    finally:
        if answer is not None:
            answer.close()
        if connection is not None:
            connection.close()


def _unconnected(error: OSError, host: str) -> FailedError:
    """Return what an error of the system means."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return FailedError(f"the server's certificate isn't trusted: {error.verify_message}", 1)
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
        return FailedError(f"no encrypted connection ({error.reason})", _TLS_ATTEMPTS)
    if isinstance(error, socket.gaierror):  # the name of a server that was found before is right
        wrong = error.errno == socket.EAI_NONAME and host not in _found
        return FailedError(f"no address is known for {host}: check the name, or the network", 1 if wrong else None)
    if tunnel := re.match(r"Tunnel connection failed: (\d+)", str(error)):
        return FailedError(f"the proxy answers {tunnel[1]}", None if int(tunnel[1]) >= 500 else 1)
    if isinstance(error, TimeoutError):
        return FailedError("no answer in time", silent=True)
    return FailedError("no connection, or it was dropped")


def _send(
    key: tuple[str, str], parts: SplitResult, headers: Mapping[str, str], wait: Wait, connect_s: float
) -> tuple[http.client.HTTPConnection, Any]:
    """Return a connection and an answer; a kept connection that turns out to be closed is replaced."""
    server = parts.netloc.rpartition("@")[2]
    more = {"User-Agent": "gee_polygons", **headers, **_password("Authorization", parts)}
    through = _proxy(parts.scheme, server)
    target = urlunsplit(("", "", parts.path or "/", parts.query, ""))
    if through and parts.scheme == "http":
        target = urlunsplit(("http", server, parts.path or "/", parts.query, ""))
        more |= _password("Proxy-Authorization", through)
    while True:
        kept = _kept(key)
        connection = kept or _connect(parts, through, connect_s)
        try:
            if kept is None:
                connection.connect()
            connection.sock.settimeout(connect_s)
            connection.request("GET", target, headers=more)
            wait.begin()
            incoming: Any = _Incoming(connection.sock, wait)
            connection.response_class = lambda _, incoming=incoming, **how: Answer(incoming, **how)
            return connection, connection.getresponse()
        except BaseException as error:
            connection.close()
            if kept is None or not isinstance(error, ConnectionError | ssl.SSLError | http.client.BadStatusLine):
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


def _connect(parts: SplitResult, through: SplitResult | None, connect_s: float) -> http.client.HTTPConnection:
    """Return a connection that is not open yet."""
    host, port = parts.hostname or "", parts.port
    if through is not None:
        host, port = through.hostname or "", through.port or 80
    if parts.scheme == "http":
        connection = http.client.HTTPConnection(host, port, timeout=connect_s)
    else:
        with _lock:  # its certificates are read once
            context = _tls()
        connection = http.client.HTTPSConnection(host, port, timeout=connect_s, context=context)
        if through is not None:
            connection.set_tunnel(parts.hostname or "", parts.port, _password("Proxy-Authorization", through))
    connection._create_connection = _open  # type: ignore[attr-defined]
    return connection


def _open(address: tuple[str, int], connect_s: float, source: Any = None) -> socket.socket:
    """Connect to a server's first address that answers; those that didn't last time are tried last."""
    addresses = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
    _found.add(address[0])
    addresses.sort(key=lambda each: _dead.get(each[4], 0.0))
    for number, (family, kind, protocol, _, where) in enumerate(addresses, 1):
        sock = None
        try:
            sock = socket.socket(family, kind, protocol)
            sock.settimeout(connect_s if number == len(addresses) else min(connect_s, _NEXT_ADDRESS_S))
            sock.connect(where)
        except OSError:
            _dead[where] = time.monotonic()
            if sock is not None:
                sock.close()
            if number == len(addresses):
                raise
        else:
            _dead.pop(where, None)
            sock.settimeout(connect_s)
            return sock
    raise OSError("no address")


@lru_cache(maxsize=64)
def _proxy(scheme: str, server: str) -> SplitResult | None:
    """Return the URL of the proxy that the environment names for a server."""
    found = urllib.request.getproxies().get(scheme, "")
    if not found or urllib.request.proxy_bypass(server):
        return None
    through = urlsplit(found if "://" in found else f"http://{found}")
    if through.scheme != "http":
        raise FailedError(f"the proxy has to be an http URL, and is {through.scheme}", 1)
    return through


def _password(header: str, parts: SplitResult) -> dict[str, str]:
    """Return the header that holds a URL's user and password, if it has any."""
    pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    return {header: f"Basic {base64.b64encode(pair.encode()).decode()}"} if parts.username else {}


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    """Return the trusted certificates: the system's, those that SSL_CERT_FILE and SSL_CERT_DIR name, and certifi's."""
    import certifi

    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def _forget() -> None:
    """Start afresh in a forked process: connections are its parent's."""
    global _lock, _idle
    _lock, _idle = threading.Lock(), {}


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
