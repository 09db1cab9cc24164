"""Parses the headers of tiles, many at once, each with one request where it has the usual size."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final
from xml.etree import ElementTree

import numpy as np

from gee_polygons.alphaearth import BANDS, N_BANDS, NODATA
from gee_polygons.errors import ReadError, TileError
from gee_polygons.network.hosts import interruptible
from gee_polygons.network.local import MissingFileError
from gee_polygons.network.places import hide_query
from gee_polygons.network.request import NETWORK, Network
from gee_polygons.sources.cog.tiff import FirstImage
from gee_polygons.sources.cog.tile import COMPRESSIONS, Tile
from gee_polygons.zonal.grid import Grid, Transform

HEADERS_AT_ONCE: Final = 64
# tags of TIFF 6.0, GeoTIFF 1.1 and GDAL
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _SAMPLES, _PLANAR, _PREDICTOR = 256, 257, 258, 259, 277, 284, 317
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_LENGTHS, _FORMAT = 322, 323, 324, 325, 339
_SCALE, _TIEPOINT, _MATRIX, _GEO_KEYS, _GDAL_METADATA, _GDAL_NODATA = 33550, 33922, 34264, 34735, 42112, 42113
_RASTER_TYPE, _GEOGRAPHIC, _PROJECTED, _USER_DEFINED = 1025, 2048, 3072, 32767  # geo keys


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

    def one(tile: tuple[str, int], content: Content) -> Tile | ReadError | TileError:
        place, year = hide_query(tile[0]), tile[1]
        try:
            return _tile_of(place, year, FirstImage(place, network), content)
        except MissingFileError:
            return ReadError(f"{place}: the tile is missing; the index names it", url=place, year=year)
        except ReadError as error:
            error.year = year
            return error
        except TileError as error:
            return error

    expected = [contents] * len(tiles) if isinstance(contents, Content) else contents
    pool = ThreadPoolExecutor(min(HEADERS_AT_ONCE, network.max_concurrent, len(tiles)), thread_name_prefix="headers")
    try:
        with interruptible():
            return list(pool.map(one, tiles, expected))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _stated_names(image: FirstImage) -> list[str]:
    """Return the bands' names (GDAL's descriptions); those that the file doesn't state are A00..A63."""
    try:
        items = ElementTree.fromstring(image.text(_GDAL_METADATA) or "<none/>").iter("Item")
        stated = {item.get("sample"): item.text or "" for item in items if item.get("role") == "description"}
    except ElementTree.ParseError:
        stated = {}
    return [stated.get(str(i)) or name for i, name in enumerate(BANDS)]


def _pixels(place: str, image: FirstImage, content: Content) -> tuple[tuple[str, ...], str, float | None]:
    """Return the names of the bands, the type and the nodata value; an error where they aren't what is expected."""
    samples = image.integer(_SAMPLES, 1)
    bits, formats = set(image.integers(_BITS).tolist()), set(image.integers(_FORMAT).tolist()) or {1}
    kind = {1: "uint", 2: "int", 3: "float"}.get(next(iter(formats)), "?")
    found = f"{kind}{'/'.join(map(str, sorted(bits)[:4]))}"
    nodata = _nodata(image.text(_GDAL_NODATA))
    names_found = _stated_names(image)
    looks_aef = samples == N_BANDS and found == "int8" and nodata in (None, NODATA) and names_found == list(BANDS)
    if content == AEF or (content.bands is None and content.dtype is None and looks_aef):
        if samples != N_BANDS:
            raise TileError(f"{place}: {samples} bands; an AlphaEarth tile has 64")
        if found != "int8":
            raise TileError(f"{place}: holds {found}; an AlphaEarth tile holds int8 codes")
        if nodata not in (None, NODATA):
            raise TileError(f"{place}: nodata is {nodata:g}; AlphaEarth codes have -128")
        wrong = [(i, name) for i, (name, band) in enumerate(zip(names_found, BANDS, strict=True), 1) if name != band]
        if wrong:
            raise TileError(
                f"{place}: expected bands A00..A63 in this order, found {wrong[0][1]!r} as number {wrong[0][0]} "
                f"({len(wrong)} of 64 differ); the bands were renamed or reordered: use a copy with the published ones"
            )
        return BANDS, "int8", float(NODATA)
    if not 0 < samples < 2**16:
        raise image.damaged(f"it has {samples} bands")
    names = content.bands or ()
    names += tuple(f"band_{i + 1}" for i in range(len(names), samples))
    if samples != len(names):
        raise TileError(f"{place}: {samples} bands; the collection names {len(names)}: {', '.join(names[:5])}")
    if len(bits) != 1 or len(formats) != 1 or kind == "?" or min(bits) not in (8, 16, 32, 64):
        raise TileError(f"{place}: holds {found}; bands of one whole type are needed: integers or floats")
    if kind == "float" and min(bits) == 8:
        raise TileError(f"{place}: holds {found}; floats have 16, 32 or 64 bits")
    if content.dtype is not None and np.dtype(content.dtype).name != np.dtype(found).name:
        raise TileError(f"{place}: holds {found}; the collection holds {content.dtype}")
    dtype = np.dtype(image.order + np.dtype(found).str[1:]).str
    return names, dtype, content.nodata if nodata is None else nodata


