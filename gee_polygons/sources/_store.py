"""Byte access: one way for local files, HTTP(S), S3 and Google Cloud Storage, behind obstore."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from gee_polygons.errors import ReadError

__all__ = ["first_line", "is_url", "join", "locate", "read_ranges"]


def is_url(spec: str) -> bool:
    """Whether a place is a URL rather than a local path."""
    return "://" in spec


def join(folder: str, path: str) -> str:
    """Resolve a path or URL named in an index against the index's own folder."""
    if is_url(path) or Path(path).is_absolute():
        return path
    return f"{folder.rstrip('/')}/{path}" if is_url(folder) else str(Path(folder) / path)


def locate(place: str) -> tuple[Any, str]:
    """Return the obstore store and the path inside it for a local path or a URL.

    Parameters
    ----------
    place : str
        Local path, ``file://``, ``http(s)://``, ``s3://`` or ``gs://`` URL. Buckets are read anonymously.

    Returns
    -------
    (store, path)
    """
    if not is_url(place):
        # absolute() and not resolve(): a link is named as the user named it. But obstore refuses "..".
        path = Path(place).absolute()
        return _store("file://", ""), str(path.resolve() if ".." in path.parts else path).lstrip("/")
    parts = urlsplit(place)
    if parts.scheme == "file":
        return _store("file://", ""), unquote(parts.path).lstrip("/")
    return _store(parts.scheme, parts.netloc), parts.path.lstrip("/")


def read_ranges(place: str, starts: Sequence[int], lengths: Sequence[int]) -> list[Any]:
    """Read byte ranges of one file; neighbouring ranges become one request.

    Raises
    ------
    ReadError
        Naming the file, if it can't be read or ends before a range does.
    """
    import obstore

    store, path = locate(place)
    if starts and not is_url(place):
        _check_size(place, max(start + length for start, length in zip(starts, lengths, strict=True)))
    try:
        parts = obstore.get_ranges(store, path, starts=list(starts), lengths=list(lengths))
    except (OSError, obstore.exceptions.BaseError) as error:
        raise ReadError(f"{place}: can't be read: {first_line(error)}", url=place) from error
    for part, start, length in zip(parts, starts, lengths, strict=True):
        if len(part) != length:
            raise ReadError(f"{place}: {length} bytes asked for at {start}, {len(part)} found: truncated", url=place)
    return list(parts)


def _check_size(place: str, needed: int) -> None:
    """Refuse a file that ends too early: obstore panics when a merged range passes the end of a local file."""
    try:
        size = Path(place).stat().st_size
    except OSError as error:
        raise ReadError(f"{place}: can't be read: {error.strerror}", url=place) from error
    if size < needed:
        raise ReadError(f"{place}: truncated: its header names {needed} bytes, it has {size}", url=place)


def first_line(error: BaseException) -> str:
    """Return the first line of a message that may have many."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


@lru_cache(maxsize=64)
def _store(scheme: str, host: str) -> Any:
    from obstore.store import GCSStore, HTTPStore, LocalStore, S3Store

    if scheme == "file://":
        return LocalStore("/")
    if scheme in ("http", "https"):
        return HTTPStore(f"{scheme}://{host}", client_options={"allow_http": scheme == "http"})
    if scheme == "s3":
        # the open archive's bucket has dots in its name and lives in us-west-2
        return S3Store(host, region="us-west-2", skip_signature=True)
    if scheme == "gs":
        return GCSStore(host, skip_signature=True)
    raise ReadError(f"{scheme}://{host}: unknown kind of URL; use file, http, https, s3 or gs")
