"""Finds the byte ranges of a Zarr array's inner chunks, and decodes them.

zarr-python would read a shard's index again with every chunk, one chunk at a time, and without retries. Here indexes
are kept, and chunks go through the same merged, retried and checked requests as the blocks of a tile. Chunks with the
published codecs (bytes, then zstd) are decoded straight into the caller's buffer; zarr decodes all others, and indexes.
"""

from __future__ import annotations

import json
import math
import threading
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.buffer import default_buffer_prototype
from zarr.core.metadata import ArrayV3Metadata
from zarr.storage import MemoryStore, StorePath

from gee_polygons.errors import ReadError, TileError
from gee_polygons.network.hosts import interruptible
from gee_polygons.network.local import MissingFileError
from gee_polygons.network.places import first_line, local_path
from gee_polygons.network.ranges import RangeRequest
from gee_polygons.network.request import Network, fetch_end, fetch_some
from gee_polygons.sources.mosaic.zarr_store import OpenedArray

_ABSENT: Final = np.uint64(2**64 - 1)  # offset and length of a chunk that was never written
_INDEX_CODECS: Final = {"bytes": 0, "crc32c": 4, "transpose": 0}  # and the bytes that each adds
# no codec makes a chunk of noise longer than its pixels by more than this share and these bytes
_MAX_GROWTH: Final = 1 / 16
_MAX_HEADER: Final = 64 * 2**10
USUAL_SHARE: Final = 0.6  # compressed size over raw size in the published mosaic: 2.5 MB of 4 MiB
_INDEXES_AT_ONCE: Final = 64
_MOST_INDEXED: Final = 2**22  # chunks of a shard; the published mosaic has 256
_USUAL_CHUNK: Final = 64 * 2**20  # a chunk of more bytes must lie in the array for the most part
_DECOMPRESSORS: Final = {"zstd": "zstd_decode", "gzip": "gzip_decode", "blosc": "blosc_decode"}  # of imagecodecs
_SAME_SIZE: Final = frozenset({"bytes", "transpose"})  # codecs that keep the number of bytes
_OPENING: Final = threading.Lock()

Coords = tuple[int, ...]


