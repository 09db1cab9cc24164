"""One tile of an archive: its header, and its blocks' bytes made into codes.

Headers are parsed by async-tiff; blocks are decoded by imagecodecs, at the codec's own speed, into a scratch
buffer. Written for the published layout (planar, 1024 x 1024 blocks, ZSTD, south-up through ModelTransformation)
and as lenient as the format allows: any block size, deflate or LZW, predictor 1 or 2, pixel-interleaved, north-up.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gee_polygons.embeddings.quantization import BANDS, N_BANDS, NODATA
from gee_polygons.errors import ReadError, TileError
from gee_polygons.sources._store import locate, read_ranges
from gee_polygons.sources.base import BlockRef
from gee_polygons.zonal.grid import Grid, Transform
from gee_polygons.zonal.kernels import PADDING

__all__ = ["Tile", "TileBlock", "open_tile", "open_tiles"]

# Headers of published tiles hold two lists of 4096 block positions for each overview: one read gets most of them.
_PREFETCH_BYTES: Final = 65536
_HEADERS_AT_ONCE: Final = 32
_COMPRESSIONS: Final = {1: "none", 5: "lzw", 8: "zlib", 32946: "zlib", 50000: "zstd"}


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A tile's header: all that is needed to read its blocks without asking the file again.

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
        1 (none) or 2 (horizontal differences).
    """

    place: str
    year: int
    grid: Grid
    block_shape: tuple[int, int]
    offsets: NDArray[np.int64] = field(repr=False, compare=False)
    lengths: NDArray[np.int64] = field(repr=False, compare=False)
    compression: str = "zstd"
    predictor: int = 1

    @property
    def planar(self) -> bool:
        """Whether each band is compressed by itself."""
        return len(self.offsets) > 1

    def ref(self, row: int, col: int) -> BlockRef:
        """Describe the block in a block row and block column of the file."""
        height, width = self.block_shape
        whole = self.grid.part(row * height, col * width, height, width)
        inside = whole.intersection(self.grid.window)
        if inside is None:
            raise IndexError(f"{self.place} has no block ({row}, {col})")
        return BlockRef(
            tile=self.place, year=self.year, index=(row, col), window=whole, inside=inside,
            flip_y=self.grid.flip_y, flip_x=self.grid.flip_x,
        )  # fmt: skip

    def block_index(self, row: int, col: int) -> tuple[int, int]:
        """Return the block row and column that hold a pixel of the lattice."""
        window = self.grid.window
        down, across = row - window.row, col - window.col
        if self.grid.flip_y:
            down = window.height - 1 - down
        if self.grid.flip_x:
            across = window.width - 1 - across
        return down // self.block_shape[0], across // self.block_shape[1]

    def cost(self, ref: BlockRef, n_bands: int | None = None) -> tuple[int, int]:
        """Return the requests and bytes that reading a block costs: all bands or the first; before ranges merge."""
        lengths = self.lengths[: n_bands if self.planar else None, ref.index[0], ref.index[1]]
        return int((lengths > 0).sum()), int(lengths.sum())

    def parts(self, bands: Sequence[int]) -> Sequence[int]:
        """Return the compressed parts that hold some bands."""
        return bands if self.planar else [0]

    def fetch(self, ref: BlockRef, bands: Sequence[int]) -> TileBlock:
        """Read the compressed bytes of a block."""
        row, col = ref.index
        parts = list(self.parts(bands))
        starts = self.offsets[parts, row, col].tolist()
        lengths = self.lengths[parts, row, col].tolist()
        held = [i for i, length in enumerate(lengths) if length > 0]  # a block of length 0 was never written: nodata
        read = read_ranges(self.place, [starts[i] for i in held], [lengths[i] for i in held]) if held else []
        payloads: list[Any] = [None] * len(parts)
        for i, payload in zip(held, read, strict=True):
            payloads[i] = payload
        return TileBlock(self, ref, tuple(bands), payloads)


