"""Sends one request to Earth Engine and returns its bytes, or an error that keeps the HTTP status.

The client's own functions lose the status, have no deadline unless `ee.data.setDeadline` sets one for the whole
process, and hold 10 connections. So the client only builds requests (address, headers, project, credentials); they are
sent through an HTTP session of this package, and nothing of the user's session is changed.

The same condition comes with different HTTP statuses, so a failure is classified by its message first, and by its
status where the message says nothing.
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
from dataclasses import dataclass
from typing import Any, Final

from gee_polygons.errors import EarthEngineError
from gee_polygons.network.places import without_query
from gee_polygons.sources.earthengine.session import build_request, project_path

log = logging.getLogger(__name__)

# https://developers.google.com/earth-engine/guides/usage#adjustable_quota_limits and the service's own messages
MAX_CONCURRENT: Final = 40  # requests of a project at once, on each endpoint
DEFAULT_CONCURRENT: Final = 20  # leaves room for the user's other notebooks
MAX_PAYLOAD_BYTES: Final = 10_485_760
INTERACTIVE_S: Final = 300.0  # the service gives up on an interactive request after 5 minutes
CONNECT_S: Final = 30.0  # timeout of opening a connection
# attempts at a request that fails for transient reasons; one that stays silent for minutes is sent only once more
ATTEMPTS: Final = 5
ATTEMPTS_RATE_LIMITED: Final = 10
ATTEMPTS_TIMED_OUT: Final = 2
FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 32.0
OPERATIONS_PER_PAGE: Final = 500
_MESSAGE_CHARACTERS: Final = 400  # shown of a message: some answers are whole web pages

_TRANSIENT_STATUS: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_FATAL_STATUS: Final = frozenset({401, 403, 404, 501})  # of the project or the asset: the same for every site
# what lower-case messages contain
_RATE_LIMITED: Final = re.compile(
    "too many requests|too many concurrent|rate ?limit|concurrency limit|quota exceeded for quota metric"
    "|resource_exhausted"
)
_TOO_LONG: Final = re.compile("payload size|entity too large")
_TOO_BIG: Final = re.compile(
    "memory limit|out of memory|memory capacity|computation timed out|5,?000 elements|too many pixels"
    "|must be less than or equal to"  # total request size (of pixels answered), pixel grid dimensions
    "|output of image computation is too large|response size"
)


@dataclass(frozen=True)
class Refusal:
    """Why a request failed.

    Parameters
    ----------
    kind : str
        ``"transient"`` (try again), ``"too_big"`` (it computes too much), ``"too_long"`` (its body is too long),
        ``"fatal"`` (every request will fail), ``"other"`` (something in this request is wrong).
    message : str
        One line.
    status : int
        Of HTTP; 0 if there was no answer.
    rate_limited : bool
        Whether too many requests were sent at once.
    retry_after_s : float
        How long the service asks to wait.
    """

    kind: str
    message: str
    status: int = 0
    rate_limited: bool = False
    retry_after_s: float = 0.0

    @classmethod
    def classify(cls, status: int, message: str, retry_after_s: float = 0.0) -> Refusal:
        """Classify a failure by message and HTTP status.

        Examples
        --------
        >>> Refusal.classify(400, "User memory limit exceeded.").kind, Refusal.classify(503, "Unavailable").kind
        ('too_big', 'transient')
        """
        words = message.lower()
        rate_limited = _RATE_LIMITED.search(words) is not None
        if rate_limited:
            kind = "transient"
        elif _TOO_LONG.search(words) or status == 413:
            kind = "too_long"
        elif _TOO_BIG.search(words):
            kind = "too_big"
        elif status in _TRANSIENT_STATUS:
            kind = "transient"
        else:
            kind = "fatal" if status in _FATAL_STATUS else "other"
        shown = " ".join(message.split())[:_MESSAGE_CHARACTERS] or f"HTTP {status} without a message"
        return cls(kind, shown, status, rate_limited or status == 429, retry_after_s)

    @classmethod
    def parse(cls, status: int, content: bytes, retry_after: Any = None) -> Refusal:
        """Classify an answer: Google's error object, or whatever a proxy put in its place."""
        text = content.decode("utf-8", "replace")
        try:
            found = json.loads(text)
        except ValueError:
            found = re.sub(r"<[^>]*>", " ", text)  # a web page
        if isinstance(found, list) and found:
            found = found[0]
        error = found.get("error", found) if isinstance(found, dict) else found
        if isinstance(error, dict):
            error = error.get("message") or error.get("status") or error.get("error_description") or ""
        return cls.classify(status, str(error), _seconds(retry_after))

    @property
    def attempts(self) -> int:
        """How often a request that fails for this reason is sent at most."""
        if self.kind != "transient":
            return 1
        return ATTEMPTS_RATE_LIMITED if self.rate_limited else ATTEMPTS_TIMED_OUT if self.status == 408 else ATTEMPTS


