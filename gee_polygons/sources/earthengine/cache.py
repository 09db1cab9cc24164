"""Finished site-years, kept on this machine: what was computed once is never asked for again.

One SQLite file. A key is a digest of everything that a value depends on (service, asset, geometry, period, reducer,
grid), so nothing has to be thrown away when sites or layers change. Each request's results are one transaction: a kill
loses what was under way and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import sqlite3
import struct
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from gee_polygons.store.cache import cache_folder

__all__ = ["Cache", "NoCache", "digest", "open_cache"]

log = logging.getLogger(__name__)

FILE_NAME: Final = "earthengine.sqlite"
VERSION: Final = 1  # of what is computed: a change in a formula makes old values unreachable
# "no data" is asked again the next day: a new year's tiles appear one by one in January. To ask costs little
NOTHING_LASTS_S: Final = 86_400.0
_AT_ONCE: Final = 500  # keys of one SELECT; SQLite allows 999 or more
_BUSY_S: Final = 30.0

Values = list[Any]


def digest(*parts: str) -> bytes:
    """Return a key for what the parts say.

    Examples
    --------
    >>> digest("a", "bc") == digest("ab", "c")
    False
    """
    return hashlib.sha256("\0".join([str(VERSION), *parts]).encode()).digest()


class NoCache:
    """Remembers nothing."""

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Values]:
        """Know nothing."""
        return {}

    def put(self, found: Mapping[bytes, Values], nothing: Iterable[bytes] = ()) -> None:
        """Forget at once."""

    def close(self) -> None:
        """Do nothing."""


class Cache(NoCache):
    """Values by key, in one SQLite file; threads and processes may share it.

    Parameters
    ----------
    path : Path
        The file; it and its folder are made if need be.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._closed = False
        self._file = sqlite3.connect(path, timeout=_BUSY_S, check_same_thread=False)
        self._file.execute("PRAGMA journal_mode=WAL")
        self._file.execute("PRAGMA synchronous=NORMAL")
        self._file.execute(
            "CREATE TABLE IF NOT EXISTS site_periods (key BLOB PRIMARY KEY, value BLOB NOT NULL, until REAL) "
            "WITHOUT ROWID"
        )
        self._file.commit()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Values]:
        """Return what is known of some keys."""
        found: dict[bytes, Values] = {}
        now = time.time()
        with self._lock:
            for start in range(0, len(keys), _AT_ONCE):
                some = keys[start : start + _AT_ONCE]
                marks = ",".join("?" * len(some))
                rows = self._file.execute(
                    f"SELECT key, value FROM site_periods WHERE key IN ({marks}) AND (until IS NULL OR until > ?)",
                    [*some, now],
                )
                found.update((bytes(key), _unpacked(value)) for key, value in rows)
        return found

    def put(self, found: Mapping[bytes, Values], nothing: Iterable[bytes] = ()) -> None:
        """Keep values, all or none of them; those of the keys in `nothing` only for a while."""
        fleeting = set(nothing)
        until = time.time() + NOTHING_LASTS_S
        rows = [(key, _packed(values), until if key in fleeting else None) for key, values in found.items()]
        with self._lock:
            if self._closed:  # what was under way when the caller gave up
                return
            try:
                with self._file:
                    self._file.executemany("INSERT OR REPLACE INTO site_periods VALUES (?, ?, ?)", rows)
            except sqlite3.Error as error:  # a full disk must not lose what was computed
                log.warning("the cache of Earth Engine results can't be written: %s", error)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._closed = True
            self._file.close()


def open_cache(wanted: bool) -> NoCache:
    """Open the cache, or one that remembers nothing where it isn't wanted or can't be had."""
    if not wanted:
        return NoCache()
    path = cache_folder() / FILE_NAME
    try:
        return Cache(path)
    except (OSError, sqlite3.Error) as error:
        log.warning("there is no cache of Earth Engine results: %s: %s", path, error)
        return NoCache()


def _packed(values: Values) -> bytes:
    """Doubles where all are numbers (None as NaN), JSON otherwise."""
    if all(v is None or isinstance(v, int | float) for v in values):
        return b"d" + struct.pack(f"<{len(values)}d", *(math.nan if v is None else v for v in values))
    return b"j" + json.dumps(values).encode()


def _unpacked(blob: bytes) -> Values:
    if blob[:1] == b"j":
        loaded: Values = json.loads(blob[1:])
        return loaded
    numbers = struct.unpack(f"<{(len(blob) - 1) // 8}d", blob[1:])
    return [None if math.isnan(v) else v for v in numbers]
