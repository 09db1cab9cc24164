"""Pytest fixtures: the local Earth Engine, with the real client connected to it.

`earth` starts a server over data of the test's own; `ee_server` is a server over a standard small archive. Both
connect the real client (`import ee` and go), and at the end check that the server answered nothing with 501 and had no
errors of its own, unless the test empties `server.unimplemented`. Other folders import these names into the conftest
that needs them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from .client import connected
from .server import EarthEngineServer
from .synthetic import standard_tiles


def checked(server: EarthEngineServer) -> None:
    """Fail where the server met something that it doesn't know, or a mistake of its own."""
    assert not server.failures, "the local Earth Engine failed:\n" + server.failures[0]
    assert not server.unimplemented, f"the local Earth Engine does not implement: {sorted(set(server.unimplemented))}"


@pytest.fixture(scope="session")
def standard_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of AEF-style tiles whose codes encode their position: see `synthetic.standard_tiles`."""
    return standard_tiles(tmp_path_factory.mktemp("aef"))


@pytest.fixture
def earth() -> Iterator[Callable[..., EarthEngineServer]]:
    """Start a server, `earth(tiles=..., catalogue=..., exports=...)`, and connect the client to it."""
    logging.getLogger("googleapiclient.http").setLevel(logging.ERROR)  # it warns of every retry
    with ExitStack() as stack:
        servers: list[EarthEngineServer] = []

        def start(*places: Path | None, **options: object) -> EarthEngineServer:
            server = stack.enter_context(EarthEngineServer(*places, **options))  # type: ignore[arg-type]
            stack.enter_context(connected(server.url))
            servers.append(server)
            return server

        yield start
    for server in servers:
        checked(server)


@pytest.fixture
def ee_server(earth: Callable[..., EarthEngineServer], standard_archive: Path) -> EarthEngineServer:
    """A connected server over the standard archive."""
    return earth(standard_archive)