class RequestFailedError(EarthEngineError):
    """A request failed."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"Earth Engine: {refusal.message}")
        self.refusal = refusal


def payload(expression: Any, **more: Any) -> bytes:
    """Return the body of a request as compact JSON, with the user's workload tag if there is one."""
    import ee
    from ee import serializer

    encoded = expression if isinstance(expression, Mapping) else serializer.encode(expression)
    if tag := ee.data.getWorkloadTag():
        more.setdefault("workloadTag", tag)
    return json.dumps({"expression": encoded, **more}, separators=(",", ":")).encode()


class Service:
    """Sends requests to the Earth Engine of the user's session, a limited number at once.

    Parameters
    ----------
    max_concurrent : int
        Requests at once. The number is halved when the service says that they are too many, and grows again.
    deadline_s : float
        After which a request without an answer is given up.
    """

    def __init__(self, max_concurrent: int = DEFAULT_CONCURRENT, deadline_s: float = INTERACTIVE_S) -> None:
        self.max_concurrent, self.deadline_s = max_concurrent, deadline_s
        self._allowed = float(max_concurrent)
        self._running = 0
        self._slots = threading.Condition()
        self._closed = threading.Event()
        requests: Any = importlib.import_module("requests")
        self._session = requests.Session()
        adapter = requests.adapters.HTTPAdapter(pool_connections=4, pool_maxsize=max(max_concurrent, 10))
        self._session.mount("https://", adapter)
        self._session.mount("http://", adapter)

    def features(self, body: bytes) -> list[dict[str, Any]]:
        """Compute a collection; return the properties of its features, from all pages."""
        found: list[dict[str, Any]] = []
        while True:
            answer = _json_object(self._post("table", "computeFeatures", body))
            found += [feature.get("properties") or {} for feature in answer.get("features") or []]
            token = answer.get("nextPageToken")
            if not token:
                return found
            body = json.dumps({**json.loads(body), "pageToken": token}, separators=(",", ":")).encode()

    def value(self, expression: Any) -> Any:
        """Compute a value."""
        return _json_object(self._post("value", "compute", payload(expression))).get("result")

    def pixels(self, body: bytes) -> bytes:
        """Compute pixels."""
        return self._post("image", "computePixels", body)

    def export(self, body: bytes) -> dict[str, Any]:
        """Start a batch task; the request id in the body makes it safe to send it again."""
        return _json_object(self._post("table", "export", body))

    def operations(self) -> list[dict[str, Any]]:
        """List the project's batch tasks, from all pages."""
        found: list[dict[str, Any]] = []
        arguments: dict[str, Any] = {"name": project_path(), "pageSize": OPERATIONS_PER_PAGE}
        while True:
            answer = _json_object(self._send("operations", "list", **arguments))
            found += answer.get("operations") or []
            arguments["pageToken"] = answer.get("nextPageToken")
            if not arguments["pageToken"]:
                return found

    def operation(self, name: str) -> dict[str, Any]:
        """Return the description of a batch task."""
        return _json_object(self._send("operations", "get", name=name))

    def cancel(self, name: str) -> None:
        """Cancel a batch task."""
        self._send("operations", "cancel", name=name, body={})

    def close(self) -> None:
        """Close the connections; requests that wait for their next attempt fail."""
        self._closed.set()
        self._session.close()

    def _post(self, resource: str, method: str, body: bytes) -> bytes:
        if len(body) > MAX_PAYLOAD_BYTES:  # certain to be refused: don't send it
            message = f"a request of {len(body):,} bytes exceeds the limit of {MAX_PAYLOAD_BYTES:,} bytes"
            raise RequestFailedError(Refusal("too_long", message))
        return self._send(resource, method, body)

    def _send(self, resource: str, method: str, content: bytes | None = None, /, **arguments: Any) -> bytes:
        """Send a request until it is answered, fails for good, or has failed too often."""
        for attempt in itertools.count(1):
            request = build_request(resource, method, **arguments)
            if content is not None:
                request.body, request.body_size = content, len(content)
            try:
                with self._slot():
                    answer = self._send_once(request)
            except RequestFailedError as error:
                refusal = error.refusal
                if attempt >= refusal.attempts:
                    raise
                if refusal.rate_limited:
                    self._adapt(factor=0.5)
                wait = min(FIRST_WAIT_S * 2 ** (attempt - 1), LONGEST_WAIT_S) * (0.5 + random.random() / 2)
                wait = max(wait, min(refusal.retry_after_s, LONGEST_WAIT_S))
                log.info("Earth Engine: %s; attempt %d follows in %.1f s", refusal.message, attempt + 1, wait)
                if self._closed.wait(wait):
                    raise
            else:
                self._adapt(step=1 / self.max_concurrent)
                return answer
        raise AssertionError("unreachable")

    def _send_once(self, request: Any) -> bytes:
        auth: Any = importlib.import_module("google.auth.exceptions")
        api: Any = importlib.import_module("googleapiclient.errors")
        httplib2: Any = importlib.import_module("httplib2")
        request.http = self._transport(request.http)
        try:
            return request.execute(num_retries=0)
        except api.HttpError as error:
            answer = error.resp
            refusal = Refusal.parse(int(answer.status), error.content, answer.get("retry-after"))
        except TimeoutError:
            refusal = Refusal("transient", f"no answer within {self.deadline_s:g} s", 408)
        except (OSError, auth.TransportError, httplib2.HttpLib2Error) as error:
            # urllib3 names its objects by their address, which differs every time
            shown = re.sub(r"<[^<>]*object at 0x[0-9a-f]+>:? ?", "", without_query(str(error)))
            shown = re.sub(r"(url: /[^\s?]*)\?\S*", r"\1", shown)  # an API key may be in it
            refusal = Refusal("transient", f"the connection failed: {shown}")
        except auth.GoogleAuthError as error:
            refusal = Refusal("fatal", f"the credentials are refused: {error}; call ee.Authenticate() again", 401)
        raise RequestFailedError(refusal)

    def _transport(self, of_client: Any) -> Any:
        """Replace the client's transport by this package's session; a transport of the user's own is kept."""
        authorized: Any = importlib.import_module("google_auth_httplib2").AuthorizedHttp
        own = _HttpSession(self._session, self.deadline_s)
        if isinstance(of_client, authorized) and _belongs_to_client(of_client.http):
            return authorized(of_client.credentials, http=own)
        return own if _belongs_to_client(of_client) else of_client

    @contextmanager
    def _slot(self) -> Iterator[None]:
        """Wait until one more request may be sent."""
        with self._slots:
            while self._running >= max(1, int(self._allowed)):
                self._slots.wait()
            self._running += 1
        try:
            yield
        finally:
            with self._slots:
                self._running -= 1
                self._slots.notify()

    def _adapt(self, factor: float = 1.0, step: float = 0.0) -> None:
        """Change how many requests may run at once."""
        with self._slots:
            self._allowed = min(max(self._allowed * factor + step, 1.0), float(self.max_concurrent))
            self._slots.notify_all()


