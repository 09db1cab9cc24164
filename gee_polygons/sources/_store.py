"""Where bytes are: one way for local files, HTTP(S), S3 and Google Cloud Storage, behind obstore."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from gee_polygons.errors import ReadError

__all__ = ["first_line", "folder_of", "is_url", "join", "local_path", "locate", "read_ranges", "rewrite"]

OPEN_ARCHIVE_BUCKET: Final = "us-west-2.opendata.source.coop"  # dots in its name, and it lives in us-west-2
# object_store's own retries are off: `_fetch` retries, for bodies that break off too, and counts every request
_NO_RETRIES: Final[Any] = {"max_retries": 0}


def is_url(spec: str) -> bool:
    """Whether a place is a URL rather than a local path."""
    return "://" in spec


def join(folder: str, path: str) -> str:
    """Resolve a path or URL named in an index against the index's own folder."""
    if is_url(path) or Path(path).is_absolute():
        return path
    return f"{folder.rstrip('/')}/{path}" if is_url(folder) else str(Path(folder) / path)


def folder_of(place: str) -> str:
    """Return the folder or URL prefix that a file lies in."""
    return place.rsplit("/", 1)[0] if is_url(place) else str(Path(place).parent)


def rewrite(place: str, prefixes: Mapping[str, str]) -> str:
    """Replace the longest prefix that fits, so that a mirror is read instead of what an index names.

    Examples
    --------
    >>> rewrite("s3://bucket/a/b.tiff", {"s3://bucket/": "https://mirror.example/"})
    'https://mirror.example/a/b.tiff'
    """
    for old in sorted(prefixes, key=len, reverse=True):
        if place.startswith(old):
            return prefixes[old] + place[len(old) :]
    return place


def locate(place: str, timeout_s: float = 60.0) -> tuple[Any, str]:
    """Return the obstore store and the path inside it for a local path or a URL.

    Parameters
    ----------
    place : str
        Local path, ``file://``, ``http(s)://``, ``s3://`` or ``gs://`` URL. Buckets are read anonymously.
    timeout_s : float
        How long one request may take.

    Returns
    -------
    (store, path)
    """
    local = local_path(place)
    if local is not None:
        # absolute() and not resolve(): a link is named as the user named it. But obstore refuses "..".
        path = Path(local).absolute()
        inside = path.resolve() if ".." in path.parts else path
        return _store("file://", "", "", timeout_s), str(inside).lstrip("/")
    parts = urlsplit(place)
    if parts.query:
        raise ReadError(f"{place}: URLs with a query (signed ones) aren't supported; name the object itself", url=place)
    # AWS's own variables, so that an S3-compatible server can be named without code
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    return _store(parts.scheme, parts.netloc, endpoint if parts.scheme == "s3" else "", timeout_s), parts.path[1:]


def local_path(place: str) -> str | None:
    """Return the path of what lies on this machine's disks, also by a ``file://`` URL; None for what is far away.

    Examples
    --------
    >>> local_path("file:///data/my%20tiles/a.tiff"), local_path("../a.tiff"), local_path("s3://bucket/a.tiff")
    ('/data/my tiles/a.tiff', '../a.tiff', None)
    """
    if not is_url(place):
        return place
    return unquote(urlsplit(place).path) if place.lower().startswith("file://") else None


def read_ranges(place: str, starts: Sequence[int], lengths: Sequence[int]) -> list[Any]:
    """Read byte ranges of one file, all of them at once.

    Raises
    ------
    ReadError
        Naming the file, if it can't be read or ends before a range does.
    """
    from gee_polygons.sources._fetch import Failed, Want, stream

    answer = next(stream([Want(place, starts, lengths)]))
    if isinstance(answer, Failed):
        raise answer.error
    return answer


def first_line(error: BaseException) -> str:
    """Return the first line of a message that may have many."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


@lru_cache(maxsize=64)
def _store(scheme: str, host: str, endpoint: str, timeout_s: float) -> Any:
    from obstore.store import GCSStore, HTTPStore, LocalStore, S3Store

    if scheme == "file://":
        return LocalStore("/")
    plain = scheme == "http" or endpoint.startswith("http://")
    options: Any = {"timeout": f"{timeout_s:g} seconds", "connect_timeout": "10 seconds", "allow_http": plain}
    if scheme in ("http", "https"):
        return HTTPStore(f"{scheme}://{host}", client_options=options, retry_config=_NO_RETRIES)
    if scheme == "s3":
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-west-2"
        more: dict[str, Any] = {"endpoint": endpoint, "virtual_hosted_style_request": False} if endpoint else {}
        return S3Store(
            host,
            region="us-west-2" if host == OPEN_ARCHIVE_BUCKET else region,
            skip_signature=True,
            client_options=options,
            retry_config=_NO_RETRIES,
            **more,
        )
    if scheme == "gs":
        return GCSStore(host, skip_signature=True, client_options=options, retry_config=_NO_RETRIES)
    raise ReadError(f"{scheme}://{host}: unknown kind of URL; use file, http, https, s3 or gs")
