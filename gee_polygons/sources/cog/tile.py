"""Describes one tile of an archive, and decodes its blocks to pixels.

imagecodecs decodes blocks into a reused buffer. Made for the published layout (planar, 1024 x 1024 blocks, ZSTD,
south-up), but any block size, deflate or LZW, predictors 1 to 3, pixel-interleaved and north-up files, and any number
of bands of integers or floats are read as well. `header` parses the files' headers.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gee_polygons.alphaearth import BANDS, NODATA
from gee_polygons.errors import ReadError, TileError
from gee_polygons.network.local import LocalRange
from gee_polygons.network.ranges import FailedRange, RangeRequest, RemoteRange, stream
from gee_polygons.network.request import NETWORK, Network
from gee_polygons.reduction.plan import BlockRef
from gee_polygons.zonal.grid import Grid
from gee_polygons.zonal.kernels import PADDING

# Where only the first rows of a ZSTD block are needed, this share of the block is read on top of theirs, because rows
# compress differently (by 1.4 % of the block on the sample's tiles). Too little costs one more request for each band.
PREFIX_MARGIN: Final = 0.05
PREFIX_BELOW: Final = 0.85  # a longer prefix saves too little: the whole block is read
_ZSTD_BLOCK: Final = 128 * 2**10  # decoded bytes become available in steps of this many
COMPRESSIONS: Final = {1: "none", 5: "lzw", 8: "zlib", 32946: "zlib", 50000: "zstd"}
# A header can be damaged, and memory for a block is set aside before its bytes are decoded: a larger block must be what
# the file's pixels and stored bytes can come to. No codec makes more of a byte than this.
_USUAL_BLOCK: Final = 64 * 2**20
_MOST_GROWTH: Final = {"none": 1, "lzw": 3000, "zlib": 1100, "zstd": 33_000}
_MOST_STORED: Final = 2  # of a block's pixels, plus 64 kB: LZW makes half more of noise


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A tile's header: all that reading its blocks needs.

    Parameters
    ----------
    place : str
        Path or URL.
    year : int
        Its year.
    grid : Grid
        CRS, transform (either row order) and shape.
    block_shape : tuple of int
        (height, width) of a block.
    offsets, lengths : int64 array, shape (parts, blocks down, blocks across)
        Position and size of each compressed block. 64 parts for a planar file, 1 for a pixel-interleaved one.
    compression : str
        none, lzw, zlib or zstd.
    predictor : int
        1 (none), 2 (horizontal differences) or 3 (floats' bytes apart, then differences).
    bands : tuple of str
        Names, one for each sample of a pixel.
    dtype : str
        NumPy's name of the pixels' type, with the file's byte order.
    nodata : float, optional
        Value of pixels without data; None where the file has none.
    """

    place: str
    year: int
    grid: Grid
    block_shape: tuple[int, int]
    offsets: NDArray[np.int64] = field(repr=False, compare=False)
    lengths: NDArray[np.int64] = field(repr=False, compare=False)
    compression: str = "zstd"
    predictor: int = 1
    bands: tuple[str, ...] = BANDS
    dtype: str = "int8"
    nodata: float | None = float(NODATA)

    def __post_init__(self) -> None:
        (height, width), longest = self.block_shape, int(self.lengths.max(initial=0))
        pixel = np.dtype(self.dtype).itemsize * (1 if self.planar else len(self.bands))
        raw = height * width * pixel
        of_image = min(height, self.grid.shape[0]) * min(width, self.grid.shape[1]) * pixel
        if raw > max(_USUAL_BLOCK, min(4 * of_image, longest * _MOST_GROWTH[self.compression])):
            raise TileError(f"{self.place}: its header is damaged: blocks of {height} x {width} pixels, {raw} bytes")
        if len(self.offsets) not in (1, len(self.bands)):
            raise TileError(f"{self.place}: its header is damaged: {len(self.offsets)} parts, {len(self.bands)} bands")
        if min(self.offsets.min(initial=0), self.lengths.min(initial=0)) < 0 or longest > _MOST_STORED * raw + 2**16:
            raise TileError(f"{self.place}: its header is damaged: a block of {raw} bytes takes {longest} in the file")

    @property
    def planar(self) -> bool:
        """Whether each band is compressed by itself."""
        return len(self.offsets) > 1

    def cost(self, ref: BlockRef, n_bands: int | None = None) -> tuple[int, int]:
        """Return the requests and bytes of a block, of all bands or the first few, before neighbours are merged."""
        lengths = self.ranges(ref, range(len(self.bands))[:n_bands]).lengths
        return len(lengths), sum(lengths)

    def parts(self, bands: Sequence[int]) -> Sequence[int]:
        """Return the compressed parts that hold some bands."""
        return bands if self.planar else [0]

    def written_parts(self, ref: BlockRef, bands: Sequence[int]) -> list[int]:
        """Return the parts of a block that were ever written; the others have length 0 and are all nodata."""
        row, col = ref.index
        return [part for part in self.parts(bands) if self.lengths[part, row, col] > 0]

    def ranges(self, ref: BlockRef, bands: Sequence[int]) -> RangeRequest:
        """Return the byte ranges of a block."""
        row, col = ref.index
        parts = self.written_parts(ref, bands)
        lengths = self.lengths[parts, row, col]
        if (share := self.prefix_share(ref)) < 1:
            lengths = np.ceil(lengths * share).astype(np.int64)
        return RangeRequest(self.place, self.offsets[parts, row, col].tolist(), lengths.tolist())

    def prefix_share(self, ref: BlockRef) -> float:
        """Return the share of a block's bytes to read for the rows that are needed, with a margin; 1: all of it."""
        if not ref.rows or self.compression != "zstd" or not self.planar:
            return 1.0
        raw = self.block_shape[0] * self.block_shape[1] * np.dtype(self.dtype).itemsize
        needed = -(-ref.rows * raw // self.block_shape[0] // _ZSTD_BLOCK) * _ZSTD_BLOCK
        share = needed / raw + PREFIX_MARGIN
        return float(share) if share < PREFIX_BELOW else 1.0

    def block(
        self, ref: BlockRef, bands: Sequence[int], fetched: list[Any] | FailedRange, network: Network = NETWORK
    ) -> TileBlock:
        """Combine the answer to `ranges` to a block.

        Raises
        ------
        ReadError
            Naming the block and the band, if it couldn't be read.
        """
        payloads: dict[int, Any] = {}
        if isinstance(fetched, list):
            payloads = dict(zip(self.written_parts(ref, bands), fetched, strict=True))
        block = TileBlock(self, ref, tuple(bands), [payloads.get(part) for part in self.parts(bands)], network)
        if isinstance(fetched, FailedRange):
            part = self.written_parts(ref, bands)[fetched.span]
            raise block.error(list(self.parts(bands)).index(part), str(fetched.error)) from fetched.error
        return block

    @property
    def empty(self) -> float:
        """The value of pixels that were never written."""
        return 0.0 if self.nodata is None else self.nodata


class TileBlock:
    """The compressed bytes of one block, for some of its bands."""

    checks_norms = True  # published pixels are unit vectors: a damaged one shows

    def __init__(
        self, tile: Tile, ref: BlockRef, bands: tuple[int, ...], payloads: list[Any], network: Network = NETWORK
    ) -> None:
        self.tile = tile
        self.ref = ref
        self.bands = bands
        self._payloads = payloads
        self._network = network
        self._first_rows = ref.rows if tile.prefix_share(ref) < 1 else 0  # 0: the payloads are whole
        self._lock = threading.Lock()

    @property
    def n_parts(self) -> int:
        """Number of separately compressed parts that hold these bands."""
        return len(self._payloads)

    def part_bands(self, part: int) -> Sequence[int]:
        """Positions, among these bands, that a part holds."""
        return (part,) if self.tile.planar else range(len(self.bands))

    @cached_property
    def _plain(self) -> np.dtype[Any]:
        """The pixels' type in this machine's byte order."""
        return np.dtype(self.tile.dtype).newbyteorder("=")

    def decode(self, part: int, scratch: NDArray[Any] | None = None) -> NDArray[Any]:
        """Decode a part to pixels, shape (bands of the part, pixels + PADDING).

        Where the block reference names a number of rows, later rows may hold anything.
        """
        tile = self.tile
        height, width = tile.block_shape
        samples = 1 if tile.planar else len(tile.bands)
        n_out = 1 if tile.planar else len(self.bands)
        if scratch is None or scratch.shape != (n_out, height * width + PADDING) or scratch.dtype != self._plain:
            scratch = np.full((n_out, height * width + PADDING), tile.empty, self._plain)
        payload = self._bytes(part)
        if payload is None:
            scratch[:, : height * width] = tile.empty
        elif tile.planar:
            self._decode_into(payload, scratch[0, : height * width], part, samples)
        else:
            pixels = np.empty(height * width * samples, self._plain)
            self._decode_into(payload, pixels, part, samples)
            by_band = pixels.reshape(height * width, samples).T
            scratch[:, : height * width] = by_band[list(self.bands)]
        return scratch

    def _decode_into(self, payload: Any, out: NDArray[Any], part: int, samples: int) -> None:
        raw = out.view(np.uint8)
        if not (
            self._first_rows and _decode_first(payload, raw[: raw.size // self.tile.block_shape[0] * self._first_rows])
        ):
            self._decode_whole(payload, part, raw)
        height = self.tile.block_shape[0]
        if self.tile.predictor == 3:
            out[:] = _undo_float_predictor(raw, out.dtype, height, samples)
            return
        if not np.dtype(self.tile.dtype).isnative:
            out.byteswap(inplace=True)
        if self.tile.predictor == 2:
            kind = np.dtype(f"u{out.dtype.itemsize}")
            rows = out.view(kind).reshape(height, -1, samples)
            np.cumsum(rows, axis=1, dtype=kind, out=rows)

    def _bytes(self, part: int) -> Any:
        payload = self._payloads[part]
        if not isinstance(payload, LocalRange | RemoteRange):
            return payload
        try:
            return payload.read()
        except ReadError as error:
            raise self.error(part, str(error)) from error

    def _decode_whole(self, payload: Any, part: int, raw: NDArray[np.uint8]) -> None:
        if len(payload) < self._stored(part):  # a prefix, and too short
            with self._lock:  # parts may be decoded by several threads
                if len(self._payloads[part]) < self._stored(part):
                    self._payloads[part] = payload
                    self._fetch_rest(part)
            payload = self._bytes(part)
        try:
            decoded = _decode(self.tile.compression, payload, raw)
        except RuntimeError as error:  # imagecodecs' codec errors are RuntimeErrors
            raise self.error(part, f"damaged: {error}") from error
        if decoded != raw.size:
            raise self.error(part, f"damaged: decodes to {decoded} bytes, {raw.size} expected")

    def _stored(self, part: int) -> int:
        """Return how many bytes the file holds of a part."""
        number = self.tile.parts(self.bands)[part]
        return int(self.tile.lengths[(number, *self.ref.index)])

    def _fetch_rest(self, part: int) -> None:
        """Fetch the rest of the payloads of this part and of those after it, which most likely are too short, too."""
        numbers = self.tile.parts(self.bands)
        row, col = self.ref.index
        short = [
            i for i in range(part, len(numbers))
            if self._payloads[i] is not None and len(self._payloads[i]) < self._stored(i)
        ]  # fmt: skip
        have = [len(self._payloads[i]) for i in short]
        starts = [int(self.tile.offsets[numbers[i], row, col]) + n for i, n in zip(short, have, strict=True)]
        lengths = [self._stored(i) - n for i, n in zip(short, have, strict=True)]
        rest = next(stream([RangeRequest(self.tile.place, starts, lengths)], self._network))
        if isinstance(rest, FailedRange):
            raise self.error(short[rest.span], str(rest.error)) from rest.error
        for i, more in zip(short, rest, strict=True):
            try:
                self._payloads[i] = bytes(self._payloads[i]) + bytes(more)
            except ReadError as error:
                raise self.error(i, str(error)) from error

    def error(self, part: int, what: str) -> ReadError:
        """Return an error that names the tile, the block and the band."""
        row, col = self.ref.index
        what = what.removeprefix(f"{self.tile.place}: ")
        band = f"band {self.tile.bands[self.bands[part]]}" if self.tile.planar else "all bands"
        return ReadError(
            f"{self.tile.place}: block (row {row}, column {col}), {band}: {what}",
            url=self.tile.place,
            year=self.tile.year,
        )


def _decode_first(payload: Any, out: NDArray[np.uint8]) -> bool:
    """Decode the beginning of a ZSTD frame that may be cut off; False if it is too short, or damaged.

    imagecodecs refuses such a frame; Arrow's streaming decoder doesn't, and is as fast.
    """
    import pyarrow as pa

    try:
        with pa.CompressedInputStream(pa.BufferReader(pa.py_buffer(payload)), "zstd") as stream_:
            done = 0
            while done < out.size:
                n = stream_.readinto(out.data[done:])
                if not n:
                    return False
                done += n
    except (OSError, pa.ArrowInvalid):
        return False
    return True


def _decode(compression: str, payload: Any, out: NDArray[np.uint8]) -> int:
    """Decode a whole block; returns its number of bytes."""
    import imagecodecs

    if compression == "none":
        data = np.frombuffer(payload, np.uint8)
        if data.size <= out.size:
            out[: data.size] = data
        return int(data.size)
    decoders: Any = {"zstd": imagecodecs.zstd_decode, "zlib": imagecodecs.zlib_decode, "lzw": imagecodecs.lzw_decode}
    return len(decoders[compression](payload, out=out))


def _undo_float_predictor(raw: NDArray[np.uint8], dtype: np.dtype[Any], height: int, samples: int) -> NDArray[Any]:
    """Undo the floating-point predictor (TIFF Technical Note 3): byte planes, highest first, stored as differences."""
    size = dtype.itemsize
    rows = raw.reshape(height, -1, samples)
    summed = np.cumsum(rows, axis=1, dtype=np.uint8).reshape(height, size, -1)
    return np.ascontiguousarray(summed.transpose(0, 2, 1)).view(dtype.newbyteorder(">")).reshape(-1).astype(dtype)