class TileBlock:
    """Compressed bytes of one block, for the bands asked for."""

    checks_norms = True  # published pixels are unit vectors: a damaged one shows

    def __init__(self, tile: Tile, ref: BlockRef, bands: tuple[int, ...], payloads: list[Any]) -> None:
        self.tile = tile
        self.ref = ref
        self.bands = bands
        self._payloads = payloads

    @property
    def n_parts(self) -> int:
        """How many separately compressed parts hold the bands asked for."""
        return len(self._payloads)

    def part_bands(self, part: int) -> Sequence[int]:
        """Positions, among the bands asked for, that a part holds."""
        return (part,) if self.tile.planar else range(len(self.bands))

    def decode(self, part: int, scratch: NDArray[Any] | None = None) -> NDArray[np.int8]:
        """Decode a part to codes, shape (bands of the part, pixels + PADDING)."""
        height, width = self.tile.block_shape
        samples = 1 if self.tile.planar else N_BANDS
        n_out = 1 if self.tile.planar else len(self.bands)
        if scratch is None or scratch.shape != (n_out, height * width + PADDING) or scratch.dtype != np.int8:
            scratch = np.full((n_out, height * width + PADDING), NODATA, np.int8)
        payload = self._payloads[part]
        if payload is None:
            scratch[:, : height * width] = NODATA
        elif self.tile.planar:
            self._decode_into(payload, scratch[0, : height * width].view(np.uint8), part, samples)
        else:
            pixels = np.empty(height * width * samples, np.uint8)
            self._decode_into(payload, pixels, part, samples)
            by_band = pixels.view(np.int8).reshape(height * width, samples).T
            scratch[:, : height * width] = by_band[list(self.bands)]
        return scratch

    def _decode_into(self, payload: Any, out: NDArray[np.uint8], part: int, samples: int) -> None:
        try:
            decoded = _decoder(self.tile.compression)(payload, out)
        except RuntimeError as error:  # imagecodecs' codec errors are RuntimeErrors
            raise self.error(part, f"damaged: {error}") from error
        if decoded != out.size:
            raise self.error(part, f"damaged: decodes to {decoded} bytes, {out.size} expected")
        if self.tile.predictor == 2:
            rows = out.reshape(self.tile.block_shape[0], -1, samples)
            np.cumsum(rows, axis=1, dtype=np.uint8, out=rows)

    def error(self, part: int, what: str) -> ReadError:
        """Return an error that names the tile, the block and the band."""
        row, col = self.ref.index
        band = f"band {BANDS[self.bands[part]]}" if self.tile.planar else "all bands"
        return ReadError(
            f"{self.tile.place}: block (row {row}, column {col}), {band}: {what}",
            url=self.tile.place,
            year=self.tile.year,
        )


def _decoder(compression: str) -> Callable[[Any, NDArray[np.uint8]], int]:
    """Return decode(payload, out) -> number of bytes decoded."""
    import imagecodecs

    if compression == "none":

        def copy(payload: Any, out: NDArray[np.uint8]) -> int:
            data = np.frombuffer(payload, np.uint8)
            if data.size <= out.size:
                out[: data.size] = data
            return int(data.size)

        return copy
    function: Any = {"zstd": imagecodecs.zstd_decode, "zlib": imagecodecs.zlib_decode, "lzw": imagecodecs.lzw_decode}[
        compression
    ]
    return lambda payload, out: len(function(payload, out=out))


def open_tile(place: str, year: int) -> Tile:
    """Parse one tile's header.

    Raises
    ------
    ReadError
        If the file is missing or isn't a TIFF.
    TileError
        If it isn't an AlphaEarth tile: other than 64 int8 bands, no georeference, strips, an unknown compression.
    """
    tile = open_tiles([(place, year)])[0]
    if isinstance(tile, Tile):
        return tile
    raise tile


def open_tiles(tiles: Sequence[tuple[str, int]]) -> list[Tile | ReadError | TileError]:
    """Parse many headers at once, in the order given; a tile that can't be used is its error."""

    async def all_of_them() -> list[Any]:
        gate = asyncio.Semaphore(_HEADERS_AT_ONCE)

        async def one(place: str, year: int) -> Any:
            import async_tiff

            store, path = locate(place)
            async with gate:
                try:
                    tiff = await async_tiff.TIFF.open(path, store=store, prefetch=_PREFETCH_BYTES)
                except Exception as error:  # async-tiff raises its own class and plain ones; all mean one thing
                    return _header_error(place, year, error)
            try:
                return _from_ifd(place, year, tiff.ifds[0])
            except TileError as error:
                return error

        return await asyncio.gather(*(one(place, year) for place, year in tiles))

    return list(_run(all_of_them)) if tiles else []


