"""Local copies: of an archive, what some sites need of it; or each site's pixels in a file of its own.

A local archive has the layout and the index of the one that it is cut from. Its tiles keep their whole grid and hold
only the blocks that sites touch, smaller ones than published, with the pixels as they were: so zones are chosen, and
numbers come out, as from the original, to the last bit.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import shapely
from numpy.typing import NDArray

from gee_polygons.alphaearth import BANDS, NODATA
from gee_polygons.errors import OutputError, ReadError, UsageError
from gee_polygons.reduction.plan import BlockRef, Plan
from gee_polygons.reduction.polygons import Polygons
from gee_polygons.sources.cog.columns import SIDES
from gee_polygons.sources.cog.cutting import parts_of
from gee_polygons.sources.cog.index import TileIndex
from gee_polygons.sources.cog.patches import read_patches
from gee_polygons.sources.cog.source import INDEX_NAME, CogSource
from gee_polygons.sources.cog.tile import Tile
from gee_polygons.sources.cog.writing import write_tile
from gee_polygons.sources.cog.zoning import ZonePart, home_crs, rows_near
from gee_polygons.store.atomic import replacing
from gee_polygons.zonal.grid import Window
from gee_polygons.zonal.zones import cells_touched

log = logging.getLogger(__name__)

FORMATS: Final = ("archive", "tif", "npy")
MANIFEST: Final = "download.json"
BLOCK: Final = 256  # of a local tile: a small site costs about 2 MB a year, rather than 28
_SITES_AT_ONCE: Final = 64


def download(
    sites: Any,
    years: Sequence[int],
    out: str | Path,
    *,
    source: CogSource,
    format: str = "archive",
    progress: Callable[[int, int], object] | None = None,
) -> Path:
    """Copy what sites need.

    Parameters
    ----------
    sites : SiteCollection
        Polygons.
    years : sequence of int
        Years; those that the source lacks are left out.
    out : path
        Folder. A download that was interrupted goes on where it stopped; of other sites or years it is refused.
    source : CogSource
        Where from.
    format : {"archive", "tif", "npy"}
        An archive that can be given as source; or for each site ``{site_id}.tif`` (with several years
        ``{site_id}_{year}.tif``) or ``{site_id}.npy`` of shape (years, 64, height, width), int8 codes, in its home
        zone: a site that other zones' tiles hold a part of is named in a warning.
    progress : callable, optional
        Called with (files done, files in all).

    Returns
    -------
    Path
        The index of the archive, or the folder.

    Raises
    ------
    OutputError
        If the folder holds something else, or can't be written.
    ReadError
        If a read fails; running it again goes on from there.

    Examples
    --------
    >>> import tempfile
    >>> from gee_polygons.site import sites_from_geodataframe
    >>> from gee_polygons.sources.opening import open_source
    >>> from gee_polygons.sources.sample import sample_sites
    >>> sites = sites_from_geodataframe(sample_sites())[:2]
    >>> download(sites, [2023], tempfile.mkdtemp(), source=open_source("sample")).name
    'aef_index.parquet'
    """
    if format not in FORMATS:
        raise UsageError(f"format is one of {', '.join(FORMATS)}, found {format!r}")
    if not isinstance(source, CogSource):
        raise UsageError("only an archive of COG tiles can be downloaded; give its index as source")
    wanted = sorted({int(year) for year in years} & set(source.years()))
    if not wanted:
        raise UsageError(f"the source has none of the years asked for; it has {source.years()}")
    folder = Path(out)
    _claim(folder, sites, wanted, source, format)
    report = progress or (lambda done, total: None)
    if format != "archive":
        _write_sites(folder, sites, wanted, source, format, report)
        return folder
    return _write_archive(folder / "v1" / "annual", Polygons(sites.polygons), wanted, source, report)


def _claim(folder: Path, sites: Any, years: Sequence[int], source: CogSource, format: str) -> None:
    """Say in the folder what it is for; refuse one that is for something else."""
    shapes = b"".join(shapely.to_wkb(polygon) for polygon in sites.polygons)
    ours = {
        "what": "gee_polygons download", "source": source.archive, "years": list(years), "format": format,
        "sites": hashlib.blake2b(shapes + repr(tuple(sites.site_ids)).encode(), digest_size=16).hexdigest(),
    }  # fmt: skip
    manifest = folder / MANIFEST
    if manifest.is_file():
        try:
            known = json.loads(manifest.read_text("utf-8"))
        except ValueError:
            known = {}
        different = [key for key, value in ours.items() if known.get(key) != value]
        if different:
            raise OutputError(f"{folder} holds a download of other {different[0]}; give another folder")
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder} has other files in it; give a new or empty folder")
    else:
        with replacing(manifest) as part:
            part.write_text(json.dumps(ours, indent=1) + "\n", "utf-8")


# --- an archive -------------------------------------------------------------------------------------------------------


def _write_archive(
    root: Path, polygons: Polygons, years: Sequence[int], source: CogSource, report: Callable[[int, int], object]
) -> Path:
    index = _rows(polygons, years, source)
    tiles, broken = source.open(index)
    for error in broken.values():
        raise error
    plans = [source.plan(polygons, years)]
    again = source.replan(polygons, [(i, year) for i in range(len(polygons)) for year in years])
    plans += [again] if again is not None else []
    for failure in (failure for plan in plans for failure in plan.failures):
        raise ReadError(failure.message, url=failure.url, year=failure.year)
    needed = _needed(plans, polygons)
    for number, (tile, name) in enumerate(zip(tiles, _names(tiles), strict=True)):
        target = root / name
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            _copy(tile, needed.get((tile.place, tile.year), {}), source, target)
        report(number + 1, len(tiles))
    path = root / INDEX_NAME
    _write_index(path, index, tiles, source)  # last: where it is, everything is
    return path


def _rows(polygons: Polygons, years: Sequence[int], source: CogSource) -> TileIndex:
    """Return the index rows that zones are chosen by: home zones, and those of every cell that a polygon touches."""
    archive = source.near(polygons)
    index = archive.of_years(years)
    parts = {(i, str(crs)) for i, crs in enumerate(home_crs(polygons, archive))}
    for i, bounds in enumerate(shapely.bounds(polygons.geometries)):
        parts |= {(i, crs) for crs, _ in cells_touched(tuple(bounds))}
    return index.take(rows_near(polygons, [ZonePart(i, crs) for i, crs in sorted(parts)], index))


def _needed(plans: Sequence[Plan], polygons: Polygons) -> dict[tuple[str, int], dict[BlockRef, list[Window]]]:
    """Tile -> its blocks that are read, with the windows of the pieces in them."""
    found: dict[tuple[str, int], dict[BlockRef, list[Window]]] = defaultdict(dict)
    for plan in plans:
        for job in plan.jobs:
            bounds = polygons.pieces([plan.pieces[i] for i in job.pieces]).bounds()
            first, last = np.floor(bounds[:, :2]).astype(int), np.ceil(bounds[:, 2:]).astype(int)
            windows = [
                Window(int(y0), int(x0), int(y1 - y0), int(x1 - x0))
                for (x0, y0), (x1, y1) in zip(first, last, strict=True)
            ]
            for ref in job.reads:
                for part in (ref, *ref.preceding):
                    whole = replace(part, preceding=(), rows=0)
                    found[ref.tile if part is ref else part.tile, part.year].setdefault(whole, []).extend(windows)
    return found


def _copy(tile: Tile, needed: dict[BlockRef, list[Window]], source: CogSource, target: Path) -> None:
    """Write a tile's pixels that are needed, in blocks of their own size, on the tile's whole grid."""
    cells: dict[Window, NDArray[np.int8]] = {}
    size = min(BLOCK, -(-max(tile.grid.shape) // 16) * 16)
    refs = sorted(needed, key=lambda ref: ref.window)
    for ref, block in zip(refs, source.read(refs, BANDS), strict=True):
        if isinstance(block, ReadError):
            raise block
        inside = [common for window in needed[ref] if (common := window.intersection(ref.inside))]
        wanted = {cell for window in inside for cell in _cells(tile, window, size)}
        for part in range(block.n_parts):
            planes = block.decode(part)
            for plane, band in zip(planes, block.part_bands(part), strict=True):
                pixels = plane[: ref.window.height * ref.window.width].reshape(ref.window.height, ref.window.width)
                pixels = pixels[:: -1 if ref.flip_y else 1, :: -1 if ref.flip_x else 1]
                for cell in wanted:
                    common = cell.intersection(ref.inside)
                    if common is None:
                        continue
                    values = cells.setdefault(cell, np.full((len(BANDS), cell.height, cell.width), NODATA, np.int8))
                    values[band][_part(common, cell)] = pixels[_part(common, ref.window)]
    write_tile(
        target, tile.grid, cells.get, block=size, metadata={"YEAR": str(tile.year)},
        description="cut from the AlphaEarth Foundations Satellite Embedding dataset by gee_polygons", max_workers=1,
    )  # fmt: skip


def _cells(tile: Tile, window: Window, size: int) -> list[Window]:
    """Return the local tile's blocks that a window touches, as lattice windows inside the tile."""
    whole, (height, width) = tile.grid.window, tile.grid.shape
    rows = np.array([window.row, window.row_stop - 1]) - whole.row
    cols = np.array([window.col, window.col_stop - 1]) - whole.col
    rows = np.sort(height - 1 - rows if tile.grid.flip_y else rows) // size
    cols = np.sort(width - 1 - cols if tile.grid.flip_x else cols) // size
    return [
        tile.grid.part(r * size, c * size, min(size, height - r * size), min(size, width - c * size))
        for r in range(int(rows[0]), int(rows[1]) + 1)
        for c in range(int(cols[0]), int(cols[1]) + 1)
    ]


