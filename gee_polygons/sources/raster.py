"""Reads a single raster of one year: any GeoTIFF that GDAL reads, or a NumPy array with a grid.

It holds int8 codes (-128 = nodata) or float vectors (nodata: NaN, or the value that the file states), one band for
each component of the embedding.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import shapely
from numpy.typing import NDArray

from gee_polygons.alphaearth import BANDS, N_BANDS, NODATA, band_positions
from gee_polygons.embeddings.quantization import FLOAT32_ROUNDING
from gee_polygons.errors import GeePolygonsError, InputFileError, ReadError, TileError, UsageError
from gee_polygons.network.local import MissingFileError
from gee_polygons.network.places import first_line, hide_query, is_url, requested, without_query
from gee_polygons.network.request import Network, fetch_end
from gee_polygons.reduction.extents import degrees
from gee_polygons.reduction.overlaps import is_missing
from gee_polygons.reduction.plan import BlockRef, EmbeddingImage, Piece, Plan
from gee_polygons.reduction.planning import make_plan
from gee_polygons.reduction.polygons import Polygons
from gee_polygons.reduction.windows import DecodedBlock, lattice_window, near_grid, paste, refs_in
from gee_polygons.zonal.grid import Grid
from gee_polygons.zonal.projection import transformer
from gee_polygons.zonal.zones import bounding_boxes

_BLOCK: Final = 512  # 64 float32 bands of 512 x 512 pixels are 67 MB
_FIRST_YEAR: Final = 2017


class RasterSource:
    """One raster as a source.

    Parameters
    ----------
    data : str, Path or array
        Path or URL of a GeoTIFF, path of an ``.npy`` or ``.npz`` file, or an array of shape (bands, height, width).
        An ``.npz`` may state its grid itself: arrays ``codes`` or ``vectors``, ``transform`` (6 numbers) and ``crs``.
    grid : Grid, optional
        Where the pixels are; needed for an array or ``.npy``, refused for a GeoTIFF.
    year : int, optional
        Its year. Default: the file's ``YEAR`` tag, else the only 20xx in its name.
    bands : sequence of str, optional
        Names of its bands. Default: A00..A63 for 64 bands, else the file's band descriptions.

    Raises
    ------
    InputFileError
        If the file is missing or isn't a raster.
    TileError
        If it holds neither int8 codes nor floats, has no CRS, or its bands have no names.
    UsageError
        If its year or grid isn't known.

    Examples
    --------
    >>> codes = np.full((64, 2, 2), 16, np.int8)
    >>> grid = Grid(crs="EPSG:32722", transform=(10, 0, 800000, 0, -10, 7500020), shape=(2, 2))
    >>> RasterSource(codes, grid=grid, year=2024).years()
    [2024]
    """

    name = "raster"

    def __init__(
        self,
        data: str | Path | NDArray[Any],
        *,
        grid: Grid | None = None,
        year: int | None = None,
        bands: Sequence[str] | None = None,
    ) -> None:
        self.archive = "array" if isinstance(data, np.ndarray) else hide_query(str(data))
        raster: _Array | _File
        if isinstance(data, np.ndarray):
            raster = _Array("array", data, grid)
        elif self.archive.lower().endswith((".npy", ".npz")):
            raster = _load_numpy(self.archive, grid)
        elif grid is not None:
            raise UsageError(f"{self.archive}: a GeoTIFF states its own grid; leave grid= out")
        else:
            raster = _File(self.archive)
        if raster.dtype != np.int8 and not np.issubdtype(raster.dtype, np.floating):
            raise TileError(f"{self.archive}: holds {raster.dtype}; embeddings are int8 codes or float vectors")
        transformer("EPSG:4326", raster.grid.crs)  # refuses a CRS that isn't one
        self._raster = raster
        self._nodata = NODATA if raster.dtype == np.int8 else np.nan
        self.bands = _band_names(self.archive, raster, bands)
        self.year = year if year is not None else _year(self.archive, raster)
        self.grid = raster.grid

    @property
    def place(self) -> str:
        """Path, for messages."""
        return self.archive

    @property
    def block_shape(self) -> tuple[int, int]:
        """(height, width) of the pixels read at a time, whatever blocks the file has."""
        height, width = self.grid.shape
        return min(_BLOCK, height), min(_BLOCK, width)

    def __repr__(self) -> str:
        height, width = self.grid.shape
        return f"RasterSource({self.archive!r}, {len(self.bands)} bands, {height} x {width} px, {self.year})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what it was made of; a file is opened again where it is needed."""
        grid = None if isinstance(self._raster, _File) else self.grid
        data = self._raster.values if self.archive == "array" and isinstance(self._raster, _Array) else self.archive
        return partial(RasterSource, grid=grid, year=self.year, bands=self.bands), (data,)

    def years(self) -> list[int]:
        """Its one year."""
        return [self.year]

    def extent(self) -> tuple[float, ...]:
        """(west, south, east, north) in degrees."""
        return degrees(self.grid.bounds, self.grid.crs)

    def cost(self, ref: BlockRef, n_bands: int | None = None) -> tuple[int, int]:
        """Return 1 request and the uncompressed bytes of a block, of all bands or the first few."""
        n_bands = len(self.bands) if n_bands is None else n_bands
        return 1, ref.inside.height * ref.inside.width * n_bands * self._raster.dtype.itemsize

    def plan(self, polygons: Polygons | NDArray[Any], years: Sequence[int]) -> Plan:
        """Find the blocks that hold polygons (EPSG:4326)."""
        polygons = Polygons.of(polygons)
        near = np.flatnonzero(near_grid(polygons.geometries, self.grid))
        pieces = [Piece(i, self.grid.lattice) for i in near.tolist()]
        tiles = [self] if self.year in years else []
        return make_plan(source=self.name, polygons=polygons, years=years, pieces=pieces, tiles=tiles)

    def read(self, refs: Sequence[BlockRef], bands: Sequence[str]) -> Iterator[DecodedBlock | ReadError]:
        """Read blocks, in order; for a block that can't be read, yield the error."""
        wanted = band_positions(bands, self.bands, f"{self.archive} has")
        for ref in refs:
            try:
                yield DecodedBlock(ref, self._pixels(ref, wanted))
            except ReadError as error:
                yield error

    def image(self, region: shapely.Geometry, year: int, bands: Sequence[str] | None = None) -> EmbeddingImage:
        """Return the pixels of a region's bounding box (EPSG:4326), north-up; another year has no data."""
        names = tuple(bands) if bands is not None else self.bands
        wanted = band_positions(names, self.bands, f"{self.archive} has")
        lattice = self.grid.lattice
        window = lattice_window(bounding_boxes(np.array([region], object))[0], lattice)
        values = np.full((len(names), window.height, window.width), self._nodata, self._raster.dtype)
        for ref in refs_in(self, window) if year == self.year else ():
            paste(values, window, DecodedBlock(ref, self._pixels(ref, wanted)))
        return EmbeddingImage(values=values, grid=lattice.grid(window), bands=names, year=year, source=self.archive)

    def _pixels(self, ref: BlockRef, bands: Sequence[int]) -> NDArray[Any]:
        """Read a block's pixels, as far as the raster reaches, shape (bands, height, width)."""
        (height, width), (row, col) = self.block_shape, ref.index
        rows = slice(row * height, min((row + 1) * height, self.grid.shape[0]))
        cols = slice(col * width, min((col + 1) * width, self.grid.shape[1]))
        pixels = self._raster.read(bands, rows, cols)
        if pixels.dtype != np.int8:
            pixels = _vectors(f"{self.place}: rows {rows.start}-{rows.stop}, columns {cols.start}-{cols.stop}", pixels)
        # a pixel that lacks a component has no vector
        missing = is_missing(pixels, self._nodata)
        if (some := missing.any(axis=0) & ~missing.all(axis=0)).any():
            pixels = np.where(some, np.array(self._nodata, pixels.dtype), pixels)
        return pixels


