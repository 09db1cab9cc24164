"""One request: sent compactly, with a deadline of its own, and answered with bytes or an error with its HTTP status.

The client's own way loses the status, has no deadline unless `ee.data.setDeadline` sets one for the whole process, and
holds 10 connections. So requests are made by the client (address, headers, project, credentials) and carried by a
session of this package: nothing of the user's session is changed.
"""

from __future__ import annotations

import itertools
import json
import logging
import random
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from gee_polygons.errors import EarthEngineError
from gee_polygons.sources._earthengine.session import earth_engine

__all__ = ["MAX_PAYLOAD_BYTES", "Refusal", "RequestFailedError", "Service", "payload"]

log = logging.getLogger(__name__)

# https://developers.google.com/earth-engine/guides/usage#adjustable_quota_limits and the service's own messages
MAX_CONCURRENT: Final = 40  # requests of a project at once, on each endpoint
DEFAULT_CONCURRENT: Final = 20  # leaves room for the user's other notebooks
MAX_PAYLOAD_BYTES: Final = 10_485_760
INTERACTIVE_S: Final = 300.0  # the service gives up on an interactive request after 5 minutes
# of a request that fails for reasons that pass; one that stays silent for minutes is asked only once more
MAX_ATTEMPTS: Final = {429: 10, 408: 2}
OTHER_ATTEMPTS: Final = 5
FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 32.0

_PASSING_STATUS: Final = frozenset({408, 429, 500, 502, 503, 504})
_PASSING_WORDS: Final = ("too many requests", "too many concurrent", "rate limit", "quota exceeded for quota metric")
_SMALLER_WORDS: Final = (
    "user memory limit exceeded",
    "computation timed out",
    "5000 elements",
    "payload size exceeds",
    "too many pixels",
    "must be less than or equal to",  # Total request size, pixel grid dimensions
    "output of image computation is too large",
    "response size exceeds",
)
_ALL_ALIKE_STATUS: Final = frozenset({401, 403, 404, 501})  # of the project or the asset: no site can help


@dataclass(frozen=True)
class Refusal:
    """Why a request failed.

    `kind`: ``"passing"`` (try again), ``"too_big"`` (ask for less), ``"fatal"`` (nothing helps), ``"other"`` (something
    in it).
    """

    kind: str
    message: str
    status: int = 0

    @classmethod
    def of(cls, status: int, message: str) -> Refusal:
        """Tell kinds of failure by HTTP status and by message.

        Examples
        --------
        >>> Refusal.of(400, "User memory limit exceeded.").kind, Refusal.of(503, "Unavailable").kind
        ('too_big', 'passing')
        """
        words = message.lower()
        if status in _PASSING_STATUS or any(w in words for w in _PASSING_WORDS):
            kind = "passing"
        elif status == 413 or any(w in words for w in _SMALLER_WORDS):
            kind = "too_big"
        elif status in _ALL_ALIKE_STATUS:
            kind = "fatal"
        else:
            kind = "other"
        return cls(kind, " ".join(message.split()), status)