def _run(make: Callable[[], Any]) -> Any:
    """Run a coroutine to its end, also where a loop is running already (a notebook): then in a thread of its own."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(make())
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(make())).result()


def _header_error(place: str, year: int, error: Exception) -> ReadError:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "not found" in text.lower():
        return ReadError(f"{place}: the tile is missing; the index names it", url=place, year=year)
    if "magic" in text:
        return ReadError(f"{place}: not a TIFF file", url=place, year=year)
    return ReadError(f"{place}: the header can't be read: {text}", url=place, year=year)


def _from_ifd(place: str, year: int, ifd: Any) -> Tile:
    samples = int(ifd.samples_per_pixel)
    bits, formats = set(ifd.bits_per_sample), {int(f) for f in ifd.sample_format}
    if samples != N_BANDS:
        raise TileError(f"{place}: {samples} bands; an AlphaEarth tile has 64")
    if bits != {8} or formats != {2}:
        kind = {1: "uint", 2: "int", 3: "float"}.get(next(iter(formats)), "?")
        raise TileError(f"{place}: holds {kind}{'/'.join(map(str, sorted(bits)))}; an AlphaEarth tile holds int8 codes")
    if ifd.tile_width is None or ifd.tile_offsets is None:
        raise TileError(
            f"{place}: stored in strips; the archive reader needs blocks (open it as a single raster instead)"
        )
    compression = _COMPRESSIONS.get(int(ifd.compression))
    if compression is None:
        raise TileError(f"{place}: compression {int(ifd.compression)} is not supported; use ZSTD, deflate, LZW or none")
    predictor = int(ifd.predictor) if ifd.predictor is not None else 1
    if predictor not in (1, 2):
        raise TileError(f"{place}: predictor {predictor} is not supported; use 1 or 2")
    nodata = _nodata(ifd.gdal_nodata)
    if nodata not in (None, NODATA):
        raise TileError(f"{place}: nodata is {ifd.gdal_nodata}; AlphaEarth codes have -128")
    across, down = ifd.tile_count
    parts = N_BANDS if int(ifd.planar_configuration) == 2 else 1
    shape = (parts, int(down), int(across))
    if len(ifd.tile_offsets) != np.prod(shape):
        raise TileError(f"{place}: {len(ifd.tile_offsets)} blocks listed, {np.prod(shape)} expected")
    crs, transform = _crs(place, ifd), _transform(place, ifd)
    try:
        grid = Grid(crs=crs, transform=transform, shape=(ifd.image_height, ifd.image_width))
    except TileError as error:
        raise TileError(f"{place}: {error}") from error
    return Tile(
        place=place,
        year=year,
        grid=grid,
        block_shape=(int(ifd.tile_height), int(ifd.tile_width)),
        offsets=np.asarray(ifd.tile_offsets, np.int64).reshape(shape),
        lengths=np.asarray(ifd.tile_byte_counts, np.int64).reshape(shape),
        compression=compression,
        predictor=predictor,
    )


def _nodata(text: str | None) -> float | None:
    match = re.match(r"\s*(-?\d+(\.\d*)?)", text or "")
    return float(match.group(1)) if match else None


def _crs(place: str, ifd: Any) -> str:
    keys = ifd.geo_key_directory
    code = keys and (keys.projected_type or keys.geographic_type)
    if not code or int(code) == 32767:
        raise TileError(f"{place}: no EPSG code in its geo keys, so its place is unknown")
    return f"EPSG:{int(code)}"


def _transform(place: str, ifd: Any) -> Transform:
    """Return the affine transform: from ModelTransformation (published tiles), else from scale and tiepoint."""
    matrix = ifd.model_transformation
    if matrix:
        a, b, _, c, d, e, _, f = (float(v) for v in matrix[:8])
        transform = (a, b, c, d, e, f)
    elif ifd.model_pixel_scale and ifd.model_tiepoint:
        sx, sy = (float(v) for v in ifd.model_pixel_scale[:2])
        i, j, _, x, y, _ = (float(v) for v in ifd.model_tiepoint[:6])
        transform = (sx, 0.0, x - i * sx, 0.0, -sy, y + j * sy)
    else:
        raise TileError(f"{place}: not georeferenced (no ModelTransformation, no scale and tiepoint)")
    if ifd.geo_key_directory.raster_type == 2:  # PixelIsPoint: the position is the pixel's centre
        a, b, c, d, e, f = transform
        transform = (a, b, c - a / 2, d, e, f - e / 2)
    return transform
