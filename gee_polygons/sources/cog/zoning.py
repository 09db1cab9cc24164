"""Chooses the UTM zone, or zones, that each polygon is measured in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import shapely
from numpy.typing import NDArray

from gee_polygons.errors import TileError
from gee_polygons.reduction.plan import Piece
from gee_polygons.reduction.polygons import Polygons
from gee_polygons.sources.cog.index import TileIndex
from gee_polygons.sources.cog.tile import Tile
from gee_polygons.zonal.grid import Lattice
from gee_polygons.zonal.projection import project_outline
from gee_polygons.zonal.zones import cells_touched, home_zones

Box = tuple[float, float, float, float]

_TOUCH_M2: Final = 1e-4  # a millionth of a pixel: sharing an edge with a file is not touching it


@dataclass(frozen=True)
class ZonePart:
    """A polygon, or its part inside a zone's cell, measured in one zone.

    `clip` is the box (degrees) that the part lies in; None: the whole polygon. `skip` are the years in which the
    polygon is measured by its other parts.
    """

    polygon: int
    crs: str
    clip: Box | None = None
    skip: frozenset[int] = frozenset()

    def clipped(self, polygons: Polygons) -> Any:
        """Return the polygon, or its part inside the cell, in EPSG:4326."""
        polygon = polygons.geometries[self.polygon]
        return polygon if self.clip is None else shapely.intersection(polygon, shapely.box(*self.clip))


def home_crs(polygons: Polygons, archive: TileIndex) -> NDArray[np.object_]:
    """Return the zone of each polygon's centroid, or another zone if only that one has valid pixels there.

    A tile's wgs84 box holds its valid pixels and ends at the zone's edge. Where it holds a centroid outside its nominal
    zone, the archive's zones are irregular (as UTM's are around Norway), and the archive is followed.
    """
    home = home_zones(polygons.geometries).astype(object)
    if not len(archive):
        return home
    claims = shapely.STRtree(shapely.box(*archive.wgs84.T))
    for crs in sorted(set(home)):
        members = np.flatnonzero(home == crs)
        rows = np.flatnonzero(archive.crs == crs)
        if len(rows):
            members = members[~_hits(polygons.bounds(crs, members), archive.utm[rows]).any(axis=0)]
        claimed: dict[int, str] = {}
        for i, row in claims.query(shapely.centroid(polygons.geometries[members]), predicate="intersects").T:
            other = str(archive.crs[row])
            claimed[i] = min(claimed.get(i, other), other)
        for i, other in claimed.items():
            home[members[i]] = other
    return home


def zone_parts(polygons: Polygons, index: TileIndex, archive: TileIndex) -> list[ZonePart]:
    """Choose each polygon's zone, or zones.

    Only a polygon that its home zone's tiles don't cover is split at the zone boundary, year by year; its parts lie
    in different zones, so that no ground is counted twice.

    Parameters
    ----------
    polygons : Polygons
        EPSG:4326.
    index : TileIndex
        Tiles of the years to be read.
    archive : TileIndex
        Tiles of all years, so that a polygon's zone doesn't depend on the years that are read.
    """
    home = home_crs(polygons, archive)
    years = frozenset(int(year) for year in index.year)
    split: dict[int, frozenset[int]] = {}
    cut: list[ZonePart] = []
    for i, cells in _across_cells(polygons):
        split[i] = frozenset(year for year in years if not _covered(polygons.geometries[i], str(home[i]), index, year))
        if split[i]:
            cut += [ZonePart(i, crs, cell, years - split[i]) for crs, cell in cells]
    none: frozenset[int] = frozenset()
    return [ZonePart(i, str(crs), None, split.get(i, none)) for i, crs in enumerate(home)] + cut


def split_parts(polygons: Polygons, pairs: Iterable[tuple[int, int]], index: TileIndex) -> list[ZonePart]:
    """Split polygons at the zone boundary in the years named by (polygon, year) pairs.

    For polygons that the files of their home zone cover, but with no data beyond the boundary. Pairs that lie within
    one zone, or were split before, give no part.
    """
    wanted: dict[int, set[int]] = defaultdict(set)
    for polygon, year in pairs:
        wanted[polygon].add(year)
    across = list(_across_cells(polygons))
    if not across:
        return []
    years = frozenset(int(year) for year in index.year)
    home = home_crs(polygons, index)
    parts: list[ZonePart] = []
    for i, cells in across:
        now = {y for y in wanted.get(i, ()) if _covered(polygons.geometries[i], str(home[i]), index, y)}
        if now:
            parts += [ZonePart(i, crs, cell, years - now) for crs, cell in cells]
    return parts


def _across_cells(polygons: Polygons) -> Iterator[tuple[int, list[tuple[str, Box]]]]:
    """Yield the polygons that lie in several zones, with those zones and their boxes of degrees."""
    bounds = shapely.bounds(polygons.geometries)
    for i in np.flatnonzero(crosses_cells(bounds)).tolist():
        cells = [
            (crs, cell)
            for crs, cell in cells_touched(tuple(bounds[i]))
            if shapely.intersection(polygons.geometries[i], shapely.box(*cell)).area > 0
        ]
        if len(cells) > 1:
            yield i, cells


def crosses_cells(bounds: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which bounding boxes, in degrees, lie in several zones."""
    west, south, east, north = bounds.T
    crosses: NDArray[np.bool_] = (np.floor((west + 180) / 6) != np.floor((east + 180) / 6)) | (
        (south < 0) & (north > 0)
    )
    return crosses