class _HttpSession:
    """httplib2's `request`, which the client calls, on a session of `requests` with a pool and a deadline."""

    def __init__(self, session: Any, deadline_s: float) -> None:
        self._session = session
        self._timeouts_s = min(CONNECT_S, deadline_s), deadline_s

    def request(
        self, uri: str, method: str = "GET", body: Any = None, headers: Any = None, redirections: Any = None,
        connection_type: Any = None,
    ) -> tuple[Any, bytes]:  # fmt: skip
        """Send a request; the last two arguments are httplib2's and have no effect."""
        errors: Any = importlib.import_module("requests.exceptions")
        make: Callable[[dict[str, Any]], Any] = importlib.import_module("httplib2").Response
        try:
            answer = self._session.request(method, uri, data=body, headers=headers, timeout=self._timeouts_s)
        except errors.Timeout as error:
            raise TimeoutError(str(error)) from error
        except errors.RequestException as error:
            raise ConnectionError(str(error)) from error
        return make({**answer.headers, "status": answer.status_code}), answer.content


def _belongs_to_client(transport: Any) -> bool:
    """Whether the client made a transport, and not the user (`ee.Initialize(http_transport=...)`)."""
    return type(transport).__module__.partition(".")[0] == "ee"


def _json_object(content: bytes) -> dict[str, Any]:
    """Parse an answer that must be a JSON object."""
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise RequestFailedError(Refusal("other", f"the answer is not a JSON object: {content[:80]!r}"))
    return found


def _seconds(retry_after: Any) -> float:
    """Parse a Retry-After header; a date in it counts as 0."""
    try:
        return max(0.0, float(retry_after))
    except (TypeError, ValueError):
        return 0.0
