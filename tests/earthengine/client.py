"""The real `ee` client, connected to the local server: for fixtures, notebooks' tests and benchmarks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock


def connect(url: str, project: str = "test") -> Any:
    """Call the real `ee.Initialize` against a local server; return the `ee` module.

    Anonymous credentials need no network. The one other request that the client makes, for a list of deprecated assets
    at storage.googleapis.com, is left out.
    """
    import ee
    import ee.deprecation
    import google.auth.credentials

    with mock.patch.object(ee.deprecation, "_FetchDataCatalogStac", dict):
        ee.Initialize(google.auth.credentials.AnonymousCredentials(), url=url, project=project)
    return ee


def disconnect() -> None:
    """Close the client's connections and forget the session."""
    import ee
    import ee._state

    session = ee._state.get_state().requests_session
    if session is not None:
        session.close()
    ee.Reset()


@contextmanager
def connected(url: str, project: str = "test") -> Iterator[Any]:
    """Connect, and disconnect at the end whatever happens.

    Meanwhile the client doesn't try a 501 again, which it would five times and up to a minute: the real service never
    answers one.
    """
    import googleapiclient.http

    again = googleapiclient.http._should_retry_response

    def patient(status: int, content: bytes) -> bool:
        return status != 501 and again(status, content)

    with mock.patch.object(googleapiclient.http, "_should_retry_response", patient):
        try:
            yield connect(url, project)
        finally:
            disconnect()