def _part(common: Window, origin: Window) -> tuple[slice, slice]:
    row, col = common.row - origin.row, common.col - origin.col
    return slice(row, row + common.height), slice(col, col + common.width)


def _names(tiles: Sequence[Tile]) -> list[str]:
    """Return the places of local tiles, as published: year / zone / name.

    Numbered in the order of the originals' places: where tiles overlap it decides which one's pixels count.
    """
    order = {place: number for number, place in enumerate(sorted({tile.place for tile in tiles}), 1)}
    names = []
    for tile in tiles:
        code = tile.grid.crs.removeprefix("EPSG:")
        zone = f"{code[3:]}{'N' if code[2] == '6' else 'S'}" if code[:3] in ("326", "327") else code
        stem = tile.place.rsplit("/", 1)[-1].rsplit(".", 1)[0]
        names.append(f"{tile.year}/{zone}/{order[tile.place]:06d}-{stem}.tiff")
    return names


def _write_index(path: Path, index: TileIndex, tiles: Sequence[Tile], source: CogSource) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    boxes, names = shapely.box(*index.wgs84.T), _names(tiles)
    columns: dict[str, Any] = {
        "fid": pa.array(range(1, len(tiles) + 1), pa.int64()),
        "geom": pa.array(shapely.to_wkb(boxes, byte_order=1), pa.binary()),
        "crs": pa.array(index.crs.tolist(), pa.string()),
        "year": pa.array(index.year.tolist(), pa.int32()),
        "utm_zone": pa.array([name.split("/")[1] for name in names], pa.string()),
    }
    for frame, values in (("utm", index.utm), ("wgs84", index.wgs84)):
        columns |= {f"{frame}_{side}": pa.array(values[:, i]) for i, side in enumerate(SIDES)}
    columns["path"] = pa.array(names, pa.string())
    geo = {"version": "1.1.0", "primary_column": "geom",
           "columns": {"geom": {"encoding": "WKB", "geometry_types": ["Polygon"]}}}  # fmt: skip
    metadata = {"geo": json.dumps(geo), "gee_polygons": json.dumps({"downloaded_from": source.archive})}
    if source.index.synthetic:
        metadata["synthetic"] = "cut from a synthetic archive"
    with replacing(path) as part:
        pq.write_table(pa.table(columns).replace_schema_metadata(metadata), part, compression="zstd")


