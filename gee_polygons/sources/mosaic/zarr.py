"""Zarr v3 arrays as byte ranges: where each inner chunk lies, and how its bytes become pixels.

zarr-python opens the store and reads all metadata. Chunks are read without it, for it fetches a shard's index again at
every read, one chunk at a time, and gives up at the first fault. Here an index is kept, and chunks go through the same
merged, retried and checked requests as the blocks of a tile. zarr decodes what isn't in the published codecs (bytes,
then zstd), indexes included: any codec that it knows is read.
"""

from __future__ import annotations

import asyncio
import json
import math
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np
import zarr
from numpy.typing import NDArray
from obstore.exceptions import BaseError as ObstoreError
from zarr.abc.store import ByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.storage import MemoryStore, ObjectStore

from gee_polygons.errors import InputFileError, ReadError, TileError
from gee_polygons.network.local import MissingFileError
from gee_polygons.network.places import first_line, local_path, locate
from gee_polygons.network.ranges import RangeRequest
from gee_polygons.network.request import Network, fetch, fetch_end, fetch_whole

_ABSENT: Final = np.uint64(2**64 - 1)  # both numbers of a chunk that was never written
_INDEX_CODECS: Final = {"bytes": 0, "crc32c": 4, "transpose": 0}  # and how many bytes each adds
# no codec makes a chunk of noise longer than this share and these bytes
_MOST_GROWTH: Final = 1 / 16
_MOST_HEADER: Final = 64 * 2**10
USUAL_SHARE: Final = 0.6  # of a raw chunk's bytes that the published mosaic stores: 2.5 MB of 4 MiB
_METADATA_AT_ONCE: Final = 64

Coords = tuple[int, ...]


class _Store(ObjectStore[Any]):
    """zarr's store over obstore, whose reads are retried as all of this package's are."""

    def __init__(self, place: str, network: Network) -> None:
        store, root = locate(place, network.timeout_s)
        super().__init__(store, read_only=True)
        self.root = root.strip("/")
        parts = urlsplit(place)
        self.base = "/" if local_path(place) is not None else f"{parts.scheme}://{parts.netloc}/"
        self._network = network
        self._known: dict[str, Any] = {}

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        try:
            if byte_range is None and key not in self._known:  # zarr asks for a group's document twice
                self._known[key] = await asyncio.to_thread(fetch_whole, self.base + key, self._network)
            data = self._known[key] if byte_range is None else await asyncio.to_thread(self._part, key, byte_range)
        except MissingFileError:
            self._known[key] = data = None
        return None if data is None else prototype.buffer.from_bytes(bytes(data))

    def _part(self, key: str, asked: ByteRequest) -> Any:
        """Read some bytes of an object: zarr does, of coordinates in shards."""
        place = self.base + key
        if isinstance(asked, RangeByteRequest):
            return fetch(place, asked.start, asked.end - asked.start, self._network)
        if isinstance(asked, SuffixByteRequest):
            return fetch_end(place, asked.suffix, self._network)[0]
        return bytes(fetch_whole(place, self._network))[asked.offset :]


@dataclass(frozen=True)
class Node:
    """An array of embeddings, and the group that it lies in.

    Parameters
    ----------
    array : zarr.Array
        The embeddings.
    group : zarr.Group or None
        Where its coordinates and more attributes may be.
    place : str
        URL or path of the array.
    """

    array: Any
    group: Any
    place: str

    @property
    def attributes(self) -> list[dict[str, Any]]:
        """Attributes of the array, then of the group."""
        nodes = [self.array] + ([self.group] if self.group is not None else [])
        return [dict(node.attrs) for node in nodes]

    def values(self, coordinate: Any, part: slice = slice(None)) -> NDArray[Any]:
        """Return values of a coordinate array."""
        try:
            return np.asarray(coordinate[part])
        except ReadError:
            raise
        except Exception as error:  # codecs raise what they like
            raise ReadError(
                f"{self.place}: coordinate {coordinate.basename!r} can't be read: {first_line(error)}", url=self.place
            ) from error

    def sibling(self, name: str) -> Any:
        """Return another array of the group, or None."""
        return None if self.group is None else _member(self.group, name)