def _tile_of(place: str, year: int, image: FirstImage, content: Content) -> Tile:
    bands, dtype, nodata = _pixels(place, image, content)
    if not (image.count(_TILE_WIDTH) and image.count(_TILE_OFFSETS)):
        raise TileError(
            f"{place}: stored in strips; the archive reader needs blocks (open it as a single raster instead)"
        )
    compression = COMPRESSIONS.get(image.integer(_COMPRESSION, 1))
    if compression is None:
        raise TileError(
            f"{place}: compression {image.integer(_COMPRESSION, 1)} is not supported; use ZSTD, deflate, LZW or none"
        )
    predictor = image.integer(_PREDICTOR, 1)
    if predictor not in ((1, 2, 3) if "f" in dtype else (1, 2)):
        raise TileError(f"{place}: predictor {predictor} is not supported; use 1 or 2")
    height, width = image.integer(_HEIGHT, 0), image.integer(_WIDTH, 0)
    block = (image.integer(_TILE_HEIGHT, 0), image.integer(_TILE_WIDTH, 0))
    if min(height, width, *block) < 1:
        raise image.damaged(f"{height} x {width} pixels in blocks of {block[0]} x {block[1]}")
    parts = len(bands) if image.integer(_PLANAR, 1) == 2 else 1
    shape = (parts, -(-height // block[0]), -(-width // block[1]))
    blocks = math.prod(shape)
    for tag in (_TILE_OFFSETS, _TILE_LENGTHS):
        if image.count(tag) != blocks:
            raise TileError(f"{place}: {image.count(tag)} blocks listed, {blocks} expected")
    try:
        return Tile(
            place=place,
            year=year,
            grid=Grid(crs=_crs(place, image), transform=_transform(place, image), shape=(height, width)),
            block_shape=block,
            offsets=image.integers(_TILE_OFFSETS, blocks).reshape(shape),
            lengths=image.integers(_TILE_LENGTHS, blocks).reshape(shape),
            compression=compression,
            predictor=predictor,
            bands=bands,
            dtype=dtype,
            nodata=nodata,
        )
    except TileError as error:
        raise TileError(f"{place}: {str(error).removeprefix(f'{place}: ')}") from error


def _nodata(text: str) -> float | None:
    match = re.match(r"\s*([-+]?(\d+(\.\d*)?([eE][-+]?\d+)?|nan))", text, flags=re.IGNORECASE)
    return float(match.group(1)) if match else None


def _geo_keys(image: FirstImage) -> dict[int, int]:
    """Return the geo keys (GeoTIFF 1.1) whose value stands in the key itself: id -> value."""
    keys = image.integers(_GEO_KEYS).tolist()
    return {keys[i]: keys[i + 3] for i in range(4, len(keys) - 3, 4) if keys[i + 1] == 0}


def _crs(place: str, image: FirstImage) -> str:
    keys = _geo_keys(image)
    code = keys.get(_PROJECTED) or keys.get(_GEOGRAPHIC)
    if not code or code == _USER_DEFINED:
        raise TileError(f"{place}: no EPSG code in its geo keys, so its place is unknown")
    return f"EPSG:{code}"


def _transform(place: str, image: FirstImage) -> Transform:
    """Return the affine transform: from ModelTransformation (published tiles), else from scale and tiepoint."""
    matrix, scale, tiepoint = (image.floats(tag) for tag in (_MATRIX, _SCALE, _TIEPOINT))
    if len(matrix) >= 8:
        a, b, _, c, d, e, _, f = matrix[:8]
    elif len(scale) >= 2 and len(tiepoint) >= 6:
        (sx, sy), (i, j, _, x, y, _) = scale[:2], tiepoint[:6]
        a, b, c, d, e, f = sx, 0.0, x - i * sx, 0.0, -sy, y + j * sy
    else:
        raise TileError(f"{place}: not georeferenced (no ModelTransformation, no scale and tiepoint)")
    if _geo_keys(image).get(_RASTER_TYPE) == 2:  # PixelIsPoint: the position is the pixel's centre
        c, f = c - a / 2, f - e / 2
    return a, b, c, d, e, f


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
