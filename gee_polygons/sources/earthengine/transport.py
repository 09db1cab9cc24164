"""One request: sent compactly, with a deadline of its own, and answered with bytes or an error with its HTTP status.

The client's own way loses the status, has no deadline unless `ee.data.setDeadline` sets one for the whole process, and
holds 10 connections. So requests are made by the client (address, headers, project, credentials) and carried by a
session of this package: nothing of the user's session is changed.

What a refusal means is read from its words first, because the same condition comes with different HTTP statuses, and
from its status where the words say nothing.
"""

from __future__ import annotations

import importlib
import itertools
import json
import logging
import random
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from gee_polygons.errors import EarthEngineError
from gee_polygons.sources.earthengine.session import project_path, unsent

log = logging.getLogger(__name__)

# https://developers.google.com/earth-engine/guides/usage#adjustable_quota_limits and the service's own messages
MAX_CONCURRENT: Final = 40  # requests of a project at once, on each endpoint
DEFAULT_CONCURRENT: Final = 20  # leaves room for the user's other notebooks
MAX_PAYLOAD_BYTES: Final = 10_485_760
INTERACTIVE_S: Final = 300.0  # the service gives up on an interactive request after 5 minutes
CONNECT_S: Final = 30.0  # a host that doesn't even answer the door is given up sooner
# of a request that fails for reasons that pass; one that stays silent for minutes is asked only once more
OTHER_ATTEMPTS: Final = 5
CROWDED_ATTEMPTS: Final = 10
SILENT_ATTEMPTS: Final = 2
FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 32.0
OPERATIONS_PER_PAGE: Final = 500
_SHOWN_CHARACTERS: Final = 400  # of a message: some answers are whole web pages

_PASSING_STATUS: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_CROWDED_WORDS: Final = (
    "too many requests",
    "too many concurrent",
    "rate limit",
    "ratelimit",
    "concurrency limit",
    "quota exceeded for quota metric",
    "resource_exhausted",
)
_SMALLER_WORDS: Final = (
    "memory limit",
    "out of memory",
    "memory capacity",
    "computation timed out",
    "5000 elements",
    "5,000 elements",
    "too many pixels",
    "must be less than or equal to",  # Total request size (of pixels answered), pixel grid dimensions
    "output of image computation is too large",
    "response size",
)
_SHORTER_WORDS: Final = ("payload size", "entity too large")
_ALL_ALIKE_STATUS: Final = frozenset({401, 403, 404, 501})  # of the project or the asset: no site can help


@dataclass(frozen=True)
class Refusal:
    """Why a request failed.

    `kind`: ``"passing"`` (try again), ``"too_big"`` (ask for less to be computed), ``"too_long"`` (write less),
    ``"fatal"`` (nothing helps), ``"other"`` (something in it). `crowded`: too many requests at once.
    """

    kind: str
    message: str
    status: int = 0

    crowded: bool = False

    @classmethod
    def of(cls, status: int, message: str) -> Refusal:
        """Tell kinds of failure by message and by HTTP status.

        Examples
        --------
        >>> Refusal.of(400, "User memory limit exceeded.").kind, Refusal.of(503, "Unavailable").kind
        ('too_big', 'passing')
        """
        words = message.lower()
        crowded = any(w in words for w in _CROWDED_WORDS)
        if crowded:
            kind = "passing"
        elif any(w in words for w in _SHORTER_WORDS) or status == 413:
            kind = "too_long"
        elif any(w in words for w in _SMALLER_WORDS):
            kind = "too_big"
        elif status in _PASSING_STATUS:
            kind = "passing"
        else:
            kind = "fatal" if status in _ALL_ALIKE_STATUS else "other"
        said = " ".join(message.split())[:_SHOWN_CHARACTERS]
        return cls(kind, said or f"HTTP {status} without a message", status, crowded or status == 429)

    @classmethod
    def read(cls, status: int, content: bytes) -> Refusal:
        """Tell the kind of failure from an answer: Google's error object, or whatever a proxy put in its place."""
        text = content.decode("utf-8", "replace")
        try:
            found = json.loads(text)
        except ValueError:
            return cls.of(status, re.sub(r"<[^>]*>", " ", text))
        if isinstance(found, list) and found:
            found = found[0]
        error = found.get("error", found) if isinstance(found, dict) else found
        if isinstance(error, dict):
            told = error.get("message") or error.get("status") or error.get("error_description") or ""
            return cls.of(status, str(told))
        return cls.of(status, str(error))

    @property
    def attempts(self) -> int:
        """How often a request that is refused so is sent at most."""
        if self.kind != "passing":
            return 1
        return CROWDED_ATTEMPTS if self.crowded else SILENT_ATTEMPTS if self.status == 408 else OTHER_ATTEMPTS


