"""Reads areas that lie in several UTM zones: a window in each zone, and no ground in two of them.

As in an extraction, an area belongs to the zone of its centroid, whose tiles reach past the zone's edge. Only an area
that they don't cover is cut at the edge: then each zone gives the pixels whose centres lie in its own 6 degrees.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import shapely

from gee_polygons.reduction.polygons import Polygons
from gee_polygons.sources.cog.index import TileIndex
from gee_polygons.sources.cog.patches import Patch, Region, inside, open_near, region_of, stream_regions
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
    # where only the home zone has tiles, nothing can be counted twice: the area stays whole
    whole = [home[i] for i in range(len(areas)) if {r.lattice.crs for r in found.get(i, ())} <= {home[i].crs}]
    tiles = open_near(source, areas, whole, index, bands)
    for part in whole:
        found[part.polygon] = [region_of(areas, part, tiles[part.crs])]
    return [_home_first(found[i], home[i].crs) for i in range(len(areas))]


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
    """Return the windows of `parts_of`, with more areas cut where that gives more pixels.

    These are areas across a zone's edge whose home zone has files beyond the edge, but no data in them. To find out,
    the first band of the areas across an edge is read.
    """
    parts = parts_of(source, areas, years, bands)
    crosses = crosses_cells(shapely.bounds(areas.geometries)) if len(areas) else np.zeros(0, np.bool_)
    across = [i for i in np.flatnonzero(crosses).tolist() if len(parts[i]) == 1]
    seen = dict(zip(across, _read(source, [parts[i] for i in across], years, bands[:1]), strict=True))
    incomplete: list[tuple[int, int]] = []
    for i, (patch,) in seen.items():
        touched = inside(areas, i, patch)
        valid = np.asarray(patch.valid.all(axis=1))
        incomplete += [(i, year) for y, year in enumerate(years) if not valid[y][touched].all()]
    if not incomplete:
        return parts
    index = source.near(areas).of_years(years)
    cut = _cut(source, areas, split_parts(areas, incomplete, index), index, bands)
    for (i, regions), patches in zip(cut.items(), _read(source, list(cut.values()), years, bands[:1]), strict=True):
        if _count(areas, i, patches) > _count(areas, i, seen[i]):
            parts[i] = _home_first(regions, parts[i][0].lattice.crs)
    return parts


def _home_first(regions: Sequence[Region], home: str) -> list[Region]:
    return sorted(regions, key=lambda region: (region.lattice.crs != home, region.lattice.crs))


def stream_parts(
    source: CogSource, areas: Polygons, years: Sequence[int], bands: Sequence[str]
) -> Iterator[tuple[int, list[Patch]]]:
    """Read the windows of `settled_parts`; yield (number, patches) of each area when all its blocks are decoded.

    Raises
    ------
    ReadError
        Naming the file and the geometry, if a read fails.
    """
    yield from _stream(source, settled_parts(source, areas, years, bands), years, bands)


def _read(
    source: CogSource, parts: Sequence[Sequence[Region]], years: Sequence[int], bands: Sequence[str]
) -> list[list[Patch]]:
    found = dict(_stream(source, parts, years, bands))
    return [found[i] for i in range(len(parts))]


def _stream(
    source: CogSource, parts: Sequence[Sequence[Region]], years: Sequence[int], bands: Sequence[str]
) -> Iterator[tuple[int, list[Patch]]]:
    """Read all windows at once, so that a block is read once however many of them touch it."""
    owners = [(i, part) for i, regions in enumerate(parts) for part in range(len(regions))]
    found: dict[int, dict[int, Patch]] = defaultdict(dict)
    for number, patch in stream_regions(source, [region for some in parts for region in some], years, bands):
        i, part = owners[number]
        found[i][part] = patch
        if len(found[i]) == len(parts[i]):
            patches = found.pop(i)
            yield i, [patches[n] for n in range(len(patches))]


def _count(areas: Polygons, number: int, patches: Sequence[Patch]) -> int:
    """Count the pixels with data inside an area."""
    touched = [inside(areas, number, patch) for patch in patches]
    return sum(int((patch.valid.all(axis=1) & here).sum()) for patch, here in zip(patches, touched, strict=True))
