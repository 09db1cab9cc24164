"""Pixels of a collection as masked arrays, xarray, rows and samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from gee_polygons._collection.geometries import Asked
from gee_polygons.embeddings.quantization import codes_to_vectors
from gee_polygons.errors import DependencyError, UsageError
from gee_polygons.sources._pixels import Patch, Region, read_patches, read_regions, regions_of, sample
from gee_polygons.sources._polygons import Polygons
from gee_polygons.zonal.coverage import compute_coverage
from gee_polygons.zonal.grid import Window

if TYPE_CHECKING:
    import geopandas
    import xarray

    from gee_polygons.collection import Collection

__all__ = ["dataset_of", "frame_of", "masked_arrays", "samples_of"]

_CHUNK_PX: Final = 1024


def masked_arrays(
    collection: Collection, wanted: Asked, bands: Sequence[str], years: Sequence[int], decode: str
) -> list[Any]:
    """See `Collection.get_numpy`."""
    _check_decode(collection, decode)
    areas, patches = _patches(collection, wanted, bands, years)
    arrays = []
    for i, patch in enumerate(patches):
        mask = ~patch.valid
        if not wanted.whole_box:
            mask |= ~_inside(areas, i, patch)
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
    areas, patches = _patches(collection, wanted, bands, years)
    rows: dict[str, list[Any]] = {"year": [], "pixels": [], "valid": [], "transform": [], "crs": []}
    for i, patch in enumerate(patches):
        pixels = _decoded(patch.values, decode)
        inside = np.ones(patch.grid.shape, np.bool_) if wanted.whole_box else _inside(areas, i, patch)
        for y, year in enumerate(years):
            rows["year"].append(year)
            rows["pixels"].append(pixels[y])
            rows["valid"].append(patch.valid[y].all(axis=0) & inside)
            rows["transform"].append(patch.grid.transform)
            rows["crs"].append(patch.grid.crs)
    found = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in rows.items()})
    found["year"] = found["year"].astype(np.int64)
    return geopandas.GeoDataFrame(_joined(wanted, found, len(years)), crs="EPSG:4326")


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
    return geopandas.GeoDataFrame(_joined(wanted, table, len(years)), crs="EPSG:4326")


def dataset_of(
    collection: Collection,
    wanted: Asked,
    bands: Sequence[str],
    years: Sequence[int],
    decode: str,
    crs: str | None,
    chunks: Mapping[str, int] | str | None,
) -> xarray.Dataset:
    """See `Collection.get_xarray`."""
    try:
        import xarray
    except ImportError as error:
        raise DependencyError("xarray is missing: pip install 'gee_polygons[xarray]'") from error

    _check_decode(collection, decode)
    source = collection.as_source()
    regions = regions_of(source, Polygons(wanted.polygons), years, bands)
    region = _union(regions, crs)
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
    return xarray.Dataset(
        {band: (("year", "y", "x"), data[:, i], attributes) for i, band in enumerate(bands)},
        coords=coordinates,
        attrs={"crs": grid.crs, "transform": grid.transform, "attribution": collection.dataset.attribution},
    )


def _union(regions: Sequence[Region], crs: str | None) -> Region:
    """Return the window around all regions of one zone, and their tiles."""
    zones = sorted({region.lattice.crs for region in regions})
    if crs is not None:
        regions = [region for region in regions if region.lattice.crs == crs]
        if not regions:
            raise UsageError(f"no geometry lies in {crs}; they lie in {', '.join(zones)}")
    elif len(zones) > 1:
        raise UsageError(
            f"geometries lie in {len(zones)} zones, each with a grid of its own: {', '.join(zones)}; choose with crs="
        )
    if not regions:
        raise UsageError("no geometries were given")
    windows = [region.window for region in regions]
    row, col = min(w.row for w in windows), min(w.col for w in windows)
    height = max(w.row_stop for w in windows) - row
    width = max(w.col_stop for w in windows) - col
    tiles = dict.fromkeys(tile for region in regions for tile in region.tiles)
    return Region(regions[0].lattice, Window(row, col, height, width), tuple(tiles))


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
        patch = read_regions(source, [Region(region.lattice, window, region.tiles)], some, bands)[0]
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


def _patches(
    collection: Collection, wanted: Asked, bands: Sequence[str], years: Sequence[int]
) -> tuple[Polygons, list[Patch]]:
    areas = Polygons(wanted.polygons)
    return areas, read_patches(collection.as_source(), areas, years, bands)


def _inside(areas: Polygons, number: int, patch: Patch) -> NDArray[np.bool_]:
    """Return which pixels of a patch a geometry touches, (height, width); one below a pixel touches its own."""
    window = patch.grid.window
    coverage = compute_coverage(areas.rings(patch.grid.lattice, np.array([number])))
    inside = np.zeros(patch.grid.shape, np.bool_)
    for row, col, length in coverage.runs[:, :3].tolist():
        inside[row - window.row, max(0, col - window.col) : col - window.col + length] = True
    edges = coverage.edges
    row, col = edges[:, 0] - window.row, edges[:, 1] - window.col
    held = (row >= 0) & (row < window.height) & (col >= 0) & (col < window.width)
    inside[row[held], col[held]] = True
    if not inside.any():  # thinner than coverage can tell
        inside[:] = True
    return inside


def _decoded(values: NDArray[Any], decode: str) -> NDArray[Any]:
    return codes_to_vectors(values) if decode == "vectors" else values


def _check_decode(collection: Collection, decode: str) -> None:
    if decode not in ("codes", "vectors"):
        raise UsageError(f"decode is 'codes' or 'vectors', found {decode!r}")
    if decode == "vectors" and not collection.dataset.embeddings:
        raise UsageError("only AlphaEarth codes decode to vectors; use decode='codes' for pixels as stored")


def _joined(wanted: Asked, found: Any, n_years: int) -> Any:
    """Put the columns that came with the geometries in front, and the geometries at the end."""
    import pandas as pd

    rows = np.repeat(np.arange(len(wanted.geometries)), n_years)
    parts = []
    if wanted.frame is not None:
        given = pd.DataFrame(wanted.frame.drop(columns=wanted.frame.geometry.name))
        clash = [name for name in given.columns if name in found.columns]
        given = given.rename(columns={name: f"{name}_given" for name in clash})
        parts.append(given.iloc[rows].reset_index(drop=True))
    parts += [found, pd.DataFrame({"geometry": wanted.geometries[rows]})]
    return pd.concat(parts, axis=1)
