"""Pixels of a collection as masked arrays, xarray, rows and samples."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from gee_polygons.collection.geometries import Asked
from gee_polygons.embeddings.quantization import codes_to_vectors
from gee_polygons.errors import DependencyError, UsageError
from gee_polygons.reduction.polygons import Polygons
from gee_polygons.sources.cog.cutting import read_parts, settled_parts
from gee_polygons.sources.cog.patches import Patch, Region, inside, read_regions
from gee_polygons.sources.cog.points import sample
from gee_polygons.zonal.grid import Window

if TYPE_CHECKING:
    import geopandas
    import xarray

    from gee_polygons.collection import Collection

_CHUNK_PX: Final = 1024


def masked_arrays(
    collection: Collection, wanted: Asked, bands: Sequence[str], years: Sequence[int], decode: str
) -> list[Any]:
    """See `Collection.get_numpy`."""
    _check_decode(collection, decode)
    areas, parts = _parts(collection, wanted, bands, years)
    torn = [i for i, patches in enumerate(parts) if len(patches) > 1]
    if torn:
        zones = ", ".join(patch.grid.crs for patch in parts[torn[0]])
        more = f" and {len(torn) - 1} more" if len(torn) > 1 else ""
        warnings.warn(
            f"geometry {torn[0]}{more} lies in several zones ({zones}), "
            "each with a grid of its own; its array holds the first one's part: get_gdf and get_xarray give all",
            stacklevel=3,
        )
    arrays = []
    for i, (patch, *_) in enumerate(parts):
        mask = ~patch.valid
        if not wanted.whole_box:
            mask |= ~inside(areas, i, patch)
        values = _decoded(patch.values, decode)
        fill = np.nan if decode == "vectors" else patch.nodata
        arrays.append(np.ma.MaskedArray(values, mask, fill_value=fill))
    return arrays


def frame_of(
    collection: Collection, wanted: Asked, bands: Sequence[str], years: Sequence[int], decode: str
) -> geopandas.GeoDataFrame:
    """See `Collection.get_gdf`."""
    import geopandas
    import pandas as pd

    _check_decode(collection, decode)
    areas, parts = _parts(collection, wanted, bands, years)
    rows: dict[str, list[Any]] = {"year": [], "pixels": [], "valid": [], "transform": [], "crs": []}
    owners: list[int] = []
    for i, patches in enumerate(parts):
        decoded = [_decoded(patch.values, decode) for patch in patches]
        touched = [np.ones(p.grid.shape, np.bool_) if wanted.whole_box else inside(areas, i, p) for p in patches]
        for y, year in enumerate(years):
            for patch, pixels, here in zip(patches, decoded, touched, strict=True):
                owners.append(i)
                rows["year"].append(year)
                rows["pixels"].append(pixels[y])
                rows["valid"].append(patch.valid[y].all(axis=0) & here)
                rows["transform"].append(patch.grid.transform)
                rows["crs"].append(patch.grid.crs)
    found = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in rows.items()})
    found["year"] = found["year"].astype(np.int64)
    return geopandas.GeoDataFrame(_joined(wanted, found, np.array(owners, np.int64)), crs="EPSG:4326")


def samples_of(
    collection: Collection, wanted: Asked, bands: Sequence[str], years: Sequence[int], decode: str, reach: int
) -> geopandas.GeoDataFrame:
    """See `Collection.sample_points`."""
    import geopandas
    import pandas as pd
    import shapely

    _check_decode(collection, decode)
    if reach < 0:
        raise UsageError(f"max_distance_px is 0 or more, found {reach}")
    if not (shapely.get_type_id(wanted.geometries) == 0).all():
        raise UsageError("sample_points takes points; use .representative_point() of polygons, or get_gdf")
    lon, lat = shapely.get_x(wanted.geometries), shapely.get_y(wanted.geometries)
    values, distance = sample(collection.as_source(), lon, lat, years, bands, reach)
    flat = _decoded(values.reshape(-1, len(bands)), decode)
    found = distance.ravel() >= 0
    table = pd.DataFrame({"year": np.tile(np.array(years, np.int64), len(lon))})
    columns: dict[str, Any] = {}
    for i, band in enumerate(bands):
        if np.issubdtype(flat.dtype, np.floating):
            columns[band] = np.where(found, flat[:, i], np.nan).astype(flat.dtype)
        else:  # codes stay whole numbers where some are missing
            kind = f"{'U' if flat.dtype.kind == 'u' else ''}Int{flat.dtype.itemsize * 8}"
            columns[band] = pd.array(flat[:, i], dtype=kind)  # type: ignore[call-overload]
            columns[band][~found] = pd.NA
    columns["distance_px"] = pd.array(distance.ravel(), dtype="Int64")
    columns["distance_px"][~found] = pd.NA
    table = pd.concat([table, pd.DataFrame(columns)], axis=1)
    return geopandas.GeoDataFrame(_joined(wanted, table, np.repeat(np.arange(len(lon)), len(years))), crs="EPSG:4326")


def dataset_of(
    collection: Collection,
    wanted: Asked,
    bands: Sequence[str],
    years: Sequence[int],
    decode: str,
    crs: str | None,
    chunks: Mapping[str, int] | str | None,
) -> xarray.Dataset | dict[str, xarray.Dataset]:
    """See `Collection.get_xarray`."""
    try:
        import xarray
    except ImportError as error:
        raise DependencyError("xarray is missing: pip install 'gee_polygons[xarray]'") from error

    _check_decode(collection, decode)
    source = collection.as_source()
    parts = settled_parts(source, Polygons(wanted.polygons), years, bands)
    by_zone: dict[str, list[Region]] = defaultdict(list)
    for region in (region for some in parts for region in some):
        by_zone[region.lattice.crs].append(region)
    if not by_zone:
        raise UsageError("no geometries were given")
    if crs is not None and crs not in by_zone:
        raise UsageError(f"no geometry lies in {crs}; they lie in {', '.join(sorted(by_zone))}")
    found: dict[str, xarray.Dataset] = {}
    for zone in sorted(by_zone) if crs is None else [crs]:
        region = _union(by_zone[zone])
        grid = region.lattice.grid(region.window)
        if chunks is None:
            patch = read_regions(source, [region], years, bands)[0]
            data: Any = _decoded(patch.values, decode)
            nodata = patch.nodata
        else:
            data, nodata = _lazy(collection, region, bands, years, decode, chunks)
        step_x, _, west, _, step_y, north = grid.transform
        coordinates = {
            "year": np.array(years),
            "y": north + (np.arange(grid.shape[0]) + 0.5) * step_y,
            "x": west + (np.arange(grid.shape[1]) + 0.5) * step_x,
        }
        attributes = {} if decode == "vectors" or nodata is None else {"nodata": nodata}
        found[zone] = xarray.Dataset(
            {band: (("year", "y", "x"), data[:, i], attributes) for i, band in enumerate(bands)},
            coords=coordinates,
            attrs={"crs": grid.crs, "transform": grid.transform, "attribution": collection.dataset.attribution},
        )
    return found if len(found) > 1 else next(iter(found.values()))


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


def _lazy(
    collection: Collection, region: Region, bands: Sequence[str], years: Sequence[int], decode: str, chunks: Any
) -> tuple[Any, float | None]:
    try:
        import dask.array as lazy
        from dask.delayed import delayed
    except ImportError as error:
        raise DependencyError("dask is missing: pip install 'gee_polygons[xarray]'") from error
    sizes = {"year": 1, "y": _CHUNK_PX, "x": _CHUNK_PX}
    if not isinstance(chunks, str):
        unknown = set(chunks) - set(sizes)
        if unknown:
            raise UsageError(f"chunks name 'year', 'y' and 'x', found {sorted(unknown)[0]!r}")
        sizes.update(chunks)
    source, whole = collection.as_source(), region.window
    first = region.tiles[0] if region.tiles else None
    kind = np.dtype(np.float32 if decode == "vectors" else np.int8 if first is None else first.dtype)

    def read(window: Window, some: tuple[int, ...]) -> NDArray[Any]:
        patch = read_regions(source, [replace(region, window=window)], some, bands)[0]
        return _decoded(patch.values, decode)

    stacked = []
    for start in range(0, len(years), sizes["year"]):
        some = tuple(years[start : start + sizes["year"]])
        rows = []
        for row in range(0, whole.height, sizes["y"]):
            height = min(sizes["y"], whole.height - row)
            cells = []
            for col in range(0, whole.width, sizes["x"]):
                width = min(sizes["x"], whole.width - col)
                window = Window(whole.row + row, whole.col + col, height, width)
                part = delayed(read)(window, some)
                shape = (len(some), len(bands), height, width)
                cells.append(lazy.from_delayed(part, shape, dtype=kind.newbyteorder("=")))
            rows.append(lazy.concatenate(cells, axis=3))
        stacked.append(lazy.concatenate(rows, axis=2))
    return lazy.concatenate(stacked, axis=0), None if first is None else first.nodata


def _parts(
    collection: Collection, wanted: Asked, bands: Sequence[str], years: Sequence[int]
) -> tuple[Polygons, list[list[Patch]]]:
    areas = Polygons(wanted.polygons)
    return areas, read_parts(collection.as_source(), areas, years, bands)


def _decoded(values: NDArray[Any], decode: str) -> NDArray[Any]:
    return codes_to_vectors(values) if decode == "vectors" else values


def _check_decode(collection: Collection, decode: str) -> None:
    if decode not in ("codes", "vectors"):
        raise UsageError(f"decode is 'codes' or 'vectors', found {decode!r}")
    if decode == "vectors" and not collection.dataset.embeddings:
        raise UsageError("only AlphaEarth codes decode to vectors; use decode='codes' for pixels as stored")


def _joined(wanted: Asked, found: Any, rows: NDArray[np.int64]) -> Any:
    """Put the columns that came with the geometries in front, and the geometries at the end."""
    import pandas as pd

    parts = []
    if wanted.frame is not None:
        given = pd.DataFrame(wanted.frame.drop(columns=wanted.frame.geometry.name))
        clash = [name for name in given.columns if name in found.columns]
        given = given.rename(columns={name: f"{name}_given" for name in clash})
        parts.append(given.iloc[rows].reset_index(drop=True))
    parts += [found, pd.DataFrame({"geometry": wanted.geometries[rows]})]
    return pd.concat(parts, axis=1)