def open_node(place: str, network: Network, name: str = "embeddings") -> Node:
    """Open a store by the URL or path of the array itself, or of the group that holds it.

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
            group = None  # an array may stand alone
        return Node(node, group if isinstance(group, zarr.Group) else None, place)
    array = _member(node, name)
    if array is None:
        array = _only_candidate(node, place, name)
    return Node(array, node, f"{place}/{array.basename}")


def _open(store: _Store, path: str, place: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zarr's, on what the format hasn't settled
            return zarr.open(store=store, path=path, mode="r", zarr_format=3)
    except ReadError:
        raise
    except FileNotFoundError as error:
        raise InputFileError(
            f"{place}: no Zarr v3 array or group (there is no zarr.json); is it the right folder, and version 3?"
        ) from error
    except Exception as error:  # zarr raises many kinds for metadata that it can't use; all mean one thing
        raise TileError(f"{place}: zarr can't use its metadata: {first_line(error)}") from error


def _member(group: Any, name: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = group[name]
    except KeyError:
        return None
    except ReadError:
        raise
    except Exception as error:
        raise TileError(f"{group.name}/{name}: zarr can't use its metadata: {first_line(error)}") from error
    return found if isinstance(found, zarr.Array) else None


def _only_candidate(group: Any, place: str, name: str) -> Any:
    try:
        arrays = [array for _, array in group.arrays()]
    except (ObstoreError, OSError):  # a plain web server can't list what it has
        arrays = []
    likely = [array for array in arrays if array.ndim in (3, 4) and array.dtype.kind in "if"]
    if len(likely) == 1:
        return likely[0]
    found = ", ".join(sorted(array.basename for array in arrays)) or "none that can be listed"
    raise TileError(f"{place}: no array {name!r} in this group, found {found}; give the URL of the array itself")


@dataclass
class Chunks:
    """Where the inner chunks of an array lie.

    Parameters
    ----------
    node : Node
        The array.
    network : Network
        How hard to try.
    """

    node: Node
    network: Network
    _index: dict[Coords, NDArray[np.int64] | None] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        array, place = self.node.array, self.node.place
        document = array.metadata.to_buffer_dict(default_buffer_prototype())["zarr.json"].to_bytes()
        self._document: dict[str, Any] = json.loads(document)
        grid = self._document["chunk_grid"]
        if grid["name"] != "regular":
            raise TileError(f"{place}: its chunk grid is {grid['name']!r}; only regular ones are supported")
        self.dtype = np.dtype(array.dtype)
        self.shape: Coords = tuple(array.shape)
        self.outer: Coords = tuple(grid["configuration"]["chunk_shape"])
        if self._document.get("storage_transformers"):
            raise TileError(f"{place}: has storage transformers, which aren't supported")
        codecs = _codecs(self._document["codecs"])
        # a shard inside another codec, and shards in shards: zarr decodes the outer chunk whole
        sharded = [c["name"] for c in codecs] == ["sharding_indexed"]
        self.sharding: dict[str, Any] | None = codecs[0]["configuration"] if sharded else None
        self.inner: Coords = tuple(self.sharding["chunk_shape"]) if self.sharding else self.outer
        self.codecs = _codecs(self.sharding["codecs"]) if self.sharding else codecs
        self.codec_names = [codec["name"] for codec in self.codecs]
        self.per_shard: Coords = tuple(o // i for o, i in zip(self.outer, self.inner, strict=True))
        if self.sharding:
            self._index_codecs = _codecs(self.sharding["index_codecs"])
            if odd := [c["name"] for c in self._index_codecs if c["name"] not in _INDEX_CODECS]:
                raise TileError(f"{place}: its shard indexes are in {odd[0]!r}, whose length isn't known")
            self._index_bytes = 16 * math.prod(self.per_shard) + sum(
                _INDEX_CODECS[c["name"]] for c in self._index_codecs
            )

    @property
    def raw_bytes(self) -> int:
        """Size of an inner chunk's pixels."""
        return int(math.prod(self.inner) * self.dtype.itemsize)

    def shard_of(self, chunk: Coords) -> Coords:
        """Return the number of the outer chunk that holds an inner one."""
        return tuple(c // n for c, n in zip(chunk, self.per_shard, strict=True))

    def place_of(self, chunk: Coords) -> str:
        """Return the URL or path of the object that holds an inner chunk."""
        return f"{self.node.place}/{self.node.array.metadata.encode_chunk_key(self.shard_of(chunk))}"

    def load_indexes(self, chunks: Iterable[Coords]) -> dict[Coords, ReadError]:
        """Read the indexes of the shards that hold some chunks, those not known yet, many at once.

        Returns
        -------
        dict of shard to error
            For those that can't be had.
        """
        if not self.sharding:
            return {}
        wanted = sorted({shard for shard in map(self.shard_of, chunks) if shard not in self._index})
        if not wanted:
            return {}
        errors: dict[Coords, ReadError] = {}

        def one(shard: Coords) -> NDArray[np.int64] | ReadError | None:
            try:
                return self._read_index(shard)
            except ReadError as error:
                return error

        at_once = min(self.network.max_concurrent, _METADATA_AT_ONCE, len(wanted))
        with ThreadPoolExecutor(at_once, thread_name_prefix="index") as pool:
            for shard, found in zip(wanted, pool.map(one, wanted), strict=True):
                if isinstance(found, ReadError):
                    errors[shard] = found
                else:
                    self._index[shard] = found
        return errors

    def _read_index(self, shard: Coords) -> NDArray[np.int64] | None:
        """Return offsets and lengths, shape (chunks per shard, 2), -1 = never written; None without a shard."""
        assert self.sharding is not None
        place = f"{self.node.place}/{self.node.array.metadata.encode_chunk_key(shard)}"
        size = None
        try:
            if self.sharding.get("index_location", "end") == "start":
                data = fetch(place, 0, self._index_bytes, self.network)
            else:
                data, size = fetch_end(place, self._index_bytes, self.network)
        except MissingFileError:
            return None
        if len(data) < self._index_bytes:
            raise ReadError(
                f"{place}: shard index: truncated: {self._index_bytes} bytes expected, the shard has {len(data)}",
                url=place,
            )
        shape = (*self.per_shard, 2)
        try:
            index = _decode(data, shape, "uint64", int(_ABSENT), self._index_codecs)
        except Exception as error:  # codecs raise what they like
            raise ReadError(f"{place}: shard index: damaged: {first_line(error)}", url=place) from error
        index = index.reshape(*shape)
        absent = (index == _ABSENT).all(axis=-1, keepdims=True)
        if (bad := ~absent & (index > np.uint64(2**62))).any() or (
            size is not None and (np.where(absent, 0, index).sum(axis=-1) > size).any()
        ):
            what = "numbers that can't be" if bad.any() else f"ranges past the shard's end ({size} bytes)"
            raise ReadError(f"{place}: shard index: damaged: it has {what}", url=place)
        found: NDArray[np.int64] = np.where(absent, -1, index.astype(np.int64))
        return found

    def want(self, chunk: Coords) -> RangeRequest | None:
        """Return the byte range of a chunk, its shard's index being known; None if it was never written.

        Without shards only a read can tell whether a chunk was written, and how long it is.
        """
        place = self.place_of(chunk)
        if not self.sharding:
            return RangeRequest(
                place, [0], [self.raw_bytes + int(self.raw_bytes * _MOST_GROWTH) + _MOST_HEADER], clip=True
            )
        index = self._index[self.shard_of(chunk)]
        if index is None:
            return None
        start, length = index[tuple(c % n for c, n in zip(chunk, self.per_shard, strict=True))].tolist()
        return None if start < 0 else RangeRequest(place, [start], [length])

    def cost(self, chunk: Coords) -> tuple[int, int]:
        """Return the requests and bytes that a chunk costs: exact in shards and on disks, else the usual share."""
        if not self.sharding:
            if (local := local_path(self.place_of(chunk))) is not None:
                path = Path(local)
                return (1, path.stat().st_size) if path.is_file() else (0, 0)
            return 1, int(self.raw_bytes * USUAL_SHARE)
        if self.shard_of(chunk) not in self._index:
            return 0, 0  # its index can't be read, which reading will say
        want = self.want(chunk)
        return (1, want.size) if want is not None else (0, 0)

    @property
    def is_plain(self) -> bool:
        """Whether chunks are their pixels' bytes in C order, compressed by zstd or not at all."""
        return self.codec_names in (["bytes"], ["bytes", "zstd"]) and self.dtype.itemsize == 1

    def decode_plain(self, payload: Any, out: NDArray[np.uint8]) -> int:
        """Decode a plain chunk into a buffer; returns the number of bytes."""
        if self.codec_names == ["bytes"]:
            data = np.frombuffer(payload, np.uint8)
            if data.size == out.size:
                out[:] = data
            return int(data.size)
        import imagecodecs

        decode: Any = imagecodecs.zstd_decode
        return len(decode(payload, out=out))

    def decode(self, payload: Any) -> NDArray[Any]:
        """Decode any chunk, by zarr, to an array of the inner chunk's shape."""
        return _decode(payload, self.inner, self._document["data_type"], self._document["fill_value"], self.codecs)


def _codecs(stated: Sequence[Any]) -> list[dict[str, Any]]:
    """Return codecs as objects; one without settings may be a bare name."""
    return [{"name": codec} if isinstance(codec, str) else codec for codec in stated]


def _decode(payload: Any, shape: Sequence[int], data_type: Any, fill_value: Any, codecs: Sequence[Any]) -> NDArray[Any]:
    """Decode by zarr: as the only chunk of an array in memory."""
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": data_type,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(shape)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill_value,
        "codecs": list(codecs),
    }
    make = default_buffer_prototype().buffer.from_bytes
    key = "/".join(["c", *("0" for _ in shape)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store = MemoryStore({"zarr.json": make(json.dumps(document).encode()), key: make(bytes(payload))})
        return np.asarray(zarr.open_array(store=store, mode="r")[...])
