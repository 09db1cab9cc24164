"""Reads the pixels of a collection as masked arrays, tables, samples at points, and xarray datasets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import shapely
from numpy.typing import NDArray

from gee_polygons.collection.geometries import Geometries
from gee_polygons.embeddings.quantization import codes_to_vectors
from gee_polygons.errors import UsageError, optional_import, warn_data
from gee_polygons.reduction.polygons import Polygons
from gee_polygons.sources.cog.cutting import settled_parts, stream_parts
from gee_polygons.sources.cog.patches import Patch, Region, inside, read_regions
from gee_polygons.sources.cog.points import sample
from gee_polygons.sources.cog.source import CogSource
from gee_polygons.zonal.grid import Window

if TYPE_CHECKING:
    import geopandas
    import xarray

_CHUNK_PX: Final = 1024
_TABLE_BYTES: Final = 2**24  # of pixels, in a table of `stream_tables`


@dataclass(frozen=True)
class PixelQuery:
    """Which pixels to read, and as what: checked arguments of `Collection.get_numpy` and its like."""

    source: CogSource
    geometries: Geometries
    bands: tuple[str, ...]
    years: tuple[int, ...]
    as_vectors: bool
    as_codes: bool
    """Of embeddings, not to be taken for vectors."""

    def decoded(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return pixels as stored, or as vectors."""
        return codes_to_vectors(values) if self.as_vectors else values


def stream_arrays(query: PixelQuery) -> Iterator[tuple[int, Any]]:
    """Yield each geometry's number and masked array, as soon as all of its blocks are decoded."""
    warned = False
    for number, areas, (patch, *others) in _stream_patches(query):
        if others and not warned:
            warned = True
            zones = ", ".join(part.grid.crs for part in (patch, *others))
            warn_data(
                f"geometry {number} lies in several zones ({zones}), each with a grid of its own; its array, like that "
                "of others that do, holds the first one's part: get_gdf and get_xarray give all"
            )
        mask = ~patch.valid
        if not query.geometries.whole_box:
            mask |= ~inside(areas, number, patch)
        values = query.decoded(patch.values)
        fill = np.nan if query.as_vectors else patch.nodata
        yield number, np.ma.MaskedArray(values, mask, fill_value=fill)


def stream_tables(query: PixelQuery) -> Iterator[geopandas.GeoDataFrame]:
    """See `Collection.iter_gdf`."""
    found: dict[int, list[dict[str, Any]]] = {}
    size = 0
    for number, rows in _stream_rows(query):
        found[number] = rows
        size += sum(row["pixels"].nbytes for row in rows)
        if size >= _TABLE_BYTES:
            yield _table_of(query, found)
            found, size = {}, 0
    if found:
        yield _table_of(query, found)


def table_of_pixels(query: PixelQuery) -> geopandas.GeoDataFrame:
    """See `Collection.get_gdf`."""
    return _table_of(query, dict(_stream_rows(query)))


def _stream_rows(query: PixelQuery) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Yield each geometry's number and its rows: one for each year and zone."""
    for number, areas, patches in _stream_patches(query):
        decoded = [query.decoded(patch.values) for patch in patches]
        valid = [np.logical_and.reduce(patch.valid, axis=1) for patch in patches]  # in all bands
        if not query.geometries.whole_box:
            for patch, has_data in zip(patches, valid, strict=True):
                has_data &= inside(areas, number, patch)
        yield (
            number,
            [
                {
                    "year": year,
                    "pixels": pixels[y],
                    "valid": has_data[y],
                    "transform": patch.grid.transform,
                    "crs": patch.grid.crs,
                }
                for y, year in enumerate(query.years)
                for patch, pixels, has_data in zip(patches, decoded, valid, strict=True)
            ],
        )


