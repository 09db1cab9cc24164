"""Resolves paths and URLs: local files, HTTP(S), S3 and Google Cloud Storage."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from gee_polygons.errors import ArchiveError, ReadError

OPEN_ARCHIVE_BUCKET: Final = "us-west-2.opendata.source.coop"  # always in us-west-2, whatever AWS_REGION says


def is_url(spec: str) -> bool:
    """Whether a place is a URL rather than a local path."""
    return "://" in spec


def has_suffix(place: str, *suffixes: str) -> bool:
    """Whether a path or URL ends with one of several suffixes; a URL's query doesn't count.

    Examples
    --------
    >>> has_suffix("https://host/index.CSV?signature=1", ".csv"), has_suffix("a.tiff", ".csv", ".gpkg")
    (True, False)
    """
    path = urlsplit(place).path if is_url(place) else place
    return path.lower().endswith(suffixes)


# --- URLs that hold a secret: a signature in the query, or a password

_HIDDEN: Final = "hidden-"
# a user and a password, which may hold a slash that should have been encoded, as keys of S3 often do
_PASSWORD: Final = re.compile(r"(\w://)(?:[^/?#\s@]+|[^/?#\s@:\[]*:(?!\d+/)[^?#\s@]+)@")
_secrets: dict[str, str] = {}  # URL as shown -> URL as requested


def hide_query(url: str) -> str:
    """Return a URL whose query and password are replaced by a digest; this process reads it like the original.

    Signed URLs carry their signature in the query, and URLs are named in errors, logs, tables and plans, which must not
    show it. The digest still distinguishes URLs that differ by their query alone.

    Examples
    --------
    >>> hide_query("https://host/a.tiff?X-Signature=secret")
    'https://host/a.tiff?hidden-da39ba9c124b07d4'
    >>> hide_query("https://host/a.tiff")
    'https://host/a.tiff'
    """
    plain = _PASSWORD.sub(r"\1", url)
    signed = url.lower().startswith(("http://", "https://")) and urlsplit(url).query
    if plain == url and (not signed or signed.startswith(_HIDDEN)):
        return url
    parts = urlsplit(plain)
    digest = hashlib.blake2b(url.encode(), digest_size=8).hexdigest()
    shown = urlunsplit((parts.scheme, parts.netloc, parts.path, f"{_HIDDEN}{digest}", ""))
    _secrets[shown] = url
    return shown


def requested(url: str) -> str:
    """Return the URL that `hide_query` has hidden, to be requested; what isn't hidden as it is.

    Raises
    ------
    ReadError
        If another process has hidden it.
    """
    if f"?{_HIDDEN}" in url and url not in _secrets:
        reason = "its query or password was hidden by another process; open the source again in this one"
        raise ReadError(f"{url}: {reason}", url=url)
    return _secrets.get(url, url)


def without_query(text: str) -> str:
    """Remove queries and passwords from all URLs in a text, such as another library's error message.

    Examples
    --------
    >>> without_query("error for url (https://me:word@host/a.tiff?X-Signature=secret): refused")
    'error for url (https://host/a.tiff?...): refused'
    """
    text = _PASSWORD.sub(r"\1", text)
    return re.sub(r"(\w+://[^\s?]*\?)[^\s)\]}\"'>]+", r"\1...", text)


def join(folder: str, path: str, also: Iterable[str] | None = None) -> str:
    """Resolve a path or URL named in an index against the index's own folder.

    Parameters
    ----------
    folder : str
        Folder or URL prefix of the index.
    path : str
        As the index has it. Absolute URLs of remote files may be anywhere.
    also : iterable of str, optional
        Folders that local files may lie in besides `folder`. Default: anywhere.

    Raises
    ------
    ArchiveError
        For a relative path that leaves `folder`, and for a local file that a remote index names.

    Examples
    --------
    >>> join("/data/v1", "2023/a.tiff"), join("https://host/v1", "a.tiff"), join("/data", "s3://bucket/a.tiff")
    ('/data/v1/2023/a.tiff', 'https://host/v1/a.tiff', 's3://bucket/a.tiff')
    """
    if local_path(path) is None:
        return path
    relative = not is_url(path) and not Path(path).is_absolute()
    found = path if not relative else f"{folder.rstrip('/')}/{path}" if is_url(folder) else str(Path(folder) / path)
    # a local list of absolute paths was written on this machine
    trusted = ".." not in unquote(path) if relative else local_path(folder) is not None
    if also is None or trusted or any(_below(found, root) for root in (folder, *also)):
        return found
    raise ArchiveError(
        f"the index in {folder} names {path!r}, which lies outside; if you trust it, allow a folder by "
        "Network(url_rewrite={FOLDER: FOLDER}), GEE_POLYGONS_MIRROR=FOLDER=FOLDER or --url-rewrite FOLDER=FOLDER"
    )


def _below(place: str, root: str) -> bool:
    """Whether a path or URL lies below another one, without following links."""
    inner, outer = local_path(place), local_path(root)
    if inner is not None and outer is not None:
        # not resolve(): an archive may be put together of links
        return Path(os.path.abspath(inner)).is_relative_to(os.path.abspath(outer))  # noqa: PTH100
    root = f"{root.rstrip('/')}/"
    return place.startswith(root) and not posixpath.normpath(unquote(place[len(root) :])).startswith("..")


def folder_of(place: str) -> str:
    """Return the folder or URL prefix that a file lies in."""
    return place.rsplit("/", 1)[0] if is_url(place) else str(Path(place).parent)


def rewrite(place: str, prefixes: Mapping[str, str]) -> str:
    """Replace the longest matching prefix of a path or URL, to read from a mirror.

    Examples
    --------
    >>> rewrite("s3://bucket/a/b.tiff", {"s3://bucket/": "https://mirror.example/"})
    'https://mirror.example/a/b.tiff'
    """
    for old in sorted(prefixes, key=len, reverse=True):
        if place.startswith(prefix := requested(old)):
            return requested(prefixes[old]) + place[len(prefix) :]
    return place


def http_url(place: str) -> str:
    """Return the http(s) URL at which a file is requested; the buckets of ``s3`` and ``gs`` URLs are read anonymously.

    Raises
    ------
    ReadError
        For a URL of an unknown kind, an ``s3`` or ``gs`` URL with a query or a password, or a hidden one of another
        process.

    Examples
    --------
    >>> http_url("gs://bucket/my tiles/a.tiff")
    'https://storage.googleapis.com/bucket/my%20tiles/a.tiff'
    """
    parts = urlsplit(requested(place))
    if parts.scheme in ("http", "https"):
        path = quote(parts.path, safe="/%:@!$&'()*+,;=-._~")
        return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))
    if parts.scheme not in ("s3", "gs"):
        raise ReadError(f"{place}: unknown kind of URL; use file, http, https, s3 or gs", url=place)
    if parts.query or hide_query(requested(place)) != requested(place):
        plain = without_query(f"{parts.scheme}://{parts.netloc}{parts.path}")
        reason = "buckets are read anonymously; only http and https URLs have a query or a password"
        raise ReadError(f"{plain}: {reason}; name the object itself", url=plain)
    server = "https://storage.googleapis.com"
    if parts.scheme == "s3":
        # AWS's own variables name an S3-compatible server
        server = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-west-2"
        region = "us-west-2" if parts.netloc == OPEN_ARCHIVE_BUCKET else region
        server = server.rstrip("/") or f"https://s3.{region}.amazonaws.com"
    return f"{server}/{parts.netloc}{quote(parts.path)}"


def local_path(place: str) -> str | None:
    """Return the path of a local file, also for a ``file://`` URL; None for a remote URL.

    Examples
    --------
    >>> local_path("file:///data/my%20tiles/a.tiff"), local_path("../a.tiff"), local_path("s3://bucket/a.tiff")
    ('/data/my tiles/a.tiff', '../a.tiff', None)
    """
    if not is_url(place):
        return place
    return unquote(urlsplit(place).path) if place.lower().startswith("file://") else None


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, its first 200 characters."""
    return next((line.strip()[:200] for line in str(error).splitlines() if line.strip()), type(error).__name__)