@dataclass
class Chunks:
    """The inner chunks of an array: their byte ranges and codecs.

    Parameters
    ----------
    opened : OpenedArray
        The array.
    network : Network
        Retry and concurrency settings.

    Raises
    ------
    TileError
        If the array's chunk grid, storage transformers or index codecs aren't supported.
    """

    opened: OpenedArray
    network: Network
    _index: dict[Coords, NDArray[np.int64] | None] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        array, place = self.opened.array, self.opened.place
        document = array.metadata.to_buffer_dict(default_buffer_prototype())["zarr.json"].to_bytes()
        self._document: dict[str, Any] = json.loads(document)
        grid = self._document["chunk_grid"]
        if grid["name"] != "regular":
            raise TileError(f"{place}: its chunk grid is {grid['name']!r}; only regular ones are supported")
        if self._document.get("storage_transformers"):
            raise TileError(f"{place}: has storage transformers, which aren't supported")
        self.dtype = np.dtype(array.dtype)
        outer: Coords = tuple(grid["configuration"]["chunk_shape"])
        codecs = _as_objects(self._document["codecs"])
        # a shard inside another codec, and shards in shards: zarr decodes the outer chunk whole
        sharded = [codec["name"] for codec in codecs] == ["sharding_indexed"]
        self.sharding: dict[str, Any] | None = codecs[0]["configuration"] if sharded else None
        self.inner: Coords = tuple(self.sharding["chunk_shape"]) if self.sharding else outer
        self.codecs = _as_objects(self.sharding["codecs"]) if self.sharding else codecs
        self.per_shard: Coords = tuple(o // max(i, 1) for o, i in zip(outer, self.inner, strict=True))
        within = math.prod(min(i, n) for i, n in zip(self.inner, array.shape, strict=True)) * self.dtype.itemsize
        if (
            self.raw_bytes > max(_USUAL_CHUNK, 4 * within)
            or math.prod(self.per_shard) > _MOST_INDEXED
            or 0 in self.inner
        ):
            raise TileError(f"{place}: its metadata are damaged: chunks {self.inner} in {outer} of {array.shape}")
        if self.sharding:
            self._index_codecs = _as_objects(self.sharding["index_codecs"])
            names = [codec["name"] for codec in self._index_codecs]
            if unknown := set(names) - set(_INDEX_CODECS):
                raise TileError(f"{place}: its shard indexes are in {unknown.pop()!r}, whose length isn't known")
            self._index_bytes = 16 * math.prod(self.per_shard) + sum(_INDEX_CODECS[name] for name in names)

    @property
    def raw_bytes(self) -> int:
        """Size of an inner chunk's pixels."""
        return int(math.prod(self.inner) * self.dtype.itemsize)

    @property
    def _most_stored(self) -> int:
        """Most bytes that a chunk takes in its file."""
        return int(self.raw_bytes * (1 + _MAX_GROWTH)) + _MAX_HEADER

    def shard_of(self, chunk: Coords) -> Coords:
        """Return the number of the outer chunk that holds an inner one."""
        return tuple(c // n for c, n in zip(chunk, self.per_shard, strict=True))

    def place_of(self, chunk: Coords) -> str:
        """Return the URL or path of the object that holds an inner chunk."""
        return self._place_of_shard(self.shard_of(chunk))

    def _place_of_shard(self, shard: Coords) -> str:
        return f"{self.opened.place}/{self.opened.array.metadata.encode_chunk_key(shard)}"

    def load_indexes(self, chunks: Iterable[Coords]) -> dict[Coords, ReadError]:
        """Read the indexes of the shards that hold some chunks, unless they are known, many at once.

        Returns
        -------
        dict of shard to error
            For indexes that can't be read.
        """
        needed = sorted({self.shard_of(chunk) for chunk in chunks} - set(self._index)) if self.sharding else []
        if not needed:
            return {}
        errors: dict[Coords, ReadError] = {}

        def load(shard: Coords) -> None:
            try:
                self._index[shard] = self._read_index(shard)
            except ReadError as error:
                errors[shard] = error

        at_once = min(self.network.max_concurrent, _INDEXES_AT_ONCE, len(needed))
        with ThreadPoolExecutor(at_once, thread_name_prefix="index") as pool, interruptible():
            list(pool.map(load, needed))
        return errors

    def _read_index(self, shard: Coords) -> NDArray[np.int64] | None:
        """Return offsets and lengths, shape (chunks per shard, 2), -1 = never written; None without a shard."""
        assert self.sharding is not None
        place, n = self._place_of_shard(shard), self._index_bytes
        try:
            if self.sharding.get("index_location", "end") == "start":
                data, size = fetch_some(place, 0, n, self.network)
            else:
                data, size = fetch_end(place, n, self.network)
        except MissingFileError:
            return None
        if len(data) < n:
            raise ReadError(f"{place}: shard index: truncated: {n} bytes expected, the shard has {size}", url=place)
        shape = (*self.per_shard, 2)
        try:
            index = _decode(data, shape, "uint64", int(_ABSENT), self._index_codecs).reshape(*shape)
        except Exception as error:  # codecs raise errors of any class
            raise ReadError(f"{place}: shard index: damaged: {first_line(error)}", url=place) from error
        absent = (index == _ABSENT).all(axis=-1, keepdims=True)
        present = np.where(absent, 0, index)
        if (present > size).any() or (present.sum(axis=-1) > size).any() or (present[..., 1] > self._most_stored).any():
            raise ReadError(
                f"{place}: shard index: damaged: it has ranges past the shard's end ({size} bytes) or too long a chunk",
                url=place,
            )
        found: NDArray[np.int64] = np.where(absent, -1, index.astype(np.int64))
        return found

    def request(self, chunk: Coords) -> RangeRequest | None:
        """Return the byte range of a chunk whose shard's index is loaded; None if it was never written.

        Without shards only reading shows whether a chunk was written, and its length.
        """
        place = self.place_of(chunk)
        if not self.sharding:
            return RangeRequest(place, [0], [self._most_stored], clip=True)
        index = self._index[self.shard_of(chunk)]
        if index is None:
            return None
        start, length = index[tuple(c % n for c, n in zip(chunk, self.per_shard, strict=True))].tolist()
        return None if start < 0 else RangeRequest(place, [start], [length])

    def cost(self, chunk: Coords) -> tuple[int, int]:
        """Return a chunk's requests and bytes: exact in shards and on local disks, otherwise estimated."""
        if self.sharding:
            # of a shard whose index can't be read nothing is known; reading it raises the error
            request = self.request(chunk) if self.shard_of(chunk) in self._index else None
            return (1, request.size) if request is not None else (0, 0)
        if (local := local_path(self.place_of(chunk))) is not None:
            path = Path(local)
            return (1, path.stat().st_size) if path.is_file() else (0, 0)
        return 1, int(self.raw_bytes * USUAL_SHARE)

    @property
    def is_plain(self) -> bool:
        """Whether chunks are their pixels' bytes in C order, compressed by zstd or not at all."""
        names = [codec["name"] for codec in self.codecs]
        return names in (["bytes"], ["bytes", "zstd"]) and self.dtype.itemsize == 1

    def decode_plain(self, payload: Any, out: NDArray[np.uint8]) -> int:
        """Decode a plain chunk into a buffer; return the number of bytes."""
        if len(self.codecs) == 1:
            data = np.frombuffer(payload, np.uint8)
            if data.size == out.size:
                out[:] = data
            return int(data.size)
        return len(_decompressed("zstd", payload, out))

    def decode(self, payload: Any) -> NDArray[Any]:
        """Decode any chunk to an array of the inner chunk's shape."""
        codecs, last = self.codecs, self.codecs[-1]["name"]
        # zarr would set aside whatever memory the bytes claim
        if last in _DECOMPRESSORS and {codec["name"] for codec in codecs[:-1]} <= _SAME_SIZE:
            payload, codecs = _decompressed(last, payload, np.empty(self.raw_bytes, np.uint8)), codecs[:-1]
        return _decode(payload, self.inner, self._document["data_type"], self._document["fill_value"], codecs)


def _decompressed(codec: str, payload: Any, out: NDArray[np.uint8]) -> Any:
    """Decompress bytes into a buffer; return its part that was filled. What is longer is an error of the codec's."""
    import imagecodecs

    return getattr(imagecodecs, _DECOMPRESSORS[codec])(payload, out=out)


def _as_objects(codecs: Sequence[Any]) -> list[dict[str, Any]]:
    """Return codecs as objects; one without settings may be stated by its name alone."""
    return [{"name": codec} if isinstance(codec, str) else codec for codec in codecs]


def _decode(payload: Any, shape: Sequence[int], data_type: Any, fill_value: Any, codecs: Sequence[Any]) -> NDArray[Any]:
    """Decode a chunk by zarr, as the only chunk of an array in memory."""
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
    key = "/".join(["c", *("0" for _ in shape)])
    store = MemoryStore({key: default_buffer_prototype().buffer.from_bytes(bytes(payload))})
    with _OPENING, warnings.catch_warnings():  # what one thread catches, it catches for all
        warnings.simplefilter("ignore")
        array = zarr.Array(zarr.AsyncArray(ArrayV3Metadata.from_dict(document), StorePath(store)))
    return np.asarray(array[...])
