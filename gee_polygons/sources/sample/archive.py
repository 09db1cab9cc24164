"""Writes the sample archive: synthetic tiles in the published layout, for demos, tests and benchmarks.

All values are computed by `gee_polygons.sources.sample.landscape`, and each file says so: none is AlphaEarth's. The
layout is the published one: planar int8 tiles of 64 bands, south-up, in UTM, beside an index with the published
columns; `path` in the index is relative to the index's folder, so that an archive can be moved.

The scene lies in south-east Brazil, where UTM zones 22S and 23S meet (48 W). Tiles A and B (zone 22S) abut, B and C
(zone 23S) both reach 1 km across the seam::

         A (22S)             B (22S)   48 W
    |-------------------|--------------:-----|
                                 |-----:-------------|
                                        C (23S)

Tile A is missing in 2020. C in 2021 and B in 2022 have nodata in a part of their overlap with the other zone. A
reservoir is nodata in all years.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from gee_polygons.errors import OutputError
from gee_polygons.periods import checked_years
from gee_polygons.progress import Progress, report_progress
from gee_polygons.reduction.threads import in_order
from gee_polygons.sources.cog.index_file import index_row, write_index
from gee_polygons.sources.cog.writing import write_tile
from gee_polygons.sources.sample.kernel import UNLABELLED
from gee_polygons.sources.sample.landscape import PIXEL_M
from gee_polygons.sources.sample.scene import holds_sample_sites, truth_codes, truth_label
from gee_polygons.store.atomic import remove_leftovers, replacing, temporary_name
from gee_polygons.store.cache import cache_folder
from gee_polygons.version import package_version
from gee_polygons.zonal.grid import Grid
from gee_polygons.zonal.projection import transformer
from gee_polygons.zonal.zones import zone_cell

SAMPLE_YEARS: Final = range(2018, 2025)
INDEX_PATH: Final = Path("v1/annual/aef_index.parquet")
MANIFEST: Final = "manifest.json"
NOTE: Final = "SYNTHETIC.txt"
SITES_NAME: Final = "sample_sites.geojson"
SYNTHETIC: Final = "SYNTHETIC test data made by gee_polygons; not AlphaEarth data, no real place"

_GENERATOR = 1  # counts the changes of pixel values or layout, so that an older archive is rebuilt
_TILE_PX, _BLOCK_PX = 320, 128

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Tile:
    """Position of a tile; each year has a file of its own."""

    name: str
    zone: str
    west: float
    south: float

    @property
    def crs(self) -> str:
        return f"EPSG:327{self.zone[:2]}"

    @property
    def grid(self) -> Grid:
        """South-up, as published: row 0 is the southern edge."""
        return Grid(
            crs=self.crs,
            transform=(PIXEL_M, 0.0, self.west, 0.0, PIXEL_M, self.south),
            shape=(_TILE_PX, _TILE_PX),
        )

    def path(self, year: int) -> str:
        """Return the file of a year, relative to the index; the id says nothing about place and differs by year."""
        tag = hashlib.blake2b(f"{self.name} {year}".encode(), digest_size=8).hexdigest()
        return f"{year}/{self.zone}/x{tag}-0000000000-0000000000.tiff"


_TILES = (
    _Tile("A", "22S", 803_600.0, 7_523_750.0),
    _Tile("B", "22S", 806_800.0, 7_523_750.0),
    _Tile("C", "23S", 190_000.0, 7_523_750.0),
)
_MISSING = {("A", 2020)}


def sample_archive_path() -> Path:
    """Return the folder of the sample archive that ``open_source("sample")`` reads, building it on first use.

    It lies in the folder named by the environment variable ``GEE_POLYGONS_CACHE``, else in the user's cache folder.
    """
    folder = cache_folder() / f"sample-{package_version()}"
    if not _is_complete(folder, SAMPLE_YEARS):
        _log.info("building the synthetic sample archive in %s (about 90 MB, once)", folder)
        build_sample_archive(folder)
    return folder


def build_sample_archive(
    out: Path | str,
    *,
    years: int | Iterable[int] = SAMPLE_YEARS,
    progress: Progress = False,
    max_workers: int | None = None,
) -> Path:
    """Build the synthetic sample archive, or reuse the one that is there.

    Parameters
    ----------
    out : path
        Folder of the archive. It is built under a temporary name beside it and renamed when complete. A complete
        archive of the same years is left as it is; a damaged one, or one of other years, is replaced, unless the
        folder holds a file that its ``manifest.json`` doesn't list.
    years : int or iterable of int
        Years to build, about 13 MB each.
    progress : bool or callable
        True for a progress bar; a callable is called with (tiles done, tiles in all).
    max_workers : int, optional
        Threads; as many as cores without it. Doesn't change a byte.

    Returns
    -------
    Path
        The index, ``<out>/v1/annual/aef_index.parquet``.

    Raises
    ------
    OutputError
        If `out` is a file, or a folder with files that this function didn't write: nothing is deleted then.
    UsageError
        For no years, or what isn't a year.

    Examples
    --------
    >>> import tempfile
    >>> build_sample_archive(Path(tempfile.mkdtemp()) / "sample", years=[2018]).name
    'aef_index.parquet'
    """
    out, wanted = Path(out), checked_years(years)
    if _is_complete(out, wanted):
        return out / INDEX_PATH
    _refuse_foreign(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(out.parent.absolute())
        building = temporary_name(out)
        building.mkdir()
    except OSError as error:
        raise OutputError(
            f"can't write the sample archive to {out}: {error.strerror or error}; choose a folder that you may write "
            "to; GEE_POLYGONS_CACHE names that of the source 'sample'"
        ) from error
    try:
        _build(building, wanted, progress, max_workers)
        _swap(building, out, wanted)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return out / INDEX_PATH


def _parameters(years: Iterable[int]) -> dict[str, Any]:
    return {"what": SYNTHETIC, "package": package_version(), "generator": _GENERATOR, "years": list(years)}


def _is_complete(out: Path, years: Iterable[int]) -> bool:
    """Whether a folder holds a finished archive of these years and this generator."""
    manifest, wanted = _manifest(out), _parameters(years)
    if {key: manifest.get(key) for key in wanted} != wanted:
        return False
    try:
        return all((out / name).stat().st_size == size for name, size in manifest["files"].items())
    except OSError:
        return False


def _manifest(out: Path) -> dict[str, Any]:
    """Return the manifest of a sample archive; without a valid one, a manifest that lists no files."""
    try:
        manifest = json.loads((out / MANIFEST).read_text("utf-8"))
        if manifest["what"] == SYNTHETIC and isinstance(manifest["files"], dict):
            return dict(manifest)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return {"files": {}}


def _refuse_foreign(out: Path) -> None:
    """Raise an error unless everything in a folder is listed in the manifest written with it."""
    if not out.is_dir():
        if out.exists() or out.is_symlink():
            raise OutputError(f"{out} is a file; give a new or empty folder")
        return
    written = _manifest(out)["files"]
    own = {out / name for name in written} | ({out / MANIFEST} if written else set())
    if holds_sample_sites(out / SITES_NAME):  # `gee-polygons sample` writes it, and writes it again
        own.add(out / SITES_NAME)
    others = [path for path in sorted(out.rglob("*")) if path not in own and (path.is_symlink() or not path.is_dir())]
    if others:
        raise OutputError(
            f"{out} holds other files, such as {others[0].relative_to(out)}, which would be lost: the sample archive "
            "replaces only files that its manifest lists; give a new or empty folder, or remove them"
        )


def _swap(building: Path, out: Path, years: tuple[int, ...]) -> None:
    """Put the finished folder in its place; if another process was first, its archive (of the same bytes) stays."""
    old = temporary_name(out, "old")
    try:
        if out.exists():
            if _is_complete(out, years):
                return
            _refuse_foreign(out)  # again: the tiles took a while, and somebody may have saved a file there
            out.rename(old)
        building.rename(out)
    except OutputError:
        raise
    except OSError as error:
        if not _is_complete(out, years):
            raise OutputError(f"can't move the finished archive to {out}: {error}") from error
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _build(folder: Path, years: tuple[int, ...], progress: Progress, max_workers: int | None) -> None:
    # written first, so that a half-built folder says what it is
    (folder / NOTE).write_text(f"{SYNTHETIC}.\n\n{__doc__}\nMade by gee_polygons {package_version()}.\n", "utf-8")
    root = folder / INDEX_PATH.parent
    jobs = [(tile, year) for year in years for tile in _TILES if (tile.name, year) not in _MISSING]
    for tile, year in jobs:
        (root / tile.path(year)).parent.mkdir(parents=True, exist_ok=True)
    rows = []
    with report_progress(progress, len(jobs), unit="tile", title="sample archive") as advance:
        for row in in_order(max_workers or os.cpu_count() or 1, lambda job: _write_sample_tile(root, *job), jobs):
            rows.append(row)
            advance(1)
    write_index(folder / INDEX_PATH, rows, {"synthetic": SYNTHETIC})
    files = {p.relative_to(folder).as_posix(): p.stat().st_size for p in sorted(folder.rglob("*")) if p.is_file()}
    with replacing(folder / MANIFEST) as part:
        part.write_text(json.dumps({**_parameters(years), "files": files}, indent=1) + "\n", "utf-8")


def _write_sample_tile(root: Path, tile: _Tile, year: int) -> dict[str, Any]:
    """Write the file of one place and year; returns its row of the index."""
    write_tile(
        root / tile.path(year),
        tile.grid,
        lambda window: truth_codes(tile.crs, window, year),
        block=_BLOCK_PX,
        description=SYNTHETIC,
        metadata={"SYNTHETIC": "YES", "YEAR": str(year), "GENERATOR": f"gee_polygons {package_version()}"},
        max_workers=1,
    )
    return index_row(tile.crs, year, tile.grid.bounds, _valid_bounds(tile, year), tile.path(year))


def _valid_bounds(tile: _Tile, year: int) -> tuple[float, float, float, float]:
    """Return west, south, east, north in degrees of the valid pixels, clipped at the zone's edges, as published."""
    window = tile.grid.window
    valid = truth_label(tile.crs, window, year) != UNLABELLED
    # bounds depend only on valid pixels at the rim or next to a masked one
    inner = np.zeros_like(valid)
    inner[1:-1, 1:-1] = valid[:-2, 1:-1] & valid[2:, 1:-1] & valid[1:-1, :-2] & valid[1:-1, 2:]
    rows, cols = np.nonzero(valid & ~inner)
    corner_x = np.concatenate([cols, cols + 1, cols, cols + 1])
    corner_y = np.concatenate([rows, rows, rows + 1, rows + 1])
    x, y = (window.col + corner_x) * PIXEL_M, -(window.row + corner_y) * PIXEL_M
    lon, lat = transformer(tile.crs, "EPSG:4326").transform(x, y)
    cell = zone_cell(tile.crs, lon[0])
    assert cell is not None
    inside = (lon >= cell[0]) & (lon <= cell[2])
    west, east = np.clip([lon.min(), lon.max()], cell[0], cell[2]).tolist()
    return west, float(lat[inside].min()), east, float(lat[inside].max())
