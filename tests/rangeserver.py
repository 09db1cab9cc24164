"""An HTTP server of byte ranges for tests and benchmarks, with counts of requests, latency and faults.

It uses the standard library alone, one thread per connection, and listens on 127.0.0.1 only. `serve(...)` runs it in
this process (for tests), `python tests/rangeserver.py FOLDER --latency 0.04` in a process of its own (for benchmarks).
"""

from __future__ import annotations

import argparse
import contextlib
import random
import socket
import ssl
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

PIECE = 16 * 2**10
REASONS = {200: "OK", 206: "Partial Content", 403: "Forbidden", 404: "Not Found", 410: "Gone",
           416: "Range Not Satisfiable", 429: "Too Many Requests", 500: "Internal Server Error",
           503: "Service Unavailable"}  # fmt: skip


@dataclass
class Faults:
    """Faults of the server, each with its probability per data request; drawn from a seed.

    `error` answers `status`, with the header lines `more`; `truncate` ends the body before its stated length; `drop`
    closes the connection without an answer; `stall` goes silent, in the middle of the body or before the answer;
    `wrong_length` answers a shorter range than requested; `lie` states the requested range but sends a shorter body,
    with a matching Content-Length. `only` restricts faults to paths that contain this text, `after` exempts the first
    requests, and `headers` says whether ranges that start at 0 are faulty too.
    """

    error: float = 0.0
    status: int = 503
    more: str = ""
    stall: float = 0.0
    truncate: float = 0.0
    drop: float = 0.0
    wrong_length: float = 0.0
    lie: float = 0.0
    seed: int = 0
    only: str = ""
    after: int = 0
    headers: bool = True


