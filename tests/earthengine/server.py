"""The HTTP server: one process, one thread per connection, on 127.0.0.1 only."""

from __future__ import annotations

import json
import re
import socket
import tempfile
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from . import routes
from .archive import Archive
from .dialect import Dialect
from .errors import DropError, GarbageError, ServiceError, UnimplementedError
from .exports import Exports
from .faults import Faults
from .log import Entry, RequestLog

_SETUP = ("discovery", "algorithms", "control")


class EarthEngineServer:
    """A local Earth Engine.

    `tiles` is a folder of AEF-style tiles, `catalogue` a folder with a `catalogue.json` (see `archive`), `exports` the
    folder that stands in for Drive and Cloud Storage (a temporary one if it isn't given). Use it as a context manager.

    `faults` says what goes wrong, `log` what was asked. `null_properties`: whether reduceRegions leaves a property that
    has no value out ("absent") or sets it to null ("null"). `exact_weights`: coverage as it is instead of in 8 bits.
    `dialect`: how answers are written, where the documents leave that open.
    """

    def __init__(
        self,
        tiles: Path | str | None = None,
        catalogue: Path | str | None = None,
        exports: Path | str | None = None,
        *,
        port: int = 0,
        null_properties: str = "absent",
        exact_weights: bool = False,
        dialect: Dialect | None = None,
    ) -> None:
        self.dialect = dialect or Dialect()
        self.archive = Archive(tiles, catalogue)
        self.faults = Faults()
        self.log = RequestLog()
        self.null_properties = null_properties
        self.exact_weights = exact_weights
        self.unimplemented: list[str] = []
        self.failures: list[str] = []  # tracebacks of errors that are this server's own
        self._temporary = tempfile.TemporaryDirectory() if exports is None else None
        self.exports = Exports(Path(self._temporary.name if self._temporary else str(exports)), self.faults)
        self.stored: dict[str, dict[str, Any]] = {}  # thumbnails, maps and tables by name
        self.pages: dict[str, Any] = {}
        self._running: dict[str, int] = {}
        self._lock = threading.Lock()
        self._http = _Http(("127.0.0.1", port), _Handler)
        self._http.owner = self
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def start(self) -> EarthEngineServer:
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        if self._thread is not None:
            self._http.shutdown()
            self._thread.join()
        self._http.server_close()
        if self._temporary is not None:
            self._temporary.cleanup()

    def __enter__(self) -> EarthEngineServer:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def enter(self, project: str) -> int:
        """Count a request in; return how many of its project are running now."""
        with self._lock:
            self._running[project] = self._running.get(project, 0) + 1
            return self._running[project]

    def leave(self, project: str) -> None:
        with self._lock:
            self._running[project] -= 1


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    owner: EarthEngineServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay quiet about clients that hang up."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Http

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: Any) -> None:
        """The request log replaces the one on stderr."""

    def _serve(self) -> None:
        owner = self.server.owner
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        project, endpoint = _endpoint(path)
        at_once = owner.enter(project)
        entry = Entry(self.command, path, endpoint, project, time.monotonic(), at_once)
        try:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            entry.bytes_in = len(body)
            status, content, kind = self._answer(path, parts.query, body, entry)
            status, content, kind = owner.dialect.rewrite(endpoint, status, content, kind)
            entry.status, entry.bytes_out = status, len(content)
        finally:
            # counted out and logged before the answer is sent: a client that has it finds it in the log, and its next
            # request is never one too many
            entry.ended = time.monotonic()
            owner.leave(project)
            if endpoint != "control":
                owner.log.add(entry)
        if status:
            self._send(status, content, kind)
        else:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def _answer(self, path: str, query: str, body: bytes, entry: Entry) -> routes.Answer:
        """Return status, content and type; status 0 for no answer at all."""
        owner = self.server.owner
        try:
            if entry.endpoint not in _SETUP:
                owner.faults.admit(entry.endpoint, body, entry.at_once)
                time.sleep(owner.faults.latency_s)
            return routes.answer(owner, self.command, path, query, body, entry)
        except DropError:
            return 0, b"", ""
        except GarbageError:
            return 200, b"<html><body>Welcome! Please log in.</body></html>", "text/html"
        except ServiceError as error:
            if isinstance(error, UnimplementedError):
                owner.unimplemented.append(error.what)
            entry.message = error.message
            return error.http, json.dumps(error.body()).encode(), "application/json"
        except Exception:  # a mistake of this server's own: say so, and never a number
            owner.failures.append(traceback.format_exc())
            entry.message = traceback.format_exc()
            wrong = {"error": {"code": 501, "message": f"The local Earth Engine failed: {entry.message}"}}
            return 501, json.dumps(wrong).encode(), "application/json"

    def _send(self, status: int, content: bytes, kind: str) -> None:
        content, headers = self.server.owner.dialect.sent(content)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _endpoint(path: str) -> tuple[str, str]:
    """Return the project and a short name: "value:compute", "thumbnails", "thumbnails:getPixels", "operations"."""
    if path.startswith("/$discovery"):
        return "", "discovery"
    if path.startswith("/control"):
        return "", "control"
    found = re.fullmatch(r"/v1/projects/([^/:]+)(?:/(.*))?", path)
    if found is None:
        return "", path
    project, rest = found.group(1), found.group(2) or ""
    head, _, verb = rest.partition(":")
    head = head.split("/")[0] if not head.endswith("/tiles") and "/tiles/" not in head else "maps/tiles"
    return project, f"{head}:{verb}" if verb else head
