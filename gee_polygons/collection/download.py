"""Downloads the pixels of sites: a local archive with the blocks that they touch, or a file for each site.

A local archive has the layout and the index of the one that it is cut from. Its tiles keep their whole grid and hold
only the blocks that sites touch, smaller ones than published, with the pixels as they were: so zones are chosen, and
numbers come out, as from the original, to the last bit.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import shapely
from numpy.typing import NDArray

from gee_polygons.alphaearth import BANDS, credit
from gee_polygons.collection.site_files import block_size, write_site_files
from gee_polygons.errors import OutputError, ReadError, UsageError
from gee_polygons.periods import checked_years
from gee_polygons.reduction.plan import Plan
from gee_polygons.reduction.polygons import Polygons
from gee_polygons.sources.cog.index import TileIndex
from gee_polygons.sources.cog.index_file import index_row, write_index, zone_name
from gee_polygons.sources.cog.patches import Region, read_regions
from gee_polygons.sources.cog.source import INDEX_NAME, CogSource
from gee_polygons.sources.cog.tile import Tile
from gee_polygons.sources.cog.writing import write_tile
from gee_polygons.sources.cog.zoning import ZonePart, home_crs, rows_near
from gee_polygons.store.atomic import replacing
from gee_polygons.zonal.grid import Window
from gee_polygons.zonal.zones import cells_touched

FORMATS: Final = ("archive", "tif", "npy")
MANIFEST: Final = "download.json"


def download(
    sites: Any,
    years: Sequence[int] | int,
    out: str | Path,
    *,
    source: CogSource,
    format: str = "archive",
    progress: Callable[[int, int], object] | None = None,
) -> Path:
    """Copy the pixels of sites into a local folder.

    Parameters
    ----------
    sites : SiteCollection
        Polygons.
    years : int or sequence of int
        Years; those that the source doesn't have are left out.
    out : path
        Folder. An interrupted download is continued; a folder with other sites, years or files is refused.
    source : CogSource
        The archive to copy from.
    format : {"archive", "tif", "npy"}
        An archive in the published layout; or for each site ``{site_id}.tif`` (with several years
        ``{site_id}_{year}.tif``) or ``{site_id}.npy`` of shape (years, 64, height, width), int8 codes, north-up, with
        the pixels of its bounding box in its home zone. A site that needs another zone's tiles too is named in a
        warning, and has a file ``{site_id}.{zone}...`` for each such zone. In every format an index is written last,
        so that `open_source` and `gee_polygons.collection.load` read the folder, and give the same numbers.
    progress : callable, optional
        Called with (files done, files in all).

    Returns
    -------
    Path
        The index of the archive; for files of sites, the folder.

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
    wanted = sorted({*checked_years(years)} & set(source.years()))
    if not wanted:
        raise UsageError(f"the source has none of the years asked for; it has {source.years()}")
    folder = Path(out)
    _claim(folder, sites, wanted, source, format)
    report = progress or (lambda done, total: None)
    if format != "archive":
        write_site_files(folder, sites, wanted, source, format, report)
        return folder
    return _write_archive(folder / "v1" / "annual", Polygons(sites.polygons), wanted, source, report)


def _claim(folder: Path, sites: Any, years: Sequence[int], source: CogSource, format: str) -> None:
    """Write into a new folder what is downloaded to it; raise an error if the folder was used for something else."""
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
            known = None
        if not isinstance(known, dict) or known.get("what") != ours["what"]:
            raise OutputError(f"{manifest} is damaged or isn't a download's; give a new or empty folder")
        different = [key for key, value in ours.items() if known.get(key) != value]
        if different:
            raise OutputError(
                f"{folder} holds a download with another value of {different[0]!r}; to continue it, give the same "
                "arguments, else another folder"
            )
    elif folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; give a new or empty folder")
    elif folder.exists() and any(folder.iterdir()):
        raise OutputError(f"{folder} has other files in it; give a new or empty folder")
    else:
        with replacing(manifest) as part:
            said = {**ours, "attribution": credit(synthetic=source.index.synthetic)}
            part.write_text(json.dumps(said, indent=1) + "\n", "utf-8")


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
    cells = _cells(plans, polygons, tiles)
    for number, (tile, name) in enumerate(zip(tiles, _names(tiles), strict=True)):
        target = root / name
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            _copy(tile, cells[tile.place, tile.year], source, target)
        report(number + 1, len(tiles))
    path = root / INDEX_NAME
    _write_index(path, index, tiles, source)  # last: where it is, everything is
    return path


