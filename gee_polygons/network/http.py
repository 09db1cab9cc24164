"""Requests byte ranges by HTTP over connections that are kept, and reads answers as they arrive.

Not obstore, nor the standard library's client: time limits are those of one read from the connection, answers come with
their headers (`Retry-After`), what has arrived before a connection breaks off is kept, a forked process can use it, and
only what is needed of an answer is parsed.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import email.utils
import os
import re
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from http.client import responses
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

CONNECT_S: Final = 10.0  # time limit of a connection's opening
_NEXT_ADDRESS_S: Final = 2.0  # after this a server's next address is tried; a lost packet is sent again within it
_ATTEMPTS: Final = 3  # at what a server mostly goes on doing: TLS that fails, answers that aren't HTTP
_IDLE_S: Final = 20.0  # a connection unused for longer may be dead without saying so
_MOST_REDIRECTS: Final = 10
_SLICE_S: Final = 0.5  # how often a wait for bytes looks whether it should go on
_TRICKLE_BYTES: Final = 1024  # fewer bytes than these count as silence
_MOST_HEAD_BYTES: Final = 2**15


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


class Connection:
    """An open connection, and the bytes that arrived ahead of their use."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.ahead = sock, bytearray()
        self.since = 0.0
        """When it was used last."""

    def take(self, buffer: memoryview, wait: Wait) -> int:
        """Read what has arrived, at least a byte; 0 at the end."""
        if not (n := min(len(self.ahead), len(buffer))):
            return wait.receive(self.sock, buffer)
        buffer[:n] = self.ahead[:n]
        del self.ahead[:n]
        return n

    def lines(self, end: re.Pattern[bytes], wait: Wait) -> str:
        """Read up to the end of a line or of a head."""
        piece = memoryview(bytearray(4096))
        while not (found := end.search(self.ahead)):
            if len(self.ahead) > _MOST_HEAD_BYTES:
                raise FailedError(f"{_NO_HTTP}: its headers don't end")
            if not (n := wait.receive(self.sock, piece)):
                raise FailedError(f"{_NO_HTTP}, or broke off") if self.ahead else ConnectionResetError
            self.ahead += piece[:n]
        text = self.ahead[: found.start()].decode("latin-1")
        del self.ahead[: found.end()]
        return text


_LINE: Final = re.compile(rb"\r?\n")
_HEAD: Final = re.compile(rb"\r?\n\r?\n")
_NO_HTTP: Final = "the server doesn't answer in HTTP"


class Answer:
    """An answer whose headers have arrived.

    Parameters
    ----------
    connection : Connection
    wait : Wait
    """

    def __init__(self, connection: Connection, wait: Wait) -> None:
        self._connection, self._wait = connection, wait
        self.status = n = 0
        while self.status < 200:  # such answers announce others
            first, *lines = connection.lines(_HEAD, wait).split("\n")
            stated = re.fullmatch(r"HTTP/1\.[01] (\d{3})\b.*", first.rstrip("\r"))
            if stated is None or (n := n + 1) > _MOST_REDIRECTS:
                raise FailedError(_NO_HTTP)
            self.status = int(stated[1])
        self.headers: dict[str, str] = {}
        """By their names in lower case."""
        for line in lines:
            name, _, value = line.partition(":")
            name, value = name.strip().lower(), value.strip()
            self.headers[name] = f"{self.headers[name]}, {value}" if name in self.headers else value
        lengths = {length.strip() for length in self.headers.get("content-length", "").split(",")}
        if len(lengths) > 1 or not re.fullmatch(r"\d{0,18}", stated_length := lengths.pop()):
            raise FailedError("no valid length is stated: a faulty server", _ATTEMPTS)
        self._chunked = (coding := self.headers.get("transfer-encoding", "").lower()) == "chunked"
        if coding not in ("", "identity", "chunked"):
            raise FailedError(
                f"the answer comes as {coding[:20]!r}, which wasn't asked for: a faulty server", _ATTEMPTS
            )
        self.length = int(stated_length) if stated_length and not self._chunked else None
        """Bytes of the body; None: not stated."""
        self._left = self.length  # or of a chunk; None: up to the connection's end
        kept = self.headers.get("connection", "close" if first.startswith("HTTP/1.0") else "keep-alive")
        self._keeps_alive = kept.lower() == "keep-alive"

    @property
    def is_complete(self) -> bool:
        """Whether it was read to its end, and the connection can be used again."""
        return self._left == 0 and not self._chunked and self._keeps_alive and not self._connection.ahead

    def read_into(self, buffer: memoryview) -> int:
        """Read what has arrived, at least a byte; 0 at the end of the body, wherever it is."""
        if self._chunked and not self._left:
            self._begin_chunk()
        n = 0 if self._left == 0 else self._connection.take(buffer[: self._left], self._wait)
        if self._left is not None:
            self._left -= n
        return n

    def _begin_chunk(self) -> None:
        if self._left == 0:
            self._connection.lines(_LINE, self._wait)  # ends the chunk before
        size = self._connection.lines(_LINE, self._wait).partition(";")[0].strip()
        if not re.fullmatch(r"[0-9a-fA-F]{1,15}", size):
            raise FailedError(f"{_NO_HTTP}: a chunk of {size[:20]!r} bytes")
        self._left = int(size, 16)
        if not self._left:
            self._chunked = False
            self._keeps_alive &= not self._connection.lines(_LINE, self._wait)  # trailers aren't read


