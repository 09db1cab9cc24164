"""Parses tile headers with async-tiff, many at once, each with one request where it has the usual size."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Literal
from xml.etree import ElementTree

import numpy as np

from gee_polygons.alphaearth import BANDS, N_BANDS, NODATA
from gee_polygons.errors import ReadError, TileError
from gee_polygons.network.places import hide_query
from gee_polygons.network.request import NETWORK, Network, fetch_some
from gee_polygons.sources.cog.tile import COMPRESSIONS, Tile
from gee_polygons.zonal.grid import Grid, Transform

# The header of a published tile of 8192 px, its overviews' included: 4096 positions of 8 bytes and lengths of 4, a
# third as much for overviews, band names. One request gets it whole.
PREFETCH_BYTES: Final = 96 * 2**10
HEADERS_AT_ONCE: Final = 64
Order = Literal["<", ">"]


@dataclass(frozen=True)
class Content:
    """What the tiles of a collection hold; None where each file says so itself.

    Parameters
    ----------
    bands : tuple of str, optional
        Names, one for each sample of a pixel.
    dtype : str, optional
        NumPy's name of the pixels' type.
    nodata : float, optional
        Value of pixels without data, where the files don't say.
    """

    bands: tuple[str, ...] | None = None
    dtype: str | None = None
    nodata: float | None = None


AEF: Final = Content(BANDS, "int8", float(NODATA))


def open_tiles(
    tiles: Sequence[tuple[str, int]], network: Network = NETWORK, contents: Sequence[Content] | Content = AEF
) -> list[Tile | ReadError | TileError]:
    """Parse many headers at once, in the order given; a tile that can't be used is its error."""
    if not tiles:
        return []
    import async_tiff

    expected = [contents] * len(tiles) if isinstance(contents, Content) else list(contents)
    at_once = min(HEADERS_AT_ONCE, network.max_concurrent, len(tiles))
    pool = ThreadPoolExecutor(at_once, thread_name_prefix="headers")

    async def one(place: str, year: int, content: Content, gate: asyncio.Semaphore) -> Any:
        async with gate:
            ranges = _Ranges(place, network, pool)
            try:
                tiff = await async_tiff.TIFF.open(place, store=ranges, prefetch=PREFETCH_BYTES)
            except Exception as error:  # async-tiff raises its own class and plain ones; all mean one thing
                return _header_error(place, year, ranges.error or error)
        order: Order = "<" if tiff.endianness == async_tiff.enums.Endianness.LittleEndian else ">"
        try:
            return _tile_of(place, year, tiff.ifds[0], content, order)
        except TileError as error:
            return error

    async def all_of_them() -> list[Any]:
        gate = asyncio.Semaphore(at_once)
        jobs = (
            one(hide_query(place), year, content, gate) for (place, year), content in zip(tiles, expected, strict=True)
        )
        return await asyncio.gather(*jobs)

    def run() -> list[Any]:
        return asyncio.run(all_of_them())

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return run()
    else:  # a loop is running already, as in a notebook: use another thread
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(run).result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


class _Ranges:
    """The store that async-tiff reads from: makes this package's own requests, so that headers are retried as well."""

    def __init__(self, place: str, network: Network, pool: ThreadPoolExecutor) -> None:
        self._place, self._network, self._pool = place, network, pool
        self.error: ReadError | None = None

    async def get_range_async(self, path: str, *, start: int, end: int | None = None, length: int | None = None) -> Any:
        n = length if length is not None else (end or start) - start
        loop = asyncio.get_running_loop()
        try:
            # a small file ends inside the range
            data, _ = await loop.run_in_executor(self._pool, lambda: fetch_some(self._place, start, n, self._network))
            return data
        except ReadError as error:
            self.error = error  # async-tiff keeps the text only
            raise

    async def get_ranges_async(
        self, path: str, *, starts: Sequence[int], ends: Sequence[int] | None = None,
        lengths: Sequence[int] | None = None,
    ) -> list[Any]:  # fmt: skip
        stops = ends if ends is not None else [s + n for s, n in zip(starts, lengths or (), strict=True)]
        return [
            await self.get_range_async(path, start=start, end=stop) for start, stop in zip(starts, stops, strict=True)
        ]


def _header_error(place: str, year: int, error: Exception) -> ReadError:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "no such file" in text:
        return ReadError(f"{place}: the tile is missing; the index names it", url=place, year=year)
    if "magic" in text:
        return ReadError(f"{place}: not a TIFF file", url=place, year=year)
    reason = text.removeprefix(f"{place}: ")
    return ReadError(f"{place}: the header can't be read: {reason}", url=place, year=year)


def _stated_names(ifd: Any) -> list[str]:
    """Return the bands' names (GDAL's descriptions); those that the file doesn't state are A00..A63."""
    try:
        items = ElementTree.fromstring(ifd.gdal_metadata or "<none/>").iter("Item")
        stated = {item.get("sample"): item.text or "" for item in items if item.get("role") == "description"}
    except ElementTree.ParseError:
        stated = {}
    return [stated.get(str(i)) or name for i, name in enumerate(BANDS)]


