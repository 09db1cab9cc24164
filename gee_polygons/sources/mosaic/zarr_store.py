"""Opens Zarr v3 arrays with zarr-python, over this package's own retried requests."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import ByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype

from gee_polygons.errors import InputFileError, ReadError, TileError
from gee_polygons.network.local import MissingFileError
from gee_polygons.network.places import first_line, local_path
from gee_polygons.network.request import Network, fetch, fetch_end, fetch_whole


class _Store(Store):
    """zarr's view of local files or of a server, through this package's requests; to be read only."""

    supports_writes = supports_deletes = False
    supports_listing = True

    def __init__(self, place: str, network: Network) -> None:
        super().__init__(read_only=True)
        local = local_path(place)
        parts = urlsplit(place)
        self.root = (local if local is not None else parts.path).strip("/")
        self.base = "/" if local is not None else f"{parts.scheme}://{parts.netloc}/"
        self._network = network
        self._documents: dict[str, Any] = {}  # zarr reads a group's metadata twice

    def __eq__(self, other: object) -> bool:
        return self is other

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        try:
            if byte_range is None and key not in self._documents:
                self._documents[key] = await asyncio.to_thread(fetch_whole, self.base + key, self._network)
            data = self._documents[key] if byte_range is None else await asyncio.to_thread(self._part, key, byte_range)
        except MissingFileError:
            self._documents[key] = data = None
        return None if data is None else prototype.buffer.from_bytes(bytes(data))

    def _part(self, key: str, part: ByteRequest) -> Any:
        """Read a part of an object, as zarr does for coordinate arrays in shards."""
        place = self.base + key
        if isinstance(part, RangeByteRequest):
            return fetch(place, part.start, part.end - part.start, self._network)
        if isinstance(part, SuffixByteRequest):
            return fetch_end(place, part.suffix, self._network)[0]
        return bytes(fetch_whole(place, self._network))[part.offset :]

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        return [await self.get(key, prototype, part) for key, part in key_ranges]

    async def exists(self, key: str) -> bool:
        return await self.get(key, default_buffer_prototype()) is not None

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        if not self.base.startswith("/"):
            raise OSError("a server's folders can't be listed")
        for path in Path(self.base + prefix).iterdir():
            yield path.name

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        return self.list_dir(prefix)

    def list(self) -> AsyncIterator[str]:
        return self.list_dir("")

    async def set(self, key: str, value: Buffer) -> None:
        raise NotImplementedError

    async def delete(self, key: str) -> None:
        raise NotImplementedError


@dataclass(frozen=True)
class OpenedArray:
    """An array of embeddings, and the group that it lies in.

    Parameters
    ----------
    array : zarr.Array
        The embeddings.
    group : zarr.Group or None
        Where coordinate arrays and more attributes may be.
    place : str
        URL or path of the array.
    """

    array: Any
    group: Any
    place: str

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes of the group and of the array; the array's count where both have one."""
        return {**(dict(self.group.attrs) if self.group is not None else {}), **dict(self.array.attrs)}

    def values(self, coordinate: Any, part: slice = slice(None)) -> NDArray[Any]:
        """Return values of a coordinate array."""
        try:
            return np.asarray(coordinate[part])
        except ReadError:
            raise
        except Exception as error:  # codecs raise errors of any class
            raise ReadError(
                f"{self.place}: coordinate {coordinate.basename!r} can't be read: {first_line(error)}", url=self.place
            ) from error

    def sibling(self, name: str) -> Any:
        """Return another array of the group, or None."""
        return None if self.group is None else _member(self.group, name)


def open_array(place: str, network: Network, name: str = "embeddings") -> OpenedArray:
    """Open an array of embeddings by its own URL or path, or by that of its group.

    Raises
    ------
    InputFileError
        If there is no Zarr v3 array or group.
    TileError
        If none, or several, of a group's arrays may hold embeddings, or zarr can't use the array.
    ReadError
        If the metadata can't be read.
    """
    if (local := local_path(place)) is not None:
        place = str(Path(local).absolute())
    store = _Store(place, network)
    node = _open(store, store.root, place)
    if isinstance(node, zarr.Array):
        above = store.root.rpartition("/")[0]
        try:
            group = _open(store, above, place) if above else None
        except (InputFileError, TileError):
            group = None  # an array needs no group
        return OpenedArray(node, group if isinstance(group, zarr.Group) else None, place)
    array = _member(node, name)
    if array is None:
        array = _only_candidate(node, place, name)
    return OpenedArray(array, node, f"{place}/{array.basename}")


@contextmanager
def _usable_metadata(place: str) -> Iterator[None]:
    """Raise a TileError for metadata that zarr can't use; hide its warnings about unsettled parts of the format."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (ReadError, FileNotFoundError):
        raise
    except Exception as error:  # zarr raises errors of many classes
        raise TileError(f"{place}: zarr can't use its metadata: {first_line(error)}") from error


def _open(store: _Store, path: str, place: str) -> Any:
    try:
        with _usable_metadata(place):
            return _with_attributes(zarr.open(store=store, path=path, mode="r", zarr_format=3))
    except FileNotFoundError as error:
        raise InputFileError(
            f"{place}: no Zarr v3 array or group (there is no zarr.json); is it the right folder, and version 3?"
        ) from error


def _member(group: Any, name: str) -> Any:
    """Return an array of a group, or None."""
    with _usable_metadata(f"{group.name}/{name}"):
        found = _with_attributes(group.get(name))
    return found if isinstance(found, zarr.Array) else None


def _with_attributes(node: Any) -> Any:
    if node is not None and not isinstance(node.metadata.attributes, dict):  # zarr doesn't look
        raise TypeError("its attributes aren't a JSON object")
    return node


def _only_candidate(group: Any, place: str, name: str) -> Any:
    """Return the only array of a group that may hold embeddings, whatever its name."""
    try:
        arrays = [array for _, array in group.arrays()]
    except OSError:  # a server's folder
        arrays = []
    likely = [array for array in arrays if array.ndim in (3, 4) and array.dtype.kind in "if"]
    if len(likely) == 1:
        return likely[0]
    found = ", ".join(sorted(array.basename for array in arrays)) or "none that can be listed"
    raise TileError(f"{place}: no array {name!r} in this group, found {found}; give the URL of the array itself")