# --- a file for each site ---------------------------------------------------------------------------------------------


def _write_sites(
    folder: Path, sites: Any, years: Sequence[int], source: CogSource, format: str, report: Callable[[int, int], object]
) -> None:
    names = [_safe(str(site_id)) for site_id in sites.site_ids]
    if len(set(names)) != len(names):
        raise UsageError("two site ids give the same file name; rename one")
    targets = [
        [folder / f"{name}.npy"] if format == "npy"
        else [folder / (f"{name}.tif" if len(years) == 1 else f"{name}_{year}.tif") for year in years]
        for name in names
    ]  # fmt: skip
    left = [i for i, files in enumerate(targets) if not all(file.is_file() for file in files)]
    done = len(names) - len(left)
    for start in range(0, len(left), _SITES_AT_ONCE):
        some = left[start : start + _SITES_AT_ONCE]
        areas = Polygons(sites.polygons[some])
        patches = read_patches(source, areas, years, BANDS)
        for i, parts in zip(some, parts_of(source, areas, years, BANDS), strict=True):
            if len(parts) > 1:
                zones = ", ".join(part.lattice.crs for part in parts)
                log.warning(
                    "site %r lies in %s; its file has the first one's grid and pixels", sites.site_ids[i], zones
                )
        for i, patch in zip(some, patches, strict=True):
            if format == "npy":
                with replacing(targets[i][0]) as part, part.open("wb") as file:
                    np.save(file, patch.values)
            else:
                for target, codes, year in zip(targets[i], patch.values, years, strict=True):
                    size = min(BLOCK, -(-max(patch.grid.shape) // 16) * 16)
                    write_tile(target, patch.grid, codes, block=size, metadata={"YEAR": str(year)}, max_workers=1)
            done += 1
            report(done, len(names))


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name).lstrip(".") or "_"