class RequestFailedError(EarthEngineError):
    """A request failed for good, after all attempts."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"Earth Engine: {refusal.message}")
        self.refusal = refusal


def payload(expression: Any, **more: Any) -> bytes:
    """Return the body of a request, as small as JSON can be."""
    from ee import serializer

    encoded = expression if isinstance(expression, Mapping) else serializer.encode(expression)
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
    sent: int = 0
    _allowed: float = field(default=0.0, repr=False)
    _running: int = field(default=0, repr=False)
    _gate: threading.Condition = field(default_factory=threading.Condition, repr=False)
    _session: Any = field(default=None, repr=False)
    _transports: dict[int, tuple[Any, Any]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._allowed = float(self.max_concurrent)

    def features(self, body: bytes) -> list[dict[str, Any]]:
        """Compute a collection; return the properties of its features, all pages."""
        found: list[dict[str, Any]] = []
        while True:
            answer = json.loads(self._post("table", "computeFeatures", body))
            found += [feature.get("properties") or {} for feature in answer.get("features") or []]
            token = answer.get("nextPageToken")
            if not token:
                return found
            body = json.dumps({**json.loads(body), "pageToken": token}, separators=(",", ":")).encode()

    def value(self, expression: Any) -> Any:
        """Compute a value."""
        return json.loads(self._post("value", "compute", payload(expression)))["result"]

    def pixels(self, body: bytes) -> bytes:
        """Compute pixels."""
        return self._post("image", "computePixels", body)

    def export(self, body: bytes) -> dict[str, Any]:
        """Start a batch task; the request id in the body makes trying again safe."""
        started: dict[str, Any] = json.loads(self._post("table", "export", body))
        return started

    def _post(self, resource: str, method: str, body: bytes) -> bytes:
        if len(body) > MAX_PAYLOAD_BYTES:  # known beforehand: don't send it
            raise RequestFailedError(
                Refusal("too_big", f"Request payload size exceeds the limit: {MAX_PAYLOAD_BYTES} bytes")
            )
        for attempt in itertools.count(1):
            with self._turn():
                answer = self._once(resource, method, body)
            if not isinstance(answer, Refusal):
                self._allow(1 / self.max_concurrent)
                return answer
            if answer.kind != "passing" or attempt >= MAX_ATTEMPTS.get(answer.status, OTHER_ATTEMPTS):
                raise RequestFailedError(answer)
            if answer.status == 429:
                self._allow(-0.5)
            wait = min(FIRST_WAIT_S * 2 ** (attempt - 1), LONGEST_WAIT_S) * (0.5 + random.random() / 2)
            log.info("Earth Engine: %s; attempt %d follows in %.1f s", answer.message, attempt + 1, wait)
            time.sleep(wait)
        raise AssertionError("unreachable")

    def _once(self, resource: str, method: str, body: bytes) -> bytes | Refusal:
        ee = earth_engine()
        auth = ee.data.google.auth.exceptions
        projects = ee.data._get_cloud_projects_raw()
        call = getattr(getattr(projects, resource)(), method)(project=ee.data._get_projects_path(), body={})
        call.body, call.body_size = body, len(body)
        call.http = self._transport(call.http)
        self.sent += 1
        try:
            content: bytes = call.execute(num_retries=0)
        except ee.data.googleapiclient.errors.HttpError as error:
            return Refusal.of(int(error.resp.status), str(error._get_reason()) or "no reason given")
        except TimeoutError:
            return Refusal("passing", f"no answer within {self.deadline_s:g} s", 408)
        except (ConnectionError, auth.TransportError) as error:
            return Refusal("passing", f"the connection failed: {error}")
        except auth.GoogleAuthError as error:
            return Refusal("fatal", f"the credentials are refused: {error}; call ee.Authenticate() again", 401)
        return content

    def _transport(self, theirs: Any) -> Any:
        """Return the client's way of sending, with this package's deadline and pool; a user's own is left alone."""
        from ee import _cloud_api_utils as parts

        _cloud_api_utils: Any = parts
        authorized = _cloud_api_utils.google_auth_httplib2.AuthorizedHttp
        known = self._transports.get(id(theirs))
        if known is not None and known[0] is theirs:
            return known[1]
        ours = theirs
        plain = _cloud_api_utils._Http(self._own_session(), self.deadline_s)
        if isinstance(theirs, authorized):
            if isinstance(theirs.http, _cloud_api_utils._Http):
                ours = authorized(theirs.credentials, http=plain)
        elif isinstance(theirs, _cloud_api_utils._Http):
            ours = plain
        self._transports[id(theirs)] = theirs, ours
        return ours

    def _own_session(self) -> Any:
        from ee import _cloud_api_utils as parts

        if self._session is None:
            client: Any = parts
            requests = client.requests  # the client's own: what it sends with
            session = requests.Session()
            adapter = requests.adapters.HTTPAdapter(pool_connections=4, pool_maxsize=max(self.max_concurrent, 10))
            session.mount("https://", adapter)
            session.mount("http://", adapter)
            self._session = session
        return self._session

    def close(self) -> None:
        """Give the connections back."""
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