class RequestFailedError(EarthEngineError):
    """A request failed for good, after all attempts."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"Earth Engine: {refusal.message}")
        self.refusal = refusal


class _RefusedError(Exception):
    """One attempt failed."""

    def __init__(self, refusal: Refusal, after_s: float = 0.0) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal
        self.after_s = after_s  # what the service asks to wait


def payload(expression: Any, **more: Any) -> bytes:
    """Return the body of a request, as small as JSON can be; with the user's workload tag, if there is one."""
    import ee
    from ee import serializer

    encoded = expression if isinstance(expression, Mapping) else serializer.encode(expression)
    if tag := ee.data.getWorkloadTag():
        more.setdefault("workloadTag", tag)
    return json.dumps({"expression": encoded, **more}, separators=(",", ":")).encode()


@dataclass
class Service:
    """Requests to the session's Earth Engine, at most so many at once.

    Parameters
    ----------
    max_concurrent : int
        Requests at once; halved when the service says that they are too many, and grown again.
    deadline_s : float
        After which a silent request is given up.
    """

    max_concurrent: int = DEFAULT_CONCURRENT
    deadline_s: float = INTERACTIVE_S
    _allowed: float = field(default=0.0, repr=False)
    _running: int = field(default=0, repr=False)
    _gate: threading.Condition = field(default_factory=threading.Condition, repr=False)
    _session: Any = field(default=None, repr=False)
    _transports: dict[int, tuple[Any, Any]] = field(default_factory=dict, repr=False)
    _closed: threading.Event = field(default_factory=threading.Event, repr=False)

    def __post_init__(self) -> None:
        self._allowed = float(self.max_concurrent)

    def features(self, body: bytes) -> list[dict[str, Any]]:
        """Compute a collection; return the properties of its features, all pages."""
        found: list[dict[str, Any]] = []
        while True:
            answer = _object(self._post("table", "computeFeatures", body))
            found += [feature.get("properties") or {} for feature in answer.get("features") or []]
            token = answer.get("nextPageToken")
            if not token:
                return found
            body = json.dumps({**json.loads(body), "pageToken": token}, separators=(",", ":")).encode()

    def value(self, expression: Any) -> Any:
        """Compute a value."""
        return _object(self._post("value", "compute", payload(expression))).get("result")

    def pixels(self, body: bytes) -> bytes:
        """Compute pixels."""
        return self._post("image", "computePixels", body)

    def export(self, body: bytes) -> dict[str, Any]:
        """Start a batch task; the request id in the body makes trying again safe."""
        return _object(self._post("table", "export", body))

    def operations(self) -> list[dict[str, Any]]:
        """List the project's batch tasks, all pages."""
        found: list[dict[str, Any]] = []
        asked: dict[str, Any] = {"name": project_path(), "pageSize": OPERATIONS_PER_PAGE}
        while True:
            answer = _object(self._send("operations", "list", **asked))
            found += answer.get("operations") or []
            token = answer.get("nextPageToken")
            if not token:
                return found
            asked["pageToken"] = token

    def operation(self, name: str) -> dict[str, Any]:
        """Look at one batch task."""
        return _object(self._send("operations", "get", name=name))

    def cancel(self, name: str) -> None:
        """Cancel a batch task."""
        self._send("operations", "cancel", name=name, body={})

    def _post(self, resource: str, method: str, body: bytes) -> bytes:
        if len(body) > MAX_PAYLOAD_BYTES:  # known beforehand: don't send it
            raise RequestFailedError(
                Refusal(
                    "too_long", f"a request of {len(body):,} bytes exceeds the limit of {MAX_PAYLOAD_BYTES:,} bytes"
                )
            )
        return self._send(resource, method, body)

    def _send(self, resource: str, method: str, content: bytes | None = None, /, **arguments: Any) -> bytes:
        """Send a request until it is answered, refused for good, or refused too often."""
        for attempt in itertools.count(1):
            request = unsent(resource, method, **arguments)
            if content is not None:
                request.body, request.body_size = content, len(content)
            try:
                with self._turn():
                    answer = self._once(request)
            except _RefusedError as refused:
                refusal = refused.refusal
                if attempt >= refusal.attempts:
                    raise RequestFailedError(refusal) from None
                if refusal.crowded:
                    self._allow(-0.5)
                wait = min(FIRST_WAIT_S * 2 ** (attempt - 1), LONGEST_WAIT_S) * (0.5 + random.random() / 2)
                wait = max(wait, min(refused.after_s, LONGEST_WAIT_S))
                log.info("Earth Engine: %s; attempt %d follows in %.1f s", refusal.message, attempt + 1, wait)
                if self._closed.wait(wait):
                    raise RequestFailedError(refusal) from None
            else:
                self._allow(1 / self.max_concurrent)
                return answer
        raise AssertionError("unreachable")

    def _once(self, request: Any) -> bytes:
        auth: Any = importlib.import_module("google.auth.exceptions")
        api: Any = importlib.import_module("googleapiclient.errors")
        httplib2: Any = importlib.import_module("httplib2")
        request.http = self._transport(request.http)
        try:
            content: bytes = request.execute(num_retries=0)
        except api.HttpError as error:
            refusal = Refusal.read(int(error.resp.status), error.content)
            raise _RefusedError(refusal, _seconds(error.resp.get("retry-after"))) from error
        except TimeoutError as error:
            raise _RefusedError(Refusal("passing", f"no answer within {self.deadline_s:g} s", 408)) from error
        except (OSError, auth.TransportError, httplib2.HttpLib2Error) as error:
            # urllib3 names its objects by their address, which differs every time
            told = re.sub(r"<[^<>]*object at 0x[0-9a-f]+>:? ?", "", str(error))
            raise _RefusedError(Refusal("passing", f"the connection failed: {told}")) from error
        except auth.GoogleAuthError as error:
            told = f"the credentials are refused: {error}; call ee.Authenticate() again"
            raise _RefusedError(Refusal("fatal", told, 401)) from error
        return content

    def _transport(self, theirs: Any) -> Any:
        """Return the client's way of sending, with this package's deadline and pool; a user's own is left alone."""
        known = self._transports.get(id(theirs))
        if known is not None and known[0] is theirs:
            return known[1]
        authorized: Any = importlib.import_module("google_auth_httplib2").AuthorizedHttp
        ours = theirs
        if isinstance(theirs, authorized) and _is_clients(theirs.http):
            ours = authorized(theirs.credentials, http=_Wire(self._own_session(), self.deadline_s))
        elif _is_clients(theirs):
            ours = _Wire(self._own_session(), self.deadline_s)
        self._transports[id(theirs)] = theirs, ours
        return ours

    def _own_session(self) -> Any:
        with self._gate:
            if self._session is None:
                requests: Any = importlib.import_module("requests")
                session = requests.Session()
                adapter = requests.adapters.HTTPAdapter(pool_connections=4, pool_maxsize=max(self.max_concurrent, 10))
                session.mount("https://", adapter)
                session.mount("http://", adapter)
                self._session = session
            return self._session

    def close(self) -> None:
        """Give the connections back; who still waits to try again gives up."""
        self._closed.set()
        session, self._session = self._session, None
        self._transports.clear()
        if session is not None:
            session.close()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        with self._gate:
            while self._running >= max(1, int(self._allowed)):
                self._gate.wait()
            self._running += 1
        try:
            yield
        finally:
            with self._gate:
                self._running -= 1
                self._gate.notify()

    def _allow(self, change: float) -> None:
        """Halve how many may run at once (-0.5), or let one more in after as many successes as there are places."""
        with self._gate:
            wanted = self._allowed * 0.5 if change < 0 else self._allowed + change
            self._allowed = min(max(wanted, 1.0), float(self.max_concurrent))
            self._gate.notify_all()