@contextmanager
def get(url: str, headers: str, wait: Wait, *, connect_s: float) -> Iterator[Answer]:
    """Send a GET request, and yield the answer, with a status of 200 or 206; redirects are followed.

    Raises
    ------
    FailedError
        If there is no such answer.
    """
    for _ in range(_MOST_REDIRECTS):
        with _exchange(url, headers, wait, connect_s) as answer:
            if answer.status in (301, 302, 303, 307, 308) and "location" in answer.headers:
                url = _redirected(url, answer.headers["location"])
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
_COMPRESSIONS: Final = frozenset({"gzip", "x-gzip", "deflate", "br", "zstd", "compress"})
_TRANSIENT: Final = frozenset({408, 421, 425, 429, 500, 502, 503, 504})


def _check_status(answer: Answer) -> None:
    code = answer.status
    if code in (200, 206):
        if (how := answer.headers.get("content-encoding", "").lower()) in _COMPRESSIONS:  # others are mere labels
            raise FailedError(f"the answer is compressed ({how}), which wasn't asked for: a faulty server", _ATTEMPTS)
        return
    reason = _REFUSALS.get(code) or f"the server answers {code} {responses.get(code, '')}".strip()
    if code not in _TRANSIENT and code < 520:
        raise FailedError(reason, 1, status=code)
    raise FailedError(reason, status=code, retry_after_s=_seconds(answer.headers))


def _seconds(headers: dict[str, str]) -> float:
    """Return the seconds of a Retry-After header, which may be a date by the server's clock."""
    stated = headers.get("retry-after", "")
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        if re.fullmatch(r"\s*\d{1,9}\s*", stated):
            return float(stated)
        dates = stated, headers.get("date") or email.utils.formatdate(usegmt=True)
        then, now = (email.utils.parsedate_to_datetime(date).timestamp() for date in dates)
        return max(0.0, then - now)
    return 0.0


# --- connections

_lock = threading.Lock()
_idle: dict[tuple[str, str], list[Connection]] = {}
_found: set[str] = set()  # names whose addresses are known
_dead: dict[Any, float] = {}  # addresses that didn't answer, and when


@dataclass(frozen=True)
class _Route:
    """How a URL is requested: over which connections, and the request without what each adds of its own."""

    key: tuple[str, str]
    host: str
    server: str
    through: SplitResult | None
    request: str


@lru_cache(maxsize=64)
def _route(url: str) -> _Route:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise FailedError("no valid http or https URL", 1)
    server = parts.netloc.rpartition("@")[2].removesuffix(":80" if parts.scheme == "http" else ":443")
    through = _proxy(parts.scheme, server)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    more = _password("Authorization", parts)
    if through and parts.scheme == "http":
        target, more = f"http://{server}{target}", more + _password("Proxy-Authorization", through)
    if not target.isascii() or not server.isascii() or re.search(r"[\0- \x7f]", target + server):
        raise FailedError("no valid URL", 1)
    request = f"GET {target} HTTP/1.1\r\nHost: {server}\r\nUser-Agent: gee_polygons\r\nAccept-Encoding: identity\r\n"
    return _Route((parts.scheme, parts.netloc), parts.hostname or "", server, through, request + more)