def rows_near(polygons: Polygons, parts: Sequence[ZonePart], index: TileIndex) -> NDArray[np.int64]:
    """Return the index rows whose files touch the bounding box of a part measured in their zone."""
    by_crs: dict[str, set[int]] = defaultdict(set)
    for part in parts:
        by_crs[part.crs].add(part.polygon)
    near = [np.zeros(0, np.int64)]
    for crs, members in by_crs.items():
        rows = np.flatnonzero(index.crs == crs)
        if len(rows):
            bounds = polygons.bounds(crs, np.array(sorted(members), np.int64))
            near.append(rows[_hits(bounds, index.utm[rows]).any(axis=1)])
    return np.unique(np.concatenate(near))


def polygons_near(
    polygons: Polygons, parts: Sequence[ZonePart], index: TileIndex, place: str, year: int
) -> tuple[int, ...]:
    """Return the polygons that one file of the index holds pixels of, in a year."""
    row = int(np.flatnonzero((index.place == place) & (index.year == year))[0])
    crs, file = str(index.crs[row]), shapely.box(*index.utm[row])
    members = [part for part in parts if part.crs == crs and year not in part.skip]
    bounds = polygons.bounds(crs, np.array([part.polygon for part in members], np.int64))
    near = [part for part, hit in zip(members, _hits(bounds, index.utm[row : row + 1])[0], strict=True) if hit]
    touched: set[int] = set()
    for part in near:
        projected = project_outline(part.clipped(polygons), crs)
        # a quarter, of what is smaller than a touch: a point that was widened
        if shapely.intersection(projected, file).area > min(_TOUCH_M2, projected.area / 4):
            touched.add(part.polygon)
    return tuple(sorted(touched))


def misaligned(tiles: Sequence[Tile]) -> dict[tuple[str, int], TileError]:
    """Return the tiles whose grid differs from the first one's (by path) of their zone and year, by place and year.

    Their pixels could be counted twice, so polygons that touch one of them can't be measured.
    """
    owner: dict[tuple[str, int], Tile] = {}
    found: dict[tuple[str, int], TileError] = {}
    for tile in sorted(tiles, key=lambda tile: tile.place):
        first = owner.setdefault((tile.grid.crs, tile.year), tile)
        if first.grid.lattice != tile.grid.lattice:
            found[tile.place, tile.year] = TileError(
                f"{tile.place}: its pixels don't line up with those of {first.place}, same zone and year"
            )
    return found


def pieces_on_lattices(parts: Sequence[ZonePart], tiles: Sequence[Tile], years: Sequence[int]) -> list[Piece]:
    """Put each part on the pixel grid of its zone's tiles, which match within a year: see `misaligned`."""
    grids: dict[str, dict[Lattice, set[int]]] = defaultdict(lambda: defaultdict(set))
    for tile in tiles:
        grids[tile.grid.crs][tile.grid.lattice].add(tile.year)
    pieces: list[Piece] = []
    on: dict[str, list[tuple[Lattice, set[int]]]] = {}  # each zone's grids, with the years that they don't have
    for part in parts:
        if part.crs not in on:
            # without a tile there is nothing to read, but the polygon's area still counts
            lattices = grids.get(part.crs) or {Lattice(part.crs, 10.0, 10.0): set(years)}
            on[part.crs] = [
                (lattice, set(years) - lattices[lattice] if len(lattices) > 1 else set())
                for lattice in sorted(lattices)
            ]
        for lattice, elsewhere in on[part.crs]:
            skip = tuple(sorted(part.skip | elsewhere)) if part.skip or elsewhere else ()
            pieces.append(Piece(part.polygon, lattice, part.clip, skip))
    return pieces


def _hits(bounds: NDArray[np.float64], files: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which bounding boxes touch which files, shape (files, boxes).

    Comparing all with all takes a millisecond for a tile and a million boxes: a tree of boxes takes longer to build.
    """
    hits = np.empty((len(files), len(bounds)), np.bool_)
    west, south, east, north = bounds.T
    for row, (left, bottom, right, top) in zip(hits, files, strict=True):
        np.logical_and((west <= right) & (east >= left), (south <= top) & (north >= bottom), out=row)
    return hits


def _covered(polygon: Any, crs: str, index: TileIndex, year: int) -> bool:
    """Whether the zone's files of a year cover a polygon, in pixels."""
    rows = np.flatnonzero((index.crs == crs) & (index.year == year))
    if not len(rows):
        return False
    files = shapely.union_all(shapely.box(*index.utm[rows].T))
    return bool(files.covers(project_outline(polygon, crs)))