@dataclass
class RangeServer:
    """A running server.

    With `query`, requests without that query are forbidden, as for a signed URL, and so is HEAD.

    With `tls`, it speaks HTTPS.

    With `rate`, all connections together get so many bytes a second, in pieces of `PIECE` bytes, in turn.

    `log` holds (path, first byte, last byte, status) of each request, in order of arrival. `counts_from_the_end` says
    whether ranges counted from the end of a file are supported.
    """

    root: Path
    latency_s: float = 0.0
    rate: float = 0.0
    faults: Faults = field(default_factory=Faults)
    query: str = ""
    log: list[tuple[str, int, int, int]] = field(default_factory=list)
    sent: int = 0
    most_at_once: int = 0
    counts_from_the_end: bool = True
    tls: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        self._random = random.Random(self.faults.seed)
        self._lock = threading.Lock()
        self._busy: set[socket.socket] = set()
        self._open: set[socket.socket] = set()
        self._free_at = 0.0  # when the line can take the next piece
        self.port = 0
        self.start()
        self.url = f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen, on the same port as before."""
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", self.port))
        self._socket.listen(512)
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._socket,), daemon=True).start()

    @property
    def requests(self) -> int:
        """Requests answered so far."""
        return len(self.log)

    @property
    def statuses(self) -> Counter[int]:
        """How often each status was answered."""
        return Counter(status for *_, status in self.log)

    def reset(self, faults: Faults | None = None) -> None:
        """Reset the counts, and the faults if others are given."""
        with self._lock:
            self.log.clear()
            self.sent = self.most_at_once = 0
            if faults is not None:
                self.faults, self._random = faults, random.Random(faults.seed)

    def close(self) -> None:
        """Stop listening, and close all connections."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # ends accept(), which would take one more connection
        self._socket.close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # its thread closes it

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.tls:
            try:
                connection = self.tls.wrap_socket(connection, server_side=True)
            except OSError:  # the client doesn't trust the certificate
                return connection.close()
        self._open.add(connection)
        pending = b""
        try:
            while True:
                while b"\r\n\r\n" not in pending:
                    received = connection.recv(65536)
                    if not received:
                        return
                    pending += received
                head, _, pending = pending.partition(b"\r\n\r\n")
                with self._lock:
                    self._busy.add(connection)
                    self.most_at_once = max(self.most_at_once, len(self._busy))
                if not self._answer(connection, head.decode("latin-1").split("\r\n")):
                    return
        except OSError:
            return
        finally:
            self._open.discard(connection)
            self._finish(connection)
            connection.close()

    def _answer(self, connection: socket.socket, lines: list[str]) -> bool:
        """Answer one request; False ends the connection."""
        method, target, _ = lines[0].split(" ")
        asked = next((line.split("=")[1] for line in lines[1:] if line.lower().startswith("range:")), None)
        if self.latency_s:
            time.sleep(self.latency_s)
        path, _, query = target.partition("?")
        if self.query and (query != self.query or method != "GET"):
            return self._say(connection, path, 403)
        file = self.root / unquote(path).lstrip("/")
        if not file.is_file():
            return self._say(connection, path, 404)
        size = file.stat().st_size
        first, last = 0, size - 1
        if asked:
            start, stop = asked.split("-")
            if not start and not self.counts_from_the_end:
                return self._say(connection, path, 416, f"Content-Range: bytes */{size}\r\n")
            if not start:  # the last so many bytes
                start, stop = str(max(size - int(stop), 0)), ""
            first, last = int(start), min(int(stop), size - 1) if stop else size - 1
            if first >= size:
                return self._say(connection, path, 416, f"Content-Range: bytes */{size}\r\n")
        fault = self._fault(path, first)
        if fault == "drop":
            self._note(path, first, last, 0)
            return False
        if fault == "error":
            return self._say(connection, path, self.faults.status, self.faults.more)
        if fault == "stall" and first % 2:
            return self._stall(connection, path, first)
        length = last - first + 1
        if fault == "wrong_length":
            last -= max(1, length // 3)
            length = last - first + 1
        stated = f"Content-Range: bytes {first}-{last}/{size}\r\n" if asked else ""
        body = length - max(1, length // 3) if fault in ("lie", "truncate") else length
        status = 206 if asked else 200
        self._note(path, first, last if method == "GET" else first - 1, status)
        answer = (
            f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Length: {body if fault == 'lie' else length}\r\n"
            f'Last-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\nETag: "{size}"\r\nAccept-Ranges: bytes\r\n{stated}\r\n'
        )
        if method != "GET" or body <= 1:
            self._finish(connection)
        if method == "GET":
            with self._lock:
                self.sent += body  # before sending: the client may read the count as soon as it has the last byte
        connection.sendall(answer.encode(), socket.MSG_MORE if method == "GET" and not self.tls else 0)
        if method == "GET":
            with file.open("rb") as data:
                if fault == "stall":
                    connection.sendfile(data, first, body // 2)
                    return self._stall(connection, path, first)
                while self.rate and body > 1:
                    n = min(PIECE, body - 1)
                    self._wait_for_the_line(n)
                    connection.sendfile(data, first, n)
                    first, body = first + n, body - n
                while body > 0:
                    if body == 1:  # the next request may follow the last byte at once
                        self._finish(connection)
                    done = connection.sendfile(data, first, max(body - 1, 1))
                    first, body = first + done, body - done
        return fault != "truncate"

    def _wait_for_the_line(self, n: int) -> None:
        with self._lock:
            now = time.monotonic()
            wait = max(0.0, self._free_at - now)
            self._free_at = max(self._free_at, now) + n / self.rate
        if wait > 0.002:
            time.sleep(wait)

    def _stall(self, connection: socket.socket, path: str, first: int) -> bool:
        """Say nothing more until the client goes."""
        self._note(path, first, first - 1, 0)
        connection.recv(1)
        return False

    def _finish(self, connection: socket.socket) -> None:
        """Count a request as answered, just before its answer is complete: the next one may follow at once."""
        with self._lock:
            self._busy.discard(connection)

    def _fault(self, path: str, first: int) -> str | None:
        faults = self.faults
        if faults.only not in path or len(self.log) < faults.after or (first == 0 and not faults.headers):
            return None
        with self._lock:
            draw = self._random.random()
        for name in ("error", "stall", "truncate", "drop", "wrong_length", "lie"):
            draw -= getattr(faults, name)
            if draw < 0:
                return name
        return None

    def _note(self, path: str, first: int, last: int, status: int) -> None:
        with self._lock:
            self.log.append((path, first, last, status))

    def _say(self, connection: socket.socket, path: str, status: int, more: str = "") -> bool:
        self._note(path, 0, -1, status)
        self._finish(connection)
        connection.sendall(f"HTTP/1.1 {status} {REASONS[status]}\r\n{more}Content-Length: 0\r\n\r\n".encode())
        return True


@contextmanager
def serve(
    root: Path | str, *, latency_s: float = 0.0, rate: float = 0.0, faults: Faults | None = None, query: str = "",
    tls: ssl.SSLContext | None = None,
) -> Iterator[RangeServer]:  # fmt: skip
    """Serve a folder while the block runs."""
    server = RangeServer(Path(root), latency_s, rate, faults or Faults(), query, tls=tls)
    try:
        yield server
    finally:
        server.close()


def main() -> None:
    """Serve a folder until standard input ends; answer each of its lines with the counts since the previous one."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--rate", type=float, default=0.0, help="bytes a second, over all connections")
    parser.add_argument("--certificate", help="file with a certificate and its key: HTTPS")
    parser.add_argument("--loss", type=float, default=0.0, help="share of requests that stall or are dropped")
    options = parser.parse_args()
    faults = Faults(stall=options.loss / 2, drop=options.loss / 2)
    tls = None
    if options.certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(options.certificate)
    with serve(options.folder, latency_s=options.latency, rate=options.rate, faults=faults, tls=tls) as server:
        sys.stdout.write(server.url + "\n")
        sys.stdout.flush()
        for line in sys.stdin:
            if line.startswith("outage"):  # for so many seconds
                server.close()
                time.sleep(float(line.split()[1]))
                server.start()
                continue
            data = sum(first > 0 for _, first, _, _ in server.log)
            sys.stdout.write(f"{server.requests} {data} {server.sent} {server.most_at_once}\n")
            sys.stdout.flush()
            server.reset()


if __name__ == "__main__":
    main()