@contextmanager
def _exchange(url: str, headers: str, wait: Wait, connect_s: float) -> Iterator[Answer]:
    """Send one request over a kept or a new connection; keep the connection if the answer is read to its end."""
    route = _route(url)
    connection = None
    request = f"{route.request}{headers}\r\n".encode()
    try:
        while True:
            kept = _kept(route.key)
            connection = kept or _connect(route, wait, connect_s)
            try:
                connection.sock.sendall(request)
                wait.begin()
                answer = Answer(connection, wait)
                break
            except OSError:
                connection.sock.close()
                if kept is None:  # and not closed meanwhile
                    raise
        yield answer
        if answer.is_complete:
            connection.since = time.monotonic()
            with _lock:
                _idle.setdefault(route.key, []).append(connection)
            connection = None
    except OSError as error:
        raise _unconnected(error, route.host) from error
    finally:
        if connection is not None:
            connection.sock.close()


def _unconnected(error: OSError, host: str) -> FailedError:
    """Return what an error of the system means."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return FailedError(f"the server's certificate isn't trusted: {error.verify_message}", 1)
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
        return FailedError(f"no encrypted connection ({error.reason})", _ATTEMPTS)
    if isinstance(error, socket.gaierror):  # the name of a server that was found before is right
        wrong = error.errno == socket.EAI_NONAME and host not in _found
        return FailedError(f"no address is known for {host}: check the name, or the network", 1 if wrong else None)
    if isinstance(error, TimeoutError):
        return FailedError("no answer in time", silent=True)
    return FailedError("no connection, or it was dropped")


def _kept(key: tuple[str, str]) -> Connection | None:
    """Return a connection on which nothing has arrived since: its end, or what answers no request."""
    _close_idle(_IDLE_S)
    while True:
        with _lock:
            kept = _idle[key].pop() if _idle.get(key) else None
        if kept is None:
            return None
        kept.sock.settimeout(0)
        try:
            socket.socket.recv(kept.sock, 1, socket.MSG_PEEK)
        except BlockingIOError:
            kept.sock.settimeout(_SLICE_S)
            return kept
        except OSError:
            pass
        kept.sock.close()


def _close_idle(seconds: float = 0.0) -> None:
    """Close connections that have not been used for so long."""
    with _lock:
        for kept in _idle.values():
            while kept and time.monotonic() - kept[0].since >= seconds:
                kept.pop(0).sock.close()


atexit.register(_close_idle)


def _connect(route: _Route, wait: Wait, connect_s: float) -> Connection:
    """Open a connection, by way of a tunnel if an https server lies behind a proxy."""
    scheme, port = route.key[0], urlsplit(f"//{route.server}").port or (80 if route.key[0] == "http" else 443)
    where = (route.host, port) if route.through is None else (route.through.hostname or "", route.through.port or 80)
    sock = _open(where, connect_s)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if scheme == "https":
            if route.through is not None:
                name = route.server if route.server.endswith(f":{port}") else f"{route.server}:{port}"
                password = _password("Proxy-Authorization", route.through)
                sock.sendall(f"CONNECT {name} HTTP/1.1\r\nHost: {name}\r\n{password}\r\n".encode())
                wait.begin()
                if (code := Answer(Connection(sock), wait).status) != 200:
                    raise FailedError(f"the proxy answers {code}", None if code >= 500 else 1)
            with _lock:  # its certificates are read once
                context = _tls()
            sock = context.wrap_socket(sock, server_hostname=route.host)
        sock.settimeout(_SLICE_S)
    except BaseException:
        sock.close()
        raise
    return Connection(sock)


def _open(address: tuple[str, int], connect_s: float) -> socket.socket:
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


def _password(header: str, parts: SplitResult) -> str:
    """Return the header line that holds a URL's user and password, if it has any."""
    pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    return f"{header}: Basic {base64.b64encode(pair.encode()).decode()}\r\n" if parts.username else ""


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