class _Wire:
    """httplib2's `request`, which the client calls, on a session of `requests` with a pool and a deadline."""

    def __init__(self, session: Any, deadline_s: float) -> None:
        self._session = session
        self._deadlines_s = min(CONNECT_S, deadline_s), deadline_s

    def request(
        self, uri: str, method: str = "GET", body: Any = None, headers: Any = None, redirections: Any = None,
        connection_type: Any = None,
    ) -> tuple[Any, bytes]:  # fmt: skip
        """Send; the last two arguments are httplib2's and mean nothing here."""
        failed: Any = importlib.import_module("requests.exceptions")
        make: Callable[[dict[str, Any]], Any] = importlib.import_module("httplib2").Response
        try:
            answer = self._session.request(method, uri, data=body, headers=headers, timeout=self._deadlines_s)
        except failed.Timeout as error:
            raise TimeoutError(str(error)) from error
        except failed.RequestException as error:
            raise ConnectionError(str(error)) from error
        return make({**answer.headers, "status": answer.status_code}), answer.content


def _is_clients(transport: Any) -> bool:
    """Whether the client made it, and not the user (`ee.Initialize(http_transport=...)`)."""
    return type(transport).__module__.partition(".")[0] == "ee"


def _object(content: bytes) -> dict[str, Any]:
    """Read an answer that is to be a JSON object."""
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise RequestFailedError(Refusal("other", f"the answer is not a JSON object: {content[:80]!r}"))
    return found


def _seconds(retry_after: Any) -> float:
    """Read a Retry-After header; a date in it is passed over."""
    try:
        return max(0.0, float(retry_after))
    except (TypeError, ValueError):
        return 0.0