def _rows(polygons: Polygons, years: Sequence[int], source: CogSource) -> TileIndex:
    """Return the index rows of the polygons' home zones, and of all zones whose cells they touch."""
    archive = source.near(polygons)
    index = archive.of_years(years)
    parts = {(i, str(crs)) for i, crs in enumerate(home_crs(polygons, archive))}
    for i, bounds in enumerate(shapely.bounds(polygons.geometries)):
        parts |= {(i, crs) for crs, _ in cells_touched(tuple(bounds))}
    return index.take(rows_near(polygons, [ZonePart(i, crs) for i, crs in sorted(parts)], index))


def _cells(plans: Sequence[Plan], polygons: Polygons, tiles: Sequence[Tile]) -> dict[tuple[str, int], set[Window]]:
    """Return, by tile, the blocks of its local copy that hold pixels of polygons that the plans read."""
    grids = {(tile.place, tile.year): tile.grid for tile in tiles}
    found: dict[tuple[str, int], set[Window]] = defaultdict(set)
    for plan in plans:
        for job in plan.jobs:
            bounds = polygons.pieces([plan.pieces[i] for i in job.pieces]).bounds()
            first, last = np.floor(bounds[:, :2]).astype(int), np.ceil(bounds[:, 2:]).astype(int)
            windows = [Window(y, x, y1 - y, x1 - x) for x, y, x1, y1 in np.hstack([first, last]).tolist()]
            for ref in (part for read in job.reads for part in (read, *read.preceding)):
                grid = grids[ref.tile, ref.year]
                size, (height, width) = block_size(grid), grid.shape
                inside = [common for window in windows if (common := window.intersection(ref.inside))]
                found[ref.tile, ref.year] |= {
                    grid.part(row * size, col * size, min(size, height - row * size), min(size, width - col * size))
                    for window in inside
                    for row, col in grid.blocks(window, (size, size))
                }
    return found


def _copy(tile: Tile, cells: set[Window], source: CogSource, target: Path) -> None:
    """Write some blocks of a tile's local copy, of their own size, on the tile's whole grid.

    Held at a time: those in one row of the tile's blocks.
    """
    size = block_size(tile.grid)
    height = math.lcm(size, tile.block_shape[0])  # of a strip of whole blocks, the tile's and the copy's
    strips: dict[int, list[Window]] = defaultdict(list)
    for cell in sorted(cells):
        strips[tile.grid.in_file(cell.row, cell.col)[0] // height].append(cell)
    pixels: dict[Window, NDArray[np.int8]] = {}
    held = -1

    def pixels_of(cell: Window) -> NDArray[np.int8] | None:
        nonlocal pixels, held
        strip = tile.grid.in_file(cell.row, cell.col)[0] // height
        if strip != held:
            held, pixels = strip, {}  # freed before the next ones are read
            regions = [Region(tile.grid.lattice, window, (tile,)) for window in strips[strip]]
            patches = read_regions(source, regions, [tile.year], BANDS)
            pixels = {window: patch.values[0] for window, patch in zip(strips[strip], patches, strict=True)}
        return pixels.get(cell)

    write_tile(
        target, tile.grid, pixels_of, block=size, metadata={"YEAR": str(tile.year)},
        description="cut from the AlphaEarth Foundations Satellite Embedding dataset by gee_polygons", max_workers=1,
        copyright=credit(synthetic=source.index.synthetic),
    )  # fmt: skip


def _names(tiles: Sequence[Tile]) -> list[str]:
    """Return the places of local tiles, as published: year / zone / name.

    Numbered in the order of the originals' places: where tiles overlap it decides which one's pixels count.
    """
    order = {place: number for number, place in enumerate(sorted({tile.place for tile in tiles}), 1)}
    names = []
    for tile in tiles:
        stem = tile.place.rsplit("/", 1)[-1].rsplit(".", 1)[0]
        names.append(f"{tile.year}/{zone_name(tile.grid.crs)}/{order[tile.place]:06d}-{stem}.tiff")
    return names


def _write_index(path: Path, index: TileIndex, tiles: Sequence[Tile], source: CogSource) -> None:
    columns = zip(index.crs, index.year, index.utm, index.wgs84, _names(tiles), strict=True)
    rows = [index_row(str(crs), int(year), utm, wgs84, name) for crs, year, utm, wgs84, name in columns]
    metadata = {"gee_polygons": json.dumps({"downloaded_from": source.archive})}
    metadata["attribution"] = credit(synthetic=source.index.synthetic)
    if source.index.synthetic:
        metadata["synthetic"] = "cut from a synthetic archive"
    write_index(path, rows, metadata)