class _Array:
    """An array in memory, or mapped from a file."""

    descriptions: tuple[str | None, ...] = ()
    year_tag: str | None = None

    def __init__(self, place: str, values: NDArray[Any], grid: Grid | None) -> None:
        if values.ndim != 3:
            raise TileError(f"{place}: an array of shape (bands, height, width) is needed, found {values.shape}")
        if grid is None:
            raise UsageError(
                f"{place}: a NumPy array has no grid: save it as .npz with the arrays codes, transform and crs; "
                "in Python grid=Grid(crs=..., transform=..., shape=...)"
            )
        if values.shape[1:] != grid.shape:
            raise UsageError(f"{place}: the array is {values.shape[1:]} pixels, the grid {grid.shape}")
        self.values = values
        self.grid = grid
        self.dtype = values.dtype
        self.n_bands = len(values)

    def read(self, bands: Sequence[int], rows: slice, cols: slice) -> NDArray[Any]:
        return self.values[list(bands), rows, cols]


class _File:
    """A GeoTIFF read by rasterio. A dataset isn't safe across threads, so each read takes the lock."""

    def __init__(self, place: str) -> None:
        self._place = place
        data = self._open()
        try:
            self._describe(place, data)
        except GeePolygonsError:
            raise
        except Exception as error:  # of rasterio's many classes, and texts that aren't UTF-8
            raise InputFileError(f"{place}: not a raster that can be read: {first_line(error)}") from error

    def _describe(self, place: str, data: Any) -> None:
        if data.crs is None:
            raise TileError(f"{place}: has no CRS, so its place is unknown; assign one with gdal_edit or rio edit-info")
        if len(set(data.dtypes)) != 1:
            raise TileError(f"{place}: its bands have different types: {sorted(set(data.dtypes))}")
        code = data.crs.to_epsg()
        crs = f"EPSG:{code}" if code else data.crs.to_wkt()
        try:
            self.grid = Grid(crs=crs, transform=tuple(data.transform)[:6], shape=(data.height, data.width))
        except TileError as error:
            raise TileError(f"{place}: {error}") from error
        self.dtype = np.dtype(data.dtypes[0])
        self.n_bands = data.count
        self.descriptions = data.descriptions
        self.year_tag = data.tags().get("YEAR")
        self._nodata = data.nodata
        if self.dtype == np.int8 and self._nodata not in (None, NODATA):
            raise TileError(f"{place}: nodata is {self._nodata}; codes have -128")

    def _open(self) -> Any:
        import rasterio

        if not is_url(self._place) and not Path(self._place).exists():
            raise InputFileError(f"{self._place}: no such file")
        self._process, self._lock = os.getpid(), threading.Lock()
        try:
            # a signed URL is good for GET alone, and for this file alone
            options = {"CPL_VSIL_CURL_USE_HEAD": "NO", "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}
            with rasterio.Env(**(options if is_url(self._place) else {})):
                self._dataset = rasterio.open(requested(self._place))
        except Exception as error:  # of rasterio's many classes
            reason = without_query(first_line(error))
            if is_url(self._place):  # GDAL's error doesn't tell whether there was an answer
                with suppress(MissingFileError):
                    fetch_end(self._place, 1, Network(attempts=1, give_up_after_s=1))
            raise InputFileError(f"{self._place}: not a raster that can be read: {reason}") from None
        return self._dataset

    def read(self, bands: Sequence[int], rows: slice, cols: slice) -> NDArray[Any]:
        from rasterio.windows import Window

        if self._process != os.getpid():  # forked: the parent's file has one position for both
            self._open()

        window = Window(cols.start, rows.start, cols.stop - cols.start, rows.stop - rows.start)
        try:
            with self._lock:
                pixels: NDArray[Any] = self._dataset.read([b + 1 for b in bands], window=window)
        except Exception as error:  # of rasterio's many classes
            reason = without_query(first_line(error.__cause__ or error))
            raise ReadError(
                f"{self._place}: rows {rows.start}-{rows.stop}, columns {cols.start}-{cols.stop}: damaged: {reason}",
                url=self._place,
            ) from None
        if pixels.dtype != np.int8 and self._nodata is not None and not np.isnan(self._nodata):
            pixels[pixels == pixels.dtype.type(self._nodata)] = np.nan
        return pixels


def _vectors(place: str, values: NDArray[Any]) -> NDArray[Any]:
    """Return float vectors as float32 or float64 in the machine's byte order."""
    vectors: NDArray[Any] = values.astype(np.float32 if values.dtype.itemsize <= 4 else np.float64, copy=False)
    if float(np.nanmax(np.abs(vectors), initial=0.0)) > 1.0 + FLOAT32_ROUNDING:
        raise ReadError(
            f"{place}: values beyond -1..1 aren't embedding vectors; are these codes stored as floats, or nodata "
            "undeclared?"
        )
    return vectors


def _load_numpy(place: str, grid: Grid | None) -> _Array:
    path = Path(place)
    if is_url(place):
        raise InputFileError(f"{place}: a NumPy file is read from this machine only; copy it here")
    if not path.is_file():
        raise InputFileError(f"{place}: no such file")
    try:
        with path.open("rb") as file:
            is_zip = file.read(2) == b"PK"
            file.seek(0)
            if is_zip:
                with np.load(file, allow_pickle=False) as loaded:
                    arrays = {name: loaded[name] for name in ("codes", "vectors", "transform", "crs") if name in loaded}
        single = None if is_zip else np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy, zipfile, zlib and tokenize raise errors of many classes
        # of a text file NumPy says that it is pickled
        reason = "neither .npy nor .npz inside" if "pickled" in str(error) else first_line(error)
        raise InputFileError(f"{place}: not a NumPy file that can be read: {reason}") from error
    if single is not None:
        return _Array(place, single, grid)
    values = arrays.get("codes", arrays.get("vectors"))
    if values is None:
        raise InputFileError(f"{place}: an .npz file needs an array named 'codes' or 'vectors'")
    if grid is None and "transform" in arrays and "crs" in arrays and values.ndim == 3:
        numbers = [float(v) for v in arrays["transform"].ravel()]
        if len(numbers) not in (6, 9):  # an affine matrix's third row says nothing
            raise TileError(f"{place}: a transform has 6 numbers (a, b, c, d, e, f), found {len(numbers)}")
        a, b, c, d, e, f = numbers[:6]
        try:
            grid = Grid(crs=str(arrays["crs"]), transform=(a, b, c, d, e, f), shape=values.shape[1:])
        except TileError as error:
            raise TileError(f"{place}: {error}") from error
    return _Array(place, values, grid)


def _band_names(place: str, raster: _Array | _File, bands: Sequence[str] | None) -> tuple[str, ...]:
    if bands is not None:
        names = tuple(bands)
        if len(names) != raster.n_bands or len(set(names)) != len(names):
            raise UsageError(f"{place}: {raster.n_bands} bands need as many names, each once, found {list(names)}")
        return names
    described = tuple(text or "" for text in raster.descriptions)
    if all(re.fullmatch(r"A\d\d", text) for text in described) and described and len(set(described)) == len(described):
        return described
    if raster.n_bands == N_BANDS:
        return BANDS
    raise TileError(
        f"{place}: {raster.n_bands} bands without names, an embedding has 64: describe the bands as A00, A01, ...; "
        "in Python bands="
    )


def _year(place: str, raster: _Array | _File) -> int:
    if raster.year_tag and re.fullmatch(r"\d{4}", raster.year_tag):
        return int(raster.year_tag)
    plain = place.partition("?")[0] if is_url(place) else place
    in_name = {int(text) for text in re.findall(r"(?<!\d)(20\d\d)(?!\d)", Path(plain).name)}
    if len(in_name) == 1 and min(in_name) >= _FIRST_YEAR:
        return in_name.pop()
    raise UsageError(f"{place}: its year isn't known: put it into the file's name or its tag YEAR; in Python year=")