def _table_of(query: PixelQuery, found: Mapping[int, list[dict[str, Any]]]) -> geopandas.GeoDataFrame:
    """Return the rows of some geometries as a table, in the order of the geometries."""
    import geopandas
    import pandas as pd

    numbers = sorted(found)
    rows = [row for number in numbers for row in found[number]]
    names = ("year", "pixels", "valid", "transform", "crs")
    table = pd.DataFrame({name: pd.Series([row[name] for row in rows], dtype=object) for name in names})
    if query.as_codes:
        table = table.rename(columns={"pixels": "codes"})
    table["year"] = table["year"].astype(np.int64)
    owners = np.repeat(numbers, [len(found[number]) for number in numbers]).astype(np.int64)
    return geopandas.GeoDataFrame(_joined(query.geometries, table, owners), crs="EPSG:4326")


def samples_of(query: PixelQuery, max_distance_px: int) -> geopandas.GeoDataFrame:
    """See `Collection.sample_points`."""
    import geopandas
    import pandas as pd

    points = query.geometries.geometries
    if max_distance_px < 0:
        raise UsageError(f"max_distance_px is 0 or more, found {max_distance_px}")
    if not (shapely.get_type_id(points) == 0).all():
        raise UsageError("sample_points takes points; use .representative_point() of polygons, or get_gdf")
    values, distance = sample(
        query.source, shapely.get_x(points), shapely.get_y(points), query.years, query.bands, max_distance_px
    )
    flat = query.decoded(values.reshape(-1, len(query.bands)))
    missing = distance.ravel() < 0
    columns: dict[str, Any] = {"year": np.tile(np.array(query.years, np.int64), len(points))}
    for i, band in enumerate(query.bands):
        if np.issubdtype(flat.dtype, np.floating):
            columns[band] = np.where(missing, np.nan, flat[:, i]).astype(flat.dtype)
        else:  # pandas' integers with a mask: codes stay whole numbers where some are missing
            columns[band] = _masked_integers(flat[:, i], missing)
    columns["distance_px"] = _masked_integers(distance.ravel(), missing)
    owners = np.repeat(np.arange(len(points)), len(query.years))
    found = geopandas.GeoDataFrame(_joined(query.geometries, pd.DataFrame(columns), owners), crs="EPSG:4326")
    if query.as_codes:
        found.attrs["units"] = "code"
    return found


def _masked_integers(values: NDArray[Any], missing: NDArray[np.bool_]) -> Any:
    """Return whole numbers as a pandas array of the same width, with NA where they are missing."""
    import pandas as pd

    sign = "U" if values.dtype.kind == "u" else ""
    column: Any = pd.array(values, dtype=f"{sign}Int{values.dtype.itemsize * 8}")  # type: ignore[call-overload]
    column[missing] = pd.NA
    return column


def dataset_of(
    query: PixelQuery, crs: str | None, chunks: Mapping[str, int] | str | None, attribution: str
) -> xarray.Dataset:
    """See `Collection.get_xarray`."""
    xarray = optional_import("xarray", "xarray is missing: pip install 'gee_polygons[xarray]'")
    source, bands, years = query.source, query.bands, query.years
    parts = settled_parts(source, Polygons(query.geometries.polygons), years, bands)
    by_zone: dict[str, list[Region]] = defaultdict(list)
    for region in (region for some in parts for region in some):
        by_zone[region.lattice.crs].append(region)
    if not by_zone:
        raise UsageError("no geometries were given")
    if crs is not None and crs not in by_zone:
        raise UsageError(f"no geometry lies in {crs}; they lie in {', '.join(sorted(by_zone))}")
    if crs is None and len(by_zone) > 1:
        raise UsageError(f"the geometries lie in {', '.join(sorted(by_zone))}, a grid each; choose one with crs=")
    region = _union(by_zone[crs] if crs is not None else next(iter(by_zone.values())))
    grid = region.lattice.grid(region.window)
    if chunks is None:
        patch = read_regions(source, [region], years, bands)[0]
        data: Any = query.decoded(patch.values)
        nodata = patch.nodata
    else:
        data, nodata = _lazy(query, region, chunks)
    step_x, _, west, _, step_y, north = grid.transform
    coordinates = {
        "year": np.array(years),
        "y": north + (np.arange(grid.shape[0]) + 0.5) * step_y,
        "x": west + (np.arange(grid.shape[1]) + 0.5) * step_x,
    }
    attributes: dict[str, Any] = {} if query.as_vectors or nodata is None else {"nodata": nodata}
    if query.as_codes:
        attributes["units"] = "code"
    return xarray.Dataset(
        {band: (("year", "y", "x"), data[:, i], attributes) for i, band in enumerate(bands)},
        coords=coordinates,
        attrs={"crs": grid.crs, "transform": grid.transform, "attribution": attribution},
    )