def _pixels(place: str, ifd: Any, content: Content, order: Order) -> tuple[tuple[str, ...], str, float | None]:
    """Return the names of the bands, the type and the nodata value; an error where they aren't what is expected."""
    samples = int(ifd.samples_per_pixel)
    bits, formats = set(ifd.bits_per_sample), {int(f) for f in ifd.sample_format} or {1}
    kind = {1: "uint", 2: "int", 3: "float"}.get(next(iter(formats)), "?")
    found = f"{kind}{'/'.join(map(str, sorted(bits)))}"
    nodata = _nodata(ifd.gdal_nodata)
    names_found = _stated_names(ifd)
    looks_aef = samples == N_BANDS and found == "int8" and nodata in (None, NODATA) and names_found == list(BANDS)
    if content == AEF or (content.bands is None and content.dtype is None and looks_aef):
        if samples != N_BANDS:
            raise TileError(f"{place}: {samples} bands; an AlphaEarth tile has 64")
        if found != "int8":
            raise TileError(f"{place}: holds {found}; an AlphaEarth tile holds int8 codes")
        if nodata not in (None, NODATA):
            raise TileError(f"{place}: nodata is {ifd.gdal_nodata}; AlphaEarth codes have -128")
        wrong = [(i, name) for i, (name, band) in enumerate(zip(names_found, BANDS, strict=True), 1) if name != band]
        if wrong:
            raise TileError(
                f"{place}: expected bands A00..A63 in this order, found {wrong[0][1]!r} as number {wrong[0][0]} "
                f"({len(wrong)} of 64 differ); the bands were renamed or reordered: use a copy with the published ones"
            )
        return BANDS, "int8", float(NODATA)
    names = content.bands or ()
    names += tuple(f"band_{i + 1}" for i in range(len(names), samples))
    if samples != len(names):
        raise TileError(f"{place}: {samples} bands; the collection names {len(names)}: {', '.join(names[:5])}")
    if len(bits) != 1 or len(formats) != 1 or kind == "?" or min(bits) not in (8, 16, 32, 64):
        raise TileError(f"{place}: holds {found}; bands of one whole type are needed: integers or floats")
    if content.dtype is not None and np.dtype(content.dtype).name != np.dtype(found).name:
        raise TileError(f"{place}: holds {found}; the collection holds {content.dtype}")
    dtype = np.dtype(found).newbyteorder(order).str
    return names, dtype, content.nodata if nodata is None else nodata


def _tile_of(place: str, year: int, ifd: Any, content: Content, order: Order) -> Tile:
    bands, dtype, nodata = _pixels(place, ifd, content, order)
    if ifd.tile_width is None or ifd.tile_offsets is None:
        raise TileError(
            f"{place}: stored in strips; the archive reader needs blocks (open it as a single raster instead)"
        )
    compression = COMPRESSIONS.get(int(ifd.compression))
    if compression is None:
        raise TileError(f"{place}: compression {int(ifd.compression)} is not supported; use ZSTD, deflate, LZW or none")
    predictor = int(ifd.predictor) if ifd.predictor is not None else 1
    if predictor not in ((1, 2, 3) if "f" in dtype else (1, 2)):
        raise TileError(f"{place}: predictor {predictor} is not supported; use 1 or 2")
    across, down = ifd.tile_count
    parts = len(bands) if int(ifd.planar_configuration) == 2 else 1
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
        bands=bands,
        dtype=dtype,
        nodata=nodata,
    )


def _nodata(text: str | None) -> float | None:
    match = re.match(r"\s*([-+]?(\d+(\.\d*)?([eE][-+]?\d+)?|nan))", text or "", flags=re.IGNORECASE)
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


_SHARED_FIELDS: Final = ("compression", "predictor", "dtype", "nodata")  # the same in a tile and in a kept header


def header_of(tile: Tile) -> dict[str, Any]:
    """Return what a collection keeps of a tile's header, as `tile_from_header` reads it."""
    return {
        "crs": tile.grid.crs,
        "transform": list(tile.grid.transform),
        "height": tile.grid.shape[0],
        "width": tile.grid.shape[1],
        "block_height": tile.block_shape[0],
        "block_width": tile.block_shape[1],
        "parts": len(tile.offsets),
        **{name: getattr(tile, name) for name in _SHARED_FIELDS},
        "bands": list(tile.bands),
        "offsets": tile.offsets.ravel(),
        "lengths": tile.lengths.ravel(),
    }


def tile_from_header(place: str, year: int, header: Mapping[str, Any]) -> Tile:
    """Return the tile that `header_of` described.

    Raises
    ------
    TileError
        If it lacks a field, or they don't agree.
    """
    try:
        shape = (int(header["height"]), int(header["width"]))
        block = (int(header["block_height"]), int(header["block_width"]))
        blocks = (int(header["parts"]), -(-shape[0] // block[0]), -(-shape[1] // block[1]))
        return Tile(
            place=place,
            year=year,
            grid=Grid(crs=header["crs"], transform=tuple(header["transform"]), shape=shape),
            block_shape=block,
            offsets=np.asarray(header["offsets"], np.int64).reshape(blocks),
            lengths=np.asarray(header["lengths"], np.int64).reshape(blocks),
            bands=tuple(header["bands"]),
            **{name: header[name] for name in _SHARED_FIELDS},
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise TileError(f"{place}: its header in the collection is damaged ({error}); build it anew") from error
