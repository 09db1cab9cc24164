"""Keeps Earth Engine results on disk, so that what was computed once isn't computed again.

Results are rows of one SQLite file. A row's key is a digest of everything that its values depend on (service, asset,
geometry, period, reducer, grid), so changed sites or layers get new rows and nothing has to be deleted. The results of
a request are written in one transaction: a process that is killed loses only the requests under way.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from gee_polygons.errors import OutputError, warn_data
from gee_polygons.store.cache import cache_folder

log = logging.getLogger(__name__)

FILE_NAME: Final = "earthengine.sqlite"
# Version of the formulas: a higher number makes the values of older versions unreachable. 2: version 1 kept values of
# unfinished years and of half-published embeddings for good
VERSION: Final = 2
# Values that may still change are computed again after a day: scenes arrive daily, and the tiles of a new year one by
# one in January
EXPIRES_AFTER_S: Final = 86_400.0
_KEYS_PER_SELECT: Final = 500  # SQLite allows 999 or more
_BUSY_TIMEOUT_S: Final = 30.0
# primary result codes: another schema, a damaged file, not a database
_DAMAGED: Final = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

Values = list[Any]
_T = TypeVar("_T")


def digest(*parts: str) -> bytes:
    """Return the key of values that depend on these texts.

    Examples
    --------
    >>> digest("a", "bc") == digest("ab", "c")
    False
    """
    return hashlib.sha256("\0".join([str(VERSION), *parts]).encode()).digest()


class Cache:
    """Values by key in one SQLite file, which threads and processes may share.

    Parameters
    ----------
    path : Path or None
        The file; it and its folder are created if need be. A damaged file is renamed to ``<name>.damaged``, with a
        `DataWarning`, and a new one begun. None, or a file that can't be opened: nothing is kept.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._file: sqlite3.Connection | None = None
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            log.warning("there is no cache of Earth Engine results: %s: %s", path, error)
        self._use(_create, None)

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Values]:
        """Return the values of those keys that have any."""

        def select(file: sqlite3.Connection) -> dict[bytes, Values]:
            found: dict[bytes, Values] = {}
            now = time.time()
            for start in range(0, len(keys), _KEYS_PER_SELECT):
                some = keys[start : start + _KEYS_PER_SELECT]
                marks = ",".join("?" * len(some))
                rows = file.execute(
                    f"SELECT key, value FROM site_periods WHERE key IN ({marks})"
                    # later: the clock was ahead
                    " AND (until IS NULL OR until BETWEEN ? AND ? OR until BETWEEN ? AND 0)",
                    [*some, now, now + EXPIRES_AFTER_S, -now - EXPIRES_AFTER_S],
                )
                found.update((bytes(key), _unpacked(value)) for key, value in rows)
            return found

        return self._use(select, {})

    def put(self, found: Mapping[bytes, Values], expiring: Iterable[bytes] = ()) -> None:
        """Keep values, all or none of them; those of the keys in `expiring` for a day."""
        passing = set(expiring)
        now = time.time()
        # what is kept for good was judged by the clock as well: its time, below zero
        rows = [(k, _packed(values), now + EXPIRES_AFTER_S if k in passing else -now) for k, values in found.items()]

        def insert(file: sqlite3.Connection) -> None:
            with file:
                file.executemany("INSERT OR REPLACE INTO site_periods VALUES (?, ?, ?)", rows)

        self._use(insert, None)

    def close(self) -> None:
        """Close the file; requests that are answered later are not kept."""
        with self._lock:
            if self._file is not None:
                self._file.close()
            self._file = None

    def _use(self, work: Callable[[sqlite3.Connection], _T], default: _T) -> _T:
        """Return what `work` returns for the file, or `default`: a cache that fails must not stop an extraction."""
        with self._lock:
            for _ in range(2):
                if self._file is None:
                    break
                try:
                    return work(self._file)
                except (sqlite3.Error, ValueError, TypeError) as error:  # the last two: a damaged value
                    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
                    if isinstance(error, sqlite3.Error) and code not in _DAMAGED:
                        log.warning("the cache of Earth Engine results %s can't be used: %s", self._path, error)
                        break
                    self._begin_again(error)
        return default

    def _begin_again(self, error: Exception) -> None:
        """Move a damaged file aside and begin a new one."""
        assert self._file is not None
        self._file.close()
        self._file = None
        aside = f"{self._path}.damaged"
        try:
            for suffix in ("", "-wal", "-shm"):  # SQLite would replay a journal that stays into the new file
                with suppress(FileNotFoundError):
                    Path(f"{self._path}{suffix}").replace(f"{aside}{suffix}")
            self._file = sqlite3.connect(f"{self._path}", timeout=_BUSY_TIMEOUT_S, check_same_thread=False)
            _create(self._file)
        except (OSError, sqlite3.Error) as failed:
            log.warning("there is no cache of Earth Engine results: %s: %s", self._path, failed)
        warn_data(
            f"the cache of Earth Engine results, {self._path}, is damaged ({error}): moved to {aside}, and a new one "
            "begun; its values are computed again"
        )


def open_cache(wanted: bool) -> Cache:
    """Open the cache of this machine, or one that keeps nothing."""
    try:
        return Cache(cache_folder() / FILE_NAME if wanted else None)
    except OutputError as error:
        log.warning("there is no cache of Earth Engine results: %s", error)
        return Cache(None)


def _create(file: sqlite3.Connection) -> None:
    file.execute("PRAGMA journal_mode=WAL")
    file.execute("PRAGMA synchronous=NORMAL")
    file.execute(
        "CREATE TABLE IF NOT EXISTS site_periods (key BLOB PRIMARY KEY, value BLOB NOT NULL, until REAL) WITHOUT ROWID"
    )


def _packed(values: Values) -> bytes:
    """Return doubles where all are numbers (None as NaN), JSON otherwise."""
    if all(v is None or isinstance(v, int | float) for v in values):
        return b"d" + np.array(values, "<f8").tobytes()
    return b"j" + json.dumps(values).encode()


def _unpacked(blob: bytes) -> Values:
    if blob[:1] == b"j":
        return json.loads(blob[1:])
    return [None if math.isnan(v) else v for v in np.frombuffer(blob, "<f8", offset=1).tolist()]