def _union(regions: Sequence[Region]) -> Region:
    """Return the window around all regions of one zone, and their tiles."""
    windows = [region.window for region in regions]
    row, col = min(w.row for w in windows), min(w.col for w in windows)
    height = max(w.row_stop for w in windows) - row
    width = max(w.col_stop for w in windows) - col
    tiles = dict.fromkeys(tile for region in regions for tile in region.tiles)
    window = Window(row, col, height, width)
    cells: tuple[Any, ...] = ()
    if any(region.cells for region in regions):
        cells = tuple(cell for region in regions for cell in (region.cells or ((region.window, None),)))
    return Region(regions[0].lattice, window, tuple(tiles), regions[0].owner, cells)


def _lazy(query: PixelQuery, region: Region, chunks: Any) -> tuple[Any, float | None]:
    """Return the pixels of a region as a dask array, shape (years, bands, height, width), and their nodata value."""
    dask_array = optional_import("dask.array", "dask is missing: pip install 'gee_polygons[xarray]'")
    sizes = {"year": 1, "y": _CHUNK_PX, "x": _CHUNK_PX}
    if not isinstance(chunks, str):
        unknown = set(chunks) - set(sizes)
        if unknown:
            raise UsageError(f"chunks name 'year', 'y' and 'x', found {sorted(unknown)[0]!r}")
        sizes.update(chunks)
    whole = region.window
    first = region.tiles[0] if region.tiles else None
    dtype = np.dtype(np.float32 if query.as_vectors else np.int8 if first is None else first.dtype).newbyteorder("=")

    def read(block_info: Any = None) -> NDArray[Any]:
        (year, year_stop), _, (row, row_stop), (col, col_stop) = block_info[None]["array-location"]
        window = Window(whole.row + row, whole.col + col, row_stop - row, col_stop - col)
        part, years = replace(region, window=window), query.years[year:year_stop]
        return query.decoded(read_regions(query.source, [part], years, query.bands)[0].values)

    shape = (len(query.years), len(query.bands), whole.height, whole.width)
    pieces = dask_array.core.normalize_chunks((sizes["year"], -1, sizes["y"], sizes["x"]), shape)
    lazy = dask_array.map_blocks(read, chunks=pieces, dtype=dtype, meta=np.empty((0, 0, 0, 0), dtype))
    return lazy, None if first is None else first.nodata


def _stream_patches(query: PixelQuery) -> Iterator[tuple[int, Polygons, list[Patch]]]:
    areas = Polygons(query.geometries.polygons)
    for number, patches in stream_parts(query.source, areas, query.years, query.bands):
        yield number, areas, patches


def _joined(geometries: Geometries, found: Any, rows: NDArray[np.int64]) -> Any:
    """Put the columns that came with the geometries in front of a table, and each row's geometry at its end."""
    import pandas as pd

    parts = []
    if geometries.frame is not None:
        given = pd.DataFrame(geometries.frame.drop(columns=geometries.frame.geometry.name))
        clash = [name for name in given.columns if name in found.columns]
        given = given.rename(columns={name: f"{name}_given" for name in clash})
        parts.append(given.iloc[rows].reset_index(drop=True))
    parts += [found, pd.DataFrame({"geometry": geometries.geometries[rows]})]
    return pd.concat(parts, axis=1)
