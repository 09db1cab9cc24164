"""Pixels of areas that one UTM zone doesn't hold: a window in each zone, and no ground in two of them.

As in an extraction, an area belongs to the zone of its centroid, whose tiles reach past the zone's edge. Only where
those don't cover it is it cut at the edge: then each zone gives the pixels whose centres lie in the zone's own cell.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import shapely

from gee_polygons.reduction.polygons import Polygons
from gee_polygons.sources.cog.index import TileIndex
from gee_polygons.sources.cog.patches import Patch, Region, inside, open_near, read_regions, region_of
from gee_polygons.sources.cog.zoning import ZonePart, crosses_cells, split_parts, zone_parts

if TYPE_CHECKING:
    from gee_polygons.sources.cog.source import CogSource


def parts_of(source: CogSource, areas: Polygons, years: Sequence[int], bands: Sequence[str]) -> list[list[Region]]:
    """Return each area's windows: one in its home zone, or one in each zone that it is cut into, its home first.

    Raises
    ------
    ReadError, TileError
        If a tile that an area touches can't be opened, naming both.
    """
    if not len(areas):
        return []
    archive = source.near(areas)
    index = archive.of_years(years)
    parts = zone_parts(areas, index, archive)
    found = _cut(source, areas, [part for part in parts if part.clip is not None], index, bands)
    home = {part.polygon: part for part in parts if part.clip is None}
    # with tiles at home alone there is nothing to be counted twice
    whole = [home[i] for i in range(len(areas)) if {r.lattice.crs for r in found.get(i, ())} <= {home[i].crs}]
    tiles = open_near(source, areas, whole, index, bands)
    for part in whole:
        found[part.polygon] = [region_of(areas, part, tiles[part.crs])]
    for i, regions in found.items():
        regions.sort(key=lambda region: (region.lattice.crs != home[i].crs, region.lattice.crs))
    return [found[i] for i in range(len(areas))]


def _cut(
    source: CogSource, areas: Polygons, parts: Sequence[ZonePart], index: TileIndex, bands: Sequence[str]
) -> dict[int, list[Region]]:
    """Return the windows of parts that have tiles, by area."""
    tiles = open_near(source, areas, parts, index, bands)
    found: dict[int, list[Region]] = defaultdict(list)
    for part in parts:
        region = region_of(areas, part, tiles[part.crs])
        if region.tiles:
            found[part.polygon].append(region)
    return dict(found)


def settled_parts(source: CogSource, areas: Polygons, years: Sequence[int], bands: Sequence[str]) -> list[list[Region]]:
    """Return each area's windows as `read_parts` reads them: of areas across a zone's edge, one band is looked at."""
    parts = parts_of(source, areas, years, bands)
    across = _across(areas, parts)
    seen = dict(zip(across, _read(source, [parts[i] for i in across], years, bands[:1]), strict=True))
    for i, (regions, _) in _cut_after_all(source, areas, years, bands[:1], seen).items():
        parts[i] = regions
    return parts


def read_parts(source: CogSource, areas: Polygons, years: Sequence[int], bands: Sequence[str]) -> list[list[Patch]]:
    """Read areas, each in its own zone, or in several: see `parts_of`.

    An area across a zone's edge whose home zone has files beyond it, but no data in them, is cut after all, if that
    gives more pixels.

    Raises
    ------
    ReadError
        Naming the file and the geometry, if a read fails.
    """
    parts = parts_of(source, areas, years, bands)
    found = _read(source, parts, years, bands)
    seen = {i: found[i] for i in _across(areas, parts)}
    for i, (_, patches) in _cut_after_all(source, areas, years, bands, seen).items():
        found[i] = patches
    return found


def _across(areas: Polygons, parts: Sequence[Sequence[Region]]) -> list[int]:
    """List the areas that reach into several zones' cells and aren't cut."""
    crosses = crosses_cells(shapely.bounds(areas.geometries)) if len(areas) else np.zeros(0, np.bool_)
    return [i for i in np.flatnonzero(crosses).tolist() if len(parts[i]) == 1]


def _cut_after_all(
    source: CogSource, areas: Polygons, years: Sequence[int], bands: Sequence[str], seen: dict[int, list[Patch]]
) -> dict[int, tuple[list[Region], list[Patch]]]:
    """Return the windows and pixels of areas that lack pixels at home and have more of them when they are cut."""
    incomplete = [
        (i, year)
        for i, (patch,) in seen.items()
        for y, year in enumerate(years)
        if not patch.valid[y].all(axis=0)[inside(areas, i, patch)].all()
    ]
    if not incomplete:
        return {}
    index = source.near(areas).of_years(years)
    others = _cut(source, areas, split_parts(areas, incomplete, index), index, bands)
    better: dict[int, tuple[list[Region], list[Patch]]] = {}
    for (i, regions), patches in zip(others.items(), _read(source, list(others.values()), years, bands), strict=True):
        if _count(areas, i, patches) > _count(areas, i, seen[i]):
            home = seen[i][0].grid.crs
            order = sorted(range(len(regions)), key=lambda n: (regions[n].lattice.crs != home, regions[n].lattice.crs))
            better[i] = [regions[n] for n in order], [patches[n] for n in order]
    return better


def _read(
    source: CogSource, parts: Sequence[Sequence[Region]], years: Sequence[int], bands: Sequence[str]
) -> list[list[Patch]]:
    """Read all windows at once, so that a block is read once however many of them touch it."""
    patches = iter(read_regions(source, [region for some in parts for region in some], years, bands))
    return [[next(patches) for _ in some] for some in parts]


def _count(areas: Polygons, number: int, patches: Sequence[Patch]) -> int:
    """Count the pixels with data inside an area."""
    touched = [inside(areas, number, patch) for patch in patches]
    return sum(int((patch.valid.all(axis=1) & here).sum()) for patch, here in zip(patches, touched, strict=True))
